//! Mutations of the core itself: each is built and run, and must break a property within 10 000 seeds. A simulator that
//! does not notice them would not notice the like of them by mistake.
//!
//! The core, the detectors and the simulator are copied and built apart, so that nothing here is ever changed.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "what is tested here is a build of a copy: files and processes; the library has neither"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seeds within which each must be found.
const SEEDS: &str = "10000";

/// A mutation of one place in the core.
struct Mutation {
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const MUTATIONS: [Mutation; 18] = [
    Mutation {
        what: "SAFETY 6: a step that was under way at a crash is run again without a look",
        file: "cycle/table.rs",
        from: "Phase::Executing { step } => Phase::Probing { step: *step },",
        to: "Phase::Executing { step } => Phase::Executing { step: *step },",
    },
    Mutation {
        what: "SAFETY 6: a step of unknown outcome is run again, whatever it is",
        file: "cycle/table.rs",
        from: "} else if idempotent {",
        to: "} else if idempotent || !passed {",
    },
    Mutation {
        what: "SAFETY 6: a failed step is repeated, whatever it is",
        file: "cycle/table.rs",
        from: "run.retried < planned.retries && planned.idempotent",
        to: "run.retried < planned.retries",
    },
    Mutation {
        what: "SAFETY 9: a failed rollback counts as a good one",
        file: "cycle/table.rs",
        from: "let verdict = if outcome.ok {",
        to: "let verdict = if outcome.ok || outcome.restored.is_empty() {",
    },
    Mutation {
        what: "SAFETY 9: a change of one key is not taken back",
        file: "cycle/table.rs",
        from: "(!keys.is_empty()).then(|| UndoOp::RestoreKeys {",
        to: "(keys.len() > 1).then(|| UndoOp::RestoreKeys {",
    },
    Mutation {
        what: "SAFETY 9: what a fix made worse is not looked at",
        file: "event.rs",
        from: "self.passed && !self.inconclusive && self.guards.iter().all(|g| !g.worse)",
        to: "self.passed && !self.inconclusive",
    },
    Mutation {
        what: "SAFETY 10: a re-test without a conclusion has passed",
        file: "event.rs",
        from: "self.passed && !self.inconclusive && self.guards.iter().all(|g| !g.worse)",
        to: "self.passed && self.guards.iter().all(|g| !g.worse)",
    },
    Mutation {
        what: "SAFETY 4: a fix that did not last has used up nothing",
        file: "healer/admit.rs",
        from: "attempts.max(past.failed_attempts).saturating_add(1)",
        to: "attempts",
    },
    Mutation {
        what: "SAFETY 3: the budget is never used up",
        file: "healer/due.rs",
        from: "if *effect == Effect::TakeSnapshot && !by_hand {",
        to: "if *effect == Effect::TakeSnapshot && by_hand {",
    },
    Mutation {
        what: "SAFETY 3: whoever was told is told again as soon as it has been away",
        file: "healer/admit.rs",
        from: "if gone_for.is_none_or(|ms| ms < millis(limits.quiet_s)) {",
        to: "if gone_for.is_none() {",
    },
    Mutation {
        what: "SAFETY 3: the breaker opens one failure late",
        file: "healer.rs",
        from: "if self.breaker.failed_in_row >= closed.rules.breaker_cycles",
        to: "if self.breaker.failed_in_row > closed.rules.breaker_cycles",
    },
    Mutation {
        what: "SAFETY 9: nobody remembers that a rollback failed",
        file: "healer.rs",
        from: "if outcome == Outcome::Stuck {",
        to: "if outcome == Outcome::Shadow {",
    },
    Mutation {
        what: "SAFETY 9: a cycle that waited acts after another got stuck",
        file: "healer/due.rs",
        from: "if let Some(id) = &self.stuck {",
        to: "if let Some(id) = self.stuck.as_ref().filter(|_| by_hand) {",
    },
    Mutation {
        what: "SAFETY 5: what a record says of a passed test is not read back",
        file: "record.rs",
        from: "verified: value[\"verified\"].as_bool().unwrap_or(false),",
        to: "verified: value[\"verified\"].as_bool().is_none(),",
    },
    Mutation {
        what: "SAFETY 16: a pause holds nothing",
        file: "healer/due.rs",
        from: "if let Some(p) = &self.orders.paused {",
        to: "if let Some(p) = self.orders.paused.as_ref().filter(|p| p.by.is_empty()) {",
    },
    Mutation {
        what: "SAFETY 15: maintenance windows hold nothing",
        file: "healer/due.rs",
        from: "policy.maintenance.iter().find_map(|w| {",
        to: "policy.maintenance.iter().skip(9).find_map(|w| {",
    },
    Mutation {
        what: "SAFETY 18: an advisor's parameters may have any value",
        file: "playbook.rs",
        from: "spec.check(name, value)?;",
        to: "let _ = spec.check(name, value);",
    },
    Mutation {
        what: "SAFETY 19: a yes to something else counts",
        file: "approval.rs",
        from: "if self.binds != binds {",
        to: "if self.binds.is_empty() != binds.is_empty() {",
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every mutation's place is there, once: cheap, and so in the test command.
#[test]
fn every_mutation_has_its_place() {
    for m in &MUTATIONS {
        let text = fs::read_to_string(root().join("crates/evenkeel-core/src").join(m.file))
            .expect("files of the workspace and of its copy");
        let times = text.matches(m.from).count();
        assert_eq!(
            times, 1,
            "{}: `{}` stands {times} times in {}",
            m.what, m.from, m.file
        );
        assert_ne!(m.from, m.to);
    }
}

#[test]
#[ignore = "builds the core once for each mutation; just sim"]
fn every_mutation_of_the_core_is_found() {
    let copy = Copy::make();
    assert!(copy.survives(), "the core as it is breaks a property");
    let mut unnoticed = Vec::new();
    for m in &MUTATIONS {
        let place = copy.dir.join("crates/evenkeel-core/src").join(m.file);
        let good = fs::read_to_string(&place).expect("files of the workspace and of its copy");
        fs::write(&place, good.replace(m.from, m.to))
            .expect("files of the workspace and of its copy");
        let survived = copy.survives();
        fs::write(&place, good).expect("files of the workspace and of its copy");
        println!(
            "{} {}",
            if survived { "NOT FOUND" } else { "found    " },
            m.what
        );
        if survived {
            unnoticed.push(m.what);
        }
    }
    assert!(unnoticed.is_empty(), "not found: {unnoticed:#?}");
}

/// A workspace of its own with the three crates.
struct Copy {
    dir: PathBuf,
}

impl Copy {
    fn make() -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations");
        let _ = fs::remove_dir_all(dir.join("crates"));
        for part in [
            "crates/evenkeel-core",
            "crates/evenkeel-detect",
            "crates/evenkeel-sim",
            "crates/evenkeel/playbooks",
        ] {
            copy_all(&root().join(part), &dir.join(part));
        }
        let manifest = fs::read_to_string(root().join("Cargo.toml"))
            .expect("files of the workspace and of its copy");
        let members = r#"members = ["crates/*"]"#;
        assert!(manifest.contains(members));
        let only = r#"members = ["crates/evenkeel-core", "crates/evenkeel-detect", "crates/evenkeel-sim"]"#;
        let manifest: Vec<String> = manifest
            .lines()
            .filter(|l| !l.starts_with("default-members"))
            .map(|l| l.replace(members, only))
            .collect();
        fs::write(dir.join("Cargo.toml"), manifest.join("\n"))
            .expect("files of the workspace and of its copy");
        fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))
            .expect("files of the workspace and of its copy");
        Self { dir }
    }

    /// Builds the copy and runs it; whether no property was broken.
    fn survives(&self) -> bool {
        let target = self.dir.join("target");
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--offline",
                "--release",
                "-p",
                "evenkeel-sim",
            ])
            .current_dir(&self.dir)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .status()
            .expect("cargo can be started");
        assert!(built.success(), "a mutation must compile");
        let ran = Command::new(target.join("release/evenkeel-sim"))
            .args(["--first", "--seeds", SEEDS, "--jobs", "2"])
            .output()
            .expect("what was built can be started");
        // 101: the healer refused an event that answers what it asked for, which is a hole in its table.
        match ran.status.code() {
            Some(0) => true,
            Some(1 | 101) => false,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&ran.stderr)),
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("files of the workspace and of its copy");
    for entry in fs::read_dir(from).expect("files of the workspace and of its copy") {
        let entry = entry.expect("files of the workspace and of its copy");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(&path, &target).expect("files of the workspace and of its copy");
        }
    }
}
