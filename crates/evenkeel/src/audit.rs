//! The loopback endpoint through which the target writes its own audited actions into the immutable log (CONTRACT
//! section 3). Bounded in size and rate, behind a token, and unable to write as Evenkeel.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::journal::{Journal, OWN_ACTORS, OWN_SUBSYSTEMS};
use crate::token::{TokenError, bearer_matches, token};

/// Largest request, in bytes.
pub const BODY_LEN_MAX: usize = 256 * 1024;
/// Most entries in a request.
pub const ENTRIES_MAX: usize = 100;
/// Entries a second, averaged; as many may come at once.
pub const ENTRIES_PER_SECOND_MAX: f64 = 500.0;

/// Why the endpoint is not there.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The address is taken or not allowed.
    #[error("[audit] cannot listen on {addr}: {reason}; choose another `listen` address")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The token cannot be read or made.
    #[error("[audit] {0}")]
    Token(#[from] TokenError),
}

/// The endpoint, listening.
#[derive(Debug)]
pub struct AuditEndpoint {
    /// Where it listens.
    pub addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for AuditEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a writer sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    actor: String,
    action: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subsystem: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    result: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sent {
    Many(Vec<Entry>),
    One(Entry),
}

struct Shared {
    journal: Journal,
    token: String,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

/// Starts to listen. The token is read from `token_file`, which is made (mode 0600) when it does not exist.
pub async fn listen(
    addr: SocketAddr,
    token_file: &Path,
    journal: Journal,
) -> Result<AuditEndpoint, AuditError> {
    let token = token(token_file)?;
    let failed = |e: std::io::Error| AuditError::Listen {
        addr,
        reason: e.to_string(),
    };
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let shared = Arc::new(Shared {
        journal,
        token,
        bucket: Mutex::new(Bucket {
            left: ENTRIES_PER_SECOND_MAX,
            at: Instant::now(),
        }),
    });
    let app = Router::new()
        .route("/v1/audit", post(take))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(shared);
    let task = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, app).await {
            tracing::warn!(subsystem = "evenkeel", "the audit endpoint ended: {e}");
        }
    });
    Ok(AuditEndpoint { addr, task })
}

async fn take(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let refuse =
        |status: StatusCode, why: &str| (status, Json(json!({"error": why}))).into_response();
    if !bearer_matches(&headers, &shared.token) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "send the token as `Authorization: Bearer ...`",
        );
    }
    let actions = match serde_json::from_slice::<Sent>(&body) {
        Ok(Sent::One(action)) => vec![action],
        Ok(Sent::Many(actions)) => actions,
        Err(_) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                "send an object (or a list of them) with actor, action, resource, subsystem, payload, result",
            );
        }
    };
    if actions.len() > ENTRIES_MAX {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "at most 100 entries at once");
    }
    if actions.iter().any(|a| {
        OWN_ACTORS.contains(&a.actor.as_str()) || OWN_SUBSYSTEMS.contains(&a.subsystem.as_str())
    }) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this actor or subsystem is Evenkeel's own",
        );
    }
    if !shared.admit(actions.len()) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "too many entries a second");
    }
    let mut sequences = Vec::with_capacity(actions.len());
    for a in &actions {
        match shared
            .journal
            .note(
                &a.actor,
                &a.subsystem,
                &a.action,
                &a.resource,
                &a.payload,
                &a.result,
            )
            .await
        {
            Ok(entry) => sequences.push(entry.sequence),
            Err(evenkeel_ledger::LedgerError::Invalid { field, problem }) => {
                return refuse(StatusCode::BAD_REQUEST, &format!("{field} {problem}"));
            }
            Err(_) => {
                return refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the ledger takes no entries now",
                );
            }
        }
    }
    (StatusCode::CREATED, Json(json!({"sequences": sequences}))).into_response()
}

impl Shared {
    fn admit(&self, entries: usize) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(bucket.at).as_secs_f64() * ENTRIES_PER_SECOND_MAX;
        bucket.left = (bucket.left + gained).min(ENTRIES_PER_SECOND_MAX);
        bucket.at = now;
        let wanted = entries as f64;
        let enough = bucket.left >= wanted;
        if enough {
            bucket.left -= wanted;
        }
        enough
    }
}
