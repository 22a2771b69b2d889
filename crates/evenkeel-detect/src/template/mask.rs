//! One line cut into tokens, with a mask where something varies from line to line: numbers, times, durations, sizes,
//! addresses, identifiers, paths, quoted strings.
//!
//! One pass over the bytes, no allocation once the buffers have grown. What a mask stands for never depends on how
//! many digits a number has, so that lines which differ in their numbers only become the same tokens.

use super::scan;
use crate::limits::{LINE_SCANNED_MAX, LINE_TOKENS_MAX, TOKEN_LEN_MAX};

/// One token of a masked line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Where its text begins in [`Masked::text`].
    start: usize,
    /// And where it ends.
    end: usize,
    /// Hash of its text, never 0.
    pub(super) hash: u64,
}

/// A masked line; reused from line to line.
#[derive(Clone, Debug, Default)]
pub(super) struct Masked {
    text: String,
    tokens: Vec<Token>,
    words: u64,
    /// Quotes of which no closing one comes any more: `"`, `'` and a backtick.
    unclosed: [bool; 3],
}

/// What stands for whatever comes after the last token that is looked at.
const MORE: &str = "<more>";
/// What stands for a token that is too long to be a word.
const LONG: &str = "<long>";
/// What stands for a line without any text.
const EMPTY: &str = "<empty>";

impl Masked {
    /// The tokens: at least one, at most [`LINE_TOKENS_MAX`].
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The text of one of them.
    pub(super) fn text_of(&self, token: &Token) -> &str {
        &self.text[token.start..token.end]
    }

    /// Which tokens are words and not parameters alone, as bits: the first token is the lowest.
    pub(super) fn words(&self) -> u64 {
        self.words
    }

    /// Hash of the whole line as masked.
    pub(super) fn hash(&self) -> u64 {
        let seed = self.tokens.len() as u64;
        self.tokens.iter().fold(seed, |h, t| scan::mix(h, t.hash))
    }

    /// Cuts and masks a line. Only its first [`LINE_SCANNED_MAX`] bytes are looked at.
    pub(super) fn read(&mut self, line: &str) {
        self.text.clear();
        self.tokens.clear();
        self.words = 0;
        self.unclosed = [false; 3];
        let mut end = line.len().min(LINE_SCANNED_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = &line[..end];
        let bytes = line.as_bytes();
        let mut at = 0;
        loop {
            while bytes.get(at).is_some_and(|b| scan::is_space(*b)) {
                at += 1;
            }
            if at == bytes.len() {
                break;
            }
            if self.tokens.len() == LINE_TOKENS_MAX - 1 {
                self.text.push_str(MORE);
                self.finish(self.text.len() - MORE.len(), true);
                break;
            }
            at = self.token(line, at);
        }
        if self.tokens.is_empty() {
            self.text.push_str(EMPTY);
            self.finish(0, false);
        }
    }

    /// Reads one token that begins here; gives where it ends in the line.
    fn token(&mut self, line: &str, from: usize) -> usize {
        let bytes = line.as_bytes();
        let begin = self.text.len();
        let (mut at, mut copied) = (from, from);
        let (mut has_mask, mut has_letter) = (false, false);
        while at < bytes.len() && !scan::is_space(bytes[at]) {
            let byte = bytes[at];
            if byte.is_ascii_alphabetic() || byte >= 0x80 {
                if let Some((mask, end)) = scan::worded(bytes, at) {
                    self.mask(&line[copied..at], mask);
                    (at, copied, has_mask) = (end, end, true);
                    continue;
                }
                has_letter = true;
                // Letters, and a number may follow them.
                while at < bytes.len() && scan::is_letter(bytes[at]) {
                    at += 1;
                }
                if bytes.get(at).is_some_and(u8::is_ascii_digit) {
                    let end = scan::number_end(bytes, at);
                    self.mask(&line[copied..at], "<num>");
                    (at, copied, has_mask) = (end, end, true);
                }
                continue;
            }
            let found = match byte {
                b'"' | b'\'' | b'`' => self.quoted(bytes, at),
                b'/' | b'~' | b'.' => scan::path(bytes, at),
                b':' => scan::ipv6(bytes, at),
                b'+' | b'-' | b'0'..=b'9' => scan::numeric(bytes, at),
                _ => None,
            };
            match found {
                Some((mask, end)) => {
                    self.mask(&line[copied..at], mask);
                    (at, copied, has_mask) = (end, end, true);
                    // "3rd": letters that belong to the number are copied and no new beginning.
                    while at < bytes.len() && scan::is_letter(bytes[at]) {
                        has_letter = true;
                        at += 1;
                    }
                }
                None => at += 1,
            }
        }
        self.text.push_str(&line[copied..at]);
        if self.text.len() - begin > TOKEN_LEN_MAX {
            self.text.truncate(begin);
            self.text.push_str(LONG);
            (has_mask, has_letter) = (true, false);
        }
        self.finish(begin, has_mask && !has_letter);
        at
    }

    fn mask(&mut self, before: &str, mask: &str) {
        self.text.push_str(before);
        self.text.push_str(mask);
    }

    fn finish(&mut self, start: usize, is_parameter: bool) {
        let end = self.text.len();
        if !is_parameter {
            self.words |= 1 << self.tokens.len();
        }
        let hash = scan::hash(&self.text.as_bytes()[start..end]);
        self.tokens.push(Token { start, end, hash });
    }

    /// A quoted string. A quote within a word (`can't`) is none, nor is one that nobody closes.
    fn quoted(&mut self, bytes: &[u8], at: usize) -> Option<(&'static str, usize)> {
        let quote = bytes[at];
        let index = match quote {
            b'"' => 0,
            b'\'' => 1,
            _ => 2,
        };
        let in_word = at > 0 && scan::is_word(bytes[at - 1]);
        if in_word || self.unclosed[index] {
            return None;
        }
        let mut end = at + 1;
        while end < bytes.len() {
            if bytes[end] == b'\\' {
                end += 2;
                continue;
            }
            let goes_on = bytes.get(end + 1).is_some_and(|b| scan::is_word(*b));
            if bytes[end] == quote && !goes_on {
                return Some(("<str>", end + 1));
            }
            end += 1;
        }
        self.unclosed[index] = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        let mut masked = Masked::default();
        masked.read(line);
        let texts: Vec<&str> = masked.tokens().iter().map(|t| masked.text_of(t)).collect();
        texts.join(" ")
    }

    #[test]
    fn what_varies_is_masked() {
        for (line, expected) in [
            (
                "took 17 of -3.5 and 1,234.5 or 1e-9",
                "took <num> of <num> and <num> or <num>",
            ),
            (
                "worker3 v1.2.3 utf8 3rd 97% E1001",
                "worker<num> v<num> utf<num> <num>rd <num>% E<num>",
            ),
            (
                "user_17 shard-4 [12] (x=5)",
                "user_<num> shard-<num> [<num>] (x=<num>)",
            ),
            ("at 0xdeadBEEF 0x1", "at <hex> <hex>"),
            (
                "id 0b6a7f10-1111-2222-3333-444455556666 gone",
                "id <uuid> gone",
            ),
            ("id=fb6a7f10-aaaa-bbbb-cccc-444455556666,", "id=<uuid>,"),
            (
                "commit a1b2c3d4e5 of 9f86d081884c7d65",
                "commit <id> of <id>",
            ),
            (
                "from 10.0.0.1 to 10.20.30.40:8080 in 10.0.0.0/8",
                "from <ip> to <ip> in <ip>",
            ),
            (
                "peer [fe80::1]:443 ::1 2001:db8:0:0:0:0:0:1",
                "peer [<ip>]:<num> <ip> <ip>",
            ),
            ("mac aa:bb:cc:00:11:22", "mac <hex>"),
            ("std::string dead::beef a::b", "std::string dead::beef a::b"),
            (
                "took 3.5ms 12s 1h30m 7us 1.2µs",
                "took <dur> <dur> <dur> <dur> <dur>",
            ),
            ("used 12MB 1.5GiB 4kB", "used <size> <size> <size>"),
            (
                "2026-01-31T12:00:00.5Z x 2026-01-31T12:00:00+01:00",
                "<time> x <time>",
            ),
            ("2026-01-31 12:00:00,123 ERROR", "<time> <time> ERROR"),
            (
                "2026/01/31 12:00:00 [31/Jan/2026:12:00:00 +0000]",
                "<time> <time> [<time> <num>]",
            ),
            (
                "\"a b\" 'c d' `e` said \"x\\\"y\"",
                "<str> <str> <str> said <str>",
            ),
            (
                "can't open the users' \"file",
                "can't open the users' \"file",
            ),
            (
                "open /etc/app.conf: ~/x ./y/z",
                "open <path>: <path> <path>",
            ),
            (
                "and/or src/main.rs:12:5 / ..",
                "and/or src/main.rs:<num> / ..",
            ),
            ("GET https://a.example/b?c=1 C:\\x\\y", "GET <url> <path>"),
            ("{\"a\":1,\"b\":\"c\"}", "{<str>:<num>,<str>:<str>}"),
            ("größe 5 日本語7", "größe <num> 日本語<num>"),
            (" \t ", "<empty>"),
        ] {
            assert_eq!(masked(line), expected, "{line}");
        }
        let blob = "Zz".repeat(200);
        assert_eq!(masked(&format!("blob {blob} end")), "blob <long> end");
    }

    #[test]
    fn how_long_a_number_is_makes_no_difference() {
        for line in [
            "a N b", "aN", "x=N,", "N%", "[N]", "v1.N", "N:N", "Nms", "face N", "faceN",
        ] {
            let of = |n: &str| masked(&line.replace('N', n));
            let one = of("7");
            for n in ["0", "12345678", "00", "123456789012345678901234567890"] {
                assert_eq!(of(n), one, "{line} with {n}");
            }
        }
    }

    #[test]
    fn words_and_parameters_are_told_apart() {
        let mut masked = Masked::default();
        masked.read("user 17 (3.5ms) id=4 - [9]");
        assert_eq!(masked.words(), 0b01_1001);
    }

    #[test]
    fn tokens_are_bounded() {
        let mut masked = Masked::default();
        masked.read(&"w ".repeat(5000));
        assert_eq!(masked.tokens().len(), LINE_TOKENS_MAX);
        assert_eq!(masked.text_of(&masked.tokens()[LINE_TOKENS_MAX - 1]), MORE);
        masked.read(&"w ".repeat(LINE_TOKENS_MAX - 1));
        assert_eq!(masked.tokens().len(), LINE_TOKENS_MAX - 1);
    }
}
