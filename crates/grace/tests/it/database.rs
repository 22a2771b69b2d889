//! A pool too small for the load, and a lock held by another process.

use std::time::Duration;

use crate::support::{ASK, Home, count};

#[test]
fn a_pool_too_small_times_out_and_a_larger_one_cures_it() {
    let home = Home::new(|s| {
        s.database.pool_size = 1;
        s.database.pool_timeout_ms = 50;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(20, "GET", &["/api/governance/policies"], "");
    let failed = count(&replies, 503, "pool_timeout");
    assert!(failed >= 5, "{failed} of 20");
    assert_eq!(failed + count(&replies, 200, ""), 20);
    assert!(grace.metric("grace_pool_timeouts_total") >= failed as u64);
    let logged = home.log("error", "pool_timeout");
    assert_eq!(logged.len(), failed);
    assert_eq!(logged[0]["level"], "ERROR");
    assert_eq!(logged[0]["subsystem"], "governance");
    drop(grace);

    // The same timeout: more connections are the cure.
    home.set(|s| {
        s.database.pool_size = 20;
        s.database.pool_timeout_ms = 50;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(20, "GET", &["/api/governance/policies"], "");
    assert_eq!(count(&replies, 200, ""), 20, "{replies:?}");
}

#[test]
fn a_lock_held_elsewhere_fails_writes_until_its_holder_is_gone() {
    let home = Home::new(|s| s.database.busy_timeout_ms = 50);
    let grace = home.start(&["api"]);
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 200);

    let mut holder = home.start(&["hold-lock", "--db", "backend/grace_data.db"]);
    assert!(
        holder.line.contains("holds the write lock"),
        "{}",
        holder.line
    );
    let chat = grace.post("/api/multimodal/chat", r#"{"message":"hello"}"#);
    assert_eq!(chat.outcome(), (503, "database_locked".into()));
    let summary = grace.get("/api/metrics/summary");
    assert_eq!(summary.outcome(), (503, "database_locked".into()));
    let decide = grace.post("/api/governance/decide", ASK);
    assert_eq!(decide.outcome(), (503, "database_locked".into()));
    assert!(
        decide.took >= Duration::from_millis(50),
        "waits for the busy timeout first"
    );
    assert_eq!(home.log("error", "database_locked").len(), 3);

    // What only reads goes on.
    assert_eq!(grace.get("/ready").status, 200);
    assert_eq!(grace.get("/api/governance/policies").status, 200);
    // A restart starts, and cures nothing.
    drop(grace);
    let grace = home.start(&["api"]);
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 503);

    holder.kill();
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 200);
}

#[cfg(unix)]
#[test]
fn the_lock_holder_is_bounded_and_ends_in_good_order() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let db = "backend/grace_data.db";
    let mut holder = home.start(&["hold-lock", "--db", db, "--for", "1", "--exclusive"]);
    assert!(holder.wait().success(), "its time is up");
    let mut holder = home.start(&["hold-lock", "--db", db]);
    holder.signal("TERM");
    assert!(holder.wait().success());
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 200);
    let output = home
        .command(&["hold-lock", "--db", db, "--for", "121"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = home
        .command(&["hold-lock", "--db", "no.db"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no.db"));
}
