//! What the detectors and the stress tests find: one typed, deduplicated deviation.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::time::Timestamp;

/// How bad an anomaly is for the users of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a note.
    Low,
    /// Some users notice.
    Medium,
    /// Many users notice.
    High,
    /// The target does not serve.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// The name of a kind of anomaly: 1 to 64 of `a-z`, `0-9` and `_`, starting with a letter.
///
/// It becomes part of file names, so nothing else is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AnomalyType(String);

/// A text that cannot name a kind of anomaly.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot name an anomaly type: use 1 to 64 of a-z, 0-9 and _, starting with a letter")]
pub struct InvalidAnomalyType(String);

impl AnomalyType {
    /// Share of failed requests or log entries above its limit.
    pub const ERROR_RATE_SPIKE: &'static str = "error_rate_spike";
    /// Response times above their limit.
    pub const LATENCY_SPIKE: &'static str = "latency_spike";
    /// Memory of the target's processes rises.
    pub const MEMORY_GROWTH: &'static str = "memory_growth";
    /// Too many playbook runs fail.
    pub const HIGH_FAILURE_RATE: &'static str = "high_failure_rate";
    /// A process of the target is gone or refuses connections.
    pub const TARGET_DOWN: &'static str = "target_down";
    /// The target's process lives but does not answer.
    pub const TARGET_HUNG: &'static str = "target_hung";
    /// Health endpoint fails under load.
    pub const HEALTH_ENDPOINT_FAILURE: &'static str = "health_endpoint_failure";
    /// Database connections run out.
    pub const DB_POOL_EXHAUSTION: &'static str = "db_pool_exhaustion";
    /// The chat endpoint fails.
    pub const MULTIMODAL_FAILURE: &'static str = "multimodal_failure";
    /// Metrics are missing or unreadable.
    pub const METRICS_FAILURE: &'static str = "metrics_failure";
    /// Decisions take too long.
    pub const GOVERNANCE_LATENCY: &'static str = "governance_latency";
    /// The event mesh does not deliver.
    pub const EVENT_MESH_FAILURE: &'static str = "event_mesh_failure";
    /// A measure left its baseline without crossing a fixed limit: noted, never acted on.
    pub const DRIFT: &'static str = "drift";
    /// A series that always moved stands still: noted, never acted on.
    pub const FLATLINE: &'static str = "flatline";
    /// Samples that should have come did not: noted, never acted on.
    pub const TELEMETRY_MISSING: &'static str = "telemetry_missing";
    /// A person asked for a playbook run.
    pub const MANUAL_REQUEST: &'static str = "manual_request";

    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, InvalidAnomalyType> {
        let ok = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if ok {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidAnomalyType(name.chars().take(80).collect()))
        }
    }

    /// One of the constants of this type.
    ///
    /// # Panics
    /// When `name` is not a valid name: only for names written in code.
    pub fn known(name: &'static str) -> Self {
        Self::new(name).expect("a name written in code is valid")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AnomalyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AnomalyType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One deviation, as CONTRACT section 3 lays it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What kind it is; decides which playbooks apply.
    #[serde(rename = "type")]
    pub kind: AnomalyType,
    /// How bad it is.
    pub severity: Severity,
    /// The measured value, in `unit`.
    pub current: f64,
    /// The limit it crossed, in `unit`.
    pub threshold: f64,
    /// One sentence for a person.
    pub details: String,
    /// Unit of `current`, `threshold` and `baseline`: `ratio`, `ms`, `MB`, `MB/h`, `count`.
    #[serde(default)]
    pub unit: String,
    /// The healthy value, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// The stress test that failed, by its exact name; verification runs it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The watchdog series that crossed; verification reads it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// The service of the target that it concerns, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// When the evidence began.
    pub since: Timestamp,
    /// Strength of the evidence: `current / threshold`, at least 1 when the limit is an upper one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What else the finder saw.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
}

impl Anomaly {
    /// What makes two findings the same one while it lasts: type and where it was seen.
    pub fn key(&self) -> String {
        let place = self
            .test
            .as_deref()
            .or(self.series.as_deref())
            .or(self.service.as_deref())
            .unwrap_or("");
        format!("{}/{}", self.kind, place)
    }

    /// What a person calls the subject: the test, else the series, else the service, else the type.
    pub fn subject(&self) -> &str {
        self.test
            .as_deref()
            .or(self.series.as_deref())
            .or(self.service.as_deref())
            .unwrap_or(self.kind.as_str())
    }
}

/// A value with its unit, as people write it: `12%`, `840 ms`, `+55 MB`.
pub fn format_measure(value: f64, unit: &str) -> String {
    match unit {
        "ratio" => {
            let percent = value * 100.0;
            if percent.fract().abs() < 0.05 {
                format!("{percent:.0}%")
            } else {
                format!("{percent:.1}%")
            }
        }
        // Adding zero makes -0 a 0.
        "MB" | "MB/h" => format!("{:+.0} {unit}", value.round() + 0.0),
        "" | "count" => format!("{value:.0}"),
        other => format!("{value:.0} {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_are_safe_in_file_names() {
        assert!(AnomalyType::new("error_rate_spike").is_ok());
        for bad in ["", "../etc", "Error", "a b", "9a", "a/b", &"a".repeat(65)] {
            assert!(AnomalyType::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(serde_json::from_str::<AnomalyType>("\"../x\"").is_err());
    }

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Low < Severity::Medium && Severity::High < Severity::Critical);
    }

    #[test]
    fn measures_read_as_people_write_them() {
        assert_eq!(format_measure(0.12, "ratio"), "12%");
        assert_eq!(format_measure(0.125, "ratio"), "12.5%");
        assert_eq!(format_measure(55.2, "MB"), "+55 MB");
        assert_eq!(format_measure(-0.2, "MB"), "+0 MB");
        assert_eq!(format_measure(839.6, "ms"), "840 ms");
    }
}
