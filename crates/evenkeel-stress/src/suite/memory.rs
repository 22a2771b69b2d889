//! The kind that is decided by the target's memory before and after a load.

use std::time::Duration;

use evenkeel_core::AnomalyType;
use evenkeel_core::measure::TestStatus;
use serde_json::json;

use super::http::{failure_text, make};
use super::{Figures, TestContext, plan};
use crate::engine;
use crate::spec::TestSpec;
use crate::target::BaseUrl;
use crate::text::bounded;
use crate::world::{MemoryError, MemoryReading};

/// Longest wait for one reading.
const READING_LIMIT: Duration = Duration::from_secs(10);
/// Bytes in what people call a MB of memory.
const MB: f64 = 1_048_576.0;

/// Warm-up, reading, load, reading.
///
/// The warm-up takes what a first request allocates once (pools, caches, lazily loaded code) out of
/// the difference.
pub(super) async fn run(spec: &TestSpec, ctx: &TestContext, base: BaseUrl) -> Figures {
    // Read once before any load: a target without known processes is not worth a request.
    match read(ctx).await {
        Ok(_) => {}
        Err(MemoryError::NoProcess) => {
            return Figures::skipped(spec, MemoryError::NoProcess.to_string());
        }
        Err(error) => return inconclusive(spec, &format!("the target's memory: {error}")),
    }
    if spec.warmup_requests() > 0 {
        let warmup = plan(base.clone(), spec, spec.warmup_requests(), 1);
        // A target that does not answer shows in the measured requests.
        if let Err(error) = engine::run(&warmup, &ctx.cancel).await {
            return Figures::from_engine_error(spec, &error);
        }
    }
    let before = match read(ctx).await.and_then(|r| part(spec, r)) {
        Ok(reading) => reading,
        Err(error) => return inconclusive(spec, &format!("memory before the load: {error}")),
    };
    let outcome = match make(spec, ctx, base).await {
        Ok(outcome) => outcome,
        Err(figures) => return *figures,
    };
    let after = read(ctx).await.and_then(|r| part(spec, r));
    let mut f = Figures::new(spec, TestStatus::Passed, None).with_outcome(spec, &outcome);
    f.note("memory_before_bytes", json!(before.total_bytes));
    if outcome.error_rate() > spec.max_error_rate() {
        let text = failure_text(
            outcome.error_count(),
            outcome.requests,
            &outcome.errors,
            spec.max_error_rate(),
        );
        (f.value, f.limit, f.unit) = (outcome.error_rate(), spec.max_error_rate(), "ratio");
        // Nothing is known about its memory; that requests fail is.
        let mut f = conclude_not(f, &text);
        f.found = Some(AnomalyType::known(AnomalyType::ERROR_RATE_SPIKE));
        return f;
    }
    let after = match after {
        Ok(after) => after,
        Err(error) => return conclude_not(f, &format!("memory after the load: {error}")),
    };
    f.note("memory_after_bytes", json!(after.total_bytes));
    if let Some(change) = replaced(&before, &after) {
        return conclude_not(f, &change);
    }
    let growth = mb(after.total_bytes) - mb(before.total_bytes);
    let per_service: serde_json::Map<_, _> = after
        .by_service
        .iter()
        .map(|(name, now)| {
            let then = before.by_service.get(name).map_or(0, |s| s.bytes);
            (name.clone(), json!(mb(now.bytes) - mb(then)))
        })
        .collect();
    f.note("growth_mb_by_service", per_service.into());
    f.value = growth;
    if growth > f.limit {
        f.status = TestStatus::Failed;
        f.issue = Some(format!(
            "memory grew by {growth:.1} MB over {} requests ({:.1} MB before, {:.1} MB after), \
             limit {} MB",
            outcome.requests,
            mb(before.total_bytes),
            mb(after.total_bytes),
            f.limit
        ));
    }
    f
}

async fn read(ctx: &TestContext) -> Result<MemoryReading, MemoryError> {
    let reading = tokio::time::timeout(READING_LIMIT, ctx.access.memory_bytes())
        .await
        .unwrap_or_else(|_| {
            Err(MemoryError::Unreadable(
                "reading it took too long".to_owned(),
            ))
        })?;
    if reading.by_service.is_empty() && reading.total_bytes == 0 {
        return Err(MemoryError::NoProcess);
    }
    Ok(reading)
}

/// The part of a reading that the test is about.
fn part(spec: &TestSpec, mut reading: MemoryReading) -> Result<MemoryReading, MemoryError> {
    let Some(service) = &spec.service else {
        return Ok(reading);
    };
    let known: Vec<_> = reading.by_service.keys().cloned().collect();
    reading.by_service.retain(|name, _| name == service);
    match reading.by_service.get(service) {
        Some(found) => {
            reading.total_bytes = found.bytes;
            Ok(reading)
        }
        None => Err(MemoryError::Unreadable(format!(
            "service `{service}` has no process; there is: {}",
            bounded(&known.join(", "), 200)
        ))),
    }
}

/// Says which process is not the one it was.
fn replaced(before: &MemoryReading, after: &MemoryReading) -> Option<String> {
    for (name, then) in &before.by_service {
        match after.by_service.get(name) {
            None => return Some(format!("the process of `{name}` ended during the test")),
            Some(now) if (now.pid, now.started) != (then.pid, then.started) => {
                return Some(format!(
                    "the process of `{name}` was replaced during the test (pid {} before, {} after)",
                    then.pid, now.pid
                ));
            }
            Some(_) => {}
        }
    }
    let new = after
        .by_service
        .keys()
        .find(|name| !before.by_service.contains_key(*name))?;
    Some(format!("a process of `{new}` appeared during the test"))
}

fn inconclusive(spec: &TestSpec, reason: &str) -> Figures {
    conclude_not(Figures::failed(spec, String::new()), reason)
}

fn conclude_not(mut f: Figures, reason: &str) -> Figures {
    f.status = TestStatus::Failed;
    f.issue = Some(format!("inconclusive: {}", bounded(reason, 400)));
    f.note("inconclusive", json!(true));
    // No leak was seen, so none is named: what could not be read is never acted on (SAFETY 11).
    f.found = Some(AnomalyType::known(AnomalyType::TELEMETRY_MISSING));
    f
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / MB
}
