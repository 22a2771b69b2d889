//! The chat: stores the message, asks the model server where one is configured, and answers with
//! the local model when that is slow or fails.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::error::{ApiError, parse};
use super::observe::{Audited, RequestId};
use super::sessions;
use crate::db::queries;
use crate::http::{self, HttpError, HttpUrl};
use crate::log::Level;
use crate::upstream::{Answer, Question};
use crate::{ids, model};

/// Longest message, in bytes.
const MESSAGE_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Modality {
    #[default]
    Text,
    /// The message is the image's caption.
    Image,
    /// The message is the recording's transcript.
    Audio,
}

impl Modality {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    message: String,
    #[serde(default)]
    modality: Modality,
    session_id: Option<String>,
}

/// `POST /api/multimodal/chat`
pub(super) async fn chat(
    State(app): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let start = Instant::now();
    let asked: Asked = parse(body)?;
    if asked.message.trim().is_empty() || asked.message.len() > MESSAGE_MAX {
        let message = format!("message must have 1 to {MESSAGE_MAX} bytes");
        return Err(ApiError::bad_request(message));
    }
    if asked
        .session_id
        .as_deref()
        .is_some_and(|id| !ids::is_plain(id))
    {
        let message = "session_id must have 1 to 64 letters, digits, '-', '_' or '.'";
        return Err(ApiError::bad_request(message));
    }
    let named = sessions::named(&headers)?.or(asked.session_id);
    let Ok(_turn) = app.chats.try_acquire() else {
        let message = format!("{} chats run already", app.settings.chat.max_concurrent);
        return Err(ApiError::unavailable("chat_capacity", message));
    };
    let session = named.unwrap_or_else(ids::new_id);
    app.sessions.touch(&session);
    let modality = asked.modality.name();
    let (id, text) = (session.clone(), asked.message.clone());
    let message_id = app
        .store
        .run(move |connection| queries::store_message(connection, &id, modality, &text))
        .await?;
    let prompt = match app.sessions.recall(&session) {
        before if before.is_empty() => asked.message.clone(),
        before => format!("{before}\n{}", asked.message),
    };
    let upstream = match &app.upstream {
        Some(url) => ask_upstream(&app, url, prompt, modality, &request_id).await,
        None => None,
    };
    let (answer, model) = match upstream {
        Some(answer) => (answer, "upstream"),
        None => (
            answer_locally(asked.message.clone(), modality).await?,
            "local",
        ),
    };
    app.sessions.remember(&session, &asked.message);
    let duration_ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let mut response = Json(json!({
        "answer": answer, "model": model, "modality": modality, "session_id": session,
        "message_id": message_id, "duration_ms": duration_ms,
    }))
    .into_response();
    sessions::tell(&mut response, &session);
    // What was said stays out of the audit.
    response.extensions_mut().insert(Audited {
        resource: format!("message/{message_id}"),
        payload: json!({
            "modality": modality, "model": model, "session_id": session,
            "message_bytes": asked.message.len(), "duration_ms": duration_ms,
        }),
    });
    Ok(response)
}

async fn answer_locally(message: String, modality: &'static str) -> Result<String, ApiError> {
    tokio::task::spawn_blocking(move || model::answer(&message, modality))
        .await
        .map_err(|error| ApiError::internal(format!("the local model failed: {error}")))
}

/// The model server's answer; `None` (and a warning in the log) when it is slow or fails.
async fn ask_upstream(
    app: &Shared,
    url: &HttpUrl,
    prompt: String,
    modality: &str,
    request_id: &RequestId,
) -> Option<String> {
    let question = Question {
        prompt,
        modality: modality.to_owned(),
    };
    let body = serde_json::to_string(&question).ok()?;
    let limit = Duration::from_millis(app.settings.chat.upstream_timeout_ms);
    let start = Instant::now();
    let (code, message) = match http::post_json(url, body, None, limit).await {
        Ok((status, body)) if status.is_success() => {
            match serde_json::from_slice::<Answer>(&body) {
                Ok(answer) => return Some(answer.text),
                Err(error) => (
                    "upstream_error",
                    format!("its answer is not valid: {error}"),
                ),
            }
        }
        Ok((status, _)) => ("upstream_error", format!("it answered {status}")),
        Err(error @ HttpError::Timeout(_)) => ("upstream_timeout", error.to_string()),
        Err(error @ HttpError::Failed(_)) => ("upstream_error", error.to_string()),
    };
    if code == "upstream_timeout" {
        app.metrics.upstream_timeouts.inc();
    } else {
        app.metrics.upstream_errors.inc();
    }
    let fields = json!({
        "request_id": request_id.0, "error": code,
        "duration_ms": (start.elapsed().as_secs_f64() * 1e6).round() / 1e3,
    });
    let message = format!("the model server failed, the local model answers: {message}");
    app.log
        .event(Level::Warn, "chat", "upstream_fallback", &message, fields);
    None
}
