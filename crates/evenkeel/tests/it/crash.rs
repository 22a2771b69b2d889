//! `kill -9` of Evenkeel at every entry of a healing cycle, and a new start: the cycle goes on by the rules, and ends.
//!
//! The target is a small server in this process with a page that is missing until the playbook writes it, so a whole
//! cycle takes half a second. The playbook's first step appends a line to a file and is not idempotent; each line bears
//! the number of its attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{HttpServer, LONG, Row, SHORT, Stage, rows, rows_of_cycles, scalar, until};

/// How the playbook fares.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cure {
    /// It writes the page.
    Works,
    /// It writes another one, and takes that back.
    Fails,
}

/// A target with a page that is not there, a test that asks for it, and a playbook.
pub(crate) fn sick_target(stage: &Stage, cure: Cure) -> HttpServer {
    let page = stage.path().join("page.txt");
    let server = HttpServer::start(move |request| {
        let missing = request.head.starts_with("GET /page.txt ") && !page.exists();
        if missing { 404 } else { 200 }
    });
    stage.write("settings.toml", "# kept\nname = \"before\"\n");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "site"
base_url = "http://127.0.0.1:{}"
config_files = ["settings.toml"]

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
    let page = if cure == Cure::Works {
        "page.txt"
    } else {
        "other.txt"
    };
    stage.write(
        "playbooks/write_page.yaml",
        &format!(
            r#"version: 1
name: write_page
description: Writes the missing page.
for:
  tests: ["Page"]
risk: low
tier: tier_1
steps:
  - id: note
    do: {{run_command: {{argv: [sh, -c, "echo $1 >> lines.txt; sleep 0.1", sh, "${{attempt}}"]}}}}
    undo: none_needed
  - id: name
    do: {{set_config: {{file: settings.toml, set: {{name: after}}}}}}
  - id: page
    do: {{run_command: {{argv: ["touch", "{page}"], undo_argv: ["rm", "-f", "{page}"]}}}}
    idempotent: true
"#
        ),
    );
    server
}

/// Starts `run --once` and kills it as soon as `entries` entries of cycles stand in the ledger and `extra` more has
/// passed; false when it ended before that.
fn kill_after(stage: &Stage, entries: usize, extra: Duration) -> bool {
    let ledger = stage.ledger();
    let mut evenkeel = stage.start(&["run", "--once"]);
    let reached = until(&format!("entry {entries} of the cycle"), LONG, || {
        if rows_of_cycles(&ledger).len() >= entries {
            return Some(true);
        }
        evenkeel.has_ended().then_some(false)
    });
    let begun = std::time::Instant::now();
    // Not to wait for something: to be at another moment of the same step.
    while begun.elapsed() < extra && !evenkeel.has_ended() {
        std::hint::spin_loop();
    }
    let killed = reached && !evenkeel.has_ended();
    evenkeel.kill();
    killed
}

/// What must be true of the ledger whatever happened.
fn judge(stage: &Stage, at: &str) -> Vec<Row> {
    let all = rows(&stage.ledger(), "subsystem = 'orchestrator'");
    let shown: Vec<String> = all
        .iter()
        .map(|r| format!("{} {} {}", r.sequence, r.action, r.result))
        .collect();
    let fail = |what: &str| panic!("{at}: {what}\n{}", shown.join("\n"));

    // One cycle, opened once, closed once, and nothing after that.
    let of = |action: &str| all.iter().filter(|r| r.action == action).count();
    if of("start_healing_cycle") != 1 || of("complete_healing_cycle") != 1 {
        fail("a cycle was not opened once and closed once");
    }
    if all.last().unwrap().action != "complete_healing_cycle" {
        fail("something follows the closing entry");
    }

    // SAFETY 7 and 8: a step ends only when its start was written before, and starts only when a snapshot of its own
    // attempt was.
    let mut snapshots = 0;
    let mut runs = 0;
    let mut open: Option<i64> = None;
    let mut starts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &all {
        match row.action.as_str() {
            "take_snapshot" if row.result == "success" => snapshots += 1,
            "select_playbook" => {
                runs += 1;
                if snapshots < runs {
                    fail("an attempt has no snapshot of its own");
                }
            }
            "start_step" => {
                if runs == 0 {
                    fail("a step before any snapshot");
                }
                open = row.payload["step"].as_i64();
                let key = (
                    row.text("run_id").to_owned(),
                    row.text("step_id").to_owned(),
                );
                *starts.entry(key).or_default() += 1;
            }
            "finish_step" if open.take() != row.payload["step"].as_i64() => {
                fail("a step ended that had not been started");
            }
            _ => {}
        }
    }
    // SAFETY 6: the step that is not idempotent starts at most once in an attempt.
    for ((run, step), times) in &starts {
        if step == "note" && *times > 1 {
            fail(&format!("{run}: `note` was started {times} times"));
        }
    }
    // And it ran no more often than it was announced: never twice with the number of one attempt.
    let lines = std::fs::read_to_string(stage.path().join("lines.txt")).unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    for line in lines.lines() {
        if !seen.insert(line) {
            fail(&format!("attempt {line} wrote twice: {lines:?}"));
        }
    }
    let announced = starts.keys().filter(|(_, step)| step == "note").count();
    if seen.len() > announced {
        fail("more was done than announced");
    }
    all
}

/// SAFETY 5 to 8, at every entry of a cycle that heals.
#[test]
fn killed_at_every_entry_a_cycle_that_heals_still_heals() {
    let whole = {
        let stage = Stage::new();
        let _server = sick_target(&stage, Cure::Works);
        stage.run(&["run", "--once"]).expect(0);
        judge(&stage, "undisturbed").len()
    };
    assert!(whole >= 12, "{whole} entries");
    let mut killed = 0;
    for entries in 1..whole {
        // Another moment after each entry, the same in every run of the tests.
        let extra = Duration::from_millis((entries as u64 * 37) % 60);
        let at = format!("killed {} ms after entry {entries}", extra.as_millis());
        let stage = Stage::new();
        let _server = sick_target(&stage, Cure::Works);
        killed += usize::from(kill_after(&stage, entries, extra));
        let end = stage.run(&["run", "--once"]);
        let all = judge(&stage, &at);
        assert_eq!(end.code(), Some(0), "{at}: {}\n{}", end.stdout, end.stderr);
        assert_eq!(all.last().unwrap().result, "success", "{at}");
        assert!(stage.path().join("page.txt").exists(), "{at}");
        assert_eq!(stage.read("settings.toml"), "# kept\nname = \"after\"\n");
        stage.run(&["ledger", "verify"]).expect(0);
    }
    assert!(killed + 3 >= whole, "only {killed} of {whole} were in time");
}

/// SAFETY 5: the failed attempts of an anomaly survive a crash in each of them; there are three in all, then a person
/// is alerted, once, and what the attempts changed is taken back.
#[test]
fn killed_again_and_again_the_attempts_are_counted_and_the_alert_comes_once() {
    let mut kills_in_all = 0;
    for step in [2, 3, 5] {
        let stage = Stage::new();
        let _server = sick_target(&stage, Cure::Fails);
        let at = format!("killed every {step} entries");
        let count = |condition: &str| {
            let query = format!("SELECT COUNT(*) FROM immutable_log WHERE {condition}");
            u64::try_from(scalar(&stage.ledger(), &query)).unwrap()
        };
        let mut counted = 0;
        let mut kills = 0;
        let mut end = None;
        // Each start gets a few entries further than the one before, until the cycle is closed.
        for start in 1..=40 {
            let before = rows_of_cycles(&stage.ledger()).len();
            // Shorter than the step that takes 100 ms, so that no kill leaps over an attempt.
            let extra = Duration::from_millis((start * 7) % 24);
            let killed = kill_after(&stage, before + step, extra);
            if !killed || count("action = 'complete_healing_cycle'") > 0 {
                break;
            }
            kills += 1;
            let status = stage.run(&["status", "--json"]).expect(0);
            let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
            let attempts = status["healing_attempts"]["error_rate_spike"]
                .as_u64()
                .unwrap_or(0);
            let written = count("action = 'complete_playbook_run' AND result = 'failed'");
            assert_eq!(attempts, written, "{at}: {status}");
            assert!(attempts >= counted, "{at}: an attempt was forgotten");
            counted = attempts;
        }
        // How many there are depends on how far the disk lets it come before it is seen.
        assert!(kills >= 2, "{at}: {kills} kills");
        kills_in_all += kills;
        if count("action = 'complete_healing_cycle'") == 0 {
            end = Some(stage.run(&["run", "--once"]).expect(1));
        }
        let all = judge(&stage, &at);
        assert_eq!(all.last().unwrap().result, "failed", "{at}");
        let failed = count("action = 'complete_playbook_run' AND result = 'failed'");
        assert_eq!(failed, 3, "{at}");
        let alerts = std::fs::read_dir(stage.data().join("logs"))
            .unwrap()
            .filter(|e| {
                let name = e.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("ALERT_")
            })
            .count();
        // A crash between the alert and its entry may alert again; it is never lost.
        assert!((1..=2).contains(&alerts), "{at}: {alerts} alerts");
        assert_eq!(stage.read("settings.toml"), "# kept\nname = \"before\"\n");
        assert!(!stage.path().join("other.txt").exists(), "{at}");
        if let Some(end) = end {
            end.says("Left unhealed");
        }
    }
    assert!(kills_in_all >= 9, "{kills_in_all} kills in all");
}

/// SAFETY 6: killed in the very middle of the step that is not idempotent, it is looked at first and not run again in
/// that attempt; a step that was under way is known by its number.
#[test]
fn a_step_of_unknown_outcome_is_probed_before_anything_else() {
    let stage = Stage::new();
    let _server = sick_target(&stage, Cure::Works);
    let ledger = stage.ledger();
    let mut evenkeel = stage.start(&["run", "--once"]);
    let lines = stage.path().join("lines.txt");
    until("the line of the step", SHORT, || {
        assert!(!evenkeel.has_ended(), "{}", evenkeel.said());
        lines.exists().then_some(())
    });
    evenkeel.kill();
    let before = rows_of_cycles(&ledger);
    assert_eq!(before.last().unwrap().action, "start_step");

    let end = stage.run(&["run", "--once"]).expect(0);
    end.says("Going on with heal_page_")
        .says("under way when Evenkeel was killed");
    let after = judge(&stage, "killed in the middle of a step");
    let actions: Vec<&str> = after[before.len()..]
        .iter()
        .map(|r| r.action.as_str())
        .collect();
    assert_eq!(
        &actions[..3],
        ["resume_cycle", "verify_healing", "roll_back"]
    );
    assert_eq!(stage.read("lines.txt"), "1\n2\n");
}
