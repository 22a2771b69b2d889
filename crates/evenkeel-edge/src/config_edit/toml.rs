//! TOML files: `toml_edit` says where things stand, and the text is spliced there.

use std::ops::Range;

use serde_json::{Map, Value};
use toml_edit::{Document, Item, Key as TomlKey, Table, TableLike, Value as TomlValue};

use super::{
    EditError, Key, line_break, line_end, line_start, quoted, spliced, with_lines, without_lines,
};

fn parse(text: &str) -> Result<Document<&str>, EditError> {
    Document::parse(text).map_err(|e| EditError::Syntax {
        reason: e.to_string().lines().take(1).collect(),
    })
}

pub(super) fn tree(text: &str) -> Result<Value, EditError> {
    Ok(plain(parse(text)?.as_item()))
}

fn plain(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(v) => plain_value(v),
        Item::Table(t) => table(t),
        Item::ArrayOfTables(a) => Value::Array(a.iter().map(|t| table(t)).collect()),
    }
}

fn table(t: &dyn TableLike) -> Value {
    let mut map = Map::new();
    for (key, item) in t.iter() {
        map.insert(key.to_owned(), plain(item));
    }
    Value::Object(map)
}

fn plain_value(v: &TomlValue) -> Value {
    match v {
        TomlValue::String(s) => Value::from(s.value().as_str()),
        TomlValue::Integer(i) => Value::from(*i.value()),
        // What JSON has no number for (inf, nan) is carried as text, like dates.
        TomlValue::Float(x) => serde_json::Number::from_f64(*x.value())
            .map_or_else(|| Value::from(x.value().to_string()), Value::Number),
        TomlValue::Boolean(b) => Value::from(*b.value()),
        TomlValue::Datetime(d) => Value::from(d.value().to_string()),
        TomlValue::Array(a) => Value::Array(a.iter().map(plain_value).collect()),
        TomlValue::InlineTable(t) => table(t),
    }
}

pub(super) fn replace(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let doc = parse(text)?;
    let Some(Found::Item(Item::Value(present)) | Found::Value(present)) =
        find(doc.as_item(), &key.parts)
    else {
        return Err(key.not_a_table());
    };
    if present.is_datetime()
        || present
            .as_float()
            .is_some_and(|x| !x.is_finite() && !value.is_number())
    {
        return Err(key.unsupported("it holds a date, or a number that is none"));
    }
    let span = present
        .span()
        .ok_or_else(|| key.unsupported("its place is not known"))?;
    let literal = text[span.clone()].starts_with('\'');
    if text[span.clone()].starts_with("'''") || text[span.clone()].starts_with("\"\"\"") {
        return Err(key.unsupported("it is a text over several lines"));
    }
    let mut candidates = Vec::new();
    if let (true, Value::String(s)) = (literal, value)
        && !s.contains(['\'', '\n', '\r'])
    {
        candidates.push(spliced(text, span.clone(), &format!("'{s}'")));
    }
    candidates.push(spliced(text, span, &scalar(value)));
    Ok(candidates)
}

pub(super) fn insert(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let doc = parse(text)?;
    let mut item = doc.as_item();
    // The deepest table that has a place of its own to write keys in, and how many parts lead to it.
    let mut base: (&Item, usize) = (item, 0);
    let mut dotted = false;
    let mut reached = 0;
    for (i, part) in key.parts.iter().enumerate() {
        let next = match item {
            Item::ArrayOfTables(_) => {
                return Err(key.unsupported("it is in a list of tables"));
            }
            other => other.as_table_like().and_then(|t| t.get(part)),
        };
        let Some(next) = next else { break };
        reached = i + 1;
        item = next;
        match next {
            Item::Table(t) if t.is_dotted() => dotted = true,
            Item::Table(t) if t.is_implicit() => dotted = false,
            Item::Value(TomlValue::InlineTable(t)) if t.is_dotted() => dotted = true,
            Item::Table(_) | Item::Value(TomlValue::InlineTable(_)) => {
                dotted = false;
                base = (next, i + 1);
            }
            _ => {}
        }
    }
    if !item.is_table_like() {
        return Err(key.not_a_table());
    }
    let (way, last) = (
        &key.parts[..key.parts.len() - 1],
        &key.parts[key.parts.len() - 1],
    );
    if let Item::Value(TomlValue::InlineTable(t)) = base.0 {
        let line = format!("{} = {}", path(&key.parts[base.1..]), scalar(value));
        let span = base
            .0
            .span()
            .ok_or_else(|| key.unsupported("its place is not known"))?;
        return Ok(vec![match last_end(t) {
            Some(at) => spliced(text, at..at, &format!(", {line}")),
            None => spliced(text, span, &format!("{{ {line} }}")),
        }]);
    }
    let own_table = base.1 == way.len();
    if own_table || dotted {
        let line = format!("{} = {}", path(&key.parts[base.1..]), scalar(value));
        let table = base.0.as_table().ok_or_else(|| key.not_a_table())?;
        let at = match (last_end(table), table.span()) {
            (Some(end), _) => line_end(text, end),
            (None, Some(header)) if base.1 > 0 => line_end(text, header.start),
            _ if doc.as_table().iter().all(|(_, i)| i.is_none()) => text.len(),
            _ => 0,
        };
        return Ok(vec![with_lines(text, at, &line)]);
    }
    debug_assert!(reached < key.parts.len());
    let header = format!(
        "[{}]\n{} = {}",
        path(way),
        path(std::slice::from_ref(last)),
        scalar(value)
    );
    let header = if text.is_empty() {
        header
    } else {
        format!("\n{header}")
    };
    Ok(vec![with_lines(text, text.len(), &header)])
}

pub(super) fn remove(text: &str, key: &Key) -> Result<Vec<String>, EditError> {
    let doc = parse(text)?;
    let (last, way) = key.parts.split_last().ok_or_else(|| key.not_a_table())?;
    let Some(Found::Item(parent)) = find(doc.as_item(), way) else {
        return Err(key.unsupported("it is in a list"));
    };
    if let Item::Value(TomlValue::InlineTable(t)) = parent {
        let members: Vec<(Range<usize>, bool)> = t
            .iter()
            .filter_map(|(name, value)| {
                let key = t.key(name)?;
                Some((key.span()?.start..value.span()?.end, name == *last))
            })
            .collect();
        let at = members
            .iter()
            .position(|(_, it)| *it)
            .ok_or_else(|| key.unsupported("its place is not known"))?;
        let own = members[at].0.clone();
        let span = match (at.checked_sub(1), members.get(at + 1)) {
            (Some(p), _) => members[p].0.end..own.end,
            (None, Some(next)) => own.start..next.0.start,
            (None, None) => own,
        };
        return Ok(vec![spliced(text, span, "")]);
    }
    let (name, item) = parent
        .as_table()
        .and_then(|t| t.get_key_value(last))
        .ok_or_else(|| key.unsupported("its place is not known"))?;
    let extent =
        extent(text, name, item).ok_or_else(|| key.unsupported("its place is not known"))?;
    let (from, to) = (line_start(text, extent.start), extent.end);
    let mut candidates = Vec::new();
    if item.is_table() {
        // A table stands behind an empty line.
        let eol = line_break(text);
        if text[..from].ends_with(&eol.repeat(2)) {
            candidates.push(without_lines(text, from - eol.len(), to));
        }
    }
    if let Item::Table(t) = parent
        && to == text.len()
        && !way.is_empty()
        && let Some(header) = t.span().map(|s| s.start)
        && line_end(text, header) == from
    {
        // The last lines are a header and its only key: it was added for that key when its other tables say that
        // it exists.
        let eol = line_break(text);
        let header = line_start(text, header);
        if text[..header].ends_with(&eol.repeat(2)) {
            candidates.push(without_lines(text, header - eol.len(), to));
        }
    }
    candidates.push(without_lines(text, from, to));
    Ok(candidates)
}

enum Found<'d> {
    Item(&'d Item),
    Table(&'d Table),
    Value(&'d TomlValue),
}

fn find<'d>(root: &'d Item, parts: &[String]) -> Option<Found<'d>> {
    parts
        .iter()
        .try_fold(Found::Item(root), |node, part| match node {
            Found::Item(Item::Value(TomlValue::Array(a))) | Found::Value(TomlValue::Array(a)) => {
                a.get(part.parse().ok()?).map(Found::Value)
            }
            Found::Item(Item::ArrayOfTables(a)) => a.get(part.parse().ok()?).map(Found::Table),
            Found::Table(t) => t.get(part).map(Found::Item),
            Found::Item(item) => item.as_table_like()?.get(part).map(Found::Item),
            Found::Value(v) => v.as_inline_table()?.get(part).map(Found::Value),
        })
}

/// Where the last value written directly in a table ends.
fn last_end(t: &dyn TableLike) -> Option<usize> {
    t.iter()
        .filter_map(|(_, item)| match item {
            Item::Value(TomlValue::InlineTable(inner)) if inner.is_dotted() => last_end(inner),
            Item::Value(v) => v.span().map(|s| s.end),
            Item::Table(inner) if inner.is_dotted() => last_end(inner),
            _ => None,
        })
        .max()
}

/// From the first byte of the key or header to the end of the last line.
fn extent(text: &str, key: &TomlKey, item: &Item) -> Option<Range<usize>> {
    match item {
        Item::Value(v) => {
            let start = key.span().or_else(|| v.span())?.start;
            Some(start..line_end(text, v.span()?.end))
        }
        Item::Table(t) => {
            let own = t
                .span()
                .filter(|_| !t.is_implicit() && !t.is_dotted())
                .map(|s| s.start..line_end(text, s.start));
            t.iter()
                .filter_map(|(name, inner)| extent(text, t.key(name)?, inner))
                .chain(own)
                .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
        }
        _ => None,
    }
}

fn path(parts: &[String]) -> String {
    let bare = |p: &String| {
        p.chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    let parts: Vec<String> = parts
        .iter()
        .map(|p| if bare(p) { p.clone() } else { quoted(p) })
        .collect();
    parts.join(".")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        Value::Number(n) if n.is_f64() => {
            let text = n.to_string();
            if text.contains(['.', 'e', 'E']) {
                text
            } else {
                format!("{text}.0")
            }
        }
        other => other.to_string(),
    }
}
