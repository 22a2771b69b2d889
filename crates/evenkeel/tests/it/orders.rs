//! What people order, and what holds the healer back, with the real binary, a real service and real signals.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    LONG, Running, SHORT, Stage, alive, free_port, get, post, rows, scalar, signal, until,
};

/// A server that comes back when it is started again, under a configuration with `more`.
fn guard(stage: &Stage, port: u16, more: &str) {
    stage.write("site/index.html", "hello\n");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"
[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", "site"]
ready = {{ http = "/" }}
start_timeout_ms = 5000

[target.endpoints]
health = "/"

[stress]
enabled = false

[watchdog]
interval_ms = 200
probe_timeout_ms = 2000
{more}
"#
        ),
    );
}

const AUTO: &str = "[healing]\nmode = \"auto\"\nsettle_ms = 0\n";
const APPROVE: &str = "[healing]\nmode = \"approve\"\nsettle_ms = 0\n";

fn watching(stage: &Stage) -> Running {
    let mut evenkeel = stage.start(&["run"]);
    evenkeel.wait_for("Watchdog check: No anomalies", LONG);
    evenkeel
}

fn pid_of_web(stage: &Stage) -> i32 {
    let record: Value = serde_json::from_str(&stage.read("data/run/services.json")).unwrap();
    let pid = record["services"]["web"]["process"]["pid"].as_i64();
    i32::try_from(pid.unwrap_or_else(|| panic!("{record}"))).unwrap()
}

fn kill_web(stage: &Stage) -> i32 {
    let pid = pid_of_web(stage);
    signal(pid, Signal::KILL);
    until("the server to be gone", SHORT, || {
        (!alive(pid)).then_some(())
    });
    pid
}

fn end(evenkeel: Running) {
    evenkeel.signal(Signal::TERM);
    let _ = evenkeel.finish(SHORT);
}

fn back(port: u16) {
    until("the server to be back", LONG, || {
        (get(port, "/") == Some(200)).then_some(())
    });
}

fn steps_run(stage: &Stage) -> i64 {
    scalar(
        &stage.ledger(),
        "SELECT count(*) FROM immutable_log WHERE action = 'finish_step'",
    )
}

/// SAFETY 1: a new configuration says nothing of modes. What would be done is on record, a person is told once, and
/// nothing is done; when a person says so, what is still there is healed.
#[test]
fn a_new_configuration_changes_nothing_until_somebody_says_so() {
    let stage = Stage::new();
    let port = free_port();
    guard(&stage, port, "[healing]\nsettle_ms = 0\n");
    let mut evenkeel = watching(&stage);
    kill_web(&stage);
    evenkeel.wait_for(
        "Shadow mode: restart_down_service would have been run",
        LONG,
    );
    let closed = rows(&stage.ledger(), "action = 'complete_healing_cycle'").remove(0);
    assert_eq!(
        (closed.result.as_str(), closed.text("ended")),
        ("skipped", "shadow")
    );
    let intents = rows(&stage.ledger(), "action = 'start_step'");
    assert!(!intents.is_empty(), "the steps are worked out");
    assert_eq!(steps_run(&stage), 0);
    assert_eq!(get(port, "/"), None, "the server stays as it was");
    assert_eq!(rows(&stage.ledger(), "action = 'take_snapshot'").len(), 0);
    stage
        .run(&["mode", "auto"])
        .expect(0)
        .says("the mode of everything is auto");
    back(port);
    evenkeel.wait_for("[SUCCESS]", LONG);
    let status = stage.run(&["status"]).expect(0);
    status
        .says("Mode: auto (ordered by")
        .says("Limits left: heals_per_hour 9 of 10");
    end(evenkeel);
    // SAFETY 5: the order survives.
    let status: Value =
        serde_json::from_str(&stage.run(&["status", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(status["policy"]["mode"], "auto");
}

/// SAFETY 19, 5: asked, killed while it waits, approved after the start, once; who approved is on record.
#[test]
fn an_approval_survives_a_kill_and_works_once() {
    let stage = Stage::new();
    let port = free_port();
    guard(
        &stage,
        port,
        &format!("{APPROVE}[alerts]\ncommand = [\"sh\", \"-c\", \"cat >> told.txt\"]\n"),
    );
    let mut evenkeel = watching(&stage);
    kill_web(&stage);
    evenkeel.wait_for("waits for a person until", LONG);
    let listed: Value =
        serde_json::from_str(&stage.run(&["approvals", "--json"]).expect(0).stdout).unwrap();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    let told = stage.read("told.txt");
    assert!(
        told.contains("APPROVAL REQUESTED") && told.contains(&id),
        "{told}"
    );
    assert_eq!(listed[0]["playbook"], "restart_down_service");
    evenkeel.signal(Signal::KILL);
    let _ = evenkeel.finish(SHORT);
    assert_eq!(steps_run(&stage), 0);
    stage
        .run(&["approve", &id])
        .expect(3)
        .complains("Evenkeel does not run");

    let mut evenkeel = stage.start(&["run"]);
    evenkeel.wait_for(&format!("waits for the approval {id}"), LONG);
    // The start brought the server up, so there is nothing to heal any more: a late yes changes nothing (SAFETY 14).
    back(port);
    evenkeel.wait_for("Watchdog check: No anomalies", LONG);
    stage.run(&["approve", &id]).expect(0);
    evenkeel.wait_for("went away by itself", LONG);
    assert_eq!(steps_run(&stage), 0);
    stage
        .run(&["approve", &id])
        .expect(2)
        .complains("no approval");

    // The next one is needed.
    kill_web(&stage);
    let id = until("the next request", LONG, || {
        let rows: Value = serde_json::from_str(&stage.run(&["approvals", "--json"]).stdout).ok()?;
        rows[0]["id"].as_str().map(str::to_owned)
    });
    assert_eq!(get(port, "/"), None);
    stage
        .run(&["approvals"])
        .expect(0)
        .says(&id)
        .says("restart_down_service");
    stage.run(&["approve", &id]).expect(0).says("is approved");
    back(port);
    evenkeel.wait_for("[SUCCESS]", LONG);
    end(evenkeel);
    let approved = rows(&stage.ledger(), "action = 'approve'");
    assert_eq!(approved.len(), 2);
    assert!(approved[1].text("by").contains("uid"), "{:?}", approved[1]);
    assert_eq!(approved[1].text("binds").len(), 64);
}

/// SAFETY 16, 20: the file PAUSE works when nothing else does; what happens meanwhile is an alert, and is healed after it.
#[test]
fn the_kill_switch_is_a_file() {
    let stage = Stage::new();
    let port = free_port();
    guard(&stage, port, AUTO);
    let mut evenkeel = watching(&stage);
    stage.write("data/PAUSE", "");
    kill_web(&stage);
    evenkeel.wait_for("not now: paused: the file PAUSE", LONG);
    evenkeel.wait_for("nothing is done: paused", SHORT);
    let alerts = std::fs::read_dir(stage.data().join("logs"))
        .unwrap()
        .flatten();
    let alerts = alerts.filter(|e| {
        e.file_name()
            .to_string_lossy()
            .starts_with("ALERT_target_down")
    });
    assert_eq!(alerts.count(), 1, "once");
    assert_eq!((steps_run(&stage), get(port, "/")), (0, None));
    stage.run(&["status"]).expect(0).says("PAUSED by the file");
    std::fs::remove_file(stage.data().join("PAUSE")).unwrap();
    back(port);
    evenkeel.wait_for("[SUCCESS]", LONG);
    end(evenkeel);
}

/// SAFETY 16: an order counts within a second, also while the healer is at work, and what it stopped goes on after it.
#[test]
fn a_pause_counts_at_once_and_a_running_step_ends() {
    let stage = Stage::new();
    let port = free_port();
    guard(&stage, port, &format!("{AUTO}playbooks = \"playbooks\"\n"));
    stage.write(
        "playbooks/restart_down_service.yaml",
        r#"version: 1
name: restart_down_service
description: Waits long enough for a person to say stop, then starts what is down.
for:
  anomalies: [target_down]
risk: low
tier: tier_1
steps:
  - id: think
    do:
      run_command:
        argv: [sh, -c, "touch thinking; while [ ! -e done ]; do sleep 0.05; done"]
    undo: none_needed
    idempotent: true
  - id: start
    do:
      start:
        services: affected
"#,
    );
    let mut evenkeel = watching(&stage);
    kill_web(&stage);
    until("the first step", LONG, || {
        stage.path().join("thinking").exists().then_some(())
    });
    let begun = Instant::now();
    stage
        .run(&["pause", "--why", "wait"])
        .expect(0)
        .says("paused");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let entries = rows(&stage.ledger(), "action = 'order'");
    assert_eq!(entries.len(), 1, "it is durable while the step still runs");
    stage.write("done", "");
    evenkeel.wait_for("Hands off: paused: by", SHORT);
    assert_eq!((steps_run(&stage), get(port, "/")), (1, None));
    stage.run(&["resume"]).expect(0);
    back(port);
    evenkeel.wait_for("[SUCCESS]", LONG);
    end(evenkeel);
    let actions: Vec<String> = rows(&stage.ledger(), "subsystem = 'orchestrator'")
        .into_iter()
        .map(|r| r.action)
        .collect();
    let at = |action: &str| actions.iter().position(|a| a == action).unwrap();
    assert!(
        at("hold_cycle") < at("release_cycle") && at("release_cycle") < at("recheck"),
        "{actions:?}"
    );
}

/// SAFETY 3: a service that dies at once after every start is restarted so often, and then a person is called, once.
#[test]
fn what_cannot_be_healed_is_left_to_a_person_who_is_called_once() {
    let stage = Stage::new();
    let port = free_port();
    guard(
        &stage,
        port,
        "[healing]\nmode = \"auto\"\nsettle_ms = 0\nretry_wait_ms = 0\nmax_attempts = 2\n[limits]\nbreaker_cycles = 1\n",
    );
    let mut evenkeel = watching(&stage);
    // The page it serves is what it is ready by.
    std::fs::remove_file(stage.path().join("site/index.html")).unwrap();
    std::fs::remove_dir(stage.path().join("site")).unwrap();
    kill_web(&stage);
    evenkeel.wait_for("A person is needed:", LONG);
    until("the end of the cycle", SHORT, || {
        (!rows(&stage.ledger(), "action = 'complete_healing_cycle'").is_empty()).then_some(())
    });
    stage.run(&["status"]).expect(0).says("BREAKER OPEN");
    let before = steps_run(&stage);
    // More checks pass, and nothing more is done.
    let mut checks = std::collections::BTreeSet::new();
    until("more checks", LONG, || {
        let status: Value = serde_json::from_str(&stage.read("data/run/status.json")).ok()?;
        checks.insert(status["last_check"].to_string());
        (checks.len() >= 5).then_some(())
    });
    assert_eq!(steps_run(&stage), before);
    assert_eq!(rows(&stage.ledger(), "action = 'alert_human'").len(), 1);
    stage
        .run(&["breaker", "reset", "--why", "looked at it"])
        .expect(0);
    assert_eq!(steps_run(&stage), before);
    assert_eq!(rows(&stage.ledger(), "action = 'alert_human'").len(), 1);
    end(evenkeel);
}

/// Orders while nothing runs go into the ledger; nonsense is refused with a remedy.
#[test]
fn orders_are_taken_while_nothing_runs_and_nonsense_is_not() {
    let stage = Stage::new();
    guard(&stage, free_port(), AUTO);
    stage
        .run(&["pause", "--why", "night"])
        .expect(0)
        .says("does not run now");
    stage
        .run(&["silence", "latency_spike", "--for", "2h", "--why", "test"])
        .expect(0);
    stage
        .run(&["mode", "approve", "--playbook", "restart_down_service"])
        .expect(0);
    let status = stage.run(&["status"]).expect(0);
    status
        .says("PAUSED by")
        .says("night")
        .says("Silenced: latency_spike until")
        .says("restart_down_service: approve");
    stage
        .run(&["mode", "reckless"])
        .expect(2)
        .complains("shadow, approve or auto");
    stage
        .run(&["mode", "auto", "--playbook", "nope"])
        .expect(2)
        .complains("there is no playbook");
    stage
        .run(&["silence", "Not A Type", "--for", "1h", "--why", "x"])
        .expect(2);
    stage
        .run(&["silence", "latency_spike", "--for", "100d", "--why", "x"])
        .expect(2)
        .complains("90 days");
    stage
        .run(&["approve", "1234abcd"])
        .expect(2)
        .complains("evenkeel approvals");
    stage.run(&["approvals"]).expect(0).says("Nothing waits");
}

/// The same over HTTP: with the token, and only with it.
#[test]
fn orders_over_http_need_the_token() {
    let stage = Stage::new();
    let port = free_port();
    let api = free_port();
    guard(
        &stage,
        port,
        &format!("{AUTO}[api]\nlisten = \"127.0.0.1:{api}\"\n"),
    );
    let evenkeel = watching(&stage);
    let token = stage.read("data/run/api.token");
    let pause = r#"{"by": "ann", "ask": "order", "order": {"order": "pause", "why": "release"}}"#;
    let send = |token: Option<&str>, body: &str| post(api, "/v1/orders", token, body);
    assert_eq!(send(None, pause), Some(401));
    assert_eq!(send(Some("0000000000000000"), pause), Some(401));
    assert_eq!(get(api, "/v1/approvals"), Some(401));
    assert_eq!(send(Some(&token), "nonsense"), Some(400));
    assert_eq!(
        send(
            Some(&token),
            r#"{"ask": "approve", "id": "x", "binds": "y"}"#
        ),
        Some(409)
    );
    assert_eq!(rows(&stage.ledger(), "action = 'order'").len(), 0);
    assert_eq!(send(Some(&token), pause), Some(200));
    let order = rows(&stage.ledger(), "action = 'order'").remove(0);
    assert_eq!(order.text("by"), "ann (http from 127.0.0.1)");
    end(evenkeel);
    assert!(!stage.read("data/logs/backend.log").contains(&token));
}

/// SAFETY 12: while a dependency is down nothing of its users is touched, and a person is called.
#[test]
fn the_users_of_a_dependency_that_is_down_are_left_alone() {
    let stage = Stage::new();
    let port = free_port();
    let dependency = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dependency.local_addr().unwrap();
    guard(
        &stage,
        port,
        &format!("{AUTO}[[target.dependencies]]\nname = \"db\"\ntcp = \"{address}\"\n"),
    );
    let config = stage
        .read("evenkeel.toml")
        .replace("name = \"web\"\n", "name = \"web\"\nneeds = [\"db\"]\n");
    stage.write("evenkeel.toml", &config);
    let mut evenkeel = watching(&stage);
    drop(dependency);
    evenkeel.wait_for("db is a dependency outside the target", LONG);
    kill_web(&stage);
    evenkeel.wait_for("not now: explained by target_down/liveness/db", LONG);
    assert_eq!((steps_run(&stage), get(port, "/")), (0, None));
    // It comes back, and so do its users.
    let _dependency = std::net::TcpListener::bind(address).unwrap();
    back(port);
    end(evenkeel);
}
