//! Tests as people declare them for services of their own: at a rate, with data, pauses, weights and limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use evenkeel_core::measure::{TestResult, TestStatus};
use evenkeel_stress::{PoolError, Rows, TestSpec, run_test};
use serde_json::{Value, json};

use crate::server::{FakeAccess, Server, context, soon};

fn declared(keys: Value) -> TestSpec {
    let spec: TestSpec = serde_json::from_value(keys).unwrap();
    spec.validate().unwrap();
    spec
}

async fn run(server: &Server, keys: Value) -> TestResult {
    let ctx = context(&server.url(), FakeAccess::default());
    soon(run_test(&declared(keys), &ctx)).await
}

fn slow(ms: u64) -> Router {
    Router::new().fallback(async move || tokio::time::sleep(Duration::from_millis(ms)).await)
}

#[tokio::test]
async fn a_rate_is_kept_and_reported() {
    let server = Server::start(slow(1)).await;
    let result = run(
        &server,
        json!({"name": "x", "kind": "http-load", "endpoints": ["/"], "rate": 50, "duration_s": 1,
               "warm_up_s": 0.2, "concurrency": 10}),
    )
    .await;
    assert_eq!(result.status, TestStatus::Passed, "{:?}", result.issue);
    assert_eq!(result.requests, 50);
    assert_eq!(
        (&result.context["planned"], &result.context["rate"]),
        (&json!(50), &json!("50"))
    );
    assert!(result.context["service_ms"]["p95"].as_f64().unwrap() >= 1.0);
    assert!(result.duration_ms >= 1_100.0, "{}", result.duration_ms);
}

#[tokio::test]
async fn what_waits_for_a_slow_target_counts_from_when_it_was_due() {
    // One connection and 40 ms an answer: 25 a second, of which 50 are asked. Each answer is quick, and the last user waits
    // for a second.
    let server = Server::start(slow(40)).await;
    let result = run(
        &server,
        json!({"name": "x", "kind": "latency", "endpoints": ["/"], "rate": 50, "duration_s": 1,
               "concurrency": 1, "p95_limit_ms": 400}),
    )
    .await;
    assert_eq!(result.status, TestStatus::Failed);
    assert!(
        result
            .issue
            .unwrap()
            .starts_with("p95 latency of 50 requests was")
    );
    assert!(result.value > 400.0 && (result.value - result.latency_ms.p95).abs() < 1e-9);
    let service = result.context["service_ms"]["p50"].as_f64().unwrap();
    assert!((40.0..400.0).contains(&service), "{service}");
}

#[tokio::test]
async fn a_target_that_hangs_fails_at_a_rate_too() {
    let server =
        Server::start(Router::new().fallback(async || std::future::pending::<()>().await)).await;
    let result = run(
        &server,
        json!({"name": "x", "kind": "http-load", "endpoints": ["/"], "rate": 50, "duration_s": 1,
               "concurrency": 2, "request_timeout_ms": 200}),
    )
    .await;
    assert_eq!(result.status, TestStatus::Failed);
    assert!(result.errors["timeout"] >= 2, "{:?}", result.errors);
    assert!(
        result
            .issue
            .unwrap()
            .ends_with("it hangs, so no more were sent")
    );
}

#[tokio::test]
async fn requests_that_no_connection_was_free_for_are_failures() {
    // The one connection is busy from the first request on; the other nine stay unsent when time is up.
    let server = Server::start(slow(1_500)).await;
    let result = run(
        &server,
        json!({"name": "x", "kind": "http-load", "endpoints": ["/"], "rate": 10, "duration_s": 1,
               "concurrency": 1, "request_timeout_ms": 2_000, "max_error_rate": 0.1}),
    )
    .await;
    assert_eq!((result.status, result.requests), (TestStatus::Failed, 10));
    assert!(result.errors["unsent"] >= 5, "{:?}", result.errors);
}

#[tokio::test]
async fn the_last_percent_and_single_answers_have_their_own_limits() {
    let count = Arc::new(Mutex::new(0));
    let sometimes = async move || {
        let n = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count
        };
        if n % 40 == 0 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let server = Server::start(Router::new().fallback(sometimes)).await;
    let keys = |more: Value| {
        let mut keys = json!({"name": "x", "kind": "latency", "endpoints": ["/"], "requests": 200,
                              "concurrency": 2, "p95_limit_ms": 390});
        for (key, value) in more.as_object().unwrap() {
            keys[key] = value.clone();
        }
        keys
    };
    let by_p99 = run(&server, keys(json!({"p99_limit_ms": 395}))).await;
    assert_eq!(by_p99.status, TestStatus::Failed);
    assert!(
        by_p99
            .issue
            .unwrap()
            .starts_with("p99 latency of 200 requests was 4")
    );
    assert!((by_p99.limit - 395.0).abs() < 1e-9);
    let each = run(
        &server,
        keys(json!({"expect_within_ms": 395, "max_error_rate": 0.01})),
    )
    .await;
    assert_eq!(each.errors["assertion"], 5, "{:?}", each.errors);
    assert_eq!(each.status, TestStatus::Failed);
    assert!(run(&server, keys(json!({}))).await.passed);
}

/// Path and body of each request.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

#[tokio::test]
async fn a_mix_has_weights_pauses_and_rows_of_data() {
    let seen = Seen::default();
    let (orders, payments) = (Arc::clone(&seen), Arc::clone(&seen));
    let order = async move |Path(id): Path<String>| {
        orders.lock().unwrap().push((id, String::new()));
    };
    let pay = async move |body: String| {
        payments.lock().unwrap().push(("pay".to_owned(), body));
        StatusCode::CREATED
    };
    let router = Router::new()
        .route("/orders/{id}", get(order))
        .route("/pay", post(pay));
    let server = Server::start(router).await;
    let mut spec = declared(json!({
        "name": "Shop", "kind": "mix", "requests": 40, "concurrency": 4, "think_ms": [10, 15],
        "endpoints": [
            {"path": "/orders/${id}", "weight": 3},
            {"path": "/pay", "body": {"order": "${id}"}, "expect_status": 201},
        ],
    }));
    spec.rows = Some(Arc::new(
        Rows::from_csv("id\na b\nc/d\n\"e\"\"f\"\ng\n").unwrap(),
    ));
    spec.validate().unwrap();
    let begun = Instant::now();
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec, &ctx)).await;
    assert_eq!((result.status, &result.issue), (TestStatus::Passed, &None));
    // Ten requests on each connection on average, so nine pauses of 10 ms on one of them at least.
    assert!(
        begun.elapsed() >= Duration::from_millis(90),
        "{:?}",
        begun.elapsed()
    );
    let seen = seen.lock().unwrap();
    let mut rows: BTreeMap<String, u32> = BTreeMap::new();
    for (path, body) in seen.iter() {
        let id = if path == "pay" {
            let body: Value = serde_json::from_str(body).unwrap();
            body["order"].as_str().unwrap().to_owned()
        } else {
            path.clone()
        };
        *rows.entry(id).or_default() += 1;
    }
    let paid = seen.iter().filter(|(path, _)| path == "pay").count();
    assert_eq!((seen.len(), paid), (40, 10));
    let each = ["a b", "c/d", "e\"f", "g"].map(|id| (id.to_owned(), 10));
    assert_eq!(rows, BTreeMap::from(each));
    let told = result.context["by_endpoint"].as_array().unwrap();
    assert_eq!(
        (told[0]["requests"].as_u64(), told[1]["requests"].as_u64()),
        (Some(30), Some(10))
    );
}

#[tokio::test]
async fn queries_that_cannot_be_made_are_no_pass() {
    let unusable = || FakeAccess {
        pool: Some(Err(PoolError::Unusable("SHOP_DB is not set".to_owned()))),
        ..FakeAccess::default()
    };
    let keys = |endpoints: Value| {
        declared(
            json!({"name": "x", "kind": "sql-pool", "endpoints": endpoints, "pool_size": 3,
                        "queries": 50, "acquire_timeout_ms": 100}),
        )
    };
    let good = Server::start(slow(0)).await;
    for endpoints in [json!([]), json!(["/"])] {
        let ctx = context(&good.url(), unusable());
        let result = soon(run_test(&keys(endpoints), &ctx)).await;
        assert_eq!(result.status, TestStatus::Skipped);
        assert!(result.issue.unwrap().contains("SHOP_DB is not set"));
    }
    let broken = Router::new().fallback(async || StatusCode::INTERNAL_SERVER_ERROR);
    let bad = Server::start(broken).await;
    let ctx = context(&bad.url(), unusable());
    let result = soon(run_test(&keys(json!(["/"])), &ctx)).await;
    assert_eq!(result.status, TestStatus::Failed);
}
