//! A fix that repairs what it is for and makes something else worse is undone, and the undo is verified (SAFETY 9).

use crate::support::{SHORT, Stage, free_port, rows};

/// Reads its settings at each request: in mode `broken` the API fails; in mode `slow` it works, and everything else is
/// slow; in mode `fragile` who asks the API keeps everybody else waiting.
const SERVER: &str = r#"
import http.server, json, sys, threading, time
one_at_a_time = threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode = json.load(open("settings.json"))["mode"]
        if mode == "slow" and self.path != "/api":
            time.sleep(0.5)
        if mode == "fragile":
            with one_at_a_time:
                time.sleep(0.4 if self.path == "/api" else 0)
        self.send_response(500 if mode == "broken" and self.path == "/api" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn stage(port: u16) -> Stage {
    let stage = Stage::new();
    stage.write("server.py", SERVER);
    stage.write("settings.json", "{\"mode\": \"broken\"}\n");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"
[target]
name = "site"
base_url = "http://127.0.0.1:{port}"
config_files = ["settings.json"]

[[target.services]]
name = "web"
command = ["python3", "server.py", "{port}"]
ready = {{ http = "/" }}

[target.endpoints]
health = "/"
api = ["/api"]

[[stress.tests]]
name = "Health Endpoint Load"
kind = "http-load"
concurrency = 4

[[stress.tests]]
name = "Memory Leak Detection"
kind = "memory"
requests = 20

[healing]
mode = "auto"
settle_ms = 0
max_attempts = 1

[escalation]
enabled = false
"#
        ),
    );
    stage
}

fn playbook(stage: &Stage, mode: &str) {
    stage.write(
        "playbooks/optimize_request_handling.yaml",
        &format!(
            "version: 1
name: optimize_request_handling
description: Switches the mode, which repairs the API.
for:
  anomalies: [error_rate_spike]
  tests: [Concurrent API Requests]
risk: low
tier: tier_1
rank: 1
steps:
  - id: switch
    do:
      set_config:
        file: settings.json
        set:
          mode: {mode}
"
        ),
    );
}

#[test]
fn a_fix_that_makes_something_else_worse_is_undone_and_the_undo_is_verified() {
    let stage = stage(free_port());
    playbook(&stage, "slow");
    let end = stage.run(&["run", "--once"]).expect(1);
    end.says("but worse than before the fix: GET http://127.0.0.1");
    assert!(
        stage.read("settings.json").contains("broken"),
        "it is as it was"
    );
    let verified = rows(&stage.ledger(), "action = 'verify_healing'").remove(0);
    assert_eq!(verified.result, "failed");
    assert_eq!(
        verified.payload["verification"]["passed"], true,
        "the test itself passes"
    );
    let undone = rows(&stage.ledger(), "action = 'roll_back'").remove(0);
    let guards = undone.payload["outcome"]["guards"].as_array().unwrap();
    assert_eq!(
        (guards.len(), &guards[0]["worse"]),
        (1, &false.into()),
        "{undone:?}"
    );
    let snapshot = rows(&stage.ledger(), "action = 'take_snapshot'").remove(0);
    let before = snapshot.payload["guards"].as_array().unwrap();
    assert!(before.len() >= 2, "an address and a service: {before:?}");
}

#[test]
fn a_fix_that_makes_nothing_worse_stays() {
    let stage = stage(free_port());
    playbook(&stage, "good");
    stage
        .start(&["run", "--once"])
        .finish(SHORT * 4)
        .expect(0)
        .says("[SUCCESS]");
    assert!(stage.read("settings.json").contains("good"));
    let verified = rows(&stage.ledger(), "action = 'verify_healing'").remove(0);
    for guard in verified.payload["verification"]["guards"]
        .as_array()
        .unwrap()
    {
        assert_eq!(guard["worse"], false, "{guard}");
    }
}

/// SAFETY 10: a re-test that hurts the service is stopped, and what it would have shown is not known.
#[test]
fn a_re_test_that_hurts_the_service_is_stopped() {
    let stage = stage(free_port());
    playbook(&stage, "fragile");
    let end = stage.run(&["run", "--once"]).expect(1);
    end.says("stopped: it hurt the service");
    let verified = rows(&stage.ledger(), "action = 'verify_healing'").remove(0);
    assert_eq!(verified.payload["verification"]["inconclusive"], true);
    assert!(stage.read("settings.json").contains("broken"), "taken back");
}
