//! What a collector measured: one value of one series at one time.

use std::fmt;

use evenkeel_core::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::follow::Kind;
use crate::limits::{
    COUNT_ABSURD, ENDPOINT_NAME_MAX, LATENCY_ABSURD_MS, RSS_ABSURD_BYTES, SERIES_NAME_MAX,
    SERVICE_NAME_MAX,
};
use crate::telemetry::DropReason;

/// The name of one source of samples: one endpoint, one process, one counter. Within a series time only goes
/// forward; two sources that share a name lose samples as duplicates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SeriesId(String);

/// A text that cannot name a series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a series: use 1 to {SERIES_NAME_MAX} bytes without control characters")]
pub struct InvalidSeriesId(String);

impl SeriesId {
    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidSeriesId> {
        let name = name.into();
        if (1..=SERIES_NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
            Ok(Self(name))
        } else {
            Err(InvalidSeriesId(
                name.chars().filter(|c| !c.is_control()).take(80).collect(),
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SeriesId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a probe was not answered well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeError {
    /// Nobody listens there.
    Refused,
    /// No answer before the deadline.
    Timeout,
    /// The connection broke before the answer was complete.
    Reset,
    /// An answer with a status that the probe does not accept.
    Status(u16),
    /// Anything else: an answer that cannot be read, a name that does not resolve.
    Other,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SampleValue {
    /// One request that Evenkeel sent itself.
    Probe {
        /// The service that was asked; nothing where the target is one service without a name.
        service: Option<String>,
        /// What was asked, such as `GET /health`.
        endpoint: String,
        /// It was answered as it should be.
        ok: bool,
        /// Time until the answer or the failure, in milliseconds.
        latency_ms: f64,
        /// What went wrong; nothing when `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ProbeError>,
    },
    /// What was counted since the last sample of this series: requests, log lines, audited entries.
    Counts {
        /// Those that were errors.
        errors: u64,
        /// All of them, errors included.
        total: u64,
    },
    /// Memory of one process.
    Memory {
        /// The service that the process belongs to.
        service: Option<String>,
        /// Identity of the process, made of pid and start time: it changes when the process is another one.
        process: u64,
        /// Resident set, in bytes.
        rss_bytes: u64,
    },
    /// A quantile from the target's own histogram over the time since the last sample of this series.
    LatencyQuantile {
        /// 95th percentile, in milliseconds.
        p95_ms: f64,
        /// Requests in the histogram.
        n: u64,
    },
    /// Playbook runs in the failure window, totals and not differences.
    PlaybookRuns {
        /// Those that failed.
        failed: u64,
        /// All that ended.
        total: u64,
    },
    /// Any other measure: its series is followed by itself, and nothing is known of it but what it shows.
    Value {
        /// The service that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// What it shows.
        measure: Kind,
        /// The value, in the unit of `measure`.
        value: f64,
        /// Events that a share or a quantile rests on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
    },
    /// The supervisor saw the service's process end.
    ServiceDown {
        /// The service.
        service: String,
        /// How it ended, in words.
        detail: String,
    },
    /// The service is running *and ready*. Say so only then: until it is said, refused probes after a
    /// [`SampleValue::ServiceDown`] tell nothing new.
    ServiceUp {
        /// The service.
        service: String,
    },
    /// A sample that should have come did not.
    Missing {
        /// Why, in words.
        reason: String,
    },
}

/// One value of one series at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// Its source.
    pub series: SeriesId,
    /// What was measured.
    pub value: SampleValue,
}

impl Sample {
    /// Why the value cannot be true, if it cannot.
    pub fn defect(&self) -> Option<DropReason> {
        match &self.value {
            SampleValue::Probe {
                service,
                endpoint,
                ok,
                latency_ms,
                error,
            } => long(service.as_deref().unwrap_or(""), SERVICE_NAME_MAX)
                .or_else(|| long(endpoint, ENDPOINT_NAME_MAX))
                .or_else(|| duration_defect(*latency_ms))
                .or((*ok && error.is_some()).then_some(DropReason::Inconsistent)),
            SampleValue::Counts { errors, total } => share_defect(*errors, *total),
            SampleValue::PlaybookRuns { failed, total } => share_defect(*failed, *total),
            SampleValue::Memory {
                service, rss_bytes, ..
            } => long(service.as_deref().unwrap_or(""), SERVICE_NAME_MAX)
                .or((*rss_bytes == 0 || *rss_bytes > RSS_ABSURD_BYTES)
                    .then_some(DropReason::Absurd)),
            SampleValue::LatencyQuantile { p95_ms, n } => {
                // An empty histogram has no quantile; whatever stands there is not looked at.
                if *n == 0 {
                    None
                } else {
                    duration_defect(*p95_ms)
                }
            }
            SampleValue::ServiceDown { service, .. } | SampleValue::ServiceUp { service } => {
                long(service, SERVICE_NAME_MAX)
            }
            SampleValue::Value { service, value, .. } => {
                long(service.as_deref().unwrap_or(""), SERVICE_NAME_MAX)
                    .or((!value.is_finite()).then_some(DropReason::NotFinite))
            }
            SampleValue::Missing { .. } => None,
        }
    }
}

fn long(name: &str, max: usize) -> Option<DropReason> {
    (name.len() > max).then_some(DropReason::Absurd)
}

fn duration_defect(ms: f64) -> Option<DropReason> {
    if !ms.is_finite() {
        Some(DropReason::NotFinite)
    } else if ms < 0.0 {
        Some(DropReason::Negative)
    } else if ms > LATENCY_ABSURD_MS {
        Some(DropReason::Absurd)
    } else {
        None
    }
}

fn share_defect(part: u64, whole: u64) -> Option<DropReason> {
    if part > whole {
        Some(DropReason::Inconsistent)
    } else if whole > COUNT_ABSURD {
        Some(DropReason::Absurd)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: SampleValue) -> Sample {
        Sample {
            at: Timestamp::from_millis(1),
            series: SeriesId::new("s").unwrap(),
            value,
        }
    }

    #[test]
    fn series_names_are_bounded_and_printable() {
        assert!(SeriesId::new("probe/api/GET /health").is_ok());
        for bad in ["", "a\nb", &"x".repeat(SERIES_NAME_MAX + 1)] {
            assert!(SeriesId::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(serde_json::from_str::<SeriesId>("\"\"").is_err());
    }

    #[test]
    fn impossible_values_are_told_by_their_reason() {
        let quantile = |p95_ms, n| sample(SampleValue::LatencyQuantile { p95_ms, n }).defect();
        assert_eq!(quantile(f64::NAN, 9), Some(DropReason::NotFinite));
        assert_eq!(quantile(f64::INFINITY, 9), Some(DropReason::NotFinite));
        assert_eq!(quantile(-1.0, 9), Some(DropReason::Negative));
        assert_eq!(quantile(1e12, 9), Some(DropReason::Absurd));
        assert_eq!(quantile(f64::NAN, 0), None);
        assert_eq!(quantile(12.0, 9), None);
        let counts = |errors, total| sample(SampleValue::Counts { errors, total }).defect();
        assert_eq!(counts(2, 1), Some(DropReason::Inconsistent));
        assert_eq!(counts(0, u64::MAX), Some(DropReason::Absurd));
        assert_eq!(counts(1, 2), None);
    }

    #[test]
    fn a_recorded_sample_reads_back() {
        let s = sample(SampleValue::Probe {
            service: Some("api".into()),
            endpoint: "GET /health".into(),
            ok: false,
            latency_ms: 3.5,
            error: Some(ProbeError::Status(503)),
        });
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), s);
    }
}
