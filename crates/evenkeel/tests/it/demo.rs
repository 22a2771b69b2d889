//! `evenkeel demo`: each scenario from the start of Grace to the verdict, with its cause really there and really gone.

use std::path::Path;
use std::time::Instant;

use crate::support::{Finished, LONG, Stage, machine_alone, machine_shared, processes_of, rows};

/// A demo that has ended, and the directory that it left.
pub(crate) struct Played {
    pub(crate) stage: Stage,
    pub(crate) end: Finished,
}

/// Plays a scenario to its end, which must come within a minute, with this exit code and nothing left running.
#[track_caller]
pub(crate) fn play(scenario: &str, code: i32) -> Played {
    let stage = Stage::new();
    let begun = Instant::now();
    let end = stage
        .start(&["demo", "--scenario", scenario])
        .finish(LONG)
        .expect(code);
    assert!(begun.elapsed() < LONG, "{scenario}");
    let left = processes_of(stage.path());
    assert!(left.is_empty(), "{scenario} left running: {left:?}");
    end.says("Boot pipeline completes (7/7 stages)")
        .says("Stress test starts (8 tests)")
        .says("Watchdog started")
        .says("Ledger verifies: ");
    for n in 1..=7 {
        end.says(&format!("[{n}/7] "));
    }
    for n in 1..=8 {
        end.says(&format!("[{n}/8] "));
    }
    Played { stage, end }
}

impl Played {
    /// Fails unless the steps `[1/6]` to `[6/6]` stand there in this order.
    #[track_caller]
    fn shows_six_steps(&self) -> &Self {
        let mut rest = self.end.stdout.as_str();
        for n in 1..=6 {
            let mark = format!("  [{n}/6] ");
            let at = rest
                .find(&mark)
                .unwrap_or_else(|| panic!("no `{mark}` in its place:\n{}", self.end.stdout));
            rest = &rest[at + mark.len()..];
        }
        self
    }

    fn settings(&self) -> String {
        self.stage.read("data/config/grace.toml")
    }

    /// The settings as they were before the first attempt, from its snapshot.
    fn settings_before(&self) -> String {
        let first = snapshots(&self.stage.data(), "pre_heal_").remove(0);
        std::fs::read_to_string(first.join("config/config/grace.toml")).unwrap()
    }

    /// What the steps of the last attempt said, from the closing entry.
    fn actions(&self) -> String {
        let ledger = self.stage.data().join("backend/grace.db");
        let closing = rows(&ledger, "action = 'complete_healing_cycle'").pop();
        closing.unwrap().payload["execution"]["actions"].to_string()
    }
}

/// Directories of snapshots of this kind, oldest first.
pub(crate) fn snapshots(data: &Path, kind: &str) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(data.join("storage/snapshots"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let name = p.file_name().unwrap().to_string_lossy();
            name.starts_with(kind) && p.join("metadata.json").exists()
        })
        .collect();
    found.sort();
    found
}

fn value(settings: &str, key: &str) -> String {
    let wanted = format!("{key} = ");
    settings
        .lines()
        .find_map(|l| l.strip_prefix(&wanted))
        .unwrap_or_else(|| panic!("no {key} in:\n{settings}"))
        .to_owned()
}

fn comments(settings: &str) -> Vec<&str> {
    settings.lines().filter(|l| l.starts_with('#')).collect()
}

/// The settings' keys were changed from and to these values, and every comment is where it was.
#[track_caller]
fn changed(played: &Played, changes: &[(&str, &str, &str)]) {
    let (before, after) = (played.settings_before(), played.settings());
    for (key, from, to) in changes {
        assert_eq!(value(&before, key), *from, "{key} before");
        assert_eq!(value(&after, key), *to, "{key} after");
    }
    assert!(comments(&after).len() > 20);
    assert_eq!(comments(&before), comments(&after));
    let differing = before
        .lines()
        .zip(after.lines())
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!(differing, changes.len(), "only these lines have changed");
}

#[test]
fn memory_leak_gets_a_bound_and_a_restart() {
    let _machine = machine_shared();
    let played = play("memory-leak", 0);
    played.shows_six_steps();
    assert_eq!(
        played.end.verdict(),
        "HEALED: memory-leak, re-tested and verified."
    );
    played
        .end
        .says("[8/8] Memory Leak Detection      [FAIL]")
        .says("Anomaly detected: memory_growth")
        .says("[2/6] Selecting playbook... [OK] restart_memory_heavy_services")
        .says("[4/6] Re-running memory leak test... [PASS]")
        .says("Memory growth: ")
        .says("Anomaly resolved")
        .says("Watchdog check: No anomalies");
    let after = played.settings();
    assert_eq!(value(&played.settings_before(), "max_entries"), "0");
    assert_ne!(value(&after, "max_entries"), "0");
    assert_eq!(comments(&played.settings_before()), comments(&after));
}

/// A program of nobody's service holds the database locked: it is found by its lock and stopped.
#[test]
fn error_spike_stops_the_process_that_holds_the_lock() {
    let _machine = machine_shared();
    let played = play("error-spike", 0);
    played.shows_six_steps();
    played
        .end
        .says("Anomaly detected: error_rate_spike")
        .says("[2/6] Selecting playbook... [OK] investigate_error_spike")
        .says("database_locked")
        .says("HEALED: error-spike");
    let holder = played
        .end
        .stdout
        .split("hold-lock: pid ")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .unwrap();
    assert!(
        played
            .actions()
            .contains(&format!("stopped process {holder} ")),
        "{}",
        played.actions()
    );
}

#[test]
fn db_pool_gets_more_connections() {
    let _machine = machine_shared();
    let played = play("db-pool", 0);
    played.shows_six_steps();
    played
        .end
        .says("[2/8] Database Connection Pool   [FAIL]")
        .says("increase_db_pool_size")
        .says("HEALED: db-pool");
    assert_eq!(value(&played.settings_before(), "pool_size"), "1");
    assert!(
        value(&played.settings(), "pool_size")
            .parse::<u32>()
            .unwrap()
            > 1
    );
}

#[test]
fn rate_limit_is_raised() {
    let _machine = machine_shared();
    let played = play("rate-limit", 0);
    played.shows_six_steps();
    played.end.says("HEALED: rate-limit");
    changed(
        &played,
        &[
            ("requests_per_second", "5.0", "500.0"),
            ("burst", "3", "200"),
        ],
    );
}

#[test]
fn latency_no_longer_waits_for_the_slow_upstream() {
    let _machine = machine_shared();
    let played = play("latency", 0);
    played.shows_six_steps();
    played.end.says("HEALED: latency");
    assert_eq!(
        value(&played.settings_before(), "upstream_timeout_ms"),
        "10000"
    );
    let after: u64 = value(&played.settings(), "upstream_timeout_ms")
        .parse()
        .unwrap();
    assert!(after < 2_500, "{after}");
}

/// A process that was killed, or stopped, is replaced by another one that answers.
#[test]
fn crash_and_hang_get_a_new_process() {
    let _machine = machine_shared();
    for (scenario, signal, anomaly) in [
        ("crash", "SIGKILL", "target_down"),
        ("hang", "SIGSTOP", "target_hung"),
    ] {
        let played = play(scenario, 0);
        played.shows_six_steps();
        played
            .end
            .says(&format!("Anomaly detected: {anomaly}"))
            .says(&format!("HEALED: {scenario}"));
        let struck = played
            .end
            .stdout
            .split(&format!("{signal} to Grace's api (process "))
            .nth(1)
            .and_then(|t| t.split(')').next())
            .unwrap_or_else(|| panic!("{}", played.end.stdout));
        let status = played.stage.read("data/run/status.json");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let now = status["services"]["api"].as_str().unwrap();
        assert!(
            now.starts_with("running as ") && now.ends_with(", ready"),
            "{now}"
        );
        assert!(!now.contains(struck), "{now}: still the process {struck}");
    }
}

/// CONTRACT section 9: three attempts of the mapped playbook fail, then the advisor's proposal heals.
#[test]
fn persistent_failure_is_healed_with_the_advisors_playbook() {
    let _machine = machine_shared();
    let played = play("persistent-failure", 0);
    for n in 1..=3 {
        played.end.says(&format!(
            "Healing attempt {n}: investigate_error_spike [FAIL]"
        ));
    }
    played
        .end
        .says("a scripted one answers")
        .says("Max attempts reached (3 failed) - ESCALATING")
        .says("[AMP ESCALATION]")
        .says("Suggested Playbook: scale_up_resources")
        .says("Guidance recorded in grace_training/amp_guidance/error_rate_spike_")
        .says("[SUCCESS] Issue resolved with AMP assistance");
    assert_eq!(
        played.end.verdict(),
        "HEALED: persistent-failure, with the advisor's playbook, re-tested and verified."
    );
    changed(&played, &[("workers", "1", "16"), ("queue", "0", "64")]);
    crate::spec_lines::find_what_they_name(&played, 0);
    crate::spec_lines::files_are_as_specified(&played);
    crate::spec_lines::commands_read_it(&played);
}

/// The advisor answers with something that is no playbook: nothing of it is done, and a person is called (SAFETY 18, 20).
///
/// SAFETY 18: an answer outside the registry never runs. SAFETY 20: the alert file is there.
#[test]
fn exhausted_ends_with_an_alert_and_exit_code_1() {
    let _machine = machine_shared();
    let played = play("exhausted", 1);
    played
        .end
        .says("Max attempts reached (3 failed) - ESCALATING")
        .says("NOT HEALED: ")
        .says("a person was alerted");
    // Nothing was changed for good: what the failed attempts did is taken back.
    assert_eq!(played.settings(), played.settings_before());
    crate::spec_lines::find_what_they_name(&played, 1);
    crate::spec_lines::alert_is_laid_out(&played);
}

/// SAFETY 2: without a fault nothing is done.
#[test]
fn healthy_is_left_alone() {
    let _machine = machine_alone();
    let played = play("healthy", 0);
    assert_eq!(
        played.end.verdict(),
        "HEALTHY: nothing was wrong, and nothing was touched."
    );
    played.end.says("Passed: 8/8; anomalies: 0");
    let ledger = played.stage.data().join("backend/grace.db");
    assert!(rows(&ledger, "subsystem = 'orchestrator'").is_empty());
    assert!(snapshots(&played.stage.data(), "pre_heal_").is_empty());
}
