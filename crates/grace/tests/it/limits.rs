//! The rate limit and the worker gate of the public read API.

use crate::support::{Home, count};

const PUBLIC: [&str; 2] = ["/docs", "/api/metrics/summary"];

#[test]
fn a_limit_too_low_turns_away_and_a_higher_one_cures_it() {
    let home = Home::new(|s| {
        s.limits.requests_per_second = 5.0;
        s.limits.burst = 3;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(20, "GET", &PUBLIC, "");
    let limited = count(&replies, 429, "rate_limit");
    assert!(limited >= 5, "{limited} of 20");
    let one = replies.iter().find(|r| r.status == 429).unwrap();
    assert_eq!(one.header("retry-after"), Some("1"));
    assert_eq!(grace.metric("grace_rate_limited_total"), limited as u64);
    let logged = home.log("error", "rate_limit");
    assert_eq!(logged.len(), limited);
    assert_eq!(
        (&logged[0]["level"], &logged[0]["status"]),
        (&"ERROR".into(), &429.into())
    );
    // Nothing else is limited.
    let others = grace.burst(20, "GET", &["/health", "/metrics", "/ready"], "");
    assert_eq!(count(&others, 200, ""), 20);
    drop(grace);

    home.set(|s| {
        s.limits.requests_per_second = 500.0;
        s.limits.burst = 200;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(20, "GET", &PUBLIC, "");
    assert_eq!(count(&replies, 200, ""), 20, "{replies:?}");
}

#[test]
fn too_few_workers_are_exhausted_and_more_cure_it() {
    let home = Home::new(|s| {
        s.server.workers = 1;
        s.server.queue = 1;
    });
    let grace = home.start(&["api"]);
    for paths in [&PUBLIC[..], &PUBLIC[..1], &PUBLIC[1..]] {
        let replies = grace.burst(20, "GET", paths, "");
        let exhausted = count(&replies, 503, "workers_exhausted");
        assert!(exhausted >= 3, "{exhausted} of 20 on {paths:?}");
        assert!(count(&replies, 200, "") >= 2);
    }
    drop(grace);

    home.set(|s| {
        s.server.workers = 16;
        s.server.queue = 64;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(20, "GET", &PUBLIC, "");
    assert_eq!(count(&replies, 200, ""), 20, "{replies:?}");
}
