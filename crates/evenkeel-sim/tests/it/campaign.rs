//! Many seeds against the watchdog and the healer that ship.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_sim::trace::{Fact, Item};
use evenkeel_sim::{Config, Mix, Report, Scenario, check, run, run_scenario, shrink};

/// In the test command: seconds in a debug build.
const SEEDS: u64 = 120;
const MANY_SEEDS: u64 = 20_000;

fn config(mix: Mix) -> Config {
    Config {
        mix,
        ..Config::default()
    }
}

fn campaign(seeds: Range<u64>, config: Config) {
    for seed in seeds {
        let trace = run(seed, &config);
        let violations = check(&trace);
        let report = Report {
            trace: &trace,
            violations: &violations,
        };
        assert!(violations.is_empty(), "{report}");
    }
}

/// SAFETY 1 to 16, 18 to 20 and the ends of cycles: see the checkers.
#[test]
fn no_seed_breaks_a_property() {
    campaign(0..SEEDS, Config::default());
}

/// Seeds that once broke something. One a line; what stands after `#` says what it was.
#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    let corpus = include_str!("../corpus.txt");
    let mut seeds = 0;
    for line in corpus.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some((mix, seed)) = line.split_once(' ') else {
            continue;
        };
        let mix = match mix {
            "campaign" => Mix::Campaign,
            "calm" => Mix::Calm,
            "telemetry" => Mix::Telemetry,
            "permanent" => Mix::Permanent,
            other => panic!("{other} is no mix"),
        };
        let seed: u64 = seed.trim().parse().expect("a seed");
        campaign(seed..seed + 1, config(mix));
        seeds += 1;
    }
    assert!(seeds >= 8, "the corpus has {seeds} seeds");
}

/// SAFETY 2: noise, deploys, jobs, visitors, people who restart services, and growth lead to no act at all.
#[test]
fn without_a_fault_nothing_is_done() {
    for seed in 0..30 {
        let trace = run(seed, &config(Mix::Calm));
        assert_eq!(
            (trace.cycles(), check(&trace)),
            (0, Vec::new()),
            "seed {seed}"
        );
    }
    // Weeks in which no check is left out.
    let every = Config {
        every_check: true,
        ..config(Mix::Calm)
    };
    let trace = run(3, &every);
    assert_eq!(trace.cycles(), 0);
    assert!(trace.checks >= 7 * 1440, "{} checks", trace.checks);
}

/// SAFETY 11: measurements that are late, missing, no numbers, stale or begun anew, and clocks that step, lead to no
/// act; that they are at fault is noted.
#[test]
fn bad_measurements_lead_to_no_act() {
    for seed in 0..15 {
        let trace = run(seed, &config(Mix::Telemetry));
        assert_eq!(
            (trace.cycles(), check(&trace)),
            (0, Vec::new()),
            "seed {seed}"
        );
        let noted = |i: &Item| matches!(i, Item::World { fact: Fact::Noted { kind }, .. } if kind == "telemetry_missing");
        assert!(trace.items.iter().any(noted), "seed {seed}");
    }
}

/// SAFETY 3: seven days of a fault that stays or comes and goes: acts within the budget, one alert, then quiet.
#[test]
fn a_fault_that_stays_is_handed_over_once() {
    for seed in 0..25 {
        let trace = run(seed, &config(Mix::Permanent));
        assert_eq!(check(&trace), Vec::new(), "seed {seed}");
        let mut alerts: BTreeMap<String, u32> = BTreeMap::new();
        let mut acts = 0;
        for item in &trace.items {
            match item {
                Item::Entry(e) if e.payload["ended"] == "human_alert" => {
                    *alerts
                        .entry(e.payload["anomaly"]["type"].to_string())
                        .or_default() += 1;
                }
                Item::World {
                    fact: Fact::StepRan { changes: true, .. },
                    ..
                } => acts += 1,
                _ => {}
            }
        }
        assert!(alerts.values().all(|n| *n == 1), "seed {seed}: {alerts:?}");
        assert!(acts <= 7 * 30, "seed {seed}: {acts} acts");
    }
}

/// SAFETY 17, in part: a leak over weeks that no limit on growth sees is noted long before memory ends.
#[test]
fn a_leak_over_weeks_is_seen() {
    use evenkeel_sim::fault::{Fault, FaultKind, HOUR_MS};
    let mut scenario = Scenario::draw(5, &config(Mix::Calm));
    (scenario.days, scenario.benign) = (14, Vec::new());
    scenario.watch.every_check = true;
    scenario.watch.every_service = true;
    scenario.services.truncate(1);
    scenario.services[0].memory_mb = 300.0;
    scenario.faults = vec![Fault {
        kind: FaultKind::SlowLeak,
        service: 0,
        at: 48 * HOUR_MS,
        lasts: None,
        flaps: None,
        strength: 300,
        returns: None,
    }];
    let trace = run_scenario(&scenario);
    assert_eq!(check(&trace), Vec::new());
    let noted = trace.items.iter().find_map(|i| match i {
        Item::World {
            at,
            fact: Fact::Noted { kind },
            ..
        } if kind == "drift" => Some(*at),
        _ => None,
    });
    let at = noted.expect("the leak was noted");
    assert!(at < 10 * 24 * HOUR_MS, "only after {} h", at / HOUR_MS);
}

/// The same for as many seeds as a pause for coffee allows, and a year in which no check is left out.
#[test]
#[ignore = "takes minutes; just sim"]
fn no_seed_of_very_many_breaks_a_property() {
    campaign(0..MANY_SEEDS, Config::default());
}

#[test]
fn a_seed_reproduces_its_run() {
    for seed in [0, 1, 99, u64::MAX] {
        let trace = || run(seed, &Config::default()).to_string();
        assert_eq!(trace(), trace());
    }
    let text = |seed| run(seed, &Config::default()).to_string();
    assert_ne!(text(1), text(2));
}

/// A failing scenario is made smaller, and still breaks the same property.
#[test]
fn a_failure_is_shrunk() {
    let broken = Config {
        bug: Some(evenkeel_sim::Bug::SkipSnapshot),
        ..Config::default()
    };
    let (scenario, rule) = (0..50)
        .find_map(|seed| {
            let scenario = Scenario::draw(seed, &broken);
            let rule = check(&run_scenario(&scenario)).first()?.rule;
            (scenario.size() > 3).then_some((scenario, rule))
        })
        .expect("a seed that fails");
    let (small, violations) = shrink(&scenario).expect("it fails");
    assert!(small.size() < scenario.size());
    assert!(violations.iter().any(|v| v.rule == rule));
    assert_eq!(check(&run_scenario(&small)), violations);
}

/// A campaign that never met a fault would pass as well: every kind of event, end and death must have occurred.
#[test]
fn a_campaign_meets_everything_that_can_happen() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 1000..1400 {
        for item in run(seed, &Config::default()).items {
            let what = match item {
                Item::Entry(e) if e.event() == "closed" => e.payload["ended"].to_string(),
                Item::Entry(e) if e.action == "order" => format!("order {}", e.payload["order"]),
                Item::Entry(e) if e.event().is_empty() => e.action.to_owned(),
                Item::Entry(e) => {
                    if let Some(kind) = e.payload["refusal"]["kind"].as_str() {
                        *seen.entry(format!("refusal {kind}")).or_default() += 1;
                    }
                    format!("{} {}", e.event(), e.result)
                }
                Item::World { fact, .. } => match fact {
                    Fact::Died { boundary } => format!("{boundary:?}"),
                    Fact::StepRan { extent, action, .. } => format!("{action} {extent:?}"),
                    Fact::RolledBack { complete, said_ok } => format!("undo {complete} {said_ok}"),
                    Fact::FaultBegan { kind, .. } => format!("{kind:?}"),
                    Fact::Benign { kind, .. } => format!("{kind:?}"),
                    Fact::TelemetryBegan { kind } => format!("{kind:?}"),
                    Fact::Meddled { .. } => "meddled".to_owned(),
                    Fact::ClockSet { by_ms } if by_ms < 0 => "clock back".to_owned(),
                    Fact::ClockSet { .. } => "clock forward".to_owned(),
                    Fact::LedgerRefused => "ledger refused".to_owned(),
                    Fact::AnswerRefused { .. } => "answer refused".to_owned(),
                    Fact::PauseFile { .. } => "pause file".to_owned(),
                    Fact::StillThere { .. } => "still there".to_owned(),
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
        "approval_requested started",
        "approved success",
        "denied failed",
        "approval_expired failed",
        "rechecked noted",
        "held noted",
        "released noted",
        "refused failed",
        "\"resolved\"",
        "\"resolved_with_advice\"",
        "\"cleared\"",
        "\"human_alert\"",
        "\"stuck\"",
        "\"shadow\"",
        "BeforeRecord",
        "RecordRefused",
        "BeforeEffect",
        "AfterEffect",
        "Stopped",
        "Killed",
        "set_config Half",
        "set_config Whole",
        "set_config Nothing",
        "restart Half",
        "restart Whole",
        "stop Whole",
        "run_command Whole",
        "stop_lock_holder Whole",
        "undo true true",
        "undo false false",
        "undo true false",
        "meddled",
        "clock back",
        "clock forward",
        "ledger refused",
        "answer refused",
        "pause file",
        "still there",
        "order \"pause\"",
        "order \"resume\"",
        "order \"silence\"",
        "order \"set_mode\"",
        "order \"reset_breaker\"",
        "order \"unstick\"",
        "refusal stuck",
        "refusal breaker",
        "refusal budget",
        "Crash",
        "BrokenStart",
        "Hang",
        "Leak",
        "SlowLeak",
        "Lock",
        "Pool",
        "BadDeploy",
        "Upstream",
        "SlowUpstream",
        "Overload",
        "HurtByRestart",
        "Incurable",
        "Deploy",
        "PersonRestarts",
        "Cron",
        "Visitors",
        "Missing",
        "Late",
        "NotANumber",
        "Stale",
        "Reset",
        "Ahead",
        "Wrong",
    ];
    let never: Vec<&str> = wanted
        .into_iter()
        .filter(|what| seen.get(*what).is_none_or(|n| *n == 0))
        .collect();
    assert!(never.is_empty(), "never occurred: {never:?} in {seen:#?}");
}
