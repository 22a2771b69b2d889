//! Alerts by HTTP: the alert is posted as JSON, and posted again at most twice when that may help.

use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Alert, AlertChannel, AlertError};
use crate::advisor::Secret;
use crate::web;

/// First try and two more.
const TRIES_MAX: u32 = 3;
/// Pauses before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// Posts alerts to an address, which is treated as a secret.
#[derive(Debug)]
pub struct WebhookChannel {
    name: String,
    client: Client,
    url: Url,
    token: Option<Secret>,
    deadline: Duration,
}

impl WebhookChannel {
    /// A channel that posts to `url`, all tries together within `deadline`; with `token`, as a bearer token.
    ///
    /// # Errors
    /// An address that is none, and a token that would cross a network unencrypted.
    pub fn new(
        name: &str,
        url: &Secret,
        token: Option<Secret>,
        deadline: Duration,
    ) -> Result<Self, AlertError> {
        let wrong = |reason: String| AlertError::Configured {
            channel: name.to_owned(),
            reason,
        };
        let url = web::address(url.expose()).map_err(wrong)?;
        if token.is_some() && url.scheme() == "http" && !web::is_loopback(&url) {
            return Err(wrong(
                "a token would be sent unencrypted; use an https:// address".into(),
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            client: web::client(&url, deadline).map_err(wrong)?,
            url,
            token,
            deadline,
        })
    }

    async fn posted(&self, alert: &Alert) -> Result<String, AlertError> {
        let until = Instant::now() + self.deadline;
        let body = payload(alert);
        let mut reason = String::new();
        for n in 0..TRIES_MAX {
            // One that hangs leaves time for another.
            let left = until.saturating_duration_since(Instant::now());
            let share = left / (TRIES_MAX - n);
            match tokio::time::timeout(share, self.once(&body)).await {
                Ok(Ok(())) => return Ok(format!("{} (try {})", self.name, n + 1)),
                Ok(Err(refused)) if refused.is_final => {
                    return Err(AlertError::Webhook {
                        tries: n + 1,
                        reason: refused.reason,
                    });
                }
                Ok(Err(refused)) => reason = refused.reason,
                Err(_) => reason = format!("no answer within {} ms", share.as_millis()),
            }
            if let Some(pause) = PAUSES.get(n as usize) {
                tokio::time::sleep((*pause).min(left / 10)).await;
            }
        }
        Err(AlertError::Webhook {
            tries: TRIES_MAX,
            reason,
        })
    }

    async fn once(&self, body: &Value) -> Result<(), Refused> {
        let mut request = self.client.post(self.url.clone()).json(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|e| Refused {
            is_final: false,
            reason: web::reason(&e.without_url()),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(Refused {
            is_final: !status.is_server_error()
                && status != StatusCode::TOO_MANY_REQUESTS
                && status != StatusCode::REQUEST_TIMEOUT,
            reason: format!("status {}", status.as_u16()),
        })
    }
}

struct Refused {
    /// Trying again would end the same way.
    is_final: bool,
    reason: String,
}

impl AlertChannel for WebhookChannel {
    fn name(&self) -> &str {
        &self.name
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn send<'a>(&'a self, alert: &'a Alert) -> BoxFuture<'a, Result<String, AlertError>> {
        Box::pin(self.posted(alert))
    }
}

/// What is posted; `text` is what chat services show.
fn payload(alert: &Alert) -> Value {
    let f = alert.facts();
    json!({
        "kind": f.kind,
        "text": alert.text(),
        "timestamp": f.at,
        "anomaly": f.anomaly,
        "severity": f.severity,
        "details": f.details,
        "healing_attempts": f.healing_attempts,
        "amp_escalation": f.escalation,
        "tried": f.tried,
        "snapshot": f.snapshot,
        "ledger": f.ledger,
        "next_steps": f.next_steps,
    })
}
