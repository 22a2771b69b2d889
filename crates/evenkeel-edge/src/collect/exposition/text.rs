//! Pieces of text as they stand on a page: blanks, names, quoted strings with their escapes.

use std::borrow::Cow;

/// A text that may still hold its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a> {
    /// As it stands on the page, without the quotes around it.
    pub raw: &'a str,
    /// Whether there is a backslash in it.
    pub(super) has_escapes: bool,
    /// Whether `\"` stands for itself, as in the help texts of Prometheus.
    pub(super) keeps_quotes: bool,
}

impl<'a> Escaped<'a> {
    pub(super) fn plain(raw: &'a str) -> Self {
        Self {
            raw,
            has_escapes: false,
            keeps_quotes: false,
        }
    }

    /// The text that is meant: a line feed for `\n`, and so on. A backslash before anything else stands for itself.
    pub fn unescape(&self) -> Cow<'a, str> {
        if !self.has_escapes {
            return Cow::Borrowed(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut chars = self.raw.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some('n') => text.push('\n'),
                Some('"') if !self.keeps_quotes => text.push('"'),
                Some('\\') | None => text.push('\\'),
                Some(other) => text.extend(['\\', other]),
            }
        }
        Cow::Owned(text)
    }
}

/// Writes `text` with its escapes.
pub(super) fn escape_into(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '\n' => to.push_str("\\n"),
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            other => to.push(other),
        }
    }
}

/// What follows blanks and tabs.
pub(super) fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// A name without quotes (`[a-zA-Z_:][a-zA-Z0-9_:]*`), and what follows; nothing when there is none.
pub(super) fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text
        .bytes()
        .position(|b| !is_name_byte(b))
        .unwrap_or(text.len());
    let first = *text.as_bytes().first()?;
    (end > 0 && !first.is_ascii_digit()).then(|| text.split_at(end))
}

/// Whether `name` needs no quotes; `is_label` when it is a label's, where a colon does.
pub(super) fn is_plain_name(name: &str, is_label: bool) -> bool {
    split_name(name).is_some_and(|(_, rest)| rest.is_empty()) && !(is_label && name.contains(':'))
}

/// What stands between the quotes at the beginning of `text`, and what follows them.
pub(super) fn split_quoted(text: &str) -> Option<(Escaped<'_>, &str)> {
    let inside = text.strip_prefix('"')?;
    let bytes = inside.as_bytes();
    let (mut at, mut has_escapes) = (0, false);
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            break;
        }
        has_escapes = true;
        at += 2;
    }
    let escaped = Escaped {
        raw: &inside[..at],
        has_escapes,
        keeps_quotes: false,
    };
    Some((escaped, &inside[at + 1..]))
}

/// What stands before the next blank, and what follows the blanks.
pub(super) fn split_word(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|b| b == b' ' || b == b'\t')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, skip_blanks(rest))
}

/// A number. Whole numbers of up to 15 digits, which is most of them, are exact in an `f64` and take the short way.
pub(super) fn number(word: &str) -> Option<f64> {
    let bytes = word.as_bytes();
    if (1..=15).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_digit) {
        let whole = bytes
            .iter()
            .fold(0_u64, |n, b| n * 10 + u64::from(b - b'0'));
        return Some(whole as f64);
    }
    word.parse().ok()
}
