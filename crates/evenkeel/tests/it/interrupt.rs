//! Ctrl-C and SIGTERM in the middle of a healing step.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{HttpServer, Running, SHORT, Stage, rows, until};

/// A target whose only playbook takes this long for its first step, and then heals.
fn slow_cure(stage: &Stage, seconds: &str) -> HttpServer {
    let page = stage.path().join("page.txt");
    let server = HttpServer::start(move |request| {
        let missing = request.head.starts_with("GET /page.txt ") && !page.exists();
        if missing { 404 } else { 200 }
    });
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "site"
base_url = "http://127.0.0.1:{}"

[[stress.tests]]
name = "Page"
kind = "http-load"
endpoints = ["/page.txt"]
requests = 2
concurrency = 1

[watchdog]
enabled = false

[healing]
mode = "auto"
settle_ms = 50
retry_wait_ms = 20
"#,
            server.port
        ),
    );
    stage.write(
        "playbooks/write_page.yaml",
        &format!(
            r#"version: 1
name: write_page
description: Writes the missing page, slowly.
for:
  tests: ["Page"]
risk: low
tier: tier_1
steps:
  - id: slow
    do: {{run_command: {{shell: "echo begun >> lines.txt; sleep {seconds}; echo ended >> lines.txt"}}}}
    undo: none_needed
    idempotent: true
    timeout_ms: 120000
  - id: page
    do: {{run_command: {{argv: ["touch", "page.txt"], undo_argv: ["rm", "-f", "page.txt"]}}}}
    idempotent: true
"#
        ),
    );
    server
}

fn in_the_step(stage: &Stage) -> Running {
    let mut evenkeel = stage.start(&["run", "--once"]);
    let lines = stage.path().join("lines.txt");
    until("the step to begin", SHORT, || {
        assert!(!evenkeel.has_ended(), "{}", evenkeel.said());
        lines.exists().then_some(())
    });
    evenkeel
}

fn actions(stage: &Stage) -> Vec<String> {
    rows(&stage.ledger(), "subsystem = 'orchestrator'")
        .into_iter()
        .map(|r| r.action)
        .collect()
}

/// A step that can end soon does; then the cycle is put aside, and the next start goes on with what is left.
#[test]
fn a_short_step_is_finished_and_the_next_start_goes_on() {
    let stage = Stage::new();
    let _server = slow_cure(&stage, "1");
    let evenkeel = in_the_step(&stage);
    let begun = Instant::now();
    evenkeel.signal(Signal::INT);
    let end = evenkeel.finish(SHORT);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(end.code().is_some(), "{end:?}");
    assert!(end.stderr.contains("finishing the step"), "{}", end.stderr);
    assert_eq!(stage.read("lines.txt"), "begun\nended\n");
    let written = actions(&stage);
    assert_eq!(
        &written[written.len() - 2..],
        ["finish_step", "park_cycle"],
        "{written:?}"
    );

    let end = stage.run(&["run", "--once"]).expect(0);
    end.says("which was put aside").says("[SUCCESS]");
    // The finished step was not run again.
    assert_eq!(stage.read("lines.txt"), "begun\nended\n");
    assert_eq!(actions(&stage).last().unwrap(), "complete_healing_cycle");
}

/// A step that takes long is left in the middle, written down, and looked at by the next start.
#[test]
fn a_long_step_is_parked_within_ten_seconds() {
    let stage = Stage::new();
    let _server = slow_cure(&stage, "60");
    let evenkeel = in_the_step(&stage);
    let begun = Instant::now();
    evenkeel.signal(Signal::TERM);
    let end = evenkeel.finish(SHORT);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!(end.code().is_some(), "{end:?}");
    assert_eq!(actions(&stage).last().unwrap(), "park_cycle");

    // Somebody writes the page: the next start looks first, and finds nothing left to do.
    stage.write("page.txt", "");
    let end = stage.run(&["run", "--once"]).expect(0);
    end.says("which was put aside");
    assert_eq!(actions(&stage).last().unwrap(), "complete_healing_cycle");
    assert_eq!(stage.read("lines.txt"), "begun\n", "the step ran again");
}

/// Who presses Ctrl-C twice means it; the next start recovers as after a crash.
#[test]
fn a_second_signal_ends_at_once() {
    let stage = Stage::new();
    let _server = slow_cure(&stage, "60");
    let mut evenkeel = in_the_step(&stage);
    evenkeel.signal(Signal::INT);
    until("the first signal to be heard", SHORT, || {
        evenkeel.said().contains("finishing the step").then_some(())
    });
    assert!(!evenkeel.has_ended());
    let begun = Instant::now();
    evenkeel.signal(Signal::INT);
    let end = evenkeel.finish(SHORT);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(end.code(), Some(130));

    stage.write("page.txt", "");
    stage.run(&["run", "--once"]).expect(0);
    assert_eq!(actions(&stage).last().unwrap(), "complete_healing_cycle");
}
