//! What the service says of itself, decisions, and what bad requests get.

use crate::support::{ASK, Home, request};

#[test]
fn metrics_are_valid_exposition_text() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    assert_eq!(grace.get("/health").json()["status"], "ok");
    assert_eq!(grace.get("/nowhere").status, 404);
    let reply = grace.get("/metrics");
    let kind = reply.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(reply.body.ends_with('\n') && !reply.body.contains("# EOF"));
    let mut families = Vec::new();
    for line in reply.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} twice");
            families.push(name.to_owned());
        } else if !line.starts_with("# HELP ") {
            let (head, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = head.split('{').next().unwrap();
            let family = families.last().unwrap();
            let suffix = name.strip_prefix(family.as_str()).unwrap_or("-");
            assert!(
                ["", "_bucket", "_sum", "_count"].contains(&suffix),
                "{line}"
            );
        }
    }
    assert!(reply.body.contains(
        "grace_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"} 1\n"
    ));
}

#[test]
fn decisions_follow_the_policies_and_are_kept_in_memory() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let ask = |subject: &str, action: &str, resource: &str| {
        let body =
            format!(r#"{{"subject":"{subject}","action":"{action}","resource":"{resource}"}}"#);
        grace.post("/api/governance/decide", &body).json()
    };
    assert_eq!(
        ask("operator:1", "restart", "service/api")["decision"],
        "allow"
    );
    assert_eq!(
        ask("operator:1", "delete", "audit/1")["policy"],
        "deny_audit_delete"
    );
    assert_eq!(ask("nobody", "x", "y")["policy"], "default_deny");
    let [first, second] = [(); 2].map(|()| ask("user:9", "read", "document/1"));
    assert_eq!(
        (&first["cached"], &second["cached"]),
        (&false.into(), &true.into())
    );
    assert_eq!(first["precedents"], second["precedents"]);
    assert!(first["precedents"].as_i64().unwrap() > 0);
    let report = grace.get("/api/governance/policies").json();
    assert_eq!(report["count"], 16);
    drop(grace);
    home.set(|s| s.governance.cache_entries = 0);
    let grace = home.start(&["api"]);
    for _ in 0..2 {
        assert_eq!(
            grace.post("/api/governance/decide", ASK).json()["cached"],
            false
        );
    }
}

#[test]
fn the_documentation_lists_what_there_is() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let reply = grace.get("/docs");
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    for word in [
        "/api/multimodal/chat",
        "workers_exhausted",
        "pool_timeout_ms",
    ] {
        assert!(reply.body.contains(word), "{word}");
    }
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(20_000));
    let huge = "x".repeat(70_000);
    for (method, path, body, expected) in [
        ("GET", "/api/none", "", (404, "not_found")),
        ("DELETE", "/health", "", (405, "method_not_allowed")),
        ("POST", "/api/governance/decide", "{}", (400, "bad_request")),
        (
            "POST",
            "/api/governance/decide",
            "rubbish",
            (400, "bad_request"),
        ),
        (
            "POST",
            "/api/governance/decide",
            &huge,
            (413, "payload_too_large"),
        ),
        (
            "POST",
            "/api/multimodal/chat",
            r#"{"message":" "}"#,
            (400, "bad_request"),
        ),
        (
            "POST",
            "/api/multimodal/chat",
            r#"{"message":"a","modality":"smell"}"#,
            (400, "bad_request"),
        ),
        ("POST", "/api/multimodal/chat", &long, (400, "bad_request")),
    ] {
        let headers = [("x-request-id", "my-request")];
        let reply = request(grace.addr(), method, path, &headers, body).unwrap();
        assert_eq!(
            reply.outcome(),
            (expected.0, expected.1.to_owned()),
            "{method} {path}"
        );
        assert_eq!(reply.header("x-request-id"), Some("my-request"));
    }
    let logged = home.log("request_id", "my-request");
    assert_eq!(logged.len(), 8);
    assert!(
        logged
            .iter()
            .all(|line| line["level"] == "WARN" && line["duration_ms"].is_f64())
    );
}
