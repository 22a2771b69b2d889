//! What people, windows and modes allow, and what advisors may bring about.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde_json::Value;

use super::{Findings, by_hand};
use crate::fault::{DAY_MS, MINUTE_MS};
use crate::library;
use crate::trace::{Entry, Fact, Item, Trace};

/// What is decided already may begin this long after a person said hands off, in milliseconds (SAFETY 16).
const HOLD_MS: i64 = 1_000;

/// What a cycle was allowed.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent observations, not a state: a checker must not assume how they go together"
)]
struct Cycle {
    manual: bool,
    /// The plan under way needs a person, by its tier or its mode.
    needs_person: bool,
    /// It is only worked out.
    shadow: bool,
    /// Requests that were made: what each binds, and until when.
    asked: BTreeMap<String, (String, Timestamp)>,
    /// A yes that was not yet used up.
    yes: bool,
    /// Answers that a person really gave: yes or no.
    answered: BTreeMap<String, bool>,
}

/// Who says hands off.
#[derive(Default)]
struct Hands {
    /// Since when, in milliseconds since the run began.
    paused: Option<i64>,
    /// The same by the file.
    file: Option<i64>,
    /// Services, and since when.
    locked: BTreeMap<String, i64>,
    /// A mode that a person ordered.
    mode: Option<String>,
}

/// - SAFETY 1: in shadow mode nothing is done at all, but what a person orders.
/// - SAFETY 15, 16: nothing is done while a person says hands off, or in a maintenance window, whatever was decided
///   before.
/// - SAFETY 18: what an advisor brings about is a known playbook that may run freely, within its bounds.
/// - SAFETY 19: what needs a person runs after a person's yes to exactly that, once, and in time.
pub(super) fn check(trace: &Trace, found: &mut Findings) {
    let mut hands = Hands::default();
    let mut cycles: BTreeMap<&str, Cycle> = BTreeMap::new();
    let mut wall = Timestamp::default();
    for (i, item) in trace.items.iter().enumerate() {
        match item {
            Item::Entry(e) => {
                wall = e.at;
                e.workflow().clone_into(&mut found.workflow);
                if e.action == "order" {
                    hands.hear(&e.payload, e.elapsed);
                } else if !e.workflow().is_empty() {
                    let cycle = cycles.entry(e.workflow()).or_default();
                    entry(cycle, e, i, found);
                }
            }
            Item::World { at, workflow, fact } => {
                workflow.clone_into(&mut found.workflow);
                match fact {
                    Fact::PauseFile { there } => hands.file = there.then_some(*at),
                    Fact::Answered { id, yes } => {
                        let cycle = cycles.entry(workflow).or_default();
                        cycle.answered.insert(id.clone(), *yes);
                    }
                    Fact::StepRan { interrupts, .. } => {
                        let cycle = cycles.entry(workflow).or_default();
                        allowed(trace, &hands, cycle, (*at, wall), i, found);
                        let locked = |s: &String| {
                            hands
                                .locked
                                .get(s)
                                .is_some_and(|since| at - since > HOLD_MS)
                        };
                        let free = !interrupts.iter().any(locked);
                        found.expect(free, 15, i, "nobody touches what a person has locked");
                        let mode = hands.mode.as_deref().unwrap_or(trace.limits.mode);
                        let acts = cycle.manual || !cycle.shadow && mode != "shadow";
                        found.expect(acts, 1, i, "in shadow mode nothing is done");
                        found.expect(
                            cycle.manual || !cycle.needs_person || cycle.yes,
                            19,
                            i,
                            "what needs a person runs after a person's yes",
                        );
                    }
                    Fact::RollbackBegan => {
                        let cycle = cycles.entry(workflow).or_default();
                        allowed(trace, &hands, cycle, (*at, wall), i, found);
                    }
                    _ => {}
                }
            }
        }
    }
    found.workflow.clear();
}

impl Hands {
    fn hear(&mut self, order: &Value, at: i64) {
        let service = order["service"].as_str().map(str::to_owned);
        match (order["order"].as_str(), service) {
            (Some("pause"), None) => self.paused = Some(at),
            (Some("pause"), Some(name)) => {
                self.locked.insert(name, at);
            }
            (Some("resume"), None) => self.paused = None,
            (Some("resume"), Some(name)) => {
                self.locked.remove(&name);
            }
            (Some("set_mode"), _) if order["playbook"].is_null() => {
                self.mode = order["mode"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }
}

fn allowed(
    trace: &Trace,
    hands: &Hands,
    cycle: &Cycle,
    (at, wall): (i64, Timestamp),
    i: usize,
    found: &mut Findings,
) {
    found.expect(
        ![hands.paused, hands.file]
            .into_iter()
            .flatten()
            .any(|since| at - since > HOLD_MS),
        16,
        i,
        "nothing is done while a person says hands off",
    );
    // The record before an act is written moments before it; a window may begin in between.
    let minute = wall.as_millis().rem_euclid(DAY_MS) / MINUTE_MS;
    let inside = trace
        .limits
        .maintenance
        .is_some_and(|(from, to)| (from + 1..to).contains(&minute));
    found.expect(
        cycle.manual || !inside,
        15,
        i,
        "nothing is done in a maintenance window",
    );
}

fn entry(cycle: &mut Cycle, e: &Entry, i: usize, found: &mut Findings) {
    let p = &e.payload;
    match e.event() {
        "opened" => cycle.manual = by_hand(p),
        "playbook_selected" => cycle.takes(&p["plan"], &p["mode"]),
        "advised" => {
            cycle.takes(&p["advice"]["plan"], &p["mode"]);
            known(&p["advice"]["plan"], i, found);
        }
        "approval_requested" => {
            let request = &p["request"];
            let until = request["expires_at"].as_str().unwrap_or("");
            let until = Timestamp::parse(until).unwrap_or_default();
            cycle.asked.insert(
                request["id"].as_str().unwrap_or("").to_owned(),
                (request["binds"].as_str().unwrap_or("").to_owned(), until),
            );
        }
        "approved" => {
            let id = p["id"].as_str().unwrap_or("");
            let in_time = cycle
                .asked
                .remove(id)
                .is_some_and(|(binds, until)| p["binds"] == binds.as_str() && e.at < until);
            found.expect(
                in_time && cycle.answered.get(id) == Some(&true),
                19,
                i,
                "a yes is a person's, to exactly what was asked, in time, and once",
            );
            cycle.yes = true;
        }
        // It is used up.
        "run_concluded" => cycle.yes = false,
        _ => {}
    }
}

impl Cycle {
    fn takes(&mut self, plan: &Value, mode: &Value) {
        let free = matches!(plan["tier"].as_str(), Some("tier_1" | "tier_2"));
        self.needs_person = !free || mode == "approve";
        self.shadow = mode == "shadow";
    }
}

/// SAFETY 18
fn known(plan: &Value, i: usize, found: &mut Findings) {
    let name = plan["playbook"].as_str().unwrap_or("");
    let Some(known) = library::known().get(name) else {
        found.expect(false, 18, i, "an advisor's plan is a known playbook");
        return;
    };
    found.expect(known.free, 18, i, "an advisor's plan may run freely");
    let within = plan["params"].as_object().is_some_and(|params| {
        params
            .iter()
            .all(|(name, value)| match known.params.get(name) {
                None => false,
                Some(None) => true,
                Some(Some((min, max))) => {
                    value.as_f64().is_some_and(|v| (*min..=*max).contains(&v))
                }
            })
    });
    found.expect(
        within,
        18,
        i,
        "an advisor's parameters are within their bounds",
    );
}
