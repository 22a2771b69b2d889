//! A playbook that changes the database under a fence and fails: the database comes back, because nobody can have written
//! since (SAFETY 8, 15). One that lets the service run in between loses nothing of the users' data.

use rusqlite::Connection;

use crate::support::{Stage, free_port, rows};

fn stage(steps: &str) -> Stage {
    let stage = Stage::new();
    let port = free_port();
    stage.write("site/index.html", "hello\n");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"
[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[target.database]
path = "app.db"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", "site"]
ready = {{ http = "/" }}

[target.endpoints]
health = "/"

[healing]
mode = "auto"
settle_ms = 0
"#
        ),
    );
    stage.write(
        "playbooks/clean_up.yaml",
        &format!(
            "version: 1\nname: clean_up\ndescription: Removes what is old, and then something goes wrong.\nrisk: high\n\
             tier: tier_2\nsteps:\n{steps}"
        ),
    );
    let db = Connection::open(stage.path().join("app.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1), (2), (3)",
    )
    .unwrap();
    stage
}

const STOP: &str = "  - id: stop\n    do: {stop: {services: all}}\n";
const DELETE: &str = "  - id: delete\n    do: {sql: {statement: DELETE FROM t WHERE v < 3}}\n    undo: none_needed\n    idempotent: true\n";
const START: &str = "  - id: start\n    do: {start: {services: all}}\n";
const FAIL: &str =
    "  - id: fail\n    do: {run_command: {argv: [\"false\"]}}\n    undo: none_needed\n";

fn left(stage: &Stage) -> i64 {
    let db = Connection::open(stage.path().join("app.db")).unwrap();
    db.query_row("SELECT count(*) FROM t", [], |r| r.get(0))
        .unwrap()
}

#[test]
fn a_change_of_the_database_under_a_fence_is_taken_back_whole() {
    let stage = stage(&format!("{STOP}{DELETE}{FAIL}{START}"));
    stage.run(&["playbook", "run", "clean_up"]).expect(1);
    assert_eq!(left(&stage), 3);
    let undone = rows(&stage.ledger(), "action = 'roll_back'").remove(0);
    let restored = undone.payload["outcome"]["restored"].to_string();
    assert!(
        restored.contains("the database as in pre_heal_"),
        "{restored}"
    );
    assert_eq!(undone.payload["outcome"]["ok"], true);
}

#[test]
fn once_the_service_has_run_again_its_data_is_not_overwritten() {
    let stage = stage(&format!("{STOP}{DELETE}{START}{FAIL}"));
    stage.run(&["playbook", "run", "clean_up"]).expect(1);
    assert_eq!(left(&stage), 1, "what was written since would be lost");
    let undone = rows(&stage.ledger(), "action = 'roll_back'").remove(0);
    assert!(
        !undone.payload["outcome"]["restored"]
            .to_string()
            .contains("database")
    );
}
