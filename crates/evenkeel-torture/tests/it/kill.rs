//! `kill -9`. SAFETY 7.

use evenkeel_torture::kill::{Settings, run};

fn settings() -> Settings {
    Settings {
        rounds: 60,
        seed: 5,
        threads: 2,
        program: env!("CARGO_BIN_EXE_evenkeel-torture").into(),
        tell_early: false,
        progress: false,
    }
}

/// SAFETY 7
#[test]
fn no_kill_takes_an_acknowledged_entry() {
    let summary = run(&settings()).unwrap();
    for loss in &summary.losses {
        eprintln!("{loss}");
    }
    assert!(summary.losses.is_empty());
    assert_eq!(summary.rounds, 60);
    assert!(
        summary.again > 20 && summary.acknowledged > 500,
        "{summary}"
    );
}

#[test]
fn a_process_that_tells_before_it_writes_is_found() {
    let summary = run(&Settings {
        tell_early: true,
        ..settings()
    })
    .unwrap();
    assert!(!summary.losses.is_empty(), "{summary}");
    for loss in &summary.losses {
        std::fs::remove_dir_all(&loss.kept_in).unwrap();
        assert!(
            loss.problem.contains("was acknowledged and is lost"),
            "{loss}"
        );
    }
}
