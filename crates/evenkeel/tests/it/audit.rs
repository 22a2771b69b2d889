//! The loopback endpoint through which the target writes its own audited actions into the ledger.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{HttpServer, LONG, Running, SHORT, Stage, free_port, get, post, rows};

struct Guarded {
    stage: Stage,
    port: u16,
    token: String,
    evenkeel: Running,
    _target: HttpServer,
}

/// Evenkeel watching a target that answers, with one stress test that fails: an error of Evenkeel's own records.
fn guarded() -> Guarded {
    let stage = Stage::new();
    let target = HttpServer::start(|r| {
        if r.head.contains("/page.txt ") {
            404
        } else {
            200
        }
    });
    let port = free_port();
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "shop"
base_url = "http://127.0.0.1:{}"
[target.endpoints]
health = "/"
[[stress.tests]]
name = "Page"
kind = "http-load"
endpoints = ["/page.txt"]
[watchdog]
interval_ms = 200
[healing]
mode = "auto"
enabled = false
[audit]
listen = "127.0.0.1:{port}"
"#,
            target.port
        ),
    );
    let mut evenkeel = stage.start(&["run"]);
    evenkeel.wait_for("Watchdog started", LONG);
    let token = stage.read("data/run/audit.token").trim().to_owned();
    Guarded {
        stage,
        port,
        token,
        evenkeel,
        _target: target,
    }
}

fn entry(actor: &str, result: &str) -> Value {
    json!({"actor": actor, "action": "place_order", "resource": "order/7", "subsystem": "orders",
           "payload": {"amount": 3}, "result": result})
}

#[test]
fn what_is_not_allowed_is_refused_and_leaves_nothing() {
    let g = guarded();
    let send = |token: Option<&str>, body: &str| post(g.port, "/v1/audit", token, body);
    let good = entry("shop", "success").to_string();
    let token = Some(g.token.as_str());

    assert_eq!(send(None, &good), Some(401));
    assert_eq!(send(Some("wrong"), &good), Some(401));
    assert_eq!(send(Some(&g.token[1..]), &good), Some(401));
    for own in [
        "post_boot_orchestrator",
        "anomaly_watchdog",
        "stress_tester",
        "evenkeel",
    ] {
        assert_eq!(
            send(token, &entry(own, "success").to_string()),
            Some(403),
            "{own}"
        );
    }
    for own in [
        "orchestrator",
        "watchdog",
        "stress_test",
        "boot",
        "escalation",
    ] {
        let mut body = entry("shop", "success");
        body["subsystem"] = json!(own);
        assert_eq!(send(token, &body.to_string()), Some(403), "{own}");
        // Nor as one of several.
        let several = json!([entry("shop", "success"), body]).to_string();
        assert_eq!(send(token, &several), Some(403), "{own}");
    }
    let mut huge = entry("shop", "success");
    huge["payload"] = json!("x".repeat(300 * 1024));
    assert_eq!(send(token, &huge.to_string()), Some(413));
    let many = json!(vec![entry("shop", "success"); 101]).to_string();
    assert_eq!(send(token, &many), Some(413));
    for bad in [
        "",
        "{",
        "[1]",
        r#"{"actor":"shop"}"#,
        r#"{"actor":"","action":""}"#,
    ] {
        assert_eq!(send(token, bad), Some(400), "{bad}");
    }
    let mut unknown = entry("shop", "success");
    unknown["sequence"] = json!(1);
    assert_eq!(send(token, &unknown.to_string()), Some(400));
    assert_eq!(get(g.port, "/v1/audit"), Some(405));

    let by_others = "actor NOT IN ('post_boot_orchestrator', 'anomaly_watchdog', 'stress_tester', 'evenkeel', 'ledger')";
    assert!(rows(&g.stage.ledger(), by_others).is_empty());
    assert_eq!(send(token, &good), Some(201));
    assert_eq!(rows(&g.stage.ledger(), by_others).len(), 1);
    g.stage.run(&["ledger", "verify"]).expect(0);
}

/// Its errors are the target's error rate, three of ten; the records of Evenkeel's own failed test are not in it.
#[test]
fn entries_are_the_targets_error_rate_and_nothing_else_is() {
    let mut g = guarded();
    let mut entries = vec![entry("shop", "success"); 35];
    entries.extend(vec![entry("shop", "error"); 15]);
    let sent = post(
        g.port,
        "/v1/audit",
        Some(&g.token),
        &json!(entries).to_string(),
    );
    assert_eq!(sent, Some(201));
    let written = rows(&g.stage.ledger(), "actor = 'shop'");
    assert_eq!(written.len(), 50);
    assert!(
        written
            .iter()
            .all(|r| r.subsystem == "orders" && r.payload["amount"] == 3)
    );
    let own = rows(
        &g.stage.ledger(),
        "subsystem = 'stress_test' AND result = 'failed'",
    );
    assert_eq!(own.len(), 1, "an own failure is there to be mistaken");

    g.evenkeel
        .wait_for("Anomaly detected: error_rate_spike (", SHORT);
    // Entries count as they are committed; when all of them are, it is three of ten, exactly.
    let begun = Instant::now();
    loop {
        let status = g.stage.read("data/run/status.json");
        let rate = serde_json::from_str::<Value>(&status)
            .ok()
            .and_then(|s| s["measures"]["error_rate"].as_f64());
        if rate.is_some_and(|r| (r - 0.3).abs() < 1e-9) {
            break;
        }
        assert!(begun.elapsed() < SHORT, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The token is for its owner alone, and is never written anywhere else.
#[test]
fn the_token_is_kept_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let g = guarded();
    let file = g.stage.data().join("run/audit.token");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(g.token.len() >= 32);
    assert!(!g.evenkeel.said().contains(&g.token));
    assert!(!g.stage.read("data/logs/backend.log").contains(&g.token));
}
