//! A rollback killed at a sample of its system calls.

use std::path::PathBuf;

use evenkeel_torture::rollback::{Settings, run};

fn settings() -> Settings {
    Settings {
        every: 151,
        program: PathBuf::from(env!("CARGO_BIN_EXE_evenkeel-torture")),
        progress: false,
        skip_recovery: false,
    }
}

/// SAFETY 8, 9
#[test]
fn a_rollback_that_is_killed_leaves_the_old_or_the_new() {
    let summary = run(&settings()).unwrap();
    let told = summary.to_string();
    assert!(summary.losses.is_empty(), "{told}: {}", summary.losses[0]);
    assert!(summary.wholly_old > 0 && summary.wholly_new > 0, "{told}");
}

/// Without the next start's recovery some of them are neither: the test can fail.
#[test]
fn what_recovery_is_for_is_found() {
    let summary = run(&Settings {
        every: 41,
        skip_recovery: true,
        ..settings()
    });
    assert!(!summary.unwrap().losses.is_empty());
}
