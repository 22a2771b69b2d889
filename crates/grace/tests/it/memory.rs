//! The session cache: without a bound it leaks, with one it does not.

use crate::support::{Home, request};

/// Growth of resident memory in megabytes over 100 requests without a session, ten at a time.
fn growth_mb(max_entries: usize) -> f64 {
    let home = Home::new(|s| s.sessions.max_entries = max_entries);
    let grace = home.start(&["api"]);
    let before = grace.metric("process_resident_memory_bytes");
    for _ in 0..10 {
        for reply in grace.burst(
            10,
            "GET",
            &["/api/governance/policies", "/api/metrics/summary"],
            "",
        ) {
            assert_eq!(reply.status, 200);
        }
    }
    let after = grace.metric("process_resident_memory_bytes");
    (after as f64 - before as f64) / 1e6
}

#[test]
fn a_cache_without_a_bound_leaks_and_a_bound_cures_it() {
    if !cfg!(target_os = "linux") {
        println!("skipped: resident memory is read on Linux only");
        return;
    }
    let unbounded = growth_mb(0);
    assert!(unbounded > 50.0, "grew by {unbounded} MB");
    let bounded = growth_mb(grace::Settings::default().sessions.max_entries);
    assert!(bounded < 15.0, "grew by {bounded} MB");
    println!("unbounded {unbounded:.1} MB, bounded {bounded:.1} MB");
}

#[test]
fn a_request_that_names_its_session_opens_no_other() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let reply = grace.get("/api/governance/policies");
    let id = reply.header("x-session-id").unwrap().to_owned();
    for _ in 0..3 {
        let headers = [("x-session-id", &*id)];
        let again = request(grace.addr(), "GET", "/api/metrics/summary", &headers, "").unwrap();
        assert_eq!(again.header("x-session-id"), Some(&*id));
    }
    let chat = grace.post(
        "/api/multimodal/chat",
        &format!(r#"{{"message":"hi","session_id":"{id}"}}"#),
    );
    assert_eq!(chat.json()["session_id"], id);
    assert_eq!(grace.metric("grace_sessions"), 1);
    for path in ["/health", "/docs", "/ready"] {
        assert_eq!(grace.get(path).header("x-session-id"), None, "{path}");
    }
    assert_eq!(grace.metric("grace_sessions"), 1);
    let headers = [("x-session-id", "not plain!")];
    let bad = request(grace.addr(), "GET", "/api/metrics/summary", &headers, "").unwrap();
    assert_eq!(bad.outcome(), (400, "bad_request".into()));
}
