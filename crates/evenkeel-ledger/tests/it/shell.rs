//! The specification's own lines, run by the plain `sqlite3` shell.

use std::process::Command;

use evenkeel_ledger::NewEntry;

use crate::support::{Place, entry};

#[test]
fn the_specifications_statements_run_in_the_plain_shell() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("skipped: no sqlite3 shell on this machine");
        return;
    }
    let place = Place::new();
    let ledger = place.open();
    for n in 1..=12 {
        let result = if n == 12 { "failed" } else { "success" }.to_owned();
        let action = "complete_healing_cycle".to_owned();
        ledger
            .append_blocking(NewEntry {
                action,
                result,
                ..entry(n)
            })
            .unwrap();
    }
    // The writer stays open: people look at a running system.
    let shell = |sql: &str| {
        let output = Command::new("sqlite3")
            .arg(&place.path)
            .arg(sql)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let rows = shell(
        "SELECT sequence, actor, action, result, timestamp FROM immutable_log \
         WHERE action='complete_healing_cycle' ORDER BY sequence DESC LIMIT 10",
    );
    assert_eq!(rows.lines().count(), 10);
    assert_eq!(
        rows.lines().next(),
        Some("12|evenkeel|complete_healing_cycle|failed|2026-01-31T12:00:12.000Z")
    );
    let rows = shell(
        "SELECT * FROM immutable_log WHERE action='complete_healing_cycle' ORDER BY sequence DESC LIMIT 5",
    );
    assert_eq!(rows.lines().count(), 5);
    let count = shell(
        "SELECT COUNT(*) FROM immutable_log WHERE action='complete_healing_cycle' AND result='success'",
    );
    assert_eq!(count, "11\n");
    assert_eq!(shell("SELECT count(*) FROM playbook_runs"), "0\n");
    assert_eq!(shell("PRAGMA integrity_check"), "ok\n");
    // Appending goes on after a foreign connection looked.
    assert_eq!(ledger.append_blocking(entry(13)).unwrap().sequence, 13);
}
