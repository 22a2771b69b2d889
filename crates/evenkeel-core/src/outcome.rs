//! How much a cycle may do, and how it and its attempts end: the words that events, effects and cycles share.

use serde::{Deserialize, Serialize};

/// How much a cycle may do. Recorded with the cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Failed attempts for an anomaly type before an advisor is asked.
    pub max_attempts: u32,
    /// How long the signal must stay normal after a passed re-test, in milliseconds; 0 skips the window.
    pub settle_ms: u64,
    /// Wait between a failed attempt and the next, in milliseconds.
    pub retry_wait_ms: u64,
    /// How many advisors may be asked; 0 when escalation is off.
    pub advisors: u32,
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A playbook helped, the re-test passed, and the signal stayed normal.
    Resolved,
    /// The same, with an advisor's playbook.
    ResolvedWithAdvice,
    /// No attempt helped, and then the anomaly went away by itself.
    Cleared,
    /// Nothing helped; a person was alerted.
    HumanAlert,
    /// A rollback failed: the target is neither as it was nor healed; a person was alerted. Never folded into the
    /// others.
    Stuck,
}

impl Outcome {
    /// The anomaly is gone.
    pub fn healed(self) -> bool {
        matches!(
            self,
            Self::Resolved | Self::ResolvedWithAdvice | Self::Cleared
        )
    }

    /// A playbook ended it: not luck, and not a person.
    pub fn fixed(self) -> bool {
        matches!(self, Self::Resolved | Self::ResolvedWithAdvice)
    }

    /// As records write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::ResolvedWithAdvice => "resolved_with_advice",
            Self::Cleared => "cleared",
            Self::HumanAlert => "human_alert",
            Self::Stuck => "stuck",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunVerdict {
    /// Verified, and stayed normal.
    Passed,
    /// Did not help, and was taken back.
    Failed,
    /// Did not help, and could not be taken back.
    Stuck,
}
