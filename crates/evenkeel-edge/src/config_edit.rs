//! Changes single values in `.env`, TOML, YAML and JSON files and leaves every other byte as it was.
//!
//! Nothing is serialised anew: the one place is found and spliced. Whatever an editor made is parsed again and must
//! be exactly the intended tree, else nothing is written: a construct that is not supported ends in an error, never
//! in a damaged file. Only single values (text, number, true/false, null) are set; a value never changes its kind.
//! This module decides nothing about which keys may be changed.

mod env;
mod file;
mod json;
mod toml;
mod yaml;

use std::path::Path;

use serde_json::{Map, Value};

pub use file::{ConfigError, Edit, FILE_LEN_MAX, apply, read, read_text};
pub(crate) use file::{locate, replace_file, sync_dir};

/// Longest dotted key, in bytes.
pub const KEY_LEN_MAX: usize = 256;
/// Most parts of a dotted key.
pub const KEY_PARTS_MAX: usize = 16;
/// How many line ends are tried as the end of a construct before giving up.
const LINE_CANDIDATES_MAX: usize = 64;

/// A configuration file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `KEY=value` lines.
    Env,
    /// TOML 1.
    Toml,
    /// One YAML document.
    Yaml,
    /// JSON without comments.
    Json,
}

impl Format {
    /// By the file's name: `.env`, `.env.local`, `x.env`; `.toml`; `.yaml`, `.yml`; `.json`.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name == ".env" || name.starts_with(".env.") {
            return Some(Self::Env);
        }
        match path.extension()?.to_str()? {
            "env" => Some(Self::Env),
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why a text was not edited. The text is unchanged in every case.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EditError {
    /// The text is not of its format.
    #[error("it cannot be read: {reason}")]
    Syntax {
        /// The parser's words.
        reason: String,
    },
    /// The key cannot be one.
    #[error("`{key}` is not a key: {reason}")]
    BadKey {
        /// The key.
        key: String,
        /// What would be right.
        reason: String,
    },
    /// Something on the way to the key is not a table.
    #[error("`{key}` leads through something that is not a table")]
    NotATable {
        /// The key.
        key: String,
    },
    /// Not a single value, on one side or the other.
    #[error("`{key}` is a table or a list; only single values can be set")]
    NotScalar {
        /// The key.
        key: String,
    },
    /// The key is not there.
    #[error("there is no `{key}`")]
    Absent {
        /// The key.
        key: String,
    },
    /// The new value is of another kind.
    #[error("`{key}` holds {is} and would become {new}; a value keeps its kind")]
    KindChange {
        /// The key.
        key: String,
        /// What it is.
        is: &'static str,
        /// What it would be.
        new: &'static str,
    },
    /// Written in a way that is not edited.
    #[error("`{key}` is not edited: {what}; change it by hand, or write it plainly")]
    Unsupported {
        /// The key.
        key: String,
        /// The construct.
        what: String,
    },
    /// The edited text did not read back as intended.
    #[error(
        "`{key}` is not edited: the result would not read back as intended, so the way it is written is not supported"
    )]
    NotAsIntended {
        /// The key.
        key: String,
    },
}

/// A dotted key, taken apart. A part that holds a dot stands in double quotes: `hosts."a.example".port`.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    text: String,
    parts: Vec<String>,
}

impl Key {
    fn parse(format: Format, text: &str) -> Result<Self, EditError> {
        let bad = |reason: &str| {
            Err(EditError::BadKey {
                key: text.chars().take(80).collect(),
                reason: reason.to_owned(),
            })
        };
        if text.is_empty() || text.len() > KEY_LEN_MAX || text.chars().any(char::is_control) {
            return bad("1 to 256 bytes without control characters");
        }
        if format == Format::Env {
            if !env::is_name(text) {
                return bad("a name of letters, digits and _ was expected in an .env file");
            }
            return Ok(Self {
                text: text.to_owned(),
                parts: vec![text.to_owned()],
            });
        }
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                let Some(end) = quoted.find('"') else {
                    return bad("a quote is never closed");
                };
                (&quoted[..end], &quoted[end + 1..])
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            };
            if part.is_empty() {
                return bad("a part of it is empty");
            }
            parts.push(part.to_owned());
            if after.is_empty() {
                break;
            }
            let Some(next) = after.strip_prefix('.') else {
                return bad("a dot was expected after a quoted part");
            };
            rest = next;
        }
        if parts.len() > KEY_PARTS_MAX {
            return bad("at most 16 parts");
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    fn unsupported(&self, what: &str) -> EditError {
        EditError::Unsupported {
            key: self.text.clone(),
            what: what.to_owned(),
        }
    }

    fn not_a_table(&self) -> EditError {
        EditError::NotATable {
            key: self.text.clone(),
        }
    }
}

/// The whole text as a tree. In an `.env` file all values are texts.
pub fn tree(format: Format, text: &str) -> Result<Value, EditError> {
    match format {
        Format::Env => env::tree(text),
        Format::Toml => toml::tree(text),
        Format::Yaml => yaml::tree(text),
        Format::Json => json::tree(text),
    }
}

/// The value of a key; `None` when it is absent. What looks like a number or a boolean in an `.env` file is one.
pub fn get(format: Format, text: &str, key: &str) -> Result<Option<Value>, EditError> {
    let key = Key::parse(format, key)?;
    let tree = tree(format, text)?;
    Ok(lookup(&tree, &key.parts).map(|v| typed(format, v)))
}

/// The text with one key set to one value. An absent key is added, with the tables that lead to it.
pub fn set(format: Format, text: &str, key: &str, value: &Value) -> Result<String, EditError> {
    let key = Key::parse(format, key)?;
    let before = tree(format, text)?;
    let present = lookup(&before, &key.parts);
    let value = fit(format, &key, present, value)?;
    if present == Some(&value) {
        return Ok(text.to_owned());
    }
    let candidates = match (format, present.is_some()) {
        (Format::Env, true) => env::replace(text, &key, &value),
        (Format::Env, false) => env::insert(text, &key, &value),
        (Format::Toml, true) => toml::replace(text, &key, &value),
        (Format::Toml, false) => toml::insert(text, &key, &value),
        (Format::Yaml, true) => yaml::replace(text, &key, &value),
        (Format::Yaml, false) => yaml::insert(text, &key, &value),
        (Format::Json, true) => json::replace(text, &key, &value),
        (Format::Json, false) => json::insert(text, &key, &value),
    }?;
    let mut intended = before;
    put(&mut intended, &key.parts, value).ok_or_else(|| key.not_a_table())?;
    first_as_intended(format, &key, candidates, &intended)
}

/// The text without a key, be it a value or a whole table.
pub fn remove(format: Format, text: &str, key: &str) -> Result<String, EditError> {
    let key = Key::parse(format, key)?;
    let mut intended = tree(format, text)?;
    if lookup(&intended, &key.parts).is_none() {
        return Err(EditError::Absent { key: key.text });
    }
    take_out(&mut intended, &key.parts)
        .ok_or_else(|| key.unsupported("it is an item of a list"))?;
    let candidates = match format {
        Format::Env => env::remove(text, &key),
        Format::Toml => toml::remove(text, &key),
        Format::Yaml => yaml::remove(text, &key),
        Format::Json => json::remove(text, &key),
    }?;
    first_as_intended(format, &key, candidates, &intended)
}

/// The dotted key of the outermost table that is missing on the way to `key`, or `key` itself when only it is
/// missing; `None` when it is there. What an undo has to remove.
pub fn outermost_missing(
    format: Format,
    text: &str,
    key: &str,
) -> Result<Option<String>, EditError> {
    let key = Key::parse(format, key)?;
    let tree = tree(format, text)?;
    for n in 1..=key.parts.len() {
        if lookup(&tree, &key.parts[..n]).is_none() {
            let quoted: Vec<String> = key.parts[..n]
                .iter()
                .map(|p| {
                    if p.contains('.') && format != Format::Env {
                        format!("\"{p}\"")
                    } else {
                        p.clone()
                    }
                })
                .collect();
            return Ok(Some(quoted.join(".")));
        }
    }
    Ok(None)
}

/// Whether two values are the same to a person: 3 and 3.0 are.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn first_as_intended(
    format: Format,
    key: &Key,
    candidates: Vec<String>,
    intended: &Value,
) -> Result<String, EditError> {
    candidates
        .into_iter()
        .find(|text| {
            tree(format, text).is_ok_and(|t| {
                // A YAML document without its last key is empty, which reads as null.
                t == *intended || (t.is_null() && intended.as_object().is_some_and(Map::is_empty))
            })
        })
        .ok_or_else(|| EditError::NotAsIntended {
            key: key.text.clone(),
        })
}

fn lookup<'v>(tree: &'v Value, parts: &[String]) -> Option<&'v Value> {
    parts.iter().try_fold(tree, |node, part| match node {
        Value::Object(map) => map.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

fn put(tree: &mut Value, parts: &[String], value: Value) -> Option<()> {
    let (last, way) = parts.split_last()?;
    let mut node = tree;
    for part in way {
        if node.is_null() {
            *node = Value::Object(Map::new());
        }
        node = match node {
            Value::Object(map) => map
                .entry(part.clone())
                .or_insert_with(|| Value::Object(Map::new())),
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    if node.is_null() {
        *node = Value::Object(Map::new());
    }
    match node {
        Value::Object(map) => {
            map.insert(last.clone(), value);
        }
        Value::Array(items) => *items.get_mut(last.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(())
}

fn take_out(tree: &mut Value, parts: &[String]) -> Option<()> {
    let (last, way) = parts.split_last()?;
    let mut node = tree;
    for part in way {
        node = match node {
            Value::Object(map) => map.get_mut(part)?,
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    node.as_object_mut()?.shift_remove(last).map(|_| ())
}

/// What a value is, for a person.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// `value` in the kind that the key has now, or an error: a number stays a number, a whole one a whole one.
fn fit(
    format: Format,
    key: &Key,
    present: Option<&Value>,
    value: &Value,
) -> Result<Value, EditError> {
    let scalar = |v: &Value| !v.is_array() && !v.is_object();
    if !scalar(value) || present.is_some_and(|p| !scalar(p)) {
        return Err(EditError::NotScalar {
            key: key.text.clone(),
        });
    }
    if value.is_null() && matches!(format, Format::Env | Format::Toml) {
        return Err(key.unsupported("this format has no null"));
    }
    let present = present.map(|p| typed(format, p));
    let given = typed(format, value);
    let fitted = match (&present, &given) {
        (None | Some(Value::Null), _)
        | (_, Value::Null)
        | (Some(Value::Bool(_)), Value::Bool(_))
        | (Some(Value::String(_)), Value::String(_)) => given,
        (Some(Value::String(s)), _) if format == Format::Env && s.is_empty() => given,
        (Some(Value::String(_)), _) if format == Format::Env && value.is_string() => given,
        (Some(Value::Number(is)), Value::Number(new)) => match (is.is_f64(), new.is_f64()) {
            (true, false) => Value::from(new.as_f64().unwrap_or_default()),
            (false, true) => whole(new.as_f64()).ok_or_else(|| EditError::KindChange {
                key: key.text.clone(),
                is: "a whole number",
                new: "a number with a fraction",
            })?,
            _ => given,
        },
        (Some(is), new) => {
            return Err(EditError::KindChange {
                key: key.text.clone(),
                is: kind(is),
                new: kind(new),
            });
        }
    };
    Ok(if format == Format::Env {
        Value::String(env::plain_text(&fitted))
    } else {
        fitted
    })
}

/// A fraction-free number as a whole one.
fn whole(x: Option<f64>) -> Option<Value> {
    // 2^53: beyond it not every whole number has a float of its own.
    let x = x.filter(|x| x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0)?;
    format!("{x:.0}").parse::<i64>().ok().map(Value::from)
}

fn typed(format: Format, value: &Value) -> Value {
    match value {
        Value::String(text) if format == Format::Env => env::typed(text),
        other => other.clone(),
    }
}

/// The end of the line that holds `at`: behind its line break, or the end of the text.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |n| at + n + 1)
}

/// The start of the line that holds `at`.
fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |n| n + 1)
}

/// How this text ends its lines.
fn line_break(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// `text` with `lines` (without a final line break) as lines of their own at `at`, which is a start of a line or the
/// end of the text.
fn with_lines(text: &str, at: usize, lines: &str) -> String {
    let eol = line_break(text);
    let lines = lines.replace('\n', eol);
    let (before, after) = text.split_at(at);
    if before.is_empty() || before.ends_with('\n') {
        format!("{before}{lines}{eol}{after}")
    } else {
        // The last line has no line break; neither will the new last line, so that a removal gives the same bytes.
        format!("{before}{eol}{lines}{after}")
    }
}

/// `text` without the lines from `from` to `to`; takes the line break before them along when they are the last ones
/// and end without one.
fn without_lines(text: &str, from: usize, to: usize) -> String {
    let mut from = from;
    if to == text.len() && !text.ends_with('\n') {
        let before = &text[..from];
        from = before
            .strip_suffix("\r\n")
            .or_else(|| before.strip_suffix('\n'))
            .map_or(from, str::len);
    }
    format!("{}{}", &text[..from], &text[to..])
}

/// `text` with the bytes of `span` replaced.
fn spliced(text: &str, span: std::ops::Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..span.start], &text[span.end..])
}

/// A text in double quotes, as JSON writes it; YAML and TOML read the same.
fn quoted(text: &str) -> String {
    let json = Value::String(text.to_owned()).to_string();
    json.replace('\u{7f}', "\\u007f")
}
