//! A small stand-in for a model server: it takes a set time for each answer and works on a
//! bounded number at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::api::serve;
use crate::error::GraceError;
use crate::model;
use crate::process::Shutdown;

/// Requests that may wait for their turn.
const QUEUE: usize = 256;

/// The question, as `POST /v1/generate` takes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) prompt: String,
    #[serde(default = "text")]
    pub(crate) modality: String,
}

fn text() -> String {
    "text".into()
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) model: String,
}

#[derive(Clone)]
struct Server {
    delay: Duration,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

pub(crate) async fn run(
    addr: SocketAddr,
    delay: Duration,
    concurrency: usize,
    shutdown: Shutdown,
) -> Result<(), GraceError> {
    let server = Server {
        delay,
        places: Arc::new(Semaphore::new(concurrency + QUEUE)),
        turns: Arc::new(Semaphore::new(concurrency)),
    };
    let app = Router::new()
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .route("/v1/generate", post(generate))
        .with_state(server);
    let listener = serve::bind(addr).await?;
    serve::announce("upstream", &listener)?;
    serve::until(listener, app, shutdown, || {}).await
}

async fn generate(State(server): State<Server>, Json(question): Json<Question>) -> Response {
    let Ok(_place) = server.places.try_acquire() else {
        let body = Json(json!({"error": "overloaded", "message": "too many requests wait"}));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    };
    let Ok(_turn) = server.turns.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    tokio::time::sleep(server.delay).await;
    Json(Answer {
        text: model::answer(&question.prompt, &question.modality),
        model: "upstream-stand-in".into(),
    })
    .into_response()
}
