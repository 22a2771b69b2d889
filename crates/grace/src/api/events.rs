//! The event mesh over HTTP: publishing, streaming (server-sent events) and dropping consumers.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::error::{ApiError, parse};
use crate::ids;
use crate::mesh::{CONSUMERS_MAX, Event};

/// Time between two comments on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Types one consumer may ask for.
const TYPES_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    #[serde(rename = "type")]
    kind: String,
    source: String,
    correlation_id: Option<String>,
    #[serde(default)]
    payload: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    types: Option<String>,
}

/// `POST /api/events`
pub(super) async fn publish(
    State(app): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let published: Published = parse(body)?;
    for (name, value) in [
        ("type", Some(&published.kind)),
        ("source", Some(&published.source)),
        ("correlation_id", published.correlation_id.as_ref()),
    ] {
        if value.is_some_and(|value| !ids::is_plain(value)) {
            let message = format!("{name} must have 1 to 64 letters, digits, '-', '_' or '.'");
            return Err(ApiError::bad_request(message));
        }
    }
    let id = ids::new_id();
    let delivered = app.mesh.publish(Event {
        id: id.clone(),
        kind: published.kind,
        source: published.source,
        correlation_id: published.correlation_id,
        timestamp: ids::now(),
        payload: published.payload,
    });
    let body = Json(json!({"id": id, "delivered": delivered}));
    Ok((StatusCode::ACCEPTED, body).into_response())
}

/// `GET /api/events?types=a,b`
pub(super) async fn stream(
    State(app): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, ApiError> {
    let types: HashSet<String> = wanted
        .types
        .iter()
        .flat_map(|types| types.split(','))
        .map(str::trim)
        .filter(|kind| !kind.is_empty())
        .map(str::to_owned)
        .collect();
    if types.len() > TYPES_MAX || types.iter().any(|kind| !ids::is_plain(kind)) {
        let message = format!("types must be at most {TYPES_MAX} names with commas between them");
        return Err(ApiError::bad_request(message));
    }
    let Some(receiver) = app.mesh.subscribe(types) else {
        let message = format!("the event mesh has {CONSUMERS_MAX} consumers already");
        return Err(ApiError::unavailable("mesh_capacity", message));
    };
    // Said at once: from here on nothing published is missed.
    let hello = stream::once(async { Ok(sse::Event::default().comment("connected")) });
    let events = stream::unfold(receiver, async |mut receiver| {
        let event = receiver.recv().await?;
        let data = serde_json::to_string(&*event).unwrap_or_default();
        let item = sse::Event::default()
            .event(&event.kind)
            .id(&event.id)
            .data(data);
        Some((Ok(item), receiver))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    Ok(Sse::new(hello.chain(events)).keep_alive(keep_alive))
}

/// `POST /api/events/reset`
pub(super) async fn reset(State(app): State<Shared>) -> Json<Value> {
    Json(json!({"dropped": app.mesh.reset()}))
}
