//! What a piece of a line is, looked at from where it begins: pure functions over bytes.
//!
//! Each gives the mask that stands for the piece and where the piece ends, or nothing. None looks back further than
//! one byte, and none looks ahead further than the end of its own piece.

/// A mask and where what it stands for ends.
pub(super) type Found = Option<(&'static str, usize)>;

/// Separates tokens: white space and control characters of ASCII.
pub(super) fn is_space(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// A letter, or a part of a character beyond ASCII.
pub(super) fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

/// A letter or a digit.
pub(super) fn is_word(byte: u8) -> bool {
    is_letter(byte) || byte.is_ascii_digit()
}

/// Where the run of bytes that are `so` ends.
fn run(bytes: &[u8], mut at: usize, so: impl Fn(u8) -> bool) -> usize {
    while bytes.get(at).is_some_and(|b| so(*b)) {
        at += 1;
    }
    at
}

fn digits(bytes: &[u8], at: usize) -> usize {
    run(bytes, at, |b| b.is_ascii_digit())
}

fn has_digit_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_digit)
}

fn ends_at(bytes: &[u8], at: usize) -> bool {
    !bytes.get(at).is_some_and(|b| is_word(*b))
}

/// Where a number that begins with a digit here ends: digits, and more of them after `.`, `,` or `:`.
pub(super) fn number_end(bytes: &[u8], at: usize) -> usize {
    let mut end = digits(bytes, at);
    while matches!(bytes.get(end), Some(b'.' | b',' | b':')) && has_digit_at(bytes, end + 1) {
        end = digits(bytes, end + 1);
    }
    end
}

/// What begins with a letter and is a parameter nonetheless: a UUID, an address, an identifier, a URL.
pub(super) fn worded(bytes: &[u8], at: usize) -> Found {
    if at > 0 && is_word(bytes[at - 1]) {
        return None;
    }
    let end = run(bytes, at, is_word);
    match bytes.get(end) {
        Some(b'-') if end - at == 8 => {
            if let Some(found) = uuid(bytes, at) {
                return Some(found);
            }
        }
        Some(b':') if bytes[end..].starts_with(b"://") => {
            return Some(("<url>", until_stop(bytes, end + 3)));
        }
        Some(b':') if end - at == 1 && bytes.get(end + 1) == Some(&b'\\') => {
            return Some(("<path>", until_stop(bytes, end + 2)));
        }
        Some(b':') if end - at <= 4 => {
            if let Some(found) = ipv6(bytes, at) {
                return Some(found);
            }
        }
        _ => {}
    }
    is_mixed(&bytes[at..end]).then_some(("<id>", end))
}

/// Whether letters and digits take turns at least twice: nothing that people write, but hashes and keys.
fn is_mixed(word: &[u8]) -> bool {
    let turns = word
        .windows(2)
        .filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit());
    turns.take(2).count() == 2
}

/// What begins with a digit, or a sign before one.
pub(super) fn numeric(bytes: &[u8], from: usize) -> Found {
    let is_signed = matches!(bytes[from], b'+' | b'-');
    let starts_anew = from == 0 || !is_word(bytes[from - 1]);
    if is_signed && !(starts_anew && has_digit_at(bytes, from + 1)) {
        return None;
    }
    let at = from + usize::from(is_signed);
    let first = digits(bytes, at);
    if !is_signed {
        let found = match bytes.get(first) {
            Some(b'x' | b'X') if &bytes[at..first] == b"0" => hex(bytes, first + 1),
            Some(b'-' | b'/') => date(bytes, at, first).or_else(|| uuid(bytes, at)),
            Some(b':') => clock(bytes, at, first).or_else(|| ipv6(bytes, at)),
            Some(b'.') => ipv4(bytes, first),
            Some(b) if b.is_ascii_hexdigit() => uuid(bytes, at).or_else(|| ipv6(bytes, at)),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    let end = number_end(bytes, at);
    if ends_at(bytes, end) {
        return Some(("<num>", end));
    }
    if let Some(found) = with_units(bytes, at) {
        return Some(found);
    }
    if matches!(bytes[end], b'e' | b'E') {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(bytes, end + 1 + sign);
        if exponent > end + 1 + sign && ends_at(bytes, exponent) {
            return Some(("<num>", exponent));
        }
    }
    let word = run(bytes, first, is_word);
    if end == first && is_mixed(&bytes[at..word]) {
        return Some(("<id>", word));
    }
    Some(("<num>", end))
}

const DURATIONS: [&[u8]; 15] = [
    b"ns",
    b"us",
    "\u{b5}s".as_bytes(),
    "\u{3bc}s".as_bytes(),
    b"ms",
    b"s",
    b"sec",
    b"secs",
    b"m",
    b"min",
    b"mins",
    b"h",
    b"hr",
    b"hrs",
    b"d",
];
const SIZES: [&[u8]; 20] = [
    b"B", b"b", b"k", b"kb", b"K", b"kB", b"KB", b"KiB", b"Ki", b"M", b"mb", b"MB", b"MiB", b"Mi",
    b"G", b"gb", b"GB", b"GiB", b"Gi", b"TB",
];

/// Numbers with units: `3.5ms`, `1h30m`, `12MB`.
fn with_units(bytes: &[u8], mut at: usize) -> Found {
    let mut mask = None;
    while has_digit_at(bytes, at) {
        let unit = number_end(bytes, at);
        let end = run(bytes, unit, is_letter);
        let unit = &bytes[unit..end];
        let is = if DURATIONS.contains(&unit) {
            "<dur>"
        } else if SIZES.contains(&unit) {
            "<size>"
        } else {
            return None;
        };
        if mask.is_some_and(|m| m != is) {
            return None;
        }
        (mask, at) = (Some(is), end);
    }
    Some((mask?, at)).filter(|_| ends_at(bytes, at))
}

fn hex(bytes: &[u8], at: usize) -> Found {
    let end = run(bytes, at, |b| b.is_ascii_hexdigit());
    (end > at && ends_at(bytes, end)).then_some(("<hex>", end))
}

/// `0b6a7f10-1111-2222-3333-444455556666`.
fn uuid(bytes: &[u8], at: usize) -> Found {
    let piece = bytes.get(at..at + 36)?;
    let fits = piece.iter().enumerate().all(|(i, b)| match i {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    (fits && ends_at(bytes, at + 36)).then_some(("<uuid>", at + 36))
}

/// Four numbers with points between, and a port or the length of a prefix after them.
fn ipv4(bytes: &[u8], first: usize) -> Found {
    let mut end = first;
    for _ in 0..3 {
        if bytes.get(end) != Some(&b'.') || !has_digit_at(bytes, end + 1) {
            return None;
        }
        end = digits(bytes, end + 1);
    }
    if bytes.get(end) == Some(&b'.') && has_digit_at(bytes, end + 1) {
        return None;
    }
    if matches!(bytes.get(end), Some(b':' | b'/')) && has_digit_at(bytes, end + 1) {
        end = digits(bytes, end + 1);
    }
    ends_at(bytes, end).then_some(("<ip>", end))
}

/// An IPv6 address with `::` and a digit in it or all of its eight groups; or a hardware address.
pub(super) fn ipv6(bytes: &[u8], at: usize) -> Found {
    if at > 0 && (is_word(bytes[at - 1]) || bytes[at - 1] == b':') {
        return None;
    }
    let mut end = run(bytes, at, |b| b.is_ascii_hexdigit() || b == b':');
    let is_short = bytes[at..end].windows(2).any(|w| w == b"::");
    if bytes[at..end].ends_with(b":") && !bytes[at..end].ends_with(b"::") {
        end -= 1; // a mark of the sentence
    }
    let piece = &bytes[at..end];
    let colons = piece.split(|b| *b == b':').count() - 1;
    if piece.len() > 39 || !ends_at(bytes, end) {
        return None;
    }
    let has_digit = piece.iter().any(u8::is_ascii_digit);
    if (is_short && has_digit && colons <= 7) || (colons == 7 && !piece.starts_with(b":")) {
        return Some(("<ip>", end));
    }
    let is_hardware =
        colons == 5 && piece.len() == 17 && piece.iter().skip(2).step_by(3).all(|b| *b == b':');
    is_hardware.then_some(("<hex>", end))
}

/// `2026-01-31`, `2026/01/31` or `31/Jan/2026`, and a time of day right after it.
fn date(bytes: &[u8], at: usize, first: usize) -> Found {
    let mark = bytes[first];
    let middle = run(bytes, first + 1, |b| b.is_ascii_alphanumeric());
    if bytes.get(middle) != Some(&mark) {
        return None;
    }
    let end = digits(bytes, middle + 1);
    let lengths = (first - at, middle - first - 1, end - middle - 1);
    let is_named = bytes[first + 1].is_ascii_alphabetic();
    let fits = match lengths {
        (4, 2, 2) => digits(bytes, first + 1) == middle,
        (2, 3, 4) => mark == b'/' && is_named,
        _ => false,
    };
    if !fits {
        return None;
    }
    if matches!(bytes.get(end), Some(b'T' | b't' | b':' | b'_')) && has_digit_at(bytes, end + 1) {
        let first = digits(bytes, end + 1);
        if let Some(found) = clock(bytes, end + 1, first) {
            return Some(found);
        }
    }
    ends_at(bytes, end).then_some(("<time>", end))
}

/// `12:00:00`, with a fraction and a zone.
fn clock(bytes: &[u8], at: usize, first: usize) -> Found {
    let mut end = first;
    for _ in 0..2 {
        if bytes.get(end) != Some(&b':') || digits(bytes, end + 1) != end + 3 {
            return None;
        }
        end += 3;
    }
    if first - at > 2 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'.' | b',')) && has_digit_at(bytes, end + 1) {
        end = digits(bytes, end + 1);
    }
    if matches!(bytes.get(end), Some(b'Z' | b'z')) {
        end += 1;
    } else if matches!(bytes.get(end), Some(b'+' | b'-')) && has_digit_at(bytes, end + 1) {
        end = number_end(bytes, end + 1);
    }
    ends_at(bytes, end).then_some(("<time>", end))
}

/// A path that begins with `/`, `~/`, `./` or `../`.
pub(super) fn path(bytes: &[u8], at: usize) -> Found {
    if at > 0 && (is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'/' | b'.')) {
        return None;
    }
    let slash = match &bytes[at..] {
        [b'/', ..] => at,
        [b'~' | b'.', b'/', ..] => at + 1,
        [b'.', b'.', b'/', ..] => at + 2,
        _ => return None,
    };
    let end = until_stop(bytes, slash + 1);
    (end > slash + 1).then_some(("<path>", end))
}

/// Where a path or a URL ends; marks at its end belong to the sentence.
fn until_stop(bytes: &[u8], at: usize) -> usize {
    let mut end = run(bytes, at, |b| {
        !is_space(b)
            && !matches!(
                b,
                b'"' | b'\''
                    | b'`'
                    | b'<'
                    | b'>'
                    | b'|'
                    | b','
                    | b';'
                    | b'('
                    | b')'
                    | b'['
                    | b']'
                    | b'{'
                    | b'}'
            )
    });
    while end > at && matches!(bytes[end - 1], b'.' | b':' | b'!' | b'?') {
        end -= 1;
    }
    end
}

/// 64 bits of some bytes, the same in every version and on every machine; never 0. Not for what an attacker must not
/// be able to find two of.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = mix(0x9e37_79b9_7f4a_7c15, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state, u64::from_le_bytes(word));
    }
    state.max(1)
}

/// Mixes one more word in: the two halves of a product, folded.
pub(super) fn mix(state: u64, word: u64) -> u64 {
    let product =
        u128::from(state ^ 0xa076_1d64_78bd_642f) * u128::from(word ^ 0xe703_7ed1_a0b4_28db);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are what is wanted"
    )]
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded.wrapping_add(state.rotate_left(23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_hash_stays_what_it_is() {
        // Saved states hold these: another function needs another version of them.
        assert_eq!(hash(b""), 6_629_468_317_878_863_175);
        assert_eq!(hash(b"database is locked"), 13_878_780_642_122_102_577);
        let all: BTreeSet<u64> = (0..100_000_u32)
            .map(|i| hash(format!("w{i}").as_bytes()))
            .collect();
        assert_eq!(all.len(), 100_000);
    }
}
