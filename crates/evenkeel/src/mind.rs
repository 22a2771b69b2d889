//! The healer's memory at work: one place that applies events and orders, each made durable before it counts.
//!
//! The loop that heals and whoever orders something (a pause, an approval) both come here, so that an order counts at
//! once, whatever the loop is waiting for (SAFETY 16). Everybody may read the newest state; only this changes it.

use std::sync::Arc;

use evenkeel_core::approval::ApprovalError;
use evenkeel_core::event::{Event, Stamped};
use evenkeel_core::healer::{Due, Healer, HealerEvent, ReplayError};
use evenkeel_core::order::{Order, Ordered};
use evenkeel_core::{Cycle, Facts, Policy, record};
use evenkeel_ledger::LedgerError;
use tokio::sync::{Mutex, watch};

use crate::clock;
use crate::journal::Journal;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MindError {
    /// The ledger takes no more entries.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An event had no place.
    #[error(transparent)]
    Transition(#[from] ReplayError),
    /// A yes or no that does not count.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
}

/// The memory. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Mind {
    journal: Journal,
    policy: Arc<Policy>,
    now: Arc<watch::Sender<Arc<Healer>>>,
    /// Held from reading the state to its replacement.
    turn: Arc<Mutex<()>>,
}

impl Mind {
    /// Goes on from what the ledger remembers.
    pub fn new(healer: Healer, journal: Journal, policy: Policy) -> Self {
        Self {
            journal,
            policy: Arc::new(policy),
            now: Arc::new(watch::Sender::new(Arc::new(healer))),
            turn: Arc::new(Mutex::new(())),
        }
    }

    /// The newest state.
    pub fn healer(&self) -> Arc<Healer> {
        self.now.borrow().clone()
    }

    /// What holds for every decision.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Tells when the state changes.
    pub fn changes(&self) -> watch::Receiver<Arc<Healer>> {
        self.now.subscribe()
    }

    /// What is due for the open cycle, under these facts, now.
    pub fn due(&self, facts: &Facts) -> Due {
        self.healer().due(clock::now(), &self.policy, facts)
    }

    /// Takes an event of a cycle; gives the cycle as it is after it.
    pub async fn take(&self, workflow_id: &str, event: Event) -> Result<Cycle, MindError> {
        let turn = self.turn.lock().await;
        let taken = self.take_in_turn(workflow_id, event).await;
        drop(turn);
        taken
    }

    /// Opens a cycle if `admit` says so on the state as it then is. `Err` in `Ok`: what it said instead.
    pub async fn open<T>(
        &self,
        admit: impl FnOnce(&Healer) -> Result<(String, Event), T>,
    ) -> Result<Result<Cycle, T>, MindError> {
        let _turn = self.turn.lock().await;
        match admit(&self.healer()) {
            Ok((workflow_id, event)) => self.take_in_turn(&workflow_id, event).await.map(Ok),
            Err(other) => Ok(Err(other)),
        }
    }

    /// Takes a person's order.
    pub async fn order(&self, by: &str, order: Order) -> Result<(), MindError> {
        let _turn = self.turn.lock().await;
        let ordered = Ordered {
            at: clock::now(),
            by: by.to_owned(),
            order,
        };
        self.journal.record(&record::of_order(&ordered)).await?;
        self.apply(&HealerEvent::Ordered(ordered))
    }

    /// Takes a person's yes to what they saw; gives the cycle.
    pub async fn approve(&self, by: &str, id: &str, binds: &str) -> Result<Cycle, MindError> {
        let _turn = self.turn.lock().await;
        let (workflow_id, event) = self.healer().approve(clock::now(), id, binds, by)?;
        self.take_in_turn(&workflow_id, event).await
    }

    /// Takes a person's no.
    pub async fn deny(&self, by: &str, id: &str, why: &str) -> Result<Cycle, MindError> {
        let _turn = self.turn.lock().await;
        let (workflow_id, event) = self.healer().deny(id, by, why)?;
        self.take_in_turn(&workflow_id, event).await
    }

    /// Ends what nobody approved in time; gives the cycle, if there was one.
    pub async fn expire(&self) -> Result<Option<Cycle>, MindError> {
        if self.healer().expired(clock::now()).is_none() {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        match self.healer().expired(clock::now()) {
            None => Ok(None),
            Some((workflow_id, event)) => self.take_in_turn(&workflow_id, event).await.map(Some),
        }
    }

    /// Notes that an anomaly is gone.
    pub async fn cleared(&self, key: &str, verified: bool) -> Result<(), MindError> {
        let _turn = self.turn.lock().await;
        if !self.healer().ended_without_fix(key) {
            return Ok(());
        }
        let at = clock::now();
        self.journal
            .record(&record::of_cleared(key, verified, at))
            .await?;
        self.apply(&HealerEvent::AnomalyCleared {
            key: key.to_owned(),
            verified,
            at,
        })
    }

    /// Event -> core -> ledger. Only when the record is durable has it happened.
    async fn take_in_turn(&self, workflow_id: &str, event: Event) -> Result<Cycle, MindError> {
        let stamped = Stamped {
            workflow_id: workflow_id.to_owned(),
            at: clock::now(),
            event,
        };
        let before = self.healer();
        // The record of the closing event needs the cycle as it is after the event, which the memory then forgets.
        let known = before.cycles().find(|c| c.workflow_id == workflow_id);
        let after = match known {
            Some(cycle) => {
                let mut after = cycle.clone();
                after
                    .apply(stamped.at, &stamped.event)
                    .map_err(ReplayError::from)?;
                after
            }
            None => {
                Cycle::open(workflow_id, stamped.at, &stamped.event).map_err(ReplayError::from)?
            }
        };
        let mut next = (*before).clone();
        next.apply(&HealerEvent::Cycle(stamped.clone()))?;
        self.journal
            .record(&record::of_event(&after, &stamped))
            .await?;
        self.now.send_replace(Arc::new(next));
        Ok(after)
    }

    fn apply(&self, event: &HealerEvent) -> Result<(), MindError> {
        let mut next = (*self.healer()).clone();
        next.apply(event)?;
        self.now.send_replace(Arc::new(next));
        Ok(())
    }
}
