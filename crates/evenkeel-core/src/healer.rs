//! What the healer remembers over all cycles: a fold over the records, like the cycles themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::anomaly::{Anomaly, AnomalyType};
use crate::cycle::{Cycle, InvalidTransition, Outcome, RunVerdict};
use crate::event::{Event, Stamped, Trigger};
use crate::playbook::plan::ChosenBy;
use crate::time::Timestamp;

/// Something that changes what the healer remembers.
#[derive(Clone, Debug, PartialEq)]
pub enum HealerEvent {
    /// An event of a cycle.
    Cycle(Stamped),
    /// An anomaly is gone: the signal is normal again, seen by the watchdog or by a passed test.
    AnomalyCleared {
        /// Its key.
        key: String,
        /// The stress test that failed for it has passed since: failed attempts are forgotten.
        verified: bool,
        /// When.
        at: Timestamp,
    },
}

/// A cycle that is over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PastCycle {
    /// Its id.
    pub workflow_id: String,
    /// When it ended.
    pub closed_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Its fix did not last: the anomaly came back within the recurrence window.
    pub mitigated_only: bool,
    /// Failed attempts when it ended, fixes that did not last included: they count again if this one does not last.
    pub failed_attempts: u32,
}

/// Kinds of anomalies that are noted and never acted on.
pub const NOTE_ONLY: [&str; 2] = [AnomalyType::DRIFT, AnomalyType::TELEMETRY_MISSING];

/// Most anomaly keys that are remembered; the one closed longest ago is forgotten first.
pub const KEYS_MAX: usize = 1024;

/// The healer's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Healer {
    /// The cycle that is open. There is at most one: one target, one healer.
    pub open: Option<Cycle>,
    /// Failed attempts by anomaly type; cleared by a verified fix.
    pub healing_attempts: BTreeMap<AnomalyType, u32>,
    /// The last closed cycle for each anomaly key.
    pub last: BTreeMap<String, PastCycle>,
}

/// What is to become of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Heal it.
    Open {
        /// Failed attempts so far.
        prior_attempts: u32,
        /// The cycle whose fix did not last.
        recurrence_of: Option<String>,
    },
    /// Its cycle is open.
    AlreadyOpen,
    /// Another cycle is open: look again when that is over.
    Busy,
    /// A person was alerted about it and it has not gone away since; they were told once.
    HandedOver {
        /// The cycle that ended so.
        workflow_id: String,
    },
    /// This kind is noted and never acted on, or the figures are none.
    NoteOnly,
}

/// Records that do not fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplayError {
    /// An event has no place.
    #[error(transparent)]
    Invalid(#[from] InvalidTransition),
    /// An event of a cycle that is not open.
    #[error("event `{event}` belongs to cycle {workflow_id}, which is not open")]
    NotOpen {
        /// The cycle.
        workflow_id: String,
        /// The event.
        event: &'static str,
    },
    /// A second cycle begins while one is open.
    #[error("cycle {second} begins while {first} is open")]
    TwoOpen {
        /// The open one.
        first: String,
        /// The other.
        second: String,
    },
}

impl Healer {
    /// Takes an event; the same code for live runs and for replay. On an error nothing has changed.
    pub fn apply(&mut self, event: &HealerEvent) -> Result<(), ReplayError> {
        match event {
            HealerEvent::AnomalyCleared { key, verified, .. } => {
                // Attempts are counted by type; only the end of what no fix has ended speaks about them.
                if self.ended_without_fix(key) {
                    self.last.remove(key);
                    if *verified {
                        let kind = key.split('/').next().unwrap_or("");
                        self.healing_attempts.retain(|k, _| k.as_str() != kind);
                    }
                }
                Ok(())
            }
            HealerEvent::Cycle(stamped) => self.apply_cycle(stamped),
        }
    }

    /// The last cycle for this anomaly ended, and no fix had ended the anomaly.
    pub fn ended_without_fix(&self, key: &str) -> bool {
        self.last.get(key).is_some_and(|past| !past.outcome.fixed())
    }

    fn apply_cycle(&mut self, stamped: &Stamped) -> Result<(), ReplayError> {
        let Stamped {
            workflow_id,
            at,
            event,
        } = stamped;
        if let Event::Opened {
            anomaly,
            recurrence_of,
            prior_attempts,
            ..
        } = event
        {
            if let Some(open) = &self.open {
                return Err(ReplayError::TwoOpen {
                    first: open.workflow_id.clone(),
                    second: workflow_id.clone(),
                });
            }
            self.open = Some(Cycle::open(workflow_id, *at, event)?);
            if recurrence_of.is_some() {
                // SAFETY 4: the fix that did not last has used up an attempt.
                self.healing_attempts
                    .insert(anomaly.kind.clone(), *prior_attempts);
                if let Some(past) = self.last.get_mut(&anomaly.key()) {
                    past.mitigated_only = true;
                }
            }
            return Ok(());
        }
        let open = self
            .open
            .as_mut()
            .filter(|c| c.workflow_id == *workflow_id)
            .ok_or_else(|| ReplayError::NotOpen {
                workflow_id: workflow_id.clone(),
                event: event.name(),
            })?;
        open.apply(*at, event)?;
        match event {
            Event::RunConcluded => {
                let kind = open.anomaly.kind.clone();
                let run = open.run();
                let failed = run.is_some_and(|r| r.verdict != Some(RunVerdict::Passed));
                let by_advisor = run.is_some_and(|r| r.plan.chosen_by == ChosenBy::Advisor);
                if failed && !by_advisor {
                    *self.healing_attempts.entry(kind).or_insert(0) += 1;
                } else if !failed {
                    self.healing_attempts.remove(&kind);
                }
            }
            Event::Closed { outcome } => {
                let key = open.anomaly.key();
                let failed_attempts = open.failed_attempts;
                self.open = None;
                self.last.insert(
                    key,
                    PastCycle {
                        workflow_id: workflow_id.clone(),
                        closed_at: *at,
                        outcome: *outcome,
                        mitigated_only: false,
                        failed_attempts,
                    },
                );
                while self.last.len() > KEYS_MAX {
                    let oldest = self
                        .last
                        .iter()
                        .min_by_key(|(_, p)| p.closed_at)
                        .map(|(k, _)| k.clone());
                    if let Some(key) = oldest {
                        self.last.remove(&key);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is to become of an anomaly that was found at `now`. Changes nothing.
    ///
    /// `recurrence_window_ms`: an anomaly that comes back within this time after its fix means that the fix only
    /// mitigated it.
    pub fn admit(
        &self,
        now: Timestamp,
        anomaly: &Anomaly,
        trigger: Trigger,
        recurrence_window_ms: i64,
    ) -> Admission {
        // SAFETY 11: what was not measured is no reason to act.
        let measured = anomaly.current.is_finite() && anomaly.threshold.is_finite();
        if !measured || NOTE_ONLY.contains(&anomaly.kind.as_str()) {
            return Admission::NoteOnly;
        }
        let key = anomaly.key();
        if let Some(open) = &self.open {
            return if open.anomaly.key() == key {
                Admission::AlreadyOpen
            } else {
                Admission::Busy
            };
        }
        let attempts = self
            .healing_attempts
            .get(&anomaly.kind)
            .copied()
            .unwrap_or(0);
        match self.last.get(&key) {
            Some(past) if past.outcome.healed() => {
                let since = now.millis_since(past.closed_at);
                // A clock that was set back must not make a recurrence look like something new.
                let recurs = since < recurrence_window_ms && past.outcome != Outcome::Cleared;
                // SAFETY 3, 4: what a fix made forgotten counts again when it did not last, else an anomaly that
                // always comes back would be fixed for ever.
                let prior_attempts = if recurs {
                    attempts.max(past.failed_attempts).saturating_add(1)
                } else {
                    attempts
                };
                Admission::Open {
                    prior_attempts,
                    recurrence_of: recurs.then(|| past.workflow_id.clone()),
                }
            }
            // A person who starts Evenkeel again wants it looked at again; the watchdog alone does not ask twice.
            Some(past) if trigger == Trigger::Watchdog => Admission::HandedOver {
                workflow_id: past.workflow_id.clone(),
            },
            _ => Admission::Open {
                prior_attempts: attempts,
                recurrence_of: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOUR_MS: i64 = 3_600_000;

    /// SAFETY 11
    #[test]
    fn what_was_not_measured_is_no_reason_to_act() {
        let mut anomaly: Anomaly = serde_json::from_value(json!({
            "type": "latency_spike", "severity": "high", "current": 1.0, "threshold": 1.0, "details": "",
            "since": "2026-01-01T00:00:00.000Z",
        }))
        .unwrap();
        let admit = |a: &Anomaly| {
            Healer::default().admit(Timestamp::default(), a, Trigger::Watchdog, HOUR_MS)
        };
        assert!(matches!(admit(&anomaly), Admission::Open { .. }));
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            anomaly.current = nonsense;
            assert_eq!(admit(&anomaly), Admission::NoteOnly, "{nonsense}");
        }
    }

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    /// SAFETY 3, 4: a fix that passes its test every time and never lasts ends with a person.
    #[test]
    fn an_anomaly_that_comes_back_after_every_fix_uses_its_attempts_up() {
        let anomaly: Anomaly = serde_json::from_value(json!({
            "type": "error_rate_spike", "severity": "high", "current": 0.2, "threshold": 0.05,
            "details": "", "since": "2026-01-31T12:00:00Z"}))
        .unwrap();
        let snapshot = json!({"id": "s", "dir": "s", "bytes": 1, "files": 1});
        let fixes = [
            event(json!({"event": "snapshot_taken", "snapshot": snapshot})),
            event(
                json!({"event": "playbook_selected", "passed_over": [], "plan": {
                "playbook": "p", "chosen_by": "mapping", "risk": "low", "tier": "tier_1", "params": {},
                "steps": []}}),
            ),
            event(json!({"event": "verified", "verification": {
                "passed": true, "verification_method": "readiness", "subject": "", "metric": "",
                "before": null, "after": null, "improvement": "", "inconclusive": false, "details": "",
                "duration_ms": 1}})),
            Event::RunConcluded,
            Event::Closed {
                outcome: Outcome::Resolved,
            },
        ];
        let mut healer = Healer::default();
        let mut prior = Vec::new();
        for n in 0_i64..4 {
            let at = Timestamp::from_millis(1_800_000_000_000 + n * 60_000);
            let Admission::Open {
                prior_attempts,
                recurrence_of,
            } = healer.admit(at, &anomaly, Trigger::Watchdog, HOUR_MS)
            else {
                panic!("round {n} was not admitted");
            };
            prior.push(prior_attempts);
            let opened = event(json!({
                "event": "opened", "trigger": "watchdog", "prior_attempts": prior_attempts,
                "recurrence_of": recurrence_of, "anomaly": anomaly,
                "rules": {"max_attempts": 3, "settle_ms": 0, "retry_wait_ms": 0, "advisors": 0}}));
            let mut apply = |event: &Event| {
                healer.apply(&HealerEvent::Cycle(Stamped {
                    workflow_id: format!("wf_{n}"),
                    at,
                    event: event.clone(),
                }))
            };
            apply(&opened).unwrap();
            if prior_attempts < 3 {
                for event in &fixes {
                    apply(event).unwrap();
                }
            }
        }
        assert_eq!(prior, [0, 1, 2, 3]);
        assert_eq!(healer.open.unwrap().effect(), Some(crate::Effect::Alert));
    }
}
