//! How much was done, whatever playbooks say: budgets, breaker, capacity, and how often people were called.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::Timestamp;

use super::{Findings, by_hand};
use crate::fault::{DAY_MS, HOUR_MS};
use crate::trace::{Fact, Item, Trace};

/// What is known as the trace goes on.
#[derive(Default)]
struct Seen<'a> {
    /// Cycles that a person opened with a plan.
    manual: BTreeSet<&'a str>,
    /// The service of each cycle's anomaly; none: the first one.
    service: BTreeMap<&'a str, String>,
    /// The attempt under way of each cycle, by its run id, and when it began by the wall clock.
    run: BTreeMap<&'a str, (&'a str, Timestamp)>,
    /// Attempts that have been counted, by run id.
    counted: BTreeSet<&'a str>,
    /// The clock was set while a cycle was open: what was within an hour then need not be now.
    clock_moved: BTreeSet<&'a str>,
    /// Attempts that acted: when, by the wall clock, and for which service.
    heals: Vec<(Timestamp, String)>,
    /// Interruptions: when, by the wall clock, and of which service.
    interruptions: Vec<(Timestamp, String)>,
    /// Cycles that have concluded an attempt.
    acted: BTreeSet<&'a str>,
    failed_in_row: u32,
    broken: bool,
    stuck: bool,
    /// Cycles that were opened while more was down than a healer should touch.
    storms: BTreeSet<&'a str>,
    roots_down: usize,
    wall: Timestamp,
}

/// - SAFETY 3: attempts stay within the hour's and the day's budget, in all and for each service, and interruptions of
///   a service within the hour's; after so many failed cycles in a row nothing is done until a person says so; after a
///   failed rollback neither.
/// - SAFETY 13: of several instances enough stay up; when very much is down at once nothing is touched.
pub(super) fn check(trace: &Trace, found: &mut Findings) {
    let l = &trace.limits;
    let mut seen = Seen::default();
    for (i, item) in trace.items.iter().enumerate() {
        match item {
            Item::Entry(e) => {
                seen.wall = e.at;
                let workflow = e.workflow();
                match e.event() {
                    "opened" => {
                        if by_hand(&e.payload) {
                            seen.manual.insert(workflow);
                        } else if seen.roots_down >= l.storm_services as usize
                            && 2 * seen.roots_down > trace.scenario.services.len()
                        {
                            seen.storms.insert(workflow);
                        }
                        let service = e.payload["anomaly"]["service"].as_str();
                        let first = trace.scenario.services[0].name;
                        seen.service
                            .insert(workflow, service.unwrap_or(first).to_owned());
                    }
                    "run_concluded" => {
                        seen.acted.insert(workflow);
                    }
                    "closed" => close(&mut seen, l.breaker_cycles, workflow, &e.payload),
                    "" if e.action == "order" => match e.payload["order"].as_str() {
                        Some("reset_breaker") => {
                            seen.failed_in_row = 0;
                            seen.broken = false;
                        }
                        Some("unstick") => seen.stuck = false,
                        _ => {}
                    },
                    _ => {}
                }
                if let Some(run) = e.payload["run_id"].as_str()
                    && seen.run.get(workflow).is_none_or(|(of, _)| *of != run)
                {
                    seen.run.insert(workflow, (run, e.at));
                }
            }
            Item::World { workflow, fact, .. } => match fact {
                Fact::ClockSet { .. } => {
                    seen.clock_moved.extend(seen.run.keys().copied());
                    seen.clock_moved.insert(workflow);
                }
                Fact::Deciding { roots_down } => seen.roots_down = *roots_down,
                Fact::StepRan {
                    interrupts, down, ..
                } => {
                    workflow.clone_into(&mut found.workflow);
                    step(trace, &mut seen, i, workflow, (interrupts, down), found);
                }
                _ => {}
            },
        }
    }
    found.workflow.clear();
}

fn close<'a>(
    seen: &mut Seen<'a>,
    breaker_cycles: u32,
    workflow: &'a str,
    payload: &serde_json::Value,
) {
    if payload["outcome"] == "success" {
        seen.failed_in_row = 0;
    } else if seen.acted.contains(workflow) {
        seen.failed_in_row += 1;
        seen.broken |= seen.failed_in_row >= breaker_cycles;
    }
    seen.stuck |= payload["ended"] == "stuck";
    seen.run.remove(workflow);
}

/// The first step of an attempt: the attempt is counted.
fn heal(trace: &Trace, seen: &mut Seen<'_>, i: usize, workflow: &str, found: &mut Findings) {
    let Some((run, now)) = seen.run.get(workflow).copied() else {
        return;
    };
    if !seen.counted.insert(run) {
        return;
    }
    let service = seen.service.get(workflow).cloned().unwrap_or_default();
    let before = |span: i64, of: Option<&str>| {
        let within = |t: &&(Timestamp, String)| {
            now.millis_since(t.0) < span && of.is_none_or(|name| name == t.1)
        };
        u32::try_from(seen.heals.iter().filter(within).count()).unwrap_or(u32::MAX)
    };
    let used = [
        before(HOUR_MS, None),
        before(DAY_MS, None),
        before(HOUR_MS, Some(&service)),
        before(DAY_MS, Some(&service)),
    ];
    if !seen.manual.contains(workflow) && !seen.clock_moved.contains(workflow) {
        let within = used.iter().zip(trace.limits.heals).all(|(n, max)| *n < max);
        found.expect(within, 3, i, "attempts stay within the budget");
    }
    seen.heals.push((now, service));
}

fn step(
    trace: &Trace,
    seen: &mut Seen<'_>,
    i: usize,
    workflow: &str,
    (interrupts, down): (&[String], &[String]),
    found: &mut Findings,
) {
    heal(trace, seen, i, workflow, found);
    let manual = seen.manual.contains(workflow);
    let now = seen.wall;
    found.expect(
        !seen.stuck,
        9,
        i,
        "after a failed rollback nothing is done until a person says so",
    );
    found.expect(
        manual || !seen.broken,
        3,
        i,
        "after failures in a row nothing is done until a person says so",
    );
    found.expect(
        !seen.storms.contains(workflow),
        13,
        i,
        "nothing is touched when very much is down at once",
    );
    for service in interrupts {
        let within = |t: &&(Timestamp, String)| t.1 == *service && now.millis_since(t.0) < HOUR_MS;
        let used = seen.interruptions.iter().filter(within).count();
        found.expect(
            manual
                || seen.clock_moved.contains(workflow)
                || used < trace.limits.interruptions as usize,
            3,
            i,
            "interruptions of a service stay within the budget",
        );
        seen.interruptions.push((now, service.clone()));
        let (all, already) = instances(trace, service, down);
        if all >= 2 && !down.contains(service) {
            found.expect(
                already < may_be_down(all, trace.limits.capacity),
                13,
                i,
                "of several instances enough stay up",
            );
        }
    }
}

/// How many instances the service has that this one belongs to, and how many of them are down.
fn instances(trace: &Trace, service: &str, down: &[String]) -> (usize, usize) {
    let services = &trace.scenario.services;
    let group = services
        .iter()
        .find(|s| s.name == service)
        .map(|s| s.instance_of);
    let of_it = services.iter().filter(|s| Some(s.instance_of) == group);
    let names: Vec<&str> = of_it.map(|s| s.name).collect();
    let already = down.iter().filter(|d| names.contains(&d.as_str())).count();
    (names.len(), already)
}

/// The least of percentage, cap and what is above the floor; one may always be touched.
fn may_be_down(all: usize, [min_up, percent, max]: [u32; 3]) -> usize {
    let by_percent = all * percent as usize / 100;
    let by_floor = all.saturating_sub(min_up as usize);
    by_percent.min(by_floor).min(max as usize).max(1)
}

/// SAFETY 3: whoever was alerted about something is not alerted about the same again, unless it was healed in between,
/// has been away for long, or a person has said something, or the run that held it back goes on, or Evenkeel was started
/// again.
pub(super) fn alerts(trace: &Trace, found: &mut Findings) {
    let mut told: BTreeMap<String, Option<Timestamp>> = BTreeMap::new();
    let mut keys: BTreeMap<&str, String> = BTreeMap::new();
    // Cycles that are not closed and have called a person, and whether a person has said something since.
    let mut calls: BTreeMap<&str, bool> = BTreeMap::new();
    // Alerted because another run was held in its middle: until that goes on.
    let mut by_hold: Vec<String> = Vec::new();
    for (i, item) in trace.items.iter().enumerate() {
        let e = match item {
            Item::Entry(e) => e,
            Item::World {
                fact: Fact::Died { .. },
                ..
            } => {
                told.clear();
                continue;
            }
            Item::World { .. } => continue,
        };
        match e.event() {
            "opened" if !by_hand(&e.payload) => {
                let key = super::key_of(&e.payload["anomaly"]);
                let quiet = trace.limits.quiet_ms;
                let again = told
                    .get(&key)
                    .is_some_and(|cleared| cleared.is_none_or(|at| e.at.millis_since(at) < quiet));
                e.workflow().clone_into(&mut found.workflow);
                found.expect(!again, 3, i, "people are called once for the same");
                if e.payload["refusal"]["kind"] == "held" {
                    by_hold.push(key.clone());
                }
                keys.insert(e.workflow(), key);
            }
            "released" => {
                for key in by_hold.drain(..) {
                    told.remove(&key);
                }
            }
            "alerted" => {
                calls.insert(e.workflow(), false);
            }
            "closed" => {
                let ended = e.payload["ended"].as_str().unwrap_or("");
                let answered = calls.remove(e.workflow()) == Some(true);
                if let Some(key) = keys.remove(e.workflow()) {
                    // What was only worked out may be worked out again when the mode is another.
                    if matches!(ended, "human_alert" | "stuck") && !answered {
                        told.insert(key, None);
                    } else {
                        told.remove(&key);
                    }
                }
            }
            "" if e.action == "order" => {
                told.clear();
                for answered in calls.values_mut() {
                    *answered = true;
                }
            }
            "" if e.action == "anomaly_cleared" => {
                let key = e.payload["key"].as_str().unwrap_or("");
                if e.payload["verified"] == true {
                    told.remove(key);
                } else if let Some(cleared) = told.get_mut(key) {
                    *cleared = Some(e.at);
                }
            }
            _ => {}
        }
    }
    found.workflow.clear();
}
