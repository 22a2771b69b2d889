//! Orders over HTTP: `GET /v1/approvals`, `GET /v1/status`, `POST /v1/orders`. With a token; loopback unless configured.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Ask, QUESTION_LEN_MAX, approvals, carry_out};
use crate::mind::Mind;
use crate::overview::overview;
use crate::token::bearer_matches;
use crate::ui::Ui;

struct Shared {
    token: String,
    mind: Mind,
    ui: Ui,
}

/// An order as it comes over HTTP.
#[derive(Deserialize)]
struct Sent {
    /// Who it is that orders; recorded with the address that the order came from.
    #[serde(default)]
    by: String,
    #[serde(flatten)]
    ask: Ask,
}

/// Serves at `addr`.
pub(super) async fn serve(
    addr: SocketAddr,
    token: String,
    mind: Mind,
    ui: Ui,
) -> Result<(SocketAddr, JoinHandle<()>), String> {
    let failed = |e: std::io::Error| {
        format!("[api] cannot listen on {addr}: {e}; choose another `listen` address")
    };
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let shared = Arc::new(Shared { token, mind, ui });
    let app = Router::new()
        .route("/v1/approvals", get(list))
        .route("/v1/status", get(status))
        .route("/v1/orders", post(take))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            only_with_token,
        ))
        .layer(DefaultBodyLimit::max(QUESTION_LEN_MAX))
        .with_state(shared)
        .into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, app).await {
            tracing::warn!(subsystem = "evenkeel", "the HTTP interface ended: {e}");
        }
    });
    Ok((addr, task))
}

async fn only_with_token(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if bearer_matches(request.headers(), &shared.token) {
        next.run(request).await
    } else {
        let why = json!({"ok": false, "message": "send the token as `Authorization: Bearer ...`"});
        (StatusCode::UNAUTHORIZED, Json(why)).into_response()
    }
}

async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(approvals(&shared.mind.healer())))
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(overview(
        &shared.mind.healer(),
        shared.mind.policy(),
        crate::clock::now(),
    ))
}

async fn take(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: axum::body::Bytes,
) -> Response {
    let sent: Sent = match serde_json::from_slice(&body) {
        Ok(sent) => sent,
        Err(e) => {
            let why = json!({"ok": false, "message": format!("no question that is known: {e}")});
            return (StatusCode::BAD_REQUEST, Json(why)).into_response();
        }
    };
    let name: String = sent
        .by
        .chars()
        .filter(|c| !c.is_control())
        .take(64)
        .collect();
    let by = match name.as_str() {
        "" => format!("http from {}", from.ip()),
        name => format!("{name} (http from {})", from.ip()),
    };
    let answer = carry_out(&shared.mind, &shared.ui, &by, sent.ask).await;
    let status = if answer.ok {
        StatusCode::OK
    } else {
        StatusCode::CONFLICT
    };
    (status, Json(answer)).into_response()
}
