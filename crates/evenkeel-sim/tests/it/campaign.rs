//! Many seeds against the healer that ships.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_sim::trace::{Fact, Item};
use evenkeel_sim::{Config, Report, check, run};

/// In the test command: seconds in a debug build.
const SEEDS: u64 = 300;
const MANY_SEEDS: u64 = 50_000;

fn campaign(seeds: Range<u64>) {
    for seed in seeds {
        let trace = run(seed, Config::default());
        let violations = check(&trace);
        let report = Report {
            trace: &trace,
            violations: &violations,
        };
        assert!(violations.is_empty(), "{report}");
    }
}

/// SAFETY 4, 5, 6, 7, 8, 10, 20 and the ends of cycles: see the checkers.
#[test]
fn no_seed_breaks_a_property() {
    campaign(0..SEEDS);
}

/// The same for as many seeds as a pause for coffee allows.
#[test]
#[ignore = "takes minutes; cargo test -p evenkeel-sim --release -- --ignored"]
fn no_seed_of_very_many_breaks_a_property() {
    campaign(0..MANY_SEEDS);
}

#[test]
fn a_seed_reproduces_its_run() {
    for seed in [0, 1, 99, u64::MAX] {
        let trace = || run(seed, Config::default()).to_string();
        assert_eq!(trace(), trace());
    }
    assert_ne!(
        run(1, Config::default())
            .to_string()
            .split_once('\n')
            .map(|(_, rest)| rest.to_owned()),
        run(2, Config::default())
            .to_string()
            .split_once('\n')
            .map(|(_, rest)| rest.to_owned())
    );
}

/// A campaign that never met a fault would pass as well: every kind of event, end and death must have occurred.
#[test]
fn a_campaign_meets_everything_that_can_happen() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in SEEDS..SEEDS + 150 {
        for item in run(seed, Config::default()).items {
            let what = match item {
                Item::Entry(e) if e.event() == "closed" => e.payload["ended"].to_string(),
                Item::Entry(e) if e.event().is_empty() => e.action.to_owned(),
                Item::Entry(e) => format!("{} {}", e.event(), e.result),
                Item::World { fact, .. } => match fact {
                    Fact::Died { boundary } => format!("{boundary:?}"),
                    Fact::StepRan { extent, action, .. } => format!("{action} {extent:?}"),
                    Fact::RolledBack { complete, said_ok } => format!("undo {complete} {said_ok}"),
                    Fact::Meddled { .. } => "meddled".to_owned(),
                    Fact::ClockSetBack { .. } => "clock".to_owned(),
                    _ => continue,
                },
            };
            *seen.entry(what).or_default() += 1;
        }
    }
    let wanted = [
        "opened started",
        "snapshot_taken success",
        "snapshot_failed failed",
        "playbook_selected success",
        "no_playbook failed",
        "step_prepared started",
        "step_skipped skipped",
        "step_refused failed",
        "step_finished success",
        "step_finished failed",
        "verified success",
        "verified failed",
        "settled success",
        "settled failed",
        "rolled_back success",
        "rolled_back failed",
        "run_concluded success",
        "run_concluded failed",
        "retry_due noted",
        "advised success",
        "advice_failed failed",
        "alerted success",
        "alerted failed",
        "parked noted",
        "resumed noted",
        "anomaly_cleared",
        "\"resolved\"",
        "\"resolved_with_advice\"",
        "\"cleared\"",
        "\"human_alert\"",
        "\"stuck\"",
        "BeforeRecord",
        "RecordRefused",
        "BeforeEffect",
        "AfterEffect",
        "Stopped",
        "set_config Half",
        "set_config Whole",
        "set_config Nothing",
        "stop Whole",
        "run_command Whole",
        "undo true true",
        "undo false false",
        "undo true false",
        "meddled",
        "clock",
    ];
    for what in wanted {
        assert!(
            seen.get(what).is_some_and(|n| *n >= 1),
            "{what} never occurred: {seen:#?}"
        );
    }
}
