//! How often it is tried: within one cycle, over a row of recurrences, and over the deaths of the healer.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde_json::Value;

use super::{Findings, Story};
use crate::trace::{Fact, Item, Trace};

/// Attempts of one cycle stay within the rules that the run was given: those of the mapping, with the failed ones
/// before, within `max_attempts`; those of advisors within their number; a person's plan once. The rules on record
/// are the rules that were given.
pub(super) fn within_rules(trace: &Trace, story: &Story<'_>, found: &mut Findings) {
    let limits = &trace.limits;
    let mut chosen = 0_u32;
    let mut advised = 0_u32;
    let mut asked = 0_u32;
    for (i, what) in story {
        let payload = what.payload();
        match what.event() {
            "opened" => {
                let rules = &payload["rules"];
                found.expect(
                    rules["max_attempts"] == limits.max_attempts
                        && rules["advisors"] == limits.advisors
                        && rules["settle_ms"] == limits.settle_ms,
                    3,
                    *i,
                    "the rules on record are the rules that were given",
                );
                chosen = number(&payload["prior_attempts"]);
            }
            // What is only worked out is no attempt.
            "playbook_selected" if payload["mode"] != "shadow" => {
                chosen = chosen.saturating_add(1);
                found.expect(
                    chosen <= limits.max_attempts,
                    3,
                    *i,
                    "attempts stay within the rules",
                );
            }
            "advised" | "advice_failed" => {
                asked += 1;
                advised += u32::from(what.event() == "advised");
                found.expect(
                    asked <= limits.advisors,
                    3,
                    *i,
                    "no more advisors are asked than there are",
                );
            }
            "run_concluded" if payload["chosen_by"] == "advisor" => {
                found.expect(advised > 0, 18, *i, "an advisor's attempt follows advice");
                advised = advised.saturating_sub(1);
            }
            _ => {}
        }
    }
}

/// A closed cycle, as the checker remembers it.
struct Past {
    closed_at: Timestamp,
    /// A playbook ended it.
    resolved: bool,
    /// It was gone at the end, however that came.
    healed: bool,
    /// When it was seen to be gone, after an end that was no fix.
    cleared_at: Option<Timestamp>,
    /// Failed attempts at its end, the cycle's own count.
    failed: u32,
}

/// SAFETY 4: a fix whose cause comes back within the recurrence window has used up an attempt, and gives back those
/// before it. SAFETY 5: what the healer remembers of attempts, at each of its deaths and at the end, is what the
/// entries say.
pub(super) fn remembered(trace: &Trace, found: &mut Findings) {
    // Failed attempts by anomaly type, and closed cycles by anomaly key.
    let mut failed: BTreeMap<String, u32> = BTreeMap::new();
    let mut past: BTreeMap<String, Past> = BTreeMap::new();
    // Type, key and failed attempts of each cycle: several may wait for people at once.
    let mut cycles: BTreeMap<&str, (String, String, u32)> = BTreeMap::new();
    for (i, item) in trace.items.iter().enumerate() {
        let entry = match item {
            Item::Entry(entry) => entry,
            Item::World {
                fact: Fact::Rebuilt { attempts, .. },
                ..
            } => {
                let same = without_zeros(attempts) == without_zeros(&failed);
                found.expect(same, 5, i, "failed attempts survive the healer's death");
                continue;
            }
            Item::World { .. } => continue,
        };
        let payload = &entry.payload;
        match entry.event() {
            "opened" => {
                let kind = text(&payload["anomaly"]["type"]).to_owned();
                let key = super::key_of(&payload["anomaly"]);
                let prior = number(&payload["prior_attempts"]);
                let now = failed.get(&kind).copied().unwrap_or(0);
                let by_hand = payload["trigger"] == "operator";
                let recurs = past.get(&key).filter(|p| {
                    !by_hand
                        && p.resolved
                        && entry.at.millis_since(p.closed_at) < trace.limits.recurrence_window_ms
                });
                // What has been away for long enough is a new one, unless others of its type have not.
                let quiet = trace.limits.quiet_ms;
                let long_gone = |p: &Past| {
                    p.healed
                        || p.cleared_at
                            .is_some_and(|c| entry.at.millis_since(c) >= quiet)
                };
                let of_type = past
                    .iter()
                    .filter(|(k, _)| k.split('/').next() == Some(&kind));
                let is_new = payload["trigger"] == "watchdog"
                    && past.get(&key).is_some_and(|p| !p.healed)
                    && of_type.map(|(_, p)| p).all(long_gone);
                let expected = match recurs {
                    Some(p) => now.max(p.failed) + 1,
                    None if is_new && prior == 0 => 0,
                    None => now,
                };
                found.expect(
                    prior == expected,
                    4,
                    i,
                    "a fix that did not last has used up an attempt",
                );
                let refused = payload["refusal"].is_object();
                found.expect(
                    payload["recurrence_of"].is_string() == (recurs.is_some() && !refused),
                    4,
                    i,
                    "a recurrence is called one",
                );
                if recurs.is_some() && !refused || expected == 0 && !by_hand {
                    failed.insert(kind.clone(), expected);
                }
                cycles.insert(entry.workflow(), (kind, key, expected));
            }
            "run_concluded" => {
                let Some((kind, _, of_cycle)) = cycles.get_mut(entry.workflow()) else {
                    continue;
                };
                match text(&payload["verdict"]) {
                    "passed" => {
                        failed.remove(kind);
                    }
                    _ if payload["chosen_by"] == "advisor" => {}
                    _ => {
                        *failed.entry(kind.clone()).or_default() += 1;
                        *of_cycle += 1;
                    }
                }
            }
            "closed" => {
                let Some((_, key, of_cycle)) = cycles.remove(entry.workflow()) else {
                    continue;
                };
                found.expect(
                    payload["failed_attempts"] == of_cycle,
                    5,
                    i,
                    "a cycle counts the attempts that are on record",
                );
                past.insert(
                    key.clone(),
                    Past {
                        closed_at: entry.at,
                        resolved: text(&payload["ended"]).starts_with("resolved"),
                        healed: payload["outcome"] == "success",
                        cleared_at: None,
                        failed: of_cycle,
                    },
                );
            }
            "" if entry.action == "anomaly_cleared" => {
                let cleared = text(&payload["key"]);
                // Attempts are counted by type; only the end of what no fix has ended speaks about them.
                if let Some(p) = past.get_mut(cleared).filter(|p| !p.resolved) {
                    if payload["verified"] == true {
                        past.remove(cleared);
                        failed.remove(cleared.split('/').next().unwrap_or(""));
                    } else {
                        p.cleared_at = Some(entry.at);
                    }
                }
            }
            _ => {}
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A count; a number that is none is far too many.
fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(u32::MAX)
}

fn without_zeros(attempts: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    attempts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(kind, n)| (kind.clone(), *n))
        .collect()
}
