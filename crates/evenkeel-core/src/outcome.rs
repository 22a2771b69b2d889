//! How much a cycle may do, and how it and its attempts end: the words that events, effects and cycles share.

use serde::{Deserialize, Serialize};

use crate::policy::Mode;

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
    /// The mode when the cycle began. In shadow mode nothing is snapshotted before a playbook is chosen.
    #[serde(default = "Mode::before_modes")]
    pub mode: Mode,
    /// The longest wait between attempts, in milliseconds: the wait doubles until it is reached. 0: it does not grow.
    #[serde(default)]
    pub retry_wait_max_ms: u64,
    /// So many failed cycles in a row open the breaker.
    #[serde(default = "never")]
    pub breaker_cycles: u32,
}

fn never() -> u32 {
    u32::MAX
}

impl Rules {
    /// The wait after the `failed`th failed attempt, in milliseconds.
    pub fn wait_ms(&self, failed: u32) -> u64 {
        let longest = self.retry_wait_max_ms.max(self.retry_wait_ms);
        doubled(self.retry_wait_ms, failed, longest)
    }
}

/// A wait that begins with `first_ms` and doubles with each failure after the first, until `longest_ms`.
pub(crate) fn doubled(first_ms: u64, failed: u32, longest_ms: u64) -> u64 {
    let doublings = failed.saturating_sub(1).min(20);
    first_ms.saturating_mul(1 << doublings).min(longest_ms)
}

/// Why a cycle does nothing but alert: a limit that a person has to know about was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The breaker is open.
    Breaker,
    /// A rollback failed, and no person has put it in order yet.
    Stuck,
    /// The heals of the hour or of the day are used up.
    Budget,
    /// The anomaly comes and goes.
    Flapping,
    /// The disk would not take the snapshot that has to come first.
    NoRoom,
    /// Another run is held in the middle, and nothing else is begun meanwhile.
    Held,
    /// What failed is outside the target: nothing of it is Evenkeel's to heal.
    Outside,
    /// More has failed at once than a healer should touch. It opens the breaker.
    Storm,
}

/// Why a cycle does nothing but alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which limit.
    pub kind: RefusalKind,
    /// One sentence for a person.
    pub reason: String,
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
    /// Nothing helped, or nothing was allowed; a person was alerted, or said no.
    HumanAlert,
    /// Shadow mode: what would have been done is on record, and nothing was done.
    Shadow,
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
            Self::Shadow => "shadow",
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
