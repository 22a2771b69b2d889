//! The ledger and those elsewhere: a real witness beside a real Evenkeel, and what happens when the two disagree.

use std::path::Path;

use serde_json::Value;

use crate::support::{HttpServer, Running, SHORT, Stage, free_port, get, rows, scalar, until};

/// A witness that runs until it is dropped.
struct Witness {
    running: Option<Running>,
    port: u16,
    key: String,
}

impl Witness {
    fn start(stage: &Stage) -> Self {
        let key = stage
            .run(&["witness", "key"])
            .expect(0)
            .stdout
            .trim()
            .to_owned();
        let port = free_port();
        let running = Some(Self::listen(stage, port));
        Self { running, port, key }
    }

    fn listen(stage: &Stage, port: u16) -> Running {
        let address = format!("127.0.0.1:{port}");
        let mut running = stage.start(&["witness", "--listen", &address]);
        until("the witness to answer", SHORT, || {
            assert!(!running.has_ended(), "{}", running.said());
            get(port, "/").filter(|status| *status == 200)
        });
        running
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    fn start_again(&mut self, stage: &Stage) {
        self.running = Some(Self::listen(stage, self.port));
    }
}

/// A target with a page that is missing until the playbook writes it, and a ledger with a witness and an anchor.
fn sick_target(stage: &Stage, witness: &Witness, unreachable: &str) -> HttpServer {
    let page = stage.path().join("page.txt");
    let server = HttpServer::start(move |request| {
        let missing = request.head.starts_with("GET /page.txt ") && !page.exists();
        if missing { 404 } else { 200 }
    });
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "site"
base_url = "http://127.0.0.1:{}"

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
max_attempts = 1
settle_ms = 50
retry_wait_ms = 20

[ledger.witness]
unreachable = "{unreachable}"
wait_ms = 1000
timeout_ms = 500

[[ledger.witness.servers]]
url = "http://127.0.0.1:{}"
key = "{}"

[[ledger.anchors]]
file = "anchor/checkpoints"
"#,
            server.port, witness.port, witness.key
        ),
    );
    stage.write("anchor/.keep", "");
    stage.write(
        "playbooks/write_page.yaml",
        r#"version: 1
name: write_page
description: Writes the missing page.
for:
  tests: ["Page"]
risk: low
tier: tier_1
steps:
  - id: page
    do: {run_command: {argv: ["touch", "page.txt"], undo_argv: ["rm", "-f", "page.txt"]}}
    idempotent: true
"#,
    );
    server
}

/// A first start makes the key; then the witness is told of it.
fn introduce(stage: &Stage) -> String {
    stage.write("page.txt", "");
    stage.run(&["run", "--once"]).expect(0);
    std::fs::remove_file(stage.path().join("page.txt")).unwrap();
    let shown = stage.run(&["ledger", "key", "show", "--json"]).expect(0);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let key = shown["key"].as_str().unwrap().to_owned();
    stage.run(&["witness", "add-log", &key]).expect(0);
    key
}

fn verified(stage: &Stage) -> Value {
    let verified = stage.run(&["ledger", "verify", "--json"]).expect(0);
    serde_json::from_str(&verified.stdout).unwrap()
}

fn alerts(data: &Path) -> Vec<String> {
    let files = std::fs::read_dir(data.join("logs")).unwrap();
    let names = files.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with("ALERT_")).collect()
}

/// SAFETY 21: what a cycle is about to change is cosigned before it is changed, and at the end everything is.
#[test]
fn a_heal_is_cosigned_before_it_changes_anything() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "alert");
    // Another anchor, which is gone, keeps nobody waiting.
    let config = stage.read("evenkeel.toml");
    let gone = "[[ledger.anchors]]\nfile = \"gone/checkpoints\"\n";
    stage.write("evenkeel.toml", &format!("{config}\n{gone}"));
    introduce(&stage);
    stage
        .run(&["run", "--once"])
        .expect(0)
        .says("healed and verified");

    let ledger = stage.ledger();
    let start = scalar(
        &ledger,
        "SELECT sequence FROM immutable_log WHERE action = 'start_step'",
    );
    let cosigned = scalar(
        &ledger,
        &format!("SELECT count(*) FROM ledger_cosignature WHERE tree_size = {start}"),
    );
    assert_eq!(
        cosigned, 1,
        "the intent of the step was cosigned as the newest entry"
    );
    let report = verified(&stage);
    let last = report["report"]["entries"].as_u64().unwrap();
    assert_eq!(
        report["report"]["anchored"][0]["tree_size"], last,
        "{report}"
    );
    assert_eq!(report["report"]["not_anchored"], Value::Null);
    stage
        .run(&["status"])
        .expect(0)
        .says(&format!("up to entry {last} at "));

    // The same from elsewhere: from the witness itself, and from the file on the other mount.
    let address = format!("http://127.0.0.1:{}", witness.port);
    for from in [address.as_str(), "anchor/checkpoints"] {
        stage
            .run(&["ledger", "verify", "--against", from])
            .expect(0);
        stage
            .run(&["ledger", "consistency", from])
            .expect(0)
            .says("Consistent: ");
    }
}

/// Before a step that changes something, without the witness: act and say so, or do not act.
#[test]
fn without_the_witness_it_does_as_configured() {
    for (unreachable, acts) in [("act", true), ("wait", false), ("alert", false)] {
        let stage = Stage::new();
        let mut witness = Witness::start(&stage);
        let _server = sick_target(&stage, &witness, unreachable);
        introduce(&stage);
        witness.stop();
        let end = stage.run(&["run", "--once"]).expect(i32::from(!acts));
        let gaps = rows(&stage.ledger(), "action = 'act_without_witness'");
        assert_eq!(gaps.len(), usize::from(acts), "{unreachable}");
        assert_eq!(
            stage.path().join("page.txt").exists(),
            acts,
            "{unreachable}"
        );
        end.says("does not take the ledger's checkpoint");
        if acts {
            let gap = gaps[0].text("gap").to_owned();
            assert!(
                gap.contains("are not cosigned by 1 of 1 witnesses"),
                "{gap}"
            );
            let start = &rows(&stage.ledger(), "action = 'start_step'")[0];
            let finish = &rows(&stage.ledger(), "action = 'finish_step'")[0];
            assert!(start.sequence < gaps[0].sequence && gaps[0].sequence < finish.sequence);
        } else {
            assert_eq!(alerts(&stage.data()).len(), 1, "{unreachable}");
        }
        // Once it is back, it gets everything.
        witness.start_again(&stage);
        stage.write("page.txt", "");
        stage.run(&["run", "--once"]);
        assert_eq!(
            verified(&stage)["report"]["not_anchored"],
            Value::Null,
            "{unreachable}"
        );
    }
}

/// Copies of the ledger as it was.
fn copy(stage: &Stage, to: &str) {
    for end in ["", "-wal", "-shm"] {
        let from = stage.data().join(format!("evenkeel.db{end}"));
        let to = stage.path().join(format!("{to}{end}"));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn put_back(stage: &Stage, from: &str) {
    for end in ["", "-wal", "-shm"] {
        let to = stage.data().join(format!("evenkeel.db{end}"));
        let _ = std::fs::remove_file(&to);
        let from = stage.path().join(format!("{from}{end}"));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// SAFETY 21: an old copy put back, or a ledger that is gone, contradicts the witness and the anchor: nothing is signed,
/// nothing is done, and a person is alerted.
#[test]
fn an_old_copy_put_back_is_not_worked_with() {
    for without in ["", "the witness"] {
        let stage = Stage::new();
        let mut witness = Witness::start(&stage);
        let _server = sick_target(&stage, &witness, "act");
        introduce(&stage);
        copy(&stage, "old");
        stage.run(&["run", "--once"]).expect(0);
        std::fs::remove_file(stage.path().join("page.txt")).unwrap();
        copy(&stage, "new");
        if !without.is_empty() {
            witness.stop();
        }
        for gone in [false, true] {
            put_back(&stage, if gone { "none" } else { "old" });
            let before = std::fs::read(stage.ledger()).ok();
            let end = stage.run(&["run", "--once"]).expect(4);
            assert!(
                end.stderr.contains("is behind what others have seen of it"),
                "{}",
                end.stderr
            );
            assert_eq!(
                std::fs::read(stage.ledger()).ok(),
                before,
                "nothing was written into it"
            );
            assert!(
                !stage.path().join("page.txt").exists(),
                "nothing was healed"
            );
        }
        let raised = alerts(&stage.data());
        assert_eq!(raised.len(), 2, "{raised:?}");
        assert!(
            raised
                .iter()
                .all(|a| a.starts_with("ALERT_ledger_behind_witness_"))
        );
        // The true one is worked with again.
        put_back(&stage, "new");
        stage.write("page.txt", "");
        stage.run(&["run", "--once"]).expect(0);
    }
}

/// SAFETY 21: a log that was rewritten under the same key while Evenkeel was down is another one than the witness saw.
#[test]
fn a_history_rewritten_with_the_log_s_own_key_is_not_worked_with() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    introduce(&stage);
    stage.run(&["run", "--once"]).expect(0);
    let entries = verified(&stage)["report"]["entries"].as_u64().unwrap();
    // The thief has the host, the key included, and writes a longer history that verifies by itself.
    put_back(&stage, "none");
    let key = std::fs::read_to_string(stage.data().join("keys/ledger.key")).unwrap();
    let options = evenkeel_ledger::Options {
        signer: Some(std::sync::Arc::new(key.trim().parse().unwrap())),
        ..evenkeel_ledger::Options::default()
    };
    let forged = evenkeel_ledger::Ledger::open_with(stage.ledger(), &options).unwrap();
    for n in 0..entries + 3 {
        let entry = evenkeel_ledger::NewEntry {
            timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
            actor: "innocent".to_owned(),
            action: "nothing".to_owned(),
            resource: n.to_string(),
            subsystem: String::new(),
            payload: "{}".to_owned(),
            result: "success".to_owned(),
        };
        forged.append_blocking(entry).unwrap();
    }
    forged.close().unwrap();
    stage.run(&["ledger", "verify"]).expect(0);

    let address = format!("http://127.0.0.1:{}", witness.port);
    stage
        .run(&["ledger", "verify", "--against", &address])
        .expect(4);
    stage.run(&["ledger", "consistency", &address]).expect(4);
    stage.run(&["run", "--once"]).expect(4);
    assert_eq!(alerts(&stage.data()).len(), 1);
}

/// A proof leaves the host as a file, and checks without the ledger.
#[test]
fn an_entry_is_proved_to_somebody_who_has_only_keys() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    let key = introduce(&stage);
    stage.run(&["run", "--once"]).expect(0);
    stage
        .run(&["ledger", "prove", "3", "--out", "three.tlog-proof"])
        .expect(0);
    let entry = stage
        .run(&["ledger", "tail", "-n", "1000", "--json"])
        .expect(0);
    let third: Value = serde_json::from_str(entry.stdout.lines().nth(2).unwrap()).unwrap();

    let check = [
        "ledger",
        "check-proof",
        "three.tlog-proof",
        "--json",
        "--key",
    ];
    let known = [&check[..], &[&key, "--witness-key", &witness.key]].concat();
    let proved = stage.run(&known).expect(0);
    let proved: Value = serde_json::from_str(&proved.stdout).unwrap();
    assert_eq!(proved["sequence"], 3);
    assert_eq!(proved["action"], third["action"]);
    assert_eq!(
        proved["witnesses"][0].as_str().unwrap(),
        witness.key.split('+').next().unwrap()
    );

    // Another key, another entry in it, a witness that has not seen it: no proof.
    let text = stage.read("three.tlog-proof");
    let other = "other+ee0ad4c1+AQHv+vuBxzfCxpAxaYEf3sZnX3AZZgdtSRzDrwSC6gBc";
    assert_ne!(stage.run(&[&check[..], &[other]].concat()).code(), Some(0));
    stage.write("three.tlog-proof", &text.replacen("index 2", "index 3", 1));
    stage.run(&known).expect(4);
    let extra = text.lines().nth(1).unwrap();
    stage.write(
        "three.tlog-proof",
        &text.replacen(extra, &extra.replace("AAAA", "AAAB"), 1),
    );
    stage.run(&known).expect(4);
}

/// The key is exchanged by both keys' word, also when Evenkeel is killed in between; the secret is nowhere else.
#[test]
fn a_key_is_exchanged_and_never_shown() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    introduce(&stage);
    let file = stage.data().join("keys/ledger.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let said = stage.run(&["ledger", "key", "rotate"]).expect(0);
    let new = std::fs::read_to_string(&file).unwrap();
    assert_ne!(old, new);
    assert!(!stage.data().join("keys/ledger.key.next").exists());
    // Killed after the ledger took the new key and before it was in its place.
    std::fs::rename(&file, stage.data().join("keys/ledger.key.next")).unwrap();
    std::fs::write(&file, &old).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    stage.write("page.txt", "");
    let untold = stage.run(&["run", "--once"]).expect(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), new);
    untold.says("does not trust the key that signed");
    // The witness is told, and takes it.
    let shown = stage.run(&["ledger", "key", "show", "--json"]).expect(0);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["keys"].as_array().unwrap().len(), 2);
    let key = shown["key"].as_str().unwrap();
    stage.run(&["witness", "add-log", key]).expect(0);
    stage.run(&["run", "--once"]).expect(0);
    assert_eq!(verified(&stage)["report"]["not_anchored"], Value::Null);
    stage
        .run(&[
            "ledger",
            "verify",
            "--key",
            shown["keys"][0]["key"].as_str().unwrap(),
        ])
        .expect(0);
    stage.run(&["ledger", "verify", "--key", key]).expect(4);

    // SAFETY 22
    for secret in [&old, &new] {
        // `PRIVATE+KEY+name+id+base64`, and base64 has a plus of its own.
        let secret = secret.trim().splitn(5, '+').nth(4).unwrap();
        assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret));
        let found = files_with(&stage.data(), secret);
        assert!(
            found.iter().all(|f| f.ends_with("keys/ledger.key")),
            "{found:?}"
        );
    }
}

fn files_with(dir: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

/// Old payloads go and leave their hashes; the healer's memory stays, and a running Evenkeel is not disturbed.
#[test]
fn payloads_are_dropped_on_record() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    introduce(&stage);
    stage.run(&["run", "--once"]).expect(0);
    let drop = [
        "ledger",
        "drop-payloads",
        "--older-than",
        "1d",
        "--why",
        "tests",
    ];
    stage.run(&drop).expect(0).says("Dropped 0 payloads");
    // Nothing is a day old: an entry of last year is.
    let key = std::fs::read_to_string(stage.data().join("keys/ledger.key")).unwrap();
    let options = evenkeel_ledger::Options {
        signer: Some(std::sync::Arc::new(key.trim().parse().unwrap())),
        ..evenkeel_ledger::Options::default()
    };
    let ledger = evenkeel_ledger::Ledger::open_with(stage.ledger(), &options).unwrap();
    for subsystem in ["chat", "orchestrator"] {
        let entry = evenkeel_ledger::NewEntry {
            timestamp: "2025-01-31T12:00:00.000Z".to_owned(),
            actor: "somebody".to_owned(),
            action: "said".to_owned(),
            resource: String::new(),
            subsystem: subsystem.to_owned(),
            payload: format!("\"{}\"", "x".repeat(1000)),
            result: String::new(),
        };
        ledger.append_blocking(entry).unwrap();
    }
    ledger.close().unwrap();
    stage
        .run(&drop)
        .expect(0)
        .says("Dropped 1 payloads, 1002 bytes");
    stage
        .run(&["ledger", "verify"])
        .expect(0)
        .says("1 payloads were dropped on record");
    stage.write("page.txt", "");
    stage.run(&["run", "--once"]).expect(0);
}

/// SAFETY 21: what was written without the key is signed by the next start with it, but not without a word.
#[test]
fn entries_written_without_the_key_are_pointed_at() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    introduce(&stage);
    let before = verified(&stage)["report"]["entries"].as_u64().unwrap();
    let ledger = evenkeel_ledger::Ledger::open(stage.ledger()).unwrap();
    let entry = evenkeel_ledger::NewEntry {
        timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
        actor: "thief".to_owned(),
        action: "forged".to_owned(),
        resource: String::new(),
        subsystem: String::new(),
        payload: "{}".to_owned(),
        result: String::new(),
    };
    ledger.append_blocking(entry).unwrap();
    ledger.close().unwrap();
    stage.write("page.txt", "");
    let told = format!(
        "{} to {} were written without the key",
        before + 1,
        before + 2
    );
    stage.run(&["run", "--once"]).expect(0).says(&told);
    let again = stage.run(&["run", "--once"]).expect(0);
    assert!(
        !again.stdout.contains("without the key"),
        "{}",
        again.stdout
    );
}

/// Somebody who trusts neither this program nor this machine verifies an export with Python's standard library alone.
#[test]
fn an_export_is_verified_without_our_code() {
    let stage = Stage::new();
    let witness = Witness::start(&stage);
    let _server = sick_target(&stage, &witness, "act");
    let key = introduce(&stage);
    stage.run(&["run", "--once"]).expect(0);
    stage
        .run(&["ledger", "export", "--jsonl", "log.jsonl"])
        .expect(0);
    stage
        .run(&["ledger", "export", "--tiles", "tiles"])
        .expect(0);
    assert_eq!(
        stage.read("tiles/checkpoint"),
        stage.run(&["ledger", "checkpoint"]).expect(0).stdout
    );
    stage
        .run(&["ledger", "export", "--tiles", "tiles"])
        .expect(3);

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_export.py");
    assert!(std::fs::read_to_string(script).unwrap().lines().count() <= 40);
    let python = |file: &str, keys: &[&str]| {
        let mut command = std::process::Command::new("python3");
        command
            .arg(script)
            .arg(file)
            .args(keys)
            .current_dir(stage.path());
        let output = command
            .output()
            .expect("python3 is there, as for the other tests");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let good = python("log.jsonl", &[&key, &witness.key]);
    assert!(good.0, "{}", good.1);
    // Each of these is another log.
    let text = stage.read("log.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let entry = lines.len() / 2;
    let edited = lines[entry].replacen("\"actor\":\"", "\"actor\":\"x", 1);
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let cut = lines.len() - 2;
    for (what, changed, says) in [
        (
            "edited",
            text.replacen(lines[entry], &edited, 1),
            format!("first bad entry: {entry}"),
        ),
        (
            "deleted",
            without(entry),
            format!("first bad entry: {entry}"),
        ),
        (
            "cut",
            without(cut),
            format!("these {} entries are not those", cut - 1),
        ),
    ] {
        stage.write("changed.jsonl", &changed);
        let (ok, said) = python("changed.jsonl", &[&key]);
        assert!(!ok && said.contains(&says), "{what}: {said}");
    }
    let (ok, said) = python(
        "log.jsonl",
        &["other+ee0ad4c1+AQHv+vuBxzfCxpAxaYEf3sZnX3AZZgdtSRzDrwSC6gBc"],
    );
    assert!(!ok && said.contains("not signed by other"), "{said}");
}
