//! A request in the form in which it is sent.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::template::{Escape, Template};
use super::{BodyCheck, RequestSpec, StatusSet, check_path};
use crate::data::Rows;
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

/// A request that only has to be filled with a row of data, where it asks for one.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) expect: StatusSet,
    pub(crate) check: Option<BodyCheck>,
    pub(crate) within: Option<std::time::Duration>,
    path: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
    has_body: bool,
    origin: String,
    /// The whole request of HTTP/1.1, where it is always the same: with and without `connection: close`.
    wire: Option<[Vec<u8>; 2]>,
}

impl std::fmt::Debug for Prepared {
    /// Header values and bodies may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Prepared")
            .field("name", &self.name)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

impl RequestSpec {
    pub(crate) fn prepare(
        &self,
        base: &BaseUrl,
        data: Option<&Rows>,
    ) -> Result<Prepared, PlanError> {
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
        if let Some(check) = &self.expect_body {
            check.validate()?;
        }
        let within = match self.expect_within_ms {
            None => None,
            Some(ms) if ms.is_finite() && (0.001..=3_600_000.0).contains(&ms) => {
                Some(std::time::Duration::from_secs_f64(ms / 1000.0))
            }
            Some(ms) => {
                return Err(bad(
                    "expect_within_ms",
                    &ms.to_string(),
                    "is not from 0.001 to 3600000",
                ));
            }
        };
        let mut prepared = Prepared {
            name: format!("{} {}", self.effective_method(), self.path),
            method: self.effective_method(),
            expect: self.expect_status.clone().unwrap_or_default(),
            check: self.expect_body.clone(),
            within,
            path: Template::parse("path", &base.path(&self.path), data, Escape::Url)?,
            headers: Vec::new(),
            body: Template::parse("body", "", None, Escape::Nothing)?,
            has_body: self.body.is_some(),
            origin: format!("{}://{}", base.scheme(), base.authority()),
            wire: None,
        };
        let content_type = self.prepare_body(&mut prepared, data)?;
        self.prepare_headers(&mut prepared, base, content_type, data)?;
        let Some(rows) = data.filter(|_| !prepared.is_fixed()) else {
            let none: &[String] = &[];
            let path = prepared.path.filled(none);
            Uri::try_from(path.as_slice())
                .map_err(|_| bad("path", &self.path, "is not a valid path of a URL"))?;
            prepared.wire = Some([false, true].map(|close| {
                let mut out = Vec::new();
                prepared.write_http1(none, close, &mut out);
                out
            }));
            return Ok(prepared);
        };
        // Whatever the rows hold must be sendable: found out now, not in the middle of a run.
        for (name, value) in &prepared.headers {
            if !value.is_fixed()
                && !rows
                    .iter()
                    .all(|row| HeaderValue::from_bytes(&value.filled(row)).is_ok())
            {
                return Err(bad(
                    "header",
                    name.as_str(),
                    "gets a value from the data that cannot stand in a header",
                ));
            }
        }
        Ok(prepared)
    }

    /// Takes over the body; tells its content type.
    fn prepare_body(
        &self,
        prepared: &mut Prepared,
        data: Option<&Rows>,
    ) -> Result<Option<&'static str>, PlanError> {
        let (text, kind) = match &self.body {
            None => return Ok(None),
            Some(Value::String(text)) => {
                let json = serde_json::from_str::<IgnoredAny>(text).is_ok();
                let kind = if json {
                    "application/json"
                } else {
                    "text/plain; charset=utf-8"
                };
                (text.clone(), kind)
            }
            Some(value) => (value.to_string(), "application/json"),
        };
        let escape = if kind == "application/json" {
            Escape::Json
        } else {
            Escape::Nothing
        };
        prepared.body = Template::parse("body", &text, data, escape)?;
        Ok(Some(kind))
    }

    fn prepare_headers(
        &self,
        prepared: &mut Prepared,
        base: &BaseUrl,
        content_type: Option<&str>,
        data: Option<&Rows>,
    ) -> Result<(), PlanError> {
        let fixed = |text: &str| Template::parse("header", text, None, Escape::Nothing);
        if HeaderValue::from_str(base.authority()).is_err() {
            return Err(PlanError::BadRequest {
                what: "host",
                value: bounded(base.authority(), 80),
                reason: "cannot stand in a header".to_owned(),
            });
        }
        let agent = concat!("evenkeel-stress/", env!("CARGO_PKG_VERSION"));
        let mut headers = vec![
            (header::HOST, fixed(base.authority())?),
            (header::USER_AGENT, fixed(agent)?),
            (header::ACCEPT, fixed("*/*")?),
        ];
        if let Some(kind) = content_type {
            headers.push((header::CONTENT_TYPE, fixed(kind)?));
        }
        for (name, value) in &self.headers.0 {
            let bad = |reason: &str| PlanError::BadRequest {
                what: "header",
                value: bounded(name, 80),
                reason: reason.to_owned(),
            };
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| bad("is not a valid header name"))?;
            if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&key) {
                return Err(bad("is set by the engine, from the body"));
            }
            // The value may be a credential, so it is not repeated.
            HeaderValue::from_str(value)
                .map_err(|_| bad("has a value that cannot stand in a header"))?;
            let value = Template::parse("header", value, data, Escape::Nothing)?;
            match headers.iter_mut().find(|(k, _)| *k == key) {
                Some(place) => place.1 = value,
                None => headers.push((key, value)),
            }
        }
        prepared.headers = headers;
        Ok(())
    }
}

impl Prepared {
    fn is_fixed(&self) -> bool {
        self.path.is_fixed()
            && self.body.is_fixed()
            && self.headers.iter().all(|(_, value)| value.is_fixed())
    }

    /// The request as HTTP/1.1 sends it (RFC 9112). `close` asks for the connection to be closed after the answer.
    pub(crate) fn http1(&self, row: Option<&[String]>, close: bool) -> Cow<'_, [u8]> {
        if let Some(wire) = &self.wire {
            return Cow::Borrowed(&wire[usize::from(close)]);
        }
        let mut out = Vec::new();
        self.write_http1(row.unwrap_or_default(), close, &mut out);
        Cow::Owned(out)
    }

    fn write_http1(&self, row: &[String], close: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        self.path.write(row, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            value.write(row, out);
            out.extend_from_slice(b"\r\n");
        }
        if close && !self.headers.iter().any(|(n, _)| n == header::CONNECTION) {
            out.extend_from_slice(b"connection: close\r\n");
        }
        let body = self.body.filled(row);
        // RFC 9110, section 8.6: methods that usually have a body say so when they have none.
        let says_length =
            self.has_body || matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        if says_length {
            out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&body);
    }

    /// The request as HTTP/2 sends it; nothing where a row made it unsendable.
    pub(crate) fn http2(&self, row: Option<&[String]>) -> Option<http::Request<Bytes>> {
        let row = row.unwrap_or_default();
        let path = String::from_utf8(self.path.filled(row)).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // RFC 9113, sections 8.2.2 and 8.3.1: the host is in `:authority`, and connections are not per request.
            if [header::HOST, header::CONNECTION].contains(name) {
                continue;
            }
            headers.insert(name, HeaderValue::from_bytes(&value.filled(row)).ok()?);
        }
        let mut request = http::Request::new(Bytes::from(self.body.filled(row)));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::try_from(format!("{}{path}", self.origin)).ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }

    /// The value of a header that is the same for every row.
    #[cfg(test)]
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        String::from_utf8(value.filled(&[])).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_filled_in_and_lengths_follow() {
        let rows = Rows::from_csv("id,who,mail\n7,\"a \"\"b\"\"\",x@y\n").unwrap();
        let mut spec = RequestSpec::post("/users/${id}?q=${who}", json!({"who": "${who}"}));
        spec.headers.0.insert("X-Mail".into(), "<${mail}>".into());
        let base = BaseUrl::parse("http://h:1/v1").unwrap();
        let prepared = spec.prepare(&base, Some(&rows)).unwrap();
        let wire = prepared.http1(Some(rows.row(0)), true);
        let wire = std::str::from_utf8(&wire).unwrap();
        let (head, body) = wire.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /v1/users/7?q=a%20%22b%22 HTTP/1.1\r\nhost: h:1\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nx-mail: <x@y>\r\n") && head.contains("\r\nconnection: close"));
        assert_eq!(body, "{\"who\":\"a \\\"b\\\"\"}");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let two = prepared.http2(Some(rows.row(0))).unwrap();
        assert_eq!(two.uri(), "http://h:1/v1/users/7?q=a%20%22b%22");
        assert_eq!(
            (two.body().as_ref(), two.headers().get("host")),
            (body.as_bytes(), None)
        );
    }

    #[test]
    fn a_row_that_would_break_a_header_is_refused_without_being_shown() {
        let rows = Rows::from_csv("token\n\"hunter22\nx: y\"\n").unwrap();
        let mut spec = RequestSpec::get("/");
        spec.headers.0.insert("x-token".into(), "${token}".into());
        let base = BaseUrl::parse("http://h:1").unwrap();
        let error = spec.prepare(&base, Some(&rows)).unwrap_err().to_string();
        assert!(
            error.contains("x-token") && !error.contains("hunter22"),
            "{error}"
        );
    }

    #[test]
    fn lengths_are_the_engines_own() {
        let base = BaseUrl::parse("http://h:1").unwrap();
        let mut spec = RequestSpec::get("/");
        spec.headers.0.insert("Content-Length".into(), "5".into());
        assert!(spec.prepare(&base, None).is_err());
        let mut post = RequestSpec::get("/");
        post.method = Some(Method::POST);
        let post = post.prepare(&base, None).unwrap();
        let wire = post.http1(None, false);
        assert!(wire.ends_with(b"content-length: 0\r\n\r\n"));
    }
}
