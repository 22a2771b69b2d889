//! Further samples of the target at each check: its log files and its own metrics.

use std::time::Duration;

use evenkeel_detect::{Sample, SampleValue};
use evenkeel_edge::collect::log_follow::{FollowFrom, LogFollower};
use evenkeel_edge::collect::probe::Prober;

use crate::clock;
use crate::config::Config;
use crate::watch::sample;

/// Most log lines taken at one check.
const LINES_MAX: usize = 10_000;

/// Follows what the configuration names.
pub struct Collectors {
    logs: Option<LogFollower>,
}

impl Collectors {
    /// Follows logs from now on.
    pub fn new(config: &Config) -> Self {
        let logs = &config.resolved.logs;
        Self {
            logs: (!logs.is_empty())
                .then(|| LogFollower::new(logs.iter().cloned(), FollowFrom::End)),
        }
    }

    /// What was written since the last call.
    pub async fn collect(&mut self, _prober: &Prober, _deadline: Duration) -> Vec<Sample> {
        let Some(logs) = &mut self.logs else {
            return Vec::new();
        };
        let (entries, problems) = logs.poll(LINES_MAX);
        let now = clock::now();
        let errors = entries.iter().filter(|e| e.is_error()).count() as u64;
        let mut samples: Vec<Sample> = sample(
            now,
            "error_log",
            SampleValue::Counts {
                errors,
                total: entries.len() as u64,
            },
        )
        .into_iter()
        .collect();
        if let Some(problem) = problems.first() {
            samples.extend(sample(
                now,
                "log_files",
                SampleValue::Missing {
                    reason: problem.clone(),
                },
            ));
        }
        samples
    }
}
