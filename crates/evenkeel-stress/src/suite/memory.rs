//! The kind that is decided by the target's memory before and after a load, and by its course between them.

use std::time::Duration;

use evenkeel_core::AnomalyType;
use evenkeel_core::measure::TestStatus;
use serde_json::json;

use super::http::{failure_text, make_as};
use super::leak::{self, Leak, Verdict};
use super::{Figures, TestContext};
use crate::engine;
use crate::outcome::Outcome;
use crate::spec::TestSpec;
use crate::target::BaseUrl;
use crate::text::bounded;
use crate::world::{MemoryError, MemoryReading};

/// Longest wait for one reading.
const READING_LIMIT: Duration = Duration::from_secs(10);
/// Bytes in what people call a MB of memory.
const MB: f64 = 1_048_576.0;

/// Warm-up, reading, then the load in blocks with a reading after each.
///
/// The warm-up takes what a first request allocates once (pools, caches, lazily loaded code) out of
/// the difference; the blocks tell what grows with each request from what takes longer to fill.
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
        let warmup = spec.counted_plan(base.clone(), spec.warmup_requests(), 1);
        // A target that does not answer shows in the measured requests.
        if let Err(error) = engine::run(&warmup, &ctx.cancel).await {
            return Figures::from_engine_error(spec, &error);
        }
    }
    let before = match read(ctx).await.and_then(|r| part(spec, r)) {
        Ok(reading) => reading,
        Err(error) => return inconclusive(spec, &format!("memory before the load: {error}")),
    };
    let mut load = Load::default();
    let mut course = match now(spec, ctx, &before).await {
        Ok(mb) => Course::begin(mb, &before),
        Err(error) => return inconclusive(spec, &format!("memory before the load: {error}")),
    };
    let mut after = Ok(before.clone());
    for requests in shares(spec.requests(), spec.blocks()) {
        let plan = spec.counted_plan(base.clone(), requests, spec.concurrency());
        match make_as(&plan, spec, ctx).await {
            Ok(outcome) => load.add(&outcome),
            Err(figures) => return *figures,
        }
        after = read(ctx).await.and_then(|r| part(spec, r));
        let reading = match &after {
            Ok(reading) if replaced(&before, reading).is_none() && !load.gave_up => reading,
            // What comes now is of another process, or of one that hangs.
            _ => break,
        };
        match now(spec, ctx, reading).await {
            Ok(mb) => course.add(load.requests, mb, reading),
            Err(error) => {
                after = Err(error);
                break;
            }
        }
    }
    let mut f = load.figures(spec);
    f.note("memory_before_bytes", json!(before.total_bytes));
    let failed: u64 = f.errors.values().sum();
    let rate = failed as f64 / f.requests.max(1) as f64;
    if rate > spec.max_error_rate() {
        let text = failure_text(failed, f.requests, &f.errors, spec.max_error_rate());
        (f.value, f.limit, f.unit) = (rate, spec.max_error_rate(), "ratio");
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
    let leaks = course.judge();
    f.note("leak", told(spec, &leaks, &course));
    f.value = growth;
    if growth > f.limit {
        f.status = TestStatus::Failed;
        f.issue = Some(format!(
            "memory grew by {growth:.1} MB over {} requests ({:.1} MB before, {:.1} MB after), \
             limit {} MB",
            f.requests,
            mb(before.total_bytes),
            mb(after.total_bytes),
            f.limit
        ));
        return f;
    }
    hold_against_leak_limit(spec, f, &leaks)
}

/// Memory over the blocks: requests made so far, and MB.
struct Course {
    /// Of the metric that is named, else the resident memory.
    memory: Vec<(u64, f64)>,
    /// Of the control groups of all services, where each has one of its own.
    group: Option<Vec<(u64, f64)>>,
}

/// What a course says.
struct Leaks {
    memory: Leak,
    group: Option<Leak>,
}

impl Course {
    fn begin(mb: f64, reading: &MemoryReading) -> Self {
        let group = group_mb(reading);
        Self {
            memory: vec![(0, mb)],
            group: group.map(|mb| vec![(0, mb)]),
        }
    }

    fn add(&mut self, requests: u64, mb: f64, reading: &MemoryReading) {
        self.memory.push((requests, mb));
        // With a gap it is no course.
        let (group, now) = (self.group.take(), group_mb(reading));
        self.group = group.zip(now).map(|(mut group, mb)| {
            group.push((requests, mb));
            group
        });
    }

    fn judge(&self) -> Leaks {
        Leaks {
            memory: leak::judge(&self.memory),
            group: self.group.as_deref().map(leak::judge),
        }
    }
}

/// What the control groups of all its services are charged with, in MB.
fn group_mb(reading: &MemoryReading) -> Option<f64> {
    let each = reading.by_service.values().map(|s| s.group_bytes);
    each.sum::<Option<u64>>().map(mb)
}

/// A leak above the declared limit fails the test: what is left of the growth after the warm-up counts.
fn hold_against_leak_limit(spec: &TestSpec, mut f: Figures, leaks: &Leaks) -> Figures {
    let Some(limit) = spec.leak_limit_mb_per_1000 else {
        return f;
    };
    let whose = [
        ("memory", Some(&leaks.memory)),
        ("the control group", leaks.group.as_ref()),
    ];
    for (what, leak) in whose {
        let Some((leak, later)) = leak.and_then(|l| Some((l, l.later?))) else {
            continue;
        };
        if leak.verdict == Verdict::Leak && later.slope > limit {
            (f.value, f.limit, f.unit) = (later.slope, limit, "MB");
            f.status = TestStatus::Failed;
            f.issue = Some(format!(
                "{what} leaks {:.2} MB for 1,000 requests (90 % sure of {:.2} to {:.2} MB), limit {limit} MB",
                later.slope, later.low, later.high
            ));
            break;
        }
    }
    f
}

fn told(spec: &TestSpec, leaks: &Leaks, course: &Course) -> serde_json::Value {
    let mut all = described(&leaks.memory);
    if let Some(metric) = &spec.memory_metric {
        all["metric"] = json!(metric);
    }
    if let Some(leak) = &leaks.group {
        all["control_group"] = described(leak);
    }
    let blocks = course.memory.iter().enumerate();
    all["blocks"] = blocks
        .map(|(i, (requests, mb))| {
            let mut block = json!({"requests": requests, "memory_mb": mb});
            if let Some((_, mb)) = course.group.as_ref().and_then(|group| group.get(i)) {
                block["control_group_mb"] = json!(mb);
            }
            block
        })
        .collect();
    all
}

fn described(leak: &Leak) -> serde_json::Value {
    let slope = |s: Option<evenkeel_detect::SlopeInterval>| {
        json!({
            "mb_per_1000_requests": s.map(|s| s.slope),
            "low": s.map(|s| s.low),
            "high": s.map(|s| s.high),
        })
    };
    let mut all = slope(leak.all);
    all["later_half"] = slope(leak.later);
    all["verdict"] = json!(leak.verdict);
    all
}

/// The requests of each block: as even as they can be, and together all of them.
fn shares(requests: u64, blocks: u32) -> impl Iterator<Item = u64> {
    let blocks = u64::from(blocks.max(1)).min(requests.max(1));
    (0..blocks).map(move |i| requests / blocks + u64::from(i < requests % blocks))
}

/// All blocks together.
#[derive(Default)]
struct Load {
    requests: u64,
    gave_up: bool,
    all: Option<Outcome>,
    answered: u64,
    elapsed: Duration,
}

impl Load {
    fn add(&mut self, outcome: &Outcome) {
        self.requests += outcome.requests;
        self.answered += outcome.answered;
        self.elapsed += outcome.elapsed;
        self.gave_up |= outcome.gave_up;
        let Some(all) = &mut self.all else {
            self.all = Some(outcome.clone());
            return;
        };
        all.requests += outcome.requests;
        all.gave_up |= outcome.gave_up;
        for (kind, count) in &outcome.errors {
            *all.errors.entry(kind.clone()).or_default() += count;
        }
        for (code, count) in &outcome.error_codes {
            *all.error_codes.entry(code.clone()).or_default() += count;
        }
        if all.error_samples.is_empty() {
            all.error_samples.clone_from(&outcome.error_samples);
        }
        // It fails only where memory is out: both grow with what is in them.
        let _ = all.latency.add(&outcome.latency);
        all.throughput_rps = self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9);
    }

    fn figures(&self, spec: &TestSpec) -> Figures {
        let f = Figures::new(spec, TestStatus::Passed, None);
        match &self.all {
            Some(all) => f.with_outcome(spec, all),
            None => f,
        }
    }
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

/// What the course of the memory is made of, in MB: the metric that is named, else the resident memory.
async fn now(
    spec: &TestSpec,
    ctx: &TestContext,
    reading: &MemoryReading,
) -> Result<f64, MemoryError> {
    let Some(name) = &spec.memory_metric else {
        return Ok(mb(reading.total_bytes));
    };
    let bytes = tokio::time::timeout(READING_LIMIT, ctx.access.metric(name))
        .await
        .unwrap_or_else(|_| {
            let reason = format!("reading the metric `{name}` took too long");
            Err(MemoryError::Unreadable(reason))
        })?;
    Ok(bytes / MB)
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
