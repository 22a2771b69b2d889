//! What programs and terminals get: one JSON object a line, no escape codes in a pipe, `NO_COLOR` honoured.

use std::process::Command;

use serde_json::Value;

use crate::support::{Finished, HttpServer, LONG, Running, Stage, machine_shared};

/// Every line is one JSON object.
#[track_caller]
fn objects(end: &Finished) -> Vec<Value> {
    assert!(!end.stdout.contains('\u{1b}'));
    let lines: Vec<Value> = end
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in `{l}`")))
        .collect();
    assert!(!lines.is_empty() && lines.iter().all(Value::is_object));
    lines
}

fn site(answer: u16) -> (Stage, HttpServer) {
    let stage = Stage::new();
    let server = HttpServer::start(move |_| answer);
    stage.write(
        "evenkeel.toml",
        &format!(
            "[target]\nbase_url = \"http://127.0.0.1:{}\"\n[target.endpoints]\nhealth = \"/\"\napi = [\"/a\"]\n",
            server.port
        ),
    );
    (stage, server)
}

#[test]
fn demo_for_programs_is_one_object_a_line() {
    let _machine = machine_shared();
    let stage = Stage::new();
    let end = stage
        .run(&["demo", "--json", "--scenario", "crash"])
        .expect(0);
    let lines = objects(&end);
    let count = |event: &str| lines.iter().filter(|l| l["event"] == event).count();
    assert!(
        lines
            .iter()
            .all(|l| l["at"].as_str().unwrap().ends_with('Z'))
    );
    assert_eq!(count("boot_stage"), 7);
    assert_eq!(count("test_finished"), 8);
    assert_eq!(count("healing_started"), 1);
    assert_eq!(count("healing_finished"), 1);
    let steps = lines.iter().filter(|l| l["event"] == "step_finished");
    let steps: Vec<u64> = steps.map(|l| l["n"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let verdict = lines.last().unwrap();
    assert_eq!(verdict["event"], "verdict");
    assert_eq!(verdict["exit_code"], 0);
}

#[test]
fn run_and_the_commands_that_read_are_one_object_a_line() {
    let (stage, _server) = site(200);
    let lines = objects(&stage.run(&["run", "--once", "--json"]).expect(0));
    assert_eq!(lines.last().unwrap()["event"], "verdict");
    for args in [
        &["stress"][..],
        &["status"],
        &["report"],
        &["check"],
        &["playbook", "list"],
        &["playbook", "show", "restart_down_service"],
        &["ledger", "tail"],
        &["ledger", "verify"],
        &["logs"],
        &["baseline", "show"],
        &["snapshot", "create"],
        &["snapshot", "list"],
    ] {
        let mut json = args.to_vec();
        json.push("--json");
        objects(&stage.run(&json).expect(0));
        // And text for people has no escape codes in a pipe.
        let text = stage.run(args).expect(0);
        assert!(!text.stdout.contains('\u{1b}') && !text.stderr.contains('\u{1b}'));
        assert!(!text.stdout.trim().is_empty(), "{args:?} says nothing");
    }
    for args in [&["history", "--json"], &["escalations", "--json"]] {
        assert_eq!(stage.run(args).expect(0).stdout, "");
    }
}

/// What fails is told on standard error and by the exit code, and standard output stays clean for the program.
#[test]
fn a_failure_leaves_standard_output_to_json() {
    let (stage, server) = site(500);
    drop(server);
    let end = stage.run(&["run", "--once", "--json"]).expect(3);
    assert!(end.stderr.starts_with("evenkeel: "), "{}", end.stderr);
    objects(&end);
    let nothing = stage
        .run(&["playbook", "show", "no_such", "--json"])
        .expect(2);
    assert_eq!(nothing.stdout, "");
}

/// Runs a command on a terminal of its own. None, said aloud, where there is no `script` to make one.
fn on_a_terminal(stage: &Stage, args: &[&str], no_color: bool) -> Option<String> {
    let mut command = stage.command(args);
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| format!("'{}'", a.to_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ");
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: no `script` to make a terminal");
        return None;
    }
    command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(stage.path())
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    Some(Running::spawn(&mut command).finish(LONG).stdout)
}

/// The codes that set colours or bold: those that end in `m`.
fn coloured(text: &str) -> bool {
    text.split('\u{1b}').skip(1).any(|rest| {
        rest.strip_prefix('[')
            .and_then(|r| r.chars().find(|c| !(c.is_ascii_digit() || *c == ';')))
            == Some('m')
    })
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let (stage, _server) = site(200);
    let Some(with) = on_a_terminal(&stage, &["run", "--once"], false) else {
        return;
    };
    assert!(with.contains("Boot pipeline completes"), "{with}");
    assert!(coloured(&with), "{with}");
    let without = on_a_terminal(&stage, &["run", "--once"], true).unwrap();
    assert!(without.contains("Boot pipeline completes"), "{without}");
    assert!(!coloured(&without), "{without:?}");
}
