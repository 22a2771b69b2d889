//! Policy decisions, and the report on the policies.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::error::{ApiError, parse};
use super::observe::Audited;
use crate::db::queries::{self, Decision};
use crate::settings;

/// Longest subject, action or resource, in bytes.
const NAME_MAX: usize = 200;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    subject: String,
    action: String,
    resource: String,
}

/// Decisions kept in memory for a while; the oldest makes room.
#[derive(Debug)]
pub(super) struct Decisions {
    max_entries: usize,
    ttl: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    decisions: HashMap<Asked, (Decision, Instant)>,
    order: VecDeque<Asked>,
}

impl Decisions {
    pub(super) fn new(settings: &settings::Governance) -> Self {
        Self {
            max_entries: settings.cache_entries,
            ttl: Duration::from_millis(settings.cache_ttl_ms),
            kept: Mutex::default(),
        }
    }

    fn get(&self, asked: &Asked, now: Instant) -> Option<Decision> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (decision, since) = kept.decisions.get(asked)?;
        (now.saturating_duration_since(*since) < self.ttl).then(|| decision.clone())
    }

    fn put(&self, asked: &Asked, decision: &Decision, now: Instant) {
        if self.max_entries == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let value = (decision.clone(), now);
        if kept.decisions.insert(asked.clone(), value).is_none() {
            kept.order.push_back(asked.clone());
            if kept.order.len() > self.max_entries
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.decisions.remove(&oldest);
            }
        }
    }
}

/// `GET /api/governance/policies`
pub(super) async fn policies(State(app): State<Shared>) -> Result<Json<Value>, ApiError> {
    let policies = app.store.run(|c| queries::policies(c)).await?;
    Ok(Json(json!({"count": policies.len(), "policies": policies})))
}

/// `POST /api/governance/decide`
pub(super) async fn decide(
    State(app): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked: Asked = parse(body)?;
    for (name, value) in [
        ("subject", &asked.subject),
        ("action", &asked.action),
        ("resource", &asked.resource),
    ] {
        if value.is_empty() || value.len() > NAME_MAX {
            let message = format!("{name} must have 1 to {NAME_MAX} bytes");
            return Err(ApiError::bad_request(message));
        }
    }
    let now = Instant::now();
    let kept = app.decisions.get(&asked, now);
    let cached = kept.is_some();
    if cached {
        app.metrics.decisions_cached.inc();
    } else {
        app.metrics.decisions_evaluated.inc();
    }
    let history_rows = app.settings.governance.history_rows;
    let ask = asked.clone();
    let (id, decision) = app
        .store
        .run(move |connection| {
            let names = (&*ask.subject, &*ask.action, &*ask.resource);
            let decision = match kept {
                Some(decision) => decision,
                None => queries::evaluate(connection, names.0, names.1, names.2)?,
            };
            let id = queries::record_decision(connection, names, &decision, history_rows)?;
            Ok((id, decision))
        })
        .await?;
    if !cached {
        app.decisions.put(&asked, &decision, now);
    }
    let mut response = Json(json!({
        "decision_id": id, "decision": decision.effect, "policy": decision.policy,
        "precedents": decision.precedents, "precedents_allowed": decision.precedents_allowed,
        "cached": cached,
    }))
    .into_response();
    response.extensions_mut().insert(Audited {
        payload: json!({
            "subject": asked.subject, "action": asked.action,
            "decision": decision.effect, "policy": decision.policy, "decision_id": id,
        }),
        resource: asked.resource,
    });
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_kept_for_a_while_and_bounded() {
        let decisions = Decisions::new(&settings::Governance {
            cache_entries: 2,
            cache_ttl_ms: 1000,
            ..settings::Governance::default()
        });
        let ask = |subject: &str| Asked {
            subject: subject.into(),
            action: "read".into(),
            resource: "x".into(),
        };
        let allow = Decision {
            effect: "allow".into(),
            policy: "p".into(),
            precedents: 0,
            precedents_allowed: 0.0,
        };
        let now = Instant::now();
        for subject in ["a", "b", "b", "c"] {
            decisions.put(&ask(subject), &allow, now);
        }
        assert!(decisions.get(&ask("a"), now).is_none(), "made room");
        assert!(decisions.get(&ask("b"), now).is_some());
        let later = now + Duration::from_secs(1);
        assert!(decisions.get(&ask("b"), later).is_none(), "too old");
    }
}
