//! A small HTTP/1.1 client for plain `http://` addresses: the collector's scrape, the chat's model
//! server and the audit receiver. One connection a request, every answer bounded in size and time.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer read, in bytes.
const ANSWER_MAX: usize = 1024 * 1024;

/// A plain `http://host[:port][/path]` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl {
    authority: String,
    path: String,
}

impl HttpUrl {
    /// `None` when the text is not such an address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let uri: hyper::Uri = format!("http://{authority}{path}").parse().ok()?;
        if uri.host().is_none_or(str::is_empty) || authority.contains('@') {
            return None;
        }
        Some(Self {
            authority: if uri.port().is_some() {
                authority.to_owned()
            } else {
                format!("{authority}:80")
            },
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Whether the address is on this host, by its form.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(self.authority.as_str(), |(host, _)| host)
            .trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// This address with `path` put behind it.
    pub(crate) fn join(&self, path: &str) -> Self {
        Self {
            authority: self.authority.clone(),
            path: format!("{}{path}", self.path),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No complete answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Failed(String),
}

/// `GET`, with the whole answer.
pub(crate) async fn get(url: &HttpUrl, limit: Duration) -> Result<(StatusCode, Bytes), HttpError> {
    send(url, Method::GET, Bytes::new(), None, limit).await
}

/// `POST` of a JSON text, with the whole answer. `token` goes into the Authorization header.
pub(crate) async fn post_json(
    url: &HttpUrl,
    body: String,
    token: Option<&str>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), HttpError> {
    send(url, Method::POST, body.into(), token, limit).await
}

async fn send(
    url: &HttpUrl,
    method: Method,
    body: Bytes,
    token: Option<&str>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), HttpError> {
    tokio::time::timeout(limit, exchange(url, method, body, token))
        .await
        .map_err(|_| HttpError::Timeout(limit))?
        .map_err(HttpError::Failed)
}

async fn exchange(
    url: &HttpUrl,
    method: Method,
    body: Bytes,
    token: Option<&str>,
) -> Result<(StatusCode, Bytes), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(&url.authority)
        .await
        .map_err(|e| format!("cannot connect to {}: {e}", url.authority))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &url.authority)
        .header(CONNECTION, "close");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(body)).map_err(|e| text(&e))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|e| text(&e))?
            .to_bytes();
        Ok((status, body))
    };
    // The connection is driven here, beside the exchange: when this future is dropped, at a
    // timeout, the connection closes with it.
    tokio::pin!(answer, connection);
    let mut closed = false;
    loop {
        tokio::select! {
            biased;
            done = &mut answer => return done,
            end = &mut connection, if !closed => {
                closed = true;
                if let Err(error) = end {
                    return Err(text(&error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let url = HttpUrl::parse("http://127.0.0.1:90/a/b/").unwrap();
        assert_eq!(
            (url.authority.as_str(), url.path.as_str()),
            ("127.0.0.1:90", "/a/b")
        );
        assert_eq!(
            HttpUrl::parse("http://h").unwrap().join("/x").authority,
            "h:80"
        );
        for (text, loopback) in [
            ("http://127.0.0.1:1/x", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example", false),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!(url.is_loopback(), loopback, "{text}");
        }
        for bad in [
            "",
            "https://h",
            "h:1",
            "http://",
            "http:///x",
            "http://u:p@h",
            "http://a b",
        ] {
            assert!(HttpUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
