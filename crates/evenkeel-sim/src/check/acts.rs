//! What was done to the target, and whether it was allowed just then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Findings, Story, What};
use crate::trace::{Extent, Fact};

/// What is known of the attempt under way.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent observations, not a state: a checker must not assume how they go together"
)]
struct Attempt {
    /// A snapshot of this attempt is on record, and really exists.
    snapshot: bool,
    /// Recorded intents that were not yet acted on.
    intents: BTreeSet<usize>,
    /// Of each step of the plan, whether its failure ends the attempt.
    ends_on_failure: Vec<bool>,
    /// The first step whose failure ended the attempt.
    ended_at: Option<usize>,
    /// How often each step ran.
    ran: BTreeMap<usize, u32>,
    /// Steps that ran and whose result is not on record.
    unknown: BTreeSet<usize>,
    /// Something was changed and not yet taken back.
    changed: bool,
    /// The last conclusive result of it: a re-test that passed, and where it is watched a signal that stayed normal.
    normal: bool,
    /// A good rollback is on record.
    rolled_back: bool,
}

impl Attempt {
    /// A plan was chosen.
    fn takes(&mut self, plan: &Value) {
        self.ends_on_failure = ends_on_failure(plan);
    }
}

/// - SAFETY 8: no step runs without a snapshot of this attempt, and nothing acts after a snapshot failed.
/// - SAFETY 7: each run of a step has an intent of its own that was on record before; a rollback has a reason that
///   is on record.
/// - SAFETY 6: a step that must not run twice runs once in an attempt, whatever became of it; one whose outcome is
///   unknown is looked at, and that is on record, before it runs again.
/// - DESIGN 3: what a failed attempt changed is taken back before anything else acts, and before it is counted.
/// - Nothing runs after a step whose failure ends the attempt.
pub(super) fn check(story: &Story<'_>, found: &mut Findings) {
    let mut made: BTreeSet<&str> = BTreeSet::new();
    let mut snapshot_failed = false;
    let mut a = Attempt::default();
    let mut before = "";
    for (i, what) in story {
        let i = *i;
        let payload = what.payload();
        match what {
            What::Fact(Fact::SnapshotMade { id }) => {
                found.expect(
                    !a.changed,
                    9,
                    i,
                    "no new attempt begins over changes that were not taken back",
                );
                made.insert(id);
            }
            What::Fact(Fact::StepRan {
                step,
                repeatable,
                extent,
                ..
            }) => {
                found.expect(
                    a.snapshot,
                    8,
                    i,
                    "no step without a snapshot of its attempt",
                );
                found.expect(
                    !snapshot_failed,
                    8,
                    i,
                    "nothing acts after a snapshot failed",
                );
                found.expect(
                    a.intents.remove(step),
                    7,
                    i,
                    "a step's intent is on record before it runs",
                );
                found.expect(
                    a.ended_at.is_none_or(|failed| *step <= failed),
                    0,
                    i,
                    "nothing runs after a step whose failure ends the attempt",
                );
                let times = a.ran.entry(*step).or_default();
                *times += 1;
                found.expect(
                    *repeatable || *times == 1,
                    6,
                    i,
                    "a step that must not run twice runs once",
                );
                found.expect(
                    !a.unknown.contains(step),
                    6,
                    i,
                    "a step of unknown outcome is looked at before it runs again",
                );
                a.unknown.insert(*step);
                a.changed |= *extent != Extent::Nothing;
                a.normal = false;
            }
            What::Fact(Fact::RollbackBegan) => {
                let reason = [
                    "verified",
                    "settled",
                    "step_finished",
                    "step_refused",
                    "resumed",
                    "released",
                    "refused",
                ];
                found.expect(
                    reason.contains(&before),
                    7,
                    i,
                    "why something is taken back is on record before",
                );
            }
            _ => {}
        }
        match what.event() {
            "opened" => {
                a.ends_on_failure = ends_on_failure(&payload["plan"]);
            }
            "snapshot_taken" => {
                let id = payload["snapshot"]["id"].as_str().unwrap_or("");
                // Each snapshot serves one attempt.
                a.snapshot = made.remove(id);
                found.expect(a.snapshot, 8, i, "a snapshot on record exists");
            }
            "snapshot_failed" => snapshot_failed = true,
            "playbook_selected" => a.takes(&payload["plan"]),
            "advised" => a.takes(&payload["advice"]["plan"]),
            "step_prepared" => {
                a.intents.extend(what.step());
            }
            "step_finished" | "step_refused" => {
                if let Some(step) = what.step() {
                    a.unknown.remove(&step);
                    let ok = payload["outcome"]["ok"].as_bool() == Some(true);
                    let ends = a.ends_on_failure.get(step).copied().unwrap_or(true);
                    a.ended_at = (!ok && ends).then_some(step);
                }
            }
            // A second try found that its condition no longer holds: there is nothing left to fail.
            "step_skipped" => a.ended_at = None,
            "verified" => {
                // The look that a step of unknown outcome needs.
                a.unknown.clear();
                let v = &payload["verification"];
                a.normal = super::proves(v);
            }
            "settled" => a.normal = payload["stayed_normal"].as_bool() == Some(true),
            "rolled_back" => {
                a.rolled_back = payload["outcome"]["ok"].as_bool() == Some(true);
                a.changed &= !a.rolled_back;
                // From here on nothing may run in this attempt.
                a.snapshot = false;
                a.intents.clear();
            }
            "run_concluded" => {
                let verdict = payload["verdict"].as_str().unwrap_or("");
                found.expect(
                    match verdict {
                        "passed" => a.normal,
                        "failed" => a.rolled_back,
                        _ => verdict == "stuck" && !a.rolled_back,
                    },
                    10,
                    i,
                    "an attempt is counted as what it was",
                );
                a = Attempt {
                    changed: verdict != "passed" && a.changed,
                    ..Attempt::default()
                };
            }
            _ => {}
        }
        if matches!(what, What::Entry(_)) {
            before = what.event();
        }
    }
}

fn ends_on_failure(plan: &Value) -> Vec<bool> {
    plan["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| step["on_failure"] != "continue")
        .collect()
}
