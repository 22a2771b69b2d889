//! How cycles begin and end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Story, What};
use crate::trace::{Fact, Item, Trace};

/// Deaths in one cycle after which the healer may give up a rollback that never ends in a result: twice the three
/// after which it no longer tries a step again.
const DEATHS_BEFORE_GIVING_UP: usize = 6;

/// - Every cycle ends, within a number of entries that follows from its limits.
/// - It is closed exactly once, and nothing of it follows or came before its opening.
/// - SAFETY 10: healed means that the last re-test passed, and the signal stayed normal where there is a settle
///   window; and entries say of re-tests, rollbacks and alerts what the world said.
/// - SAFETY 20: whoever is not healed was alerted. SAFETY 9, in part: a rollback that failed ends Stuck.
pub(super) fn check(trace: &Trace, story: &Story<'_>, found: &mut Findings) {
    let entries: Vec<_> = story
        .iter()
        .filter(|(_, w)| matches!(w, What::Entry(_)))
        .collect();
    let Some((first, _)) = entries.first() else {
        // Only facts: what was done for a cycle whose opening was never recorded.
        let acted = story
            .iter()
            .find(|(_, w)| matches!(w, What::Fact(f) if acts(f)));
        found.expect(
            acted.is_none(),
            7,
            acted.map_or(0, |(i, _)| *i),
            "an act for a cycle that is not on record",
        );
        return;
    };
    let (last, closing) = *entries[entries.len() - 1];
    found.expect(
        entries[0].1.event() == "opened",
        5,
        *first,
        "a cycle's first entry opens it",
    );
    let count = |name: &str| entries.iter().filter(|(_, w)| w.event() == name).count();
    found.expect(count("opened") == 1, 5, last, "a cycle is opened once");
    // What waits for a person at the end of a run may wait on; nothing else may.
    found.expect(
        count("closed") > 0 || waits_for_people(trace, &entries),
        0,
        last,
        "every cycle ends",
    );
    found.expect(count("closed") <= 1, 0, last, "a cycle is closed once");
    found.expect(
        count("closed") == 0 || closing.event() == "closed",
        0,
        last,
        "nothing follows a closing entry",
    );
    found.expect(
        entries.len() <= entries_max(trace, story, count("resumed"), count("held")),
        0,
        last,
        "every cycle ends within its bound",
    );
    what_the_world_said(story, found);
    if closing.event() == "closed" {
        how_it_ended(trace, story, last, closing, found);
    }
}

/// SAFETY 7, 20: when the ledger takes nothing any more, people are told all the same.
pub(super) fn without_ledger(trace: &Trace, found: &mut Findings) {
    for (i, item) in trace.items.iter().enumerate() {
        if let Item::World {
            fact: Fact::LedgerRefused,
            ..
        } = item
        {
            let next = trace.items.get(i + 1);
            let told = matches!(
                next,
                Some(Item::World {
                    fact: Fact::Alerted { .. },
                    ..
                })
            );
            found.expect(told, 20, i, "people are told that the ledger takes nothing");
        }
    }
}

/// At most one cycle is at work at any time: one target, one healer. Others may wait for people, or be held.
pub(super) fn one_at_a_time(trace: &Trace, found: &mut Findings) {
    // Cycles that are not closed, each with whether it waits for a person's answer.
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    // Cycles that have begun a step of a run that is not concluded.
    let mut in_run: BTreeSet<&str> = BTreeSet::new();
    for (i, item) in trace.items.iter().enumerate() {
        let Item::Entry(e) = item else { continue };
        match e.event() {
            "" => {}
            "opened" => {
                found.expect(
                    open.values().all(|waits| *waits),
                    15,
                    i,
                    "one cycle at a time",
                );
                open.insert(e.workflow(), false);
            }
            "closed" => {
                open.remove(e.workflow());
                in_run.remove(e.workflow());
            }
            event => {
                let known = open.contains_key(e.workflow());
                found.expect(known, 5, i, "an entry of a cycle that is not open");
                match event {
                    "approval_requested" | "held" => {
                        open.insert(e.workflow(), true);
                    }
                    "step_prepared" if known => {
                        open.insert(e.workflow(), false);
                        in_run.insert(e.workflow());
                        // Neither one at work nor one that is held in the middle of its run.
                        let busy = open.values().filter(|waits| !**waits).count();
                        let alone = busy == 1 && in_run.len() == 1;
                        found.expect(alone, 15, i, "one cycle acts at a time");
                    }
                    "run_concluded" => {
                        in_run.remove(e.workflow());
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether the newest of a cycle is that it waits: for an answer, for whoever holds it, or for a turn after either. A
/// run that ends at the moment of a death leaves no time to go on.
fn waits_for_people(trace: &Trace, entries: &[&(usize, What<'_>)]) -> bool {
    let newest = entries
        .iter()
        .rev()
        .map(|(_, w)| w.event())
        .find(|e| !matches!(*e, "resumed" | "parked"))
        .unwrap_or("");
    let over = trace.scenario.end();
    let in_time = entries.last().is_some_and(
        |(_, w)| matches!(w, What::Entry(e) if over - e.elapsed < crate::fault::HOUR_MS),
    );
    in_time || matches!(newest, "approval_requested" | "held" | "approved")
}

fn acts(fact: &Fact) -> bool {
    matches!(fact, Fact::StepRan { .. } | Fact::RollbackBegan)
}

fn entries_max(trace: &Trace, story: &Story<'_>, resumed: usize, held: usize) -> usize {
    let n = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let runs = n(trace.limits.max_attempts) + n(trace.limits.advisors) + 1;
    // Each try of a step is prepared and finished; how many steps and tries there are, the plans say.
    let tries = |plan: &serde_json::Value| -> usize {
        let steps = plan["steps"].as_array();
        let of = |s: &serde_json::Value| {
            1 + usize::try_from(s["retries"].as_u64().unwrap_or(0)).unwrap_or(0)
        };
        steps.into_iter().flatten().map(of).sum()
    };
    let steps = story
        .iter()
        .map(|(_, w)| {
            let p = w.payload();
            tries(&p["plan"]).max(tries(&p["advice"]["plan"]))
        })
        .max()
        .unwrap_or(0);
    // Snapshot, selection, request, answer, look, re-test, settling, rollback, conclusion, wait, advice.
    let run = 11 + 2 * steps;
    // After a stop: parked, resumed, and what was under way once more (a probe and a step, or re-test and settling).
    runs * run + 3 + 6 * resumed + 5 * held
}

fn how_it_ended(
    trace: &Trace,
    story: &Story<'_>,
    last: usize,
    closing: What<'_>,
    found: &mut Findings,
) {
    let ended = closing.payload()["ended"].as_str().unwrap_or("");
    let healed = match ended {
        "resolved" | "resolved_with_advice" | "cleared" => true,
        "human_alert" | "stuck" | "shadow" => false,
        _ => {
            found.expect(false, 0, last, "a cycle ends in a way that is known");
            return;
        }
    };
    let outcome = closing.payload()["outcome"].as_str();
    found.expect(
        outcome
            == Some(match ended {
                "shadow" => "skipped",
                _ if healed => "success",
                _ => "failed",
            }),
        0,
        last,
        "the closing entry's outcome is its end",
    );
    let last_fact = |wanted: fn(&Fact) -> bool| {
        story.iter().rev().find_map(|(_, w)| match w {
            What::Fact(f) if wanted(f) => Some(*f),
            _ => None,
        })
    };
    // Whoever said no knows.
    let denied = story.iter().any(|(_, w)| w.event() == "denied");
    if !healed && !denied {
        let tried = last_fact(|f| matches!(f, Fact::Alerted { .. }));
        found.expect(
            tried.is_some(),
            20,
            last,
            "whoever is not healed was alerted",
        );
        let recorded = story.iter().any(|(_, w)| w.event() == "alerted");
        found.expect(recorded, 20, last, "an alert is on record");
    }
    if ended.starts_with("resolved") {
        let looked = last_fact(|f| matches!(f, Fact::Looked { .. }));
        found.expect(
            looked == Some(&Fact::Looked { normal: true }),
            10,
            last,
            "resolved means that the last re-test passed",
        );
        let watched = last_fact(|f| matches!(f, Fact::Looked { .. } | Fact::Watched { .. }));
        found.expect(
            trace.limits.settle_ms == 0 || watched == Some(&Fact::Watched { normal: true }),
            10,
            last,
            "resolved means that the signal stayed normal",
        );
    }
    let failed_rollback = story.iter().position(|(_, w)| {
        w.event() == "rolled_back" && w.payload()["outcome"]["ok"].as_bool() != Some(true)
    });
    let deaths = story
        .iter()
        .filter(|(_, w)| w.payload()["after_crash"].as_bool() == Some(true))
        .count();
    match failed_rollback {
        Some(at) => {
            found.expect(ended == "stuck", 9, last, "a failed rollback ends stuck");
            let acted = story[at..]
                .iter()
                .find(|(_, w)| matches!(w, What::Fact(f) if acts(f)));
            found.expect(
                acted.is_none(),
                9,
                acted.map_or(last, |(i, _)| *i),
                "nothing acts after a failed rollback",
            );
        }
        None => found.expect(
            ended != "stuck" || deaths >= DEATHS_BEFORE_GIVING_UP,
            9,
            last,
            "stuck means that a rollback failed",
        ),
    }
}

/// SAFETY 10: a record says what the world said, not what would be nice.
fn what_the_world_said(story: &Story<'_>, found: &mut Findings) {
    let (mut looked, mut watched, mut rolled_back, mut alerted) = (None, None, None, None);
    for (i, what) in story {
        let payload = what.payload();
        match what {
            What::Fact(Fact::Looked { normal }) => looked = Some(*normal),
            What::Fact(Fact::Watched { normal }) => watched = Some(*normal),
            What::Fact(Fact::RolledBack { said_ok, complete }) => {
                rolled_back = Some((*said_ok, *complete));
            }
            What::Fact(Fact::Alerted { delivered }) => alerted = Some(*delivered),
            _ => {}
        }
        match what.event() {
            "verified" => {
                let v = &payload["verification"];
                let normal = super::proves(v);
                found.expect(looked == Some(normal), 10, *i, "a re-test is what it was");
                let result = if normal { "success" } else { "failed" };
                let written = matches!(what, What::Entry(e) if e.result == result);
                found.expect(written, 10, *i, "a re-test is written down as what it was");
                looked = None;
            }
            "settled" => {
                let normal = payload["stayed_normal"].as_bool();
                found.expect(watched == normal, 10, *i, "a settle window is what it was");
                watched = None;
            }
            "rolled_back" => {
                let ok = payload["outcome"]["ok"].as_bool();
                let said = rolled_back.map(|(said_ok, _)| said_ok);
                found.expect(said == ok, 9, *i, "a rollback is what it was");
                found.expect(
                    ok != Some(true) || rolled_back.is_some_and(|(_, complete)| complete),
                    9,
                    *i,
                    "after a good rollback the target is as it was at the snapshot",
                );
                rolled_back = None;
            }
            "alerted" => {
                let delivered = payload["alert"]["delivered"]
                    .as_array()
                    .map(|channels| !channels.is_empty());
                found.expect(alerted == delivered, 20, *i, "an alert is what it was");
                alerted = None;
            }
            _ => {}
        }
    }
}
