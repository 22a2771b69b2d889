//! A service that is nobody's demo: `python3 -m http.server`, guarded with a configuration of about ten lines.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{LONG, Running, SHORT, Stage, alive, free_port, get, rows, until};

/// The configuration that a user would write.
fn guard(stage: &Stage, port: u16) {
    stage.write("site/index.html", "hello");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", "site"]
ready = {{ http = "/" }}

[target.endpoints]
health = "/"

[healing]
mode = "auto"

[watchdog]
interval_ms = 300
probe_timeout_ms = 2000

# Python's server keeps five connections waiting and drops more: 50 at once are a real fault of it on a busy machine.
[[stress.tests]]
name = "Health Endpoint Load"
kind = "http-load"
concurrency = 4

[[stress.tests]]
name = "Memory Leak Detection"
kind = "memory"
concurrency = 4
"#
        ),
    );
}

fn pid_of_web(stage: &Stage) -> i32 {
    let record: Value = serde_json::from_str(&stage.read("data/run/services.json")).unwrap();
    let pid = record["services"]["web"]["process"]["pid"].as_i64();
    i32::try_from(pid.unwrap_or_else(|| panic!("{record}"))).unwrap()
}

fn watching(stage: &Stage, port: u16) -> Running {
    guard(stage, port);
    let mut evenkeel = stage.start(&["run"]);
    evenkeel.wait_for("Watchdog check: No anomalies", LONG);
    evenkeel
}

/// Ends Evenkeel as a service manager would.
#[track_caller]
fn terminate(evenkeel: Running) -> String {
    let begun = Instant::now();
    evenkeel.signal(Signal::TERM);
    let end = evenkeel.finish(SHORT).expect(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{end:?}");
    format!("{}{}", end.stdout, end.stderr)
}

/// SAFETY 10: a heal counts when the service was seen to answer again, here by another process on the same port.
#[test]
fn a_killed_and_a_stopped_server_are_noticed_and_replaced() {
    let stage = Stage::new();
    let port = free_port();
    let mut evenkeel = watching(&stage, port);
    for (n, strike, anomaly) in [
        (1, Signal::KILL, "target_down"),
        (2, Signal::STOP, "target_hung"),
    ] {
        let before = pid_of_web(&stage);
        assert!(alive(before));
        crate::support::signal(before, strike);
        evenkeel.wait_for(&format!("Anomaly detected: {anomaly}"), SHORT);
        until("the heal", LONG, || {
            (evenkeel.said().matches("[SUCCESS]").count() >= n).then_some(())
        });
        let after = pid_of_web(&stage);
        assert_ne!(before, after);
        assert!(!alive(before), "{before} was left behind");
        assert_eq!(get(port, "/"), Some(200));
    }
    terminate(evenkeel);
    let closed = rows(&stage.ledger(), "action = 'complete_healing_cycle'");
    let ended: Vec<(&str, &str)> = closed
        .iter()
        .map(|r| {
            (
                r.payload["anomaly"]["type"].as_str().unwrap(),
                r.result.as_str(),
            )
        })
        .collect();
    assert_eq!(
        ended,
        [("target_down", "success"), ("target_hung", "success")]
    );
}

/// A test whose subject is not configured is told as skipped, with the reason, and is not counted as passed.
#[test]
fn what_is_not_configured_is_skipped_and_not_passed() {
    let stage = Stage::new();
    let port = free_port();
    guard(&stage, port);
    let end = stage.run(&["run", "--once"]).expect(0);
    end.says("[SKIP]").says("skipped");
    for skipped in [
        "Database Connection Pool",
        "Multimodal Chat Stress",
        "Metrics Collection Load",
        "Governance Latency",
        "Self-Heal Trigger",
    ] {
        let line = end.stdout.lines().find(|l| l.contains(skipped)).unwrap();
        assert!(line.contains("[SKIP]"), "{line}");
    }
    let suite = rows(&stage.ledger(), "action = 'complete_stress_test'").remove(0);
    let (run, passed, skipped) = (
        suite.payload["tests_run"].as_u64().unwrap(),
        suite.payload["tests_passed"].as_u64().unwrap(),
        suite.payload["tests_skipped"].as_u64().unwrap(),
    );
    assert!(skipped >= 5 && passed <= run, "{run} {passed} {skipped}");
    assert_eq!(run + skipped, 8);
    for result in suite.payload["results"].as_array().unwrap() {
        let is_skipped = result["status"] == "skipped";
        assert!(
            !is_skipped || result["passed"] != true,
            "skipped and passed: {result}"
        );
        assert!(!is_skipped || !result["issue"].as_str().unwrap().is_empty());
    }
    // `run --once` ends and the service lives on.
    assert_eq!(get(port, "/"), Some(200));
}

/// SAFETY 22: when Evenkeel is told to end, or is killed, the guarded service lives on, and the next one takes the
/// same process up again.
#[test]
fn the_service_outlives_evenkeel_and_is_taken_up_again() {
    let stage = Stage::new();
    let port = free_port();
    let evenkeel = watching(&stage, port);
    let pid = pid_of_web(&stage);
    let said = terminate(evenkeel);
    assert!(alive(pid), "{said}");
    assert_eq!(get(port, "/"), Some(200));

    let mut evenkeel = stage.start(&["run"]);
    evenkeel.wait_for(&format!("web (running as {pid})"), LONG);
    evenkeel.wait_for("Watchdog check: No anomalies", LONG);
    let said = evenkeel.said();
    evenkeel.kill();
    assert!(alive(pid), "{said}");
    assert_eq!(get(port, "/"), Some(200));

    let evenkeel = stage.run(&["run", "--once"]).expect(0);
    evenkeel.says(&format!("web (running as {pid})"));
    assert_eq!(pid_of_web(&stage), pid);
}

/// `stress` alone tests what runs, starts nothing, and changes nothing.
#[test]
fn stress_alone_tests_and_starts_nothing() {
    let stage = Stage::new();
    let port = free_port();
    guard(&stage, port);
    let down = stage.run(&["stress", "--json"]).expect(1);
    assert_eq!(get(port, "/"), None, "it has started the service");
    let suite: Value = serde_json::from_str(down.stdout.trim()).unwrap();
    assert_eq!(suite["success"], false);

    stage.run(&["run", "--once"]).expect(0);
    let up = stage
        .run(&["stress", "--json", "--test", "Health Endpoint Load"])
        .expect(0);
    let suite: Value = serde_json::from_str(up.stdout.trim()).unwrap();
    assert_eq!(suite["tests_run"], 1);
    let result = &suite["results"][0];
    for key in [
        "test_name",
        "passed",
        "issue",
        "severity",
        "duration_ms",
        "expected_max_ms",
        "context",
    ] {
        assert!(result.get(key).is_some(), "no {key} in {result}");
    }
    assert_eq!(result["test_name"], "Health Endpoint Load");
    let unknown = stage.run(&["stress", "--test", "Helth"]).expect(2);
    assert!(unknown.stderr.contains("Helth"), "{}", unknown.stderr);
}
