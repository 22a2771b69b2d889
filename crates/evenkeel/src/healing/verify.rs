//! Proving a fix: the failed test is run again, the crossed monitor is read again over fresh samples. The actor is
//! never asked how it went (SAFETY 10); what cannot be concluded is not passed.

use std::time::{Duration, Instant};

use evenkeel_core::anomaly::{Anomaly, AnomalyType, format_measure};
use evenkeel_core::event::Verification;
use evenkeel_core::guarded;
use evenkeel_core::measure::TestStatus;
use evenkeel_core::playbook::VerifyWith;
use evenkeel_core::{Cycle, TestResult};
use serde_json::{Value, json};

use super::World;
use crate::clock;

/// Probes that a monitor's re-reading sends at least and at most.
const PROBES: (usize, usize) = (5, 20);
/// Probes in a row that must answer before a target counts as up.
const READY_PROBES: usize = 3;
/// Time limit of one re-reading by probes.
const PROBING_LIMIT: Duration = Duration::from_mins(1);

impl World {
    /// Runs or reads the failed signal of a cycle again.
    pub(super) async fn verify(&self, cycle: &Cycle) -> Verification {
        let plan_says = cycle.run().and_then(|r| r.plan.verify.as_ref());
        let mut v = self.check_again(&cycle.anomaly, plan_says).await;
        // SAFETY 9: the failed test passes, and nothing else got worse.
        if v.passed && !v.inconclusive {
            v.guards = self.guards(cycle).await;
            if let Some(worse) = guarded::worse(&v.guards) {
                v.details = format!("{}; but worse than before the fix: {worse}", v.details);
            }
        }
        v
    }

    /// Whether an anomaly is still there, by its own test or monitor. Inconclusive counts as still there.
    pub async fn still_there(&self, anomaly: &Anomaly) -> (bool, String) {
        let verification = self.check_again(anomaly, None).await;
        (!verification.passed, verification.details)
    }

    async fn check_again(&self, anomaly: &Anomaly, plan_says: Option<&VerifyWith>) -> Verification {
        let begun = Instant::now();
        let mut v = match (&anomaly.test, anomaly.kind.as_str(), plan_says) {
            (Some(test), _, _) => self.by_test(anomaly, test).await,
            (None, AnomalyType::MANUAL_REQUEST, Some(VerifyWith::Test(test))) => {
                self.by_test(anomaly, test).await
            }
            (None, AnomalyType::MANUAL_REQUEST, Some(VerifyWith::Monitor(monitor))) => {
                self.by_monitor(anomaly, monitor).await
            }
            (None, AnomalyType::HIGH_FAILURE_RATE, _) => self.by_suite(anomaly).await,
            (None, AnomalyType::LATENCY_SPIKE, _) => self.by_probes(anomaly).await,
            (None, AnomalyType::ERROR_RATE_SPIKE, _) => {
                self.by_test_or_probes(anomaly, "Concurrent API Requests")
                    .await
            }
            (None, AnomalyType::MEMORY_GROWTH, _) => self.by_memory(anomaly).await,
            (None, AnomalyType::TARGET_DOWN, _) if self.dependency_of(anomaly).is_some() => {
                self.by_dependency(anomaly).await
            }
            // Down, hung, a manual run without a test, and whatever else has no measure of its own.
            _ => self.by_readiness(anomaly).await,
        };
        v.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        v
    }

    fn dependency_of(&self, anomaly: &Anomaly) -> Option<&crate::config::DependencySection> {
        let name = anomaly.service.as_deref()?;
        let all = &self.config.target.dependencies;
        all.iter().find(|d| d.name == name)
    }

    async fn by_dependency(&self, anomaly: &Anomaly) -> Verification {
        let Some(dependency) = self.dependency_of(anomaly) else {
            return inconclusive(
                "readiness",
                anomaly.subject(),
                "there is no such dependency",
            );
        };
        let deadline = self.probe_deadline();
        let answer = crate::dependencies::answers(dependency, &self.prober, deadline).await;
        let passed = answer.is_ok();
        Verification {
            passed,
            verification_method: "readiness".into(),
            subject: dependency.name.clone(),
            metric: "down".into(),
            before: Some(anomaly.current),
            after: Some(if passed { 0.0 } else { 1.0 }),
            improvement: if passed {
                "down → up".into()
            } else {
                "down → down".into()
            },
            inconclusive: false,
            details: answer.err().unwrap_or_else(|| "it answers".to_owned()),
            duration_ms: 0,
            context: Value::Null,
            guards: Vec::new(),
        }
    }

    async fn by_test(&self, anomaly: &Anomaly, name: &str) -> Verification {
        let Some(spec) = self.tests.iter().find(|t| t.name == name) else {
            return inconclusive(
                "stress_test_rerun",
                name,
                &format!("there is no test `{name}` any more"),
            );
        };
        let result = match self.retest(spec).await {
            Ok(result) => result,
            Err(why) => return inconclusive("stress_test_rerun", name, &why),
        };
        let slowness = anomaly.kind.as_str() == AnomalyType::LATENCY_SPIKE;
        let in_time = result.duration_ms <= result.expected_max_ms;
        let passed = result.status == TestStatus::Passed && (!slowness || in_time);
        let (after, unit) = if slowness {
            (result.duration_ms, "ms")
        } else {
            (result.value, result.unit.as_str())
        };
        if result.status == TestStatus::Skipped {
            return inconclusive(
                "stress_test_rerun",
                name,
                result.issue.as_deref().unwrap_or("skipped"),
            );
        }
        let details = match (&result.issue, slowness && !in_time) {
            (Some(issue), _) => issue.clone(),
            (None, true) => format!(
                "still slow: {:.0} ms, expected {:.0}",
                result.duration_ms, result.expected_max_ms
            ),
            (None, false) => format!("{}: {}", label(unit), format_measure(after, unit)),
        };
        Verification {
            passed,
            verification_method: "stress_test_rerun".into(),
            subject: name.to_owned(),
            metric: metric(unit).into(),
            before: Some(anomaly.current),
            after: Some(after),
            improvement: improvement(anomaly, after, unit),
            inconclusive: false,
            details,
            duration_ms: 0,
            context: test_context(&result),
            guards: Vec::new(),
        }
    }

    /// A watchdog monitor by its name, for runs that a person asked for.
    async fn by_monitor(&self, anomaly: &Anomaly, monitor: &str) -> Verification {
        let limits = &self.config.watchdog.thresholds;
        let judged = |unit: &str, threshold: f64| Anomaly {
            unit: unit.to_owned(),
            threshold,
            ..anomaly.clone()
        };
        match monitor {
            "latency_p95" => self.by_probes(&judged("ms", limits.latency_p95)).await,
            "error_rate" => {
                let anomaly = judged("ratio", limits.error_rate);
                self.by_test_or_probes(&anomaly, "Concurrent API Requests")
                    .await
            }
            "memory_growth" => {
                self.by_memory(&judged("MB/h", limits.memory_growth_mb))
                    .await
            }
            // The linter knows these names; what is left is `liveness`.
            _ => self.by_readiness(anomaly).await,
        }
    }

    async fn by_test_or_probes(&self, anomaly: &Anomaly, name: &str) -> Verification {
        let can_run = self
            .tests
            .iter()
            .any(|t| t.name == name && t.missing.is_none());
        if can_run {
            self.by_test(anomaly, name).await
        } else {
            self.by_probes(anomaly).await
        }
    }

    /// The whole suite: for "playbooks keep failing" there is no single signal.
    async fn by_suite(&self, anomaly: &Anomaly) -> Verification {
        let (mut ran, mut failed) = (0u32, Vec::new());
        for spec in self.tests.iter().filter(|t| t.missing.is_none()) {
            let result = self.run_test(spec).await;
            ran += u32::from(result.status != TestStatus::Skipped);
            if result.status == TestStatus::Failed {
                failed.push(result.test_name);
            }
        }
        if ran == 0 {
            return self.by_readiness(anomaly).await;
        }
        let after = failed.len() as f64 / f64::from(ran);
        Verification {
            passed: failed.is_empty(),
            verification_method: "stress_test_rerun".into(),
            subject: "all stress tests".into(),
            metric: "failed_tests".into(),
            before: Some(anomaly.current),
            after: Some(after),
            improvement: improvement(anomaly, after, &anomaly.unit),
            inconclusive: false,
            details: if failed.is_empty() {
                format!("all {ran} stress tests pass")
            } else {
                format!("still failing: {}", failed.join(", "))
            },
            duration_ms: 0,
            context: Value::Null,
            guards: Vec::new(),
        }
    }

    /// Fresh probes of every watched address: their p95 or error share against the limit.
    async fn by_probes(&self, anomaly: &Anomaly) -> Verification {
        const METHOD: &str = "monitor_window";
        if self.probes.is_empty() {
            return inconclusive(
                METHOD,
                anomaly.subject(),
                "nothing can be probed: no health endpoint is configured",
            );
        }
        let deadline = self.probe_deadline();
        let begun = Instant::now();
        let (mut latencies, mut errors) = (Vec::new(), 0usize);
        while latencies.len() < PROBES.1
            && (begun.elapsed() < PROBING_LIMIT || latencies.len() < PROBES.0)
        {
            for url in &self.probes {
                let p = self.prober.probe(url, deadline).await;
                errors += usize::from(!p.ok);
                latencies.push(p.latency_ms);
            }
            if begun.elapsed() > PROBING_LIMIT * 2 {
                break;
            }
        }
        if latencies.len() < PROBES.0 {
            return inconclusive(
                METHOD,
                anomaly.subject(),
                "too few probes were answered in time to judge",
            );
        }
        latencies.sort_by(f64::total_cmp);
        // The smallest latency that 95 of 100 did not exceed.
        let p95 = latencies[(latencies.len() * 95).div_ceil(100).max(1) - 1];
        let share = errors as f64 / latencies.len() as f64;
        let after = if anomaly.unit == "ratio" { share } else { p95 };
        let passed = after <= anomaly.threshold && errors == 0;
        Verification {
            passed,
            verification_method: METHOD.into(),
            subject: anomaly.subject().to_owned(),
            metric: metric(&anomaly.unit).into(),
            before: Some(anomaly.current),
            after: Some(after),
            improvement: improvement(anomaly, after, &anomaly.unit),
            inconclusive: false,
            details: format!(
                "{} of {} probes failed, p95 {p95:.0} ms",
                errors,
                latencies.len()
            ),
            duration_ms: 0,
            context: json!({"probes": latencies.len(), "errors": errors, "p95_ms": p95}),
            guards: Vec::new(),
        }
    }

    /// The memory test where it can run; else memory must be below what it was, and the target must answer.
    async fn by_memory(&self, anomaly: &Anomaly) -> Verification {
        const TEST: &str = "Memory Leak Detection";
        if self
            .tests
            .iter()
            .any(|t| t.name == TEST && t.missing.is_none())
        {
            let mut v = self.by_test(anomaly, TEST).await;
            // The monitor measured MB an hour, the test MB over its requests: two units have no arrow between them.
            v.improvement = format!(
                "{}; test passed: {}",
                format_measure(anomaly.current, &anomaly.unit),
                v.passed
            );
            return v;
        }
        let ready = self.by_readiness(anomaly).await;
        if !ready.passed {
            return ready;
        }
        inconclusive(
            "monitor_window",
            anomaly.subject(),
            "memory growth cannot be judged within minutes without a memory test; configure [target.endpoints] memory",
        )
    }

    /// Every service is up and ready, and the health probes answer several times in a row.
    /// The services that a finding is about: one that is down, with what it stands on; another that is down as well has a
    /// cycle of its own, and must not make this one fail. All of them for anything else.
    fn concerned(&self, anomaly: &Anomaly) -> Vec<String> {
        let all = self.supervisor.names();
        let gone = [AnomalyType::TARGET_DOWN, AnomalyType::TARGET_HUNG];
        match &anomaly.service {
            Some(service) if gone.contains(&anomaly.kind.as_str()) && all.contains(service) => {
                let below = self.mind.policy().topology.stands_on(service);
                let is_it = |n: &String| n == service || below.contains(n.as_str());
                all.into_iter().filter(is_it).collect()
            }
            _ => all,
        }
    }

    async fn by_readiness(&self, anomaly: &Anomaly) -> Verification {
        let mut problem = None;
        let names = self.concerned(anomaly);
        for name in &names {
            if let Err(e) = self.supervisor.wait_ready(name, None).await {
                problem = Some(e.to_string());
                break;
            }
        }
        let mut latency = 0.0f64;
        let probed = self.probe_service().is_none_or(|s| names.contains(&s));
        if problem.is_none() && probed {
            'probing: for _ in 0..READY_PROBES {
                for url in &self.probes {
                    let p = self.prober.probe(url, self.probe_deadline()).await;
                    latency = latency.max(p.latency_ms);
                    if !p.ok {
                        problem = Some(p.detail.unwrap_or_else(|| "a probe failed".into()));
                        break 'probing;
                    }
                }
            }
        }
        let passed = problem.is_none();
        let after = if passed { 0.0 } else { 1.0 };
        Verification {
            passed,
            verification_method: "readiness".into(),
            subject: anomaly.subject().to_owned(),
            metric: "down".into(),
            before: Some(anomaly.current),
            after: Some(after),
            improvement: if passed { "down → ready".into() } else { "down → down".into() },
            inconclusive: false,
            details: problem.unwrap_or_else(|| {
                format!(
                    "all {} service(s) ready{}",
                    names.len(),
                    if self.probes.is_empty() {
                        String::new()
                    } else {
                        format!(", {READY_PROBES} health probes in a row answered, slowest {latency:.0} ms")
                    }
                )
            }),
            duration_ms: 0,
            context: json!({"at": clock::now()}),
            guards: Vec::new(),
        }
    }

    /// Watches the signal for a while after a passed re-test.
    pub(super) async fn settle(&self, cycle: &Cycle, for_ms: u64) -> (bool, String) {
        let window = Duration::from_millis(for_ms);
        let begun = Instant::now();
        let mut events = self.supervisor.subscribe();
        let (mut probes, mut bad_in_a_row) = (0usize, 0usize);
        let pause =
            Duration::from_millis(self.config.watchdog.interval_ms).min(Duration::from_millis(500));
        while begun.elapsed() < window {
            while let Ok(event) = events.try_recv() {
                if let evenkeel_edge::process::ServiceEvent::Exited {
                    name,
                    expected: false,
                    exit,
                    ..
                } = event
                {
                    return (false, format!("{name} ended again ({exit})"));
                }
            }
            for url in &self.probes {
                let p = self.prober.probe(url, self.probe_deadline()).await;
                probes += 1;
                let slow = cycle.anomaly.kind.as_str() == AnomalyType::LATENCY_SPIKE
                    && p.latency_ms > self.config.watchdog.thresholds.latency_p95;
                if p.ok && !slow {
                    bad_in_a_row = 0;
                } else {
                    bad_in_a_row += 1;
                    if bad_in_a_row >= 2 {
                        let why = p
                            .detail
                            .unwrap_or_else(|| format!("{:.0} ms", p.latency_ms));
                        return (false, format!("did not stay normal: {why}"));
                    }
                }
            }
            let left = window.saturating_sub(begun.elapsed());
            tokio::time::sleep(pause.min(left)).await;
        }
        for name in self.supervisor.names() {
            let up = self
                .supervisor
                .status(&name)
                .is_ok_and(|s| s.process().is_some());
            if !up {
                return (false, format!("{name} does not run"));
            }
        }
        (
            true,
            format!(
                "stayed normal for {:.1} s ({probes} probes)",
                for_ms as f64 / 1000.0
            ),
        )
    }
}

fn inconclusive(method: &str, subject: &str, why: &str) -> Verification {
    Verification {
        passed: false,
        verification_method: method.into(),
        subject: subject.into(),
        metric: "none".into(),
        before: None,
        after: None,
        improvement: String::new(),
        inconclusive: true,
        details: format!("inconclusive, so not passed: {why}"),
        duration_ms: 0,
        context: Value::Null,
        guards: Vec::new(),
    }
}

fn metric(unit: &str) -> &'static str {
    match unit {
        "ratio" => "error_rate",
        "ms" => "latency_p95",
        "MB" | "MB/h" => "memory_growth",
        _ => "value",
    }
}

fn label(unit: &str) -> &'static str {
    match unit {
        "ratio" => "Error rate",
        "ms" => "Latency",
        "MB" | "MB/h" => "Memory growth",
        _ => "Measured",
    }
}

fn improvement(anomaly: &Anomaly, after: f64, unit: &str) -> String {
    format!(
        "{} → {}",
        format_measure(anomaly.current, &anomaly.unit),
        format_measure(after, unit)
    )
}

fn test_context(result: &TestResult) -> Value {
    json!({
        "requests": result.requests, "errors": result.errors, "latency_ms": result.latency_ms,
        "value": result.value, "limit": result.limit, "unit": result.unit, "details": result.context,
    })
}
