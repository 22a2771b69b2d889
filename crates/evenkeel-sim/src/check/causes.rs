//! Acts and what they were for: judged by what was really wrong in the world.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::fault::{FaultKind, HOUR_MS, TelemetryKind};
use crate::trace::{Fact, Item, Trace};

/// What is known of the world as the trace goes on.
#[derive(Default)]
struct World {
    /// Something was wrong with the target at some time, for which nobody can say how long it is felt: a fault, a
    /// plan of a person's, a setting that somebody changed, an act of Evenkeel's own.
    touched: bool,
    /// Measurements are at fault, or were within the last hour, in milliseconds since the run began.
    misled_until: i64,
    misled: BTreeMap<u8, u32>,
    /// They were plausible lies: no detector can know.
    lied_to: bool,
    /// Faults that are there.
    there: BTreeSet<usize>,
}

/// - SAFETY 2: while nothing was ever wrong, nothing is done, whatever noise, deploys, jobs, visitors and restarts by
///   a person there are.
/// - SAFETY 11: nor when only the measurements are at fault, or the clock.
/// - SAFETY 14: what is acted on was found since the healer was started last, not before.
pub(super) fn check(trace: &Trace, found: &mut Findings) {
    let mut world = World::default();
    let mut groundless: BTreeMap<&str, u8> = BTreeMap::new();
    let mut raised: BTreeMap<String, i64> = BTreeMap::new();
    for (i, item) in trace.items.iter().enumerate() {
        match item {
            Item::Entry(e) if e.event() == "opened" => {
                let by_hand = e.payload["trigger"] == "operator";
                if by_hand {
                    world.touched = true;
                    continue;
                }
                if !world.touched && !world.lied_to {
                    let misled = e.elapsed < world.misled_until || !world.misled.is_empty();
                    groundless.insert(e.workflow(), if misled { 11 } else { 2 });
                }
                let key = super::key_of(&e.payload["anomaly"]);
                e.workflow().clone_into(&mut found.workflow);
                let seen = raised.remove(&key);
                found.expect(
                    seen.is_some(),
                    14,
                    i,
                    "what is acted on was found since the last start",
                );
                // A cycle for something else may have been in between; no more than that.
                found.expect(
                    seen.is_none_or(|at| e.elapsed - at < 6 * HOUR_MS),
                    14,
                    i,
                    "what is acted on was looked at shortly before",
                );
            }
            Item::World { at, workflow, fact } => match fact {
                Fact::FaultBegan { fault, .. } => {
                    world.touched = true;
                    world.there.insert(*fault);
                }
                Fact::FaultEnded { fault } => {
                    world.there.remove(fault);
                }
                Fact::Meddled { .. } => world.touched = true,
                Fact::ClockSet { .. } => world.misled_until = at + HOUR_MS,
                Fact::TelemetryBegan { kind } => {
                    world.lied_to |= *kind == TelemetryKind::Wrong;
                    *world.misled.entry(*kind as u8).or_default() += 1;
                }
                Fact::TelemetryEnded { kind } => {
                    let n = world.misled.entry(*kind as u8).or_default();
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        world.misled.remove(&(*kind as u8));
                    }
                    world.misled_until = at + HOUR_MS;
                }
                Fact::Died { .. } => raised.clear(),
                Fact::Raised { key } | Fact::StillThere { key } => {
                    raised.insert(key.clone(), *at);
                }
                Fact::StepRan { changes: true, .. } => {
                    if let Some(number) = groundless.get(workflow.as_str()) {
                        workflow.clone_into(&mut found.workflow);
                        let rule = if *number == 11 {
                            "bad measurements lead to no act"
                        } else {
                            "without a fault nothing is done"
                        };
                        found.expect(false, *number, i, rule);
                    }
                    world.touched = true;
                }
                _ => {}
            },
            Item::Entry(_) => {}
        }
    }
    found.workflow.clear();
}

/// SAFETY 12: a victim of load or of a shared dependency is not restarted again and again: within a day not more often
/// than the budget of one service has it, nor than each return of its two symptoms gives attempts.
pub(super) fn victims(trace: &Trace, found: &mut Findings) {
    let mut there: BTreeMap<usize, FaultKind> = BTreeMap::new();
    let mut restarts: Vec<i64> = Vec::new();
    let l = &trace.limits;
    let by_returns = 2 * l.flaps * (l.max_attempts + l.advisors);
    let most = by_returns.min(l.heals[3]) as usize;
    for (i, item) in trace.items.iter().enumerate() {
        let Item::World { at, workflow, fact } = item else {
            continue;
        };
        match fact {
            Fact::FaultBegan { fault, kind, .. } => {
                there.insert(*fault, *kind);
                restarts.clear();
            }
            Fact::FaultEnded { fault } => {
                there.remove(fault);
                restarts.clear();
            }
            Fact::StepRan {
                action: "restart", ..
            } if !there.is_empty() && there.values().all(|k| k.restart_is_no_remedy()) => {
                restarts.retain(|t| at - t < 24 * HOUR_MS);
                restarts.push(*at);
                workflow.clone_into(&mut found.workflow);
                found.expect(
                    restarts.len() <= most,
                    12,
                    i,
                    "a victim of load or of a shared dependency is not restarted in a loop",
                );
            }
            _ => {}
        }
    }
    found.workflow.clear();
}
