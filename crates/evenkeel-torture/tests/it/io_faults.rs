//! Failing calls. SAFETY 7.

use evenkeel_torture::io_faults::{Settings, run};

/// SAFETY 7
#[test]
fn no_failing_call_takes_an_acknowledged_entry() {
    let summary = run(Settings {
        seed: 3,
        every: 9,
        progress: false,
    })
    .unwrap();
    for loss in &summary.losses {
        eprintln!("{loss}");
    }
    assert!(summary.losses.is_empty());
    assert!(
        summary.runs > 120 && summary.power_losses > 1000,
        "{summary}"
    );
    for call in ["Write", "Sync"] {
        let (ended, _) = summary.ended[call];
        assert!(ended > 0, "{summary}");
    }
}
