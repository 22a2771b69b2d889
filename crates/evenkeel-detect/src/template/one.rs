//! One template: the words that its lines have in common, and how often they came.

use std::fmt;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::mask::{Masked, Token};
use super::tree::LeafKey;
use crate::limits::{LINE_SHOWN_MAX, LINE_TOKENS_MAX};

/// Names a template for as long as it lives, however general it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(pub(super) u64);

/// Sixteen hexadecimal digits.
impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What stands where the lines of a template differ.
const ANY: &str = "<*>";

/// One place of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Hash of the text; 0 where the lines differ.
    hash: u64,
    text: Box<str>,
}

/// What lines have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub(super) id: TemplateId,
    pub(super) leaf: LeafKey,
    /// Which places were words and no parameters when it was made, as bits.
    words: u64,
    places: Vec<Place>,
    pub(super) lines: u64,
    pub(super) errors: u64,
    pub(super) window_lines: u64,
    pub(super) window_errors: u64,
    /// The miner's count of lines when its first one came.
    pub(super) born: u64,
    /// The same when its last one came.
    pub(super) used: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// How much a line is like a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Likeness {
    /// Words that are the same.
    pub(super) words: usize,
    /// Places that are not parameters in both.
    pub(super) of: usize,
    /// Places that are the same, parameters included.
    pub(super) same: usize,
}

impl Template {
    pub(super) fn new(
        id: TemplateId,
        leaf: LeafKey,
        line: &Masked,
        at: Timestamp,
        born: u64,
    ) -> Self {
        let place = |token: &Token| Place {
            hash: token.hash,
            text: printable(line.text_of(token)).into(),
        };
        Self {
            id,
            leaf,
            words: line.words(),
            places: line.tokens().iter().map(place).collect(),
            lines: 0,
            errors: 0,
            window_lines: 0,
            window_errors: 0,
            born,
            used: 0,
            first: at,
            last: at,
        }
    }

    /// Its name.
    pub fn id(&self) -> TemplateId {
        self.id
    }

    /// What its lines have in common, with `<*>` where they differ and `<num>`, `<time>`, `<path>` and so on for what
    /// varies by its nature. Printable.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.places.iter().map(|p| &*p.text).collect();
        texts.join(" ")
    }

    /// Lines that it has had since it was made.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Those of them that told of an error.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// When its first line came.
    pub fn first(&self) -> Timestamp {
        self.first
    }

    /// When its last line came.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    pub(super) fn likeness(&self, line: &Masked) -> Likeness {
        let mut same = 0_u64;
        for (i, (place, token)) in self.places.iter().zip(line.tokens()).enumerate() {
            same |= u64::from(place.hash == token.hash) << i;
        }
        let either = self.words | line.words();
        let count = |bits: u64| bits.count_ones() as usize;
        Likeness {
            words: count(same & self.words & line.words()),
            of: count(either),
            same: count(same),
        }
    }

    /// Gives up whatever this line does not have.
    pub(super) fn widen(&mut self, line: &Masked) {
        for (place, token) in self.places.iter_mut().zip(line.tokens()) {
            if place.hash != token.hash && place.hash != 0 {
                place.hash = 0;
                place.text = ANY.into();
            }
        }
    }

    /// What is wrong with a saved one, if anything is.
    pub(super) fn defect(&self) -> Option<&'static str> {
        let length = self.places.len();
        if length == 0 || length > LINE_TOKENS_MAX || self.leaf.0 != length {
            Some("a template has too many or too few places")
        } else if self
            .places
            .iter()
            .any(|p| p.text.len() > 4 * crate::limits::TOKEN_LEN_MAX)
        {
            Some("a template has a place that is too long")
        } else if self.errors > self.lines || self.window_errors > self.window_lines {
            Some("a template has more errors than lines")
        } else {
            None
        }
    }
}

/// A line as it may be shown to people: shortened, without control characters and without marks that turn the
/// direction of writing.
pub fn shown(line: &str) -> String {
    let mut text: String = line
        .trim()
        .chars()
        .take(LINE_SHOWN_MAX)
        .map(clean)
        .collect();
    if line.trim().chars().nth(LINE_SHOWN_MAX).is_some() {
        text.push('…');
    }
    text
}

fn printable(text: &str) -> String {
    text.chars().map(clean).collect()
}

fn clean(c: char) -> char {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || turns { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_short_and_printable() {
        assert_eq!(shown("a\u{1b}[31mb\u{202e}c\n"), "a [31mb c");
        assert_eq!(shown(&"é".repeat(500)).chars().count(), LINE_SHOWN_MAX + 1);
        assert_eq!(
            shown(&"é".repeat(LINE_SHOWN_MAX)).chars().count(),
            LINE_SHOWN_MAX
        );
    }
}
