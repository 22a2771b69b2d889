//! One playbook put through everything that can go wrong while it runs: each step failing, with nothing, half or all
//! of it done; each step's result lost, so that it is run again or taken back; the healer dead after each record; a
//! rollback that breaks off; a fix that does not help. In the end the target is as the playbook leaves it and the
//! re-test has passed, or it is as it was before, or the cycle is Stuck; and whoever is not healed was alerted.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_core::cycle::Rules;
use evenkeel_core::playbook::action::Services;
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{Action, ParamError, Plan, Playbook, UndoKind};

use crate::check::check;
use crate::drive::Driver;
use crate::scenario::{Config, Mix, NAMES, Scenario};
use crate::trace::{Extent, Fact, Item, Trace};
use crate::world::script::Script;

/// One way in which it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What went wrong, in words.
    pub name: String,
    /// How the cycle ended, as records say it; empty when it did not.
    pub ended: String,
    /// What is wrong with that; nothing when all is well.
    pub problems: Vec<String>,
}

/// What a playbook was put through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// Its name.
    pub playbook: String,
    /// Steps that cannot be taken back, by their names: what they did stays, whatever comes.
    pub irreversible: Vec<String>,
    /// Each way in which it went.
    pub cases: Vec<Case>,
}

impl Rehearsal {
    /// Whether every case went well.
    pub fn is_good(&self) -> bool {
        self.cases.iter().all(|c| c.problems.is_empty())
    }

    /// How many cases ended in each way.
    pub fn ends(&self) -> BTreeMap<&str, usize> {
        let mut ends = BTreeMap::new();
        for case in &self.cases {
            *ends.entry(case.ended.as_str()).or_default() += 1;
        }
        ends
    }
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> = self
            .ends()
            .into_iter()
            .map(|(end, n)| format!("{n} {end}"))
            .collect();
        let verdict = if self.is_good() { "good" } else { "not good" };
        write!(
            f,
            "{}: {verdict} in {} cases ({})",
            self.playbook,
            self.cases.len(),
            ends.join(", ")
        )?;
        if !self.irreversible.is_empty() {
            write!(
                f,
                "; cannot be taken back: {}",
                self.irreversible.join(", ")
            )?;
        }
        for case in self.cases.iter().filter(|c| !c.problems.is_empty()) {
            write!(f, "\n  {}: {}", case.name, case.problems.join("; "))?;
        }
        Ok(())
    }
}

/// Puts a playbook through everything, with its parameters at their defaults. Names of services in it stand for any.
/// Touches nothing; takes well below a second.
pub fn rehearse(playbook: &Playbook) -> Result<Rehearsal, ParamError> {
    let mut plan = Plan::new(playbook, &BTreeMap::new(), ChosenBy::Operator)?;
    name_services(&mut plan);
    let mut cases = Vec::new();
    for all_hold in [false, true] {
        for helps in [true, false] {
            let script = Script {
                helps: Some(helps),
                all_hold,
                ..Script::default()
            };
            one_way(&plan, script, &mut cases);
        }
    }
    Ok(Rehearsal {
        playbook: playbook.name.clone(),
        irreversible: plan
            .steps
            .iter()
            .filter(|s| s.undo == UndoKind::Irreversible)
            .map(|s| s.id.clone())
            .collect(),
        cases,
    })
}

/// All that can go wrong while `base` holds.
fn one_way(plan: &Plan, base: Script, cases: &mut Vec<Case>) {
    let given = format!(
        "{}{}",
        if base.helps == Some(true) {
            "it helps"
        } else {
            "it does not help"
        },
        if base.all_hold {
            ", every step's condition holds"
        } else {
            ""
        }
    );
    let mut run = |what: &str, script: Script| {
        let trace = play(plan, script);
        let name = format!("{given}{what}");
        cases.push(judge(name, &trace));
        trace
    };
    let smooth = run("", base);
    let entries = |i: &&Item| matches!(i, Item::Entry(_));
    let records = smooth.items.iter().filter(entries).count();
    for n in 1..=u32::try_from(records).unwrap_or(u32::MAX) {
        let dies_after = Some(n);
        run(
            &format!(", the healer dies after record {n}"),
            Script { dies_after, ..base },
        );
    }
    for (i, step) in plan.steps.iter().enumerate() {
        for (extent, how) in [
            (Extent::Nothing, "with nothing done"),
            (Extent::Half, "half done"),
            (Extent::Whole, "after all was done"),
        ] {
            let fails = Some((i, extent));
            run(
                &format!(", step {} fails {how}", step.id),
                Script { fails, ..base },
            );
            run(
                &format!(", step {} fails {how}, and so does the rollback", step.id),
                Script {
                    fails,
                    rollback_breaks: true,
                    ..base
                },
            );
        }
        run(
            &format!(", the result of step {} is lost", step.id),
            Script {
                loses: Some(i),
                ..base
            },
        );
    }
    let rollback_breaks = true;
    run(
        ", a rollback breaks off",
        Script {
            rollback_breaks,
            ..base
        },
    );
}

fn play(plan: &Plan, script: Script) -> Trace {
    let config = Config {
        days: 1,
        mix: Mix::Calm,
        ..Config::default()
    };
    let mut scenario = Scenario::draw(7, &config);
    scenario.benign.clear();
    scenario.rules = Rules {
        max_attempts: 1,
        settle_ms: 30_000,
        retry_wait_ms: 5_000,
        advisors: 0,
        ..scenario.rules
    };
    Driver::new(&scenario).rehearse(plan, script)
}

fn judge(name: String, trace: &Trace) -> Case {
    let mut problems: Vec<String> = check(trace).iter().map(|v| v.rule.to_owned()).collect();
    let mut ended = String::new();
    let mut as_before = None;
    let mut alerted = false;
    for item in &trace.items {
        match item {
            Item::Entry(e) if e.event() == "closed" => {
                e.payload["ended"]
                    .as_str()
                    .unwrap_or("")
                    .clone_into(&mut ended);
            }
            Item::World { fact, .. } => match fact {
                Fact::LeftAs { as_before: left } => as_before = Some(*left),
                Fact::Alerted { delivered } => alerted |= delivered,
                _ => {}
            },
            Item::Entry(_) => {}
        }
    }
    match ended.as_str() {
        "cleared" | "human_alert" if as_before != Some(true) => {
            problems.push("the target is not as it was before".to_owned());
        }
        "resolved" | "resolved_with_advice" | "cleared" | "human_alert" | "stuck" => {}
        _ => problems.push("the cycle did not end".to_owned()),
    }
    if matches!(ended.as_str(), "human_alert" | "stuck") && !alerted {
        problems.push("nobody was alerted".to_owned());
    }
    Case {
        name,
        ended,
        problems,
    }
}

/// Puts names that the simulated target has in the place of names that it has not.
fn name_services(plan: &mut Plan) {
    const WORDS: [&str; 4] = ["all", "primary", "affected", "heaviest"];
    let mut given: Vec<String> = Vec::new();
    let mut rename = |name: &mut String| {
        if WORDS.contains(&name.as_str()) || name.contains("${") {
            return;
        }
        let at = given.iter().position(|g| g == name).unwrap_or_else(|| {
            given.push(name.clone());
            given.len() - 1
        });
        NAMES[at % 2].clone_into(name);
    };
    for step in &mut plan.steps {
        let services = match &mut step.action {
            Action::Restart(a) | Action::Stop(a) => &mut a.services,
            Action::Start(a) | Action::WaitReady(a) => &mut a.services,
            Action::Signal(a) => &mut a.services,
            _ => continue,
        };
        match services {
            Services::One(name) => rename(name),
            Services::Many(names) => names.iter_mut().for_each(&mut rename),
        }
    }
}
