//! Start, children and end of the processes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Home, eventually, free_port, request};

#[test]
fn what_cannot_start_says_why_and_ends() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let home = Home::new(|s| s.server.port = port);
    let fails = |home: &Home, code: i32, words: &[&str]| {
        let output = home.command(&["api"]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{message}");
        for word in words {
            assert!(message.contains(word), "{message} lacks {word}");
        }
        assert!(output.stdout.is_empty());
    };
    fails(&home, 3, &["cannot listen", &port.to_string(), "another"]);

    std::fs::write(home.path("grace.toml"), "[chat]\nupstream_timeout = 3\n").unwrap();
    fails(
        &home,
        2,
        &["grace.toml", "`upstream_timeout`", "upstream_timeout_ms"],
    );
    std::fs::write(home.path("grace.toml"), "[database]\npool_size = 0\n").unwrap();
    fails(&home, 2, &["database.pool_size", "1 to 256"]);
    std::fs::remove_file(home.path("grace.toml")).unwrap();
    fails(&home, 2, &["grace.toml", "--settings"]);

    home.set(|s| s.database.path = "broken.db".into());
    std::fs::write(home.path("broken.db"), "this is no database".repeat(100)).unwrap();
    fails(&home, 3, &["broken.db", "not a database"]);
}

#[test]
fn it_is_ready_at_once() {
    let home = Home::new(|_| {});
    let first = home.start(&["api"]);
    println!("first start, with a new database: {:?}", first.ready_after);
    drop(first);
    let again = home.start(&["api"]);
    println!("start: {:?}", again.ready_after);
    // The reach is far below 200 ms; the bound leaves room for a busy machine.
    assert!(
        again.ready_after < Duration::from_secs(2),
        "{:?}",
        again.ready_after
    );
    assert_eq!(again.get("/health").status, 200);
}

#[test]
fn the_collector_writes_summaries_and_keeps_the_newest() {
    let port = free_port();
    let home = Home::new(|s| {
        s.metrics.interval_ms = 50;
        s.metrics.keep_rows = 10;
        s.metrics.collector_port = port;
    });
    let grace = home.start(&[]);
    let written = || {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let reply = request(addr, "GET", "/health", &[], "").ok()?;
        reply.json()["summaries_written"].as_u64()
    };
    eventually("more rows than are kept", || written().filter(|n| *n >= 12));
    let summary = grace.get("/api/metrics/summary").json();
    assert_eq!(summary["summaries"], 10);
    let latest = &summary["latest"];
    assert!(latest["requests_total"].as_i64().unwrap() > 0, "{latest}");
    assert!(latest["resident_bytes"].is_i64() || !cfg!(target_os = "linux"));
}

#[cfg(unix)]
#[test]
fn sigterm_ends_everything_in_good_order_and_in_time() {
    let port = free_port();
    let home = Home::new(|s| s.metrics.collector_port = port);
    let collector = SocketAddr::from(([127, 0, 0, 1], port));
    for name in ["TERM", "INT"] {
        let mut grace = home.start(&["all"]);
        eventually("the collector answers", || {
            request(collector, "GET", "/health", &[], "").ok()
        });
        // A stream that would never end by itself.
        let mut stream = TcpStream::connect(grace.addr()).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /api/events HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        eventually("it consumes", || {
            (grace.metric("grace_event_consumers") >= 1).then_some(())
        });
        let start = Instant::now();
        grace.signal(name);
        assert_eq!(grace.wait().code(), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        assert!(
            TcpStream::connect(collector).is_err(),
            "the collector has ended"
        );
    }
    assert_eq!(home.log("event_type", "service_stopped").len(), 2);
}

#[test]
fn the_collector_does_not_outlive_a_killed_parent() {
    let port = free_port();
    let home = Home::new(|s| s.metrics.collector_port = port);
    let collector = SocketAddr::from(([127, 0, 0, 1], port));
    let mut grace = home.start(&["all"]);
    eventually("the collector answers", || {
        request(collector, "GET", "/health", &[], "").ok()
    });
    grace.kill();
    eventually("it ends", || {
        TcpStream::connect(collector).is_err().then_some(())
    });
}

#[test]
fn printed_settings_are_settings() {
    let home = Home::new(|s| s.database.pool_size = 3);
    let output = home.command(&["print-settings"]).output().unwrap();
    assert!(output.status.success());
    std::fs::write(home.path("again.toml"), output.stdout).unwrap();
    let again = grace::Settings::load(&home.path("again.toml")).unwrap();
    assert_eq!(
        again,
        grace::Settings::load(&home.path("grace.toml")).unwrap()
    );
    assert_eq!(again.database.pool_size, 3);
}
