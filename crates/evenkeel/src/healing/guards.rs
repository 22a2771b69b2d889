//! Guarded metrics: each watched address and each service, before an attempt and after it, compared by a two-sample test
//! with a smallest effect (SAFETY 9). And the canary, which stops a re-test that hurts (SAFETY 10).

use std::time::{Duration, Instant};

use evenkeel_core::guarded::{GuardSample, GuardVerdict};
use evenkeel_core::{Cycle, TestResult};
use evenkeel_detect::compare::{LATENCIES_MIN, more_errors, slower};
use evenkeel_stress::{TestSpec, run_test};

use super::World;

/// Probes of one address for one sample.
const PROBES: u64 = 10;
/// Time for one sample of one address, when enough was measured to judge by.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);
/// Time for one sample of one address, in any case.
const SAMPLE_LIMIT_LAST: Duration = Duration::from_secs(20);
/// Failures in a row before an attempt after which a sample is not gone on with: there is nothing to lose, and healing
/// waits for it.
const FAILURES_MAX: u64 = 2;
/// How long an answer before an attempt is waited for.
const PATIENCE_BEFORE: Duration = Duration::from_secs(1);
/// How much more memory of a service is worse: by this share, and by so many MB.
const MEMORY_WORSE: (f64, f64) = (0.5, 128.0);
/// Pause between two looks of the canary.
const CANARY_PAUSE: Duration = Duration::from_millis(100);
/// How long the canary waits for an answer.
const CANARY_PATIENCE: Duration = Duration::from_secs(1);
/// Answers in a row that fail to come before the re-test is stopped.
const CANARY_FAILURES_MAX: u32 = 5;
/// Longest time of one re-test.
const RETEST_LIMIT: Duration = Duration::from_mins(5);

impl World {
    /// The guarded metrics before an attempt.
    pub(super) async fn measure_guards(&self) -> Vec<GuardSample> {
        self.measure(true).await
    }

    async fn measure(&self, before: bool) -> Vec<GuardSample> {
        let mut samples = Vec::new();
        for url in &self.probes {
            samples.push(self.sample(url, before).await);
        }
        let memory = self.supervisor.memory().by_service;
        for name in self.supervisor.names() {
            let up = self
                .supervisor
                .status(&name)
                .is_ok_and(|s| s.process().is_some());
            samples.push(GuardSample {
                memory_mb: memory.get(&name).map(|b| (*b as f64 / 1_048_576.0).round()),
                name: format!("service {name}"),
                up: Some(up),
                ..GuardSample::default()
            });
        }
        samples
    }

    async fn sample(&self, url: &str, before: bool) -> GuardSample {
        let mut sample = GuardSample {
            name: format!("GET {url}"),
            ..GuardSample::default()
        };
        let (begun, mut in_a_row) = (Instant::now(), 0);
        let patience = if before {
            self.probe_deadline().min(PATIENCE_BEFORE)
        } else {
            self.probe_deadline()
        };
        while sample.requests < PROBES {
            let limit = if sample.requests < LATENCIES_MIN as u64 {
                SAMPLE_LIMIT_LAST
            } else {
                SAMPLE_LIMIT
            };
            if begun.elapsed() >= limit || before && in_a_row >= FAILURES_MAX {
                break;
            }
            let probe = self.prober.probe(url, patience).await;
            sample.requests += 1;
            if probe.ok {
                in_a_row = 0;
                // A hundredth of a millisecond is finer than any verdict.
                sample
                    .latencies_ms
                    .push((probe.latency_ms * 100.0).round() / 100.0);
            } else {
                in_a_row += 1;
                sample.errors += 1;
            }
        }
        sample
    }

    /// How the guarded metrics do now, against what they were before the attempt.
    pub(super) async fn guards(&self, cycle: &Cycle) -> Vec<GuardVerdict> {
        if cycle.guards_before.is_empty() {
            return Vec::new();
        }
        judge(&cycle.guards_before, &self.measure(false).await)
    }

    /// Runs a stress test again while a canary looks how the service bears it. `Err`: it was stopped, and why.
    pub(super) async fn retest(&self, spec: &TestSpec) -> Result<TestResult, String> {
        let context = self.test_context();
        let cancel = context.cancel.clone();
        let stopped = tokio::select! {
            result = run_test(spec, &context) => return Ok(result),
            why = self.canary() => why,
            () = tokio::time::sleep(RETEST_LIMIT) => {
                format!("it took longer than {} s", RETEST_LIMIT.as_secs())
            }
        };
        cancel.cancel();
        Err(format!("stopped: {stopped}"))
    }

    /// Ready when a service that answered at first has not answered several times in a row.
    async fn canary(&self) -> String {
        let Some(url) = self.probes.first() else {
            return std::future::pending().await;
        };
        let patience = self.probe_deadline().min(CANARY_PATIENCE);
        if !self.prober.probe(url, patience).await.ok {
            // It was not well before the load: there is nothing to spoil.
            return std::future::pending().await;
        }
        let mut in_a_row = 0;
        loop {
            tokio::time::sleep(CANARY_PAUSE).await;
            let probe = self.prober.probe(url, patience).await;
            in_a_row = if probe.ok { 0 } else { in_a_row + 1 };
            if in_a_row >= CANARY_FAILURES_MAX {
                return format!(
                    "it hurt the service: {url} did not answer {in_a_row} times in a row ({})",
                    probe.detail.unwrap_or_default()
                );
            }
        }
    }
}

/// Compares what was measured before with what is measured now, by name.
fn judge(before: &[GuardSample], now: &[GuardSample]) -> Vec<GuardVerdict> {
    before
        .iter()
        .map(|b| {
            let (worse, details) = match now.iter().find(|n| n.name == b.name) {
                Some(n) => verdict(b, n),
                None => (true, "it could not be measured any more".to_owned()),
            };
            GuardVerdict {
                name: b.name.clone(),
                worse,
                details,
            }
        })
        .collect()
}

fn verdict(before: &GuardSample, now: &GuardSample) -> (bool, String) {
    if let Some(was_up) = before.up {
        let is_up = now.up == Some(true);
        let grown = before
            .memory_mb
            .zip(now.memory_mb)
            .filter(|(b, n)| n - b >= MEMORY_WORSE.1 && n - b >= MEMORY_WORSE.0 * b);
        return match (was_up && !is_up, grown) {
            (true, _) => (true, "it was up, and is not any more".to_owned()),
            (_, Some((b, n))) => (true, format!("its memory grew from {b:.0} to {n:.0} MB")),
            _ => (
                false,
                if is_up { "up" } else { "down as before" }.to_owned(),
            ),
        };
    }
    let answered = |s: &GuardSample| s.latencies_ms.len();
    if answered(before) >= LATENCIES_MIN && answered(now) == 0 {
        return (true, "it answered, and does not any more".to_owned());
    }
    // It was well, and now it takes so long, or fails so often, that too little comes back to compare: that is worse.
    if answered(before) >= LATENCIES_MIN && answered(now) < LATENCIES_MIN {
        let told = format!(
            "it answered well before; now {} of {} requests were answered in time",
            answered(now),
            now.requests
        );
        return (true, told);
    }
    let errors = more_errors((before.errors, before.requests), (now.errors, now.requests));
    let latency = slower(&before.latencies_ms, &now.latencies_ms);
    let worse = errors.is_worse() || latency.is_worse();
    (worse, format!("errors: {errors}; latency: {latency}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(latencies_ms: Vec<f64>, errors: u64) -> GuardSample {
        GuardSample {
            name: "GET /".into(),
            requests: latencies_ms.len() as u64 + errors,
            latencies_ms,
            errors,
            ..GuardSample::default()
        }
    }

    fn service(up: bool, memory_mb: f64) -> GuardSample {
        GuardSample {
            name: "service a".into(),
            up: Some(up),
            memory_mb: Some(memory_mb),
            ..GuardSample::default()
        }
    }

    /// SAFETY 9, 10: what is no longer measured is no proof.
    #[test]
    fn a_guard_that_is_gone_is_worse() {
        let verdicts = judge(&[address(vec![10.0; 10], 0)], &[]);
        assert!(verdicts[0].worse);
    }

    /// SAFETY 9
    #[test]
    fn each_kind_of_getting_worse_is_seen_and_nothing_else() {
        let good = || address(vec![10.0; 10], 0);
        let table = [
            (good(), good(), false),
            (good(), address(vec![90.0; 10], 0), true),
            (good(), address(vec![10.0; 4], 6), true),
            (good(), address(vec![], 3), true),
            (good(), address(vec![10.0], 3), true),
            (good(), address(vec![2_900.0; 7], 0), true),
            (good(), address(vec![500.0; 10], 0), true),
            // Down before: nothing to lose.
            (address(vec![], 3), address(vec![], 3), false),
            (address(vec![], 3), address(vec![500.0; 10], 0), false),
            (service(true, 100.0), service(true, 120.0), false),
            (service(true, 100.0), service(true, 300.0), true),
            (service(true, 100.0), service(false, 0.0), true),
            (service(false, 0.0), service(false, 0.0), false),
        ];
        for (before, now, worse) in table {
            let verdicts = judge(std::slice::from_ref(&before), std::slice::from_ref(&now));
            assert_eq!(verdicts[0].worse, worse, "{before:?} {now:?}: {verdicts:?}");
        }
    }
}
