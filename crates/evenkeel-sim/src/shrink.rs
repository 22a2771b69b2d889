//! Makes a failing scenario smaller: whatever can be left out while the same property still breaks is left out.

use crate::check::check;
use crate::scenario::Scenario;
use crate::{Violation, run_scenario};

/// Most runs that are spent on it.
pub const RUNS_MAX: u32 = 400;

/// The smallest scenario that was found in which a violation of the same rule shows, with what it breaks. `None` when
/// the scenario as given breaks nothing.
pub fn shrink(scenario: &Scenario) -> Option<(Scenario, Vec<Violation>)> {
    let first = check(&run_scenario(scenario));
    let rule = first.first()?.rule;
    let mut best = (scenario.clone(), first);
    let mut runs = 0;
    let mut smaller = true;
    while smaller && runs < RUNS_MAX {
        smaller = false;
        for candidate in candidates(&best.0) {
            if runs >= RUNS_MAX {
                break;
            }
            runs += 1;
            let violations = check(&run_scenario(&candidate));
            if violations.iter().any(|v| v.rule == rule) {
                best = (candidate, violations);
                smaller = true;
                break;
            }
        }
    }
    Some(best)
}

/// Scenarios with less in them, the boldest first.
fn candidates(of: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut smaller = of.clone();
        change(&mut smaller);
        if smaller != *of {
            found.push(smaller);
        }
    };
    with(&|s| s.benign.clear());
    with(&|s| s.telemetry.clear());
    with(&|s| s.host.clear());
    with(&|s| s.faults.truncate(s.faults.len() / 2));
    with(&|s| {
        s.faults.drain(..s.faults.len() / 2);
    });
    with(&|s| s.days = s.days.div_ceil(2));
    for i in 0..of.faults.len() {
        with(&|s| {
            s.faults.remove(i);
        });
    }
    for i in 0..of.benign.len() {
        with(&|s| {
            s.benign.remove(i);
        });
    }
    for i in 0..of.telemetry.len() {
        with(&|s| {
            s.telemetry.remove(i);
        });
    }
    for i in 0..of.host.len() {
        with(&|s| {
            s.host.remove(i);
        });
    }
    for i in 0..of.odds.clone().each().len() {
        with(&|s| *s.odds.each()[i].1 = 0);
    }
    with(&|s| s.days = s.days.saturating_sub(1).max(1));
    found
}
