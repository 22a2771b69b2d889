//! Planted bugs: each must be found by the property it breaks, or the checkers show nothing.

use evenkeel_sim::{Bug, Config, check, run};

/// Each bug must be found within so many seeds.
const SEEDS: u64 = 1_500;

/// The property that each planted bug breaks.
fn breaks(bug: Bug) -> &'static str {
    match bug {
        Bug::SkipSnapshot | Bug::ActWithoutSnapshot => "no step without a snapshot of its attempt",
        Bug::ActBeforeRecord | Bug::ForgetIntent => "a step's intent is on record before it runs",
        Bug::RerunBlindly => "a step of unknown outcome is looked at before it runs again",
        Bug::RerunNonIdempotent => "a step that must not run twice runs once",
        Bug::DropRollback | Bug::ForgetFirstUndo => {
            "after a good rollback the target is as it was at the snapshot"
        }
        Bug::HideFailedRollback => "a rollback is what it was",
        Bug::CloseTwice => "a cycle is closed once",
        Bug::LoseAttempts => "failed attempts survive the healer's death",
        Bug::ForgetRecurrence => "a fix that did not last has used up an attempt",
        Bug::NoAlertWithoutLedger => "people are told that the ledger takes nothing",
        Bug::DeafToPause => "nothing is done while a person says hands off",
        Bug::NoAlert => "whoever is not healed was alerted",
        Bug::BelieveInconclusive => "resolved means that the last re-test passed",
        Bug::WidenRules => "attempts stay within the rules",
        Bug::IgnoreTier => "what needs a person runs after a person's yes",
        Bug::NeverClose => "every cycle ends",
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let config = Config {
            bug: Some(bug),
            ..Config::default()
        };
        let rule = breaks(bug);
        let found =
            (0..SEEDS).find(|seed| check(&run(*seed, &config)).iter().any(|v| v.rule == rule));
        assert!(found.is_some(), "{bug:?}: `{rule}` held for {SEEDS} seeds");
    }
}

#[test]
fn a_report_names_the_seed_and_shows_the_trace() {
    let config = Config {
        bug: Some(Bug::SkipSnapshot),
        ..Config::default()
    };
    let (seed, trace, violations) = (0..100)
        .find_map(|seed| {
            let trace = run(seed, &config);
            let violations = check(&trace);
            (!violations.is_empty()).then_some((seed, trace, violations))
        })
        .expect("a seed that fails");
    let text = evenkeel_sim::Report {
        trace: &trace,
        violations: &violations,
    }
    .to_string();
    assert!(text.starts_with(&format!("seed {seed}: item ")), "{text}");
    assert!(
        text.contains("(SAFETY 8)") && text.contains("opened started"),
        "{text}"
    );
}
