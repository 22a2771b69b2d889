//! Guarded metrics: what must not be worse after a fix than before it (SAFETY 9). Measured before the first change of an
//! attempt, kept in the ledger, and measured again afterwards.

use serde::{Deserialize, Serialize};

/// One guarded metric, as measured: the probes of an address, or a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardSample {
    /// What it is: `GET /health`, `service api`.
    pub name: String,
    /// Latencies of the requests that were answered well, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies_ms: Vec<f64>,
    /// Requests that failed.
    #[serde(default)]
    pub errors: u64,
    /// Requests that were made.
    #[serde(default)]
    pub requests: u64,
    /// Whether the service runs; none for an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Memory of the service, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<f64>,
}

/// How a guarded metric did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardVerdict {
    /// What it is.
    pub name: String,
    /// It is worse than before.
    pub worse: bool,
    /// One sentence for a person.
    pub details: String,
}

/// The names of those that are worse, for a sentence; `None` when none is.
pub fn worse(verdicts: &[GuardVerdict]) -> Option<String> {
    let worse: Vec<String> = verdicts
        .iter()
        .filter(|v| v.worse)
        .map(|v| format!("{} ({})", v.name, v.details))
        .collect();
    (!worse.is_empty()).then(|| worse.join(", "))
}
