//! Many runs, and what they add up to.

use std::collections::BTreeMap;

use crate::check::check;
use crate::scenario::{Config, Scenario};
use crate::trace::{Fact, Item};
use crate::{Trace, Violation, run_scenario};

/// What runs add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Cycles that were opened.
    pub cycles: u64,
    /// Days of services.
    pub service_days: u64,
    /// Checks of the watchdog.
    pub checks: u64,
    /// Steps that were carried out.
    pub steps: u64,
    /// Deaths of the healer.
    pub deaths: u64,
    /// How cycles ended.
    pub ends: BTreeMap<String, u64>,
    /// The first seed that broke a property, by property.
    pub broken: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, trace: &Trace, violations: &[Violation]) {
        self.seeds += 1;
        self.service_days += trace.scenario.service_days();
        self.checks += trace.checks;
        for item in &trace.items {
            match item {
                Item::Entry(e) if e.event() == "opened" => self.cycles += 1,
                Item::Entry(e) if e.event() == "closed" => {
                    let end = e.payload["ended"].as_str().unwrap_or("").to_owned();
                    *self.ends.entry(end).or_default() += 1;
                }
                Item::World { fact, .. } => match fact {
                    Fact::StepRan { .. } => self.steps += 1,
                    Fact::Died { .. } => self.deaths += 1,
                    _ => {}
                },
                Item::Entry(_) => {}
            }
        }
        for v in violations {
            let (_, times) = self
                .broken
                .entry(v.rule)
                .or_insert((trace.scenario.seed, 0));
            *times += 1;
        }
    }

    /// Adds what another part of a campaign came to.
    pub fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.cycles += other.cycles;
        self.service_days += other.service_days;
        self.checks += other.checks;
        self.steps += other.steps;
        self.deaths += other.deaths;
        for (end, n) in other.ends {
            *self.ends.entry(end).or_default() += n;
        }
        for (rule, (seed, times)) in other.broken {
            let mine = self.broken.entry(rule).or_insert((seed, 0));
            mine.0 = mine.0.min(seed);
            mine.1 += times;
        }
    }
}

/// Runs one seed and adds it to `tally`; the scenario and what it breaks, if it breaks anything.
pub fn run_one(
    seed: u64,
    config: &Config,
    tally: &mut Tally,
) -> Option<(Scenario, Vec<Violation>)> {
    let scenario = Scenario::draw(seed, config);
    let trace = run_scenario(&scenario);
    let violations = check(&trace);
    tally.add(&trace, &violations);
    (!violations.is_empty()).then_some((scenario, violations))
}
