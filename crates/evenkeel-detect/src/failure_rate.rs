//! The failure rate: failed playbook runs over all runs of the window.
//!
//! The collector hands in the totals of its window. More than five runs are needed; then the bare share decides, as
//! people who read the contract expect it to: what follows is a review of the playbooks, not a restart.

use evenkeel_core::anomaly::format_measure;
use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::slot::{Evaluation, Finding, Seen};
use crate::verdict::MeasureNow;

/// The series of the anomalies that this monitor raises.
pub const SERIES: &str = "failure_rate";

#[derive(Clone, Copy, Debug)]
struct Totals {
    at: Timestamp,
    failed: u64,
    total: u64,
    fresh: bool,
}

/// The monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailureRate {
    newest: Option<Totals>,
    since: Option<Timestamp>,
}

impl FailureRate {
    pub(crate) fn totals(&mut self, at: Timestamp, failed: u64, total: u64) {
        self.newest = Some(Totals {
            at,
            failed,
            total,
            fresh: true,
        });
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        config: &DetectConfig,
        limit: f64,
    ) -> Evaluation {
        self.newest = self
            .newest
            .filter(|t| now.millis_since(t.at) <= config.failure_window_ms);
        let Some(newest) = &mut self.newest else {
            self.since = None;
            return Evaluation::UNKNOWN;
        };
        let Totals {
            at,
            failed,
            total,
            fresh,
        } = *newest;
        newest.fresh = false;
        let rate = share(failed, total);
        if total > config.failure_min_runs && rate > limit {
            let since = *self.since.get_or_insert(at);
            let finding = Finding {
                current: rate,
                threshold: limit,
                unit: "ratio",
                details: format!(
                    "Playbook failure rate {} exceeds threshold {}: {failed} of {total} runs failed",
                    format_measure(rate, "ratio"),
                    format_measure(limit, "ratio"),
                ),
                service: None,
                source: SERIES.to_owned(),
                since,
                context: json!({ "failed": failed, "total": total }),
            };
            return Evaluation {
                seen: if fresh { Seen::Bad } else { Seen::BadStill },
                finding: Some(finding),
            };
        }
        self.since = None;
        if fresh {
            Evaluation::GOOD
        } else {
            Evaluation::UNKNOWN
        }
    }

    pub(crate) fn measure(&self, config: &DetectConfig) -> Option<MeasureNow> {
        let newest = self.newest.filter(|t| t.total > 0)?;
        Some(MeasureNow {
            value: share(newest.failed, newest.total),
            unit: "ratio",
            samples: newest.total,
            enough: newest.total > config.failure_min_runs,
        })
    }
}

fn share(failed: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        failed as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_runs_and_more_than_the_limit() {
        for (failed, total, expected) in [
            (0, 0, Seen::Good),
            (5, 5, Seen::Good),  // not more than five runs
            (1, 10, Seen::Good), // exactly at the limit
            (1, 6, Seen::Bad),
            (2, 10, Seen::Bad),
        ] {
            let mut monitor = FailureRate::default();
            let now = Timestamp::from_millis(0);
            monitor.totals(now, failed, total);
            let seen = monitor.evaluate(now, &DetectConfig::default(), 0.10).seen;
            assert_eq!(seen, expected, "{failed} of {total}");
        }
    }

    #[test]
    fn totals_are_believed_for_one_window_only() {
        let (mut monitor, config) = (FailureRate::default(), DetectConfig::default());
        monitor.totals(Timestamp::from_millis(0), 6, 6);
        let mut seen = |ms| {
            monitor
                .evaluate(Timestamp::from_millis(ms), &config, 0.10)
                .seen
        };
        assert_eq!(
            [seen(0), seen(600_000), seen(600_001)],
            [Seen::Bad, Seen::BadStill, Seen::Unknown]
        );
    }
}
