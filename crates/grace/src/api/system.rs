//! What the service says of itself: health, readiness, metrics, documentation and the summary.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::Shared;
use super::error::ApiError;
use super::sessions::SessionId;
use crate::db::queries;
use crate::metrics::{self, Page};
use crate::settings::Settings;
use crate::{model, process};

/// Method, path, whether limiter and worker gate apply, and what it does.
const ENDPOINTS: [(&str, &str, bool, &str); 12] = [
    ("GET", "/health", false, "Whether the process runs."),
    (
        "GET",
        "/ready",
        false,
        "Whether the database can be reached.",
    ),
    (
        "GET",
        "/metrics",
        false,
        "Metrics in Prometheus text format.",
    ),
    ("GET", "/docs", true, "This page."),
    (
        "GET",
        "/api/metrics/summary",
        true,
        "The newest metrics summary, and the decisions by hour.",
    ),
    (
        "GET",
        "/api/governance/policies",
        false,
        "The policies and what they did.",
    ),
    (
        "POST",
        "/api/governance/decide",
        false,
        "Decides about {subject, action, resource}.",
    ),
    (
        "POST",
        "/api/multimodal/chat",
        false,
        "Answers {message, modality?, session_id?}. An image is sent as its caption, a recording as its transcript.",
    ),
    (
        "POST",
        "/api/events",
        false,
        "Publishes {type, source, correlation_id?, payload?}.",
    ),
    (
        "GET",
        "/api/events?types=a,b",
        false,
        "Streams events as server-sent events.",
    ),
    (
        "POST",
        "/api/events/reset",
        false,
        "Drops all consumers of the event mesh, so that they connect anew.",
    ),
    (
        "any",
        "/api/...",
        false,
        "x-session-id names a session; without it, a new one is opened.",
    ),
];

/// Status, code, and when it is answered.
const ERRORS: [(u16, &str, &str); 14] = [
    (
        400,
        "bad_request",
        "The body, a header or the query is not valid.",
    ),
    (404, "not_found", "There is no such endpoint."),
    (
        405,
        "method_not_allowed",
        "The endpoint has another method.",
    ),
    (413, "payload_too_large", "The body is larger than 64 KiB."),
    (
        429,
        "rate_limit",
        "The rate limit is reached; Retry-After says when to try again.",
    ),
    (500, "database_error", "The database failed."),
    (500, "internal", "Something else failed inside Grace."),
    (
        503,
        "pool_timeout",
        "No database connection got free in time.",
    ),
    (
        503,
        "database_locked",
        "Another program holds the database locked.",
    ),
    (
        503,
        "workers_exhausted",
        "Every worker of the public read API is busy and its queue is full.",
    ),
    (503, "chat_capacity", "Too many chats run at the same time."),
    (
        503,
        "mesh_capacity",
        "The event mesh has too many consumers.",
    ),
    (
        200,
        "upstream_timeout",
        "Only in the log: the model server was slow and the local model answered.",
    ),
    (
        200,
        "upstream_error",
        "Only in the log: the model server failed and the local model answered.",
    ),
];

/// Sentences of the introduction on the documentation page.
const INTRODUCTION_SENTENCES: usize = 3;

/// `GET /health`
pub(super) async fn health(State(app): State<Shared>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "service": "grace",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_ms": u64::try_from(app.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// `GET /ready`
pub(super) async fn ready(State(app): State<Shared>) -> Result<Json<Value>, ApiError> {
    let policies = app.store.run(|c| queries::ping(c)).await?;
    Ok(Json(json!({"status": "ready", "policies": policies})))
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>) -> impl IntoResponse {
    let mut page = Page::default();
    app.metrics.render(&mut page);
    let pool = app.store.state();
    page.gauge(
        "grace_pool_size",
        "Database connections at most.",
        pool.size,
    );
    page.gauge(
        "grace_pool_in_use",
        "Database connections in use.",
        pool.in_use,
    );
    page.gauge(
        "grace_pool_waiting",
        "Queries that wait for a connection.",
        pool.waiting,
    );
    page.counter(
        "grace_pool_timeouts_total",
        "Queries that found no connection in time.",
        app.store.timeouts.get(),
    );
    app.sessions.render(&mut page);
    app.mesh.render(&mut page);
    app.audit.render(&mut page);
    page.counter(
        "grace_log_lost_total",
        "Log lines that could not be written.",
        app.log.lost(),
    );
    page.gauge(
        "grace_uptime_seconds",
        "Time since the start.",
        app.started.elapsed().as_secs_f64(),
    );
    if let Some(bytes) = process::resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page.finish())
}

/// `GET /docs`
pub(super) async fn docs() -> Result<Html<String>, ApiError> {
    tokio::task::spawn_blocking(|| Html(page()))
        .await
        .map_err(|error| ApiError::internal(format!("the page could not be made: {error}")))
}

/// The page. Its introduction is what the local model picks out of everything it says.
fn page() -> String {
    let settings = Settings::default().to_commented_toml();
    let mut text = model::KNOWLEDGE.to_owned();
    let mut rows = String::new();
    for (method, path, limited, what) in ENDPOINTS {
        let limited = if limited { "yes" } else { "no" };
        // Writing into a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr><td>{method}</td><td><code>{path}</code></td><td>{limited}</td><td>{what}</td></tr>"
        );
        let _ = write!(text, " {what}");
    }
    let mut errors = String::new();
    for (status, code, when) in ERRORS {
        let _ = writeln!(
            errors,
            "<tr><td>{status}</td><td><code>{code}</code></td><td>{when}</td></tr>"
        );
        let _ = write!(text, " {when}");
    }
    for comment in settings.lines().filter_map(|line| line.strip_prefix("# ")) {
        let _ = write!(text, " {comment}");
    }
    let introduction = model::summarise(&text, INTRODUCTION_SENTENCES);
    let settings = settings.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Grace</title></head>\n\
         <body><h1>Grace</h1>\n<p>{introduction}</p>\n\
         <h2>Endpoints</h2>\n<table>\n<tr><th>Method</th><th>Path</th><th>Rate limit</th>\
         <th>What it does</th></tr>\n{rows}</table>\n\
         <h2>Errors</h2>\n<p>JSON: {{\"error\": code, \"message\": text}}.</p>\n<table>\n{errors}</table>\n\
         <h2>Settings</h2>\n<p>The defaults, as they may stand in the settings file.</p>\n\
         <pre>{settings}</pre>\n</body></html>\n"
    )
}

/// `GET /api/metrics/summary`
pub(super) async fn summary(
    State(app): State<Shared>,
    Extension(session): Extension<SessionId>,
) -> Result<Json<Value>, ApiError> {
    let overview = app
        .store
        .run(move |c| queries::overview(c, "/api/metrics/summary", &session.0))
        .await?;
    Ok(Json(json!(overview)))
}
