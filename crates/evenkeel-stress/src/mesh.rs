//! The event mesh of a target: publish over HTTP, subscribe by server-sent events.
//!
//! `POST <publish_path>` takes one JSON event; `GET <subscribe_path>?types=a,b` streams events, each
//! as one JSON object in an SSE `data` field. An event has `type`, `source`, `correlation_id` and
//! `payload`; further members are ignored.
//!
//! Runs on the caller's tokio runtime. One connection for each subscription and each publication.

mod responder;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::dial::{Dialer, Stream};
use crate::plan::HttpVersion;
use crate::request::RequestSpec;
use crate::sse::{SseError, SseParser};
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

pub use responder::{Responder, ResponderHandle, ResponderOptions};

/// The event that the self-heal test publishes.
pub const SELFTEST: &str = "evenkeel.selftest";
/// The event that answers it.
pub const ACK: &str = "evenkeel.ack";

/// Most bytes of a stream that are taken apart before their events are taken.
const PART_BYTES_MAX: usize = 4096;

/// Where the mesh is, below the target's base address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshSpec {
    /// Events are posted here.
    pub publish_path: String,
    /// Events are streamed from here.
    pub subscribe_path: String,
}

impl Default for MeshSpec {
    fn default() -> Self {
        Self {
            publish_path: "/api/events".to_owned(),
            subscribe_path: "/api/events".to_owned(),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshEvent {
    /// Its type, such as `evenkeel.selftest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who published it.
    #[serde(default)]
    pub source: String,
    /// What ties an answer to its question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What it says.
    #[serde(default)]
    pub payload: Value,
}

/// Why an event could not be published or received.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No connection.
    #[error("cannot reach the event mesh at {base}: {reason}")]
    Connect {
        /// The base address.
        base: String,
        /// The kind, as the load engine names it: `refused`, `connect_timeout`, `connect`.
        kind: &'static str,
        /// What happened.
        reason: String,
    },
    /// No answer in time.
    #[error("the event mesh did not answer {what} within {} ms", limit.as_millis())]
    Timeout {
        /// Which request.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// An answer that is none.
    #[error("the event mesh answered {what} with status {status}: {text}")]
    Status {
        /// Which request.
        what: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// A subscription that is no event stream.
    #[error("{what} is no event stream: its content type is `{content_type}`")]
    NoStream {
        /// Which request.
        what: String,
        /// What it is instead.
        content_type: String,
    },
    /// The connection failed.
    #[error("the connection to the event mesh failed during {what}: {reason}")]
    Connection {
        /// Which request.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The stream goes beyond bounds.
    #[error(transparent)]
    Stream(#[from] SseError),
}

impl MeshError {
    /// The kind under which the error is counted, as the load engine names kinds.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect { kind, .. } => (*kind).to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Status { status, .. } => format!("status_{status}"),
            Self::Connection { .. } => "reset".to_owned(),
            Self::NoStream { .. } | Self::Stream(_) => "protocol".to_owned(),
        }
    }
}

/// Publishes and subscribes.
#[derive(Clone, Debug)]
pub struct MeshClient {
    base: BaseUrl,
    spec: MeshSpec,
    connect_limit: Duration,
    request_limit: Duration,
}

impl MeshClient {
    /// A client of the mesh at `base`; opens nothing yet.
    pub fn new(base: BaseUrl, spec: MeshSpec) -> Result<Self, PlanError> {
        RequestSpec::get(&spec.publish_path).check()?;
        RequestSpec::get(&spec.subscribe_path).check()?;
        Ok(Self {
            base,
            spec,
            connect_limit: Duration::from_secs(2),
            request_limit: Duration::from_secs(5),
        })
    }

    /// With other limits than 2 s for connecting and 5 s for an answer to begin and end.
    #[must_use]
    pub fn with_limits(mut self, connect: Duration, request: Duration) -> Self {
        self.connect_limit = connect;
        self.request_limit = request;
        self
    }

    /// Publishes an event; done when the mesh has accepted it (any 2xx).
    pub async fn publish(&self, event: &MeshEvent) -> Result<(), MeshError> {
        let what = format!("POST {}", self.spec.publish_path);
        // A struct of texts and JSON values always serialises.
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.limited(&what, async {
            let (response, _driver) = self
                .send(&what, Method::POST, &self.spec.publish_path, Some(body))
                .await?;
            good(&what, response).await.map(|_| ())
        })
        .await
    }

    /// Subscribes to events of these types. When it returns, the mesh has taken the subscription:
    /// what is published from now on arrives.
    pub async fn subscribe(&self, types: &[&str]) -> Result<Subscription, MeshError> {
        let path = &self.spec.subscribe_path;
        let glue = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{glue}types={}", types.join(","));
        let what = format!("GET {path}");
        self.limited(&what, async {
            let (response, driver) = self.send(&what, Method::GET, &path, None).await?;
            let response = good(&what, response).await?;
            let content_type = response
                .headers()
                .get(header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("");
            if !content_type.starts_with("text/event-stream") {
                return Err(MeshError::NoStream {
                    what: what.clone(),
                    content_type: bounded(content_type, 80),
                });
            }
            Ok(Subscription {
                types: types.iter().map(|t| (*t).to_owned()).collect(),
                what: what.clone(),
                body: response.into_body(),
                parser: SseParser::new(),
                pending: std::collections::VecDeque::new(),
                unread: Bytes::new(),
                _driver: driver,
            })
        })
        .await
    }

    async fn limited<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, MeshError>>,
    ) -> Result<T, MeshError> {
        tokio::time::timeout(self.request_limit, work)
            .await
            .unwrap_or_else(|_| {
                Err(MeshError::Timeout {
                    what: what.to_owned(),
                    limit: self.request_limit,
                })
            })
    }

    async fn send(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(Response<Incoming>, Driver), MeshError> {
        let failed = |e: hyper::Error| MeshError::Connection {
            what: what.to_owned(),
            reason: e.to_string(),
        };
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let driver = Driver(
            tokio::spawn(async move {
                // How it ended reaches whoever reads the answer.
                let _ = connection.await;
            })
            .abort_handle(),
        );
        let accept = if body.is_some() {
            "application/json"
        } else {
            "text/event-stream"
        };
        let mut request = Request::builder()
            .method(method)
            .uri(self.base.path(path))
            .header(header::HOST, self.base.authority())
            .header(header::ACCEPT, accept);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| MeshError::Connection {
                what: what.to_owned(),
                reason: e.to_string(),
            })?;
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok((response, driver))
    }

    async fn connect(&self) -> Result<Stream, MeshError> {
        let failed = |kind, reason: String| MeshError::Connect {
            base: self.base.to_string(),
            kind,
            reason,
        };
        let limit = self.connect_limit;
        let open = async {
            let addresses = self.base.resolve().await;
            let addresses = addresses.map_err(|e| failed("connect", e.to_string()))?;
            let dialer = Dialer::new(&self.base, addresses, limit, HttpVersion::Http1, None)
                .map_err(|e| failed("tls", e.to_string()))?;
            dialer
                .dial()
                .await
                .map_err(|(kind, reason)| failed(kind, reason))
        };
        tokio::time::timeout(limit, open).await.unwrap_or_else(|_| {
            Err(failed(
                "connect_timeout",
                format!("no connection within {} ms", limit.as_millis()),
            ))
        })
    }
}

/// Ends the connection's task with whoever uses it.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn good(what: &str, response: Response<Incoming>) -> Result<Response<Incoming>, MeshError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(
            frame
                .data_ref()
                .map_or(&[][..], |d| &d[..d.len().min(1024)]),
        );
        if text.len() > 1024 {
            break;
        }
    }
    Err(MeshError::Status {
        what: what.to_owned(),
        status: status.as_u16(),
        text: bounded(&String::from_utf8_lossy(&text), 200),
    })
}

/// Events as they arrive. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    types: Vec<String>,
    what: String,
    body: Incoming,
    parser: SseParser,
    pending: std::collections::VecDeque<MeshEvent>,
    unread: Bytes,
    _driver: Driver,
}

impl Subscription {
    /// The next event of the subscribed types; nothing when the mesh has ended the stream.
    ///
    /// Waits without limit; what is no such event is passed over. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<MeshEvent>, MeshError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for any bytes, keep-alive comments among them; false when the stream has ended.
    pub(crate) async fn advance(&mut self) -> Result<bool, MeshError> {
        if self.unread.is_empty() {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(e)) => {
                    return Err(MeshError::Connection {
                        what: self.what.clone(),
                        reason: e.to_string(),
                    });
                }
                Some(Ok(frame)) => self.unread = frame.into_data().unwrap_or_default(),
            }
        }
        // A part at a time, so that a burst of tiny events cannot pile up here.
        let part = self.unread.split_to(self.unread.len().min(PART_BYTES_MAX));
        for event in self.parser.push(&part)? {
            if let Ok(parsed) = serde_json::from_str::<MeshEvent>(&event.data)
                && self.types.contains(&parsed.kind)
            {
                self.pending.push_back(parsed);
            }
        }
        Ok(true)
    }

    pub(crate) fn pop(&mut self) -> Option<MeshEvent> {
        self.pending.pop_front()
    }
}
