//! What is said of two runs of which it is known how they differ.

use super::*;
use crate::load::example::report;

fn finding(c: &Comparison, figure: Figure) -> Finding {
    c.changes
        .iter()
        .find(|x| x.figure == figure)
        .unwrap()
        .finding
}

#[test]
fn a_slower_run_is_worse_and_the_way_back_is_better() {
    let (fast, slow) = (report(30, 10.0, 1), report(30, 12.0, 2));
    let found = compare(&fast, &slow);
    assert_eq!(found.finding, Finding::Worse, "{found}");
    assert_eq!(finding(&found, Figure::LatencyP50), Finding::Worse);
    assert_eq!(finding(&found, Figure::LatencyP99), Finding::Worse);
    assert_eq!(finding(&found, Figure::Throughput), Finding::Same);
    assert_eq!(finding(&found, Figure::Errors), Finding::Same);
    let by = found.changes[1].by.unwrap();
    assert!(
        by.low <= 2.0 && 2.0 <= by.high && by.high - by.low < 1.0,
        "{by:?}"
    );
    let [percent, ..] = by.percent.unwrap();
    assert!((percent - 20.0).abs() < 3.0);
    assert_eq!(compare(&slow, &fast).finding, Finding::Better);
    let shown = found.to_string();
    for word in ["worse", "p50", "ms", "99 % intervals", "< 0.0001"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn more_throughput_is_better() {
    let (old, mut new) = (report(30, 10.0, 1), report(30, 10.0, 2));
    for point in &mut new.series {
        point.throughput_rps *= 1.1;
    }
    let found = compare(&old, &new);
    assert_eq!(finding(&found, Figure::Throughput), Finding::Better);
    assert_eq!(
        finding(&compare(&new, &old), Figure::Throughput),
        Finding::Worse
    );
}

/// A difference beyond chance that nobody would notice.
#[test]
fn a_trifle_is_the_same_however_significant() {
    let (old, new) = (report(200, 10.0, 1), report(200, 10.1, 2));
    let found = compare(&old, &new);
    assert!(found.changes[1].p_value.unwrap() < 0.01, "{found}");
    assert_eq!(found.finding, Finding::Same, "{found}");
    // 0.02 ms are 4 % of half a millisecond, and still nothing.
    let (old, new) = (report(200, 0.5, 1), report(200, 0.52, 2));
    let found = compare(&old, &new);
    assert!(found.changes[1].p_value.unwrap() < 0.01);
    assert_eq!(finding(&found, Figure::LatencyP50), Finding::Same);
}

#[test]
fn a_short_or_thin_run_says_nothing() {
    let (short, long) = (report(7, 10.0, 1), report(30, 10.0, 2));
    let found = compare(&short, &long);
    assert_eq!(found.finding, Finding::Unclear);
    let why = found.changes[0].why.clone().unwrap();
    assert!(
        why.contains("too short to say") && why.contains('7'),
        "{why}"
    );
    let mut thin = long.clone();
    for point in &mut thin.series {
        point.requests = 50;
    }
    let found = compare(&thin, &long);
    assert_eq!(finding(&found, Figure::LatencyP99), Finding::Unclear);
    assert_eq!(finding(&found, Figure::LatencyP95), Finding::Same);
}

/// Same median and wildly different seconds: not "the same".
#[test]
fn noise_is_not_sameness() {
    let (mut old, mut new) = (report(10, 10.0, 1), report(10, 10.0, 2));
    for (i, (a, b)) in old.series.iter_mut().zip(&mut new.series).enumerate() {
        let factor = [0.5, 3.0, 1.0, 2.0, 0.7][i % 5];
        a.latency_ms.p50 *= factor;
        b.latency_ms.p50 *= factor;
    }
    let found = compare(&old, &new);
    assert_eq!(
        finding(&found, Figure::LatencyP50),
        Finding::Unclear,
        "{found}"
    );
    assert!(found.to_string().contains("too noisy to say"));
}

#[test]
fn errors_are_compared_by_their_seconds() {
    let (old, mut new) = (report(30, 10.0, 1), report(30, 10.0, 2));
    for point in &mut new.series {
        point.errors = 20;
    }
    new.error_share = 0.02;
    let found = compare(&old, &new);
    assert_eq!(finding(&found, Figure::Errors), Finding::Worse, "{found}");
    // As many in one burst are one event.
    for point in &mut new.series {
        point.errors = 0;
    }
    new.series[3].errors = 600;
    assert_eq!(
        finding(&compare(&old, &new), Figure::Errors),
        Finding::Unclear
    );
}

#[test]
fn seconds_without_any_answer_are_seconds_without_throughput() {
    let (old, mut new) = (report(30, 10.0, 1), report(30, 10.0, 2));
    new.series.retain(|p| p.at_s < 2.0 || p.at_s % 3.0 < 0.5);
    let found = compare(&old, &new);
    assert_eq!(
        finding(&found, Figure::Throughput),
        Finding::Worse,
        "{found}"
    );
}

#[test]
fn a_stall_that_typical_seconds_do_not_show_is_noted() {
    let (old, mut new) = (report(30, 10.0, 1), report(30, 10.0, 2));
    new.series[5].latency_ms.p99 = 3_000.0;
    new.latency_ms.p99 = 2_000.0;
    let found = compare(&old, &new);
    assert_eq!(finding(&found, Figure::LatencyP99), Finding::Same);
    assert!(found.to_string().contains("look for stalls"), "{found}");
}

#[test]
fn runs_of_different_things_are_warned_of_and_invalid_ones_not_judged() {
    let old = report(30, 10.0, 1);
    assert_eq!(compare(&old, &old).warnings, Vec::<String>::new());
    let mut new = report(20, 20.0, 2);
    new.run.url = "http://127.0.0.1:9/".to_owned();
    new.run.connections = 7;
    new.cancelled = true;
    let found = compare(&old, &new);
    let all = found.warnings.join("\n");
    for word in ["address", "load", "connections", "ended early"] {
        assert!(all.contains(word), "{word}: {all}");
    }
    new.invalid = Some("the generator was the bottleneck".to_owned());
    let found = compare(&old, &new);
    assert_eq!(found.finding, Finding::Unclear);
    assert!(found.warnings[0].contains("new run is invalid"));
}

#[test]
fn a_comparison_survives_json() {
    let found = compare(&report(30, 10.0, 1), &report(30, 12.0, 2));
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.contains(r#""figure":"latency_p99""#) && text.contains(r#""finding":"worse""#));
    assert_eq!(
        serde_json::from_str::<Comparison>(&text).unwrap().finding,
        Finding::Worse
    );
}
