//! What the healer remembers over all cycles: a fold over the records, like the cycles themselves; and what follows
//! from it together with the policy: what is admitted ([`admit`]) and what is due ([`due`]).

pub mod admit;
pub mod budget;
pub mod due;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::anomaly::AnomalyType;
use crate::approval::{ApprovalError, ApprovalRequest};
use crate::cycle::{Cycle, InvalidTransition, Outcome, Phase, RunVerdict};
use crate::event::{Event, Stamped, Trigger};
use crate::order::{Order, Ordered, Orders};
use crate::outcome::{Refusal, RefusalKind};
use crate::playbook::plan::ChosenBy;
use crate::time::Timestamp;

pub use admit::{Admission, Wait};
pub use budget::{Heal, Left, Spent};
pub use due::Due;

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
    /// A person's order.
    Ordered(Ordered),
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
    /// When the anomaly was last seen to have gone away, after a cycle that did not fix it.
    pub cleared_at: Option<Timestamp>,
    /// The limit that left nothing but to alert, where it was one.
    pub refused: Option<RefusalKind>,
    /// When the last cycles for this anomaly were opened, this one included, oldest first.
    pub openings: Vec<Timestamp>,
}

impl PastCycle {
    /// How many cycles were opened within `span_ms` before `now`.
    pub fn openings_within(&self, now: Timestamp, span_ms: i64) -> u32 {
        let recent = self
            .openings
            .iter()
            .filter(|at| now.millis_since(**at) < span_ms);
        u32::try_from(recent.count()).unwrap_or(u32::MAX)
    }
}

/// What stops everything after failures in a row, until a person resets it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breaker {
    /// Cycles in a row that acted and failed.
    pub failed_in_row: u32,
    /// Open: nothing is healed.
    pub open: Option<BreakerOpen>,
}

/// Why and since when the breaker is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerOpen {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// Most openings of one anomaly that are remembered: as many as `flaps` may be.
const OPENINGS_MAX: usize = 32;

/// Kinds of anomalies that are noted and never acted on.
pub const NOTE_ONLY: [&str; 3] = [
    AnomalyType::DRIFT,
    AnomalyType::FLATLINE,
    AnomalyType::TELEMETRY_MISSING,
];

/// Most anomaly keys that are remembered; the one closed longest ago is forgotten first.
pub const KEYS_MAX: usize = 1024;

/// The healer's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Healer {
    /// The cycle that is at work. There is at most one: one target, one healer.
    pub open: Option<Cycle>,
    /// Cycles that wait for a person's approval, and those that have it and wait for their turn.
    pub awaiting: Vec<Cycle>,
    /// Failed attempts by anomaly type; cleared by a verified fix.
    pub healing_attempts: BTreeMap<AnomalyType, u32>,
    /// The last closed cycle for each anomaly key.
    pub last: BTreeMap<String, PastCycle>,
    /// What people ordered.
    pub orders: Orders,
    /// What stops everything after failures in a row.
    pub breaker: Breaker,
    /// The cycle whose rollback failed, until a person says that all is in order.
    pub stuck: Option<String>,
    /// What has been spent of the limits.
    pub spent: Spent,
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
            HealerEvent::AnomalyCleared { key, verified, at } => {
                // Attempts are counted by type; only the end of what no fix has ended speaks about them.
                if self.ended_without_fix(key) {
                    if *verified {
                        self.last.remove(key);
                        let kind = key.split('/').next().unwrap_or("");
                        self.healing_attempts.retain(|k, _| k.as_str() != kind);
                    } else if let Some(past) = self.last.get_mut(key) {
                        past.cleared_at = Some(*at);
                    }
                }
                Ok(())
            }
            HealerEvent::Ordered(ordered) => {
                self.orders.apply(ordered);
                match &ordered.order {
                    Order::ResetBreaker { .. } => self.breaker = Breaker::default(),
                    Order::Unstick { .. } => self.stuck = None,
                    Order::Repaired { what, .. } => {
                        let is_it = |key: &str| {
                            let kind = key.split('/').next().unwrap_or("");
                            what.as_deref().is_none_or(|w| w == key || w == kind)
                        };
                        self.last.retain(|key, p| p.outcome.healed() || !is_it(key));
                        let kind = what.as_deref().and_then(|w| w.split('/').next());
                        self.healing_attempts
                            .retain(|k, _| kind.is_some_and(|kind| kind != k.as_str()));
                    }
                    _ => {}
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
        if let Event::Opened { .. } = &stamped.event {
            return self.open_cycle(stamped);
        }
        let Stamped {
            workflow_id,
            at,
            event,
        } = stamped;
        let at = *at;
        let cycle = self
            .open
            .iter_mut()
            .chain(&mut self.awaiting)
            .find(|c| c.workflow_id == *workflow_id)
            .ok_or_else(|| ReplayError::NotOpen {
                workflow_id: workflow_id.clone(),
                event: event.name(),
            })?;
        let runs_before = cycle.runs.len();
        cycle.apply(at, event)?;
        if cycle.runs.len() > runs_before && cycle.run().is_some_and(|r| !r.shadow) {
            let service = cycle.anomaly.service.clone();
            self.spent.heal(at, service.as_deref());
        }
        match event {
            Event::StepPrepared { prepared, .. } if cycle.run().is_some_and(|r| !r.shadow) => {
                for service in prepared.action.interrupts() {
                    self.spent.interrupt(at, service);
                }
            }
            Event::RunConcluded => {
                let kind = cycle.anomaly.kind.clone();
                let run = cycle.run();
                let failed = run.is_some_and(|r| r.verdict != Some(RunVerdict::Passed));
                let by_advisor = run.is_some_and(|r| r.plan.chosen_by == ChosenBy::Advisor);
                if failed && !by_advisor {
                    *self.healing_attempts.entry(kind).or_insert(0) += 1;
                } else if !failed {
                    self.healing_attempts.remove(&kind);
                }
            }
            Event::Closed { outcome } => self.close_cycle(workflow_id, at, *outcome),
            _ => {}
        }
        self.take_turns();
        Ok(())
    }

    fn open_cycle(&mut self, stamped: &Stamped) -> Result<(), ReplayError> {
        let Stamped {
            workflow_id,
            at,
            event,
        } = stamped;
        let alerts_only = matches!(
            event,
            Event::Opened {
                refusal: Some(_),
                ..
            }
        );
        // One that is held steps aside; in the middle of a run only for what acts on nothing.
        let aside = self
            .open
            .take_if(|c| c.held.is_some() && !c.parked && (alerts_only || !c.has_acted()));
        self.awaiting.extend(aside);
        if let Some(open) = &self.open {
            return Err(ReplayError::TwoOpen {
                first: open.workflow_id.clone(),
                second: workflow_id.clone(),
            });
        }
        let cycle = Cycle::open(workflow_id, *at, event)?;
        if let Event::Opened {
            anomaly,
            recurrence_of,
            prior_attempts,
            refusal,
            trigger,
            ..
        } = event
        {
            // SAFETY 4: the fix that did not last has used up an attempt. What has been away for long has none.
            if recurrence_of.is_some() || (*prior_attempts == 0 && *trigger != Trigger::Operator) {
                self.healing_attempts
                    .insert(anomaly.kind.clone(), *prior_attempts);
                self.healing_attempts.retain(|_, n| *n > 0);
            }
            if let Some(past) = self
                .last
                .get_mut(&anomaly.key())
                .filter(|_| recurrence_of.is_some())
            {
                past.mitigated_only = true;
            }
            if let Some(Refusal {
                kind: RefusalKind::Storm,
                reason,
            }) = refusal
            {
                self.breaker.open = Some(BreakerOpen {
                    at: *at,
                    why: reason.clone(),
                });
            }
        }
        self.open = Some(cycle);
        Ok(())
    }

    fn close_cycle(&mut self, workflow_id: &str, at: Timestamp, outcome: Outcome) {
        let closed = match self.open.take_if(|c| c.workflow_id == workflow_id) {
            Some(cycle) => cycle,
            None => match self
                .awaiting
                .iter()
                .position(|c| c.workflow_id == workflow_id)
            {
                Some(i) => self.awaiting.remove(i),
                None => return,
            },
        };
        let acted = closed.runs.iter().any(|r| r.verdict.is_some());
        if outcome.healed() {
            self.breaker.failed_in_row = 0;
        } else if acted {
            self.breaker.failed_in_row = self.breaker.failed_in_row.saturating_add(1);
            if self.breaker.failed_in_row >= closed.rules.breaker_cycles
                && self.breaker.open.is_none()
            {
                self.breaker.open = Some(BreakerOpen {
                    at,
                    why: format!("{} cycles in a row failed", self.breaker.failed_in_row),
                });
            }
        }
        if outcome == Outcome::Stuck {
            self.stuck = Some(workflow_id.to_owned());
        }
        let key = closed.anomaly.key();
        let mut openings = self
            .last
            .remove(&key)
            .map(|p| p.openings)
            .unwrap_or_default();
        openings.push(closed.opened_at);
        if openings.len() > OPENINGS_MAX {
            openings.remove(0);
        }
        self.last.insert(
            key,
            PastCycle {
                workflow_id: workflow_id.to_owned(),
                closed_at: at,
                outcome,
                mitigated_only: false,
                failed_attempts: closed.failed_attempts,
                cleared_at: None,
                refused: closed.refused,
                openings,
            },
        );
        while self.last.len() > KEYS_MAX {
            let oldest = self
                .last
                .iter()
                .min_by_key(|(_, p)| p.closed_at)
                .map(|(k, _)| k.clone());
            match oldest {
                Some(key) => self.last.remove(&key),
                None => break,
            };
        }
    }

    /// A cycle that waits for a person makes room for others; one that has its answer goes on when nothing else is at
    /// work. One that is held makes room as well: in the middle of a run only for what merely has to alert or to close
    /// (SAFETY 20), else for whatever is ready.
    fn take_turns(&mut self) {
        if let Some(cycle) = self.open.take_if(|c| c.awaits().is_some()) {
            self.awaiting.push(cycle);
        }
        let ends = |c: &Cycle| matches!(c.phase, Phase::Alerting { .. } | Phase::Closing { .. });
        let ready = |c: &Cycle| c.awaits().is_none() && c.held.is_none();
        let next = match &self.open {
            Some(c) if c.held.is_none() || c.parked => None,
            Some(c) if c.has_acted() => self.awaiting.iter().position(|c| ready(c) && ends(c)),
            Some(_) => self.awaiting.iter().position(ready),
            None => {
                let in_the_middle = self.awaiting.iter().any(Cycle::is_held_in_the_middle);
                let first = self.awaiting.iter().position(|c| ready(c) && ends(c));
                let held = || self.awaiting.iter().position(|c| c.held.is_some());
                let any = || self.awaiting.iter().position(ready);
                if in_the_middle {
                    first.or_else(held)
                } else {
                    first.or_else(any).or_else(held)
                }
            }
        };
        if let Some(i) = next {
            let next = self.awaiting.remove(i);
            self.awaiting.extend(self.open.replace(next));
        }
    }

    /// Approvals that are waited for, with their cycles.
    pub fn approvals(&self) -> impl Iterator<Item = (&Cycle, &ApprovalRequest)> {
        self.awaiting.iter().filter_map(|c| Some((c, c.awaits()?)))
    }

    /// A person's yes to what they saw, as the event it leads to, with its cycle (SAFETY 19).
    pub fn approve(
        &self,
        now: Timestamp,
        id: &str,
        binds: &str,
        by: &str,
    ) -> Result<(String, Event), ApprovalError> {
        let (cycle, request) = self.waiting_for(id)?;
        request.judge(now, binds)?;
        let event = Event::Approved {
            id: id.to_owned(),
            binds: binds.to_owned(),
            by: by.to_owned(),
        };
        Ok((cycle.workflow_id.clone(), event))
    }

    /// A person's no.
    pub fn deny(&self, id: &str, by: &str, why: &str) -> Result<(String, Event), ApprovalError> {
        let (cycle, _) = self.waiting_for(id)?;
        let event = Event::Denied {
            id: id.to_owned(),
            by: by.to_owned(),
            why: why.to_owned(),
        };
        Ok((cycle.workflow_id.clone(), event))
    }

    /// The first request that nobody answered in time, as the event it leads to, with its cycle.
    pub fn expired(&self, now: Timestamp) -> Option<(String, Event)> {
        let (cycle, request) = self.approvals().find(|(_, r)| now >= r.expires_at)?;
        let event = Event::ApprovalExpired {
            id: request.id.clone(),
        };
        Some((cycle.workflow_id.clone(), event))
    }

    fn waiting_for(&self, id: &str) -> Result<(&Cycle, &ApprovalRequest), ApprovalError> {
        self.approvals()
            .find(|(_, r)| r.id == id)
            .ok_or_else(|| ApprovalError::Unknown { id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests;
