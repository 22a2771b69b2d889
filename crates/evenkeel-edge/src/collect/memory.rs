//! The memory of the target's processes at one moment.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::probe::now;
use crate::process::Supervisor;

/// What the target's processes used at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySample {
    /// When.
    pub at: Timestamp,
    /// Resident memory of all running services with their children, in bytes. `None` when a service is missing: a
    /// sum without it would look like a sudden drop.
    pub total_bytes: Option<u64>,
    /// The same for each service that runs, in bytes.
    pub by_service: BTreeMap<String, u64>,
    /// Services that do not run or could not be read.
    pub missing: Vec<String>,
}

/// Reads it now.
pub fn sample_memory(supervisor: &Supervisor) -> MemorySample {
    let memory = supervisor.memory();
    let is_whole = memory.missing.is_empty() && !memory.by_service.is_empty();
    MemorySample {
        at: now(),
        total_bytes: is_whole.then_some(memory.total_bytes),
        by_service: memory.by_service,
        missing: memory.missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Options;
    use crate::target::Target;

    /// SAFETY 11
    #[tokio::test]
    async fn what_is_missing_is_no_zero() {
        let dir = tempfile::tempdir().unwrap();
        let spec = serde_json::json!({ "name": "api", "command": ["true"] });
        let target = Target {
            services: vec![serde_json::from_value(spec).unwrap()],
            ..Target::default()
        };
        let target = target.resolve(dir.path()).unwrap();
        let supervisor = Supervisor::new(Options::new(target, dir.path()));
        let sample = sample_memory(&supervisor);
        assert_eq!(sample.total_bytes, None);
        assert_eq!(sample.missing, ["api"]);
    }
}
