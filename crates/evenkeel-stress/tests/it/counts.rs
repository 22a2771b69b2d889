//! Every request is counted once, and the counts agree with the server's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use evenkeel_stress::{
    Arrivals, Cancel, Load, Outcome, Plan, Rate, RequestSpec, Rows, Think, Until, run,
};
use tokio::net::TcpListener;

use crate::raw::{RawServer, Requests};
use crate::server::{Server, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn measure(plan: &Plan) -> Outcome {
    soon(run(plan, &Cancel::new())).await.unwrap()
}

fn of(outcome: &Outcome, kind: &str) -> u64 {
    outcome.errors.get(kind).copied().unwrap_or(0)
}

/// What must agree within every outcome.
fn assert_adds_up(outcome: &Outcome) {
    let parts =
        |of: fn(&evenkeel_stress::Interval) -> u64| outcome.series.iter().map(of).sum::<u64>();
    assert_eq!(parts(|i| i.requests), outcome.requests);
    assert_eq!(parts(|i| i.answered), outcome.answered);
    assert_eq!(parts(|i| i.errors), outcome.error_count());
    assert_eq!(outcome.statuses.values().sum::<u64>(), outcome.answered);
    if !outcome.per_request.is_empty() {
        let each = &outcome.per_request;
        assert_eq!(
            each.iter().map(|r| r.requests).sum::<u64>(),
            outcome.requests
        );
        let errors: u64 = each.iter().flat_map(|r| r.errors.values()).sum();
        assert_eq!(errors, outcome.error_count());
        let recorded: u64 = each.iter().map(|r| r.latency.len()).sum();
        assert_eq!(recorded + outcome.unsent, outcome.latency.len());
    }
    for pair in outcome.series.windows(2) {
        assert_eq!(
            pair[0].start + pair[0].length,
            pair[1].start,
            "intervals follow each other"
        );
    }
    if let Some(planned) = outcome.planned {
        assert_eq!(outcome.requests + outcome.aborted + outcome.unsent, planned);
    }
}

async fn obliging(mut requests: Requests) {
    while requests.next().await.is_some() && requests.answer(OK).await {}
}

/// Runs `plan` against a server that is killed with all its connections whenever it has got so many requests more, stays
/// away a while, and comes back on the same port.
async fn across_restarts(
    load: Load,
    restarts: u64,
    more: u64,
) -> (Outcome, Arc<crate::raw::Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = RawServer::on(listener, Arc::default(), obliging);
    let mut plan = Plan::closed(
        server.base(),
        vec![RequestSpec::get("/a"), RequestSpec::get("/b")],
        1,
        1,
    );
    plan.load = load;
    let running = tokio::spawn(async move { measure(&plan).await });
    for _ in 0..restarts {
        let wanted = server.counts.received() + more;
        while server.counts.received() < wanted && !running.is_finished() {
            tokio::task::yield_now().await;
        }
        let counts = server.stop().await;
        // The outage itself.
        tokio::time::sleep(Duration::from_millis(40)).await;
        server = RawServer::on(TcpListener::bind(address).await.unwrap(), counts, obliging);
    }
    let outcome = running.await.unwrap();
    (outcome, Arc::clone(&server.counts))
}

fn assert_reconciles(
    outcome: &Outcome,
    counts: &crate::raw::Counts,
    restarts: u64,
    connections: u64,
) {
    assert_adds_up(outcome);
    let (refused, reset) = (of(outcome, "refused"), of(outcome, "reset"));
    assert_eq!(
        outcome.error_count(),
        refused + reset,
        "{:?}",
        outcome.errors
    );
    assert_eq!(outcome.requests, outcome.answered + refused + reset);
    assert!(refused > 0, "nobody met the outage");
    // An answer that the client has was written, and what was written belongs to a request that was read.
    assert!(outcome.answered <= counts.answered() && counts.answered() <= counts.received());
    // What the server read and the client has no answer for was lost with its connection.
    let lost = counts.received() - outcome.answered;
    assert!(lost <= reset, "{lost} lost, {reset} reset");
    // With each restart a connection can lose the request on its way, and one more that the dying socket still took.
    assert!(reset <= 2 * restarts * connections, "{reset}");
}

#[tokio::test]
async fn counts_reconcile_across_restarts_of_the_server() {
    let duration = Duration::from_millis(900);
    let closed = Load::Closed {
        connections: 4,
        until: Until::Elapsed(duration),
        think: Think {
            min: Duration::from_millis(1),
            max: Duration::from_millis(3),
        },
    };
    let (outcome, counts) = across_restarts(closed, 3, 150).await;
    assert_reconciles(&outcome, &counts, 3, 4);
    let open = Load::Open {
        rate: Rate::constant(800.0),
        arrivals: Arrivals::Constant,
        duration,
        connections: 4,
    };
    let (outcome, counts) = across_restarts(open, 3, 100).await;
    assert_eq!(outcome.planned, Some(720));
    assert_reconciles(&outcome, &counts, 3, 4);
}

#[tokio::test]
async fn threads_requests_and_seconds_add_up() {
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let handler = async move |Path(name): Path<String>| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        match (name.as_str(), n % 5) {
            ("b", 0) => StatusCode::SERVICE_UNAVAILABLE,
            ("b", 1) => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        }
    };
    let server = Server::start(Router::new().route("/{name}", get(handler))).await;
    let requests = ["/a", "/b", "/c"].map(RequestSpec::get).to_vec();
    let mut plan = Plan::closed(server.base(), requests, 3_000, 10);
    plan.threads = 3;
    let outcome = measure(&plan).await;
    assert_eq!(outcome.requests, 3_000);
    assert_eq!(seen.load(Ordering::Relaxed), 3_000);
    assert_eq!(outcome.connections_opened, 10);
    assert_eq!(
        outcome
            .per_request
            .iter()
            .map(|r| r.requests)
            .collect::<Vec<_>>(),
        [1_000; 3]
    );
    assert!(of(&outcome, "status_503") > 0 && of(&outcome, "status_404") > 0);
    assert_adds_up(&outcome);

    seen.store(0, Ordering::Relaxed);
    plan.load = Load::Open {
        rate: Rate::constant(300.0),
        arrivals: Arrivals::Poisson,
        duration: Duration::from_millis(2_200),
        connections: 10,
    };
    let outcome = measure(&plan).await;
    assert_eq!(outcome.requests, seen.load(Ordering::Relaxed));
    assert!(outcome.series.len() >= 3, "{:?}", outcome.series);
    assert!(
        outcome.service_time.len() == outcome.requests
            && outcome.send_lateness.len() == outcome.requests
    );
    assert_adds_up(&outcome);
}

#[tokio::test]
async fn what_happens_in_the_warm_up_is_not_counted() {
    let seen = Arc::new((AtomicU64::new(0), AtomicU64::new(0), Instant::now()));
    let count = Arc::clone(&seen);
    // It begins badly, and is well long before the warm-up is over.
    let handler = async move || {
        count.0.fetch_add(1, Ordering::Relaxed);
        if count.2.elapsed() < Duration::from_millis(150) {
            count.1.fetch_add(1, Ordering::Relaxed);
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        }
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let mut plan = Plan::closed(server.base(), vec![RequestSpec::get("/")], 200, 4);
    plan.warm_up = Duration::from_millis(500);
    let outcome = measure(&plan).await;
    let all = seen.0.load(Ordering::Relaxed);
    assert!(seen.1.load(Ordering::Relaxed) > 0, "it was never bad");
    assert!(all > 200, "there was no warm-up");
    assert_eq!(
        (outcome.requests, outcome.answered, outcome.latency.len()),
        (200, 200, 200)
    );
    assert_eq!(outcome.errors, BTreeMap::new());
    assert!(
        outcome.elapsed < Duration::from_secs(5),
        "{:?}",
        outcome.elapsed
    );
    assert_adds_up(&outcome);

    plan.load = Load::Open {
        rate: Rate::constant(200.0),
        arrivals: Arrivals::Constant,
        duration: Duration::from_millis(300),
        connections: 4,
    };
    plan.warm_up = Duration::from_millis(250);
    let outcome = measure(&plan).await;
    assert_eq!((outcome.planned, outcome.requests), (Some(60), 60));
    // 50 in the warm-up, which come at the same pace.
    assert_eq!(seen.0.load(Ordering::Relaxed) - all, 110);
    assert_adds_up(&outcome);
}

#[tokio::test]
async fn users_think_between_an_answer_and_the_next_request() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&times);
    let handler = async move || note.lock().unwrap().push(Instant::now());
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(40));
    let mut plan = Plan::closed(server.base(), vec![RequestSpec::get("/")], 12, 1);
    plan.load = Load::Closed {
        connections: 1,
        until: Until::Requests(12),
        think: Think { min, max },
    };
    let outcome = measure(&plan).await;
    let times = times.lock().unwrap();
    // The answer leaves after the handler's note, so the gap is no shorter than the pause.
    assert!(times.windows(2).all(|w| w[1] - w[0] >= min), "{times:?}");
    assert!(outcome.elapsed >= min * 11, "{:?}", outcome.elapsed);
    assert!(
        outcome.latency.min() < 20_000,
        "the pause is no part of a latency"
    );
}

#[tokio::test]
async fn each_row_of_the_data_is_sent_in_turn() {
    let seen = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let note = Arc::clone(&seen);
    let handler =
        async move |Path(id): Path<String>, headers: axum::http::HeaderMap, body: String| {
            let user = headers["x-user"].to_str().unwrap().to_owned();
            *note
                .lock()
                .unwrap()
                .entry(format!("{id} {user} {body}"))
                .or_default() += 1;
        };
    let server = Server::start(Router::new().route("/{id}", axum::routing::post(handler))).await;
    let mut spec = RequestSpec::post("/${id}", serde_json::json!({"name": "${name}"}));
    spec.headers.0.insert("x-user".into(), "u-${name}".into());
    let mut plan = Plan::closed(server.base(), vec![spec], 90, 5);
    plan.data = Some(Arc::new(
        Rows::from_csv("id,name\n1,ann\n2,bob\n3,eve\n").unwrap(),
    ));
    plan.threads = 2;
    let outcome = measure(&plan).await;
    assert_eq!(
        (outcome.requests, outcome.errors.len()),
        (90, 0),
        "{:?}",
        outcome.error_samples
    );
    let expected = [("1", "ann"), ("2", "bob"), ("3", "eve")]
        .map(|(id, name)| (format!("{id} u-{name} {{\"name\":\"{name}\"}}"), 30));
    assert_eq!(*seen.lock().unwrap(), expected.into());
}

#[tokio::test]
async fn a_good_answer_that_comes_too_late_has_failed() {
    let count = AtomicU64::new(0);
    let count = Arc::new(count);
    let handler = async move || {
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let mut spec = RequestSpec::get("/");
    spec.expect_within_ms = Some(300.0);
    let outcome = measure(&Plan::closed(server.base(), vec![spec], 9, 3)).await;
    assert_eq!(
        (of(&outcome, "assertion"), outcome.answered),
        (3, 9),
        "{:?}",
        outcome.errors
    );
    assert!(
        outcome.error_samples[0].contains("limit 300 ms"),
        "{:?}",
        outcome.error_samples
    );

    // In an open loop it counts from when the request was due: each takes 40 ms, and the line grows.
    let handler = async || tokio::time::sleep(Duration::from_millis(40)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let mut spec = RequestSpec::get("/");
    spec.expect_within_ms = Some(300.0);
    let second = Duration::from_secs(1);
    let outcome = measure(&Plan::open(
        server.base(),
        vec![spec],
        Rate::constant(50.0),
        second / 2,
        1,
    ))
    .await;
    assert_eq!(outcome.answered, 25);
    // The k-th was due at 20 k ms and is answered at 40 (k + 1) ms or later: from the 13th on at least 300 ms after.
    assert!(
        (11..25).contains(&of(&outcome, "assertion")),
        "{:?}",
        outcome.errors
    );
    assert!(outcome.service_time.value_at_quantile(0.5) < 300_000);
}

#[tokio::test]
async fn what_never_found_a_connection_is_unsent_and_waited() {
    let handler = async || tokio::time::sleep(Duration::from_mins(1)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let length = Duration::from_millis(300);
    let mut plan = Plan::open(
        server.base(),
        vec![RequestSpec::get("/")],
        Rate::constant(100.0),
        length,
        2,
    );
    plan.limits.request = Duration::from_millis(200);
    let outcome = measure(&plan).await;
    assert_eq!(outcome.planned, Some(30));
    // Two at once for 200 ms each, begun until 500 ms after the start.
    assert!((2..=6).contains(&outcome.requests), "{}", outcome.requests);
    assert_eq!(of(&outcome, "timeout"), outcome.requests);
    assert_eq!(
        (outcome.aborted, outcome.unsent),
        (0, 30 - outcome.requests)
    );
    assert_eq!(
        outcome.latency.len(),
        30,
        "who was never sent has waited all the same"
    );
    assert_eq!(outcome.service_time.len(), outcome.requests);
    assert!(
        outcome.latency.min() >= 199_800,
        "{}",
        outcome.latency.min()
    );
    assert_adds_up(&outcome);
}

#[tokio::test]
async fn too_large_a_share_of_errors_ends_a_run() {
    let handler = async || StatusCode::INTERNAL_SERVER_ERROR;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let minute = Duration::from_mins(1);
    let mut plan = Plan::open(
        server.base(),
        vec![RequestSpec::get("/")],
        Rate::constant(200.0),
        minute,
        4,
    );
    plan.limits.stop_at_error_share = Some(0.5);
    let outcome = measure(&plan).await;
    assert_eq!(outcome.too_many_errors, Some(1.0));
    assert!(!outcome.cancelled && !outcome.gave_up);
    assert!(
        outcome.elapsed < Duration::from_secs(6),
        "{:?}",
        outcome.elapsed
    );
    assert_eq!(of(&outcome, "status_500"), outcome.requests);
}

#[tokio::test]
async fn a_hanging_server_ends_an_open_loop_too() {
    let handler = async || tokio::time::sleep(Duration::from_mins(1)).await;
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let minute = Duration::from_mins(1);
    let mut plan = Plan::open(
        server.base(),
        vec![RequestSpec::get("/")],
        Rate::constant(100.0),
        minute,
        5,
    );
    plan.limits.request = Duration::from_millis(100);
    plan.limits.give_up_after_timeouts = Some(10);
    let outcome = measure(&plan).await;
    assert!(outcome.gave_up);
    assert!(
        outcome.elapsed < Duration::from_secs(5),
        "{:?}",
        outcome.elapsed
    );
    assert!(
        (10..=20).contains(&outcome.requests),
        "{}",
        outcome.requests
    );
    assert_eq!(of(&outcome, "timeout"), outcome.requests);
    assert_adds_up(&outcome);
}

#[tokio::test]
async fn cancelling_an_open_loop_loses_no_request() {
    let server = RawServer::start(obliging).await;
    let minute = Duration::from_mins(1);
    let base = server.base();
    for seed in 0..5 {
        let rate = Rate::constant(2_000.0);
        let mut plan = Plan::open(base.clone(), vec![RequestSpec::get("/")], rate, minute, 8);
        plan.seed = seed;
        let (cancel, begun) = (Cancel::new(), Instant::now());
        let switch = cancel.clone();
        let before = server.counts.received();
        let running = tokio::spawn(async move { run(&plan, &cancel).await });
        while server.counts.received() < before + 200 {
            tokio::task::yield_now().await;
        }
        switch.cancel();
        let outcome = soon(running).await.unwrap().unwrap();
        let most = begun.elapsed().as_secs_f64() * 2_000.0;
        assert!(
            outcome.cancelled && outcome.errors.is_empty(),
            "{:?}",
            outcome.errors
        );
        let planned = outcome.planned.unwrap();
        assert!(
            planned >= 200 && planned as f64 <= most + 1.0,
            "{planned} of at most {most}"
        );
        // Each that reached the server was answered, or was under way.
        let received = server.counts.received() - before;
        assert!(
            (outcome.requests..=outcome.requests + outcome.aborted).contains(&received),
            "{received} received; {} ended, {} under way",
            outcome.requests,
            outcome.aborted
        );
        assert_adds_up(&outcome);
    }
}
