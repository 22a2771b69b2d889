//! Bad input: one clear message, the documented exit code, nothing started, nothing lost.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::{
    Finished, HttpServer, LONG, Running, Stage, free_port, get, processes_of, rows, scalar,
};

/// A service whose start leaves a mark.
fn configuration(port: u16) -> String {
    format!(
        r#"[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[[target.services]]
name = "web"
command = ["sh", "-c", "touch started; exec python3 -m http.server {port} --bind 127.0.0.1"]
ready = {{ http = "/" }}
start_timeout_ms = 2000

[target.endpoints]
health = "/"

[watchdog]
interval_ms = 300
"#
    )
}

/// Ended with this code, said something on standard error only, in one message, and started nothing.
#[track_caller]
fn refused(stage: &Stage, end: Finished, code: i32, words: &[&str]) -> String {
    let end = end.expect(code);
    for word in words {
        assert!(end.stderr.contains(word), "no `{word}` in: {}", end.stderr);
    }
    let started = |line: &&str| line.starts_with("evenkeel: ");
    assert_eq!(
        end.stderr.lines().filter(started).count(),
        1,
        "{}",
        end.stderr
    );
    assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
    assert!(!stage.path().join("started").exists(), "it was started");
    assert!(processes_of(stage.path()).is_empty());
    end.stderr
}

#[test]
fn a_wrong_key_or_value_is_told_with_its_place() {
    let good = configuration(free_port());
    for (from, to, words) in [
        (
            "interval_ms = 300",
            "intervall_ms = 300",
            &[
                "evenkeel.toml:15:1",
                "intervall_ms",
                "did you mean `interval_ms`?",
            ][..],
        ),
        (
            "[watchdog]",
            "[watchdogg]",
            &["evenkeel.toml:14:2", "did you mean `watchdog`?"],
        ),
        (
            "interval_ms = 300",
            "interval_ms = 5",
            &["evenkeel.toml:15:1", "100", "3600000"],
        ),
        (
            "interval_ms = 300",
            "interval_ms = \"soon\"",
            &["evenkeel.toml:15:15", "invalid type"],
        ),
        ("name = \"site\"", "name = \"site", &["evenkeel.toml:2:"]),
        (
            "ready = { http = \"/\" }",
            "depends_on = [\"database\"]",
            &["evenkeel.toml:8:1", "database"],
        ),
    ] {
        let stage = Stage::new();
        stage.write("evenkeel.toml", &good.replacen(from, to, 1));
        for command in [&["run"][..], &["check"], &["stress"]] {
            refused(&stage, stage.run(command), 2, words);
        }
        assert!(!stage.data().exists(), "it made the data directory");
    }
}

#[test]
fn a_wrong_environment_value_names_key_and_value() {
    let stage = Stage::new();
    stage.write("evenkeel.toml", &configuration(free_port()));
    for (key, value) in [
        ("WATCHDOG_ERROR_RATE_THRESHOLD", "5%"),
        ("WATCHDOG_LATENCY_P95_MS", "fast"),
        ("MAX_HEALING_ATTEMPTS", "0"),
        ("ENABLE_AMP_ESCALATION", "maybe"),
    ] {
        let end = Running::spawn(stage.command(&["run"]).env(key, value)).finish(LONG);
        refused(&stage, end, 2, &[key, value]);
        stage.write(".env", &format!("{key}={value}\n"));
        refused(&stage, stage.run(&["run"]), 2, &[key, value, ".env"]);
        std::fs::remove_file(stage.path().join(".env")).unwrap();
    }
}

#[test]
fn no_configuration_and_wrong_arguments_are_usage_errors() {
    let stage = Stage::new();
    refused(
        &stage,
        stage.run(&["run"]),
        2,
        &["evenkeel.toml", "--config"],
    );
    for args in [
        &["rum"][..],
        &["demo", "--scenario", "memory"],
        &["report", "--since", "yesterday"],
    ] {
        let end = stage.run(args).expect(2);
        assert!(end.stderr.contains("--help") || end.stderr.contains(args[args.len() - 1]));
    }
    let help = stage.run(&["--help"]).expect(0);
    for code in 0..=5 {
        help.says(&format!("\n  {code}  "));
    }
    for command in ["status", "history", "baseline show", "ledger tail"] {
        let args: Vec<&str> = command.split(' ').collect();
        refused(&stage, stage.run(&args), 3, &["data"]);
    }
}

const PLAYBOOK: &str = "version: 1
name: mine
description: Restarts it.
for:
  anomalies: [target_down]
risk: low
tier: tier_1
steps:
  - id: again
    do: {restart: {services: affected}}
verify: {ready: {}}
";

#[test]
fn a_wrong_playbook_is_told_with_its_place() {
    for (from, to, words) in [
        ("graceful", "graceful", &[][..]),
        (
            "services: affected",
            "servces: affected",
            &["mine.yaml:10:", "services"][..],
        ),
        ("risk: low", "risk: tiny", &["mine.yaml:6:", "low"]),
        ("{restart:", "{restrat:", &["mine.yaml:10:", "restart"]),
        ("version: 1", "version: 99", &["mine.yaml:1:", "99"]),
    ] {
        let stage = Stage::new();
        stage.write("evenkeel.toml", &configuration(free_port()));
        stage.write("playbooks/mine.yaml", &PLAYBOOK.replacen(from, to, 1));
        let lint = stage.run(&["playbook", "lint", "playbooks/mine.yaml"]);
        if words.is_empty() {
            lint.expect(0).says("good");
            stage.run(&["check"]).expect(0);
            continue;
        }
        let lint = lint.expect(2);
        let said = format!("{}{}", lint.stdout, lint.stderr);
        assert!(
            words.iter().all(|w| said.contains(w)),
            "{words:?} in {said}"
        );
        for command in [&["check"][..], &["run"]] {
            refused(&stage, stage.run(command), 2, words);
        }
    }
}

/// A stranger on the port is neither taken for the service nor harmed.
#[test]
fn a_port_in_use_by_a_stranger_is_told() {
    let stage = Stage::new();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    stage.write("evenkeel.toml", &configuration(port));
    let end = stage.run(&["run"]).expect(3);
    assert!(end.stderr.contains(&port.to_string()), "{}", end.stderr);
    assert_eq!(
        end.stderr
            .lines()
            .filter(|l| l.starts_with("evenkeel: "))
            .count(),
        1
    );
    assert!(processes_of(stage.path()).is_empty());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// One that answers like the service is a stranger all the same.
#[test]
fn a_stranger_that_answers_is_still_a_stranger() {
    let stage = Stage::new();
    let stranger = HttpServer::start(|_| 200);
    stage.write("evenkeel.toml", &configuration(stranger.port));
    let end = stage.run(&["run", "--once"]).expect(3);
    assert!(
        end.stderr.contains(&stranger.port.to_string()),
        "{}",
        end.stderr
    );
    assert_eq!(get(stranger.port, "/"), Some(200));
}

#[test]
fn a_target_that_never_gets_ready_is_told() {
    let stage = Stage::new();
    let port = free_port();
    let text = configuration(port).replace(
        &format!("exec python3 -m http.server {port} --bind 127.0.0.1"),
        "exec sleep 60",
    );
    stage.write("evenkeel.toml", &text);
    let end = stage.run(&["run"]).expect(3);
    assert!(end.stderr.contains("web"), "{}", end.stderr);
    assert!(end.stderr.contains("ready"), "{}", end.stderr);

    // And one that ends at once.
    let stage = Stage::new();
    stage.write(
        "evenkeel.toml",
        &text.replace("exec sleep 60", "echo no such table >&2; exit 7"),
    );
    let end = stage.run(&["run"]).expect(3);
    assert!(
        end.stderr.contains("web") && end.stderr.contains('7'),
        "{}",
        end.stderr
    );
}

#[test]
fn a_data_directory_that_cannot_be_one_is_told() {
    let stage = Stage::new();
    stage.write("evenkeel.toml", &configuration(free_port()));
    stage.write("data", "a file");
    let said = refused(&stage, stage.run(&["run"]), 3, &["data", "--data-dir"]);
    assert!(said.contains("cannot be"), "{said}");
    assert_eq!(stage.read("data"), "a file");
}

/// A directory without leave to write. The superuser has it always, and then this says so.
#[test]
fn a_read_only_data_directory_is_told() {
    let stage = Stage::new();
    stage.write("evenkeel.toml", &configuration(free_port()));
    std::fs::create_dir(stage.data()).unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(stage.data(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o555);
    if std::fs::write(stage.data().join("probe"), "").is_ok() {
        eprintln!("skipped: nothing is read-only for the superuser");
        return;
    }
    refused(&stage, stage.run(&["run"]), 3, &["data", "--data-dir"]);
    mode(0o755);
}

/// A file system of its own, so small that Evenkeel does not begin, or that fills up while it heals.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|o| o.status.success());
        if !mounted {
            eprintln!("skipped: no leave to mount a small file system");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn a_disk_with_too_little_space_is_told_before_anything_starts() {
    let stage = Stage::new();
    stage.write("evenkeel.toml", &configuration(free_port()));
    let data = stage.data();
    let Some(_disk) = SmallDisk::mount(&data, 8) else {
        return;
    };
    refused(&stage, stage.run(&["run"]), 3, &["MB free", "--data-dir"]);
}

/// SAFETY 7: the disk fills up while a cycle is open. What cannot be recorded does not happen; the service lives on,
/// nothing that was written is lost, and with space again the cycle goes on.
#[test]
fn a_disk_that_fills_up_stops_the_healing_and_loses_nothing() {
    let stage = Stage::new();
    let page = stage.path().join("page.txt");
    let page_file = page.clone();
    let server = HttpServer::start(move |r| {
        let missing = r.head.starts_with("GET /page.txt ") && !page_file.exists();
        if missing { 404 } else { 200 }
    });
    stage.write(
        "evenkeel.toml",
        &format!(
            "[target]\nbase_url = \"http://127.0.0.1:{}\"\n[[stress.tests]]\nname = \"Page\"\nkind = \"http-load\"\n\
             endpoints = [\"/page.txt\"]\nrequests = 1\n[watchdog]\nenabled = false\n[healing]\nmode = \"auto\"\nsettle_ms = 0\n",
            server.port
        ),
    );
    let data = stage.data();
    let Some(_disk) = SmallDisk::mount(&data, 100) else {
        return;
    };
    // The playbook's first step fills the disk to the last byte; its second would write the page.
    let fill = stage.write(
        "fill.sh",
        &format!(
            "dd if=/dev/zero of={0}/fill bs=65536 2>/dev/null; dd if=/dev/zero of={0}/fill2 bs=512 2>/dev/null; true",
            data.display()
        ),
    );
    let playbook = format!(
        "version: 1\nname: fills\ndescription: Fills the disk.\nfor: {{tests: [Page]}}\nrisk: low\ntier: tier_1\n\
         steps:\n  - id: fill\n    do: {{run_command: {{argv: [sh, \"{}\"]}}}}\n    undo: none_needed\n    idempotent: true\n  \
         - id: page\n    do: {{run_command: {{argv: [touch, \"{}\"]}}}}\n    undo: none_needed\n    idempotent: true\n",
        fill.display(),
        page.display()
    );
    stage.write("playbooks/fills.yaml", &playbook);
    let elsewhere = stage.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut command = stage.command(&["run", "--once"]);
    let end = Running::spawn(command.env("TMPDIR", &elsewhere))
        .finish(LONG)
        .expect(3);
    assert!(end.stderr.contains("full"), "{}", end.stderr);
    assert!(!page.exists(), "it acted without a record");
    let written = rows(&stage.ledger(), "subsystem = 'orchestrator'");
    let last = written.last().unwrap();
    assert_eq!(
        (last.action.as_str(), last.text("step_id")),
        ("start_step", "fill")
    );
    // The alert gets out all the same, to where there is room (SAFETY 20).
    let alert = std::fs::read_dir(&elsewhere)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(alert.file_name().to_string_lossy().starts_with("ALERT_"));
    end.says("A person is needed");
    for name in ["fill", "fill2"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    stage.write("fill.sh", "true");
    stage.run(&["ledger", "verify"]).expect(0);
    stage.run(&["run", "--once"]).expect(0);
    assert!(page.exists());
    let closed = "SELECT COUNT(*) FROM immutable_log WHERE action = 'complete_healing_cycle' AND result = 'success'";
    assert_eq!(scalar(&stage.ledger(), closed), 1);
}

#[test]
fn a_ledger_that_was_edited_is_named_and_nothing_starts() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    stage.write(
        "evenkeel.toml",
        &format!(
            "[target]\nbase_url = \"http://127.0.0.1:{}\"\n[target.endpoints]\nhealth = \"/\"\n",
            server.port
        ),
    );
    stage.run(&["run", "--once"]).expect(0);
    stage.run(&["ledger", "verify"]).expect(0);
    let ledger = Connection::open(stage.ledger()).unwrap();
    // The triggers stop accidents.
    let refused_by_trigger = ledger.execute(
        "UPDATE immutable_log SET result = 'success' WHERE sequence = 2",
        [],
    );
    assert!(refused_by_trigger.is_err());
    // The proof catches who drops them.
    ledger
        .execute_batch(
            "CREATE TEMP TABLE t AS SELECT sql FROM sqlite_master WHERE name = 'immutable_log_no_update';
             DROP TRIGGER immutable_log_no_update;
             UPDATE immutable_log SET result = 'fine' WHERE sequence = 2;",
        )
        .unwrap();
    let sql: String = ledger
        .query_row("SELECT sql FROM t", [], |row| row.get(0))
        .unwrap();
    ledger.execute_batch(&sql).unwrap();
    drop(ledger);

    stage.write("evenkeel.toml", &configuration(free_port()));
    refused(
        &stage,
        stage.run(&["run"]),
        4,
        &["does not verify", "evenkeel.db"],
    );
    let verify = stage.run(&["ledger", "verify"]).expect(4);
    verify.says("DOES NOT VERIFY").says("first bad sequence: 2");
    let verify = stage.run(&["ledger", "verify", "--json"]).expect(4);
    let report: serde_json::Value = serde_json::from_str(verify.stdout.trim()).unwrap();
    assert_eq!(report["sound"], false);
}

#[test]
fn a_second_evenkeel_on_the_same_data_is_told_who_holds_it() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    stage.write(
        "evenkeel.toml",
        &format!(
            "[target]\nbase_url = \"http://127.0.0.1:{}\"\n[target.endpoints]\nhealth = \"/\"\n[watchdog]\ninterval_ms = 200\n",
            server.port
        ),
    );
    let mut first = stage.start(&["run"]);
    first.wait_for("Watchdog check: No anomalies", LONG);
    let end = stage.run(&["run"]).expect(3);
    let holder = format!("process {}", first.pid());
    assert!(end.stderr.contains(&holder), "{}", end.stderr);
    // The first one does not mind.
    stage.run(&["status"]).expect(0).says("ACTIVE");
    first.signal(rustix::process::Signal::TERM);
    first.finish(Duration::from_secs(10)).expect(0);
}
