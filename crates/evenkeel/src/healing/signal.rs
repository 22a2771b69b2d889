//! Anomalies that a person names, and what measures them again: by the same rules as the re-test in `verify.rs`.

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::playbook::VerifyWith;
use evenkeel_stress::TestSpec;
use serde_json::Value;

use crate::clock;
use crate::config::Config;
use crate::playbooks::Known;

/// Every anomaly type that something here raises or heals.
pub(crate) fn known_types(config: &Config, playbooks: &[Known]) -> Vec<String> {
    let mut types: Vec<String> = playbooks
        .iter()
        .flat_map(|k| k.playbook.remedies.anomalies.iter().cloned())
        .chain(
            config
                .tests()
                .into_iter()
                .map(|t| t.anomaly_type().to_string()),
        )
        .collect();
    types.sort();
    types.dedup();
    types
}

/// The test that measures a type: the one that is named, or where the type has none of its own monitor, the first that
/// raises it and can be run.
pub(crate) fn test_for(config: &Config, kind: &str, named: Option<&str>) -> Option<TestSpec> {
    let mut tests = config.tests().into_iter();
    if let Some(name) = named {
        return tests.find(|t| t.name == name);
    }
    match kind {
        AnomalyType::LATENCY_SPIKE
        | AnomalyType::HIGH_FAILURE_RATE
        | AnomalyType::TARGET_DOWN
        | AnomalyType::TARGET_HUNG => None,
        _ => tests.find(|t| t.missing.is_none() && t.anomaly_type().as_str() == kind),
    }
}

/// What a person orders to be healed. Nothing was measured: `current` is 0 until somebody does.
pub(crate) fn ordered(config: &Config, kind: AnomalyType, test: Option<&TestSpec>) -> Anomaly {
    let limits = &config.watchdog.thresholds;
    let (threshold, unit) = match (kind.as_str(), test) {
        (_, Some(_)) => (0.0, ""),
        (AnomalyType::LATENCY_SPIKE, _) => (limits.latency_p95, "ms"),
        (AnomalyType::ERROR_RATE_SPIKE, _) => (limits.error_rate, "ratio"),
        (AnomalyType::MEMORY_GROWTH, _) => (limits.memory_growth_mb, "MB/h"),
        (AnomalyType::HIGH_FAILURE_RATE, _) => (limits.failure_rate, "ratio"),
        _ => (0.0, ""),
    };
    Anomaly {
        details: format!("a person ordered {kind} to be healed"),
        kind,
        severity: Severity::Medium,
        current: 0.0,
        threshold,
        unit: unit.to_owned(),
        baseline: None,
        test: test.map(|t| t.name.clone()),
        series: None,
        service: test.and_then(|t| t.service.clone()),
        since: clock::now(),
        score: None,
        context: Value::Null,
    }
}

/// What would be run or read again to see whether it helped.
pub(crate) fn verified_by(
    config: &Config,
    anomaly: &Anomaly,
    plan_says: Option<&VerifyWith>,
) -> String {
    const API: &str = "Concurrent API Requests";
    const MEMORY: &str = "Memory Leak Detection";
    let can_run = |name: &str| {
        config
            .tests()
            .iter()
            .any(|t| t.name == name && t.missing.is_none())
    };
    let test = |name: &str| format!("the stress test {name}");
    let by_api = || {
        if can_run(API) {
            test(API)
        } else {
            "fresh probes: none may fail".to_owned()
        }
    };
    let by_memory = || {
        if can_run(MEMORY) {
            test(MEMORY)
        } else {
            "nothing that can conclude: memory growth needs [target.endpoints] memory".to_owned()
        }
    };
    let latency = || {
        format!(
            "fresh probes: p95 at most {:.0} ms",
            config.watchdog.thresholds.latency_p95
        )
    };
    match (&anomaly.test, anomaly.kind.as_str(), plan_says) {
        (Some(name), _, _) | (None, AnomalyType::MANUAL_REQUEST, Some(VerifyWith::Test(name))) => {
            test(name)
        }
        (None, AnomalyType::MANUAL_REQUEST, Some(VerifyWith::Monitor(monitor))) => {
            match monitor.as_str() {
                "latency_p95" => latency(),
                "error_rate" => by_api(),
                "memory_growth" => by_memory(),
                _ => "every service up and ready, and the probes answered".to_owned(),
            }
        }
        (None, AnomalyType::HIGH_FAILURE_RATE, _) => "all stress tests".to_owned(),
        (None, AnomalyType::LATENCY_SPIKE, _) => latency(),
        (None, AnomalyType::ERROR_RATE_SPIKE, _) => by_api(),
        (None, AnomalyType::MEMORY_GROWTH, _) => by_memory(),
        _ => "every service up and ready, and the probes answered".to_owned(),
    }
}
