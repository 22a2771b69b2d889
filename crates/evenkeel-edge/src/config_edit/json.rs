//! JSON files: a small scanner that keeps the place of every key and value.

use std::ops::Range;

use serde_json::{Map, Value};

use super::{EditError, Key, quoted, spliced};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

struct Node {
    span: Range<usize>,
    what: What,
}

enum What {
    Scalar(Value),
    List(Vec<Node>),
    Table(Vec<Member>),
}

struct Member {
    name: String,
    name_span: Range<usize>,
    value: Node,
}

pub(super) fn tree(text: &str) -> Result<Value, EditError> {
    // serde_json is the judge of what is JSON; the scanner only adds the places.
    let value: Value = serde_json::from_str(text).map_err(|e| EditError::Syntax {
        reason: e.to_string(),
    })?;
    let node = parse(text)?;
    if plain(&node) == value {
        Ok(value)
    } else {
        Err(EditError::Syntax {
            reason: "it could not be read in one way only".into(),
        })
    }
}

pub(super) fn replace(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let root = parse(text)?;
    let (node, left) = walk(&root, &key.parts);
    if left != 0 {
        return Err(key.not_a_table());
    }
    Ok(vec![spliced(text, node.span.clone(), &scalar(value))])
}

pub(super) fn insert(text: &str, key: &Key, value: &Value) -> Result<Vec<String>, EditError> {
    let root = parse(text)?;
    let (node, left) = walk(&root, &key.parts);
    let What::Table(members) = &node.what else {
        return Err(key.not_a_table());
    };
    let missing = &key.parts[key.parts.len() - left..];
    let Some((name, inner)) = missing.split_first() else {
        return Err(key.not_a_table());
    };
    let mut rendered = scalar(value);
    for part in inner.iter().rev() {
        rendered = format!("{{{}: {rendered}}}", quoted(part));
    }
    let Some(last) = members.last() else {
        let at = node.span.start + 1;
        return Ok(vec![spliced(
            text,
            at..at,
            &format!("{}: {rendered}", quoted(name)),
        )]);
    };
    // The new member is laid out as the last one is.
    let before_last = members
        .len()
        .checked_sub(2)
        .map_or(node.span.start + 1, |i| members[i].value.span.end);
    let lead = text[before_last..last.name_span.start].trim_start_matches([',', ' ', '\t']);
    let lead = if lead.contains('\n') {
        let from = lead.rfind('\n').map_or(0, |n| n);
        let from = if lead[..from].ends_with('\r') {
            from - 1
        } else {
            from
        };
        &lead[from..]
    } else if text[before_last..last.name_span.start].ends_with(' ') || members.len() == 1 {
        " "
    } else {
        ""
    };
    let colon = &text[last.name_span.end..last.value.span.start];
    let at = last.value.span.end;
    Ok(vec![spliced(
        text,
        at..at,
        &format!(",{lead}{}{colon}{rendered}", quoted(name)),
    )])
}

pub(super) fn remove(text: &str, key: &Key) -> Result<Vec<String>, EditError> {
    let root = parse(text)?;
    let (last, way) = key.parts.split_last().ok_or_else(|| key.not_a_table())?;
    let (parent, left) = walk(&root, way);
    let (0, What::Table(members)) = (left, &parent.what) else {
        return Err(key.not_a_table());
    };
    let at = members
        .iter()
        .position(|m| m.name == *last)
        .ok_or_else(|| key.not_a_table())?;
    let span = match (at.checked_sub(1), members.get(at + 1)) {
        (Some(previous), _) => members[previous].value.span.end..members[at].value.span.end,
        (None, Some(next)) => members[at].name_span.start..next.name_span.start,
        (None, None) => members[at].name_span.start..members[at].value.span.end,
    };
    Ok(vec![spliced(text, span, "")])
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        other => other.to_string(),
    }
}

/// The deepest node on the way, and how many parts are left.
fn walk<'n>(root: &'n Node, parts: &[String]) -> (&'n Node, usize) {
    let mut node = root;
    for (i, part) in parts.iter().enumerate() {
        let next = match &node.what {
            What::Table(members) => members.iter().find(|m| m.name == *part).map(|m| &m.value),
            What::List(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
            What::Scalar(_) => None,
        };
        match next {
            Some(n) => node = n,
            None => return (node, parts.len() - i),
        }
    }
    (node, 0)
}

fn plain(node: &Node) -> Value {
    match &node.what {
        What::Scalar(v) => v.clone(),
        What::List(items) => Value::Array(items.iter().map(plain).collect()),
        What::Table(members) => {
            let mut map = Map::new();
            for m in members {
                map.insert(m.name.clone(), plain(&m.value));
            }
            Value::Object(map)
        }
    }
}

fn parse(text: &str) -> Result<Node, EditError> {
    let mut s = Scanner { text, at: 0 };
    let node = s.node(0)?;
    s.space();
    if s.at == text.len() {
        Ok(node)
    } else {
        Err(s.wrong("nothing more was expected"))
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl Scanner<'_> {
    fn wrong(&self, reason: &str) -> EditError {
        let line = self.text[..self.at.min(self.text.len())]
            .matches('\n')
            .count()
            + 1;
        EditError::Syntax {
            reason: format!("line {line}: {reason}"),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn node(&mut self, depth: usize) -> Result<Node, EditError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        self.space();
        let start = self.at;
        let what = match self.peek() {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => What::Scalar(Value::String(self.string()?)),
            _ => {
                while self
                    .peek()
                    .is_some_and(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                {
                    self.at += 1;
                }
                let value = serde_json::from_str(&self.text[start..self.at])
                    .map_err(|_| self.wrong("a value was expected"))?;
                What::Scalar(value)
            }
        };
        Ok(Node {
            span: start..self.at,
            what,
        })
    }

    fn table(&mut self, depth: usize) -> Result<What, EditError> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        self.space();
        if self.take(b'}') {
            return Ok(What::Table(members));
        }
        loop {
            self.space();
            let start = self.at;
            let name = self.string()?;
            let name_span = start..self.at;
            if members.iter().any(|m| m.name == name) {
                return Err(self.wrong("a key is given twice"));
            }
            self.space();
            if !self.take(b':') {
                return Err(self.wrong("a colon was expected"));
            }
            let value = self.node(depth + 1)?;
            members.push(Member {
                name,
                name_span,
                value,
            });
            self.space();
            if self.take(b'}') {
                return Ok(What::Table(members));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma was expected"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<What, EditError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(What::List(items));
        }
        loop {
            items.push(self.node(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(What::List(items));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma was expected"));
            }
        }
    }

    fn string(&mut self) -> Result<String, EditError> {
        let start = self.at;
        if !self.take(b'"') {
            return Err(self.wrong("a text in double quotes was expected"));
        }
        loop {
            match self.peek() {
                None => return Err(self.wrong("a quote is never closed")),
                Some(b'\\') => self.at = (self.at + 2).min(self.text.len()),
                Some(b'"') => {
                    self.at += 1;
                    // Both ends are ASCII quotes, so the slice falls on character boundaries.
                    return self
                        .text
                        .get(start..self.at)
                        .and_then(|s| serde_json::from_str(s).ok())
                        .ok_or_else(|| self.wrong("not a JSON text"));
                }
                Some(_) => self.at += 1,
            }
        }
    }
}
