//! The eight stress tests of the product, built from what is known of a target.

use std::collections::BTreeMap;

use evenkeel_core::anomaly::{AnomalyType, Severity};
use serde::Deserialize;

use super::{TestKind, TestSpec};
use crate::mesh::MeshSpec;
use crate::request::{BodyCheck, Headers, RequestSpec, StatusSet};

/// What of a target can be tested. What is left out is skipped, with the key that is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subjects {
    /// Answers 200 when the target is well: `[target.endpoints] health`.
    pub health: Option<RequestSpec>,
    /// Makes the target query its database: `[target.endpoints] database`.
    pub database_endpoint: Option<RequestSpec>,
    /// The target's database can be queried directly: `[target] database`.
    pub database_direct: bool,
    /// Up to four endpoints of its API: `[target.endpoints] api`.
    pub api_endpoints: Vec<RequestSpec>,
    /// A chat request: `[target.endpoints] chat`.
    pub chat: Option<RequestSpec>,
    /// Its metrics: `[target.endpoints] metrics`.
    pub metrics: Option<RequestSpec>,
    /// A decision request: `[target.endpoints] governance`.
    pub governance: Option<RequestSpec>,
    /// Its event mesh: `[target] mesh`.
    pub mesh: Option<MeshSpec>,
    /// The request of which 100 must not make its memory grow: `[target.endpoints] memory`.
    pub memory_request: Option<RequestSpec>,
    /// Some process of it is known, so that its memory can be read: `[[target.services]]`.
    pub process_known: bool,
    /// The service whose memory is measured; nothing means all.
    pub memory_service: Option<String>,
    /// The services that the other tests exercise, where they are known.
    pub services: SubjectServices,
}

/// Which service of the target serves which subject. Results and anomalies carry the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubjectServices {
    /// Serves the health endpoint, the API, the database-backed endpoint, chat and decisions.
    pub api: Option<String>,
    /// Serves the metrics.
    pub metrics: Option<String>,
    /// Carries the event mesh.
    pub mesh: Option<String>,
}

/// Most endpoints of Concurrent API Requests.
const API_ENDPOINTS_MAX: usize = 4;

/// The eight tests in their order, with their exact names and defaults (CONTRACT section 2).
pub fn eight_tests(subjects: &Subjects) -> Vec<TestSpec> {
    let s = subjects;
    let api = s.services.api.as_ref();
    let no = |key: &str| Some(format!("[target.endpoints] {key} is not set"));
    vec![
        TestSpec {
            expect_status: Some(StatusSet::one(200)),
            requests: Some(50),
            concurrency: Some(50),
            expected_max_ms: Some(2_000.0),
            severity: Some(Severity::High),
            ..on(
                "Health Endpoint Load",
                TestKind::HttpLoad,
                AnomalyType::HEALTH_ENDPOINT_FAILURE,
                s.health.as_slice(),
                no("health"),
                api,
            )
        },
        TestSpec {
            requests: Some(20),
            concurrency: Some(20),
            expected_max_ms: Some(5_000.0),
            severity: Some(Severity::High),
            ..on(
                "Database Connection Pool",
                TestKind::SqlPool,
                AnomalyType::DB_POOL_EXHAUSTION,
                s.database_endpoint.as_slice(),
                (!s.database_direct).then(|| {
                    "neither [target.endpoints] database nor [target] database is set".to_owned()
                }),
                api,
            )
        },
        TestSpec {
            expect_status: Some(StatusSet::range(200, 399)),
            requests: Some(40),
            concurrency: Some(40),
            max_error_rate: Some(0.05),
            fail_on_5xx: Some(true),
            expected_max_ms: Some(5_000.0),
            severity: Some(Severity::High),
            ..on(
                "Concurrent API Requests",
                TestKind::Mix,
                AnomalyType::ERROR_RATE_SPIKE,
                &s.api_endpoints[..s.api_endpoints.len().min(API_ENDPOINTS_MAX)],
                no("api"),
                api,
            )
        },
        TestSpec {
            expect_status: Some(StatusSet::range(100, 399)),
            requests: Some(5),
            concurrency: Some(5),
            expected_max_ms: Some(2_000.0),
            severity: Some(Severity::Medium),
            ..on(
                "Multimodal Chat Stress",
                TestKind::HttpLoad,
                AnomalyType::MULTIMODAL_FAILURE,
                s.chat.as_slice(),
                no("chat"),
                api,
            )
        },
        TestSpec {
            headers: Headers(BTreeMap::from([(
                "accept".to_owned(),
                "text/plain;version=0.0.4".to_owned(),
            )])),
            expect_status: Some(StatusSet::one(200)),
            expect_body: Some(BodyCheck::Metrics),
            requests: Some(20),
            concurrency: Some(20),
            expected_max_ms: Some(2_000.0),
            severity: Some(Severity::Medium),
            ..on(
                "Metrics Collection Load",
                TestKind::HttpLoad,
                AnomalyType::METRICS_FAILURE,
                s.metrics.as_slice(),
                no("metrics"),
                s.services.metrics.as_ref().or(api),
            )
        },
        TestSpec {
            requests: Some(50),
            concurrency: Some(10),
            p95_limit_ms: Some(500.0),
            expected_max_ms: Some(3_000.0),
            severity: Some(Severity::Medium),
            ..on(
                "Governance Latency",
                TestKind::Latency,
                AnomalyType::GOVERNANCE_LATENCY,
                s.governance.as_slice(),
                no("governance"),
                api,
            )
        },
        TestSpec {
            mesh: s.mesh.clone(),
            ack_limit_ms: Some(500.0),
            expected_max_ms: Some(500.0),
            severity: Some(Severity::Medium),
            missing: s
                .mesh
                .is_none()
                .then(|| "[target] mesh is not set".to_owned()),
            ..on(
                "Self-Heal Trigger",
                TestKind::Mesh,
                AnomalyType::EVENT_MESH_FAILURE,
                &[],
                None,
                s.services.mesh.as_ref().or(api),
            )
        },
        memory_test(s),
    ]
}

fn memory_test(s: &Subjects) -> TestSpec {
    let missing = "[target.endpoints] memory is not set".to_owned();
    let mut test = TestSpec {
        requests: Some(100),
        concurrency: Some(20),
        growth_limit_mb: Some(50.0),
        expected_max_ms: Some(15_000.0),
        severity: Some(Severity::High),
        ..on(
            "Memory Leak Detection",
            TestKind::Memory,
            AnomalyType::MEMORY_GROWTH,
            s.memory_request.as_slice(),
            Some(missing),
            s.memory_service.as_ref(),
        )
    };
    if test.missing.is_none() && !s.process_known {
        test.missing = Some("no process of the target is known".to_owned());
    }
    test
}

fn on(
    name: &str,
    kind: TestKind,
    anomaly: &'static str,
    endpoints: &[RequestSpec],
    missing: Option<String>,
    service: Option<&String>,
) -> TestSpec {
    TestSpec {
        endpoints: endpoints.to_vec(),
        anomaly_type: Some(AnomalyType::known(anomaly)),
        service: service.cloned(),
        missing: missing.filter(|_| endpoints.is_empty()),
        ..TestSpec::new(name, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_contract_and_every_test_is_valid() {
        let tests = eight_tests(&Subjects::default());
        let names: Vec<_> = tests.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Health Endpoint Load",
                "Database Connection Pool",
                "Concurrent API Requests",
                "Multimodal Chat Stress",
                "Metrics Collection Load",
                "Governance Latency",
                "Self-Heal Trigger",
                "Memory Leak Detection",
            ]
        );
        for test in &tests {
            test.validate().unwrap();
            assert!(test.missing.is_some(), "{} has no subject", test.name);
        }
    }
}
