//! The kinds that are decided by answers: http-load, mix, latency, sql-pool.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::anomaly::format_measure;
use evenkeel_core::measure::TestStatus;
use serde_json::json;

use super::{Figures, TestContext};
use crate::engine;
use crate::outcome::{Outcome, histogram, record, summary};
use crate::plan::Plan;
use crate::spec::{TestKind, TestSpec};
use crate::target::BaseUrl;
use crate::text::bounded;
use crate::world::{PoolError, PoolLoad, PoolReport};

/// How much longer than one query's limit all parallel queries together may take.
const POOL_GRACE: Duration = Duration::from_secs(5);
/// Longest that they may take, whatever is configured.
const POOL_LIMIT_MAX: Duration = Duration::from_hours(24);

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
    let load = spec.pool_load();
    let limit = pool_limit(&load);
    let direct = match tokio::time::timeout(limit, ctx.access.pooled_queries(load)).await {
        Ok(None) => None,
        Ok(Some(Ok(report))) => Some(report),
        Ok(Some(Err(PoolError::Broken(reason)))) => Some(one_error("open", reason)),
        Ok(Some(Err(PoolError::Unusable(reason)))) => {
            let reason = format!(
                "the direct queries cannot be made: {}",
                bounded(&reason, 300)
            );
            let judged = over_http.map(|figures| decide(spec, figures, server_errors));
            return match judged {
                // What failed has failed; half a test is no pass.
                Some(figures) if figures.status == TestStatus::Failed => figures,
                Some(mut figures) => {
                    figures.status = TestStatus::Skipped;
                    figures.issue = Some(reason);
                    figures
                }
                None => Figures::skipped(spec, reason),
            };
        }
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

/// How long all direct queries together may take when each takes as long as it may: opening, and then as many rounds
/// as the pool needs for them. Bounded by a day.
fn pool_limit(load: &PoolLoad) -> Duration {
    let at_once = load.pool_size.min(load.parallel).max(1);
    let rounds = u32::try_from(load.queries.div_ceil(at_once.into())).unwrap_or(u32::MAX);
    let queries = (load.query_timeout + load.acquire_timeout).saturating_mul(rounds);
    let all = load.connect_timeout.saturating_add(queries);
    all.saturating_add(POOL_GRACE).min(POOL_LIMIT_MAX)
}

fn one_error(kind: &str, reason: String) -> PoolReport {
    PoolReport {
        queries: 1,
        errors: BTreeMap::from([(kind.to_owned(), 1)]),
        sample: Some(reason),
        ..PoolReport::default()
    }
}

/// Adds direct queries to what went over HTTP; their errors are counted as `db_<kind>`, and a connection that did not
/// open as a query that was not answered.
///
/// Latencies of the two are of different things: those of the answers are kept where there are
/// any, and the direct ones stand in the context.
fn add_direct(figures: &mut Figures, direct: &PoolReport) {
    let of = |times: &[Duration]| {
        let mut all = histogram();
        for time in times {
            record(&mut all, *time);
        }
        summary(&all)
    };
    let latency = of(&direct.latencies);
    if figures.requests == 0 {
        figures.latency_ms = latency;
    }
    figures.requests += direct.queries + direct.connections_failed;
    for (kind, count) in &direct.errors {
        *figures.errors.entry(format!("db_{kind}")).or_default() += count;
    }
    let timeouts: u64 = (direct.errors.iter())
        .filter(|(kind, _)| kind.ends_with("timeout"))
        .map(|(_, count)| count)
        .sum();
    figures.note(
        "direct",
        json!({
            "database": direct.database,
            "connections": direct.connections,
            "queries": direct.queries,
            "errors": direct.errors,
            "timeouts": timeouts,
            "connect_ms": of(&direct.connects),
            "acquire_ms": of(&direct.acquires),
            "query_ms": latency,
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
    make_as(&spec.plan(base), spec, ctx).await
}

/// As [`make`], with a plan that is already there.
pub(super) async fn make_as(
    plan: &Plan,
    spec: &TestSpec,
    ctx: &TestContext,
) -> Result<Outcome, Box<Figures>> {
    let outcome = engine::run(plan, &ctx.cancel)
        .await
        .map_err(|e| Box::new(Figures::from_engine_error(spec, &e)))?;
    match nothing_said(&outcome) {
        None => Ok(outcome),
        Some(reason) => Err(Box::new(
            Figures::skipped(spec, reason).with_outcome(spec, &outcome),
        )),
    }
}

/// Why a run says nothing about the target: it then is no pass and no failure.
fn nothing_said(outcome: &Outcome) -> Option<String> {
    if outcome.cancelled {
        Some(super::CANCELLED.to_owned())
    } else if let Some(reason) = &outcome.local_error {
        Some(format!(
            "inconclusive: this host ran out of sockets ({reason}); raise its limits"
        ))
    } else {
        // That every request under way timed out in a row is the target's doing, however busy this host was.
        let invalid = outcome.invalid.as_ref().filter(|_| !outcome.gave_up);
        invalid.map(|reason| format!("inconclusive: {reason}"))
    }
}

fn figures(spec: &TestSpec, outcome: &Outcome) -> Figures {
    Figures::new(spec, TestStatus::Passed, None).with_outcome(spec, outcome)
}

/// Holds what was measured against the limits of the test; the first one missed decides.
pub(super) fn decide(spec: &TestSpec, mut f: Figures, server_errors: u64) -> Figures {
    let failed: u64 = f.errors.values().sum();
    let rate = failed as f64 / f.requests.max(1) as f64;
    let max_rate = spec.max_error_rate();
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
    let (p95, p99) = (f.latency_ms.p95, f.latency_ms.p99);
    if too_slow(&mut f, "p95", p95, spec.p95_limit_ms())
        || too_slow(&mut f, "p99", p99, spec.p99_limit_ms)
    {
        return f;
    }
    if let Some(limit) = spec.p95_limit_ms()
        && spec.kind == TestKind::Latency
    {
        (f.value, f.limit, f.unit) = (p95, limit, "ms");
        return f;
    }
    f.value = rate;
    f
}

/// Whether a percentile is above its limit; the figures then say so.
fn too_slow(f: &mut Figures, name: &str, value: f64, limit: Option<f64>) -> bool {
    let Some(limit) = limit.filter(|limit| value > *limit) else {
        return false;
    };
    (f.value, f.limit, f.unit) = (value, limit, "ms");
    f.status = TestStatus::Failed;
    f.issue = Some(format!(
        "{name} latency of {} requests was {value:.0} ms, limit {limit:.0} ms",
        f.requests
    ));
    true
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::request::RequestSpec;

    #[tokio::test]
    async fn a_generator_that_was_the_bottleneck_says_nothing_about_the_target() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let base = BaseUrl::parse(&url).unwrap();
        let plan = Plan::closed(base, vec![RequestSpec::get("/")], 1, 1);
        let mut outcome = engine::run(&plan, &Cancel::new()).await.unwrap();
        assert_eq!(nothing_said(&outcome), None);
        outcome.invalid = Some("the generator was the bottleneck".to_owned());
        let said = nothing_said(&outcome);
        assert_eq!(
            said.as_deref(),
            Some("inconclusive: the generator was the bottleneck")
        );
        outcome.gave_up = true;
        assert_eq!(
            nothing_said(&outcome),
            None,
            "a target that hangs has failed"
        );
        outcome.local_error = Some("no ports".to_owned());
        assert!(nothing_said(&outcome).unwrap().contains("raise its limits"));
    }
}
