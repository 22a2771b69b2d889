//! The scraper over real sockets: what it sends, what it reads, and what it says of targets that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use evenkeel_edge::collect::scraper::{CONCURRENT_MAX, Round, ScrapeTarget, Scraper};
use evenkeel_edge::collect::{Prober, ReadingKind};
use tokio::net::TcpListener;
use tokio::sync::Notify;

async fn serve(app: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async { axum::serve(listener, app).await });
    base
}

fn target(name: &str, url: String) -> ScrapeTarget {
    ScrapeTarget {
        every: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        service: Some(Arc::from("web")),
        ..ScrapeTarget::new(name, url)
    }
}

/// Rounds whose time is handed in: the n-th one is due for every target.
struct Rounds {
    scraper: Scraper,
    now: Instant,
}

impl Rounds {
    fn new(targets: Vec<ScrapeTarget>) -> Self {
        let now = Instant::now();
        Self {
            scraper: Scraper::new(targets, Prober::new(), now),
            now,
        }
    }

    async fn next(&mut self) -> Round {
        self.now += Duration::from_secs(10);
        self.scraper.round(self.now).await
    }
}

#[tokio::test]
async fn a_page_is_asked_for_with_a_token_and_read_by_its_content_type() {
    let count = Arc::new(AtomicUsize::new(0));
    let page = |State(count): State<Arc<AtomicUsize>>, headers: HeaderMap| async move {
        if headers
            .get("authorization")
            .is_none_or(|a| a != "Bearer secret")
        {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let accept = headers["accept"].to_str().unwrap_or_default();
        assert!(
            accept.starts_with("application/openmetrics-text"),
            "{accept}"
        );
        assert!(headers.get("accept-encoding").is_none());
        let n = count.fetch_add(1, Ordering::SeqCst);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let page = format!(
            "# TYPE c counter\nc_total {}\n# TYPE g gauge\ng{{b=\"2\",a=\"1\"}} 4 # {{}} 1\n# EOF\n",
            n * 100
        );
        ([("content-type", kind)], page).into_response()
    };
    let base = serve(
        axum::Router::new()
            .route("/m", get(page))
            .with_state(Arc::clone(&count)),
    )
    .await;
    let mut with = target("with", format!("{base}/m"));
    with.token = Some("secret".to_owned().into());
    let mut rounds = Rounds::new(vec![with, target("without", format!("{base}/m"))]);
    let first = rounds.next().await;
    assert_eq!(first.reports.len(), 2);
    let reading = &first.readings[0];
    assert_eq!(
        (&*reading.series, reading.value),
        ("with/g{a=\"1\",b=\"2\"}", 4.0)
    );
    assert_eq!(reading.service.as_deref(), Some("web"));
    let of = |round: &Round, name: &str| {
        let report = round.reports.iter().find(|r| &*r.target == name);
        report.expect("each target is reported").clone()
    };
    let missing = of(&first, "without").missing.unwrap();
    assert_eq!(
        (missing.reason.as_str(), missing.is_new),
        ("status 401", true)
    );
    let second = rounds.next().await;
    assert!(
        !of(&second, "without").missing.unwrap().is_new,
        "it is known by now"
    );
    assert_eq!(of(&second, "with").missing, None);
    assert_eq!(of(&second, "with").series, 2);
    let rate = second.readings.iter().find(|r| r.kind == ReadingKind::Rate);
    assert!(
        rate.is_some_and(|r| r.value > 5.0 && r.value <= 10.0),
        "{second:?}"
    );
}

/// SAFETY 11
#[tokio::test]
async fn failures_are_missing_and_never_a_zero() {
    let calls = Arc::new(AtomicUsize::new(0));
    let flips = |State(calls): State<Arc<AtomicUsize>>| async move {
        match calls.fetch_add(1, Ordering::SeqCst) {
            1 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            _ => "# TYPE g gauge\ng 1\n".into_response(),
        }
    };
    let app = axum::Router::new()
        .route("/flips", get(flips))
        .route("/hangs", get(std::future::pending::<()>))
        .route(
            "/zip",
            get(|| async { ([("content-encoding", "gzip")], "g 1\n") }),
        )
        .route("/html", get(|| async { "<html>\n<body>hello</body>\n" }))
        .with_state(calls);
    let base = serve(app).await;
    let unbound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", unbound.local_addr().unwrap());
    drop(unbound);
    let mut hangs = target("hangs", format!("{base}/hangs"));
    hangs.timeout = Duration::from_millis(50);
    let mut rounds = Rounds::new(vec![
        target("flips", format!("{base}/flips")),
        hangs,
        target("zip", format!("{base}/zip")),
        target("html", format!("{base}/html")),
        target("nobody", nobody),
    ]);
    let first = rounds.next().await;
    let reason = |name: &str| {
        let report = first.reports.iter().find(|r| &*r.target == name).unwrap();
        report.missing.as_ref().map(|m| m.reason.clone())
    };
    assert_eq!(reason("flips"), None);
    assert_eq!(reason("hangs").unwrap(), "no whole answer within 50 ms");
    assert!(reason("zip").unwrap().contains("compressed"));
    assert!(reason("nobody").is_some());
    assert_eq!(
        first.readings.len(),
        1,
        "only what was read: {:?}",
        first.readings
    );
    let html = first.reports.iter().find(|r| &*r.target == "html").unwrap();
    assert!(
        html.notes[0].contains("2 lines are not understood") && html.notes[0].contains("line 1: "),
        "{:?}",
        html.notes
    );
    for (is_missing, is_new) in [(true, true), (false, false)] {
        let round = rounds.next().await;
        let report = round
            .reports
            .iter()
            .find(|r| &*r.target == "flips")
            .unwrap();
        assert_eq!(report.missing.is_some(), is_missing);
        assert_eq!(report.missing.as_ref().is_some_and(|m| m.is_new), is_new);
        let html = round.reports.iter().find(|r| &*r.target == "html").unwrap();
        assert!(html.notes.is_empty(), "told once: {:?}", html.notes);
    }
}

#[tokio::test]
async fn too_many_series_are_told_once_with_what_to_do() {
    let lines: Vec<String> = (0..30).map(|i| format!("g{{i=\"{i}\"}} 1\n")).collect();
    let page = lines.concat();
    let base = serve(axum::Router::new().route("/m", get(|| async move { page }))).await;
    let mut big = target("big", format!("{base}/m"));
    big.series_max = 10;
    let mut rounds = Rounds::new(vec![big]);
    let first = rounds.next().await;
    assert_eq!(first.readings.len(), 10);
    assert_eq!(
        first.reports[0].notes,
        [
            "big has more series than the 10 that are kept of it: 20 are dropped. Leave out what nobody needs with \
          `include` or `exclude`, or raise its `series_max`"
        ]
    );
    let second = rounds.next().await;
    assert_eq!(
        (second.readings.len(), second.reports[0].notes.len()),
        (10, 0)
    );
}

/// Pages that answer only once as many are asked for as may be, and never more.
#[tokio::test]
async fn targets_are_read_side_by_side_but_not_all_at_once() {
    struct Gate {
        inside: AtomicUsize,
        most: AtomicUsize,
        full: Notify,
    }
    let gate = Arc::new(Gate {
        inside: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        full: Notify::new(),
    });
    let page = |State(gate): State<Arc<Gate>>| async move {
        let full = gate.full.notified();
        let inside = gate.inside.fetch_add(1, Ordering::SeqCst) + 1;
        gate.most.fetch_max(inside, Ordering::SeqCst);
        if inside == CONCURRENT_MAX {
            gate.full.notify_waiters();
        } else {
            full.await;
        }
        gate.inside.fetch_sub(1, Ordering::SeqCst);
        "g 1\n"
    };
    let base = serve(
        axum::Router::new()
            .route("/{n}", get(page))
            .with_state(Arc::clone(&gate)),
    )
    .await;
    let targets = (0..CONCURRENT_MAX * 3).map(|i| target(&format!("t{i}"), format!("{base}/{i}")));
    let mut rounds = Rounds::new(targets.collect());
    let round = rounds.next().await;
    assert_eq!(round.readings.len(), CONCURRENT_MAX * 3);
    assert_eq!(gate.most.load(Ordering::SeqCst), CONCURRENT_MAX);
}

#[tokio::test]
async fn each_target_has_its_own_pace() {
    let base = serve(axum::Router::new().route("/m", get(|| async { "g 1\n" }))).await;
    let of = |name, every_s| {
        let mut target = target(name, format!("{base}/m"));
        target.every = Duration::from_secs(every_s);
        target
    };
    let begun = Instant::now();
    let mut scraper = Scraper::new(vec![of("fast", 1), of("slow", 4)], Prober::new(), begun);
    assert_eq!(scraper.next_due(), Some(begun));
    let mut asked: Vec<String> = Vec::new();
    for second in 0..8 {
        let round = scraper.round(begun + Duration::from_secs(second)).await;
        asked.extend(
            round
                .reports
                .iter()
                .map(|r| format!("{second}{}", r.target)),
        );
    }
    asked.retain(|a| a.ends_with("slow"));
    assert_eq!(
        asked,
        ["2slow", "6slow"],
        "spread over the time between two"
    );
    // A long pause is not made up for.
    let round = scraper.round(begun + Duration::from_secs(100)).await;
    assert_eq!(round.reports.len(), 2);
    let round = scraper.round(begun + Duration::from_secs(100)).await;
    assert_eq!(round.reports.len(), 0);
    assert!(scraper.next_due() > Some(begun + Duration::from_secs(100)));
}
