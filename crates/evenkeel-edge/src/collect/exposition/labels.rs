//! The labels of a series: checked once where they stand, read again without copying.

use std::borrow::Cow;

use super::text::{escape_into, is_plain_name, skip_blanks, split_name, split_quoted};
use super::{Escaped, FaultReason, LABELS_MAX};

/// Labels as they stand on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// What stands between the braces, without the name that may lead it.
    raw: &'a str,
    len: usize,
}

/// One label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// Its name.
    pub name: Escaped<'a>,
    /// Its value.
    pub value: Escaped<'a>,
}

/// A label that a series has twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the label `{0}` stands there twice")]
pub struct DuplicateLabel(pub String);

/// What was read between braces.
pub(super) struct Braces<'a> {
    pub(super) name: Option<Escaped<'a>>,
    pub(super) labels: Labels<'a>,
    pub(super) rest: &'a str,
}

impl<'a> Labels<'a> {
    /// No labels.
    pub const NONE: Labels<'static> = Labels { raw: "", len: 0 };

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One after the other, in the page's order.
    pub fn iter(&self) -> impl Iterator<Item = Label<'a>> + use<'a> {
        let mut rest = self.raw;
        std::iter::from_fn(move || {
            let (label, after) = split_label(skip_blanks(rest)).ok()?;
            let after = skip_blanks(after);
            rest = after.strip_prefix(',').unwrap_or(after);
            Some(label)
        })
    }

    /// The value of the label with that name.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.iter()
            .find(|l| l.name.unescape() == name)
            .map(|l| l.value.unescape())
    }

    /// `name{a="1",b="2"}` with the labels in the order of their names, without those that `leave_out` names: the same
    /// text for the same series, however it stands on the page. A label without a value is as one that is not there.
    pub fn canonical(&self, name: &str, leave_out: &[&str]) -> Result<String, DuplicateLabel> {
        self.canonical_with(name, leave_out, None)
    }

    /// As [`Self::canonical`], with one more label.
    pub fn canonical_with(
        &self,
        name: &str,
        leave_out: &[&str],
        more: Option<(&str, &str)>,
    ) -> Result<String, DuplicateLabel> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = self
            .iter()
            .map(|l| (l.name.unescape(), l.value.unescape()))
            .filter(|(name, _)| !leave_out.contains(&name.as_ref()))
            .collect();
        pairs.extend(more.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))));
        pairs.sort_unstable();
        if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(DuplicateLabel(twice[0].0.to_string()));
        }
        pairs.retain(|(_, value)| !value.is_empty());
        let mut text = String::with_capacity(name.len() + self.raw.len() + 16);
        let is_plain = is_plain_name(name, false);
        if is_plain {
            text.push_str(name);
        }
        if is_plain && pairs.is_empty() {
            return Ok(text);
        }
        text.push('{');
        let mut between = "";
        if !is_plain {
            text.push('"');
            escape_into(name, &mut text);
            text.push('"');
            between = ",";
        }
        for (name, value) in &pairs {
            text.push_str(between);
            between = ",";
            if is_plain_name(name, true) {
                text.push_str(name);
            } else {
                text.push('"');
                escape_into(name, &mut text);
                text.push('"');
            }
            text.push_str("=\"");
            escape_into(value, &mut text);
            text.push('"');
        }
        text.push('}');
        Ok(text)
    }
}

/// Reads what follows a `{`, up to the `}`.
pub(super) fn braces(inside: &str) -> Result<Braces<'_>, FaultReason> {
    let mut rest = skip_blanks(inside);
    let mut name = None;
    // A name in quotes that no value follows is the metric's; it comes first.
    if let Some((quoted, after)) = split_quoted(rest) {
        let after = skip_blanks(after);
        if !after.starts_with('=') {
            if quoted.raw.is_empty() {
                return Err(FaultReason::Name);
            }
            name = Some(quoted);
            rest = match after.strip_prefix(',') {
                Some(after) => skip_blanks(after),
                None if after.starts_with('}') => after,
                None => return Err(FaultReason::Labels),
            };
        }
    }
    let begin = rest;
    let mut len = 0;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            let raw = &begin[..begin.len() - rest.len()];
            return Ok(Braces {
                name,
                labels: Labels { raw, len },
                rest: after,
            });
        }
        if len == LABELS_MAX {
            return Err(FaultReason::TooManyLabels);
        }
        let (_, after) = split_label(rest)?;
        len += 1;
        let after = skip_blanks(after);
        rest = match after.strip_prefix(',') {
            Some(after) => skip_blanks(after),
            None if after.starts_with('}') => after,
            None => return Err(FaultReason::Labels),
        };
    }
}

fn split_label(text: &str) -> Result<(Label<'_>, &str), FaultReason> {
    let (name, rest) = if text.starts_with('"') {
        split_quoted(text).ok_or(FaultReason::Labels)?
    } else {
        let (name, rest) = split_name(text).ok_or(FaultReason::Labels)?;
        if name.contains(':') {
            return Err(FaultReason::Labels);
        }
        (Escaped::plain(name), rest)
    };
    if name.raw.is_empty() {
        return Err(FaultReason::Labels);
    }
    let rest = skip_blanks(rest)
        .strip_prefix('=')
        .ok_or(FaultReason::Labels)?;
    let (value, rest) = split_quoted(skip_blanks(rest)).ok_or(FaultReason::Labels)?;
    Ok((Label { name, value }, rest))
}
