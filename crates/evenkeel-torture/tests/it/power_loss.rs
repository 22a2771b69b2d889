//! Power losses. SAFETY 7.

use evenkeel_torture::power_loss::{Settings, Summary, run};
use evenkeel_torture::recorder::Plant;

fn settings() -> Settings {
    Settings {
        states: 1500,
        seed: 7,
        recording: None,
        plant: Plant::default(),
        tell_early: false,
        threads: 2,
        progress: false,
    }
}

/// The problems found, and their files removed.
fn problems(summary: &Summary) -> Vec<&str> {
    let losses = summary.losses.iter();
    losses
        .map(|loss| {
            std::fs::remove_dir_all(&loss.kept_in).unwrap();
            loss.problem.as_str()
        })
        .collect()
}

/// SAFETY 7
#[test]
fn no_power_loss_takes_an_acknowledged_entry() {
    let summary = run(settings()).unwrap();
    for loss in &summary.losses {
        eprintln!("{loss}");
    }
    assert!(summary.losses.is_empty());
    assert!(summary.distinct >= 1500, "{summary}");
    // Some states lie between the commit and its acknowledgement, and many operations may be lost at once.
    assert!(summary.ahead > 0, "{summary}");
    assert!(summary.uncertain_max >= 20, "{summary}");
}

/// Also while the ledger itself copies its write-ahead log into the database and starts it anew.
#[test]
fn no_power_loss_in_a_checkpoint_takes_an_acknowledged_entry() {
    let summary = run(Settings {
        recording: Some(11),
        ..settings()
    })
    .unwrap();
    for loss in &summary.losses {
        eprintln!("{loss}");
    }
    assert!(summary.losses.is_empty());
    assert!(summary.uncertain_max > 300, "{summary}");
}

#[test]
fn a_disk_that_does_not_sync_is_found() {
    let plant = Plant {
        drop_syncs: true,
        ..Plant::default()
    };
    let summary = run(Settings {
        plant,
        ..settings()
    })
    .unwrap();
    assert!(!problems(&summary).is_empty(), "{summary}");
}

#[test]
fn a_ledger_that_acknowledges_before_its_sync_is_found() {
    let summary = run(Settings {
        tell_early: true,
        ..settings()
    })
    .unwrap();
    let problems = problems(&summary);
    let lost = "entries were acknowledged and";
    assert!(
        problems.iter().any(|problem| problem.contains(lost)),
        "{problems:?}"
    );
}
