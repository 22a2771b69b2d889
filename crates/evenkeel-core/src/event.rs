//! What can happen in a healing cycle. The list is closed, and every event is recorded before what follows from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::anomaly::Anomaly;
use crate::approval::ApprovalRequest;
use crate::guarded::{GuardSample, GuardVerdict};
use crate::outcome::{Outcome, Refusal, Rules};
use crate::playbook::{Plan, Prepared, RollbackOutcome, StepOutcome};
use crate::policy::Mode;
use crate::time::Timestamp;

/// Who found the anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The stress test after boot.
    PostBoot,
    /// The watchdog.
    Watchdog,
    /// A person asked.
    Operator,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Its id: the directory's name.
    pub id: String,
    /// Its directory, relative to the data directory where it lies inside.
    pub dir: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Files in it.
    pub files: u32,
}

/// What a re-test found. It never asks the actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The signal is normal again. Inconclusive is not passed.
    pub passed: bool,
    /// `stress_test_rerun`, `monitor_window` or `readiness`.
    pub verification_method: String,
    /// The name of what was run or read again.
    pub subject: String,
    /// What was measured: `error_rate`, `latency_p95`, `memory_growth`, ...
    pub metric: String,
    /// The measure when the anomaly was found.
    pub before: Option<f64>,
    /// The measure now; `None` when nothing could be measured.
    pub after: Option<f64>,
    /// Both, as people write them: `10% -> 2%` with an arrow.
    pub improvement: String,
    /// Nothing could be concluded (no samples, a test that could not run); counts as not passed.
    pub inconclusive: bool,
    /// One sentence for a person.
    pub details: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What else was measured.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// The guarded metrics, against what they were before the attempt. One that is worse means not passed, whatever
    /// `passed` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardVerdict>,
}

impl Verification {
    /// The fix is proved: the signal is normal again, that could be concluded, and nothing else got worse.
    pub fn proves(&self) -> bool {
        self.passed && !self.inconclusive && self.guards.iter().all(|g| !g.worse)
    }
}

/// An advisor's answer after validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// The advisor's name.
    pub advisor: String,
    /// The playbook it proposes.
    pub suggested_action: String,
    /// How sure it is, 0 to 1.
    pub confidence: f64,
    /// Why, in its words.
    pub reasoning: String,
    /// Parameters it proposes.
    pub recommended_config: BTreeMap<String, Value>,
    /// The plan that the proposal was checked into.
    pub plan: Plan,
    /// The guidance file it is kept in, relative to the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_file: Option<String>,
}

/// The alert that went out to people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertRef {
    /// Channels that took it.
    pub delivered: Vec<String>,
    /// Channels that failed, with the reason.
    pub failed: Vec<String>,
    /// The alert file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An anomaly was admitted: a cycle begins.
    Opened {
        /// The anomaly.
        anomaly: Box<Anomaly>,
        /// Who found it.
        trigger: Trigger,
        /// The rules of this cycle, kept with it: a later configuration does not change how it replays.
        rules: Rules,
        /// Failed attempts for this anomaly type before this cycle.
        prior_attempts: u32,
        /// The cycle whose fix did not last, when the same anomaly came back within the recurrence window.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recurrence_of: Option<String>,
        /// The plan a person chose, for manual runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<Box<Plan>>,
        /// Why nothing may be done about it: people are alerted, and that is all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<Refusal>,
    },
    /// The snapshot before an attempt is complete and was checked.
    SnapshotTaken {
        /// Where it is.
        snapshot: SnapshotRef,
        /// The guarded metrics before anything is changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        guards: Vec<GuardSample>,
    },
    /// No snapshot, so nothing may be changed.
    SnapshotFailed {
        /// Why.
        error: String,
    },
    /// A playbook was chosen and made concrete.
    PlaybookSelected {
        /// The plan.
        plan: Box<Plan>,
        /// Candidates that were passed over, and why.
        passed_over: Vec<String>,
        /// How freely it may act now.
        #[serde(default = "Mode::before_modes")]
        mode: Mode,
    },
    /// No playbook applies.
    NoPlaybook {
        /// Why.
        reason: String,
    },
    /// A step is ready to run: this is the intent, written before the act.
    StepPrepared {
        /// Index of the step in the plan.
        step: usize,
        /// The concrete action and its undo.
        prepared: Box<Prepared>,
    },
    /// A step's condition does not hold.
    StepSkipped {
        /// Index of the step.
        step: usize,
        /// Why.
        reason: String,
    },
    /// A step could not be prepared, or a limit forbids it; nothing was done.
    StepRefused {
        /// Index of the step.
        step: usize,
        /// Why.
        error: String,
    },
    /// A step ended.
    StepFinished {
        /// Index of the step.
        step: usize,
        /// How it went.
        outcome: StepOutcome,
    },
    /// The failed test or monitor was run or read again.
    Verified {
        /// What it found.
        verification: Box<Verification>,
    },
    /// The settle window is over.
    Settled {
        /// The signal stayed normal throughout.
        stayed_normal: bool,
        /// One sentence for a person.
        details: String,
    },
    /// What the attempt changed was taken back, or not.
    RolledBack {
        /// How that went.
        outcome: RollbackOutcome,
    },
    /// The attempt is over and counted.
    RunConcluded,
    /// The wait before the next attempt is over, and the signal was looked at again.
    RetryDue {
        /// The anomaly is still there. Inconclusive counts as still there.
        still_there: bool,
        /// One sentence for a person.
        details: String,
    },
    /// An advisor proposed something that is allowed.
    Advised {
        /// The advice.
        advice: Box<Advice>,
        /// How freely its playbook may act now.
        #[serde(default = "Mode::before_modes")]
        mode: Mode,
    },
    /// An advisor gave nothing that can be used.
    AdviceFailed {
        /// Which advisor.
        advisor: String,
        /// Why: no key, time-out, unknown action, out of bounds, low confidence, malformed.
        reason: String,
    },
    /// A person was asked whether the plan may run.
    ApprovalRequested {
        /// What is asked.
        request: ApprovalRequest,
        /// Through what they were told.
        #[serde(default)]
        notified: AlertRef,
    },
    /// A person said yes to exactly this.
    Approved {
        /// The request.
        id: String,
        /// What the person saw.
        binds: String,
        /// Who.
        by: String,
    },
    /// A person said no.
    Denied {
        /// The request.
        id: String,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Nobody answered in time.
    ApprovalExpired {
        /// The request.
        id: String,
    },
    /// After a wait the signal was looked at again, before anything is done about it.
    Rechecked {
        /// The anomaly is still there. Inconclusive counts as still there.
        still_there: bool,
        /// One sentence for a person.
        details: String,
    },
    /// Nothing more is begun until a person or a window lets go: a pause, a lock, maintenance, shadow mode.
    Held {
        /// Why.
        reason: String,
    },
    /// What held the cycle is over.
    Released,
    /// A limit is reached: nothing more is tried.
    Refused {
        /// Which one.
        reason: String,
    },
    /// People were alerted.
    Alerted {
        /// Through what.
        alert: AlertRef,
    },
    /// The closing entry is written.
    Closed {
        /// How the cycle ended. In records `ended`: their `outcome` is `success` or `failed`.
        #[serde(rename = "ended")]
        outcome: Outcome,
    },
    /// Evenkeel is stopping: the cycle is put aside in a safe place.
    Parked {
        /// A step was still running and its outcome is unknown.
        interrupted: bool,
    },
    /// Evenkeel is back: after a park, or after a crash.
    Resumed {
        /// No park was recorded: whatever was under way has an unknown outcome.
        after_crash: bool,
    },
}

impl Event {
    /// The event's name, as records carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::SnapshotTaken { .. } => "snapshot_taken",
            Self::SnapshotFailed { .. } => "snapshot_failed",
            Self::PlaybookSelected { .. } => "playbook_selected",
            Self::NoPlaybook { .. } => "no_playbook",
            Self::StepPrepared { .. } => "step_prepared",
            Self::StepSkipped { .. } => "step_skipped",
            Self::StepRefused { .. } => "step_refused",
            Self::StepFinished { .. } => "step_finished",
            Self::Verified { .. } => "verified",
            Self::Settled { .. } => "settled",
            Self::RolledBack { .. } => "rolled_back",
            Self::RunConcluded => "run_concluded",
            Self::RetryDue { .. } => "retry_due",
            Self::Advised { .. } => "advised",
            Self::AdviceFailed { .. } => "advice_failed",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::Approved { .. } => "approved",
            Self::Denied { .. } => "denied",
            Self::ApprovalExpired { .. } => "approval_expired",
            Self::Rechecked { .. } => "rechecked",
            Self::Held { .. } => "held",
            Self::Released => "released",
            Self::Refused { .. } => "refused",
            Self::Alerted { .. } => "alerted",
            Self::Closed { .. } => "closed",
            Self::Parked { .. } => "parked",
            Self::Resumed { .. } => "resumed",
        }
    }
}

/// An event with the moment it happened and the cycle it belongs to: what a ledger entry of a cycle holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// The cycle.
    pub workflow_id: String,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}
