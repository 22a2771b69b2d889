//! How a stress test is declared, in configuration and in code.
//!
//! A test of any service is one of a few kinds with its own numbers; the eight of the product are
//! declared the same way ([`eight_tests`]).

mod check;
mod eight;
mod merge;
mod shape;

use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_core::anomaly::{AnomalyType, Severity};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::data::Rows;
use crate::mesh::MeshSpec;
use crate::plan::{Arrivals, Rate, Think};
use crate::request::{BodyCheck, Headers, RequestSpec, StatusSet, de_method};
use shape::{de_arrivals, de_rate, de_think};

pub use check::SpecError;
pub use eight::{SubjectServices, Subjects, eight_tests};
pub use merge::merge_tests;
pub use shape::{POOL_QUERIES_MAX, POOL_SIZE_MAX};

/// What a test does and what decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestKind {
    /// Requests at once; decided by the share that failed.
    HttpLoad,
    /// Requests over several endpoints; decided by the share that failed, and by any 5xx.
    Mix,
    /// Parallel database queries, through endpoints, directly, or both; decided by any error.
    SqlPool,
    /// Requests whose p95 latency decides.
    Latency,
    /// An event over the mesh and its acknowledgement, timed end to end.
    Mesh,
    /// Requests, and the target's memory before and after.
    Memory,
}

impl TestKind {
    /// The name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpLoad => "http-load",
            Self::Mix => "mix",
            Self::SqlPool => "sql-pool",
            Self::Latency => "latency",
            Self::Mesh => "mesh",
            Self::Memory => "memory",
        }
    }
}

/// A declared test. Every key but `name` and `kind` may be left out; unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// Its name: 1 to 80 characters.
    pub name: String,
    /// What it does.
    pub kind: TestKind,
    /// Base address, where it is not the target's own.
    #[serde(default)]
    pub base_url: Option<String>,
    /// What is asked, in turn. All kinds but `mesh`.
    #[serde(default)]
    pub endpoints: Vec<RequestSpec>,
    /// Method of endpoints that name none.
    #[serde(default, deserialize_with = "de_method")]
    pub method: Option<Method>,
    /// Body of endpoints that have none.
    #[serde(default)]
    pub body: Option<Value>,
    /// Headers of all endpoints; an endpoint's own win.
    #[serde(default)]
    pub headers: Headers,
    /// Good statuses of endpoints that name none.
    #[serde(default)]
    pub expect_status: Option<StatusSet>,
    /// Check of the body, for endpoints that have none.
    #[serde(default)]
    pub expect_body: Option<BodyCheck>,
    /// A good answer of an endpoint that names no limit and that took longer than this, from when its request was due,
    /// has failed; in milliseconds.
    #[serde(default)]
    pub expect_within_ms: Option<f64>,
    /// Rows for `${column}` in paths, header values and bodies, one row a request: a CSV file. Whoever loads the
    /// configuration reads it into `rows`.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// What `data` holds. Not a key of the configuration.
    #[serde(skip)]
    pub rows: Option<Arc<Rows>>,
    /// A PEM file of the authorities that are trusted with `https://`, instead of those of this system. Whoever loads
    /// the configuration reads it into `authorities`.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What `ca` holds. Not a key of the configuration.
    #[serde(skip)]
    pub authorities: Option<Arc<[u8]>>,
    /// HTTP/2 instead of HTTP/1.1; default false.
    #[serde(default)]
    pub http2: Option<bool>,
    /// Requests a second, due whether earlier ones were answered or not (an open loop): a number, or a ramp such as
    /// `"100..500 over 30s"`. Up to 100,000; needs `duration_s`.
    #[serde(default, deserialize_with = "de_rate")]
    pub rate: Option<Rate>,
    /// How the requests of `rate` are spread; default evenly.
    #[serde(default, deserialize_with = "de_arrivals")]
    pub arrivals: Option<Arrivals>,
    /// For how long requests are made, in seconds, 0.1 to 900; instead of `requests`.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// For how long before that requests are made and not counted, in seconds, up to 300; default 0.
    #[serde(default)]
    pub warm_up_s: Option<f64>,
    /// Pause between an answer and the next request on the same connection (a closed loop), in milliseconds: a number,
    /// or the shortest and the longest; default none.
    #[serde(default, deserialize_with = "de_think")]
    pub think_ms: Option<Think>,
    /// Requests in all; defaults by kind.
    #[serde(default)]
    pub requests: Option<u64>,
    /// How many at once; defaults by kind.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Requests before the measured ones, `memory` only; default 5.
    #[serde(default)]
    pub warmup_requests: Option<u64>,
    /// For one request, in milliseconds; default 10,000.
    #[serde(default)]
    pub request_timeout_ms: Option<u64>,
    /// For one connection, in milliseconds; default 2,000.
    #[serde(default)]
    pub connect_timeout_ms: Option<u64>,
    /// Largest share of failed requests, 0 to 1; default 0, for `mix`, `latency` and `memory` 0.05.
    #[serde(default)]
    pub max_error_rate: Option<f64>,
    /// Any 5xx fails the test; default true for `mix`, else false.
    #[serde(default)]
    pub fail_on_5xx: Option<bool>,
    /// Largest p95 latency, in milliseconds; default 500 for `latency`, else none.
    #[serde(default)]
    pub p95_limit_ms: Option<f64>,
    /// Largest 99th percentile of the latency, in milliseconds; default none.
    #[serde(default)]
    pub p99_limit_ms: Option<f64>,
    /// Direct queries in all, `sql-pool` only; default as many as `concurrency`.
    #[serde(default)]
    pub queries: Option<u64>,
    /// Connections of the pool that the direct queries share, `sql-pool` only; default as many as `concurrency`, up to
    /// [`POOL_SIZE_MAX`].
    #[serde(default)]
    pub pool_size: Option<u32>,
    /// How long a direct query may wait for a connection of the pool, in milliseconds, `sql-pool` only; default 5,000.
    #[serde(default)]
    pub acquire_timeout_ms: Option<u64>,
    /// Parts that the load is divided into, with a look at the memory after each, `memory` only; default one for each
    /// round of `concurrency` requests, at most ten.
    #[serde(default)]
    pub blocks: Option<u32>,
    /// A metric of the target's own page of metrics, in bytes, whose course tells a leak instead of that of the resident
    /// memory: a heap, or what a control group is charged with. `memory` only.
    #[serde(default)]
    pub memory_metric: Option<String>,
    /// A leak above this fails the test, in MB for 1,000 requests, `memory` only; default none.
    #[serde(default)]
    pub leak_limit_mb_per_1000: Option<f64>,
    /// Largest growth of memory, in MB (1 MB = 1,048,576 bytes), `memory` only; default 50.
    #[serde(default)]
    pub growth_limit_mb: Option<f64>,
    /// From publication to acknowledgement, in milliseconds, `mesh` only; default 500.
    #[serde(default)]
    pub ack_limit_ms: Option<f64>,
    /// Where the event mesh is, `mesh` only.
    #[serde(default)]
    pub mesh: Option<MeshSpec>,
    /// A test that takes longer counts as slow, in milliseconds; defaults by kind.
    #[serde(default)]
    pub expected_max_ms: Option<f64>,
    /// How bad a failure is; default high for `mix`, `sql-pool` and `memory`, else medium.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// What a failure raises; defaults by kind.
    #[serde(default)]
    pub anomaly_type: Option<AnomalyType>,
    /// The target's service that the test exercises; `memory` then measures that one alone.
    #[serde(default)]
    pub service: Option<String>,
    /// Why the test cannot run: its subject is not configured. Not a key of the configuration.
    #[serde(skip)]
    pub missing: Option<String>,
}

impl TestSpec {
    /// A test with nothing but defaults.
    pub fn new(name: impl Into<String>, kind: TestKind) -> Self {
        Self {
            name: name.into(),
            kind,
            base_url: None,
            endpoints: Vec::new(),
            method: None,
            body: None,
            headers: Headers::default(),
            expect_status: None,
            expect_body: None,
            expect_within_ms: None,
            data: None,
            rows: None,
            ca: None,
            authorities: None,
            http2: None,
            rate: None,
            arrivals: None,
            duration_s: None,
            warm_up_s: None,
            think_ms: None,
            requests: None,
            concurrency: None,
            warmup_requests: None,
            request_timeout_ms: None,
            connect_timeout_ms: None,
            max_error_rate: None,
            fail_on_5xx: None,
            p95_limit_ms: None,
            p99_limit_ms: None,
            queries: None,
            pool_size: None,
            acquire_timeout_ms: None,
            blocks: None,
            memory_metric: None,
            leak_limit_mb_per_1000: None,
            growth_limit_mb: None,
            ack_limit_ms: None,
            mesh: None,
            expected_max_ms: None,
            severity: None,
            anomaly_type: None,
            service: None,
            missing: None,
        }
    }

    /// Endpoints with the test's own method, body, headers and expectations filled in.
    pub fn resolved_endpoints(&self) -> Vec<RequestSpec> {
        let fill = |endpoint: &RequestSpec| {
            let mut endpoint = endpoint.clone();
            if endpoint.body.is_none() {
                endpoint.body.clone_from(&self.body);
            }
            endpoint.method = endpoint.method.or_else(|| self.method.clone());
            for (name, value) in &self.headers.0 {
                if !endpoint
                    .headers
                    .0
                    .keys()
                    .any(|k| k.eq_ignore_ascii_case(name))
                {
                    endpoint.headers.0.insert(name.clone(), value.clone());
                }
            }
            if endpoint.expect_status.is_none() {
                endpoint.expect_status.clone_from(&self.expect_status);
            }
            if endpoint.expect_body.is_none() {
                endpoint.expect_body.clone_from(&self.expect_body);
            }
            endpoint.expect_within_ms = endpoint.expect_within_ms.or(self.expect_within_ms);
            endpoint
        };
        self.endpoints.iter().map(fill).collect()
    }

    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.requests.unwrap_or(match self.kind {
            TestKind::HttpLoad | TestKind::Latency => 50,
            TestKind::Mix => 40,
            TestKind::SqlPool => 20,
            TestKind::Mesh => 1,
            TestKind::Memory => 100,
        })
    }

    /// Requests at once; never more than [`Self::requests`] are used.
    pub fn concurrency(&self) -> u32 {
        self.concurrency.unwrap_or_else(|| {
            let all = u32::try_from(self.requests().clamp(1, 1_000)).unwrap_or(1_000);
            match self.kind {
                TestKind::HttpLoad | TestKind::Mix | TestKind::SqlPool => all,
                TestKind::Latency => all.min(10),
                TestKind::Memory => all.min(20),
                TestKind::Mesh => 1,
            }
        })
    }

    /// Requests before the measured ones.
    pub fn warmup_requests(&self) -> u64 {
        self.warmup_requests.unwrap_or(5)
    }

    /// Limit of one request, in milliseconds.
    pub fn request_timeout_ms(&self) -> u64 {
        self.request_timeout_ms.unwrap_or(10_000)
    }

    /// Limit of one connection, in milliseconds.
    pub fn connect_timeout_ms(&self) -> u64 {
        self.connect_timeout_ms.unwrap_or(2_000)
    }

    /// Largest share of failed requests.
    pub fn max_error_rate(&self) -> f64 {
        self.max_error_rate.unwrap_or(match self.kind {
            TestKind::Mix | TestKind::Latency | TestKind::Memory => 0.05,
            TestKind::HttpLoad | TestKind::SqlPool | TestKind::Mesh => 0.0,
        })
    }

    /// Whether any 5xx fails the test.
    pub fn fail_on_5xx(&self) -> bool {
        self.fail_on_5xx.unwrap_or(self.kind == TestKind::Mix)
    }

    /// Largest p95 latency, in milliseconds.
    pub fn p95_limit_ms(&self) -> Option<f64> {
        self.p95_limit_ms
            .or((self.kind == TestKind::Latency).then_some(500.0))
    }

    /// Largest growth of memory, in MB.
    pub fn growth_limit_mb(&self) -> f64 {
        self.growth_limit_mb.unwrap_or(50.0)
    }

    /// Limit of the acknowledgement, in milliseconds.
    pub fn ack_limit_ms(&self) -> f64 {
        self.ack_limit_ms.unwrap_or(500.0)
    }

    /// Above this the test is slow, in milliseconds; a test that lasts a time by its declaration may take that longer.
    pub fn expected_max_ms(&self) -> f64 {
        let by_kind = match self.kind {
            TestKind::HttpLoad => 2_000.0,
            TestKind::Latency => 3_000.0,
            TestKind::Mix | TestKind::SqlPool => 5_000.0,
            TestKind::Mesh => 500.0,
            TestKind::Memory => 15_000.0,
        };
        self.expected_max_ms.unwrap_or(by_kind + self.load_ms())
    }

    /// How bad a failure is.
    pub fn severity(&self) -> Severity {
        self.severity.unwrap_or(match self.kind {
            TestKind::Mix | TestKind::SqlPool | TestKind::Memory => Severity::High,
            TestKind::HttpLoad | TestKind::Latency | TestKind::Mesh => Severity::Medium,
        })
    }

    /// What a failure raises.
    pub fn anomaly_type(&self) -> AnomalyType {
        self.anomaly_type.clone().unwrap_or_else(|| {
            AnomalyType::known(match self.kind {
                TestKind::HttpLoad | TestKind::Mix => AnomalyType::ERROR_RATE_SPIKE,
                TestKind::SqlPool => AnomalyType::DB_POOL_EXHAUSTION,
                TestKind::Latency => AnomalyType::LATENCY_SPIKE,
                TestKind::Mesh => AnomalyType::EVENT_MESH_FAILURE,
                TestKind::Memory => AnomalyType::MEMORY_GROWTH,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(super) fn read(value: Value) -> Result<TestSpec, String> {
        let spec: TestSpec = serde_json::from_value(value).map_err(|e| e.to_string())?;
        spec.validate().map_err(|e| e.to_string())?;
        Ok(spec)
    }

    #[test]
    fn a_whole_test_is_read() {
        let spec = read(json!({
            "name": "Orders", "kind": "mix", "base_url": "http://127.0.0.1:1",
            "endpoints": ["/orders", {"path": "/pay", "method": "POST", "weight": 3}],
            "method": "GET", "body": {"a": 1}, "headers": {"x-a": "b"},
            "expect_status": ["2xx", 404], "expect_body": {"contains": "ok"},
            "requests": 80, "concurrency": 8, "request_timeout_ms": 1000,
            "connect_timeout_ms": 500, "max_error_rate": 0.1, "fail_on_5xx": false,
            "p95_limit_ms": 300, "expected_max_ms": 9000, "severity": "low",
            "anomaly_type": "orders_failing", "service": "shop",
        }))
        .unwrap();
        let endpoints = spec.resolved_endpoints();
        assert_eq!(endpoints[1].effective_method(), Method::POST);
        assert_eq!(endpoints[0].effective_method(), Method::GET);
        assert_eq!(endpoints[0].headers.0["x-a"], "b");
        assert!(endpoints[0].expect_status.as_ref().unwrap().contains(404));
        assert_eq!(spec.anomaly_type().as_str(), "orders_failing");
        assert_eq!((spec.requests(), spec.concurrency()), (80, 8));
    }
}
