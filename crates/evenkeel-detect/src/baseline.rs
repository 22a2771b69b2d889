//! What healthy looked like: computed from measured samples, written to `storage/baseline.json` (CONTRACT section 4).
//!
//! Keys may be added by newer versions; they are kept when the file is read and written again.

use std::collections::BTreeMap;

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::measure::{SuiteResult, TestResult, TestStatus};
use evenkeel_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::memory::BYTES_PER_MB;
use crate::sample::{ProbeError, Sample, SampleValue};
use crate::stats::{median, p95};
use crate::thresholds::Thresholds;

/// The version of the file that this code writes.
pub const VERSION: u32 = 1;
/// Probes below which their own p95 is not taken for the baseline's.
const PROBES_FOR_P95: usize = 5;

/// Healthy metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Requests and probes that were answered well over those sent, 0 to 1.
    pub success_rate: f64,
    /// Mean response time of what was answered, in milliseconds.
    pub avg_latency_ms: f64,
    /// Requests and probes that failed.
    pub error_count: u64,
    /// 95th percentile of the response times, in milliseconds: of the probes where there are five at least, else the
    /// highest of any passed test, because quantiles cannot be averaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_latency_ms: Option<f64>,
    /// Resident memory of all measured processes together, the median over time of each, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_mb: Option<f64>,
    /// Requests and probes that all this rests on.
    #[serde(default)]
    pub samples: u64,
    /// Other keys, such as `tests` with the figures of each test.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// How the stress tests went when the baseline was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestSummary {
    /// Tests that ran.
    pub tests_run: u32,
    /// Tests that passed.
    pub tests_passed: u32,
    /// Tests whose subject is not configured.
    #[serde(default)]
    pub tests_skipped: u32,
    /// What they found.
    #[serde(default)]
    pub anomalies: Vec<Anomaly>,
    /// Other keys.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// When it was taken.
    pub timestamp: Timestamp,
    /// Healthy metrics.
    pub metrics: Metrics,
    /// The limits in force.
    pub thresholds: Thresholds,
    /// How the stress tests went.
    pub test_results: TestSummary,
    /// Version of the file; a file without one is the first.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Other keys.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

fn first_version() -> u32 {
    1
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Nothing healthy was measured.
    #[error(
        "nothing healthy was measured: no stress test passed with requests, and no probe was sent; run the stress tests again when the target is well"
    )]
    NothingMeasured,
    /// The text is no baseline.
    #[error("this is no baseline: {0}; take a new one with `evenkeel run --once`")]
    Unreadable(#[from] serde_json::Error),
    /// It was written by a newer version.
    #[error(
        "the baseline has version {found}, this program reads up to {VERSION}: use the newer program, or take a new baseline"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
}

impl Baseline {
    /// Computes healthy metrics.
    ///
    /// Counted are the requests of the stress tests *that passed*, and the probes among `samples`; whatever a failed
    /// test measured is not healthy and stays out, as do samples that cannot be true. `success_rate` is what was
    /// answered well over all of these, `avg_latency_ms` the mean over what was answered (a test's mean weighs as
    /// much as its answers). Memory comes from the memory samples. Anomalies of the suite are noted in
    /// `test_results`, with figures that are not numbers set to 0.
    pub fn from_measurements(
        suite: &SuiteResult,
        samples: &[Sample],
        thresholds: Thresholds,
        at: Timestamp,
    ) -> Result<Self, BaselineError> {
        let mut sums = Sums::default();
        let passed = || {
            suite
                .results
                .iter()
                .filter(|r| r.status == TestStatus::Passed)
        };
        for result in passed() {
            sums.test(result);
        }
        for sample in samples.iter().filter(|s| s.defect().is_none()) {
            sums.sample(sample);
        }
        if sums.sent == 0 {
            return Err(BaselineError::NothingMeasured);
        }
        let tests: BTreeMap<&str, Value> = passed()
            .filter(|r| r.requests > 0)
            .map(|r| {
                let figures = json!({
                    "requests": r.requests,
                    "errors": r.error_count(),
                    "mean_ms": finite(r.latency_ms.mean),
                    "p95_ms": finite(r.latency_ms.p95),
                });
                (r.test_name.as_str(), figures)
            })
            .collect();
        let worst_test = passed()
            .filter(|r| r.requests > r.error_count() && r.latency_ms.p95.is_finite())
            .map(|r| r.latency_ms.p95)
            .max_by(f64::total_cmp);
        let probes_p95 = (sums.probe_latencies.len() >= PROBES_FOR_P95)
            .then(|| p95(sums.probe_latencies))
            .flatten();
        let rss: Vec<f64> = sums.rss.into_values().filter_map(median).collect();
        Ok(Self {
            timestamp: at,
            metrics: Metrics {
                success_rate: rounded(1.0 - sums.errors as f64 / sums.sent as f64, 1e6),
                avg_latency_ms: if sums.answered > 0.0 {
                    rounded(sums.latency_ms / sums.answered, 1e3)
                } else {
                    0.0
                },
                error_count: sums.errors,
                p95_latency_ms: probes_p95.or(worst_test).map(|ms| rounded(ms, 1e3)),
                rss_mb: (!rss.is_empty()).then(|| rounded(rss.iter().sum(), 1e3)),
                samples: sums.sent,
                extra: BTreeMap::from([("tests".to_owned(), json!(tests))]),
            },
            thresholds,
            test_results: TestSummary {
                tests_run: suite.tests_run,
                tests_passed: suite.tests_passed,
                tests_skipped: suite.tests_skipped,
                anomalies: suite
                    .anomalies
                    .iter()
                    .cloned()
                    .map(with_finite_figures)
                    .collect(),
                extra: BTreeMap::new(),
            },
            version: VERSION,
            extra: BTreeMap::new(),
        })
    }

    /// Reads what [`Baseline::to_json`] wrote, or an older file.
    pub fn from_json(text: &str) -> Result<Self, BaselineError> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "first_version")]
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version > VERSION {
            return Err(BaselineError::Newer { found: version });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The file's text: indented JSON with a line feed at its end.
    pub fn to_json(&self) -> Result<String, BaselineError> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Share of errors that was healthy, 0 to 1.
    pub fn error_rate(&self) -> f64 {
        (1.0 - self.metrics.success_rate).clamp(0.0, 1.0)
    }
}

#[derive(Default)]
struct Sums {
    sent: u64,
    errors: u64,
    answered: f64,
    latency_ms: f64,
    probe_latencies: Vec<f64>,
    rss: BTreeMap<String, Vec<f64>>,
}

impl Sums {
    fn test(&mut self, result: &TestResult) {
        let errors = result.error_count().min(result.requests);
        self.sent = self.sent.saturating_add(result.requests);
        self.errors = self.errors.saturating_add(errors);
        let answered = (result.requests - errors) as f64;
        if result.latency_ms.mean.is_finite() {
            self.answered += answered;
            self.latency_ms += result.latency_ms.mean * answered;
        }
    }

    fn sample(&mut self, sample: &Sample) {
        match &sample.value {
            SampleValue::Probe {
                ok,
                latency_ms,
                error,
                ..
            } => {
                self.sent = self.sent.saturating_add(1);
                self.errors = self.errors.saturating_add(u64::from(!ok));
                if *ok || matches!(error, Some(ProbeError::Status(_))) {
                    self.answered += 1.0;
                    self.latency_ms += latency_ms;
                    self.probe_latencies.push(*latency_ms);
                }
            }
            SampleValue::Memory { rss_bytes, .. } => self
                .rss
                .entry(sample.series.as_str().to_owned())
                .or_default()
                .push(*rss_bytes as f64 / BYTES_PER_MB),
            _ => {}
        }
    }
}

/// Six digits of a share and three of a time are enough, and read back as they were written.
fn rounded(value: f64, per_unit: f64) -> f64 {
    (value * per_unit).round() / per_unit
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn with_finite_figures(anomaly: Anomaly) -> Anomaly {
    Anomaly {
        current: finite(anomaly.current),
        threshold: finite(anomaly.threshold),
        baseline: anomaly.baseline.filter(|v| v.is_finite()),
        score: anomaly.score.filter(|v| v.is_finite()),
        ..anomaly
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::anomaly::{AnomalyType, Severity};
    use evenkeel_core::measure::LatencySummary;

    use super::*;
    use crate::sample::SeriesId;

    fn result(name: &str, status: TestStatus, requests: u64, failed: u64, ms: f64) -> TestResult {
        TestResult {
            test_name: name.into(),
            status,
            passed: status == TestStatus::Passed,
            issue: None,
            severity: Severity::High,
            anomaly_type: AnomalyType::known(AnomalyType::HEALTH_ENDPOINT_FAILURE),
            duration_ms: 1.0,
            expected_max_ms: 1000.0,
            requests,
            errors: BTreeMap::from([("timeout".to_owned(), failed)]),
            latency_ms: LatencySummary {
                mean: ms,
                p95: ms * 2.0,
                ..LatencySummary::default()
            },
            throughput_rps: 1.0,
            value: f64::NAN,
            limit: 0.0,
            unit: "ratio".into(),
            service: None,
            context: Value::Null,
        }
    }

    fn probe(ms: i64, ok: bool, latency_ms: f64) -> Sample {
        Sample {
            at: Timestamp::from_millis(ms),
            series: SeriesId::new("p").unwrap(),
            value: SampleValue::Probe {
                service: None,
                endpoint: "GET /health".into(),
                ok,
                latency_ms,
                error: (!ok).then_some(ProbeError::Refused),
            },
        }
    }

    fn suite() -> SuiteResult {
        SuiteResult::from_results(
            Timestamp::default(),
            1.0,
            vec![
                result("a", TestStatus::Passed, 50, 0, 100.0),
                result("b", TestStatus::Passed, 40, 2, 50.0),
                result("c", TestStatus::Failed, 100, 90, 9000.0),
                result("d", TestStatus::Skipped, 0, 0, 0.0),
            ],
        )
    }

    #[test]
    fn only_what_was_healthy_is_counted_and_what_failed_is_noted() {
        let samples = [
            probe(1, true, 8.0),
            probe(2, true, 8.0),
            probe(3, false, 0.0),
            probe(4, true, f64::NAN),
        ];
        let baseline = Baseline::from_measurements(
            &suite(),
            &samples,
            Thresholds::default(),
            Timestamp::default(),
        )
        .unwrap();
        let metrics = &baseline.metrics;
        assert_eq!((metrics.samples, metrics.error_count), (93, 3));
        assert!((metrics.success_rate - 90.0 / 93.0).abs() < 1e-6);
        let mean = (50.0 * 100.0 + 38.0 * 50.0 + 2.0 * 8.0) / 90.0;
        assert!((metrics.avg_latency_ms - mean).abs() < 1e-3);
        assert_eq!(
            metrics.p95_latency_ms,
            Some(200.0),
            "too few probes: the slowest passed test"
        );
        assert_eq!(
            (
                baseline.test_results.tests_run,
                baseline.test_results.tests_skipped
            ),
            (3, 1)
        );
        assert_eq!(baseline.test_results.anomalies.len(), 1);
        assert!(baseline.metrics.extra["tests"].get("c").is_none());
    }

    #[test]
    fn nothing_measured_is_no_baseline() {
        let empty = SuiteResult::from_results(
            Timestamp::default(),
            1.0,
            vec![result("c", TestStatus::Failed, 100, 90, 9000.0)],
        );
        let error =
            Baseline::from_measurements(&empty, &[], Thresholds::default(), Timestamp::default());
        assert!(matches!(error, Err(BaselineError::NothingMeasured)));
    }

    #[test]
    fn reads_what_it_writes_and_keeps_keys_it_does_not_know() {
        let baseline =
            Baseline::from_measurements(&suite(), &[], Thresholds::default(), Timestamp::default())
                .unwrap();
        let text = baseline.to_json().unwrap();
        assert_eq!(Baseline::from_json(&text).unwrap(), baseline);
        let mut value: Value = serde_json::from_str(&text).unwrap();
        value["series"] = json!([1]);
        value["metrics"]["open_files"] = json!(12);
        let again = Baseline::from_json(&value.to_string())
            .unwrap()
            .to_json()
            .unwrap();
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(
            (&again["series"], &again["metrics"]["open_files"]),
            (&json!([1]), &json!(12))
        );
    }

    #[test]
    fn the_specification_s_own_example_reads_and_a_newer_version_does_not() {
        let example = r#"{ "timestamp": "2025-11-09T19:00:00Z",
            "metrics": { "success_rate": 1.0, "avg_latency_ms": 145, "error_count": 0 },
            "thresholds": { "error_rate": 0.05, "latency_p95": 2000, "memory_growth_mb": 100, "failure_rate": 0.10 },
            "test_results": { "tests_run": 8, "tests_passed": 8, "anomalies": [] } }"#;
        let baseline = Baseline::from_json(example).unwrap();
        assert_eq!((baseline.version, baseline.error_rate()), (1, 0.0));
        let newer = example.replacen('{', "{ \"version\": 2, ", 1);
        assert!(matches!(
            Baseline::from_json(&newer),
            Err(BaselineError::Newer { found: 2 })
        ));
    }
}
