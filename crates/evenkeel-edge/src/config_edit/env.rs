//! `.env` files: `NAME=value` lines, optionally with `export`, quotes and comments.
//!
//! There is no one dialect; what dialects disagree on (a name given twice, values over several lines) is not edited.

use serde_json::{Map, Value};

use super::{EditError, Key, line_end, spliced, with_lines, without_lines};

struct Entry<'t> {
    name: &'t str,
    line: usize,
    /// With its quotes.
    value: std::ops::Range<usize>,
    text: String,
    over_lines: bool,
}

pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// A number or boolean when the text is exactly how one is written, else the text: `1.10` and `007` stay texts.
pub(super) fn typed(text: &str) -> Value {
    if let Ok(b) = text.parse::<bool>() {
        return Value::from(b);
    }
    if let Ok(i) = text.parse::<i64>()
        && i.to_string() == text
    {
        return Value::from(i);
    }
    if let Ok(x) = text.parse::<f64>()
        && x.is_finite()
    {
        let v = Value::from(x);
        let written = v.to_string();
        if written == text {
            return v;
        }
    }
    Value::from(text)
}

pub(super) fn plain_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

pub(super) fn tree(text: &str) -> Result<Value, EditError> {
    let mut map = Map::new();
    for entry in entries(text)? {
        map.insert(entry.name.to_owned(), Value::String(entry.text));
    }
    Ok(Value::Object(map))
}

pub(super) fn replace(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let entry = the_one(text, key)?;
    let style = text[entry.value.clone()]
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''));
    Ok(styles(style, &plain_text(value))
        .into_iter()
        .map(|v| spliced(text, entry.value.clone(), &v))
        .collect())
}

pub(super) fn insert(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    entries(text)?;
    Ok(styles(None, &plain_text(value))
        .into_iter()
        .map(|v| with_lines(text, text.len(), &format!("{}={v}", key.text)))
        .collect())
}

pub(super) fn remove(text: &str, key: &Key) -> Result<Vec<String>, EditError> {
    let entry = the_one(text, key)?;
    let to = line_end(text, entry.value.end);
    Ok(vec![without_lines(text, entry.line, to)])
}

fn the_one<'t>(text: &'t str, key: &Key) -> Result<Entry<'t>, EditError> {
    let mut found = entries(text)?
        .into_iter()
        .filter(|e| e.name == key.text)
        .collect::<Vec<_>>();
    match (found.len(), found.pop()) {
        (1, Some(entry)) if entry.over_lines => {
            Err(key.unsupported("its value spans several lines"))
        }
        (1, Some(entry)) => Ok(entry),
        (0, _) | (_, None) => Err(EditError::Absent {
            key: key.text.clone(),
        }),
        (n, _) => Err(key.unsupported(&format!("the name is given {n} times"))),
    }
}

/// The value in the style it has now, then in those that can hold more. A `$` stays out of double quotes, where
/// many readers would expand it.
fn styles(now: Option<char>, value: &str) -> Vec<String> {
    let plain = value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_./:@+-,=%&?~^*".contains(c));
    let single = !value.contains('\'') && !value.contains(['\n', '\r']);
    let double = !value.contains('$') && !value.contains(['\n', '\r']);
    let in_single = format!("'{value}'");
    let in_double = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = Vec::new();
    if now.is_none() && plain {
        out.push(value.to_owned());
    }
    if now == Some('\'') && single {
        out.push(in_single.clone());
    }
    if double {
        out.push(in_double);
    }
    if single {
        out.push(in_single);
    }
    out
}

fn entries(text: &str) -> Result<Vec<Entry<'_>>, EditError> {
    let mut out = Vec::new();
    let mut line = 0;
    while line < text.len() {
        let end = line_end(text, line);
        let row = text[line..end].trim_end_matches(['\n', '\r']);
        let body = row.trim_start();
        if body.is_empty() || body.starts_with('#') {
            line = end;
            continue;
        }
        let body = body.strip_prefix("export ").map_or(body, str::trim_start);
        let Some((name, _)) = body.split_once('=') else {
            return Err(syntax(text, line, "NAME=value was expected"));
        };
        let name_at = line + (row.len() - body.len());
        let after = name_at + name.len() + 1;
        let name = name.trim_end();
        if !is_name(name) {
            return Err(syntax(
                text,
                line,
                "a name of letters, digits and _ was expected",
            ));
        }
        let rest = &text[after..line + row.len()];
        let start = after + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
        let quote = text[start..]
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''));
        let (value, parsed) = if let Some(quote) = quote {
            let (len, parsed) = in_quotes(&text[start + 1..], quote)
                .ok_or_else(|| syntax(text, line, "a quote is never closed"))?;
            (start..start + len + 2, parsed)
        } else {
            let rest = &text[start..line + row.len()];
            // A comment begins at a # after white space, or right behind the `=`.
            let cut = rest
                .char_indices()
                .find(|(i, c)| *c == '#' && (*i == 0 || rest[..*i].ends_with([' ', '\t'])))
                .map_or(rest.len(), |(i, _)| i);
            let value = rest[..cut].trim_end();
            (start..start + value.len(), value.to_owned())
        };
        let last = line_end(text, value.end);
        let trailing = text[value.end..last].trim();
        if !trailing.is_empty() && !trailing.starts_with('#') {
            return Err(syntax(
                text,
                line,
                "nothing but a comment may follow the value",
            ));
        }
        out.push(Entry {
            name,
            line,
            over_lines: text[value.clone()].contains('\n'),
            value,
            text: parsed,
        });
        line = last;
    }
    Ok(out)
}

/// Length up to the closing quote, and the meaning.
fn in_quotes(rest: &str, quote: char) -> Option<(usize, String)> {
    let mut out = String::new();
    let mut chars = rest.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((i, out)),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

fn syntax(text: &str, at: usize, reason: &str) -> EditError {
    let line = text[..at].matches('\n').count() + 1;
    EditError::Syntax {
        reason: format!("line {line}: {reason}"),
    }
}
