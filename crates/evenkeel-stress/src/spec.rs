//! How a stress test is declared, in configuration and in code.
//!
//! A test of any service is one of a few kinds with its own numbers; the eight of the product are
//! declared the same way ([`eight_tests`]).

mod eight;

use evenkeel_core::anomaly::{AnomalyType, Severity};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::mesh::MeshSpec;
use crate::request::{BodyCheck, Headers, RequestSpec, StatusSet, de_method};
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

pub use eight::{SubjectServices, Subjects, eight_tests};

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
    /// Requests in all (for `sql-pool`: queries); defaults by kind.
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

/// One hour in milliseconds: the largest limit of time.
const HOUR_MS: f64 = 3_600_000.0;

/// A declared test that cannot be run as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("test `{test}`: {reason}")]
pub struct SpecError {
    /// Which test.
    pub test: String,
    /// What is wrong and what would be right.
    pub reason: String,
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
            requests: None,
            concurrency: None,
            warmup_requests: None,
            request_timeout_ms: None,
            connect_timeout_ms: None,
            max_error_rate: None,
            fail_on_5xx: None,
            p95_limit_ms: None,
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

    /// Takes from `base` whatever is not declared here: so a user changes one number of a built-in
    /// test by declaring a test of the same name and kind with that number alone.
    pub fn inherit(&mut self, base: &TestSpec) {
        fn or<T: Clone>(mine: &mut Option<T>, theirs: Option<&T>) {
            if mine.is_none() {
                *mine = theirs.cloned();
            }
        }
        if self.endpoints.is_empty() {
            self.endpoints.clone_from(&base.endpoints);
            self.missing.clone_from(&base.missing);
        }
        for (name, value) in &base.headers.0 {
            let entry = self.headers.0.entry(name.clone());
            entry.or_insert_with(|| value.clone());
        }
        or(&mut self.base_url, base.base_url.as_ref());
        or(&mut self.method, base.method.as_ref());
        or(&mut self.body, base.body.as_ref());
        or(&mut self.expect_status, base.expect_status.as_ref());
        or(&mut self.expect_body, base.expect_body.as_ref());
        or(&mut self.requests, base.requests.as_ref());
        or(&mut self.concurrency, base.concurrency.as_ref());
        or(&mut self.warmup_requests, base.warmup_requests.as_ref());
        or(
            &mut self.request_timeout_ms,
            base.request_timeout_ms.as_ref(),
        );
        or(
            &mut self.connect_timeout_ms,
            base.connect_timeout_ms.as_ref(),
        );
        or(&mut self.max_error_rate, base.max_error_rate.as_ref());
        or(&mut self.fail_on_5xx, base.fail_on_5xx.as_ref());
        or(&mut self.p95_limit_ms, base.p95_limit_ms.as_ref());
        or(&mut self.growth_limit_mb, base.growth_limit_mb.as_ref());
        or(&mut self.ack_limit_ms, base.ack_limit_ms.as_ref());
        if self.mesh.is_some() {
            self.missing = None;
        }
        or(&mut self.mesh, base.mesh.as_ref());
        or(&mut self.expected_max_ms, base.expected_max_ms.as_ref());
        or(&mut self.severity, base.severity.as_ref());
        or(&mut self.anomaly_type, base.anomaly_type.as_ref());
        or(&mut self.service, base.service.as_ref());
    }

    /// Whether it could be run: keys that mean nothing for its kind, numbers out of range and
    /// requests that cannot be sent are errors.
    pub fn validate(&self) -> Result<(), SpecError> {
        let error = |reason: String| SpecError {
            test: bounded(&self.name, 80),
            reason,
        };
        if self.name.trim().is_empty()
            || self.name.chars().count() > 80
            || self.name.chars().any(char::is_control)
        {
            return Err(error(
                "its name must have 1 to 80 printable characters".to_owned(),
            ));
        }
        self.check_keys().map_err(error)?;
        self.check_numbers().map_err(error)?;
        let plan_error = |e: PlanError| error(e.to_string());
        if let Some(base) = &self.base_url {
            BaseUrl::parse(base).map_err(plan_error)?;
        }
        for endpoint in self.resolved_endpoints() {
            endpoint.check().map_err(plan_error)?;
        }
        if let Some(mesh) = &self.mesh {
            for path in [&mesh.publish_path, &mesh.subscribe_path] {
                RequestSpec::get(path).check().map_err(plan_error)?;
            }
        }
        let needs_endpoints = !matches!(self.kind, TestKind::Mesh | TestKind::SqlPool);
        if needs_endpoints && self.endpoints.is_empty() && self.missing.is_none() {
            let kind = self.kind.name();
            return Err(error(format!("a test of kind `{kind}` needs `endpoints`")));
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), String> {
        use TestKind::{Memory, Mesh};
        let kind = self.kind;
        let http = kind != Mesh;
        let keys = [
            ("endpoints", !self.endpoints.is_empty(), http),
            ("method", self.method.is_some(), http),
            ("body", self.body.is_some(), http),
            ("headers", !self.headers.0.is_empty(), http),
            ("expect_status", self.expect_status.is_some(), http),
            ("expect_body", self.expect_body.is_some(), http),
            ("requests", self.requests.is_some(), http),
            ("concurrency", self.concurrency.is_some(), http),
            (
                "request_timeout_ms",
                self.request_timeout_ms.is_some(),
                http,
            ),
            ("max_error_rate", self.max_error_rate.is_some(), http),
            (
                "fail_on_5xx",
                self.fail_on_5xx.is_some(),
                http && kind != Memory,
            ),
            (
                "p95_limit_ms",
                self.p95_limit_ms.is_some(),
                http && kind != Memory,
            ),
            (
                "warmup_requests",
                self.warmup_requests.is_some(),
                kind == Memory,
            ),
            (
                "growth_limit_mb",
                self.growth_limit_mb.is_some(),
                kind == Memory,
            ),
            ("ack_limit_ms", self.ack_limit_ms.is_some(), kind == Mesh),
            ("mesh", self.mesh.is_some(), kind == Mesh),
        ];
        match keys.iter().find(|(_, set, useful)| *set && !*useful) {
            Some((key, _, _)) => Err(format!(
                "`{key}` means nothing for a test of kind `{}`; leave it out",
                kind.name()
            )),
            None => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), String> {
        let range = |key: &str, value: f64, min: f64, max: f64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!(
                    "`{key}` is {value}; it must be from {min} to {max}"
                ))
            }
        };
        range("requests", self.requests() as f64, 1.0, 1_000_000.0)?;
        range("concurrency", f64::from(self.concurrency()), 1.0, 1_000.0)?;
        range(
            "warmup_requests",
            self.warmup_requests() as f64,
            0.0,
            10_000.0,
        )?;
        range(
            "request_timeout_ms",
            self.request_timeout_ms() as f64,
            1.0,
            HOUR_MS,
        )?;
        range(
            "connect_timeout_ms",
            self.connect_timeout_ms() as f64,
            1.0,
            HOUR_MS,
        )?;
        range("max_error_rate", self.max_error_rate(), 0.0, 1.0)?;
        if let Some(limit) = self.p95_limit_ms() {
            range("p95_limit_ms", limit, 0.001, HOUR_MS)?;
        }
        range("growth_limit_mb", self.growth_limit_mb(), 0.001, 1e9)?;
        range("ack_limit_ms", self.ack_limit_ms(), 1.0, HOUR_MS)?;
        range(
            "expected_max_ms",
            self.expected_max_ms(),
            1.0,
            24.0 * HOUR_MS,
        )
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

    /// Above this the test is slow, in milliseconds.
    pub fn expected_max_ms(&self) -> f64 {
        self.expected_max_ms.unwrap_or(match self.kind {
            TestKind::HttpLoad => 2_000.0,
            TestKind::Latency => 3_000.0,
            TestKind::Mix | TestKind::SqlPool => 5_000.0,
            TestKind::Mesh => 500.0,
            TestKind::Memory => 15_000.0,
        })
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

/// The tests of `built_in` with what `configured` says about them, and then the other configured
/// ones. A configured test of another kind replaces the built-in one of its name.
pub fn merge_tests(built_in: Vec<TestSpec>, configured: Vec<TestSpec>) -> Vec<TestSpec> {
    let mut all = built_in;
    for mut spec in configured {
        match all.iter_mut().find(|t| t.name == spec.name) {
            Some(base) => {
                if base.kind == spec.kind {
                    spec.inherit(base);
                }
                *base = spec;
            }
            None => all.push(spec),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<TestSpec, String> {
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

    #[test]
    fn wrong_tests_are_refused_with_the_reason() {
        for (bad, word) in [
            (
                json!({"name": "x", "kind": "http-load", "endpoints": ["/"], "reqests": 1}),
                "reqests",
            ),
            (
                json!({"name": "x", "kind": "http-loads", "endpoints": ["/"]}),
                "http-load",
            ),
            (
                json!({"name": "x", "kind": "http-load"}),
                "needs `endpoints`",
            ),
            (json!({"name": " ", "kind": "mesh"}), "name"),
            (
                json!({"name": "x", "kind": "mesh", "endpoints": ["/"]}),
                "means nothing",
            ),
            (
                json!({"name": "x", "kind": "memory", "endpoints": ["/"], "ack_limit_ms": 1}),
                "ack_limit_ms",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "max_error_rate": 5}),
                "from 0 to 1",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "requests": 0}),
                "requests",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "concurrency": 5000}),
                "concurrency",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "base_url": "https://x"}),
                "not supported",
            ),
            (
                json!({"name": "x", "kind": "mesh", "mesh": {"publish": "/x"}}),
                "publish",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "headers": {"a": "b\n"}}),
                "header",
            ),
            (
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "missing": "x"}),
                "missing",
            ),
        ] {
            let error = read(bad.clone()).expect_err(&bad.to_string());
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn a_user_changes_one_number_of_a_built_in_test() {
        let base = eight_tests(&Subjects {
            health: Some(RequestSpec::get("/health")),
            ..Subjects::default()
        });
        let mine = TestSpec {
            requests: Some(7),
            ..TestSpec::new("Health Endpoint Load", TestKind::HttpLoad)
        };
        let chat = TestSpec {
            endpoints: vec![RequestSpec::get("/chat")],
            ..TestSpec::new("Multimodal Chat Stress", TestKind::HttpLoad)
        };
        let own = TestSpec {
            endpoints: vec![RequestSpec::get("/x")],
            ..TestSpec::new("Own", TestKind::HttpLoad)
        };
        let all = merge_tests(base, vec![mine, chat, own]);
        assert_eq!(all.len(), 9);
        assert_eq!((all[0].requests(), all[0].severity()), (7, Severity::High));
        assert_eq!(all[0].endpoints, [RequestSpec::get("/health")]);
        assert_eq!((all[3].missing.as_ref(), all[3].requests()), (None, 5));
        assert_eq!(all[8].name, "Own");
    }
}
