//! The four fixed limits, named as every configuration, file and script names them (CONTRACT sections 3 and 4).

use serde::{Deserialize, Serialize};

/// The watchdog's limits. A value exactly at its limit is still good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// Share of errors among what was counted, above 0 and at most 1.
    pub error_rate: f64,
    /// 95th percentile of the response times, in milliseconds.
    pub latency_p95: f64,
    /// Growth of a process's memory, in MB ([`crate::memory::BYTES_PER_MB`]) per hour.
    pub memory_growth_mb: f64,
    /// Share of failed playbook runs, above 0 and at most 1.
    pub failure_rate: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            error_rate: 0.05,
            latency_p95: 2000.0,
            memory_growth_mb: 100.0,
            failure_rate: 0.10,
        }
    }
}

/// A limit that cannot be one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("threshold `{key}` is {value}: use a number above 0{}", if *.ratio { " and at most 1 (0.05 means 5%)" } else { "" })]
pub struct InvalidThreshold {
    /// Its name.
    pub key: &'static str,
    /// What was given.
    pub value: f64,
    /// It is a share.
    pub ratio: bool,
}

impl Thresholds {
    /// All finite, above 0, and shares at most 1.
    pub fn validate(&self) -> Result<(), InvalidThreshold> {
        for (key, value, ratio) in [
            ("error_rate", self.error_rate, true),
            ("latency_p95", self.latency_p95, false),
            ("memory_growth_mb", self.memory_growth_mb, false),
            ("failure_rate", self.failure_rate, true),
        ] {
            if !value.is_finite() || value <= 0.0 || (ratio && value > 1.0) {
                return Err(InvalidThreshold { key, value, ratio });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_defaults_are_the_interface() {
        let text = serde_json::to_value(Thresholds::default()).unwrap();
        assert_eq!(
            text,
            serde_json::json!({
                "error_rate": 0.05, "latency_p95": 2000.0, "memory_growth_mb": 100.0, "failure_rate": 0.1
            })
        );
        let read: Thresholds =
            serde_json::from_str("{\"latency_p95\": 2000, \"memory_growth_mb\": 50}").unwrap();
        assert_eq!((read.latency_p95, read.memory_growth_mb), (2000.0, 50.0));
    }

    #[test]
    fn what_cannot_be_a_limit_is_refused_by_name() {
        assert!(Thresholds::default().validate().is_ok());
        for (key, thresholds) in [
            (
                "error_rate",
                Thresholds {
                    error_rate: 5.0,
                    ..Thresholds::default()
                },
            ),
            (
                "latency_p95",
                Thresholds {
                    latency_p95: f64::NAN,
                    ..Thresholds::default()
                },
            ),
            (
                "memory_growth_mb",
                Thresholds {
                    memory_growth_mb: 0.0,
                    ..Thresholds::default()
                },
            ),
            (
                "failure_rate",
                Thresholds {
                    failure_rate: -0.1,
                    ..Thresholds::default()
                },
            ),
        ] {
            assert_eq!(thresholds.validate().unwrap_err().key, key);
        }
        let error = Thresholds {
            error_rate: 5.0,
            ..Thresholds::default()
        }
        .validate()
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "threshold `error_rate` is 5: use a number above 0 and at most 1 (0.05 means 5%)"
        );
    }
}
