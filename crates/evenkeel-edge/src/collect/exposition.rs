//! Pages of metrics, read line by line: Prometheus text 0.0.4 and `OpenMetrics` text 1.0.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Names in quotes are those of the newer text formats.
//!
//! Any bytes are a page. A line that is wrong spoils only itself: it is counted, and the first one is kept with its
//! number and the reason. What is handed out borrows from the page; nothing is copied but what somebody unescapes.
//! What a sample means (is its series a counter, whose bucket is it) is told with it; what to do with it is not known
//! here. Whether a label stands twice is looked at where labels are put in order ([`Labels::canonical`]).

mod family;
mod fault;
mod labels;
mod line;
mod text;

pub use family::{FamilyKind, Role};
pub use fault::{Fault, FaultReason, Faults};
pub use labels::{DuplicateLabel, Label, Labels};
pub use line::Exemplar;
pub use text::Escaped;

use family::Families;

/// Longest page that is read, in bytes.
pub const PAGE_LEN_MAX: usize = 16 * 1024 * 1024;
/// Longest line that is understood, in bytes.
pub const LINE_LEN_MAX: usize = 16 * 1024;
/// Most labels of one series.
pub const LABELS_MAX: usize = 64;
/// Most samples that are read of one page.
pub const PAGE_SAMPLES_MAX: usize = 500_000;

/// In which format a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4: times in milliseconds, a counter is named as its family.
    Prometheus,
    /// `OpenMetrics` text, version 1.0: times in seconds, `# EOF` at the end, exemplars, units.
    OpenMetrics,
}

impl Format {
    /// By the content type of the answer; whatever is not `OpenMetrics` is taken for Prometheus text, as Prometheus
    /// itself does.
    pub fn of_content_type(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// `# TYPE`: what the samples of a family are.
    Type {
        /// The family.
        family: Escaped<'a>,
        /// Its type.
        kind: FamilyKind,
    },
    /// `# HELP`: what a family is for.
    Help {
        /// The family.
        family: Escaped<'a>,
        /// The text.
        text: Escaped<'a>,
    },
    /// `# UNIT`: the unit of a family, such as `seconds`; `OpenMetrics` only.
    Unit {
        /// The family.
        family: Escaped<'a>,
        /// The unit.
        unit: &'a str,
    },
    /// A value.
    Sample(Sample<'a>),
}

/// One value of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The series as it stands on the page: name and labels, nothing put in order.
    pub text: &'a str,
    /// Name of the metric, with the suffix that its role has.
    pub name: Escaped<'a>,
    /// Its labels.
    pub labels: Labels<'a>,
    /// The value; may be NaN or infinite.
    pub value: f64,
    /// When it was true, in milliseconds since 1970, where the page says so.
    pub at_ms: Option<i64>,
    /// An example that stands beside it; `OpenMetrics` only.
    pub exemplar: Option<Exemplar<'a>>,
    /// Name of its family, without the suffix; its own name when no `# TYPE` speaks of it.
    pub family: &'a str,
    /// What its family is.
    pub kind: FamilyKind,
    /// What it is in its family.
    pub role: Role,
}

/// A page that is being read: an iterator over what its lines say.
#[derive(Debug)]
pub struct Exposition<'a> {
    rest: &'a [u8],
    format: Format,
    line: u64,
    samples_len: usize,
    families: Families<'a>,
    faults: Faults,
    is_cut: bool,
    has_eof: bool,
}

impl<'a> Exposition<'a> {
    /// Begins to read `page`. What lies beyond [`PAGE_LEN_MAX`] is a fault, and so is the line that is cut there.
    pub fn new(page: &'a [u8], format: Format) -> Self {
        Self {
            rest: &page[..page.len().min(PAGE_LEN_MAX)],
            format,
            line: 0,
            samples_len: 0,
            families: Families::default(),
            faults: Faults::default(),
            is_cut: page.len() > PAGE_LEN_MAX,
            has_eof: false,
        }
    }

    /// What was wrong so far.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Once the last entry was read: whether the page came to its end. `OpenMetrics` says so with `# EOF`; Prometheus
    /// text ends with a line feed.
    pub fn is_whole(&self) -> bool {
        !self.is_cut && (self.has_eof || self.format == Format::Prometheus)
    }

    fn fault(&mut self, reason: FaultReason) {
        self.faults.note(self.line, reason);
    }

    fn next_line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (line, has_end) = match memchr::memchr(b'\n', self.rest) {
            Some(at) => {
                let line = &self.rest[..at];
                self.rest = &self.rest[at + 1..];
                (line, true)
            }
            None => (std::mem::take(&mut self.rest), false),
        };
        if has_end || (self.format == Format::OpenMetrics && is_eof(line)) {
            return Some(line);
        }
        // Half a number is a number too: a line without its end is not believed.
        self.fault(if self.is_cut {
            FaultReason::PageTooLong
        } else {
            FaultReason::Unfinished
        });
        self.is_cut = true;
        None
    }
}

impl<'a> Iterator for Exposition<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        while let Some(line) = self.next_line() {
            if self.has_eof {
                self.fault(FaultReason::AfterEof);
                self.rest = &[];
                break;
            }
            if line.len() > LINE_LEN_MAX {
                self.fault(FaultReason::LineTooLong);
                continue;
            }
            let Ok(line) = std::str::from_utf8(line) else {
                self.fault(FaultReason::NotUtf8);
                continue;
            };
            let line = line.strip_suffix('\r').unwrap_or(line);
            let line = text::skip_blanks(line);
            if line.is_empty() {
                continue;
            }
            let read = if let Some(comment) = line.strip_prefix('#') {
                if self.format == Format::OpenMetrics && comment.trim() == "EOF" {
                    self.has_eof = true;
                    continue;
                }
                match line::comment(comment, self.format) {
                    Ok(None) => continue,
                    Ok(Some(entry)) => self.declare(&entry).map(|()| entry),
                    Err(reason) => Err(reason),
                }
            } else if self.samples_len == PAGE_SAMPLES_MAX {
                self.fault(FaultReason::TooManySamples);
                self.is_cut = true;
                self.rest = &[];
                break;
            } else {
                self.samples_len += 1;
                line::sample(line, self.format).map(|mut sample| {
                    self.families.place(&mut sample);
                    Entry::Sample(sample)
                })
            };
            match read {
                Ok(entry) => return Some(entry),
                Err(reason) => self.fault(reason),
            }
        }
        None
    }
}

impl<'a> Exposition<'a> {
    fn declare(&mut self, entry: &Entry<'a>) -> Result<(), FaultReason> {
        match entry {
            Entry::Type { family, kind } => self.families.declare(family.raw, *kind),
            _ => Ok(()),
        }
    }
}

fn is_eof(line: &[u8]) -> bool {
    line.trim_ascii() == b"# EOF"
}

#[cfg(test)]
mod tests;
