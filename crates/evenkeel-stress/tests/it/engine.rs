//! Every kind of error is really provoked, and the numbers agree with the server's own.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::get;
use evenkeel_stress::{
    BaseUrl, BodyCheck, Cancel, EngineError, Outcome, Plan, RequestSpec, StatusSet, run,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Barrier, mpsc};

use crate::server::{PATIENCE, Server, closed_port, soon};

fn plan(server: &Server, path: &str, total: u64, concurrency: u32) -> Plan {
    Plan::closed(
        server.base(),
        vec![RequestSpec::get(path)],
        total,
        concurrency,
    )
}

async fn measure(plan: &Plan) -> Outcome {
    soon(run(plan, &Cancel::new())).await.unwrap()
}

fn only(kind: &str, count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(kind.to_owned(), count)])
}

#[tokio::test]
async fn counts_agree_with_the_server_and_connections_are_kept() {
    let seen = Arc::new((AtomicU64::new(0), Mutex::new(HashSet::new())));
    let state = Arc::clone(&seen);
    let handler = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
        state.0.fetch_add(1, Ordering::Relaxed);
        state.1.lock().unwrap().insert(peer);
        "ok"
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let outcome = measure(&plan(&server, "/", 200, 8)).await;
    assert_eq!(seen.0.load(Ordering::Relaxed), 200);
    assert_eq!(seen.1.lock().unwrap().len(), 8, "connections");
    assert_eq!(
        (outcome.requests, outcome.answered, outcome.aborted),
        (200, 200, 0)
    );
    assert_eq!(outcome.latency.len(), 200);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    assert!(outcome.throughput_rps > 0.0);
}

#[tokio::test]
async fn all_requests_are_under_way_at_once() {
    let barrier = Arc::new(Barrier::new(50));
    let handler = async move || {
        barrier.wait().await;
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    // Answers only when 50 requests are there: with fewer at once this would time out.
    let outcome = measure(&plan(&server, "/", 50, 50)).await;
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
}

#[tokio::test]
async fn latency_is_that_of_the_handler() {
    let handler = async || tokio::time::sleep(Duration::from_millis(50)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let outcome = measure(&plan(&server, "/", 20, 5)).await;
    let latency = outcome.summary();
    assert!((50.0..1000.0).contains(&latency.p50), "{latency:?}");
    assert!(
        latency.p50 <= latency.p95 && latency.p95 <= latency.max,
        "{latency:?}"
    );
    // Four rounds of 50 ms each.
    assert!(
        outcome.elapsed >= Duration::from_millis(200),
        "{:?}",
        outcome.elapsed
    );
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let base = BaseUrl::parse(&format!("http://{}", closed_port().await)).unwrap();
    let outcome = measure(&Plan::closed(base, vec![RequestSpec::get("/")], 10, 5)).await;
    assert_eq!(outcome.errors, only("refused", 10));
    assert_eq!((outcome.requests, outcome.answered), (10, 0));
    assert!(outcome.latency.is_empty(), "no answer has no latency");
    assert_eq!(outcome.error_samples.len(), 1);
}

#[tokio::test]
async fn a_cut_answer_is_a_reset() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123")
            .await;
    })
    .await;
    assert_eq!(
        measure(&plan(&server, "/", 6, 3)).await.errors,
        only("reset", 6)
    );
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_reset() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    assert_eq!(
        measure(&plan(&server, "/", 6, 3)).await.errors,
        only("reset", 6)
    );
}

#[tokio::test]
async fn a_connection_reset_by_the_peer_is_a_reset() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 16];
        stream.set_zero_linger().unwrap();
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    assert_eq!(
        measure(&plan(&server, "/", 6, 3)).await.errors,
        only("reset", 6)
    );
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    assert_eq!(
        measure(&plan(&server, "/", 4, 2)).await.errors,
        only("protocol", 4)
    );
}

#[tokio::test]
async fn a_late_answer_times_out_and_is_recorded_at_its_limit() {
    let handler = async || tokio::time::sleep(Duration::from_mins(1)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let mut plan = plan(&server, "/", 6, 3);
    plan.limits.request = Duration::from_millis(150);
    let outcome = measure(&plan).await;
    assert_eq!(outcome.errors, only("timeout", 6));
    assert_eq!((outcome.latency.len(), outcome.answered), (6, 0));
    // Three significant digits: 150 ms may be kept as a tenth of a per cent less.
    assert!(
        outcome.latency.min() >= 149_800,
        "{}",
        outcome.latency.min()
    );
}

#[tokio::test]
async fn a_body_that_does_not_end_times_out() {
    let server = Server::raw(|mut stream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123")
            .await;
        let _ = stream.read(&mut buffer).await;
    })
    .await;
    let mut plan = plan(&server, "/", 2, 2);
    plan.limits.request = Duration::from_millis(150);
    assert_eq!(measure(&plan).await.errors, only("timeout", 2));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_accept_queue_times_out_on_connecting() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    // The queue holds a few; from then on the kernel drops what comes.
    for _ in 0..16 {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(100), connect).await {
            Ok(stream) => queued.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    assert!(queued.len() < 16, "the queue never filled");
    let base = BaseUrl::parse(&format!("http://{address}")).unwrap();
    let mut plan = Plan::closed(base, vec![RequestSpec::get("/")], 2, 2);
    plan.limits.connect = Duration::from_millis(150);
    assert_eq!(measure(&plan).await.errors, only("connect_timeout", 2));
    // The request's own time is over before: it did not leave, so none of its bytes did.
    plan.transport.keep_alive = false;
    plan.limits.connect = Duration::from_secs(5);
    plan.limits.request = Duration::from_millis(150);
    let outcome = measure(&plan).await;
    assert_eq!(
        (outcome.errors, outcome.bytes_sent),
        (only("timeout", 2), 0)
    );
}

#[tokio::test]
async fn bad_statuses_are_counted_with_their_codes() {
    let count = Arc::new(AtomicU64::new(0));
    let handler = async move || match count.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => (
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"error\":\"pool_timeout\",\"more\":1}",
        ),
        1 => (
            StatusCode::TOO_MANY_REQUESTS,
            "{\"error\":\"rate_limited\"}",
        ),
        2 => (StatusCode::NOT_FOUND, "<html>"),
        _ => (StatusCode::OK, "{\"error\":\"not counted\"}"),
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let outcome = measure(&plan(&server, "/", 40, 4)).await;
    let errors = [("status_404", 10), ("status_429", 10), ("status_503", 10)];
    assert_eq!(
        outcome.errors,
        errors.map(|(k, n)| (k.to_owned(), n)).into()
    );
    let codes = [("pool_timeout", 10), ("rate_limited", 10)];
    assert_eq!(
        outcome.error_codes,
        codes.map(|(k, n)| (k.to_owned(), n)).into()
    );
    assert_eq!((outcome.answered, outcome.server_errors()), (40, 10));
    assert_eq!(outcome.error_samples.len(), 3);
}

#[tokio::test]
async fn bodies_are_checked_within_their_bound() {
    let big = format!("up 1\n# {}\n", "x".repeat(3 * 1024 * 1024));
    let router = Router::new()
        .route("/metrics", get(async || "# TYPE up gauge\nup 1\n"))
        .route("/empty", get(async || "# nothing\n"))
        .route("/html", get(async || "<html></html>"))
        .route("/big", get(async move || big));
    let server = Server::start(router).await;
    for (path, check, bad) in [
        ("/metrics", Some(BodyCheck::Metrics), false),
        ("/empty", Some(BodyCheck::Metrics), true),
        ("/html", Some(BodyCheck::Metrics), true),
        ("/html", Some(BodyCheck::Contains("</html>".into())), false),
        ("/html", Some(BodyCheck::Contains("ready".into())), true),
        ("/big", Some(BodyCheck::Metrics), true),
        ("/big", None, false),
    ] {
        let mut plan = plan(&server, path, 2, 2);
        plan.requests[0].expect_body.clone_from(&check);
        let outcome = measure(&plan).await;
        let errors = if bad {
            only("assertion", 2)
        } else {
            BTreeMap::new()
        };
        assert_eq!(outcome.errors, errors, "{path} {check:?}");
        assert_eq!(outcome.answered, 2);
    }
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_no_error() {
    let handler = async || ([("connection", "close")], "ok");
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let outcome = measure(&plan(&server, "/", 40, 4)).await;
    assert_eq!((outcome.answered, outcome.errors), (40, BTreeMap::new()));
}

#[tokio::test]
async fn requests_take_turns_by_weight_with_their_method_and_body() {
    let counts = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let state = Arc::clone(&counts);
    let handler = async move |method: axum::http::Method, body: String| {
        *state
            .lock()
            .unwrap()
            .entry(format!("{method} {body}"))
            .or_default() += 1;
        StatusCode::CREATED
    };
    let server = Server::start(Router::new().route("/", get(handler.clone()).post(handler))).await;
    let mut post = RequestSpec::post("/", serde_json::json!({"a": 1}));
    post.weight = 3;
    post.expect_status = Some(StatusSet::one(201));
    let requests = vec![RequestSpec::get("/"), post];
    let outcome = measure(&Plan::closed(server.base(), requests, 40, 4)).await;
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let expected = [("GET ", 10), ("POST {\"a\":1}", 30)].map(|(k, n)| (k.to_owned(), n));
    assert_eq!(*counts.lock().unwrap(), expected.into());
}

#[tokio::test]
async fn a_hanging_server_ends_the_run_after_one_round() {
    let handler = async || tokio::time::sleep(Duration::from_mins(1)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let mut plan = plan(&server, "/", 1000, 10);
    plan.limits.request = Duration::from_millis(100);
    plan.limits.give_up_after_timeouts = Some(10);
    let outcome = measure(&plan).await;
    assert!(outcome.gave_up);
    assert!(
        (10..=20).contains(&outcome.requests),
        "{}",
        outcome.requests
    );
    assert_eq!(outcome.errors, only("timeout", outcome.requests));
}

/// Tells when a handler begins and when it is dropped.
struct Watched(mpsc::UnboundedSender<&'static str>);

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

async fn hanging() -> (Server, mpsc::UnboundedReceiver<&'static str>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let handler = async move || {
        tx.send("begun").unwrap();
        let _watched = Watched(tx);
        std::future::pending::<()>().await;
    };
    (
        Server::start(Router::new().route("/", get(handler))).await,
        rx,
    )
}

#[tokio::test]
async fn cancelling_ends_the_run_with_what_there_is() {
    let (server, mut events) = hanging().await;
    let (plan, cancel) = (plan(&server, "/", 100, 4), Cancel::new());
    let switch = cancel.clone();
    let running = tokio::spawn(async move { run(&plan, &cancel).await });
    for _ in 0..4 {
        assert_eq!(soon(events.recv()).await, Some("begun"));
    }
    let at = Instant::now();
    switch.cancel();
    let outcome = soon(running).await.unwrap().unwrap();
    assert!(at.elapsed() < Duration::from_secs(1), "{:?}", at.elapsed());
    assert!(outcome.cancelled);
    assert_eq!((outcome.requests, outcome.aborted), (0, 4));
}

#[tokio::test]
async fn dropping_the_run_closes_its_connections() {
    let (server, mut events) = hanging().await;
    let plan = plan(&server, "/", 4, 4);
    let running = tokio::spawn(async move { run(&plan, &Cancel::new()).await.map(|_| ()) });
    for _ in 0..4 {
        assert_eq!(soon(events.recv()).await, Some("begun"));
    }
    running.abort();
    for _ in 0..4 {
        assert_eq!(soon(events.recv()).await, Some("dropped"));
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_an_error_of_the_run() {
    let base = BaseUrl::parse("http://nowhere.invalid").unwrap();
    let mut plan = Plan::closed(base, vec![RequestSpec::get("/")], 1, 1);
    plan.limits.connect = PATIENCE / 5;
    let error = soon(run(&plan, &Cancel::new())).await.unwrap_err();
    assert!(matches!(error, EngineError::Resolve { .. }), "{error}");
}
