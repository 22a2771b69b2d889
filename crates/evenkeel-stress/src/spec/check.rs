//! Whether a declared test can be run as it is written.

use super::{POOL_QUERIES_MAX, POOL_SIZE_MAX, TestKind, TestSpec};
use crate::request::RequestSpec;
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

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
        let any = BaseUrl::parse("http://localhost").map_err(plan_error)?;
        for endpoint in self.resolved_endpoints() {
            let prepared = endpoint.prepare(&any, self.rows.as_deref());
            prepared.map_err(plan_error)?;
        }
        if let Some(mesh) = &self.mesh {
            for path in [&mesh.publish_path, &mesh.subscribe_path] {
                RequestSpec::get(path).check().map_err(plan_error)?;
            }
        }
        self.check_shape().map_err(error)?;
        let needs_endpoints = !matches!(self.kind, TestKind::Mesh | TestKind::SqlPool);
        if needs_endpoints && self.endpoints.is_empty() && self.missing.is_none() {
            let kind = self.kind.name();
            return Err(error(format!("a test of kind `{kind}` needs `endpoints`")));
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), String> {
        use TestKind::{Memory, Mesh, SqlPool};
        let kind = self.kind;
        let http = kind != Mesh;
        let timed = http && kind != Memory;
        let keys = [
            ("endpoints", !self.endpoints.is_empty(), http),
            ("method", self.method.is_some(), http),
            ("body", self.body.is_some(), http),
            ("headers", !self.headers.0.is_empty(), http),
            ("expect_status", self.expect_status.is_some(), http),
            ("expect_body", self.expect_body.is_some(), http),
            ("expect_within_ms", self.expect_within_ms.is_some(), http),
            ("data", self.data.is_some(), http),
            ("ca", self.ca.is_some(), http),
            ("http2", self.http2.is_some(), http),
            ("rate", self.rate.is_some(), timed),
            ("arrivals", self.arrivals.is_some(), timed),
            ("duration_s", self.duration_s.is_some(), timed),
            ("warm_up_s", self.warm_up_s.is_some(), timed),
            ("think_ms", self.think_ms.is_some(), http),
            ("p99_limit_ms", self.p99_limit_ms.is_some(), timed),
            ("queries", self.queries.is_some(), kind == SqlPool),
            ("pool_size", self.pool_size.is_some(), kind == SqlPool),
            (
                "acquire_timeout_ms",
                self.acquire_timeout_ms.is_some(),
                kind == SqlPool,
            ),
            ("blocks", self.blocks.is_some(), kind == Memory),
            (
                "memory_metric",
                self.memory_metric.is_some(),
                kind == Memory,
            ),
            (
                "leak_limit_mb_per_1000",
                self.leak_limit_mb_per_1000.is_some(),
                kind == Memory,
            ),
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
        let optional = [
            ("p99_limit_ms", self.p99_limit_ms, 0.001, HOUR_MS),
            ("expect_within_ms", self.expect_within_ms, 0.001, HOUR_MS),
            ("duration_s", self.duration_s, 0.1, 900.0),
            ("warm_up_s", self.warm_up_s, 0.0, 300.0),
            (
                "queries",
                self.queries.map(|n| n as f64),
                1.0,
                POOL_QUERIES_MAX as f64,
            ),
            (
                "pool_size",
                self.pool_size.map(f64::from),
                1.0,
                POOL_SIZE_MAX.into(),
            ),
            (
                "acquire_timeout_ms",
                self.acquire_timeout_ms.map(|n| n as f64),
                1.0,
                HOUR_MS,
            ),
            ("blocks", self.blocks.map(f64::from), 1.0, 100.0),
            (
                "leak_limit_mb_per_1000",
                self.leak_limit_mb_per_1000,
                0.001,
                1e9,
            ),
        ];
        for (key, value, min, max) in optional {
            if let Some(value) = value {
                range(key, value, min, max)?;
            }
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use serde_json::json;

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
                json!({"name": "x", "kind": "mix", "endpoints": ["/"], "base_url": "ftp://x"}),
                "neither http nor https",
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
}
