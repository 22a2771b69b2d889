//! A rollback killed at its system calls. SAFETY 7.

use evenkeel_torture::rollback::{Settings, run};

fn settings() -> Settings {
    Settings {
        every: 25,
        first: 3,
        threads: 2,
        program: env!("CARGO_BIN_EXE_evenkeel-torture").into(),
        skip_recovery: false,
        progress: false,
    }
}

/// SAFETY 7
#[test]
fn a_killed_rollback_leaves_the_target_wholly_old_or_wholly_new() {
    let summary = run(&settings()).unwrap();
    for loss in &summary.losses {
        eprintln!("{loss}");
    }
    assert!(summary.losses.is_empty(), "{summary}");
    assert!(summary.kills > 60, "{summary}");
    assert!(summary.old > 10 && summary.new > 10, "{summary}");
}

#[test]
fn a_start_that_recovers_nothing_is_found() {
    let summary = run(&Settings {
        skip_recovery: true,
        every: 40,
        ..settings()
    })
    .unwrap();
    assert!(!summary.losses.is_empty(), "{summary}");
    for loss in &summary.losses {
        std::fs::remove_dir_all(&loss.kept_in).unwrap();
    }
    let halves = |l: &&evenkeel_torture::rollback::Loss| l.problem.contains("the database is new");
    assert!(
        summary.losses.iter().any(|l| halves(&l)),
        "no half-restored target among them"
    );
}
