//! Runs declared tests one after the other and says how each ended.
//!
//! How a test ends is one of three, and the difference matters to whoever heals:
//!
//! - *passed* or *failed*: the target was tested. A target that cannot be reached has failed. So has
//!   one whose memory could not be judged after the load began ("inconclusive").
//! - *skipped*: the target was **not** tested, and nothing is said about it: its subject is not
//!   configured, the test cannot be run as declared, it was cancelled, or this host itself was the
//!   bottleneck. It raises no anomaly and counts as passed nowhere.
//!
//! Needs a tokio runtime with time and network enabled.

mod http;
mod leak;
mod memory;
mod trigger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::AnomalyType;
use evenkeel_core::measure::{LatencySummary, SuiteResult, TestResult, TestStatus};
use evenkeel_core::time::Timestamp;
use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::engine::EngineError;
use crate::outcome::{Outcome, summary};
use crate::spec::{TestKind, TestSpec};
use crate::target::BaseUrl;
use crate::world::TargetAccess;

/// What tests need beside their declaration.
#[derive(Clone)]
pub struct TestContext {
    /// The target's base address.
    pub base_url: String,
    /// What of the target is not HTTP.
    pub access: Arc<dyn TargetAccess>,
    /// Ends a suite and the test under way.
    pub cancel: Cancel,
    /// The time of day.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for TestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestContext")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

/// How far a suite has come.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A test begins.
    TestStarted {
        /// Its place, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// Its name.
        name: &'a str,
    },
    /// A test has ended.
    TestFinished {
        /// Its place, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// What it measured.
        result: &'a TestResult,
    },
}

/// Runs all tests in their order; what is left after a cancellation is skipped.
///
/// A cancelled suite is never a success.
pub async fn run_suite(
    specs: &[TestSpec],
    ctx: &TestContext,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> SuiteResult {
    let (started_at, started) = ((ctx.now)(), Instant::now());
    let total = specs.len();
    let mut results = Vec::with_capacity(total);
    for (index, spec) in specs.iter().enumerate() {
        progress(Progress::TestStarted {
            index,
            total,
            name: &spec.name,
        });
        let result = run_test(spec, ctx).await;
        progress(Progress::TestFinished {
            index,
            total,
            result: &result,
        });
        results.push(result);
    }
    let mut suite = SuiteResult::from_results(started_at, millis(started.elapsed()), results);
    suite.success &= !ctx.cancel.is_cancelled();
    suite
}

/// Runs one test.
pub async fn run_test(spec: &TestSpec, ctx: &TestContext) -> TestResult {
    let started = Instant::now();
    let figures = if let Some(missing) = &spec.missing {
        Figures::skipped(spec, missing.clone())
    } else {
        tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => Figures::skipped(spec, CANCELLED.to_owned()),
            // Boxed: it holds whole outcomes, and many futures hold this one.
            figures = Box::pin(judge(spec, ctx)) => figures,
        }
    };
    figures.into_result(spec, millis(started.elapsed()))
}

/// Most endpoints of a mix whose figures stand in its result.
const ENDPOINTS_TOLD_MAX: usize = 20;
const CANCELLED: &str = "cancelled before it ended";

async fn judge(spec: &TestSpec, ctx: &TestContext) -> Figures {
    if let Err(error) = spec.validate() {
        return Figures::skipped(spec, format!("cannot be run: {error}"));
    }
    let base = match BaseUrl::parse(spec.base_url.as_ref().unwrap_or(&ctx.base_url)) {
        Ok(base) => base,
        Err(error) => return Figures::skipped(spec, format!("cannot be run: {error}")),
    };
    match spec.kind {
        TestKind::HttpLoad | TestKind::Mix | TestKind::Latency => http::load(spec, ctx, base).await,
        TestKind::SqlPool => http::sql_pool(spec, ctx, base).await,
        TestKind::Mesh => trigger::run(spec, ctx, base).await,
        TestKind::Memory => memory::run(spec, ctx, base).await,
    }
}

/// What the kinds of tests have in common at their end.
#[derive(Debug)]
struct Figures {
    status: TestStatus,
    issue: Option<String>,
    requests: u64,
    errors: BTreeMap<String, u64>,
    latency_ms: LatencySummary,
    throughput_rps: f64,
    value: f64,
    limit: f64,
    unit: &'static str,
    context: serde_json::Map<String, Value>,
    /// What was found, where that is not what the test is for.
    found: Option<AnomalyType>,
}

impl Figures {
    /// Nothing measured yet; value, limit and unit as the kind decides.
    fn new(spec: &TestSpec, status: TestStatus, issue: Option<String>) -> Self {
        let (limit, unit) = match spec.kind {
            TestKind::HttpLoad | TestKind::Mix | TestKind::SqlPool => {
                (spec.max_error_rate(), "ratio")
            }
            TestKind::Latency => (spec.p95_limit_ms().unwrap_or(0.0), "ms"),
            TestKind::Mesh => (spec.ack_limit_ms(), "ms"),
            TestKind::Memory => (spec.growth_limit_mb(), "MB"),
        };
        Self {
            status,
            issue,
            requests: 0,
            errors: BTreeMap::new(),
            latency_ms: LatencySummary::default(),
            throughput_rps: 0.0,
            value: 0.0,
            limit,
            unit,
            context: serde_json::Map::new(),
            found: None,
        }
    }

    fn skipped(spec: &TestSpec, issue: String) -> Self {
        Self::new(spec, TestStatus::Skipped, Some(issue))
    }

    fn failed(spec: &TestSpec, issue: String) -> Self {
        Self::new(spec, TestStatus::Failed, Some(issue))
    }

    /// A run that could not be made: a target without an address has failed, the rest is not its
    /// fault.
    fn from_engine_error(spec: &TestSpec, error: &EngineError) -> Self {
        match error {
            EngineError::Resolve { .. } => Self::failed(spec, error.to_string()),
            EngineError::Plan(_) | EngineError::Start(_) | EngineError::Lost => {
                Self::skipped(spec, format!("cannot be run: {error}"))
            }
        }
    }

    /// Takes over what the engine measured.
    fn with_outcome(mut self, spec: &TestSpec, outcome: &Outcome) -> Self {
        self.requests = outcome.requests;
        self.errors.clone_from(&outcome.errors);
        if outcome.unsent > 0 {
            // They were due, and no connection became free for them: their users got nothing.
            self.requests += outcome.unsent;
            self.errors.insert("unsent".to_owned(), outcome.unsent);
        }
        self.latency_ms = outcome.summary();
        self.throughput_rps = outcome.throughput_rps;
        let endpoints: Vec<String> = spec
            .resolved_endpoints()
            .iter()
            .map(|e| format!("{} {}", e.effective_method(), e.path))
            .collect();
        self.note("endpoints", json!(endpoints));
        self.note("concurrency", json!(spec.concurrency()));
        if let Some(rate) = spec.rate {
            self.note("rate", json!(rate.to_string()));
            self.note("planned", json!(outcome.planned));
            self.note("service_ms", json!(summary(&outcome.service_time)));
            self.note("send_lateness_ms", json!(summary(&outcome.send_lateness)));
        }
        if spec.kind == TestKind::Mix && outcome.per_request.len() > 1 {
            self.note("by_endpoint", by_endpoint(outcome));
        }
        if !outcome.error_codes.is_empty() {
            self.note("error_codes", json!(outcome.error_codes));
        }
        if !outcome.error_samples.is_empty() {
            self.note("error_samples", json!(outcome.error_samples));
        }
        if outcome.gave_up {
            self.note("gave_up", json!("too many time-outs in a row"));
        }
        self
    }

    fn note(&mut self, key: &str, value: Value) {
        self.context.insert(key.to_owned(), value);
    }

    fn into_result(self, spec: &TestSpec, duration_ms: f64) -> TestResult {
        TestResult {
            test_name: spec.name.clone(),
            status: self.status,
            passed: self.status == TestStatus::Passed,
            issue: self.issue,
            severity: spec.severity(),
            anomaly_type: self.found.unwrap_or_else(|| spec.anomaly_type()),
            duration_ms,
            expected_max_ms: spec.expected_max_ms(),
            requests: self.requests,
            errors: self.errors,
            latency_ms: self.latency_ms,
            throughput_rps: self.throughput_rps,
            value: self.value,
            limit: self.limit,
            unit: self.unit.to_owned(),
            service: spec.service.clone(),
            context: Value::Object(self.context),
        }
    }
}

/// The figures of each endpoint of a mix.
fn by_endpoint(outcome: &Outcome) -> Value {
    let told = outcome.per_request.iter().take(ENDPOINTS_TOLD_MAX);
    told.map(|r| {
        json!({
            "endpoint": crate::text::bounded(&r.name, 120),
            "requests": r.requests,
            "errors": r.errors,
            "p95_ms": summary(&r.latency).p95,
        })
    })
    .collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
