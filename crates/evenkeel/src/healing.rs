//! The loop that carries healing cycles out: event -> core -> ledger -> effect -> event.
//!
//! **Invariant:** nothing is done before the record that announces it is durable. When the ledger takes no more
//! entries the loop stops acting, and people are alerted all the same (SAFETY 7).

mod advise;
mod forecast;
mod perform;
mod show;
pub(crate) mod signal;
mod verify;
mod world;

use std::time::Duration;

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::cycle::{Outcome, Rules};
use evenkeel_core::event::{Event, Stamped, Trigger};
use evenkeel_core::healer::{Admission, Healer, HealerEvent, ReplayError};
use evenkeel_core::playbook::Plan;
use evenkeel_core::{Cycle, Effect, record};
use evenkeel_ledger::LedgerError;

use crate::clock;
use crate::journal::Journal;
use crate::pulse::{SLACK, WORK_MAX};
use crate::stop::Stop;

pub(crate) use forecast::{Fate, Forecast, ForecastError, Forecaster, StepForecast};
pub(crate) use perform::responder;
pub use world::World;
pub(crate) use world::alert_channels;

/// How long a step that is running may go on after a stop was asked for.
const FINISH_STEP: Duration = Duration::from_secs(7);

/// Why healing stopped.
#[derive(Debug, thiserror::Error)]
pub enum HealingError {
    /// The ledger takes no more entries. Nothing more is done.
    #[error("{0}; an action that cannot be recorded does not happen, so healing has stopped")]
    Ledger(#[from] LedgerError),
    /// An event had no place: a bug.
    #[error("{0}; this is a defect of Evenkeel, and healing has stopped")]
    Transition(#[from] ReplayError),
}

/// How a call to [`Healing::heal`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Healed {
    /// The cycle is over.
    Closed {
        /// Its id.
        workflow_id: String,
        /// How it ended.
        outcome: Outcome,
    },
    /// Evenkeel is stopping; the cycle is put aside.
    Parked,
    /// Nothing was to be done.
    NotAdmitted(Admission),
}

/// The healer at work.
pub struct Healing {
    healer: Healer,
    journal: Journal,
    world: World,
    stop: Stop,
}

impl Healing {
    /// Goes on from what the ledger remembers.
    pub fn new(healer: Healer, journal: Journal, world: World, stop: Stop) -> Self {
        Self {
            healer,
            journal,
            world,
            stop,
        }
    }

    /// What the healer remembers.
    pub fn memory(&self) -> &Healer {
        &self.healer
    }

    /// The adapters.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Heals an anomaly, to the end.
    pub async fn heal(
        &mut self,
        anomaly: Anomaly,
        trigger: Trigger,
        plan: Option<Plan>,
    ) -> Result<Healed, HealingError> {
        let now = clock::now();
        let config = &self.world.config;
        let window_ms = i64::try_from(config.healing.recurrence_window_s.saturating_mul(1000))
            .unwrap_or(i64::MAX);
        let admission = self.healer.admit(now, &anomaly, trigger, window_ms);
        let Admission::Open {
            prior_attempts,
            recurrence_of,
        } = admission
        else {
            return Ok(Healed::NotAdmitted(admission));
        };
        let workflow_id = self.workflow_id(&anomaly, now);
        let rules = Rules {
            max_attempts: config.healing.max_attempts,
            settle_ms: config.healing.settle_ms,
            retry_wait_ms: config.healing.retry_wait_ms,
            advisors: u32::try_from(self.world.advisors.len()).unwrap_or(0),
        };
        self.world.show_opened(&workflow_id, &anomaly);
        self.take(
            &workflow_id,
            Event::Opened {
                anomaly: Box::new(anomaly),
                trigger,
                rules,
                prior_attempts,
                recurrence_of,
                plan: plan.map(Box::new),
            },
        )
        .await?;
        self.drive().await
    }

    /// Goes on with the cycle that was open when Evenkeel stopped or crashed, if there is one.
    pub async fn resume(&mut self) -> Result<Option<Healed>, HealingError> {
        let Some(open) = &self.healer.open else {
            return Ok(None);
        };
        let (workflow_id, anomaly, after_crash) =
            (open.workflow_id.clone(), open.anomaly.clone(), !open.parked);
        self.world.ui.note(format!(
            "Going on with {workflow_id}, which was {}",
            if after_crash {
                "under way when Evenkeel was killed"
            } else {
                "put aside"
            }
        ));
        self.world.show_opened(&workflow_id, &anomaly);
        self.take(&workflow_id, Event::Resumed { after_crash })
            .await?;
        self.drive().await.map(Some)
    }

    /// Notes that an anomaly is gone. `verified`: a stress test that failed for it has passed since.
    pub async fn cleared(&mut self, key: &str, verified: bool) -> Result<(), HealingError> {
        if !self.healer.ended_without_fix(key) {
            return Ok(());
        }
        let at = clock::now();
        self.journal
            .record(&record::of_cleared(key, verified, at))
            .await?;
        self.healer.apply(&HealerEvent::AnomalyCleared {
            key: key.to_owned(),
            verified,
            at,
        })?;
        Ok(())
    }

    /// Keeps the snapshots within their bounds.
    pub async fn prune_snapshots(&self) {
        self.world.prune_snapshots(self.healer.open.as_ref()).await;
    }

    /// Carries the open cycle on, while the detectors rest.
    async fn drive(&mut self) -> Result<Healed, HealingError> {
        self.world.watchdog.rest();
        if let Some(open) = &self.healer.open {
            let (what, id) = (open.anomaly.key(), &open.workflow_id);
            self.world.pulse.status(&format!("healing {what} in {id}"));
        }
        let end = self.drive_resting().await;
        self.world.pulse.status("watching");
        self.world.watchdog.go_on();
        end
    }

    async fn drive_resting(&mut self) -> Result<Healed, HealingError> {
        let mut shown = show::Shown::default();
        loop {
            let Some(cycle) = self.healer.open.clone() else {
                // `take` of `Closed` empties it, and returns below; a cycle that is gone otherwise is a bug.
                return Ok(Healed::Parked);
            };
            let Some(effect) = cycle.effect() else {
                return Ok(Healed::Parked);
            };
            if self.stop.is_requested() {
                return self.park(&cycle, false).await;
            }
            self.world.show_effect(&mut shown, &cycle, &effect);
            let Some(event) = self.carry_out(&cycle, &effect).await else {
                let interrupted = matches!(effect, Effect::RunStep { .. });
                return self.park(&cycle, interrupted).await;
            };
            self.take(&cycle.workflow_id, event.clone()).await?;
            self.world
                .show_event(&mut shown, &cycle, self.healer.open.as_ref(), &event);
            if let Event::Closed { outcome } = event {
                return Ok(Healed::Closed {
                    workflow_id: cycle.workflow_id,
                    outcome,
                });
            }
        }
    }

    /// Carries an effect out. `None`: Evenkeel is stopping and the effect was left unfinished.
    async fn carry_out(&self, cycle: &Cycle, effect: &Effect) -> Option<Event> {
        let limit = self.longest(cycle, effect);
        let work = self.world.perform(cycle, effect);
        let mut work = std::pin::pin!(self.world.pulse.during(limit, work));
        tokio::select! {
            event = &mut work => return Some(event),
            () = self.stop.requested() => {}
        }
        match effect {
            // What only looks or waits is dropped; it is done again after the next start.
            Effect::Verify
            | Effect::Settle { .. }
            | Effect::WaitRetry { .. }
            | Effect::Advise { .. }
            | Effect::SelectPlaybook
            | Effect::PrepareStep { .. } => None,
            // What acts or writes may finish, within its time.
            Effect::RunStep { .. }
            | Effect::RollBack
            | Effect::TakeSnapshot
            | Effect::ConcludeRun
            | Effect::Alert
            | Effect::Close { .. } => tokio::time::timeout(FINISH_STEP, work).await.ok(),
        }
    }

    /// How long an effect may take before the healing loop counts as hung.
    fn longest(&self, cycle: &Cycle, effect: &Effect) -> Duration {
        let limit = match effect {
            Effect::RunStep { step } => cycle
                .run()
                .and_then(|r| r.plan.steps.get(*step))
                .map_or(WORK_MAX, |s| Duration::from_millis(s.timeout_ms)),
            Effect::Settle { for_ms } | Effect::WaitRetry { for_ms } => {
                Duration::from_millis(*for_ms)
            }
            Effect::Advise { .. } => Duration::from_millis(self.world.config.escalation.timeout_ms),
            _ => WORK_MAX,
        };
        limit + SLACK
    }

    async fn park(&mut self, cycle: &Cycle, interrupted: bool) -> Result<Healed, HealingError> {
        self.take(&cycle.workflow_id, Event::Parked { interrupted })
            .await?;
        self.world.ui.note(format!(
            "{} is put aside{}; the next start goes on with it",
            cycle.workflow_id,
            if interrupted {
                " in the middle of a step"
            } else {
                ""
            }
        ));
        Ok(Healed::Parked)
    }

    /// Event -> core -> ledger. Only when the record is durable has it happened.
    async fn take(&mut self, workflow_id: &str, event: Event) -> Result<(), HealingError> {
        let stamped = Stamped {
            workflow_id: workflow_id.to_owned(),
            at: clock::now(),
            event,
        };
        let mut next = self.healer.clone();
        // The record of the closing event needs the cycle as it is after the event, which the memory then forgets.
        let mut after = self.healer.open.clone();
        if let Some(cycle) = &mut after {
            cycle
                .apply(stamped.at, &stamped.event)
                .map_err(ReplayError::from)?;
        }
        next.apply(&HealerEvent::Cycle(stamped.clone()))?;
        let Some(after) = after.as_ref().or(next.open.as_ref()) else {
            return Ok(());
        };
        let record = record::of_event(after, &stamped);
        if let Err(e) = self.journal.record(&record).await {
            self.world.alert_ledger_failure(after, &e).await;
            return Err(e.into());
        }
        self.healer = next;
        Ok(())
    }

    /// `heal_<what>_<YYYYMMDD_HHMMSS>`, never one that exists.
    fn workflow_id(&self, anomaly: &Anomaly, now: evenkeel_core::Timestamp) -> String {
        let slug: String = anomaly
            .subject()
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(48)
            .collect();
        let base = format!("heal_{slug}_{}", now.compact());
        let taken = |id: &str| {
            self.healer.last.values().any(|p| p.workflow_id == id) || self.world.has_workflow(id)
        };
        let mut id = base.clone();
        let mut n = 2;
        while taken(&id) && n < 1000 {
            id = format!("{base}_{n}");
            n += 1;
        }
        id
    }
}
