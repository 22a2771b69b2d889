//! The specification's own `sqlite3` and `jq` lines on what a demo left, and the layouts of CONTRACT sections 4 and 5.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::Digest as _;

use crate::demo::{Played, snapshots};
use crate::support::{Finished, rows, scalar};

/// Runs a program of the host. None when it is not there, which is said aloud; where `CI` is set it has to be.
fn tool(dir: &Path, program: &str, args: &[&str], input: &str) -> Option<String> {
    let child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "CI must have {program}");
            // Not through the captured output: a test that skips something says so.
            let _ = writeln!(std::io::stderr(), "skipped: no {program}");
            return None;
        }
        Err(e) => panic!("{program}: {e}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn log_lines(played: &Played) -> Vec<Value> {
    let text = played.stage.read("data/logs/backend.log");
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in {l}")))
        .collect()
}

/// The specification's lines find what they name. `failed`: how many cycles ended failed (the other one healed).
pub(crate) fn find_what_they_name(played: &Played, failed: i64) {
    let data = played.stage.data();
    let ledger = data.join("backend/grace.db");
    let cycles = scalar(
        &ledger,
        "SELECT COUNT(*) FROM immutable_log WHERE action='complete_healing_cycle'",
    );
    let healed = scalar(
        &ledger,
        "SELECT COUNT(*) FROM immutable_log WHERE action='complete_healing_cycle' AND result='success'",
    );
    assert!(cycles >= 1);
    assert_eq!(healed, cycles - failed);

    for (query, lines, holds) in [
        (
            "SELECT * FROM immutable_log WHERE action='complete_healing_cycle' ORDER BY sequence DESC LIMIT 5",
            cycles,
            "|complete_healing_cycle|",
        ),
        (
            "SELECT COUNT(*) FROM immutable_log WHERE action='complete_healing_cycle' AND result='success'",
            1,
            "",
        ),
        (
            "SELECT sequence, actor, action, result, timestamp FROM immutable_log \
             WHERE action = 'complete_healing_cycle' ORDER BY sequence DESC LIMIT 10;",
            cycles,
            "|post_boot_orchestrator|complete_healing_cycle|",
        ),
    ] {
        if let Some(out) = tool(&data, "sqlite3", &["backend/grace.db", query], "") {
            assert_eq!(i64::try_from(out.lines().count()).unwrap(), lines, "{out}");
            assert!(out.lines().all(|l| l.contains(holds)), "{out}");
        }
    }

    let lines = log_lines(played);
    let log = played.stage.read("data/logs/backend.log");
    let is = |key: &'static str, value: &'static str| move |l: &Value| l[key] == value;
    let count = |f: &dyn Fn(&Value) -> bool| lines.iter().filter(|l| f(l)).count();
    let cycle = |l: &Value| l["action"] == "complete_healing_cycle";
    let ended = |result: &'static str| move |l: &Value| cycle(l) && is("result", result)(l);
    let cycles = usize::try_from(cycles).unwrap();
    let failed = usize::try_from(failed).unwrap();
    for (filter, found, at_least, at_most) in [
        (
            "select(.subsystem==\"stress_test\")",
            count(&is("subsystem", "stress_test")),
            9,
            usize::MAX,
        ),
        (
            "select(.subsystem==\"watchdog\")",
            count(&is("subsystem", "watchdog")),
            1,
            usize::MAX,
        ),
        (
            "select(.event_type==\"healing_cycle_complete\")",
            count(&is("event_type", "healing_cycle_complete")),
            cycles,
            cycles,
        ),
        (
            "select(.action==\"complete_healing_cycle\")",
            count(&cycle),
            cycles,
            cycles,
        ),
        (
            "select(.action==\"complete_healing_cycle\" and .result==\"success\")",
            count(&ended("success")),
            cycles - failed,
            cycles - failed,
        ),
        (
            "select(.action==\"complete_healing_cycle\" and .result==\"failed\")",
            count(&ended("failed")),
            failed,
            failed,
        ),
    ] {
        assert!((at_least..=at_most).contains(&found), "{filter}: {found}");
        if let Some(out) = tool(&data, "jq", &["-c", filter], &log) {
            assert_eq!(out.lines().count(), found, "{filter}");
        }
    }
}

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no `{key}` in {value:#}");
    }
}

#[track_caller]
fn is_utc(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert!(
        shape == "0000-00-00T00:00:00.000Z" || shape == "0000-00-00T00:00:00Z",
        "{text}"
    );
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// CONTRACT sections 4 and 5, on what the scenario `persistent-failure` left.
pub(crate) fn files_are_as_specified(played: &Played) {
    let data = played.stage.data();

    let baseline = json(&data.join("storage/baseline.json"));
    is_utc(&baseline["timestamp"]);
    has_keys(
        &baseline["metrics"],
        &["success_rate", "avg_latency_ms", "error_count"],
    );
    has_keys(
        &baseline["thresholds"],
        &[
            "error_rate",
            "latency_p95",
            "memory_growth_mb",
            "failure_rate",
        ],
    );
    has_keys(
        &baseline["test_results"],
        &["tests_run", "tests_passed", "anomalies"],
    );
    assert_eq!(baseline["test_results"]["tests_run"], 8);

    // One snapshot for each of the three attempts and one for the advisor's.
    let all = snapshots(&data, "pre_heal_");
    assert_eq!(all.len(), 4);
    let workflow = snapshots(&data, "workflow_");
    assert_eq!(workflow.len(), 1);
    assert!(
        scalar(
            &workflow[0].join("grace_data.db"),
            "SELECT COUNT(*) FROM sqlite_master"
        ) > 0
    );
    for dir in &all {
        let name = dir.file_name().unwrap().to_str().unwrap();
        let stamp = name.strip_prefix("pre_heal_error_rate_spike_").unwrap();
        assert!(stamp.len() >= 15 && stamp.as_bytes()[8] == b'_', "{name}");
        let metadata = json(&dir.join("metadata.json"));
        has_keys(
            &metadata,
            &["snapshot_id", "anomaly_id", "timestamp", "type"],
        );
        is_utc(&metadata["timestamp"]);
        assert_eq!(metadata["snapshot_id"], name);
        assert_eq!(metadata["type"], "error_rate_spike");
        for file in metadata["files"].as_array().unwrap() {
            let bytes = std::fs::read(dir.join(file["name"].as_str().unwrap())).unwrap();
            assert_eq!(file["size"], bytes.len());
            assert_eq!(file["sha256"], hex::encode(sha2::Sha256::digest(&bytes)));
        }
        let anomaly = json(&dir.join("anomaly.json"));
        has_keys(
            &anomaly,
            &["type", "severity", "current", "threshold", "details"],
        );
        // The ledger as evidence, and the application's own database.
        assert!(scalar(&dir.join("grace.db"), "SELECT COUNT(*) FROM immutable_log") > 0);
        assert!(
            scalar(
                &dir.join("grace_data.db"),
                "SELECT COUNT(*) FROM sqlite_master"
            ) > 0
        );
    }

    let guidance: Vec<_> = std::fs::read_dir(data.join("grace_training/amp_guidance"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(guidance.len(), 1);
    let guidance = json(&guidance[0]);
    has_keys(
        &guidance,
        &["anomaly", "amp_response", "outcome", "learned"],
    );
    has_keys(
        &guidance["amp_response"],
        &[
            "suggested_action",
            "confidence",
            "reasoning",
            "recommended_config",
        ],
    );
    assert_eq!(guidance["outcome"], "success");
    assert_eq!(guidance["learned"], true);

    for line in log_lines(played) {
        is_utc(&line["timestamp"]);
        has_keys(
            &line,
            &[
                "timestamp",
                "level",
                "logger",
                "subsystem",
                "event_type",
                "message",
            ],
        );
    }

    let ledger = data.join("backend/grace.db");
    let closing = rows(&ledger, "action = 'complete_healing_cycle'").remove(0);
    assert_eq!(closing.result, "success");
    has_keys(
        &closing.payload,
        &[
            "workflow_id",
            "anomaly",
            "playbook",
            "execution",
            "verification",
            "outcome",
            "snapshot",
            "escalation",
        ],
    );
    let verification = &closing.payload["verification"];
    has_keys(
        verification,
        &[
            "passed",
            "verification_method",
            "error_rate_after",
            "improvement",
        ],
    );
    let improvement = verification["improvement"].as_str().unwrap();
    assert!(improvement.contains("% → "), "{improvement}");
    assert!(!closing.payload["escalation"].is_null());
    assert_eq!(
        scalar(
            &ledger,
            "SELECT COUNT(*) FROM playbook_runs WHERE result = 'failed'"
        ),
        3
    );
    assert_eq!(
        scalar(
            &ledger,
            "SELECT COUNT(*) FROM playbook_runs WHERE result = 'success'"
        ),
        1
    );
    for row in rows(&ledger, "1") {
        is_utc(&Value::String(row.timestamp));
    }
    // Grace writes its own audited actions (CONTRACT section 3).
    assert!(
        rows(&ledger, "actor = 'grace'")
            .iter()
            .any(|r| r.subsystem == "governance")
    );
}

/// The alert, line by line as the specification has it.
pub(crate) fn alert_is_laid_out(played: &Played) {
    let logs = played.stage.data().join("logs");
    let alert = std::fs::read_dir(&logs)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_string_lossy().contains("ALERT_error_rate_spike_"))
        .unwrap();
    let name = alert.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        name.len(),
        "ALERT_error_rate_spike_20251109_190700.txt".len()
    );
    let text = std::fs::read_to_string(&alert).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let rule = "=".repeat(80);
    assert_eq!(
        &lines[..3],
        [
            rule.as_str(),
            "CRITICAL ALERT - HUMAN INTERVENTION REQUIRED",
            rule.as_str()
        ]
    );
    let starts = [
        "Timestamp: ",
        "Anomaly: error_rate_spike",
        "Severity: high",
        "Details: ",
        "Healing Attempts: 3",
        "AMP Escalation: Failed",
        "",
        "Self-healing exhausted. Manual intervention required.",
    ];
    for (line, start) in lines[3..].iter().zip(starts) {
        assert!(line.starts_with(start), "`{line}` for `{start}`");
    }
    is_utc(&Value::String(lines[3]["Timestamp: ".len()..].to_owned()));
    assert_eq!(lines.last(), Some(&rule.as_str()));
}

/// CONTRACT section 8 on a data directory from which Evenkeel is gone: text for people, JSON for programs.
pub(crate) fn commands_read_it(played: &Played) {
    let ask = |args: &[&str]| -> Finished { played.stage.run(args).expect(0) };
    let line = |args: &[&str]| -> Vec<Value> {
        ask(args)
            .stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{args:?}: {e} in {l}")))
            .collect()
    };
    ask(&["status"]).says("STOPPED");
    let status = line(&["status", "--json"]).remove(0);
    has_keys(&status, &["watchdog", "baseline", "healing_attempts"]);
    assert_eq!(status["watchdog"], "STOPPED");
    // A verified fix clears the count.
    assert_eq!(status["healing_attempts"], serde_json::json!({}));

    ask(&["history"]).says("scale_up_resources");
    assert_eq!(line(&["history", "--json", "--result", "success"]).len(), 1);
    assert!(line(&["history", "--json", "--result", "failed"]).is_empty());
    assert_eq!(line(&["escalations", "--json"]).len(), 1);
    ask(&["escalations"]).says("scale_up_resources");

    ask(&["report", "--since", "7d"]).says("week ");
    let report = line(&["report", "--since", "7d", "--json"]).remove(0);
    let periods = report["periods"].as_array().unwrap();
    assert!(
        periods.iter().all(|p| p["healed_with_advice"] == 1),
        "{report}"
    );

    let logs = line(&["logs", "--json", "--subsystem", "stress_test", "-n", "1000"]);
    assert!(logs.len() > 8 && logs.iter().all(|l| l["subsystem"] == "stress_test"));
    assert_eq!(line(&["snapshot", "list", "--json"]).len(), 5);
    assert_eq!(line(&["ledger", "tail", "--json", "-n", "7"]).len(), 7);
    assert_eq!(line(&["ledger", "verify", "--json"])[0]["sound"], true);
    ask(&["ledger", "verify"]).says("Ledger verifies");
    assert_eq!(
        line(&["baseline", "show", "--json"])[0]["test_results"]["tests_run"],
        8
    );
    for args in [
        &["status"][..],
        &["history"],
        &["report"],
        &["snapshot", "list"],
    ] {
        let text = ask(args).stdout;
        assert!(!text.contains('\u{1b}'), "escape codes in {args:?}");
    }
}
