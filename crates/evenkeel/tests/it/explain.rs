//! `explain` on a cycle that really healed, and dry runs that leave everything as it was.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::Digest as _;

use crate::crash::{Cure, sick_target};
use crate::support::{Stage, rows, scalar};

#[test]
fn the_whole_story_of_a_healed_cycle() {
    let stage = Stage::new();
    let _server = sick_target(&stage, Cure::Works);
    stage.run(&["explain", "last"]).expect(3);
    stage.run(&["run", "--once"]).expect(0);

    let told = stage.run(&["explain", "last"]).expect(0);
    for words in [
        "resolved after ",
        "Opening\n",
        "opened by the stress test after boot",
        "Attempt 1\n",
        "playbook write_page chosen as the first that applies",
        "->   step name: set name \"before\" -> \"after\" in settings.toml",
        "undo: put name (now before) back in ",
        "step name done in ",
        "verified by the test Page again: passed",
        "100% → 0%",
        "End\n",
        "ended: resolved",
    ] {
        told.says(words);
    }
    assert!(!told.stdout.contains('\x1b'), "colours are for terminals");

    // By its id, by a part of it, and as a document: the same entries, all of the cycle's.
    let id = rows(&stage.ledger(), "action = 'start_healing_cycle'")[0]
        .text("workflow_id")
        .to_owned();
    let by_id = stage.run(&["explain", &id]).expect(0);
    assert_eq!(by_id.stdout, told.stdout);
    let by_part = stage.run(&["explain", &id[..12]]).expect(0);
    assert_eq!(by_part.stdout, told.stdout);
    let wrong = stage.run(&["explain", "heal_nothing"]).expect(2);
    assert!(wrong.stderr.contains(&id), "{}", wrong.stderr);

    let document = stage.run(&["explain", "last", "--json"]).expect(0);
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["ended"], "resolved");
    assert_eq!(document["attempts"], 1);
    let timeline = document["timeline"].as_array().unwrap();
    let of_cycle: Vec<i64> = rows(&stage.ledger(), "subsystem = 'orchestrator'")
        .iter()
        .map(|r| r.sequence)
        .collect();
    let explained: Vec<i64> = timeline
        .iter()
        .filter(|m| m["event"] != "anomaly_detected")
        .map(|m| m["sequence"].as_i64().unwrap())
        .collect();
    assert_eq!(explained, of_cycle);
    // What is named can be proved.
    let last = of_cycle.last().unwrap().to_string();
    stage.run(&["ledger", "prove", &last]).expect(0);
    for moment in timeline {
        let sequence = moment["sequence"].as_i64().unwrap();
        let query = format!(
            "SELECT count(*) FROM immutable_log WHERE sequence = {sequence} AND entry_hash = '{}'",
            moment["entry_hash"].as_str().unwrap()
        );
        assert_eq!(scalar(&stage.ledger(), &query), 1, "{moment}");
    }
}

/// Every file below `dir`, with its hash and time of change.
fn files(dir: &Path) -> BTreeMap<String, (String, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            // Who reads a database in WAL mode takes a place in its shared index; nothing of the data lies there.
            if meta.is_dir() {
                left.push(path);
            } else if !path.to_string_lossy().ends_with("-shm") {
                let hash = hex::encode(sha2::Sha256::digest(std::fs::read(&path).unwrap()));
                found.insert(path.display().to_string(), (hash, meta.modified().unwrap()));
            }
        }
    }
    found
}

#[test]
fn a_dry_run_tells_the_exact_plan_and_changes_nothing() {
    let stage = Stage::new();
    let server = sick_target(&stage, Cure::Works);
    // Also where nothing has ever run: not even the data directory is made.
    let plan = stage
        .run(&["heal", "error_rate_spike", "--test", "Page", "--dry-run"])
        .expect(0);
    assert!(!stage.data().exists());
    for words in [
        "playbook    write_page",
        "tier        tier_1: acts by itself",
        "verified by the stress test Page",
        "2. name: set name \"before\" -> \"after\" in settings.toml",
        "undo: put name = before back in ",
        "3. page: run `touch page.txt`",
        "undo: run `rm -f page.txt`",
    ] {
        plan.says(words);
    }

    stage.run(&["run", "--once"]).expect(0);
    std::fs::remove_file(stage.path().join("page.txt")).unwrap();
    let asked = server.requests().len();
    let head = || scalar(&stage.ledger(), "SELECT max(sequence) FROM immutable_log");
    // The ledger is looked at first: whoever reads it leaves SQLite's side files.
    let head_before = head();
    let before = files(stage.path());
    for args in [
        &["heal", "error_rate_spike", "--test", "Page", "--dry-run"][..],
        &["playbook", "run", "write_page", "--dry-run"],
        &["playbook", "run", "write_page", "--dry-run", "--json"],
    ] {
        stage.run(args).expect(0);
    }
    assert_eq!(files(stage.path()), before);
    assert_eq!(head(), head_before);
    assert_eq!(server.requests().len(), asked, "the target was not asked");

    // What it told is what is done.
    let document = stage
        .run(&[
            "heal",
            "error_rate_spike",
            "--test",
            "Page",
            "--dry-run",
            "--json",
        ])
        .expect(0);
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    let done = stage
        .run(&["heal", "error_rate_spike", "--test", "Page"])
        .expect(0);
    done.says("Healthy: 1 anomaly healed and verified.");
    let cycle = rows(&stage.ledger(), "action = 'start_healing_cycle'").pop();
    assert_eq!(cycle.unwrap().text("trigger"), "operator");
    let steps = rows(
        &stage.ledger(),
        &format!("action = 'start_step' AND sequence > {head_before}"),
    );
    assert_eq!(steps.len(), 3);
    for (told, done) in document["steps"].as_array().unwrap().iter().zip(&steps) {
        assert_eq!(told["action"], done.payload["prepared"]["action"]);
        assert_eq!(told["undo_ops"], done.payload["prepared"]["undo"]);
    }

    // Mistakes are told before anything is started.
    let wrong = stage
        .run(&["heal", "eror_rate_spike", "--dry-run"])
        .expect(2);
    assert!(wrong.stderr.contains("did you mean `error_rate_spike`?"));
    let wrong = stage
        .run(&["heal", "error_rate_spike", "--test", "Pages"])
        .expect(2);
    assert!(wrong.stderr.contains("`Page`"), "{}", wrong.stderr);
}
