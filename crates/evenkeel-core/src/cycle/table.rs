//! The transition table of a cycle, the only one there is.

use serde_json::Value;

use super::{CRASHES_MAX, Cycle, InvalidTransition, Outcome, Phase, Run, RunVerdict, StepRun};
use crate::approval::Approval;
use crate::event::{Event, SnapshotRef, Verification};
use crate::guarded;
use crate::playbook::plan::ChosenBy;
use crate::playbook::{OnFailure, Plan, PlannedStep, StepOutcome, Tier, UndoOp};
use crate::policy::Mode;
use crate::time::Timestamp;

impl Cycle {
    /// Takes an event. On an error nothing has changed.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<(), InvalidTransition> {
        // `Resumed` is what ends a park, and `Released` a hold; nothing else is taken meanwhile.
        if self.parked && !matches!(event, Event::Resumed { .. }) {
            return Err(self.invalid(event));
        }
        let of_the_hold = matches!(
            event,
            Event::Released | Event::Parked { .. } | Event::Resumed { .. }
        );
        if self.held.is_some() && !of_the_hold {
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
                    // SAFETY 14: what was true before the stop need not be true any more.
                    Phase::Snapshotting | Phase::Selecting | Phase::Preparing { .. } => {
                        Self::recheck(phase.clone())
                    }
                    other => other.clone(),
                };
                self.parked = false;
                self.crashes = crashes;
                next
            }

            (Phase::Snapshotting, Event::SnapshotTaken { snapshot, guards }) => {
                self.guards_before.clone_from(guards);
                self.snapshot = Some(snapshot.clone());
                match self.chosen_plan.take() {
                    Some(plan) => self.authorize(at, plan),
                    None => Phase::Selecting,
                }
            }
            (Phase::Snapshotting, Event::SnapshotFailed { error }) => Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason: format!("no snapshot could be taken, so nothing was changed: {error}"),
            },

            (Phase::Selecting, Event::PlaybookSelected { plan, mode, .. }) => {
                self.chosen_mode = *mode;
                self.authorize(at, (**plan).clone())
            }
            (Phase::Selecting, Event::NoPlaybook { reason }) => {
                self.refusals.push(reason.clone());
                self.ask_or_alert(reason)
            }

            (Phase::Requesting, Event::ApprovalRequested { request, .. }) => {
                Phase::AwaitingApproval {
                    request: request.clone(),
                }
            }
            (Phase::AwaitingApproval { request }, Event::Approved { id, binds, by })
                if *id == request.id && request.judge(at, binds).is_ok() =>
            {
                self.approval = Some(Approval {
                    id: id.clone(),
                    binds: binds.clone(),
                    by: by.clone(),
                });
                // SAFETY 14, 15: looked at again at the moment of acting, and snapshotted then.
                self.snapshot = None;
                Self::recheck(Phase::Snapshotting)
            }
            (Phase::AwaitingApproval { request }, Event::Denied { id, by, why })
                if *id == request.id =>
            {
                // A person knows already: nobody is alerted.
                self.refusals
                    .push(format!("{by} did not approve {}: {why}", request.playbook));
                self.chosen_plan = None;
                Phase::Closing {
                    outcome: Outcome::HumanAlert,
                }
            }
            (Phase::AwaitingApproval { request }, Event::ApprovalExpired { id })
                if *id == request.id =>
            {
                let reason = format!("nobody approved {} in time", request.playbook);
                self.refusals.push(reason.clone());
                self.chosen_plan = None;
                Phase::Alerting {
                    outcome: Outcome::HumanAlert,
                    reason,
                }
            }

            (
                Phase::Rechecking { next },
                Event::Rechecked {
                    still_there: true, ..
                },
            ) => (**next).clone(),
            (
                Phase::Rechecking { .. },
                Event::Rechecked {
                    still_there: false, ..
                },
            ) => {
                if self.has_acted() {
                    Phase::Verifying
                } else {
                    self.runs.pop_if(|r| r.verdict.is_none());
                    Phase::Closing {
                        outcome: Outcome::Cleared,
                    }
                }
            }

            (
                Phase::Snapshotting
                | Phase::Requesting
                | Phase::Executing { .. }
                | Phase::RollingBack,
                Event::Held { reason },
            ) if self.held.is_none() => {
                self.held = Some(reason.clone());
                self.waits_since = Some(at);
                return Ok(());
            }
            (phase, Event::Released) if self.held.is_some() => {
                let next = match phase {
                    // It was prepared and not begun; its arguments may be stale.
                    Phase::Executing { step } => {
                        let step = *step;
                        if let Some(run) = self.runs.last_mut() {
                            run.steps.retain(|s| s.step != step || s.tries > 1);
                        }
                        Self::recheck(Phase::Preparing { step })
                    }
                    Phase::Snapshotting | Phase::Requesting => Self::recheck(phase.clone()),
                    other => other.clone(),
                };
                self.held = None;
                next
            }

            (
                Phase::Snapshotting
                | Phase::Requesting
                | Phase::Rechecking { .. }
                | Phase::Waiting
                | Phase::Advising { .. },
                Event::Refused { reason },
            ) => {
                self.refusals.push(reason.clone());
                self.chosen_plan = None;
                if self.has_acted() {
                    Phase::RollingBack
                } else {
                    self.runs.pop_if(|r| r.verdict.is_none());
                    Phase::Alerting {
                        outcome: Outcome::HumanAlert,
                        reason: reason.clone(),
                    }
                }
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
                run.tries += 1;
                run.outcome = None;
                if self.runs.last().is_some_and(|r| r.shadow) {
                    self.after_step(step)
                } else {
                    Phase::Executing { step }
                }
            }
            (Phase::Preparing { step }, Event::StepSkipped { step: s, reason }) if step == s => {
                let (step, reason) = (*step, reason.clone());
                self.step_run(step).note = Some(reason);
                self.after_step(step)
            }
            (
                Phase::Preparing { step } | Phase::Executing { step },
                Event::StepRefused { step: s, error },
            ) if step == s => {
                let (step, error) = (*step, error.clone());
                if self.held.is_some() {
                    return Err(self.invalid(event));
                }
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

            (Phase::Advising { advisor }, Event::Advised { advice, mode }) => {
                self.next_advisor = advisor + 1;
                self.chosen_plan = Some(advice.plan.clone());
                self.chosen_mode = *mode;
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
        match (event, self.waits_since) {
            (Event::ApprovalRequested { .. }, _) => self.waits_since = Some(at),
            (
                Event::Approved { .. }
                | Event::Denied { .. }
                | Event::ApprovalExpired { .. }
                | Event::Released,
                Some(since),
            ) => {
                self.waited_ms += at.millis_since(since).max(0);
                self.waits_since = None;
            }
            _ => {}
        }
        self.phase = next;
        Ok(())
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

    /// Looks again first, and goes on with `next` when the anomaly is still there.
    fn recheck(next: Phase) -> Phase {
        Phase::Rechecking {
            next: Box::new(next),
        }
    }

    /// Whether the plan may run, needs a person first, or is only worked out. What a person chose may run.
    fn authorize(&mut self, at: Timestamp, plan: Plan) -> Phase {
        let by_hand = plan.chosen_by == ChosenBy::Operator;
        if self.chosen_mode == Mode::Shadow && !by_hand {
            return self.begin_run(at, plan, None, None);
        }
        if plan.tier == Tier::Four && !by_hand {
            let reason = format!(
                "playbook {name} is {tier} and never runs by itself; a person may run it: evenkeel playbook run {name}",
                name = plan.playbook,
                tier = plan.tier
            );
            self.refusals.push(reason.clone());
            return Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason,
            };
        }
        let needs_a_person = self.chosen_mode == Mode::Approve || plan.tier >= Tier::Three;
        let approval = self.approval.take();
        if needs_a_person && !by_hand && approval.is_none() {
            self.chosen_plan = Some(plan);
            return Phase::Requesting;
        }
        if let Some(snapshot) = self.snapshot.take() {
            return self.begin_run(at, plan, Some(snapshot), approval);
        }
        self.chosen_plan = Some(plan);
        self.approval = approval;
        Phase::Snapshotting
    }

    fn begin_run(
        &mut self,
        at: Timestamp,
        plan: Plan,
        snapshot: Option<SnapshotRef>,
        approval: Option<Approval>,
    ) -> Phase {
        let shadow = snapshot.is_none();
        let attempt = self.attempt();
        let first = if plan.steps.is_empty() {
            Self::after_last_step(&plan, shadow)
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
            shadow,
            approval,
            steps: Vec::new(),
            verification: None,
            rollback: None,
            verdict: None,
        });
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
                    tries: 0,
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
            match self.runs.last() {
                Some(run) => Self::after_last_step(&run.plan, run.shadow),
                None => Phase::Verifying,
            }
        }
    }

    fn after_last_step(plan: &Plan, shadow: bool) -> Phase {
        if shadow {
            Phase::Alerting {
                outcome: Outcome::Shadow,
                reason: format!(
                    "shadow mode: {} would have been run, and nothing was done",
                    plan.playbook
                ),
            }
        } else {
            Phase::Verifying
        }
    }

    fn after_failed_step(&mut self, step: usize) -> Phase {
        let Some(planned) = self.planned(step).cloned() else {
            return Phase::RollingBack;
        };
        if self.runs.last().is_some_and(|r| r.shadow) {
            return self.after_step(step);
        }
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
        verification.proves()
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
            RunVerdict::Failed if self.still_worse().is_some() => {
                self.failed_attempts += u32::from(chosen_by != Some(ChosenBy::Advisor));
                Phase::Alerting {
                    outcome: Outcome::HumanAlert,
                    reason: format!(
                        "the fix was taken back, and what it made worse is still worse: {}",
                        self.still_worse().unwrap_or_default()
                    ),
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

    /// What an attempt made worse and its rollback did not make good.
    fn still_worse(&self) -> Option<String> {
        guarded::worse(&self.runs.last()?.rollback.as_ref()?.guards)
    }

    pub(super) fn ask_or_alert(&self, reason: &str) -> Phase {
        if self.next_advisor < self.rules.advisors && self.rules.mode != Mode::Shadow {
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
