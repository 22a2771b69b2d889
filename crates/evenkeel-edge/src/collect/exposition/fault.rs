//! What can be wrong with a page.

use std::fmt;

/// Why a line was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultReason {
    /// Bytes that are no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Longer than any line that is understood.
    #[error("the line is longer than {} bytes", super::LINE_LEN_MAX)]
    LineTooLong,
    /// No name, or one with characters that a name has only in quotes.
    #[error("there is no name of a metric")]
    Name,
    /// What stands between the braces.
    #[error("the labels are not name=\"value\" pairs in braces")]
    Labels,
    /// More labels than are understood.
    #[error("there are more than {} labels", super::LABELS_MAX)]
    TooManyLabels,
    /// No value, or none that is a number.
    #[error("the value is not a number")]
    Value,
    /// A time that is none.
    #[error("the time after the value is not a number")]
    Time,
    /// Something after value and time.
    #[error("there is more on the line than a series, a value and a time")]
    Trailing,
    /// An exemplar that is none.
    #[error("the exemplar is not labels, a value and perhaps a time")]
    Exemplar,
    /// A `# TYPE`, `# HELP` or `# UNIT` that lacks something.
    #[error("the comment names no metric, or does not say what it should of it")]
    Comment,
    /// A second, different `# TYPE` of one family.
    #[error("the type of this metric was given before, and was another")]
    SecondType,
    /// More families than are remembered.
    #[error("there are more than {} types", super::family::FAMILIES_MAX)]
    TooManyFamilies,
    /// The last line has no line feed.
    #[error("the last line does not end with a line feed: it may have been cut off")]
    Unfinished,
    /// Something behind the end.
    #[error("there is more after `# EOF`")]
    AfterEof,
    /// Longer than any page that is read.
    #[error("the page is longer than {} bytes", super::PAGE_LEN_MAX)]
    PageTooLong,
    /// More samples than are read.
    #[error("the page has more than {} samples", super::PAGE_SAMPLES_MAX)]
    TooManySamples,
}

/// One line that was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub reason: FaultReason,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// How much of a page was not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many lines.
    pub count: u64,
    /// The first of them.
    pub first: Option<Fault>,
}

impl Faults {
    pub(super) fn note(&mut self, line: u64, reason: FaultReason) {
        self.count += 1;
        self.first.get_or_insert(Fault { line, reason });
    }
}
