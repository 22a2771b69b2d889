//! What is asked and what counts as a good answer. Reads from configuration.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde::de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::exposition;
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

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
        self.prepare(&base).map(|_| ())
    }

    pub(crate) fn prepare(&self, base: &BaseUrl) -> Result<Prepared, PlanError> {
        check_path(&self.path)?;
        let bad = |what, value: &str, reason: &str| PlanError::BadRequest {
            what,
            value: bounded(value, 80),
            reason: reason.to_owned(),
        };
        if !(1..=1000).contains(&self.weight) {
            return Err(PlanError::OutOfRange {
                what: "weight",
                value: u64::from(self.weight),
                min: 1,
                max: 1000,
            });
        }
        let uri: Uri = base
            .path(&self.path)
            .parse()
            .map_err(|_| bad("path", &self.path, "is not a valid path of a URL"))?;
        let (body, content_type) = match &self.body {
            None => (Bytes::new(), None),
            Some(Value::String(text)) => {
                let json = serde_json::from_str::<de::IgnoredAny>(text).is_ok();
                let kind = if json {
                    "application/json"
                } else {
                    "text/plain; charset=utf-8"
                };
                (Bytes::from(text.clone()), Some(kind))
            }
            Some(value) => (Bytes::from(value.to_string()), Some("application/json")),
        };
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(base.authority())
            .map_err(|_| bad("host", base.authority(), "cannot stand in a header"))?;
        headers.insert(header::HOST, host);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("evenkeel-stress/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(kind) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, value) in &self.headers.0 {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| bad("header", name, "is not a valid header name"))?;
            // The value may be a credential, so it is not repeated.
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| bad("header", name, "has a value that cannot stand in a header"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Prepared {
            method: self.effective_method(),
            uri,
            headers,
            body,
            expect: self.expect_status.clone().unwrap_or_default(),
            check: self.expect_body.clone(),
            name: format!("{} {}", self.effective_method(), self.path),
        })
    }
}

/// A request in the form in which it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) expect: StatusSet,
    pub(crate) check: Option<BodyCheck>,
    pub(crate) name: String,
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
                    weight: t.weight,
                };
                spec.check().map_err(de::Error::custom)?;
                Ok(spec)
            }
        }
        deserializer.deserialize_any(TextOrTable)
    }
}

/// A set of HTTP statuses: `200`, `"2xx"`, `"200-399"`, or a list of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl Default for StatusSet {
    fn default() -> Self {
        Self::range(200, 299)
    }
}

impl StatusSet {
    /// One status.
    pub fn one(status: u16) -> Self {
        Self(vec![(status, status)])
    }

    /// All from `first` to `last`, both included.
    pub fn range(first: u16, last: u16) -> Self {
        Self(vec![(first, last)])
    }

    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(a, b)| (*a..=*b).contains(&status))
    }

    /// Reads `200`, `2xx` or `200-299`.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let number = |t: &str| {
            t.trim()
                .parse::<u16>()
                .ok()
                .filter(|n| (100..=599).contains(n))
        };
        let lower = text.trim().to_ascii_lowercase();
        let found = if let Some(class) = lower.strip_suffix("xx") {
            class
                .parse::<u16>()
                .ok()
                .filter(|c| (1..=5).contains(c))
                .map(|c| (c * 100, c * 100 + 99))
        } else if let Some((a, b)) = lower.split_once('-') {
            number(a).zip(number(b)).filter(|(a, b)| a <= b)
        } else {
            number(&lower).map(|n| (n, n))
        };
        found
            .map(|range| Self(vec![range]))
            .ok_or_else(|| PlanError::BadRequest {
                what: "status",
                value: bounded(text, 40),
                reason: "is no status; write 200, \"2xx\" or \"200-299\"".to_owned(),
            })
    }
}

impl<'de> Deserialize<'de> for StatusSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Statuses;
        impl<'de> Visitor<'de> for Statuses {
            type Value = StatusSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200, \"2xx\" or \"200-299\", or a list of them")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<StatusSet, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<StatusSet, E> {
                self.visit_str(&n.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusSet, E> {
                StatusSet::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StatusSet, A::Error> {
                let mut all = Vec::new();
                while let Some(StatusSet(part)) = seq.next_element()? {
                    all.extend(part);
                    if all.len() > 64 {
                        return Err(de::Error::custom("more than 64 statuses are listed"));
                    }
                }
                if all.is_empty() {
                    return Err(de::Error::custom("an empty list accepts no status at all"));
                }
                Ok(StatusSet(all))
            }
        }
        deserializer.deserialize_any(Statuses)
    }
}

/// What the body of a good answer must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyCheck {
    /// Holds this text.
    Contains(String),
    /// Is Prometheus text exposition 0.0.4 with at least one sample.
    Metrics,
}

impl BodyCheck {
    /// Checks a body.
    pub(crate) fn judge(&self, body: &[u8]) -> Result<(), String> {
        match self {
            Self::Contains(text) => {
                let needle = text.as_bytes();
                let found = needle.is_empty() || body.windows(needle.len()).any(|w| w == needle);
                if found {
                    Ok(())
                } else {
                    Err(format!("the body does not hold `{}`", bounded(text, 80)))
                }
            }
            Self::Metrics => match exposition::check(body) {
                Ok(found) if found.samples == 0 => Err("the metrics hold no sample".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        }
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
        let kind =
            |spec: &RequestSpec| spec.prepare(&base).unwrap().headers["content-type"].clone();
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
        let prepared = spec.prepare(&base).unwrap();
        assert_eq!(prepared.headers["authorization"], secret);
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
