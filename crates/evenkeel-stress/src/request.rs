//! What is asked and what counts as a good answer. Reads from configuration.

mod check;
mod prepared;
mod status;
mod template;

use std::collections::BTreeMap;
use std::fmt;

use http::Method;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

pub use check::{BodyCheck, JsonCheck};
pub(crate) use prepared::Prepared;
pub use status::StatusSet;

/// Longest path that is accepted, in bytes.
const PATH_BYTES_MAX: usize = 8 * 1024;

/// Headers by name. Their values may be credentials: they are sent, and shown nowhere.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One request, and what its answer must look like.
///
/// In configuration it is either a text, `"/health"` or `"POST /jobs"`, or a table with the names
/// of these fields; unknown names are errors.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSpec {
    /// The method; nothing means the test's own, else GET (POST where there is a body).
    pub method: Option<Method>,
    /// Path and query below the base address; starts with `/`.
    pub path: String,
    /// Further headers.
    pub headers: Headers,
    /// A text is sent as it is, anything else as JSON.
    pub body: Option<Value>,
    /// Which statuses are good; nothing means the test's own, else 200 to 299.
    pub expect_status: Option<StatusSet>,
    /// What the body of a good answer must be.
    pub expect_body: Option<BodyCheck>,
    /// A good answer that took longer than this, from when its request was due, has failed; in milliseconds.
    pub expect_within_ms: Option<f64>,
    /// Share of this request among several, 1 to 1000.
    pub weight: u32,
}

impl RequestSpec {
    /// A GET of `path`, any 2xx being good.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: None,
            path: path.into(),
            headers: Headers::default(),
            body: None,
            expect_status: None,
            expect_body: None,
            expect_within_ms: None,
            weight: 1,
        }
    }

    /// A POST of `body` as JSON to `path`.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self {
            method: Some(Method::POST),
            body: Some(body),
            ..Self::get(path)
        }
    }

    /// The method that is used in the end.
    pub fn effective_method(&self) -> Method {
        match (&self.method, &self.body) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        }
    }

    /// Whether it could be sent.
    pub fn check(&self) -> Result<(), PlanError> {
        let base = BaseUrl::parse("http://localhost")?;
        self.prepare(&base, None).map(|_| ())
    }
}

fn check_path(path: &str) -> Result<(), PlanError> {
    let reason = if !path.starts_with('/') {
        "must start with `/`"
    } else if path.len() > PATH_BYTES_MAX {
        "is longer than 8 KiB"
    } else if path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        "holds a space, a control character or `#`"
    } else {
        return Ok(());
    };
    Err(PlanError::BadRequest {
        what: "path",
        value: bounded(path, 80),
        reason: reason.to_owned(),
    })
}

/// Reads a method name; it must be one of HTTP's own, in capitals.
pub(crate) fn parse_method(text: &str) -> Result<Method, PlanError> {
    match text {
        "GET" | "POST" | "PUT" | "DELETE" | "PATCH" | "HEAD" | "OPTIONS" => {
            Method::from_bytes(text.as_bytes()).map_err(|_| ())
        }
        _ => Err(()),
    }
    .map_err(|()| PlanError::BadRequest {
        what: "method",
        value: bounded(text, 20),
        reason: "is not one of GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS".to_owned(),
    })
}

pub(crate) fn de_method<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Method>, D::Error> {
    parse_method(&String::deserialize(d)?)
        .map(Some)
        .map_err(de::Error::custom)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestTable {
    #[serde(default, deserialize_with = "de_method")]
    method: Option<Method>,
    path: String,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    expect_status: Option<StatusSet>,
    #[serde(default)]
    expect_body: Option<BodyCheck>,
    #[serde(default)]
    expect_within_ms: Option<f64>,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

impl<'de> Deserialize<'de> for RequestSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTable;
        impl<'de> Visitor<'de> for TextOrTable {
            type Value = RequestSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path such as \"/health\" or \"POST /jobs\", or a table with `path`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RequestSpec, E> {
                let (method, path) = match text.split_once(' ') {
                    Some((method, path)) => {
                        (Some(parse_method(method).map_err(E::custom)?), path.trim())
                    }
                    None => (None, text),
                };
                check_path(path).map_err(E::custom)?;
                Ok(RequestSpec {
                    method,
                    ..RequestSpec::get(path)
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RequestSpec, A::Error> {
                let t = RequestTable::deserialize(MapAccessDeserializer::new(map))?;
                let spec = RequestSpec {
                    method: t.method,
                    path: t.path,
                    headers: t.headers,
                    body: t.body,
                    expect_status: t.expect_status,
                    expect_body: t.expect_body,
                    expect_within_ms: t.expect_within_ms,
                    weight: t.weight,
                };
                spec.check().map_err(de::Error::custom)?;
                Ok(spec)
            }
        }
        deserializer.deserialize_any(TextOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<RequestSpec, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_request_is_a_text_or_a_table() {
        assert_eq!(read(json!("/health")).unwrap(), RequestSpec::get("/health"));
        let post = read(json!("POST /jobs")).unwrap();
        assert_eq!(post.effective_method(), Method::POST);
        let table = read(json!({"path": "/a", "body": {"x": 1}, "expect_status": [200, "3xx"]}));
        let table = table.unwrap();
        assert_eq!(table.effective_method(), Method::POST);
        let statuses = table.expect_status.unwrap();
        assert!(statuses.contains(200) && statuses.contains(304) && !statuses.contains(201));
    }

    #[test]
    fn wrong_requests_say_what_is_wrong() {
        for (bad, word) in [
            (json!("health"), "start with"),
            (json!("FETCH /x"), "FETCH"),
            (json!({"path": "/x", "expects": 1}), "expects"),
            (json!({"path": "/x", "weight": 0}), "weight"),
            (json!({"path": "/x", "expect_status": "abc"}), "abc"),
            (json!({"path": "/x", "expect_status": 999}), "999"),
            (json!({"path": "/x", "expect_status": []}), "empty"),
            (json!({"path": "/x y"}), "space"),
            (json!({"path": "/x", "headers": {"a b": "c"}}), "header"),
            (json!(7), "path"),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn the_content_type_follows_the_body_and_can_be_overruled() {
        let base = BaseUrl::parse("http://h:1").unwrap();
        let kind = |spec: &RequestSpec| {
            spec.prepare(&base, None)
                .unwrap()
                .header("content-type")
                .unwrap()
        };
        assert_eq!(
            kind(&RequestSpec::post("/", json!({"a": 1}))),
            "application/json"
        );
        assert_eq!(
            kind(&RequestSpec::post("/", json!("{\"a\":1}"))),
            "application/json"
        );
        let mut plain = RequestSpec::post("/", json!("hello"));
        assert_eq!(kind(&plain), "text/plain; charset=utf-8");
        plain
            .headers
            .0
            .insert("Content-Type".into(), "text/x".into());
        assert_eq!(kind(&plain), "text/x");
    }

    #[test]
    fn header_values_are_shown_nowhere() {
        let mut spec = RequestSpec::get("/");
        let secret = "Bearer hunter22";
        spec.headers.0.insert("Authorization".into(), secret.into());
        let base = BaseUrl::parse("http://h:1").unwrap();
        let prepared = spec.prepare(&base, None).unwrap();
        assert_eq!(prepared.header("authorization").unwrap(), secret);
        let shown = format!("{spec:?} {prepared:?}");
        assert!(
            shown.contains("Authorization") && !shown.contains("hunter22"),
            "{shown}"
        );
        spec.headers
            .0
            .insert("Authorization".into(), "hunter22\n".into());
        assert!(!spec.check().unwrap_err().to_string().contains("hunter22"));
    }
}
