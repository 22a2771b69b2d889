//! What a cycle shows of itself: the six steps, as the specification has them.

use evenkeel_core::anomaly::{Anomaly, format_measure};
use evenkeel_core::cycle::{Outcome, Phase};
use evenkeel_core::event::Event;
use evenkeel_core::{Cycle, Effect};

use super::World;
use crate::ui::{Mark, Say};

/// What has been shown of a cycle, so that each step is shown once for an attempt.
#[derive(Debug, Default)]
pub(super) struct Shown {
    attempt: u32,
    executing: bool,
    steps: usize,
}

impl World {
    pub(super) fn show_opened(&self, workflow_id: &str, anomaly: &Anomaly) {
        self.ui.say(&Say::HealingStarted {
            workflow_id: workflow_id.to_owned(),
            anomaly: Box::new(anomaly.clone()),
        });
    }

    /// Before an effect is carried out.
    pub(super) fn show_effect(&self, shown: &mut Shown, cycle: &Cycle, effect: &Effect) {
        let start = |n: u8, text: String| self.ui.say(&Say::StepStarted { n, text });
        match effect {
            Effect::TakeSnapshot => {
                if shown.attempt != cycle.attempt() {
                    shown.attempt = cycle.attempt();
                    shown.executing = false;
                    shown.steps = 0;
                    let by_mapping = cycle.chosen_plan.is_none();
                    if by_mapping {
                        self.ui.say(&Say::AttemptStarted {
                            attempt: cycle.failed_attempts + 1,
                            max_attempts: cycle.rules.max_attempts,
                        });
                    }
                }
                start(1, "Taking snapshot".into());
            }
            Effect::SelectPlaybook => start(2, "Selecting playbook".into()),
            Effect::PrepareStep { .. } => {
                if !shown.executing {
                    shown.executing = true;
                    let shadow = cycle.run().is_some_and(|r| r.shadow);
                    start(
                        3,
                        if shadow {
                            "Working out what would be done (shadow mode)".into()
                        } else {
                            "Executing playbook".into()
                        },
                    );
                }
            }
            Effect::Verify => {
                self.end_executing(shown, Mark::Ok);
                start(4, format!("Re-running {}", retest_name(cycle)));
            }
            Effect::Settle { for_ms } => start(
                5,
                format!("Verification: watching for {:.1}s", *for_ms as f64 / 1000.0),
            ),
            Effect::RollBack => self.end_executing(shown, Mark::Fail),
            Effect::WaitRetry { for_ms } => {
                self.ui.note(format!(
                    "Anomaly persists; next attempt in {:.0}s",
                    *for_ms as f64 / 1000.0
                ));
            }
            Effect::Advise { .. } => {
                self.ui.say(&Say::Escalation {
                    text: format!(
                        "Max attempts reached ({} failed) - ESCALATING",
                        cycle.failed_attempts
                    ),
                });
                self.ui.say(&Say::Heading {
                    text: "[AMP ESCALATION]".into(),
                });
                self.ui.say(&Say::Escalation {
                    text: format!("Query: \"{}\" with full context", cycle.anomaly.kind),
                });
            }
            Effect::Close { .. } => start(6, "Logging to immutable ledger".into()),
            Effect::RequestApproval => start(3, "Asking a person".into()),
            Effect::RunStep { .. } | Effect::ConcludeRun | Effect::Recheck | Effect::Alert => {}
        }
    }

    /// After an event was recorded. `before` is the cycle as it was, `after` as it is (gone when it closed).
    pub(super) fn show_event(
        &self,
        shown: &mut Shown,
        before: &Cycle,
        after: Option<&Cycle>,
        event: &Event,
    ) {
        let finish = |n: u8, text: &str, mark: Mark, detail: String| {
            self.ui.say(&Say::StepFinished {
                n,
                text: text.to_owned(),
                mark,
                detail,
            });
        };
        let detail = |text: String| self.ui.say(&Say::StepDetail { text });
        match event {
            Event::SnapshotTaken { snapshot, .. } => finish(
                1,
                "Taking snapshot",
                Mark::Ok,
                format!(
                    "{} ({:.1} MB)",
                    snapshot.dir,
                    snapshot.bytes as f64 / 1_048_576.0
                ),
            ),
            Event::SnapshotFailed { error } => {
                finish(1, "Taking snapshot", Mark::Fail, error.clone());
            }
            Event::PlaybookSelected {
                plan, passed_over, ..
            } => {
                finish(
                    2,
                    "Selecting playbook",
                    Mark::Ok,
                    format!("{} ({} risk, {})", plan.playbook, plan.risk, plan.tier),
                );
                for p in passed_over {
                    detail(format!("passed over: {p}"));
                }
            }
            Event::NoPlaybook { reason } => {
                finish(2, "Selecting playbook", Mark::Fail, reason.clone());
            }
            Event::StepFinished { outcome, step } => {
                shown.steps += usize::from(outcome.ok);
                let id = before
                    .run()
                    .and_then(|r| r.plan.steps.get(*step))
                    .map_or("step", |s| s.id.as_str());
                let word = if outcome.ok { "" } else { "failed: " };
                detail(format!("{id}: {word}{}", outcome.message));
            }
            Event::StepRefused { error, .. } => detail(format!("refused: {error}")),
            Event::Verified { verification } => {
                let mark = if verification.passed {
                    Mark::Pass
                } else {
                    Mark::Fail
                };
                finish(
                    4,
                    &format!("Re-running {}", retest_name(before)),
                    mark,
                    String::new(),
                );
                let proves = verification.proves();
                if !proves || before.rules.settle_ms == 0 {
                    let mark = if proves { Mark::Pass } else { Mark::Fail };
                    finish(5, "Verification", mark, verification.details.clone());
                }
            }
            Event::Settled {
                stayed_normal,
                details,
            } => {
                let mark = if *stayed_normal {
                    Mark::Pass
                } else {
                    Mark::Fail
                };
                let verified = before
                    .run()
                    .and_then(|r| r.verification.as_ref())
                    .map_or(String::new(), |v| v.details.clone());
                finish(5, "Verification", mark, format!("{verified}; {details}"));
            }
            Event::RolledBack { outcome } => {
                outcome
                    .restored
                    .iter()
                    .for_each(|r| detail(format!("rolled back: {r}")));
                outcome
                    .errors
                    .iter()
                    .for_each(|e| detail(format!("could not be rolled back: {e}")));
                if outcome.ok && outcome.restored.is_empty() {
                    detail("nothing had to be rolled back".into());
                }
            }
            Event::RunConcluded => self.show_concluded(after),
            Event::RetryDue {
                still_there,
                details,
            } => {
                self.ui.note(if *still_there {
                    "Anomaly still present".to_owned()
                } else {
                    format!("Anomaly went away by itself: {details}")
                });
            }
            Event::Advised { advice, .. } => {
                for text in [
                    format!(
                        "Response: \"{}\" (confidence {:.2}, {})",
                        advice.reasoning, advice.confidence, advice.advisor
                    ),
                    format!("Suggested Playbook: {}", advice.suggested_action),
                ] {
                    self.ui.say(&Say::Escalation { text });
                }
                if let Some(file) = &advice.guidance_file {
                    self.ui.say(&Say::Escalation {
                        text: format!("Guidance recorded in {file}"),
                    });
                }
                self.ui.say(&Say::Escalation {
                    text: "Executing the suggestion...".into(),
                });
            }
            Event::AdviceFailed { advisor, reason } => self.ui.say(&Say::Escalation {
                text: format!("{advisor}: no usable answer: {reason}"),
            }),
            Event::Alerted { alert } => {
                for name in &alert.failed {
                    self.ui.warn(format!("alert channel failed: {name}"));
                }
                let why = match &before.phase {
                    Phase::Alerting { reason, .. } => reason.as_str(),
                    _ => "",
                };
                self.ui.warn(format!(
                    "A person is needed: {why}. Alert: {}",
                    alert.file.as_deref().unwrap_or("no file could be written")
                ));
            }
            Event::Closed { outcome } => {
                finish(6, "Logging to immutable ledger", Mark::Ok, String::new());
                self.show_closed(before, *outcome);
            }
            Event::ApprovalRequested { request, .. } => {
                self.ui.warn(format!(
                    "{} waits for a person until {}: evenkeel approve {id}, or evenkeel deny {id} --why \"...\"",
                    request.playbook,
                    request.expires_at,
                    id = request.id
                ));
            }
            Event::Approved { by, .. } => self.ui.note(format!("Approved by {by}")),
            Event::Denied { by, why, .. } => self.ui.note(format!("Denied by {by}: {why}")),
            Event::ApprovalExpired { id } => {
                self.ui
                    .warn(format!("The approval {id} was not given in time"));
            }
            Event::Held { reason } => self.ui.warn(format!("Hands off: {reason}")),
            Event::Released => self.ui.note("Going on, after a fresh look"),
            Event::Refused { reason } => self.ui.warn(format!("Nothing more is tried: {reason}")),
            Event::Rechecked {
                still_there,
                details,
            } => self.ui.note(if *still_there {
                "Anomaly still present".to_owned()
            } else {
                format!("Anomaly went away by itself: {details}")
            }),
            Event::StepPrepared { prepared, .. } => {
                if before.run().is_some_and(|r| r.shadow) {
                    self.ui.say(&Say::StepDetail {
                        text: format!("would: {}", prepared.summary),
                    });
                }
            }
            Event::Opened { .. }
            | Event::StepSkipped { .. }
            | Event::Parked { .. }
            | Event::Resumed { .. } => {}
        }
    }

    fn end_executing(&self, shown: &mut Shown, mark: Mark) {
        if shown.executing {
            shown.executing = false;
            self.ui.say(&Say::StepFinished {
                n: 3,
                text: "Executing playbook".into(),
                mark,
                detail: format!("{} steps done", shown.steps),
            });
        }
    }

    fn show_concluded(&self, after: Option<&Cycle>) {
        let Some(run) = after.and_then(Cycle::run) else {
            return;
        };
        if run.verdict != Some(evenkeel_core::cycle::RunVerdict::Passed) {
            self.ui.say(&Say::Escalation {
                text: format!(
                    "Healing attempt {}: {} [FAIL]",
                    run.attempt, run.plan.playbook
                ),
            });
        }
    }

    fn show_closed(&self, cycle: &Cycle, outcome: Outcome) {
        let improvement = cycle
            .run()
            .and_then(|r| r.verification.as_ref())
            .map(|v| v.improvement.clone())
            .unwrap_or_default();
        let message = match outcome {
            Outcome::Resolved => format!("Anomaly resolved: {improvement}"),
            Outcome::ResolvedWithAdvice => {
                format!("Issue resolved with AMP assistance: {improvement}")
            }
            Outcome::Cleared => {
                "The anomaly went away by itself; what was tried is rolled back".to_owned()
            }
            Outcome::HumanAlert => format!(
                "Self-healing exhausted; a person was alerted ({})",
                format_measure(cycle.anomaly.current, &cycle.anomaly.unit)
            ),
            Outcome::Shadow => match cycle.run() {
                Some(run) => format!(
                    "Shadow mode: {} would have been run; nothing was done",
                    run.plan.playbook
                ),
                None => "Shadow mode: nothing was done".to_owned(),
            },
            Outcome::Stuck => "A rollback failed: hands off, a person was alerted".to_owned(),
        };
        self.ui.say(&Say::HealingFinished {
            workflow_id: cycle.workflow_id.clone(),
            success: outcome.healed(),
            message,
        });
    }
}

/// What a person calls the re-test: `memory leak test`.
fn retest_name(cycle: &Cycle) -> String {
    match &cycle.anomaly.test {
        Some(test) => {
            let lower = test.to_lowercase();
            let name = lower
                .trim_end_matches(" detection")
                .trim_end_matches(" test");
            format!("{name} test")
        }
        None => match cycle.anomaly.subject().strip_prefix("liveness/") {
            Some(service) => format!("health check of {service}"),
            None => format!("{} check", cycle.anomaly.subject()),
        },
    }
}
