//! What the watchdog says at a check, and what it measures besides.

use std::collections::BTreeMap;

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use serde::Serialize;

/// One statement of a check. A raised anomaly continues at every check until it is cleared, once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "a check returns a handful of them"
)]
pub enum Verdict {
    /// A new anomaly.
    Raised(Anomaly),
    /// It is still there; [`crate::Watchdog::active`] has it with the newest figures.
    Continues {
        /// [`Anomaly::key`].
        key: String,
    },
    /// Enough good checks in a row: it is over.
    Cleared {
        /// [`Anomaly::key`].
        key: String,
        /// Its type.
        kind: AnomalyType,
    },
    /// It would have been raised, but another anomaly explains it. Said once for as long as it lasts.
    Suppressed {
        /// The key that it would have had.
        key: String,
        /// Its type.
        kind: AnomalyType,
        /// Key of the anomaly that explains it.
        by: String,
    },
}

/// One measure as it stands now, for status and for verification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureNow {
    /// The value, in `unit`.
    pub value: f64,
    /// `ratio`, `ms`, `MB`, `MB/h` or `count`.
    pub unit: &'static str,
    /// Samples or events that it rests on.
    pub samples: u64,
    /// They are enough for a judgement. A verification that finds this false is inconclusive, which is failed.
    pub enough: bool,
}

/// All measures as they stand now; nothing where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measures {
    /// Share of errors, 0 to 1: of the worst source that has enough events, else of all sources together.
    pub error_rate: Option<f64>,
    /// 95th percentile of the response times, in milliseconds: of the worst source that has enough samples, else of
    /// all probes together.
    pub latency_p95_ms: Option<f64>,
    /// Newest resident memory of all known processes together, in MB.
    pub memory_mb: Option<f64>,
    /// Steepest memory slope of any process, in MB per hour.
    pub memory_growth_mb_per_h: Option<f64>,
    /// Share of failed playbook runs, 0 to 1, however few there were.
    pub failure_rate: Option<f64>,
    /// Services that are known to answer (`true`), or to be down or hung (`false`).
    pub up: BTreeMap<String, bool>,
}

/// How far from the limit: below 1.5 times medium, below 3 times high, else critical. A target that does not serve
/// is always critical; drift and missing telemetry are always low. `NaN`, which no monitor hands in, is medium.
pub fn severity_of(current: f64, threshold: f64) -> Severity {
    let ratio = current / threshold;
    if ratio >= 3.0 {
        Severity::Critical
    } else if ratio >= 1.5 {
        Severity::High
    } else {
        Severity::Medium
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_follows_the_distance_from_the_limit() {
        for (current, expected) in [
            (0.06, Severity::Medium),
            (0.0749, Severity::Medium),
            (0.12, Severity::High),
            (0.149, Severity::High),
            (0.16, Severity::Critical),
            (1.0, Severity::Critical),
        ] {
            assert_eq!(severity_of(current, 0.05), expected, "{current}");
        }
    }
}
