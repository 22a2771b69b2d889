//! How cycles are written down, and read back.
//!
//! Every event of a cycle becomes exactly one ledger entry. Its payload holds the event whole (that is what replay
//! reads) and beside it what people and their `sqlite3` and `jq` lines look for.

use serde_json::{Value, json};

use crate::anomaly::format_measure;
use crate::cycle::{Cycle, Outcome, Run, RunVerdict};
use crate::event::{Event, Stamped};
use crate::healer::HealerEvent;
use crate::order::{Order, Ordered};
use crate::time::Timestamp;

/// The subsystem of every entry that replay reads.
pub const SUBSYSTEM: &str = "orchestrator";
/// The actor of every entry that replay reads.
pub const ACTOR: &str = "post_boot_orchestrator";
/// The action of a cycle's closing entry.
pub const COMPLETE_HEALING_CYCLE: &str = "complete_healing_cycle";
/// The action of the entry that counts an attempt; the `playbook_runs` view reads it.
pub const COMPLETE_PLAYBOOK_RUN: &str = "complete_playbook_run";
/// The action of the entry that an anomaly is gone.
pub const ANOMALY_CLEARED: &str = "anomaly_cleared";
/// The action of the entry that a person ordered something.
pub const ORDER: &str = "order";

/// An entry for the ledger, before it has a place in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What happened, for queries.
    pub action: &'static str,
    /// What it happened to.
    pub resource: String,
    /// `success`, `failed`, `started`, `skipped` or `noted`.
    pub result: &'static str,
    /// Everything.
    pub payload: Value,
}

/// An entry that replay cannot read.
#[derive(Debug, thiserror::Error)]
#[error(
    "entry {action} cannot be replayed: {reason}; the ledger was written by a newer Evenkeel or is damaged"
)]
pub struct UnreadableRecord {
    action: String,
    reason: String,
}

/// The entry for an event of a cycle. `after` is the cycle with the event applied.
pub fn of_event(after: &Cycle, stamped: &Stamped) -> Record {
    let (action, result) = action_and_result(after, &stamped.event);
    let mut payload = match serde_json::to_value(stamped) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    payload.insert("run_id".into(), json!(after.run().map(|r| &r.run_id)));
    match &stamped.event {
        Event::StepPrepared { step, .. }
        | Event::StepFinished { step, .. }
        | Event::StepSkipped { step, .. }
        | Event::StepRefused { step, .. } => {
            let run = after.run();
            payload.insert("playbook".into(), json!(run.map(|r| &r.plan.playbook)));
            payload.insert(
                "step_id".into(),
                json!(run.and_then(|r| r.plan.steps.get(*step)).map(|s| &s.id)),
            );
        }
        Event::RunConcluded => {
            if let Some(run) = after.run() {
                payload.extend(run_summary(after, run));
            }
        }
        Event::Closed { outcome } => payload.extend(closing_summary(after, *outcome)),
        _ => {}
    }
    Record {
        at: stamped.at,
        action,
        resource: after.anomaly.subject().to_owned(),
        result,
        payload: Value::Object(payload),
    }
}

/// The entry that an anomaly is gone.
pub fn of_cleared(key: &str, verified: bool, at: Timestamp) -> Record {
    Record {
        at,
        action: ANOMALY_CLEARED,
        resource: key.to_owned(),
        result: "noted",
        payload: json!({"key": key, "verified": verified}),
    }
}

/// The entry for an order.
pub fn of_order(ordered: &Ordered) -> Record {
    let resource = match &ordered.order {
        Order::SetMode {
            playbook: Some(name),
            ..
        }
        | Order::Pause {
            service: Some(name),
            ..
        }
        | Order::Resume {
            service: Some(name),
        }
        | Order::Silence { what: name, .. }
        | Order::Unsilence { what: name }
        | Order::Repaired {
            what: Some(name), ..
        } => name.clone(),
        other => other.name().to_owned(),
    };
    Record {
        at: ordered.at,
        action: ORDER,
        resource,
        result: "noted",
        payload: serde_json::to_value(ordered).unwrap_or(Value::Null),
    }
}

/// Reads an entry of [`SUBSYSTEM`] back. Entries that change nothing in the healer give `None`.
pub fn read_back(
    action: &str,
    at: Timestamp,
    payload: &str,
) -> Result<Option<HealerEvent>, UnreadableRecord> {
    let unreadable = |reason: String| UnreadableRecord {
        action: action.to_owned(),
        reason,
    };
    let value: Value = serde_json::from_str(payload).map_err(|e| unreadable(e.to_string()))?;
    if action == ANOMALY_CLEARED {
        let key = value["key"]
            .as_str()
            .ok_or_else(|| unreadable("it has no `key`".into()))?;
        return Ok(Some(HealerEvent::AnomalyCleared {
            key: key.to_owned(),
            verified: value["verified"].as_bool().unwrap_or(false),
            at,
        }));
    }
    if action == ORDER {
        let ordered = serde_json::from_value(value).map_err(|e| unreadable(e.to_string()))?;
        return Ok(Some(HealerEvent::Ordered(ordered)));
    }
    if value.get("event").is_none() {
        return Ok(None);
    }
    let stamped: Stamped = serde_json::from_value(value).map_err(|e| unreadable(e.to_string()))?;
    Ok(Some(HealerEvent::Cycle(stamped)))
}

fn action_and_result(after: &Cycle, event: &Event) -> (&'static str, &'static str) {
    let ok = |good: bool| if good { "success" } else { "failed" };
    match event {
        Event::Opened { .. } => ("start_healing_cycle", "started"),
        Event::SnapshotTaken { .. } => ("take_snapshot", "success"),
        Event::SnapshotFailed { .. } => ("take_snapshot", "failed"),
        Event::PlaybookSelected { .. } => ("select_playbook", "success"),
        Event::NoPlaybook { .. } => ("select_playbook", "failed"),
        Event::StepPrepared { .. } => ("start_step", "started"),
        Event::StepSkipped { .. } => ("skip_step", "skipped"),
        Event::StepRefused { .. } => ("refuse_step", "failed"),
        Event::StepFinished { outcome, .. } => ("finish_step", ok(outcome.ok)),
        Event::Verified { verification } => ("verify_healing", ok(verification.proves())),
        Event::Settled { stayed_normal, .. } => ("settle", ok(*stayed_normal)),
        Event::RolledBack { outcome } => ("roll_back", ok(outcome.ok)),
        Event::RunConcluded => (
            COMPLETE_PLAYBOOK_RUN,
            ok(after.run().and_then(|r| r.verdict) == Some(RunVerdict::Passed)),
        ),
        Event::RetryDue { .. } => ("retry_due", "noted"),
        Event::Advised { .. } => ("ask_advisor", "success"),
        Event::AdviceFailed { .. } => ("ask_advisor", "failed"),
        Event::ApprovalRequested { .. } => ("request_approval", "started"),
        Event::Approved { .. } => ("approve", "success"),
        Event::Denied { .. } => ("deny", "failed"),
        Event::ApprovalExpired { .. } => ("expire_approval", "failed"),
        Event::Rechecked { .. } => ("recheck", "noted"),
        Event::Held { .. } => ("hold_cycle", "noted"),
        Event::Released => ("release_cycle", "noted"),
        Event::Refused { .. } => ("refuse_healing", "failed"),
        Event::Alerted { alert } => ("alert_human", ok(!alert.delivered.is_empty())),
        Event::Closed {
            outcome: Outcome::Shadow,
        } => (COMPLETE_HEALING_CYCLE, "skipped"),
        Event::Closed { outcome } => (COMPLETE_HEALING_CYCLE, ok(outcome.healed())),
        Event::Parked { .. } => ("park_cycle", "noted"),
        Event::Resumed { .. } => ("resume_cycle", "noted"),
    }
}

fn run_summary(cycle: &Cycle, run: &Run) -> serde_json::Map<String, Value> {
    let finished = run.finished_at.unwrap_or(run.started_at);
    object(json!({
        "playbook": run.plan.playbook,
        "chosen_by": run.plan.chosen_by,
        "anomaly_type": cycle.anomaly.kind,
        "attempt": run.attempt,
        "started_at": run.started_at,
        "finished_at": finished,
        "duration_ms": finished.millis_since(run.started_at),
        "steps": run.steps.len(),
        "verified": run.verdict == Some(RunVerdict::Passed),
        "verdict": run.verdict,
    }))
}

fn closing_summary(cycle: &Cycle, outcome: Outcome) -> serde_json::Map<String, Value> {
    let run = cycle.run();
    let escalation = (!cycle.advice.is_empty() || !cycle.advice_failures.is_empty()).then(|| {
        json!({
            "advice": cycle.advice.iter().map(|a| json!({
                "advisor": a.advisor,
                "suggested_action": a.suggested_action,
                "confidence": a.confidence,
                "reasoning": a.reasoning,
                "recommended_config": a.recommended_config,
                "guidance_file": a.guidance_file,
            })).collect::<Vec<_>>(),
            "failures": cycle.advice_failures.iter().map(|(advisor, reason)| json!({
                "advisor": advisor, "reason": reason,
            })).collect::<Vec<_>>(),
        })
    });
    object(json!({
        "anomaly": cycle.anomaly,
        "trigger": cycle.trigger,
        "playbook": run.map(|r| &r.plan.playbook),
        "params": run.map(|r| &r.plan.params),
        "execution": run.map(|r| json!({
            "success": r.steps.iter().all(|s| s.outcome.as_ref().is_none_or(|o| o.ok)),
            "steps": r.steps.len(),
            "actions": r.steps.iter().map(|s| json!({
                "id": r.plan.steps.get(s.step).map(|p| &p.id),
                "did": s.prepared.as_ref().map(|p| &p.summary),
                "ok": s.outcome.as_ref().map(|o| o.ok),
                "message": s.outcome.as_ref().map(|o| &o.message),
                "skipped": s.note,
            })).collect::<Vec<_>>(),
        })),
        "verification": run.and_then(|r| r.verification.as_ref()).map(|v| {
            let mut value = serde_json::to_value(v).unwrap_or(Value::Null);
            // The specification's name for the measure after: `error_rate_after`.
            if let (Some(map), Some(after)) = (value.as_object_mut(), v.after) {
                map.insert(format!("{}_after", v.metric), json!(after));
            }
            value
        }),
        "outcome": match outcome {
            Outcome::Shadow => "skipped",
            healed if healed.healed() => "success",
            _ => "failed",
        },
        "ended": outcome,
        "attempts": cycle.runs.iter().map(|r| json!({
            "run_id": r.run_id, "playbook": r.plan.playbook, "chosen_by": r.plan.chosen_by, "verdict": r.verdict,
            "snapshot": r.snapshot.as_ref().map(|s| &s.id), "rollback": r.rollback, "shadow": r.shadow,
            "approval": r.approval,
        })).collect::<Vec<_>>(),
        "failed_attempts": cycle.failed_attempts,
        "snapshot": run.and_then(|r| r.snapshot.as_ref()),
        "escalation": escalation,
        "alert": cycle.alert,
        "refusals": cycle.refusals,
        "summary": summary(cycle, outcome),
        "duration_ms": cycle.closed_at.unwrap_or(cycle.opened_at).millis_since(cycle.opened_at),
    }))
}

/// One sentence for a person.
fn summary(cycle: &Cycle, outcome: Outcome) -> String {
    let what = format!("{} ({})", cycle.anomaly.kind, cycle.anomaly.subject());
    let run = cycle.run();
    let measure = run
        .and_then(|r| r.verification.as_ref())
        .map(|v| v.improvement.clone())
        .filter(|i| !i.is_empty())
        .unwrap_or_else(|| format_measure(cycle.anomaly.current, &cycle.anomaly.unit));
    match outcome {
        Outcome::Resolved => format!("{what} resolved: {measure}"),
        Outcome::ResolvedWithAdvice => {
            format!("{what} resolved with an advisor's playbook: {measure}")
        }
        Outcome::Cleared => format!("{what} went away by itself: {measure}"),
        Outcome::HumanAlert => format!("{what} not healed, a person was alerted: {measure}"),
        Outcome::Shadow => match run {
            Some(run) => format!(
                "{what}: shadow mode, nothing was done; {} would have been run: {measure}",
                run.plan.playbook
            ),
            None => format!("{what}: shadow mode, nothing was done: {measure}"),
        },
        Outcome::Stuck => {
            format!("{what} not healed and not taken back, a person was alerted: {measure}")
        }
    }
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    fn stamped(event: Event) -> Stamped {
        Stamped {
            workflow_id: "wf_1".into(),
            at: AT,
            event,
        }
    }

    fn opened(max_attempts: u32) -> Cycle {
        let opened = event(json!({
            "event": "opened", "trigger": "watchdog", "prior_attempts": 0,
            "anomaly": {"type": "error_rate_spike", "severity": "high", "current": 0.2, "threshold": 0.05,
                        "details": "", "since": "2026-01-31T12:00:00Z"},
            "rules": {"max_attempts": max_attempts, "settle_ms": 0, "retry_wait_ms": 0, "advisors": 0},
        }));
        Cycle::open("wf_1", AT, &opened).unwrap()
    }

    /// What stands beside an event for people never changes what replay reads.
    #[test]
    fn the_closing_entry_reads_back_as_the_event_it_was_made_of() {
        let mut cycle = opened(0);
        let alert = crate::event::AlertRef::default();
        cycle.apply(AT, &Event::Alerted { alert }).unwrap();
        let outcome = Outcome::HumanAlert;
        cycle.apply(AT, &Event::Closed { outcome }).unwrap();
        let closed = stamped(Event::Closed { outcome });
        let record = of_event(&cycle, &closed);
        assert_eq!(record.payload["outcome"], "failed");
        assert_eq!(record.payload["ended"], "human_alert");
        let read = read_back(record.action, AT, &record.payload.to_string()).unwrap();
        assert_eq!(read, Some(HealerEvent::Cycle(closed)));
    }

    #[test]
    fn a_re_test_without_a_conclusion_is_recorded_as_failed() {
        let verified = event(json!({"event": "verified", "verification": {
            "passed": true, "verification_method": "readiness", "subject": "", "metric": "", "before": null,
            "after": null, "improvement": "", "inconclusive": true, "details": "", "duration_ms": 1}}));
        assert_eq!(of_event(&opened(3), &stamped(verified)).result, "failed");
    }
}
