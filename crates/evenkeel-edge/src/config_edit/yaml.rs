//! YAML files: the parser says where keys and values stand, and the text is spliced there.
//!
//! Block mappings get new keys; anchors, merges, tags, block texts and flow mappings are read but not edited.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::{
    EditError, Key, LINE_CANDIDATES_MAX, line_end, line_start, quoted, spliced, with_lines,
    without_lines,
};

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Table(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        // JSON has no number for .inf and .nan; they are carried as text.
        Ok(Node::Scalar(
            serde_json::Number::from_f64(v)
                .map_or_else(|| Value::from(v.to_string()), Value::Number),
        ))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Scalar(v.into()))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
        Node::deserialize(d)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Table(members))
    }
}

fn parse(text: &str) -> Result<Spanned<Node>, EditError> {
    serde_saphyr::from_str::<Spanned<Node>>(text).map_err(|e| EditError::Syntax {
        reason: e
            .without_snippet()
            .to_string()
            .lines()
            .next()
            .unwrap_or("not YAML")
            .to_owned(),
    })
}

pub(super) fn tree(text: &str) -> Result<Value, EditError> {
    if nothing_but_comments(text) {
        return Ok(Value::Null);
    }
    plain(&parse(text)?.value)
}

fn nothing_but_comments(text: &str) -> bool {
    text.lines()
        .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
}

fn plain(node: &Node) -> Result<Value, EditError> {
    Ok(match node {
        Node::Scalar(v) => v.clone(),
        Node::List(items) => Value::Array(
            items
                .iter()
                .map(|i| plain(&i.value))
                .collect::<Result<_, _>>()?,
        ),
        Node::Table(members) => {
            let mut map = Map::new();
            for (name, value) in members {
                if map
                    .insert(name.value.clone(), plain(&value.value)?)
                    .is_some()
                {
                    return Err(EditError::Syntax {
                        reason: format!("the key `{}` is given twice", name.value),
                    });
                }
            }
            Value::Object(map)
        }
    })
}

pub(super) fn replace(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let root = parse(text)?;
    let (Some(place), 0) = walk(&root, &key.parts) else {
        return Err(key.not_a_table());
    };
    let node = place.node;
    if node.referenced != node.defined {
        return Err(key.unsupported("it is an alias, or comes from a merge"));
    }
    let span = bytes(node).ok_or_else(|| key.unsupported("its place is not known"))?;
    let written = text.get(span.clone()).unwrap_or_default();
    if matches!(&node.value, Node::Scalar(Value::Null)) && written.trim().is_empty() {
        // `key:` with nothing behind it.
        let name = place
            .name
            .and_then(bytes)
            .ok_or_else(|| key.unsupported("its place is not known"))?;
        let colon = text[name.end..]
            .find(':')
            .map(|n| name.end + n + 1)
            .filter(|at| text[name.end..at - 1].trim().is_empty())
            .ok_or_else(|| key.unsupported("its place is not known"))?;
        return Ok(styles(None, value)
            .into_iter()
            .map(|v| spliced(text, colon..colon, &format!(" {v}")))
            .collect());
    }
    let first = written.chars().next();
    if let Some(c) = first.filter(|c| "&*!|>".contains(*c)) {
        return Err(key.unsupported(match c {
            '&' | '*' => "it has an anchor or is an alias",
            '!' => "it has a tag",
            _ => "it is a text over several lines",
        }));
    }
    if written.contains('\n') {
        return Err(key.unsupported("it is a text over several lines"));
    }
    // An anchor or a tag may stand before the span.
    let before = text[line_start(text, span.start)..span.start].trim_end();
    if before
        .rsplit([' ', '\t'])
        .next()
        .is_some_and(|word| word.starts_with(['&', '!']))
    {
        return Err(key.unsupported("it has an anchor or a tag"));
    }
    Ok(styles(first.filter(|c| matches!(c, '"' | '\'')), value)
        .into_iter()
        .map(|v| spliced(text, span.clone(), &v))
        .collect())
}

pub(super) fn insert(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    if nothing_but_comments(text) {
        let lines = nested(&key.parts, value, "", "  ");
        return Ok(lines
            .into_iter()
            .map(|l| with_lines(text, text.len(), &l))
            .collect());
    }
    let root = parse(text)?;
    let (place, left) = walk(&root, &key.parts);
    let node = place.map_or(&root, |p| p.node);
    let Node::Table(members) = &node.value else {
        return Err(match &node.value {
            Node::Scalar(Value::Null) => {
                key.unsupported("the table it belongs to is written as nothing at all")
            }
            _ => key.not_a_table(),
        });
    };
    if node.referenced != node.defined {
        return Err(key.unsupported("its table is an alias, or comes from a merge"));
    }
    let (Some((first, _)), Some((last_name, last))) = (members.first(), members.last()) else {
        return Err(key.unsupported("its table is written as {}"));
    };
    let indent = indent_of(text, first)
        .ok_or_else(|| key.unsupported("its table is in flow style, {like: this}"))?;
    let end = deepest_end(text, last_name, last)
        .ok_or_else(|| key.unsupported("the place of its neighbours is not known"))?;
    let missing = &key.parts[key.parts.len() - left..];
    let lines = nested(missing, value, &indent, step(text, &root));
    let mut candidates = Vec::new();
    for at in line_ends(text, end) {
        for line in &lines {
            candidates.push(with_lines(text, at, line));
        }
    }
    Ok(candidates)
}

pub(super) fn remove(text: &str, key: &Key) -> Result<Vec<String>, EditError> {
    let root = parse(text)?;
    let (Some(place), 0) = walk(&root, &key.parts) else {
        return Err(key.not_a_table());
    };
    if place.only && key.parts.len() > 1 {
        return Err(key.unsupported("it is the only key of its table"));
    }
    let name = place
        .name
        .ok_or_else(|| key.unsupported("it is an item of a list"))?;
    let own = bytes(name).ok_or_else(|| key.unsupported("its place is not known"))?;
    let from = line_start(text, own.start);
    if !text[from..own.start].trim().is_empty() {
        return Err(key.unsupported("it does not begin a line of its own"));
    }
    let end = deepest_end(text, name, place.node)
        .ok_or_else(|| key.unsupported("its place is not known"))?;
    Ok(line_ends(text, end)
        .into_iter()
        .map(|to| without_lines(text, from, to))
        .collect())
}

struct Place<'n> {
    name: Option<&'n Spanned<String>>,
    node: &'n Spanned<Node>,
    only: bool,
}

/// The deepest place on the way (none: the root itself), and how many parts are left.
fn walk<'n>(root: &'n Spanned<Node>, parts: &[String]) -> (Option<Place<'n>>, usize) {
    let mut place: Option<Place<'n>> = None;
    for (i, part) in parts.iter().enumerate() {
        let node = place.as_ref().map_or(root, |p| p.node);
        let next = match &node.value {
            Node::Table(members) => members
                .iter()
                .find(|(n, _)| n.value == *part)
                .map(|(n, v)| Place {
                    name: Some(n),
                    node: v,
                    only: members.len() == 1,
                }),
            Node::List(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|n| items.get(n))
                .map(|v| Place {
                    name: None,
                    node: v,
                    only: false,
                }),
            Node::Scalar(_) => None,
        };
        if next.is_none() {
            return (place, parts.len() - i);
        }
        place = next;
    }
    (place, 0)
}

fn bytes<T>(spanned: &Spanned<T>) -> Option<Range<usize>> {
    let span = spanned.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let len = usize::try_from(span.byte_len()?).ok()?;
    Some(start..start + len)
}

/// The white space that a sibling of this key needs, when the key stands first on its line (or behind `- `).
fn indent_of(text: &str, name: &Spanned<String>) -> Option<String> {
    let own = bytes(name)?;
    let lead = &text[line_start(text, own.start)..own.start];
    lead.chars()
        .all(|c| c == ' ' || c == '-')
        .then(|| " ".repeat(lead.len()))
}

/// How much deeper a nested table is indented in this file.
fn step(text: &str, root: &Spanned<Node>) -> &'static str {
    if let Node::Table(members) = &root.value {
        for (_, value) in members {
            if let Node::Table(inner) = &value.value
                && let Some(indent) = inner.first().and_then(|(n, _)| indent_of(text, n))
            {
                match indent.len() {
                    4 => return "    ",
                    3 => return "   ",
                    1 => return " ",
                    _ => {}
                }
            }
        }
    }
    "  "
}

/// The last byte that certainly belongs to this member.
fn deepest_end(text: &str, name: &Spanned<String>, node: &Spanned<Node>) -> Option<usize> {
    let own = bytes(name)?.end;
    Some(node_end(text, node).map_or(own, |e| e.max(own)))
}

fn node_end(text: &str, node: &Spanned<Node>) -> Option<usize> {
    if node.referenced != node.defined {
        return None;
    }
    match &node.value {
        Node::Scalar(_) => {
            let span = bytes(node)?;
            // Block texts may take line breaks after them along.
            let written = text.get(span.clone())?;
            Some(span.start + written.trim_end().len())
        }
        Node::List(items) => items.last().and_then(|i| node_end(text, i)),
        Node::Table(members) => members.last().and_then(|(n, v)| deepest_end(text, n, v)),
    }
}

/// The ends of the line that holds `at` and of those after it: what is tried as the end of a construct.
fn line_ends(text: &str, at: usize) -> Vec<usize> {
    let mut out = Vec::new();
    let mut end = line_end(text, at);
    while out.len() < LINE_CANDIDATES_MAX {
        out.push(end);
        if end == text.len() {
            break;
        }
        end = line_end(text, end);
    }
    out
}

/// The lines for a key with the tables that lead to it, in each style that may fit.
fn nested(parts: &[String], value: &Value, indent: &str, step: &str) -> Vec<String> {
    let Some((last, way)) = parts.split_last() else {
        return Vec::new();
    };
    let mut lines = String::new();
    let mut indent = indent.to_owned();
    for part in way {
        let name = key_text(part);
        lines.extend([indent.as_str(), &name, ":\n"]);
        indent.push_str(step);
    }
    styles(None, value)
        .into_iter()
        .map(|v| format!("{lines}{indent}{}: {v}", key_text(last)))
        .collect()
}

fn key_text(key: &str) -> String {
    if is_plain(key) && !key.contains([' ', ':']) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

fn styles(now: Option<char>, value: &Value) -> Vec<String> {
    let Value::String(s) = value else {
        // 3.0 must not become the whole number 3.
        return vec![value.to_string()];
    };
    let mut out = Vec::new();
    if now.is_none() && is_plain(s) {
        out.push(s.clone());
    }
    if now == Some('\'') && !s.chars().any(char::is_control) {
        out.push(format!("'{}'", s.replace('\'', "''")));
    }
    out.push(quoted(s));
    out
}

/// A text that every YAML reader, of 1.1 too, takes for a text without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "yes", "n", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_./@+- :".contains(c))
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}
