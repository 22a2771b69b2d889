//! What a request is answered that cannot be served: a status, a code and a message.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::db::DbError;

/// Longest reason quoted from a parser, in characters.
const REASON_MAX: usize = 200;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Seconds until a new try makes sense.
    retry_after: Option<u64>,
}

/// The code, kept on the response for the log and the metrics.
#[derive(Debug, Clone)]
pub(super) struct ErrorCode {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "no such endpoint; see /docs",
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the endpoint has another method; see /docs";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    pub(super) fn rate_limit(retry_after: u64) -> Self {
        let message = "the rate limit of the public read API is reached";
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", message);
        error.retry_after = Some(retry_after);
        error
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let message = error.to_string();
        match error {
            DbError::PoolTimeout(_) => Self::unavailable("pool_timeout", message),
            DbError::Locked => Self::unavailable("database_locked", message),
            DbError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "database_error", message)
            }
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "the body is larger than 64 KiB";
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message);
        }
        Self::bad_request("the body could not be read")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.code, "message": self.message}));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after {
            let value = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response.extensions_mut().insert(ErrorCode {
            code: self.code,
            message: self.message,
        });
        response
    }
}

/// Reads a JSON body.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    body: Result<axum::body::Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    serde_json::from_slice(&body?).map_err(|error| {
        // It may quote the body, which may be long.
        let reason: String = error.to_string().chars().take(REASON_MAX).collect();
        ApiError::bad_request(format!("the body is not valid: {reason}"))
    })
}
