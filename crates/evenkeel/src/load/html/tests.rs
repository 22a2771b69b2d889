//! The page holds what the report holds, escaped, and needs nothing from elsewhere.

use super::*;
use crate::load::compare::compare;
use crate::load::example::report;
use crate::load::report::{Buckets, OneRequest, Verdict};

/// Every tag that was opened is closed, in the right order.
fn balanced(page: &str) {
    let alone = ["meta", "line", "rect", "circle", "path", "!doctype"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '/')
            .collect();
        rest = &rest[end + 1..];
        if alone.contains(&name.as_str()) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "{tag}");
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_holds_what_was_measured_and_needs_nothing_else() {
    let (old, new) = (report(30, 10.0, 1), report(30, 12.0, 2));
    let page = page(&new, Some(&compare(&old, &new)));
    balanced(&page);
    for word in [
        "http://127.0.0.1:8080/orders",
        "Against the older run: worse",
        "p95 &lt; 300ms",
        "from the intended start",
        "from the actual send",
        "Latency histogram",
        "Answered requests a second",
        "Latency by percentile",
        "prefers-color-scheme:dark",
    ] {
        assert!(page.contains(word), "{word}");
    }
    assert!(
        !page.contains("Failed requests a second"),
        "there were none"
    );
    for outside in ["src=", "href=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.len() < 400_000, "{}", page.len());
}

#[test]
fn whatever_comes_from_outside_is_escaped() {
    let evil = "<img src=x onerror=alert(1)>'\"</style><script>&";
    let mut run = report(10, 10.0, 1);
    run.run.url = evil.to_owned();
    run.run.words = evil.to_owned();
    run.run.protocol = evil.to_owned();
    run.evenkeel = evil.to_owned();
    run.invalid = Some(evil.to_owned());
    run.errors = [(evil.to_owned(), 7)].into();
    run.error_codes = [(evil.to_owned(), 7)].into();
    run.error_samples = vec![evil.to_owned()];
    let one = OneRequest {
        name: evil.to_owned(),
        ..run.per_request[0].clone()
    };
    run.per_request = vec![one.clone(), one];
    run.thresholds = vec![Verdict {
        text: evil.to_owned(),
        measured: None,
        limit: 1.0,
        unit: evil.to_owned(),
        passed: false,
    }];
    let mut other = run.clone();
    other.run.url = format!("{evil}2");
    let page = page(&run, Some(&compare(&other, &run)));
    balanced(&page);
    assert!(!page.contains("<img") && !page.contains("<script") && !page.contains("alert(1)>"));
    assert_eq!(page.matches("</style>").count(), 1);
    assert!(page.matches("&lt;img src=x").count() >= 10);
}

#[test]
fn what_is_wrong_stands_at_the_top() {
    let mut run = report(10, 10.0, 1);
    run.invalid = Some("the generator was the bottleneck".to_owned());
    let text = page(&run, None);
    let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}"));
    assert!(at("say nothing about the target") < at("class=\"cards\""));
    run.invalid = None;
    run.thresholds[0].passed = false;
    let text = page(&run, None);
    assert!(text.contains("1 of 1 thresholds missed") && text.contains("✗ missed"));
    run.thresholds.clear();
    assert!(!page(&run, None).contains("class=\"banner\""));
}

#[test]
fn an_empty_run_has_a_page_too() {
    let mut run = report(0, 10.0, 1);
    run.latency_histogram = Buckets::default();
    run.requests = 5;
    run.answered = 0;
    let page = page(&run, None);
    balanced(&page);
    assert!(
        page.contains("did not answer a single request") && page.contains("there is no latency")
    );
    assert!(!page.contains("NaN"));
}
