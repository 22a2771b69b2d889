//! The memory test judges the target's memory, or says that it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use evenkeel_core::measure::{TestResult, TestStatus};
use evenkeel_stress::{MemoryError, RequestSpec, TestKind, TestSpec, run_test};

use crate::server::{FakeAccess, Server, context, memory, soon};

fn spec() -> TestSpec {
    TestSpec {
        endpoints: vec![RequestSpec::get("/")],
        ..TestSpec::new("Memory Leak Detection", TestKind::Memory)
    }
}

async fn judged(access: FakeAccess) -> TestResult {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    soon(run_test(&spec(), &context(&server.url(), access))).await
}

fn assert_inconclusive(result: &TestResult, word: &str) {
    assert_eq!(result.status, TestStatus::Failed);
    let issue = result.issue.as_deref().unwrap();
    assert!(
        issue.starts_with("inconclusive: ") && issue.contains(word),
        "{issue}"
    );
    assert_eq!(result.context["inconclusive"], true);
}

#[tokio::test]
async fn growth_beyond_the_limit_fails() {
    // Before the warm-up, before the load, after the load: what the warm-up took does not count.
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 120)), Ok(memory(1, 175))];
    let result = judged(FakeAccess::with_readings(readings)).await;
    assert_eq!(result.status, TestStatus::Failed);
    assert_eq!(
        result.issue.as_deref(),
        Some(
            "memory grew by 55.0 MB over 100 requests (120.0 MB before, 175.0 MB after), limit 50 MB"
        )
    );
    assert_eq!(
        (result.value, result.limit, result.unit.as_str()),
        (55.0, 50.0, "MB")
    );
    assert_eq!((result.requests, result.latency_ms.p50 > 0.0), (100, true));
    assert_eq!(result.context["growth_mb_by_service"]["api"], 55.0);
}

#[tokio::test]
async fn growth_within_the_limit_and_shrinking_pass() {
    for (after, growth) in [(170, 50.0), (90, -30.0)] {
        let readings = [Ok(memory(1, 120)), Ok(memory(1, 120)), Ok(memory(1, after))];
        let result = judged(FakeAccess::with_readings(readings)).await;
        assert_eq!((result.status, result.issue), (TestStatus::Passed, None));
        assert!((result.value - growth).abs() < 1e-9, "{}", result.value);
    }
}

#[tokio::test]
async fn a_replaced_process_is_inconclusive() {
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Ok(memory(2, 20))];
    let result = judged(FakeAccess::with_readings(readings)).await;
    assert_inconclusive(
        &result,
        "`api` was replaced during the test (pid 1 before, 2 after)",
    );
}

#[tokio::test]
async fn the_same_pid_with_another_start_is_another_process() {
    let mut again = memory(1, 20);
    again.by_service.get_mut("api").unwrap().started += 1;
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Ok(again)];
    assert_inconclusive(
        &judged(FakeAccess::with_readings(readings)).await,
        "replaced",
    );
}

#[tokio::test]
async fn a_reading_that_breaks_is_inconclusive() {
    let gone = MemoryError::Unreadable("process 1 of `api` is gone".to_owned());
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Err(gone.clone())];
    assert_inconclusive(
        &judged(FakeAccess::with_readings(readings)).await,
        "is gone",
    );
    assert_inconclusive(
        &judged(FakeAccess::with_readings([Err(gone)])).await,
        "is gone",
    );
}

#[tokio::test]
async fn a_target_without_known_process_is_skipped_without_a_request() {
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let handler = async move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec(), &ctx)).await;
    assert_eq!(result.status, TestStatus::Skipped);
    assert_eq!(
        result.issue.as_deref(),
        Some("no process of the target is known")
    );
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn too_many_failed_requests_are_inconclusive_even_without_growth() {
    let count = AtomicU64::new(0);
    let count = Arc::new(count);
    let handler = async move || match count.fetch_add(1, Ordering::Relaxed) % 10 {
        0 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
    let result = soon(run_test(&spec(), &context(&server.url(), access))).await;
    assert_inconclusive(
        &result,
        "10 of 100 requests failed (status_500: 10), limit 5%",
    );
    assert_eq!(result.unit, "ratio");
    assert_eq!(result.anomaly_type.as_str(), "error_rate_spike");
}

#[tokio::test]
async fn one_named_service_is_judged_alone() {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    let mut both = memory(1, 100);
    both.by_service
        .insert("cache".into(), memory(2, 10).by_service["api"]);
    let mut grown = both.clone();
    grown.by_service.get_mut("cache").unwrap().bytes += 500 * 1_048_576;
    grown.total_bytes += 500 * 1_048_576;
    let mut spec = spec();
    for (service, status) in [
        ("api", TestStatus::Passed),
        ("cache", TestStatus::Failed),
        ("nobody", TestStatus::Failed),
    ] {
        spec.service = Some(service.to_owned());
        let readings = [Ok(both.clone()), Ok(both.clone()), Ok(grown.clone())];
        let ctx = context(&server.url(), FakeAccess::with_readings(readings));
        let result = soon(run_test(&spec, &ctx)).await;
        assert_eq!(result.status, status, "{service}: {:?}", result.issue);
    }
}
