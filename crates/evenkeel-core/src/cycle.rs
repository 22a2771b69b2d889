//! One healing cycle: the state machine of DESIGN section 3.
//!
//! [`Cycle::apply`] is the only transition table there is; live runs and replay both go through it. What it does not
//! list is an [`InvalidTransition`], never a default. At any moment a cycle that is neither closed, nor put aside, nor
//! held, nor waiting for a person has exactly one [`Effect`] due ([`Cycle::effect`]), so there is always a way on.
//!
//! **Invariants**, held by the types and shown by property tests: no step runs in an attempt without a snapshot taken
//! in that attempt; no step runs without its prepared intent; a step of a plan that needs approval runs only after a
//! person said yes to exactly that plan; failed attempts never exceed the rules; a closed cycle takes no further event.

mod table;

use serde::Serialize;
use serde_json::Value;

use crate::anomaly::Anomaly;
use crate::effect::Effect;
pub use crate::outcome::{Outcome, RefusalKind, Rules, RunVerdict};

use crate::approval::{self, Approval, ApprovalRequest};
use crate::event::{Advice, AlertRef, Event, SnapshotRef, Trigger, Verification};
use crate::guarded::GuardSample;
use crate::playbook::{Plan, Prepared, RollbackOutcome, StepOutcome, UndoOp};
use crate::policy::{Mode, Policy, limits};
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
    /// About to ask a person whether the chosen plan may run.
    Requesting,
    /// Waiting for a person's answer.
    AwaitingApproval {
        /// What is asked.
        request: ApprovalRequest,
    },
    /// Time has passed: looking again before anything is done.
    Rechecking {
        /// Where the cycle goes on when the anomaly is still there.
        next: Box<Phase>,
    },
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
    /// How often it has been tried again after a failure.
    pub retried: u32,
    /// How often it was prepared.
    pub tries: u32,
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
    /// The snapshot taken before it; none in shadow mode.
    pub snapshot: Option<SnapshotRef>,
    /// Shadow mode: its steps are prepared and never run.
    pub shadow: bool,
    /// Who approved it, where that was needed.
    pub approval: Option<Approval>,
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
    /// The limit that leaves nothing but to alert, where it is one.
    pub refused: Option<RefusalKind>,
    /// Its rules.
    pub rules: Rules,
    /// Failed attempts for this anomaly type, those before this cycle included.
    pub failed_attempts: u32,
    /// Where it is.
    pub phase: Phase,
    /// Put aside while Evenkeel stops.
    pub parked: bool,
    /// Why nothing more is begun for now.
    pub held: Option<String>,
    /// How long it has waited for people, in milliseconds: for approvals, and held.
    pub waited_ms: i64,
    /// Since when it waits for people, where it does.
    pub waits_since: Option<Timestamp>,
    /// How often Evenkeel crashed while this cycle was open.
    pub crashes: u32,
    /// The plan that the next attempt will run, when somebody has chosen it already.
    pub chosen_plan: Option<Plan>,
    /// How freely that plan may act.
    pub chosen_mode: Mode,
    /// A person's yes to that plan; used up by the attempt.
    pub approval: Option<Approval>,
    /// The snapshot of the coming attempt.
    pub snapshot: Option<SnapshotRef>,
    /// The guarded metrics as they were when the last snapshot was taken.
    pub guards_before: Vec<GuardSample>,
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
            refusal,
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
            refused: refusal.as_ref().map(|r| r.kind),
            rules: *rules,
            failed_attempts: *prior_attempts,
            phase: if rules.mode == Mode::Shadow && plan.is_none() {
                Phase::Selecting
            } else {
                Phase::Snapshotting
            },
            parked: false,
            held: None,
            waited_ms: 0,
            waits_since: None,
            crashes: 0,
            chosen_plan: plan.as_deref().cloned(),
            chosen_mode: Mode::Auto,
            approval: None,
            snapshot: None,
            guards_before: Vec::new(),
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
        if let Some(refusal) = refusal {
            cycle.refusals.push(refusal.reason.clone());
            cycle.phase = Phase::Alerting {
                outcome: Outcome::HumanAlert,
                reason: refusal.reason.clone(),
            };
        } else if *prior_attempts >= rules.max_attempts
            && plan.is_none()
            && rules.mode != Mode::Shadow
        {
            cycle.phase = cycle.ask_or_alert("earlier cycles have used all attempts");
        }
        Ok(cycle)
    }

    /// The one thing that is due now; nothing when the cycle is closed, parked, held, or waits for a person.
    pub fn effect(&self) -> Option<Effect> {
        if self.parked || self.held.is_some() {
            return None;
        }
        Some(match &self.phase {
            Phase::Snapshotting => Effect::TakeSnapshot,
            Phase::Selecting => Effect::SelectPlaybook,
            Phase::Requesting => Effect::RequestApproval,
            Phase::Rechecking { .. } => Effect::Recheck,
            Phase::Preparing { step } => Effect::PrepareStep { step: *step },
            Phase::Executing { step } => Effect::RunStep { step: *step },
            Phase::Verifying | Phase::Probing { .. } => Effect::Verify,
            Phase::Settling => Effect::Settle {
                for_ms: self.rules.settle_ms,
            },
            Phase::RollingBack => Effect::RollBack,
            Phase::Concluding { .. } => Effect::ConcludeRun,
            Phase::Waiting => Effect::WaitRetry {
                for_ms: self.rules.wait_ms(self.failed_attempts),
            },
            Phase::Advising { advisor } => Effect::Advise { advisor: *advisor },
            Phase::Alerting { .. } => Effect::Alert,
            Phase::Closing { outcome } => Effect::Close { outcome: *outcome },
            Phase::AwaitingApproval { .. } | Phase::Closed { .. } => return None,
        })
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

    /// What a person is asked, while the answer is waited for.
    pub fn awaits(&self) -> Option<&ApprovalRequest> {
        match &self.phase {
            Phase::AwaitingApproval { request } => Some(request),
            _ => None,
        }
    }

    /// The request for a person's approval of the chosen plan, for `RequestApproval`; `None` in any other phase.
    pub fn approval_request(&self, now: Timestamp, policy: &Policy) -> Option<ApprovalRequest> {
        let plan = self
            .chosen_plan
            .as_ref()
            .filter(|_| self.phase == Phase::Requesting)?;
        let binds = approval::binding(plan, &policy.target, &self.anomaly.key());
        let expires_at = now.plus_millis(limits::millis(policy.limits.approval_expires_s));
        Some(approval::request(
            &self.workflow_id,
            self.attempt(),
            plan,
            binds,
            expires_at,
        ))
    }

    /// The plan that is at work or comes next.
    pub fn plan(&self) -> Option<&Plan> {
        let running = self.run().filter(|r| r.verdict.is_none());
        running.map(|r| &r.plan).or(self.chosen_plan.as_ref())
    }

    /// Something of the attempt under way has been done, or may have been.
    pub fn has_acted(&self) -> bool {
        self.run().is_some_and(|r| {
            r.verdict.is_none() && !r.shadow && r.steps.iter().any(|s| s.prepared.is_some())
        })
    }

    /// It is held, and something of its attempt has been done: nothing else may be begun on the target.
    pub fn is_held_in_the_middle(&self) -> bool {
        self.held.is_some() && self.has_acted()
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
}

#[cfg(test)]
mod tests;
