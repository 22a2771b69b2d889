//! What a stress test measured, and what a suite of them adds up to (CONTRACT section 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::anomaly::{Anomaly, AnomalyType, Severity};
use crate::time::Timestamp;

/// How a test ended. Skipped is never counted as passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestStatus {
    /// Ran, and met every limit.
    Passed,
    /// Ran, and missed a limit.
    Failed,
    /// Its subject is not configured; `issue` says what is missing.
    Skipped,
}

/// Latencies in milliseconds, from an HDR histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

/// What one stress test measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The exact name of the test.
    pub test_name: String,
    /// How it ended.
    pub status: TestStatus,
    /// `status` is passed.
    pub passed: bool,
    /// Why it failed or was skipped; nothing when it passed.
    pub issue: Option<String>,
    /// How bad a failure of this test is.
    pub severity: Severity,
    /// The anomaly type that a failure raises.
    pub anomaly_type: AnomalyType,
    /// Time the test took, in milliseconds.
    pub duration_ms: f64,
    /// Above this the test counts as slow and raises a low-severity anomaly, in milliseconds.
    pub expected_max_ms: f64,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that failed, by kind (`status_503`, `connect`, `timeout`, `reset`, `body`, ...).
    pub errors: BTreeMap<String, u64>,
    /// Latencies of all requests that were answered, in milliseconds.
    pub latency_ms: LatencySummary,
    /// Requests answered per second.
    pub throughput_rps: f64,
    /// The measure that decides this test, in `unit`: error share, p95, growth.
    pub value: f64,
    /// The limit of `value`.
    pub limit: f64,
    /// Unit of `value` and `limit`: `ratio`, `ms`, `MB`.
    pub unit: String,
    /// The service that the test exercises, where the configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What else is worth keeping: error codes seen in bodies, memory before and after, the event's id.
    pub context: Value,
}

impl TestResult {
    /// All failed requests.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Failed requests over sent ones; 0 when none was sent.
    pub fn error_rate(&self) -> f64 {
        if self.requests == 0 {
            0.0
        } else {
            self.error_count() as f64 / self.requests as f64
        }
    }

    /// The anomaly that this result stands for: a failure, or a pass that was too slow.
    pub fn anomaly(&self, at: Timestamp) -> Option<Anomaly> {
        match self.status {
            TestStatus::Failed => Some(Anomaly {
                kind: self.anomaly_type.clone(),
                severity: self.severity,
                current: self.value,
                threshold: self.limit,
                details: self
                    .issue
                    .clone()
                    .unwrap_or_else(|| format!("{} failed", self.test_name)),
                unit: self.unit.clone(),
                baseline: None,
                test: Some(self.test_name.clone()),
                series: None,
                service: self.service.clone(),
                since: at,
                score: (self.limit > 0.0).then(|| self.value / self.limit),
                context: self.context.clone(),
            }),
            TestStatus::Passed if self.duration_ms > self.expected_max_ms => Some(Anomaly {
                kind: AnomalyType::known(AnomalyType::LATENCY_SPIKE),
                severity: Severity::Low,
                current: self.duration_ms,
                threshold: self.expected_max_ms,
                details: format!(
                    "{} took {:.0} ms, expected at most {:.0} ms",
                    self.test_name, self.duration_ms, self.expected_max_ms
                ),
                unit: "ms".to_owned(),
                baseline: None,
                test: Some(self.test_name.clone()),
                series: None,
                service: self.service.clone(),
                since: at,
                score: Some(self.duration_ms / self.expected_max_ms.max(1.0)),
                context: self.context.clone(),
            }),
            TestStatus::Passed | TestStatus::Skipped => None,
        }
    }
}

/// What a run of several tests adds up to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteResult {
    /// When the run began.
    pub started_at: Timestamp,
    /// Every test that ran passed, and at least one ran.
    pub success: bool,
    /// Tests that ran: skipped ones are not among them.
    pub tests_run: u32,
    /// Tests that passed.
    pub tests_passed: u32,
    /// Tests whose subject is not configured.
    pub tests_skipped: u32,
    /// Time of the whole run, in milliseconds.
    pub duration_ms: f64,
    /// What the results stand for.
    pub anomalies: Vec<Anomaly>,
    /// Each test's result, in the order they ran.
    pub results: Vec<TestResult>,
}

impl SuiteResult {
    /// Adds results up.
    pub fn from_results(started_at: Timestamp, duration_ms: f64, results: Vec<TestResult>) -> Self {
        let of = |s: TestStatus| {
            u32::try_from(results.iter().filter(|r| r.status == s).count()).unwrap_or(u32::MAX)
        };
        let (passed, failed) = (of(TestStatus::Passed), of(TestStatus::Failed));
        Self {
            started_at,
            success: failed == 0 && passed > 0,
            tests_run: passed + failed,
            tests_passed: passed,
            tests_skipped: of(TestStatus::Skipped),
            duration_ms,
            anomalies: results
                .iter()
                .filter_map(|r| r.anomaly(started_at))
                .collect(),
            results,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn result(status: TestStatus, duration_ms: f64) -> TestResult {
        TestResult {
            test_name: "Health Endpoint Load".into(),
            status,
            passed: status == TestStatus::Passed,
            issue: None,
            severity: Severity::High,
            anomaly_type: AnomalyType::known(AnomalyType::HEALTH_ENDPOINT_FAILURE),
            duration_ms,
            expected_max_ms: 1000.0,
            requests: 50,
            errors: BTreeMap::new(),
            latency_ms: LatencySummary::default(),
            throughput_rps: 1.0,
            value: 0.0,
            limit: 0.0,
            unit: "ratio".into(),
            service: None,
            context: Value::Null,
        }
    }

    #[test]
    fn skipped_is_not_passed() {
        let suite = SuiteResult::from_results(
            Timestamp::default(),
            1.0,
            vec![
                result(TestStatus::Skipped, 0.0),
                result(TestStatus::Skipped, 0.0),
            ],
        );
        assert_eq!(
            (suite.tests_run, suite.tests_passed, suite.tests_skipped),
            (0, 0, 2)
        );
        assert!(!suite.success, "a suite in which nothing ran is no success");
    }

    #[test]
    fn a_slow_pass_raises_a_low_anomaly_and_a_failure_its_own() {
        let at = Timestamp::default();
        let slow = result(TestStatus::Passed, 1500.0).anomaly(at).unwrap();
        assert_eq!(
            (slow.severity, slow.kind.as_str()),
            (Severity::Low, AnomalyType::LATENCY_SPIKE)
        );
        let failed = result(TestStatus::Failed, 10.0).anomaly(at).unwrap();
        assert_eq!(failed.kind.as_str(), AnomalyType::HEALTH_ENDPOINT_FAILURE);
        assert!(result(TestStatus::Passed, 10.0).anomaly(at).is_none());
        assert!(result(TestStatus::Skipped, 1500.0).anomaly(at).is_none());
    }
}
