//! Which requests: the one that the options describe, or those of a file.

use std::path::Path;

use evenkeel_stress::{BodyCheck, RequestSpec, StatusSet};
use serde_json::Value;

use super::values::Header;

/// Largest file of requests, or body, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the options say about every request; what a file says about one comes first.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    pub(super) headers: Vec<Header>,
    pub(super) expect_status: Option<StatusSet>,
    pub(super) expect_body: Option<BodyCheck>,
    pub(super) expect_within_ms: Option<f64>,
}

impl Common {
    /// Fills in what a request does not say itself.
    pub(super) fn apply(&self, request: &mut RequestSpec) {
        for header in &self.headers {
            let own = request
                .headers
                .0
                .keys()
                .any(|name| name.eq_ignore_ascii_case(&header.name));
            if !own {
                request
                    .headers
                    .0
                    .insert(header.name.clone(), header.value.clone());
            }
        }
        if request.expect_status.is_none() {
            request.expect_status.clone_from(&self.expect_status);
        }
        if request.expect_body.is_none() {
            request.expect_body.clone_from(&self.expect_body);
        }
        if request.expect_within_ms.is_none() {
            request.expect_within_ms = self.expect_within_ms;
        }
    }
}

/// One check out of several.
pub(super) fn all_of(mut checks: Vec<BodyCheck>) -> Option<BodyCheck> {
    match checks.len() {
        0 => None,
        1 => checks.pop(),
        _ => Some(BodyCheck::All(checks)),
    }
}

/// Reads a text file, bounded.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("{}: {e}", path.display());
    let meta = std::fs::metadata(path).map_err(cannot)?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!(
            "{} has {} bytes; at most {FILE_BYTES_MAX} are read",
            path.display(),
            meta.len()
        ));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is no UTF-8 text", path.display()))
}

/// Reads a file of requests: YAML or JSON with a list, or JSON lines, told apart by the name, and else by how it begins.
pub(super) fn from_file(path: &Path) -> Result<Vec<RequestSpec>, String> {
    let text = text_of(path)?;
    let found = parse(path, &text)?;
    if found.is_empty() {
        return Err(format!("{} holds no request", path.display()));
    }
    Ok(found)
}

fn parse(path: &Path, text: &str) -> Result<Vec<RequestSpec>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let extension = path
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let lines = match extension.as_str() {
        "jsonl" | "ndjson" => true,
        "yaml" | "yml" => false,
        _ => text.trim_start().starts_with(['{', '"']),
    };
    if lines {
        return json_lines(path, text);
    }
    // JSON is read as the YAML that it is.
    serde_saphyr::from_str::<Vec<RequestSpec>>(text).map_err(|e| {
        let (line, column) = e.location().map_or((1, 1), |l| (l.line(), l.column()));
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or("not a list of requests");
        let message = message.split(" at line ").next().unwrap_or(message);
        format!("{}:{line}:{column}: {message}", path.display())
    })
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<RequestSpec>, String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| {
            serde_json::from_str(line).map_err(|e| {
                let message = e.to_string();
                let message = message.split(" at line ").next().unwrap_or(&message);
                format!("{}:{}: {message}", path.display(), n + 1)
            })
        })
        .collect()
}

/// Every text of a body that may be a secret.
pub(super) fn texts_of(body: &Value, into: &mut Vec<String>) {
    match body {
        Value::String(text) => {
            if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                texts_of(&inner, into);
            }
            into.push(text.clone());
        }
        Value::Array(all) => all.iter().for_each(|v| texts_of(v, into)),
        Value::Object(map) => map.values().for_each(|v| texts_of(v, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<RequestSpec>, String> {
        parse(Path::new(name), text)
    }

    #[test]
    fn yaml_json_and_json_lines_say_the_same() {
        let yaml = "- /health\n- method: PUT\n  path: /items/${id}\n  body: {a: 1}\n  weight: 3\n  expect_status: [200, 404]\n";
        let json = r#"["/health", {"method": "PUT", "path": "/items/${id}", "body": {"a": 1}, "weight": 3, "expect_status": [200, 404]}]"#;
        let lines = "\"/health\"\n\n{\"method\": \"PUT\", \"path\": \"/items/${id}\", \"body\": {\"a\": 1}, \"weight\": 3, \"expect_status\": [200, 404]}\n";
        let expected = read("r.yaml", yaml).unwrap();
        assert_eq!(expected.len(), 2);
        assert_eq!(expected[1].effective_method().as_str(), "PUT");
        assert_eq!(expected[1].weight, 3);
        for (name, text) in [
            ("r.json", json),
            ("r.jsonl", lines),
            ("r", lines),
            ("r", yaml),
            ("r", json),
        ] {
            assert_eq!(read(name, text).unwrap(), expected, "{name}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let unknown = read("r.yaml", "- /a\n- path: /b\n  weigth: 2\n").unwrap_err();
        assert!(unknown.starts_with("r.yaml:"), "{unknown}");
        assert!(unknown.contains("weigth"), "{unknown}");
        let lines = read("r.jsonl", "\"/a\"\n{\"path\": \"b\"}\n").unwrap_err();
        assert!(lines.starts_with("r.jsonl:2: "), "{lines}");
        assert!(read("r.yaml", "path: /a\n").is_err());
        assert!(read("r.jsonl", "{").is_err());
    }

    #[test]
    fn what_a_request_says_itself_comes_first() {
        let common = Common {
            headers: vec![
                Header {
                    name: "X-A".into(),
                    value: "all".into(),
                },
                Header {
                    name: "X-B".into(),
                    value: "all".into(),
                },
            ],
            expect_status: Some(StatusSet::one(201)),
            expect_body: None,
            expect_within_ms: Some(5.0),
        };
        let mut own = read(
            "r",
            r#"{"path": "/", "headers": {"x-a": "own"}, "expect_within_ms": 9}"#,
        )
        .unwrap()
        .remove(0);
        common.apply(&mut own);
        assert_eq!(own.headers.0["x-a"], "own");
        assert_eq!(own.headers.0["X-B"], "all");
        assert_eq!(own.headers.0.len(), 2);
        assert_eq!(own.expect_status, Some(StatusSet::one(201)));
        assert_eq!(own.expect_within_ms, Some(9.0));
    }

    /// The file of requests in the book.
    #[test]
    fn the_books_example_is_good() {
        let page = include_str!("../../../../docs/src/load.md");
        for (after, name, count) in [
            ("`requests.yaml`:\n\n```text\n", "requests.yaml", 3),
            ("`requests.jsonl`:\n\n```text\n", "requests.jsonl", 3),
        ] {
            let rest = page.split_once(after).expect("the example is there").1;
            let block = rest.split_once("```").expect("it ends").0;
            assert_eq!(read(name, block).unwrap().len(), count, "{name}");
        }
    }
}
