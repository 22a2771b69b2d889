//! What a cycle does with one event, by example; sequences of them are the simulator's.

use super::*;
use crate::playbook::KeyChange;
use serde_json::json;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn event(value: Value) -> Event {
    serde_json::from_value(value).unwrap()
}

fn cycle(chosen_by: &str, step: &Value) -> Cycle {
    let opened = event(json!({
        "event": "opened", "trigger": "watchdog", "prior_attempts": 0,
        "anomaly": {"type": "error_rate_spike", "severity": "high", "current": 0.2, "threshold": 0.05,
                    "details": "", "since": "2026-01-31T12:00:00Z"},
        "rules": {"max_attempts": 3, "settle_ms": 0, "retry_wait_ms": 0, "advisors": 0},
        "plan": {"playbook": "p", "chosen_by": chosen_by, "risk": "low", "tier": "tier_1", "params": {},
                 "steps": [step]},
    }));
    let mut cycle = Cycle::open("wf_1", AT, &opened).unwrap();
    let snapshot = json!({"id": "s", "dir": "s", "bytes": 1, "files": 1});
    let taken = event(json!({"event": "snapshot_taken", "snapshot": snapshot}));
    cycle.apply(AT, &taken).unwrap();
    cycle
}

fn double_the_pool() -> Value {
    json!({"id": "a", "action": {"set_tunable": {"name": "pool", "factor": 2}}, "timeout_ms": 1, "retries": 1,
           "on_failure": "fail", "undo": "reversible", "idempotent": true})
}

fn prepared(before: u32, after: u32) -> Event {
    event(json!({"event": "step_prepared", "step": 0, "prepared": {
        "action": {"set_config": {"file": "f", "set": {"pool": after}}}, "summary": "",
        "undo": [{"kind": "restore_keys", "file": "/f", "keys": [
            {"key": "pool", "before": before, "after": after}]}],
    }}))
}

/// A step that fails or is cut off may have happened: what its first try changed is taken back too.
#[test]
fn a_step_that_is_prepared_again_keeps_the_undo_of_its_first_try() {
    let mut cycle = cycle("mapping", &double_the_pool());
    cycle.apply(AT, &prepared(2, 4)).unwrap();
    let failed = json!({"ok": false, "message": "timed out", "duration_ms": 1});
    let finished = event(json!({"event": "step_finished", "step": 0, "outcome": failed}));
    cycle.apply(AT, &finished).unwrap();
    cycle.apply(AT, &prepared(4, 8)).unwrap();
    let befores: Vec<Option<Value>> = cycle
        .run()
        .unwrap()
        .undo_ops()
        .iter()
        .map(|op| match op {
            UndoOp::RestoreKeys { keys, .. } => keys[0].before.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(befores, [Some(json!(2)), Some(json!(4))]);
}

#[test]
fn what_a_second_try_finds_as_it_should_be_is_not_undone_twice() {
    let mut cycle = cycle("mapping", &double_the_pool());
    cycle.apply(AT, &prepared(2, 4)).unwrap();
    let resumed = event(json!({"event": "resumed", "after_crash": true}));
    cycle.apply(AT, &resumed).unwrap();
    let verified = event(json!({"event": "verified", "verification": {
        "passed": false, "verification_method": "readiness", "subject": "", "metric": "", "before": null,
        "after": null, "improvement": "", "inconclusive": false, "details": "", "duration_ms": 1}}));
    cycle.apply(AT, &verified).unwrap();
    cycle.apply(AT, &prepared(4, 4)).unwrap();
    let keys = vec![KeyChange {
        key: "pool".into(),
        before: Some(json!(2)),
        after: json!(4),
    }];
    let file = "/f".into();
    assert_eq!(
        cycle.run().unwrap().undo_ops(),
        [UndoOp::RestoreKeys { file, keys }]
    );
}

#[test]
fn an_advisors_attempt_never_counts_even_when_it_cannot_be_taken_back() {
    for (chosen_by, counted) in [("advisor", 0), ("mapping", 1)] {
        let mut cycle = cycle(chosen_by, &double_the_pool());
        let refused = event(json!({"event": "step_refused", "step": 0, "error": ""}));
        cycle.apply(AT, &refused).unwrap();
        cycle.apply(AT, &refused).unwrap();
        let failed = json!({"ok": false, "restored": [], "errors": ["disk full"]});
        let rolled_back = event(json!({"event": "rolled_back", "outcome": failed}));
        cycle.apply(AT, &rolled_back).unwrap();
        cycle.apply(AT, &Event::RunConcluded).unwrap();
        assert_eq!(cycle.failed_attempts, counted, "{chosen_by}");
    }
}
