//! One line: a comment that says something, or a sample.

use super::labels::braces;
use super::text::{number, skip_blanks, split_name, split_quoted, split_word};
use super::{Entry, Escaped, FamilyKind, FaultReason, Format, Labels, Role, Sample};

/// An example that stands beside a value, such as the trace of one slow request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// What identifies it.
    pub labels: Labels<'a>,
    /// Its own value.
    pub value: f64,
    /// When it was, in milliseconds since 1970.
    pub at_ms: Option<i64>,
}

/// What follows a `#`; nothing when it is a remark.
pub(super) fn comment(text: &str, format: Format) -> Result<Option<Entry<'_>>, FaultReason> {
    // A remark that happens to begin with one of the words has no blank before it.
    if !text.starts_with([' ', '\t']) {
        return Ok(None);
    }
    let (word, rest) = split_word(skip_blanks(text));
    let is_known = match word {
        "TYPE" | "HELP" => true,
        "UNIT" => format == Format::OpenMetrics,
        _ => false,
    };
    if !is_known {
        return Ok(None);
    }
    let (family, rest) = if rest.starts_with('"') {
        split_quoted(rest).ok_or(FaultReason::Comment)?
    } else {
        let (name, rest) = split_name(rest).ok_or(FaultReason::Comment)?;
        (Escaped::plain(name), rest)
    };
    if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return Err(FaultReason::Comment);
    }
    let rest = skip_blanks(rest);
    Ok(Some(match word {
        "TYPE" => {
            let (kind, rest) = split_word(rest);
            if kind.is_empty() || !rest.is_empty() {
                return Err(FaultReason::Comment);
            }
            let kind = FamilyKind::of_word(kind);
            Entry::Type { family, kind }
        }
        "UNIT" => Entry::Unit {
            family,
            unit: rest.trim_end(),
        },
        _ => Entry::Help {
            family,
            text: Escaped {
                raw: rest,
                has_escapes: rest.contains('\\'),
                keeps_quotes: format == Format::Prometheus,
            },
        },
    }))
}

/// A line that is no comment. Family, kind and role are still to be told.
pub(super) fn sample(line: &str, format: Format) -> Result<Sample<'_>, FaultReason> {
    let (name, rest) = match split_name(line) {
        Some((name, rest)) => (Some(Escaped::plain(name)), rest),
        None if line.starts_with('{') => (None, line),
        None => return Err(FaultReason::Name),
    };
    let after_name = skip_blanks(rest);
    let (name, labels, rest) = if let Some(inside) = after_name.strip_prefix('{') {
        let found = braces(inside)?;
        let name = match (name, found.name) {
            (Some(name), None) | (None, Some(name)) => name,
            (Some(_), Some(_)) => return Err(FaultReason::Labels),
            (None, None) => return Err(FaultReason::Name),
        };
        (name, found.labels, found.rest)
    } else {
        // Without braces a blank must end the name.
        if !rest.starts_with([' ', '\t']) {
            return Err(if rest.is_empty() {
                FaultReason::Value
            } else {
                FaultReason::Name
            });
        }
        (name.ok_or(FaultReason::Name)?, Labels::NONE, rest)
    };
    let text = &line[..line.len() - rest.len()];
    let (value, at_ms, rest) = value_and_time(skip_blanks(rest), format)?;
    let exemplar = match rest.strip_prefix('#') {
        None if rest.is_empty() => None,
        Some(rest) if format == Format::OpenMetrics => Some(exemplar(skip_blanks(rest))?),
        _ => return Err(FaultReason::Trailing),
    };
    Ok(Sample {
        text,
        name,
        labels,
        value,
        at_ms,
        exemplar,
        family: name.raw,
        kind: FamilyKind::Unknown,
        role: Role::Value,
    })
}

type ValueAndTime<'a> = (f64, Option<i64>, &'a str);

fn value_and_time(text: &str, format: Format) -> Result<ValueAndTime<'_>, FaultReason> {
    let (word, rest) = split_word(text);
    let value = number(word).ok_or(FaultReason::Value)?;
    if rest.is_empty() || rest.starts_with('#') {
        return Ok((value, None, rest));
    }
    let (word, rest) = split_word(rest);
    let at_ms = match format {
        Format::Prometheus => word.parse().map_err(|_| FaultReason::Time)?,
        Format::OpenMetrics => seconds(word).ok_or(FaultReason::Time)?,
    };
    Ok((value, Some(at_ms), rest))
}

fn exemplar(text: &str) -> Result<Exemplar<'_>, FaultReason> {
    let inside = text.strip_prefix('{').ok_or(FaultReason::Exemplar)?;
    let found = braces(inside).map_err(|_| FaultReason::Exemplar)?;
    let (value, at_ms, rest) = value_and_time(skip_blanks(found.rest), Format::OpenMetrics)
        .map_err(|_| FaultReason::Exemplar)?;
    if found.name.is_some() || !rest.is_empty() {
        return Err(FaultReason::Exemplar);
    }
    Ok(Exemplar {
        labels: found.labels,
        value,
        at_ms,
    })
}

/// Seconds since 1970 as milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates, and what is not finite was turned away"
)]
fn seconds(word: &str) -> Option<i64> {
    let seconds = number(word).filter(|s| s.is_finite())?;
    Some((seconds * 1000.0).round() as i64)
}
