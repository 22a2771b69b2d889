//! The loop that carries healing cycles out: event -> core -> ledger -> effect -> event.
//!
//! **Invariant:** nothing is done before the record that announces it is durable. When the ledger takes no more
//! entries the loop stops acting, and people are alerted all the same (SAFETY 7).

mod advise;
mod forecast;
mod guards;
mod perform;
mod show;
pub(crate) mod signal;
mod verify;
mod world;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::approval::ApprovalError;
use evenkeel_core::cycle::{Outcome, Rules};
use evenkeel_core::event::{Event, Trigger};
use evenkeel_core::healer::{Admission, Due, Healer, ReplayError};
use evenkeel_core::playbook::Plan;
use evenkeel_core::{Cycle, Effect};
use evenkeel_ledger::LedgerError;

use crate::clock;
use crate::mind::{Mind, MindError};
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
    /// A person's answer that does not count.
    #[error(transparent)]
    Approval(ApprovalError),
}

impl From<MindError> for HealingError {
    fn from(e: MindError) -> Self {
        match e {
            MindError::Ledger(e) => Self::Ledger(e),
            MindError::Transition(e) => Self::Transition(e),
            MindError::Approval(e) => Self::Approval(e),
        }
    }
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
    /// The cycle waits for a person or for a window to end; others may be healed meanwhile.
    Waiting {
        /// Its id.
        workflow_id: String,
        /// For what.
        what: String,
    },
    /// Nothing was to be done.
    NotAdmitted(Admission),
}

/// The healer at work.
pub struct Healing {
    mind: Mind,
    world: Arc<World>,
    stop: Stop,
}

impl Healing {
    /// Goes on from what the mind remembers.
    pub fn new(mind: Mind, world: Arc<World>, stop: Stop) -> Self {
        Self { mind, world, stop }
    }

    /// What the healer remembers.
    pub fn memory(&self) -> Arc<Healer> {
        self.mind.healer()
    }

    /// Where events and orders are taken.
    pub fn mind(&self) -> &Mind {
        &self.mind
    }

    /// The adapters.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What is to become of an anomaly now. `others` are the other anomalies that are there.
    pub fn admission(&self, anomaly: &Anomaly, trigger: Trigger, others: &[Anomaly]) -> Admission {
        self.mind.healer().admit(
            clock::now(),
            anomaly,
            trigger,
            others,
            self.mind.policy(),
            &self.world.facts(),
        )
    }

    /// Heals an anomaly, to the end.
    pub async fn heal(
        &self,
        anomaly: Anomaly,
        trigger: Trigger,
        others: &[Anomaly],
        plan: Option<Plan>,
    ) -> Result<Healed, HealingError> {
        let now = clock::now();
        let facts = self.world.facts();
        let mut first = None;
        let opened = self.mind.open(|healer| {
            let policy = self.mind.policy();
            let Admission::Open {
                prior_attempts,
                recurrence_of,
                refusal,
            } = healer.admit(now, &anomaly, trigger, others, policy, &facts)
            else {
                return Err(healer.admit(now, &anomaly, trigger, others, policy, &facts));
            };
            let event = Event::Opened {
                anomaly: Box::new(anomaly.clone()),
                trigger,
                rules: self.rules(healer),
                prior_attempts,
                recurrence_of,
                plan: plan.map(Box::new),
                refusal,
            };
            let id = self.workflow_id(healer, &anomaly, now);
            first = Cycle::open(&id, now, &event).ok();
            Ok((id, event))
        });
        let opened = opened.await;
        if let (Err(MindError::Ledger(e)), Some(cycle)) = (&opened, &first) {
            self.world.alert_ledger_failure(cycle, e).await;
        }
        match opened? {
            Err(admission) => Ok(Healed::NotAdmitted(admission)),
            Ok(cycle) => {
                self.world.show_opened(&cycle.workflow_id, &cycle.anomaly);
                Box::pin(self.drive()).await
            }
        }
    }

    fn rules(&self, healer: &Healer) -> Rules {
        let (config, policy) = (&self.world.config, self.mind.policy());
        Rules {
            max_attempts: config.healing.max_attempts,
            settle_ms: config.healing.settle_ms,
            retry_wait_ms: config.healing.retry_wait_ms,
            advisors: u32::try_from(self.world.advisors.len()).unwrap_or(0),
            mode: healer.mode(policy),
            retry_wait_max_ms: policy
                .limits
                .cooldown_max_s
                .saturating_mul(1_000)
                .max(config.healing.retry_wait_ms),
            breaker_cycles: policy.limits.breaker_cycles,
        }
    }

    /// Goes on with the cycle that was open when Evenkeel stopped or crashed, if there is one.
    pub async fn resume(&self) -> Result<Option<Healed>, HealingError> {
        let healer = self.mind.healer();
        for (cycle, request) in healer.approvals() {
            self.world.ui.note(format!(
                "{} waits for the approval {} of {} until {}",
                cycle.workflow_id, request.id, request.playbook, request.expires_at
            ));
        }
        let Some(open) = &healer.open else {
            return Ok(None);
        };
        let (workflow_id, after_crash) = (&open.workflow_id, !open.parked);
        self.world.ui.note(format!(
            "Going on with {workflow_id}, which was {}",
            if after_crash {
                "under way when Evenkeel was killed"
            } else {
                "put aside"
            }
        ));
        self.world.show_opened(workflow_id, &open.anomaly);
        self.take(workflow_id, Event::Resumed { after_crash })
            .await?;
        Box::pin(self.drive()).await.map(Some)
    }

    /// Whether a cycle is open and there is something to do about it now.
    pub fn has_work(&self) -> bool {
        self.mind.healer().open.is_some() && self.mind.due(&self.world.facts()) != Due::Nothing
    }

    /// Goes on with a cycle that has waited. `None`: there is none, or it waits on.
    pub async fn go_on(&self) -> Result<Option<Healed>, HealingError> {
        if self.has_work() {
            Box::pin(self.drive()).await.map(Some)
        } else {
            Ok(None)
        }
    }

    /// Notes that an anomaly is gone. `verified`: a stress test that failed for it has passed since.
    pub async fn cleared(&self, key: &str, verified: bool) -> Result<(), HealingError> {
        Ok(self.mind.cleared(key, verified).await?)
    }

    /// Keeps the snapshots within their bounds.
    pub async fn prune_snapshots(&self) {
        let healer = self.mind.healer();
        self.world.prune_snapshots(healer.cycles()).await;
    }

    /// Carries the open cycle on, while the detectors rest.
    async fn drive(&self) -> Result<Healed, HealingError> {
        self.world.watchdog.rest();
        if let Some(open) = &self.mind.healer().open {
            let (what, id) = (open.anomaly.key(), &open.workflow_id);
            self.world.pulse.status(&format!("healing {what} in {id}"));
        }
        let end = self.drive_resting().await;
        self.world.pulse.status("watching");
        self.world.watchdog.go_on();
        end
    }

    async fn drive_resting(&self) -> Result<Healed, HealingError> {
        let mut shown = show::Shown::default();
        let Some(first) = self
            .mind
            .healer()
            .open
            .as_ref()
            .map(|c| c.workflow_id.clone())
        else {
            return Ok(Healed::Parked);
        };
        loop {
            let healer = self.mind.healer();
            // Another one may be at work now: this one has made room while it waits for a person.
            let Some(cycle) = healer.open.as_ref().filter(|c| c.workflow_id == first) else {
                return Ok(Self::waits(&healer, &first));
            };
            if self.stop.is_requested() {
                return self.park(cycle, false).await;
            }
            let effect = match self.mind.due(&self.world.facts()) {
                Due::Nothing => return Ok(Self::waits(&healer, &first)),
                Due::Event(event) => {
                    self.settle_event(&mut shown, cycle, event).await?;
                    continue;
                }
                Due::Effect(effect) => effect,
            };
            self.world.show_effect(&mut shown, cycle, &effect);
            let Some(event) = self.carry_out(cycle, &effect).await else {
                let interrupted = matches!(effect, Effect::RunStep { .. });
                return self.park(cycle, interrupted).await;
            };
            let closed = match event {
                Event::Closed { outcome } => Some(outcome),
                _ => None,
            };
            self.settle_event(&mut shown, cycle, event).await?;
            if let Some(outcome) = closed {
                return Ok(Healed::Closed {
                    workflow_id: first,
                    outcome,
                });
            }
        }
    }

    async fn settle_event(
        &self,
        shown: &mut show::Shown,
        before: &Cycle,
        event: Event,
    ) -> Result<(), HealingError> {
        let after = self.take(&before.workflow_id, event.clone()).await?;
        self.world.show_event(shown, before, Some(&after), &event);
        if event == Event::RunConcluded {
            self.world.notify(&after);
        }
        Ok(())
    }

    fn waits(healer: &Healer, workflow_id: &str) -> Healed {
        let cycle = healer.cycles().find(|c| c.workflow_id == workflow_id);
        let what = match cycle {
            Some(c) => match (c.awaits(), &c.held) {
                (Some(request), _) => {
                    format!("the approval {} of {}", request.id, request.playbook)
                }
                (None, Some(reason)) => reason.clone(),
                (None, None) => "its turn".to_owned(),
            },
            None => "nothing".to_owned(),
        };
        Healed::Waiting {
            workflow_id: workflow_id.to_owned(),
            what,
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
            | Effect::Recheck
            | Effect::Advise { .. }
            | Effect::SelectPlaybook
            | Effect::PrepareStep { .. } => None,
            // What acts or writes may finish, within its time.
            Effect::RunStep { .. }
            | Effect::RollBack
            | Effect::TakeSnapshot
            | Effect::ConcludeRun
            | Effect::RequestApproval
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

    async fn park(&self, cycle: &Cycle, interrupted: bool) -> Result<Healed, HealingError> {
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

    /// Takes an event; when the ledger takes none, people are told all the same (SAFETY 7).
    async fn take(&self, workflow_id: &str, event: Event) -> Result<Cycle, HealingError> {
        match self.mind.take(workflow_id, event).await {
            Ok(after) => Ok(after),
            Err(e) => {
                let healer = self.mind.healer();
                let cycle = healer.cycles().find(|c| c.workflow_id == workflow_id);
                if let (MindError::Ledger(e), Some(cycle)) = (&e, cycle) {
                    self.world.alert_ledger_failure(cycle, e).await;
                }
                Err(e.into())
            }
        }
    }

    /// `heal_<what>_<YYYYMMDD_HHMMSS>`, never one that exists.
    fn workflow_id(
        &self,
        healer: &Healer,
        anomaly: &Anomaly,
        now: evenkeel_core::Timestamp,
    ) -> String {
        let slug: String = anomaly
            .subject()
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(48)
            .collect();
        let base = format!("heal_{slug}_{}", now.compact());
        let taken = |id: &str| {
            healer.last.values().any(|p| p.workflow_id == id) || self.world.has_workflow(id)
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
