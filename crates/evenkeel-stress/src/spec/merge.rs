//! What a user changes of the built-in tests.

use super::TestSpec;

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

impl TestSpec {
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
        or(&mut self.expect_within_ms, base.expect_within_ms.as_ref());
        or(&mut self.data, base.data.as_ref());
        or(&mut self.rows, base.rows.as_ref());
        or(&mut self.ca, base.ca.as_ref());
        or(&mut self.authorities, base.authorities.as_ref());
        or(&mut self.http2, base.http2.as_ref());
        or(&mut self.rate, base.rate.as_ref());
        or(&mut self.arrivals, base.arrivals.as_ref());
        or(&mut self.warm_up_s, base.warm_up_s.as_ref());
        or(&mut self.think_ms, base.think_ms.as_ref());
        // What lasts a time has no number of requests, and takes as long as it says.
        let lasts = self.duration_s.is_some();
        if self.requests.is_none() {
            or(&mut self.duration_s, base.duration_s.as_ref());
        }
        if !lasts {
            or(&mut self.requests, base.requests.as_ref());
            or(&mut self.expected_max_ms, base.expected_max_ms.as_ref());
        }
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
        or(&mut self.p99_limit_ms, base.p99_limit_ms.as_ref());
        or(&mut self.queries, base.queries.as_ref());
        or(&mut self.pool_size, base.pool_size.as_ref());
        or(
            &mut self.acquire_timeout_ms,
            base.acquire_timeout_ms.as_ref(),
        );
        or(&mut self.blocks, base.blocks.as_ref());
        or(&mut self.memory_metric, base.memory_metric.as_ref());
        or(
            &mut self.leak_limit_mb_per_1000,
            base.leak_limit_mb_per_1000.as_ref(),
        );
        or(&mut self.growth_limit_mb, base.growth_limit_mb.as_ref());
        or(&mut self.ack_limit_ms, base.ack_limit_ms.as_ref());
        if self.mesh.is_some() {
            self.missing = None;
        }
        or(&mut self.mesh, base.mesh.as_ref());
        or(&mut self.severity, base.severity.as_ref());
        or(&mut self.anomaly_type, base.anomaly_type.as_ref());
        or(&mut self.service, base.service.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::anomaly::Severity;

    use super::super::{Subjects, TestKind, eight_tests};
    use super::*;
    use crate::request::RequestSpec;

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

    #[test]
    fn a_built_in_test_becomes_an_open_loop() {
        let base = eight_tests(&Subjects {
            health: Some(RequestSpec::get("/health")),
            ..Subjects::default()
        });
        let mine = serde_json::from_value(serde_json::json!({
            "name": "Health Endpoint Load", "kind": "http-load", "rate": 20, "duration_s": 3,
        }));
        let all = merge_tests(base, vec![mine.unwrap()]);
        all[0].validate().unwrap();
        assert_eq!((all[0].requests, all[0].concurrency), (None, Some(50)));
        assert!((all[0].expected_max_ms() - 5_000.0).abs() < 1e-9);
    }
}
