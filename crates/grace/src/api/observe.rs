//! What happens around every request: its id, its metrics, its log line when it failed, and its
//! report to the audit.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use super::Shared;
use super::error::ErrorCode;
use crate::audit::Entry;
use crate::ids;
use crate::log::Level;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest path written to the log, in characters.
const PATH_MAX: usize = 200;

/// The id of a request, for whoever wants to log it.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// What a handler wants audited; kept on the response.
#[derive(Debug, Clone)]
pub(super) struct Audited {
    pub(super) resource: String,
    pub(super) payload: Value,
}

/// Gives each request an id, taking over a plain one from outside.
pub(super) async fn request_id(mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| ids::is_plain(id));
    let id = given.map_or_else(ids::new_id, str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Counts, logs and audits.
pub(super) async fn observe(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let id = request
        .extensions()
        .get::<RequestId>()
        .map_or_else(String::new, |id| id.0.clone());
    let method = method_name(request.method());
    let path: String = request.uri().path().chars().take(PATH_MAX).collect();
    let mut response = next.run(request).await;
    let took = start.elapsed();
    let status = response.status();
    let error = response.extensions_mut().remove::<ErrorCode>();
    let audited = response.extensions_mut().remove::<Audited>();
    let code = error.as_ref().map(|error| error.code);
    app.metrics
        .observe(&route, method, status.as_u16(), code, took);
    let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    let (action, subsystem) = names(&route);
    if status.is_client_error() || status.is_server_error() {
        let level = if status.is_server_error() || code == Some("rate_limit") {
            Level::Error
        } else {
            Level::Warn
        };
        let message = error.as_ref().map_or("the request failed", |e| &e.message);
        let fields = json!({
            "request_id": id, "path": path, "method": method, "status": status.as_u16(),
            "duration_ms": duration_ms, "error": code.unwrap_or("internal"),
        });
        app.log
            .event(level, subsystem, "request_failed", message, fields);
    }
    if let Some(audited) = audited {
        report(&app, action, subsystem, audited, "success");
    } else if status.is_server_error() {
        let payload = json!({
            "request_id": id, "method": method, "status": status.as_u16(),
            "error": code.unwrap_or("internal"), "duration_ms": duration_ms,
        });
        let resource = path;
        report(
            &app,
            action,
            subsystem,
            Audited { resource, payload },
            "error",
        );
    }
    response
}

fn report(
    app: &Shared,
    action: &'static str,
    subsystem: &'static str,
    audited: Audited,
    result: &'static str,
) {
    app.audit.report(Entry {
        actor: "grace",
        action,
        resource: audited.resource,
        subsystem,
        payload: audited.payload,
        result,
    });
}

/// The action a route stands for in the audit, and its subsystem.
fn names(route: &str) -> (&'static str, &'static str) {
    match route {
        "/api/governance/decide" => ("governance_decide", "governance"),
        "/api/governance/policies" => ("governance_policies", "governance"),
        "/api/multimodal/chat" => ("multimodal_chat", "chat"),
        "/api/metrics/summary" => ("metrics_summary", "metrics"),
        route if route.starts_with("/api/events") => ("event_mesh", "event_mesh"),
        _ => ("api_request", "api"),
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
