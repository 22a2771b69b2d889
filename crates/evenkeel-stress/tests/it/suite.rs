//! The eight tests against servers that are well, ill, absent and half configured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use evenkeel_core::measure::{SuiteResult, TestStatus};
use evenkeel_stress::mesh::ResponderOptions;
use evenkeel_stress::{
    MeshClient, MeshSpec, PoolError, PoolReport, Progress, RequestSpec, Responder, Subjects,
    TestContext, TestKind, TestSpec, eight_tests, run_suite, run_test,
};
use serde_json::json;

use crate::server::{FakeAccess, Mesh, Server, closed_port, context, memory, soon};

fn subjects() -> Subjects {
    let get = RequestSpec::get;
    Subjects {
        health: Some(get("/health")),
        database_endpoint: Some(get("/api/db")),
        database_direct: false,
        api_endpoints: vec![
            get("/health"),
            get("/api/db"),
            get("/metrics"),
            get("/api/list"),
        ],
        chat: Some(RequestSpec::post("/api/chat", json!({"message": "hello"}))),
        metrics: Some(get("/metrics")),
        governance: Some(RequestSpec::post("/api/decide", json!({"action": "read"}))),
        mesh: Some(MeshSpec::default()),
        memory_request: Some(get("/health")),
        process_known: true,
        memory_service: None,
        ..Subjects::default()
    }
}

fn healthy(mesh: &Mesh) -> Router {
    Router::new()
        .route("/health", get(async || "ok"))
        .route("/api/db", get(async || "[]"))
        .route("/api/list", get(async || "[]"))
        .route("/metrics", get(async || "# TYPE up gauge\nup{a=\"b\"} 1\n"))
        .route("/api/chat", post(async || "hello"))
        .route("/api/decide", post(async || "{\"allow\":true}"))
        .merge(mesh.router())
}

async fn suite(specs: &[TestSpec], ctx: &TestContext) -> SuiteResult {
    soon(run_suite(specs, ctx, &mut |_| {})).await
}

fn spec(name: &str) -> TestSpec {
    let all = eight_tests(&subjects());
    all.into_iter().find(|t| t.name == name).unwrap()
}

#[tokio::test]
async fn a_healthy_target_passes_all_eight_quickly() {
    let mesh = Mesh::new();
    let server = Server::start(healthy(&mesh)).await;
    let client = MeshClient::new(server.base(), MeshSpec::default()).unwrap();
    let handle = Responder::new(client, ResponderOptions::default()).spawn();
    soon(handle.connected().wait_for(|c| *c)).await.unwrap();
    let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
    let ctx = context(&server.url(), access);
    let mut seen = Vec::new();
    let started = Instant::now();
    let result = soon(run_suite(&eight_tests(&subjects()), &ctx, &mut |p| {
        seen.push(match p {
            Progress::TestStarted { index, total, name } => format!("{index}/{total} {name}"),
            Progress::TestFinished { index, result, .. } => {
                format!("{index} {:?}", result.status)
            }
        });
    }))
    .await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let issues: Vec<_> = result
        .results
        .iter()
        .filter_map(|r| r.issue.as_ref())
        .collect();
    assert_eq!(
        (result.tests_run, result.tests_passed, issues),
        (8, 8, vec![])
    );
    assert!(result.success);
    assert_eq!(result.started_at, (ctx.now)());
    assert_eq!(
        (seen.len(), seen[0].as_str()),
        (16, "0/8 Health Endpoint Load")
    );
    assert_eq!(seen[15], "7 Passed");
    let requests: Vec<_> = result.results.iter().map(|r| r.requests).collect();
    assert_eq!(requests, [50, 20, 40, 5, 20, 50, 1, 100]);
    for r in &result.results {
        assert!(
            r.latency_ms.p50 > 0.0 && !r.unit.is_empty() && r.duration_ms > 0.0,
            "{r:?}"
        );
    }
    soon(handle.stop()).await;
}

#[tokio::test]
async fn what_is_not_configured_is_skipped_and_never_passed() {
    let server = Server::start(healthy(&Mesh::new())).await;
    let specs = eight_tests(&Subjects {
        health: Some(RequestSpec::get("/health")),
        ..Subjects::default()
    });
    let result = suite(&specs, &context(&server.url(), FakeAccess::default())).await;
    assert_eq!(
        (result.tests_run, result.tests_passed, result.tests_skipped),
        (1, 1, 7)
    );
    assert!(result.anomalies.is_empty());
    let issue = |n: usize| result.results[n].issue.as_deref().unwrap();
    assert_eq!(issue(3), "[target.endpoints] chat is not set");
    assert_eq!(issue(6), "[target] mesh is not set");
    assert!(issue(1).contains("[target.endpoints] database"));
    assert!(
        result.results[1..]
            .iter()
            .all(|r| !r.passed && r.requests == 0)
    );
}

#[tokio::test]
async fn a_target_that_is_down_fails_with_the_reason() {
    let url = format!("http://{}", closed_port().await);
    let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
    let result = suite(&eight_tests(&subjects()), &context(&url, access)).await;
    assert_eq!(
        (result.tests_run, result.tests_passed, result.success),
        (8, 0, false)
    );
    assert_eq!(result.anomalies.len(), 8);
    assert_eq!(
        result.results[0].issue.as_deref(),
        Some("50 of 50 requests failed (refused: 50), none may fail")
    );
    let kinds: Vec<_> = result.anomalies.iter().map(|a| a.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "health_endpoint_failure",
            "db_pool_exhaustion",
            "error_rate_spike",
            "multimodal_failure",
            "metrics_failure",
            "governance_latency",
            "event_mesh_failure",
            // No leak was seen: that nothing answers was.
            "error_rate_spike",
        ]
    );
    assert!(
        result.results[6]
            .issue
            .as_deref()
            .unwrap()
            .contains("cannot reach the event mesh")
    );
}

/// A server whose every `n`th answer is `status`.
async fn every(n: u64, status: StatusCode) -> Server {
    let count = Arc::new(AtomicU64::new(0));
    let handler = async move || {
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(n) {
            (status, "{\"error\":\"rate_limited\"}")
        } else {
            (StatusCode::OK, "{}")
        }
    };
    Server::start(Router::new().fallback(handler)).await
}

#[tokio::test]
async fn a_failed_share_above_the_limit_reads_as_people_say_it() {
    let server = every(5, StatusCode::TOO_MANY_REQUESTS).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec("Concurrent API Requests"), &ctx)).await;
    assert_eq!(
        result.issue.as_deref(),
        Some("8 of 40 requests failed (status_429: 8), limit 5%")
    );
    assert_eq!(
        (result.value, result.limit, result.unit.as_str()),
        (0.2, 0.05, "ratio")
    );
    assert_eq!(result.context["error_codes"], json!({"rate_limited": 8}));
}

#[tokio::test]
async fn one_server_error_fails_the_api_test_and_one_other_error_does_not() {
    for (status, passed) in [
        (StatusCode::BAD_GATEWAY, false),
        (StatusCode::NOT_FOUND, true),
    ] {
        let server = every(40, status).await;
        let ctx = context(&server.url(), FakeAccess::default());
        let result = soon(run_test(&spec("Concurrent API Requests"), &ctx)).await;
        assert_eq!(
            (result.error_count(), result.passed),
            (1, passed),
            "{status}"
        );
        if !passed {
            let issue = result.issue.unwrap();
            assert_eq!(
                issue,
                "1 of 40 requests got a server error (status_502: 1), none may"
            );
        }
    }
}

#[tokio::test]
async fn health_takes_200_and_nothing_else() {
    let server = every(1, StatusCode::NO_CONTENT).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec("Health Endpoint Load"), &ctx)).await;
    assert_eq!(
        result.errors,
        BTreeMap::from([("status_204".to_owned(), 50)])
    );
}

#[tokio::test]
async fn unreadable_metrics_fail() {
    let router = Router::new().route("/metrics", get(async || "<html>login</html>"));
    let server = Server::start(router).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec("Metrics Collection Load"), &ctx)).await;
    assert_eq!(
        result.errors,
        BTreeMap::from([("assertion".to_owned(), 20)])
    );
    let sample = result.context["error_samples"][0].as_str().unwrap();
    assert!(sample.contains("line 1"), "{sample}");
}

#[tokio::test]
async fn slow_decisions_fail_by_their_p95() {
    let handler = async || tokio::time::sleep(Duration::from_millis(60)).await;
    let server = Server::start(Router::new().route("/api/decide", post(handler))).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let mut spec = spec("Governance Latency");
    spec.p95_limit_ms = Some(50.0);
    let result = soon(run_test(&spec, &ctx)).await;
    assert_eq!(
        (result.status, result.unit.as_str()),
        (TestStatus::Failed, "ms")
    );
    assert!(result.value >= 60.0 && (result.value - result.latency_ms.p95).abs() < 1e-9);
    assert!(
        result
            .issue
            .unwrap()
            .starts_with("p95 latency of 50 requests was")
    );
    spec.p95_limit_ms = Some(5_000.0);
    assert!(soon(run_test(&spec, &ctx)).await.passed);
}

#[tokio::test]
async fn fast_refusals_are_no_fast_decisions() {
    let server = every(1, StatusCode::INTERNAL_SERVER_ERROR).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec("Governance Latency"), &ctx)).await;
    assert_eq!(
        (result.status, result.unit.as_str()),
        (TestStatus::Failed, "ratio")
    );
}

#[tokio::test]
async fn a_slow_pass_raises_a_low_anomaly() {
    let handler = async || tokio::time::sleep(Duration::from_millis(50)).await;
    let server = Server::start(Router::new().route("/health", get(handler))).await;
    let mut spec = spec("Health Endpoint Load");
    spec.expected_max_ms = Some(20.0);
    let result = suite(&[spec], &context(&server.url(), FakeAccess::default())).await;
    assert_eq!((result.success, result.anomalies.len()), (true, 1));
    assert_eq!(result.anomalies[0].kind.as_str(), "latency_spike");
}

#[tokio::test]
async fn direct_queries_count_beside_the_endpoint() {
    let server = every(1000, StatusCode::OK).await;
    let report = |errors: &[(&str, u64)]| PoolReport {
        queries: 20,
        errors: errors.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
        latencies: vec![Duration::from_millis(3); 20],
        ..PoolReport::default()
    };
    let spec = spec("Database Connection Pool");
    for (pool, requests, issue) in [
        (Some(Ok(report(&[]))), 40, None),
        (
            Some(Ok(report(&[("locked", 3)]))),
            40,
            Some("3 of 40 requests failed (db_locked: 3), none may fail"),
        ),
        (
            Some(Err(PoolError::Broken("cannot open".to_owned()))),
            21,
            Some("1 of 21 requests failed (db_open: 1), none may fail"),
        ),
        (None, 20, None),
    ] {
        let access = FakeAccess {
            pool,
            ..FakeAccess::default()
        };
        let result = soon(run_test(&spec, &context(&server.url(), access))).await;
        assert_eq!(
            (result.requests, result.issue.as_deref()),
            (requests, issue)
        );
    }
    let alone = TestSpec::new("Direct", TestKind::SqlPool);
    let ctx = context(&server.url(), FakeAccess::default());
    assert_eq!(
        soon(run_test(&alone, &ctx)).await.status,
        TestStatus::Skipped
    );
    let access = FakeAccess {
        pool: Some(Ok(report(&[]))),
        ..FakeAccess::default()
    };
    let result = soon(run_test(&alone, &context(&server.url(), access))).await;
    assert!(result.passed && (2.9..3.1).contains(&result.latency_ms.p95));
}

#[tokio::test]
async fn a_hanging_target_fails_within_one_time_limit() {
    let handler = async || std::future::pending::<()>().await;
    let server = Server::start(Router::new().fallback(handler)).await;
    let mut spec = spec("Governance Latency");
    spec.request_timeout_ms = Some(200);
    let started = Instant::now();
    let result = soon(run_test(
        &spec,
        &context(&server.url(), FakeAccess::default()),
    ))
    .await;
    assert_eq!(result.status, TestStatus::Failed);
    assert!(
        result.errors["timeout"] >= 10 && result.requests <= 20,
        "{result:?}"
    );
    let issue = result.issue.unwrap();
    assert!(issue.ends_with("it hangs, so no more were sent"), "{issue}");
    // Five rounds would be a second.
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn cancelling_skips_the_test_under_way_and_the_rest() {
    let handler = async || std::future::pending::<()>().await;
    let server = Server::start(healthy(&Mesh::new()).route("/hang", get(handler))).await;
    let mut specs = eight_tests(&subjects());
    specs[1].endpoints = vec![RequestSpec::get("/hang")];
    let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
    let ctx = context(&server.url(), access);
    let cancel = ctx.cancel.clone();
    let mut at = None;
    let result = soon(run_suite(&specs, &ctx, &mut |progress| {
        if let Progress::TestStarted { index: 1, .. } = progress {
            let cancel = cancel.clone();
            at = Some(Instant::now());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                cancel.cancel();
            });
        }
    }))
    .await;
    assert!(at.unwrap().elapsed() < Duration::from_secs(1));
    assert_eq!(
        (result.tests_run, result.tests_passed, result.tests_skipped),
        (1, 1, 7)
    );
    assert!(!result.success, "a cancelled suite is no success");
    assert!(result.anomalies.is_empty());
    assert_eq!(
        result.results[7].issue.as_deref(),
        Some("cancelled before it ended")
    );
}

#[tokio::test]
async fn what_cannot_be_run_says_nothing_about_the_target() {
    let ctx = context("ftp://127.0.0.1:1", FakeAccess::default());
    let result = soon(run_test(&spec("Health Endpoint Load"), &ctx)).await;
    assert_eq!(result.status, TestStatus::Skipped);
    let issue = result.issue.unwrap();
    assert!(
        issue.contains("its scheme is neither http nor https"),
        "{issue}"
    );
}
