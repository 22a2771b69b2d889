//! A healer with a clock, and a world that does as it is told.

use serde_json::{Value, json};

use super::super::*;
use crate::anomaly::Anomaly;
use crate::effect::Effect;
use crate::event::Trigger;
use crate::policy::incident::Node;
use crate::policy::{Facts, Mode, Policy};

pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;
pub(super) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(super) fn event(value: Value) -> Event {
    serde_json::from_value(value).unwrap()
}

pub(super) fn anomaly(kind: &str) -> Anomaly {
    serde_json::from_value(json!({
        "type": kind, "severity": "high", "current": 0.2, "threshold": 0.05, "details": "",
        "service": "api-1", "since": "2026-01-31T12:00:00Z"}))
    .unwrap()
}

pub(super) fn policy() -> Policy {
    let node = |of: &str| Node {
        instance_of: of.to_owned(),
        ..Node::default()
    };
    let mut policy = Policy {
        mode: Mode::Auto,
        recurrence_window_ms: HOUR_MS,
        target: "t".to_owned(),
        ..Policy::default()
    };
    for (name, of) in [("api-1", "api"), ("api-2", "api"), ("db", "db")] {
        policy.topology.nodes.insert(name.to_owned(), node(of));
    }
    policy
}

/// A healer with a clock, and a world that does as it is told.
pub(super) struct Bench {
    pub(super) healer: Healer,
    pub(super) policy: Policy,
    pub(super) facts: Facts,
    pub(super) now: Timestamp,
    pub(super) tier: &'static str,
    pub(super) helps: bool,
    pub(super) undone: bool,
    pub(super) cycles: u32,
    pub(super) effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            healer: Healer::default(),
            policy,
            facts: Facts::default(),
            now: START,
            tier: "tier_1",
            helps: true,
            undone: true,
            cycles: 0,
            effects: Vec::new(),
        }
    }

    pub(super) fn order(&mut self, order: Order) {
        let ordered = Ordered {
            at: self.now,
            by: "ann".to_owned(),
            order,
        };
        let written = crate::record::of_order(&ordered);
        let read =
            crate::record::read_back(written.action, written.at, &written.payload.to_string());
        self.healer.apply(&read.unwrap().unwrap()).unwrap();
    }

    pub(super) fn admit(&self, anomaly: &Anomaly, trigger: Trigger) -> Admission {
        self.healer
            .admit(self.now, anomaly, trigger, &[], &self.policy, &self.facts)
    }

    pub(super) fn take(&mut self, id: &str, event: Event) {
        let stamped = Stamped {
            workflow_id: id.to_owned(),
            at: self.now,
            event,
        };
        self.healer.apply(&HealerEvent::Cycle(stamped)).unwrap();
    }

    /// Admits and opens; what was admitted otherwise comes back.
    pub(super) fn open(&mut self, anomaly: &Anomaly) -> Result<String, Admission> {
        let admission = self.admit(anomaly, Trigger::Watchdog);
        let Admission::Open {
            prior_attempts,
            recurrence_of,
            refusal,
        } = admission
        else {
            return Err(admission);
        };
        self.cycles += 1;
        let id = format!("wf_{}", self.cycles);
        let opened = event(json!({
            "event": "opened", "trigger": "watchdog", "prior_attempts": prior_attempts,
            "recurrence_of": recurrence_of, "anomaly": anomaly, "refusal": refusal,
            "rules": {"max_attempts": 3, "settle_ms": 0, "retry_wait_ms": 0, "advisors": 0,
                      "mode": self.healer.mode(&self.policy), "breaker_cycles": self.policy.limits.breaker_cycles}}));
        self.take(&id, opened);
        Ok(id)
    }

    /// Does what is due until nothing is.
    pub(super) fn drive(&mut self) {
        for _ in 0..200 {
            let Some(id) = self.healer.open.as_ref().map(|c| c.workflow_id.clone()) else {
                return;
            };
            let event = match self.healer.due(self.now, &self.policy, &self.facts) {
                Due::Nothing => return,
                Due::Event(event) => event,
                Due::Effect(effect) => {
                    self.effects.push(effect.clone());
                    self.answer(&effect)
                }
            };
            self.take(&id, event);
        }
        panic!("it does not end: {:?}", self.healer.open);
    }

    pub(super) fn answer(&self, effect: &Effect) -> Event {
        let cycle = self.healer.open.as_ref().unwrap();
        match effect {
            Effect::TakeSnapshot => event(json!({
                "event": "snapshot_taken", "snapshot": {"id": "s", "dir": "s", "bytes": 1, "files": 1}})),
            Effect::SelectPlaybook => {
                let plan = json!({
                    "playbook": "p", "chosen_by": "mapping", "risk": "low", "tier": self.tier, "params": {},
                    "steps": [{"id": "a", "action": {"restart": {"services": "api-1"}}, "timeout_ms": 1,
                               "retries": 0, "on_failure": "fail", "undo": "none_needed", "idempotent": true}]});
                event(
                    json!({"event": "playbook_selected", "passed_over": [], "plan": plan,
                             "mode": self.healer.mode_of("p", &self.policy)}),
                )
            }
            Effect::PrepareStep { step } => event(json!({
                "event": "step_prepared", "step": step, "prepared": {
                    "action": {"restart": {"services": "api-1"}}, "summary": "", "undo": []}})),
            Effect::RunStep { step } => event(json!({
                "event": "step_finished", "step": step,
                "outcome": {"ok": true, "message": "", "duration_ms": 1}})),
            Effect::Verify => event(json!({"event": "verified", "verification": {
                "passed": self.helps, "verification_method": "readiness", "subject": "", "metric": "",
                "before": null, "after": null, "improvement": "", "inconclusive": false, "details": "",
                "duration_ms": 1}})),
            Effect::RollBack => Event::RolledBack {
                outcome: crate::playbook::RollbackOutcome {
                    ok: self.undone,
                    ..Default::default()
                },
            },
            Effect::ConcludeRun => Event::RunConcluded,
            Effect::WaitRetry { .. } => Event::RetryDue {
                still_there: true,
                details: String::new(),
            },
            Effect::Recheck => Event::Rechecked {
                still_there: true,
                details: String::new(),
            },
            Effect::RequestApproval => Event::ApprovalRequested {
                request: cycle.approval_request(self.now, &self.policy).unwrap(),
                notified: crate::event::AlertRef::default(),
            },
            Effect::Alert => Event::Alerted {
                alert: crate::event::AlertRef::default(),
            },
            Effect::Close { outcome } => Event::Closed { outcome: *outcome },
            other => panic!("{other:?}"),
        }
    }

    /// One anomaly from its finding to where it rests.
    pub(super) fn heal(&mut self, kind: &str) -> Result<(), Admission> {
        self.open(&anomaly(kind))?;
        self.drive();
        Ok(())
    }

    pub(super) fn outcome(&self, kind: &str) -> Outcome {
        self.healer.last[&anomaly(kind).key()].outcome
    }

    pub(super) fn acts(&self) -> usize {
        self.effects.iter().filter(|e| e.acts()).count()
    }

    pub(super) fn clear(&mut self, kind: &str) {
        let at = self.now;
        let cleared = HealerEvent::AnomalyCleared {
            key: anomaly(kind).key(),
            verified: false,
            at,
        };
        self.healer.apply(&cleared).unwrap();
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now = self.now.plus_millis(ms);
    }
}
