//! The kinds that are decided by answers: http-load, mix, latency, sql-pool.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::anomaly::format_measure;
use evenkeel_core::measure::TestStatus;
use serde_json::json;

use super::{Figures, TestContext, plan};
use crate::engine;
use crate::outcome::{Outcome, histogram, record, summary};
use crate::spec::{TestKind, TestSpec};
use crate::target::BaseUrl;
use crate::text::bounded;
use crate::world::PoolReport;

/// How much longer than one query's limit all parallel queries together may take.
const POOL_GRACE: Duration = Duration::from_secs(5);

/// http-load, mix and latency.
pub(super) async fn load(spec: &TestSpec, ctx: &TestContext, base: BaseUrl) -> Figures {
    match make(spec, ctx, base).await {
        Ok(outcome) => decide(spec, figures(spec, &outcome), outcome.server_errors()),
        Err(figures) => *figures,
    }
}

/// Queries through the endpoints, then directly where a database is configured.
pub(super) async fn sql_pool(spec: &TestSpec, ctx: &TestContext, base: BaseUrl) -> Figures {
    let mut server_errors = 0;
    let over_http = if spec.endpoints.is_empty() {
        None
    } else {
        match make(spec, ctx, base).await {
            Ok(outcome) => {
                server_errors = outcome.server_errors();
                Some(figures(spec, &outcome))
            }
            Err(figures) => return *figures,
        }
    };
    let parallel = spec.concurrency();
    let limit = Duration::from_millis(spec.request_timeout_ms()) + POOL_GRACE;
    let direct = match tokio::time::timeout(limit, ctx.access.pooled_queries(parallel)).await {
        Ok(None) => None,
        Ok(Some(Ok(report))) => Some(report),
        Ok(Some(Err(reason))) => Some(one_error("open", reason)),
        Err(_) => Some(one_error(
            "timeout",
            format!("the direct queries took more than {} ms", limit.as_millis()),
        )),
    };
    let Some(direct) = direct else {
        return match over_http {
            Some(figures) => decide(spec, figures, server_errors),
            None => Figures::skipped(
                spec,
                "it has no endpoints, and no database of the target can be queried directly"
                    .to_owned(),
            ),
        };
    };
    let mut all = over_http.unwrap_or_else(|| Figures::new(spec, TestStatus::Passed, None));
    add_direct(&mut all, &direct);
    decide(spec, all, server_errors)
}

fn one_error(kind: &str, reason: String) -> PoolReport {
    PoolReport {
        queries: 1,
        errors: BTreeMap::from([(kind.to_owned(), 1)]),
        latencies: Vec::new(),
        sample: Some(reason),
    }
}

/// Adds direct queries to what went over HTTP; their errors are counted as `db_<kind>`.
///
/// Latencies of the two are of different things: those of the answers are kept where there are
/// any, and the direct ones stand in the context.
fn add_direct(figures: &mut Figures, direct: &PoolReport) {
    let mut histogram = histogram();
    for latency in &direct.latencies {
        record(&mut histogram, *latency);
    }
    let latency = summary(&histogram);
    if figures.requests == 0 {
        figures.latency_ms = latency;
    }
    figures.requests += direct.queries;
    for (kind, count) in &direct.errors {
        *figures.errors.entry(format!("db_{kind}")).or_default() += count;
    }
    figures.note(
        "direct",
        json!({
            "queries": direct.queries,
            "errors": direct.errors,
            "latency_ms": latency,
            "error_sample": direct.sample.as_ref().map(|s| bounded(s, 300)),
        }),
    );
}

/// Makes a test's load; what cannot be judged comes back as finished figures.
pub(super) async fn make(
    spec: &TestSpec,
    ctx: &TestContext,
    base: BaseUrl,
) -> Result<Outcome, Box<Figures>> {
    let plan = plan(base, spec, spec.requests(), spec.concurrency());
    let outcome = engine::run(&plan, &ctx.cancel)
        .await
        .map_err(|e| Box::new(Figures::from_engine_error(spec, &e)))?;
    let nothing_said = if outcome.cancelled {
        Some(super::CANCELLED.to_owned())
    } else {
        outcome.local_error.as_ref().map(|reason| {
            format!("inconclusive: this host ran out of sockets ({reason}); raise its limits")
        })
    };
    match nothing_said {
        None => Ok(outcome),
        Some(reason) => Err(Box::new(
            Figures::skipped(spec, reason).with_outcome(spec, &outcome),
        )),
    }
}

fn figures(spec: &TestSpec, outcome: &Outcome) -> Figures {
    Figures::new(spec, TestStatus::Passed, None).with_outcome(spec, outcome)
}

/// Holds what was measured against the limits of the test; the first one missed decides.
pub(super) fn decide(spec: &TestSpec, mut f: Figures, server_errors: u64) -> Figures {
    let failed: u64 = f.errors.values().sum();
    let rate = failed as f64 / f.requests.max(1) as f64;
    let p95 = f.latency_ms.p95;
    let (max_rate, p95_limit) = (spec.max_error_rate(), spec.p95_limit_ms());
    let by_rate = |mut f: Figures, limit: f64, issue: String| {
        (f.value, f.limit, f.unit) = (rate, limit, "ratio");
        f.status = TestStatus::Failed;
        f.issue = Some(if f.context.contains_key("gave_up") {
            format!("{issue}; it hangs, so no more were sent")
        } else {
            issue
        });
        f
    };
    if f.requests == 0 {
        return by_rate(f, max_rate, "no request was made".to_owned());
    }
    if rate > max_rate {
        let issue = failure_text(failed, f.requests, &f.errors, max_rate);
        return by_rate(f, max_rate, issue);
    }
    if spec.fail_on_5xx() && server_errors > 0 {
        let issue = format!(
            "{server_errors} of {} requests got a server error ({}), none may",
            f.requests,
            kinds(&f.errors)
        );
        return by_rate(f, 0.0, issue);
    }
    if let Some(limit) = p95_limit
        && (p95 > limit || spec.kind == TestKind::Latency)
    {
        (f.value, f.limit, f.unit) = (p95, limit, "ms");
        if p95 > limit {
            f.status = TestStatus::Failed;
            f.issue = Some(format!(
                "p95 latency of {} requests was {p95:.0} ms, limit {limit:.0} ms",
                f.requests
            ));
        }
        return f;
    }
    f.value = rate;
    f
}

/// `8 of 40 requests failed (status_429: 8), limit 5%`
pub(super) fn failure_text(
    failed: u64,
    requests: u64,
    errors: &BTreeMap<String, u64>,
    limit: f64,
) -> String {
    let limit = if limit > 0.0 {
        format!("limit {}", format_measure(limit, "ratio"))
    } else {
        "none may fail".to_owned()
    };
    format!(
        "{failed} of {requests} requests failed ({}), {limit}",
        kinds(errors)
    )
}

/// `timeout: 3, status_500: 1`: the most frequent first, at most six.
fn kinds(errors: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = errors.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1));
    let more = if all.len() > 6 { ", ..." } else { "" };
    let shown: Vec<_> = all
        .iter()
        .take(6)
        .map(|(kind, count)| format!("{kind}: {count}"))
        .collect();
    format!("{}{more}", shown.join(", "))
}
