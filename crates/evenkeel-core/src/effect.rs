//! What a cycle asks of the world: at any moment exactly one thing, and every one of them ends in an event.

use serde::Serialize;

use crate::outcome::Outcome;

/// What is due now. Carried out only after the event that led here is recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Take a snapshot and check it. Ends in `SnapshotTaken` or `SnapshotFailed`.
    TakeSnapshot,
    /// Choose a playbook. Ends in `PlaybookSelected` or `NoPlaybook`.
    SelectPlaybook,
    /// Make a step concrete; changes nothing. Ends in `StepPrepared`, `StepSkipped` or `StepRefused`.
    PrepareStep {
        /// Index of the step.
        step: usize,
    },
    /// Run the prepared step. Ends in `StepFinished`.
    RunStep {
        /// Index of the step.
        step: usize,
    },
    /// Run or read the failed signal again. Ends in `Verified`.
    Verify,
    /// Watch the signal for a while. Ends in `Settled`.
    Settle {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Take back what the attempt changed. Ends in `RolledBack`.
    RollBack,
    /// Count the attempt. Ends in `RunConcluded`.
    ConcludeRun,
    /// Wait before the next attempt. Ends in `RetryDue`.
    WaitRetry {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Ask a person whether the plan may run. Ends in `ApprovalRequested`.
    RequestApproval,
    /// Look at the signal again before anything is done. Ends in `Rechecked`.
    Recheck,
    /// Ask an advisor. Ends in `Advised` or `AdviceFailed`.
    Advise {
        /// Which, in the configured order, from 0.
        advisor: u32,
    },
    /// Alert people. Ends in `Alerted`.
    Alert,
    /// Write the closing entry. Ends in `Closed`.
    Close {
        /// How the cycle ends.
        outcome: Outcome,
    },
}

impl Effect {
    /// Whether carrying it out changes the target.
    pub fn acts(&self) -> bool {
        matches!(self, Self::RunStep { .. } | Self::RollBack)
    }

    /// Whether it waits while a person or a window says hands off: what acts, and what begins something that will.
    pub fn waits_when_held(&self) -> bool {
        self.acts() || matches!(self, Self::TakeSnapshot | Self::RequestApproval)
    }
}
