//! The watchdog's habits: windows, persistence, minimum numbers, smallest effects worth acting on.

use serde::{Deserialize, Serialize};

use crate::limits::{PERSISTENCE_MAX, WINDOW_MAX_MS};

/// How the watchdog judges. Every default is what an interval of 60 seconds needs; a demo with an interval below a
/// second shortens the windows and the memory spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectConfig {
    /// Time between two checks, in milliseconds.
    pub interval_ms: i64,
    /// Window of the error rate, in milliseconds.
    pub error_window_ms: i64,
    /// Window of the response times, in milliseconds.
    pub latency_window_ms: i64,
    /// Window of the memory slope, in milliseconds.
    pub memory_window_ms: i64,
    /// How long a count of playbook runs is believed, in milliseconds; the window that the collector counts over.
    pub failure_window_ms: i64,
    /// Checks with fresh evidence that raise an anomaly...
    pub persistence_k: u32,
    /// ...among this many.
    pub persistence_n: u32,
    /// Good checks in a row after which an anomaly is over.
    pub recovery_checks: u32,
    /// Refused probes of one endpoint in a row that mean the target is down.
    pub refused_in_a_row: u32,
    /// Probes of one endpoint in a row that missed their deadline and mean the target hangs.
    pub timeouts_in_a_row: u32,
    /// Deadline of a probe, in milliseconds: what a probe that timed out is counted at, at least.
    pub probe_deadline_ms: f64,
    /// Events in the window below which an error rate says nothing.
    pub error_min_events: u64,
    /// Errors in the window below which an error rate says nothing.
    pub error_min_errors: u64,
    /// One-sided normal quantile of the Wilson bound that the error rate must exceed its limit with; 1.2816 is
    /// 90 % confidence, 0 compares the bare share.
    pub error_confidence_z: f64,
    /// Probes in the window below which their p95 says nothing.
    pub latency_min_samples: usize,
    /// Probes above the limit that a latency spike needs: one slow answer is no spike.
    pub latency_min_slow: usize,
    /// Requests in a scraped histogram below which its p95 says nothing.
    pub scraped_min_n: u64,
    /// A failure rate needs *more than* this many playbook runs.
    pub failure_min_runs: u64,
    /// Shortest time over which a memory slope is judged, in milliseconds.
    pub memory_min_span_ms: i64,
    /// Readings of a new process that are passed over, in milliseconds from the first one.
    pub memory_warmup_ms: i64,
    /// Readings below which a memory slope says nothing; at least 6.
    pub memory_min_samples: usize,
    /// Growth over the judged span that is worth acting on, in MB.
    pub memory_min_growth_mb: f64,
    /// Drift: how many times the healthy value.
    pub drift_factor: f64,
    /// Drift: and at least this much more of the error share.
    pub drift_error_share: f64,
    /// Drift: and at least this much more latency, in milliseconds.
    pub drift_latency_ms: f64,
    /// Drift: and at least this much more memory, in MB.
    pub drift_memory_mb: f64,
    /// Quiet checks from which a healthy value is learned where the baseline has none.
    pub drift_learn_checks: u32,
    /// Times in a row that a series must be reported missing before that is noted.
    pub missing_in_a_row: u32,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            interval_ms: 60_000,
            error_window_ms: 300_000,
            latency_window_ms: 60_000,
            memory_window_ms: 3_600_000,
            failure_window_ms: 600_000,
            persistence_k: 3,
            persistence_n: 5,
            recovery_checks: 2,
            refused_in_a_row: 2,
            timeouts_in_a_row: 2,
            probe_deadline_ms: 5_000.0,
            error_min_events: 10,
            error_min_errors: 3,
            error_confidence_z: 1.2816,
            latency_min_samples: 5,
            latency_min_slow: 3,
            scraped_min_n: 20,
            failure_min_runs: 5,
            memory_min_span_ms: 60_000,
            memory_warmup_ms: 60_000,
            memory_min_samples: 8,
            memory_min_growth_mb: 20.0,
            drift_factor: 2.0,
            drift_error_share: 0.02,
            drift_latency_ms: 100.0,
            drift_memory_mb: 100.0,
            drift_learn_checks: 20,
            missing_in_a_row: 2,
        }
    }
}

/// A setting that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watchdog setting `{key}` is {value}: use {expected}")]
pub struct InvalidConfig {
    /// Its name.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What can be.
    pub expected: String,
}

impl DetectConfig {
    /// Every window between 1 ms and 31 days, `k <= n`, nothing that is not a number.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        for (key, value, least) in [
            ("interval_ms", self.interval_ms, 1),
            ("error_window_ms", self.error_window_ms, 1),
            ("latency_window_ms", self.latency_window_ms, 1),
            ("memory_window_ms", self.memory_window_ms, 1),
            ("failure_window_ms", self.failure_window_ms, 1),
            ("memory_min_span_ms", self.memory_min_span_ms, 1),
            ("memory_warmup_ms", self.memory_warmup_ms, 0),
        ] {
            check(
                key,
                &value,
                (least..=WINDOW_MAX_MS).contains(&value),
                &format!("{least} to {WINDOW_MAX_MS} milliseconds"),
            )?;
        }
        check(
            "memory_min_span_ms",
            &self.memory_min_span_ms,
            self.memory_min_span_ms <= self.memory_window_ms,
            "at most memory_window_ms",
        )?;
        for (key, value) in [
            ("persistence_n", self.persistence_n),
            ("persistence_k", self.persistence_k),
            ("recovery_checks", self.recovery_checks),
            ("refused_in_a_row", self.refused_in_a_row),
            ("timeouts_in_a_row", self.timeouts_in_a_row),
            ("missing_in_a_row", self.missing_in_a_row),
        ] {
            check(
                key,
                &value,
                (1..=PERSISTENCE_MAX).contains(&value),
                &format!("1 to {PERSISTENCE_MAX}"),
            )?;
        }
        check(
            "persistence_k",
            &self.persistence_k,
            self.persistence_k <= self.persistence_n,
            "at most persistence_n",
        )?;
        check(
            "memory_min_samples",
            &self.memory_min_samples,
            (6..=100).contains(&self.memory_min_samples),
            "6 to 100",
        )?;
        check(
            "latency_min_samples",
            &self.latency_min_samples,
            (1..=100).contains(&self.latency_min_samples),
            "1 to 100",
        )?;
        check(
            "drift_factor",
            &self.drift_factor,
            self.drift_factor.is_finite() && self.drift_factor > 1.0,
            "a number above 1",
        )?;
        for (key, value) in [
            ("probe_deadline_ms", self.probe_deadline_ms),
            ("error_confidence_z", self.error_confidence_z),
            ("memory_min_growth_mb", self.memory_min_growth_mb),
            ("drift_error_share", self.drift_error_share),
            ("drift_latency_ms", self.drift_latency_ms),
            ("drift_memory_mb", self.drift_memory_mb),
        ] {
            check(
                key,
                &value,
                value.is_finite() && value >= 0.0,
                "a number of at least 0",
            )?;
        }
        Ok(())
    }
}

fn check<T: ToString>(
    key: &'static str,
    value: &T,
    ok: bool,
    expected: &str,
) -> Result<(), InvalidConfig> {
    if ok {
        Ok(())
    } else {
        Err(InvalidConfig {
            key,
            value: value.to_string(),
            expected: expected.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_named() {
        let good = DetectConfig::default();
        assert_eq!(good.validate(), Ok(()));
        for (key, bad) in [
            (
                "interval_ms",
                DetectConfig {
                    interval_ms: 0,
                    ..good.clone()
                },
            ),
            (
                "error_window_ms",
                DetectConfig {
                    error_window_ms: i64::MAX,
                    ..good.clone()
                },
            ),
            (
                "persistence_k",
                DetectConfig {
                    persistence_k: 6,
                    ..good.clone()
                },
            ),
            (
                "recovery_checks",
                DetectConfig {
                    recovery_checks: 0,
                    ..good.clone()
                },
            ),
            (
                "drift_factor",
                DetectConfig {
                    drift_factor: f64::NAN,
                    ..good.clone()
                },
            ),
            (
                "memory_min_samples",
                DetectConfig {
                    memory_min_samples: 2,
                    ..good.clone()
                },
            ),
        ] {
            assert_eq!(bad.validate().unwrap_err().key, key);
        }
    }
}
