//! One healing cycle: the state machine of DESIGN section 3.
//!
//! [`Cycle::apply`] is the only transition table there is; live runs and replay both go through it. What it does not
//! list is an [`InvalidTransition`], never a default. At any moment a cycle that is not closed has exactly one
//! [`Effect`] due ([`Cycle::effect`]), so there is always a way on.
//!
//! **Invariants**, held by the types and shown by property tests: no step runs in an attempt without a snapshot taken
//! in that attempt; no step runs without its prepared intent; failed attempts never exceed the rules; a closed cycle
//! takes no further event.

use serde::Serialize;
use serde_json::Value;

use crate::anomaly::Anomaly;
use crate::effect::Effect;
pub use crate::outcome::{Outcome, Rules, RunVerdict};

use crate::event::{Advice, AlertRef, Event, SnapshotRef, Trigger, Verification};
use crate::playbook::plan::ChosenBy;
use crate::playbook::{
    OnFailure, Plan, PlannedStep, Prepared, RollbackOutcome, StepOutcome, Tier, UndoOp,
};
use crate::time::Timestamp;

/// After this many crashes of Evenkeel in one cycle a step of unknown outcome is taken back instead of tried again;
/// after twice as many a rollback is given up and a person called.
pub const CRASHES_MAX: u32 = 3;

/// Where a cycle is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Taking the snapshot of an attempt.
    Snapshotting,
    /// Choosing a playbook.
    Selecting,
    /// Making a step concrete.
    Preparing {
        /// Index of the step.
        step: usize,
    },
    /// A step may be running: its intent is on record.
    Executing {
        /// Index of the step.
        step: usize,
    },
    /// Running or reading the failed signal again.
    Verifying,
    /// The outcome of a step is unknown (Evenkeel was gone): look first.
    Probing {
        /// Index of the step.
        step: usize,
    },
    /// Watching whether the signal stays normal.
    Settling,
    /// Taking back what the attempt changed.
    RollingBack,
    /// Counting the attempt.
    Concluding {
        /// How it ended.
        verdict: RunVerdict,
    },
    /// Waiting before the next attempt.
    Waiting,
    /// Asking an advisor.
    Advising {
        /// Which, from 0.
        advisor: u32,
    },
    /// Alerting people.
    Alerting {
        /// How the cycle will end.
        outcome: Outcome,
        /// Why, for the alert's text.
        reason: String,
    },
    /// About to write the closing entry.
    Closing {
        /// How it ends.
        outcome: Outcome,
    },
    /// Over.
    Closed {
        /// How it ended.
        outcome: Outcome,
    },
}

/// What became of one step of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRun {
    /// Index of the step in the plan.
    pub step: usize,
    /// Its concrete action, as prepared last.
    pub prepared: Option<Prepared>,
    /// What takes it back, oldest first: of every time it was prepared, since what was prepared a second time may
    /// have happened the first time already.
    pub undo: Vec<UndoOp>,
    /// How it went; `None` while it runs or when that is unknown.
    pub outcome: Option<StepOutcome>,
    /// Why it was skipped or refused, if it was.
    pub note: Option<String>,
    /// How often it has been tried again.
    pub retried: u32,
}

/// One attempt: one run of one playbook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// `<workflow_id>/<attempt>`.
    pub run_id: String,
    /// Number of the attempt in this cycle, from 1.
    pub attempt: u32,
    /// When its plan was chosen.
    pub started_at: Timestamp,
    /// When it was counted.
    pub finished_at: Option<Timestamp>,
    /// What it does.
    pub plan: Plan,
    /// The snapshot taken before it.
    pub snapshot: SnapshotRef,
    /// Its steps so far.
    pub steps: Vec<StepRun>,
    /// The last re-test.
    pub verification: Option<Verification>,
    /// The rollback, if there was one.
    pub rollback: Option<RollbackOutcome>,
    /// How it ended.
    pub verdict: Option<RunVerdict>,
}

impl Run {
    /// Findings of its steps so far, by step id.
    pub fn findings(&self) -> serde_json::Map<String, Value> {
        self.steps
            .iter()
            .filter_map(|s| {
                let outcome = s.outcome.as_ref()?;
                let id = &self.plan.steps.get(s.step)?.id;
                (!outcome.findings.is_null()).then(|| (id.clone(), outcome.findings.clone()))
            })
            .collect()
    }

    /// Everything that has to be taken back, in the order the steps ran: of every try of every step whose intent is
    /// on record, since a step of unknown outcome may have happened. Whoever takes it back begins at the end.
    pub fn undo_ops(&self) -> Vec<UndoOp> {
        self.steps
            .iter()
            .flat_map(|s| s.undo.iter().cloned())
            .collect()
    }

    /// Steps that ran and succeeded.
    pub fn steps_done(&self) -> usize {
        self.steps
            .iter()
            .filter(|s| s.outcome.as_ref().is_some_and(|o| o.ok))
            .count()
    }
}

/// One healing cycle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cycle {
    /// Its id.
    pub workflow_id: String,
    /// When it began.
    pub opened_at: Timestamp,
    /// When it ended.
    pub closed_at: Option<Timestamp>,
    /// What it heals.
    pub anomaly: Anomaly,
    /// Who found it.
    pub trigger: Trigger,
    /// Its rules.
    pub rules: Rules,
    /// Failed attempts for this anomaly type, those before this cycle included.
    pub failed_attempts: u32,
    /// Where it is.
    pub phase: Phase,
    /// Put aside while Evenkeel stops.
    pub parked: bool,
    /// How often Evenkeel crashed while this cycle was open.
    pub crashes: u32,
    /// The plan that the next attempt will run, when somebody has chosen it already.
    pub chosen_plan: Option<Plan>,
    /// The snapshot of the coming attempt.
    pub snapshot: Option<SnapshotRef>,
    /// Attempts, oldest first; the last one may be under way.
    pub runs: Vec<Run>,
    /// The advisor that is asked next.
    pub next_advisor: u32,
    /// Advice that was taken, oldest first.
    pub advice: Vec<Advice>,
    /// Advisors that gave nothing usable: name and reason.
    pub advice_failures: Vec<(String, String)>,
    /// Why no attempt was possible, where that happened.
    pub refusals: Vec<String>,
    /// The alert, if people were alerted.
    pub alert: Option<AlertRef>,
}

/// An event that has no place in the present phase: a bug, or records that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cycle {workflow_id}: event `{event}` has no place in phase {phase}")]
pub struct InvalidTransition {
    /// The cycle.
    pub workflow_id: String,
    /// The phase it is in.
    pub phase: String,
    /// The event.
    pub event: &'static str,
}

impl Cycle {
    /// Begins a cycle from its first event.
    pub fn open(
        workflow_id: &str,
        at: Timestamp,
        event: &Event,
    ) -> Result<Self, InvalidTransition> {
        let Event::Opened {
            anomaly,
            trigger,
            rules,
            prior_attempts,
            recurrence_of,
            plan,
        } = event
        else {
            return Err(InvalidTransition {
                workflow_id: workflow_id.to_owned(),
                phase: "none".to_owned(),
                event: event.name(),
            });
        };
        let mut cycle = Self {
            workflow_id: workflow_id.to_owned(),
            opened_at: at,
            closed_at: None,
            anomaly: (**anomaly).clone(),
            trigger: *trigger,
            rules: *rules,
            failed_attempts: *prior_attempts,
            phase: Phase::Snapshotting,
            parked: false,
            crashes: 0,
            chosen_plan: plan.as_deref().cloned(),
            snapshot: None,
            runs: Vec::new(),
            next_advisor: 0,
            advice: Vec::new(),
            advice_failures: Vec::new(),
            refusals: recurrence_of
                .iter()
                .map(|c| format!("the fix of {c} did not last"))
                .collect(),
            alert: None,
        };
        if *prior_attempts >= rules.max_attempts && plan.is_none() {
            cycle.phase = cycle.ask_or_alert("earlier cycles have used all attempts");
        }
        Ok(cycle)
    }

    /// The one thing that is due now; nothing when the cycle is closed or parked.
    pub fn effect(&self) -> Option<Effect> {
        if self.parked {
            return None;
        }
        Some(match &self.phase {
            Phase::Snapshotting => Effect::TakeSnapshot,
            Phase::Selecting => Effect::SelectPlaybook,
            Phase::Preparing { step } => Effect::PrepareStep { step: *step },
            Phase::Executing { step } => Effect::RunStep { step: *step },
            Phase::Verifying | Phase::Probing { .. } => Effect::Verify,
            Phase::Settling => Effect::Settle {
                for_ms: self.rules.settle_ms,
            },
            Phase::RollingBack => Effect::RollBack,
            Phase::Concluding { .. } => Effect::ConcludeRun,
            Phase::Waiting => Effect::WaitRetry {
                for_ms: self.rules.retry_wait_ms,
            },
            Phase::Advising { advisor } => Effect::Advise { advisor: *advisor },
            Phase::Alerting { .. } => Effect::Alert,
            Phase::Closing { outcome } => Effect::Close { outcome: *outcome },
            Phase::Closed { .. } => return None,
        })
    }

    /// Takes an event. On an error nothing has changed.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<(), InvalidTransition> {
        // `Resumed` is what ends a park; nothing else is taken while parked.
        if self.parked && !matches!(event, Event::Resumed { .. }) {
            return Err(self.invalid(event));
        }
        let next = match (&self.phase, event) {
            (Phase::Closed { .. }, _) => return Err(self.invalid(event)),

            (_, Event::Parked { .. }) => {
                self.parked = true;
                return Ok(());
            }
            (phase, Event::Resumed { after_crash }) => {
                let crashes = self.crashes + u32::from(*after_crash);
                let next = match phase {
                    // A step or a rollback during which Evenkeel keeps dying is not tried for ever.
                    Phase::Executing { .. } if crashes >= CRASHES_MAX => Phase::RollingBack,
                    Phase::RollingBack if crashes >= 2 * CRASHES_MAX => Phase::Concluding {
                        verdict: RunVerdict::Stuck,
                    },
                    // Never guess: a step that may have run is looked at before anything else is done.
                    Phase::Executing { step } => Phase::Probing { step: *step },
                    // The settle window starts over with a fresh re-test.
                    Phase::Settling => Phase::Verifying,
                    other => other.clone(),
                };
                self.parked = false;
                self.crashes = crashes;
                next
            }

            (Phase::Snapshotting, Event::SnapshotTaken { snapshot }) => {
                self.snapshot = Some(snapshot.clone());
                match self.chosen_plan.take() {
                    Some(plan) => self.begin_run(at, plan, snapshot.clone()),
                    None => Phase::Selecting,
                }
            }
            (Phase::Snapshotting, Event::SnapshotFailed { error }) => Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason: format!("no snapshot could be taken, so nothing was changed: {error}"),
            },

            (Phase::Selecting, Event::PlaybookSelected { plan, .. }) => match self.snapshot.clone()
            {
                Some(snapshot) => self.begin_run(at, (**plan).clone(), snapshot),
                None => return Err(self.invalid(event)),
            },
            (Phase::Selecting, Event::NoPlaybook { reason }) => {
                self.refusals.push(reason.clone());
                self.ask_or_alert(reason)
            }

            (Phase::Preparing { step }, Event::StepPrepared { step: s, prepared }) if step == s => {
                let (step, prepared) = (*step, (**prepared).clone());
                let run = self.step_run(step);
                for op in prepared.undo.iter().filter_map(worth_undoing) {
                    if !run.undo.contains(&op) {
                        run.undo.push(op);
                    }
                }
                run.prepared = Some(prepared);
                run.outcome = None;
                Phase::Executing { step }
            }
            (Phase::Preparing { step }, Event::StepSkipped { step: s, reason }) if step == s => {
                let (step, reason) = (*step, reason.clone());
                self.step_run(step).note = Some(reason);
                self.after_step(step)
            }
            (Phase::Preparing { step }, Event::StepRefused { step: s, error }) if step == s => {
                let (step, error) = (*step, error.clone());
                let outcome = StepOutcome {
                    ok: false,
                    message: error,
                    findings: Value::Null,
                    duration_ms: 0,
                };
                self.step_run(step).outcome = Some(outcome);
                self.after_failed_step(step)
            }
            (Phase::Executing { step }, Event::StepFinished { step: s, outcome }) if step == s => {
                let (step, ok) = (*step, outcome.ok);
                let outcome = outcome.clone();
                self.step_run(step).outcome = Some(outcome);
                if ok {
                    self.after_step(step)
                } else {
                    self.after_failed_step(step)
                }
            }

            (Phase::Verifying, Event::Verified { verification }) => {
                let passed = self.note_verification(verification);
                self.after_verification(passed)
            }
            (Phase::Probing { step }, Event::Verified { verification }) => {
                let step = *step;
                let passed = self.note_verification(verification);
                let idempotent = self.planned(step).is_some_and(|s| s.idempotent);
                if passed {
                    self.after_verification(true)
                } else if idempotent {
                    Phase::Preparing { step }
                } else {
                    Phase::RollingBack
                }
            }
            (Phase::Settling, Event::Settled { stayed_normal, .. }) => {
                if *stayed_normal {
                    Phase::Concluding {
                        verdict: RunVerdict::Passed,
                    }
                } else {
                    Phase::RollingBack
                }
            }

            (Phase::RollingBack, Event::RolledBack { outcome }) => {
                let verdict = if outcome.ok {
                    RunVerdict::Failed
                } else {
                    RunVerdict::Stuck
                };
                let outcome = outcome.clone();
                if let Some(run) = self.runs.last_mut() {
                    run.rollback = Some(outcome);
                }
                Phase::Concluding { verdict }
            }

            (Phase::Concluding { verdict }, Event::RunConcluded) => {
                let verdict = *verdict;
                self.conclude(at, verdict)
            }

            (
                Phase::Waiting,
                Event::RetryDue {
                    still_there: true, ..
                },
            ) => Phase::Snapshotting,
            (
                Phase::Waiting,
                Event::RetryDue {
                    still_there: false, ..
                },
            ) => Phase::Closing {
                outcome: Outcome::Cleared,
            },

            (Phase::Advising { advisor }, Event::Advised { advice }) => {
                self.next_advisor = advisor + 1;
                self.chosen_plan = Some(advice.plan.clone());
                self.advice.push((**advice).clone());
                Phase::Snapshotting
            }
            (
                Phase::Advising { advisor },
                Event::AdviceFailed {
                    advisor: name,
                    reason,
                },
            ) => {
                self.next_advisor = advisor + 1;
                self.advice_failures.push((name.clone(), reason.clone()));
                self.ask_or_alert("no advisor had a usable answer")
            }

            (Phase::Alerting { outcome, .. }, Event::Alerted { alert }) => {
                let outcome = *outcome;
                self.alert = Some(alert.clone());
                Phase::Closing { outcome }
            }

            (Phase::Closing { outcome }, Event::Closed { outcome: o }) if outcome == o => {
                let outcome = *outcome;
                self.closed_at = Some(at);
                Phase::Closed { outcome }
            }

            _ => return Err(self.invalid(event)),
        };
        self.phase = next;
        Ok(())
    }

    /// The attempt under way or the last one.
    pub fn run(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// The number of the attempt that is under way or comes next, from 1, in this cycle.
    pub fn attempt(&self) -> u32 {
        match self.runs.last() {
            None => 1,
            Some(run) if run.verdict.is_none() => run.attempt,
            Some(run) => run.attempt + 1,
        }
    }

    /// The cycle is over.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Closed { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// The playbooks of all attempts so far, with how each ended.
    pub fn playbooks_used(&self) -> Vec<(&str, Option<RunVerdict>)> {
        self.runs
            .iter()
            .map(|r| (r.plan.playbook.as_str(), r.verdict))
            .collect()
    }

    /// Findings of earlier attempts and this one; later ones win.
    pub fn findings(&self) -> serde_json::Map<String, Value> {
        let mut all = serde_json::Map::new();
        for run in &self.runs {
            all.extend(run.findings());
        }
        all
    }

    fn invalid(&self, event: &Event) -> InvalidTransition {
        InvalidTransition {
            workflow_id: self.workflow_id.clone(),
            phase: format!(
                "{:?}{}",
                self.phase,
                if self.parked { " (parked)" } else { "" }
            ),
            event: event.name(),
        }
    }

    fn begin_run(&mut self, at: Timestamp, plan: Plan, snapshot: SnapshotRef) -> Phase {
        if plan.tier >= Tier::Three && plan.chosen_by != ChosenBy::Operator {
            let reason = format!(
                "playbook {} is {} and needs a person's approval",
                plan.playbook, plan.tier
            );
            self.refusals.push(reason.clone());
            return Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason,
            };
        }
        let attempt = self.attempt();
        let first = if plan.steps.is_empty() {
            Phase::Verifying
        } else {
            Phase::Preparing { step: 0 }
        };
        self.runs.push(Run {
            run_id: format!("{}/{attempt}", self.workflow_id),
            attempt,
            started_at: at,
            finished_at: None,
            plan,
            snapshot,
            steps: Vec::new(),
            verification: None,
            rollback: None,
            verdict: None,
        });
        // The next attempt needs a snapshot of its own.
        self.snapshot = None;
        first
    }

    fn planned(&self, step: usize) -> Option<&PlannedStep> {
        self.runs.last()?.plan.steps.get(step)
    }

    fn step_run(&mut self, step: usize) -> &mut StepRun {
        let run = self
            .runs
            .last_mut()
            .expect("a step belongs to a run: phases with a step follow begin_run");
        let at = run
            .steps
            .iter()
            .position(|s| s.step == step)
            .unwrap_or_else(|| {
                run.steps.push(StepRun {
                    step,
                    prepared: None,
                    undo: Vec::new(),
                    outcome: None,
                    note: None,
                    retried: 0,
                });
                run.steps.len() - 1
            });
        &mut run.steps[at]
    }

    fn after_step(&self, step: usize) -> Phase {
        let steps = self.runs.last().map_or(0, |r| r.plan.steps.len());
        if step + 1 < steps {
            Phase::Preparing { step: step + 1 }
        } else {
            Phase::Verifying
        }
    }

    fn after_failed_step(&mut self, step: usize) -> Phase {
        let Some(planned) = self.planned(step).cloned() else {
            return Phase::RollingBack;
        };
        let run = self.step_run(step);
        // A failed step that is not idempotent may have half happened; it is not repeated.
        if run.retried < planned.retries && planned.idempotent {
            run.retried += 1;
            return Phase::Preparing { step };
        }
        match planned.on_failure {
            OnFailure::Continue => self.after_step(step),
            OnFailure::Fail => Phase::RollingBack,
        }
    }

    fn note_verification(&mut self, verification: &Verification) -> bool {
        if let Some(run) = self.runs.last_mut() {
            run.verification = Some(verification.clone());
        }
        verification.passed && !verification.inconclusive
    }

    fn after_verification(&self, passed: bool) -> Phase {
        match (passed, self.rules.settle_ms) {
            (true, 0) => Phase::Concluding {
                verdict: RunVerdict::Passed,
            },
            (true, _) => Phase::Settling,
            (false, _) => Phase::RollingBack,
        }
    }

    fn conclude(&mut self, at: Timestamp, verdict: RunVerdict) -> Phase {
        let chosen_by = self.runs.last_mut().map(|run| {
            run.verdict = Some(verdict);
            run.finished_at = Some(at);
            run.plan.chosen_by
        });
        match verdict {
            RunVerdict::Passed => Phase::Closing {
                outcome: if chosen_by == Some(ChosenBy::Advisor) {
                    Outcome::ResolvedWithAdvice
                } else {
                    Outcome::Resolved
                },
            },
            RunVerdict::Stuck => {
                // An advisor's attempt does not count here either, as in the healer's memory.
                self.failed_attempts += u32::from(chosen_by != Some(ChosenBy::Advisor));
                Phase::Alerting {
                    outcome: Outcome::Stuck,
                    reason: "what the playbook changed could not be taken back".to_owned(),
                }
            }
            RunVerdict::Failed => match chosen_by {
                Some(ChosenBy::Advisor) => self.ask_or_alert("the advisor's playbook did not help"),
                Some(ChosenBy::Operator) => {
                    self.failed_attempts += 1;
                    Phase::Alerting {
                        outcome: Outcome::HumanAlert,
                        reason: "the playbook that was asked for did not help".to_owned(),
                    }
                }
                _ => {
                    self.failed_attempts += 1;
                    if self.failed_attempts < self.rules.max_attempts {
                        Phase::Waiting
                    } else {
                        self.ask_or_alert("all attempts are used")
                    }
                }
            },
        }
    }

    fn ask_or_alert(&self, reason: &str) -> Phase {
        if self.next_advisor < self.rules.advisors {
            Phase::Advising {
                advisor: self.next_advisor,
            }
        } else {
            Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason: reason.to_owned(),
            }
        }
    }
}

/// An undo without the keys that its step leaves as they are: a step that is prepared again finds its own change made.
fn worth_undoing(op: &UndoOp) -> Option<UndoOp> {
    match op {
        UndoOp::RestoreKeys { file, keys } => {
            let keys: Vec<_> = keys
                .iter()
                .filter(|k| k.before.as_ref() != Some(&k.after))
                .cloned()
                .collect();
            (!keys.is_empty()).then(|| UndoOp::RestoreKeys {
                file: file.clone(),
                keys,
            })
        }
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests;
