//! One incident, one anomaly, from first evidence to recovery.

use evenkeel_core::anomaly::Severity;
use evenkeel_detect::{Baseline, ProbeError, Scope, Thresholds, Verdict, Watchdog};

use crate::support::*;

const ERRORS: &str = "error_rate_spike/error_rate";
const LATENCY: &str = "latency_spike/latency_p95";
const MEMORY: &str = "memory_growth/memory_growth";
const FAILURES: &str = "high_failure_rate/failure_rate";
const DOWN: &str = "target_down/liveness/api";
const HUNG: &str = "target_hung/liveness/api";
const TELEMETRY: &str = "telemetry_missing/telemetry";

fn line(second: i64, sign: char, key: &str) -> (i64, String) {
    (second, format!("{sign}{key}"))
}

#[test]
fn an_error_spike_is_raised_once_and_cleared_once() {
    let mut dog = watchdog();
    let told = story(&mut dog, 0..700, |s| {
        let errors = if (20..40).contains(&s) { 40 } else { 0 };
        vec![counts(s * SECOND, errors, 100)]
    });
    // 120 of 2,300 is 5.2 %, 160 of 2,400 surely beyond; 800 of 16,000 is at the limit again.
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].1, format!("+{ERRORS}"));
    assert!((23..30).contains(&told[0].0), "{told:?}");
    assert_eq!(told[1].1, format!("-{ERRORS}"));
    assert!((160..163).contains(&told[1].0), "{told:?}");
}

#[test]
fn the_anomaly_carries_its_evidence() {
    let mut dog = watchdog();
    let mut raised = None;
    for s in 0..10 {
        dog.observe(&counts(s * SECOND, 12, 100));
        for verdict in dog.check(at(s * SECOND)) {
            if let Verdict::Raised(anomaly) = verdict {
                raised = Some((s, anomaly));
            }
        }
    }
    let (second, anomaly) = raised.unwrap();
    assert_eq!(second, 2, "the third check with fresh errors");
    assert_eq!(anomaly.severity, Severity::High);
    assert_eq!(anomaly.since, at(0));
    assert!((anomaly.current - 0.12).abs() < 1e-9 && (anomaly.score.unwrap() - 2.4).abs() < 1e-9);
    assert_eq!(
        anomaly.details,
        "Error rate 12% exceeds threshold 5%: 36 of 300 in http"
    );
    assert_eq!(
        (anomaly.unit.as_str(), anomaly.series.as_deref()),
        ("ratio", Some("error_rate"))
    );
    assert_eq!(dog.active().count(), 1);
}

#[test]
fn a_burst_within_one_check_is_no_spike() {
    let mut dog = watchdog();
    let told = story(&mut dog, 0..600, |s| {
        vec![counts(
            s * SECOND,
            if s == 30 { 400 } else { 0 },
            10 + if s == 30 { 400 } else { 0 },
        )]
    });
    assert_eq!(told, []);
}

#[test]
fn slow_answers_and_time_outs_are_a_latency_spike() {
    for slow in [(3000.0, None), (10.0, Some(ProbeError::Timeout))] {
        let mut dog = watchdog();
        let told = story(&mut dog, 0..200, |s| {
            let (ms, error) = if (50..80).contains(&s) && s % 2 == 0 {
                slow
            } else {
                (20.0, None)
            };
            vec![probe(s * SECOND, ms, error)]
        });
        let latency: Vec<_> = told.iter().filter(|(_, t)| t.ends_with(LATENCY)).collect();
        assert_eq!(latency.len(), 2, "{told:?}");
        assert!(
            latency[0].1.starts_with('+') && (54..70).contains(&latency[0].0),
            "{told:?}"
        );
        assert!(
            !told.iter().any(|(_, t)| t.contains("target_")),
            "every second probe answers: {told:?}"
        );
    }
}

#[test]
fn a_death_is_told_at_once_and_explains_the_rest() {
    let mut dog = watchdog();
    assert_eq!(
        story(&mut dog, 0..20, |s| vec![
            probe(s * SECOND, 5.0, None),
            counts(s * SECOND, 0, 10)
        ]),
        []
    );
    dog.observe(&down(19_500));
    let verdicts = dog.check_liveness(at(19_510));
    let [Verdict::Raised(anomaly)] = &verdicts[..] else {
        panic!("{verdicts:?}")
    };
    assert_eq!(
        (anomaly.key(), anomaly.severity),
        (DOWN.to_owned(), Severity::Critical)
    );
    assert_eq!(anomaly.details, "api is down: killed by signal 9");
    assert!(!dog.measures().up["api"]);
    let told = story(&mut dog, 20..40, |s| {
        vec![
            probe(s * SECOND, 0.0, Some(ProbeError::Refused)),
            counts(s * SECOND, 10, 10),
        ]
    });
    assert!(
        told.iter().all(|(_, t)| t.starts_with('~')),
        "nothing else is raised: {told:?}"
    );
    assert_eq!(
        told.iter().filter(|(_, t)| t.ends_with(ERRORS)).count(),
        1,
        "said once: {told:?}"
    );
    dog.observe(&up(39_500));
    let told = story(&mut dog, 40..100, |s| {
        vec![probe(s * SECOND, 5.0, None), counts(s * SECOND, 0, 10)]
    });
    assert_eq!(
        told,
        [line(41, '-', DOWN)],
        "and its errors do not come back as a spike"
    );
    assert!(dog.measures().up["api"]);
}

#[test]
fn hung_is_not_down_and_becomes_it() {
    let mut dog = watchdog();
    let told = story(&mut dog, 0..20, |s| {
        let error = match s {
            5..10 => Some(ProbeError::Timeout),
            10..15 => Some(ProbeError::Refused),
            _ => None,
        };
        vec![probe(s * SECOND, 5.0, error)]
    });
    let liveness: Vec<_> = told
        .into_iter()
        .filter(|(_, t)| t.contains("target_"))
        .collect();
    assert_eq!(
        liveness,
        [
            line(6, '+', HUNG),
            line(11, '-', HUNG),
            line(11, '+', DOWN),
            line(16, '-', DOWN)
        ]
    );
}

#[test]
fn a_leak_is_found_and_a_restart_resets_it() {
    let mut dog = watchdog();
    let leak = |s: i64| vec![memory(s * SECOND, 1, 50 + 5 * s.unsigned_abs())];
    let told = story(&mut dog, 0..30, leak);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1, format!("+{MEMORY}"));
    assert!(
        dog.measure("memory_growth")
            .is_some_and(|m| m.enough && m.value > 10_000.0)
    );
    assert_eq!(
        dog.reset_series(Scope::Service("api"), at(29_500)),
        [MEMORY]
    );
    assert_eq!(dog.measure("memory_growth"), None);
    assert_eq!(
        story(&mut dog, 30..120, |s| vec![memory(s * SECOND, 2, 50)]),
        []
    );
    assert!(
        dog.measure("memory_growth")
            .is_some_and(|m| m.enough && m.value.abs() < 1.0)
    );
}

#[test]
fn failed_playbooks_need_more_than_five_runs() {
    for (failed, total, expected) in [(5, 5, false), (1, 10, false), (2, 10, true), (6, 6, true)] {
        let told = story(&mut watchdog(), 0..10, |s| {
            vec![runs(s * SECOND, failed, total)]
        });
        let raised = told == [line(2, '+', FAILURES)];
        assert_eq!(raised, expected, "{failed} of {total}: {told:?}");
    }
}

#[test]
fn a_reset_looks_at_fresh_samples_only() {
    let mut dog = watchdog();
    story(&mut dog, 0..20, |s| vec![counts(s * SECOND, 50, 100)]);
    dog.observe(&counts(19_400, 50, 100));
    assert_eq!(
        dog.reset_series(Scope::Series("error_rate"), at(19_500)),
        [ERRORS]
    );
    dog.observe(&counts(19_450, 50, 100));
    dog.observe(&counts(19_900, 0, 40));
    dog.check(at(20_000));
    let now = dog.measure("error_rate").unwrap();
    assert!(
        now.value.abs() < 1e-9 && now.samples == 40 && now.enough,
        "{now:?}"
    );
    // The same trouble again is the same anomaly anew.
    let told = story(&mut dog, 21..30, |s| vec![counts(s * SECOND, 50, 100)]);
    assert_eq!(told, [line(23, '+', ERRORS)]);
}

#[test]
fn drift_is_a_note_and_gives_way_to_the_real_thing() {
    let text = r#"{ "timestamp": "2025-11-09T19:00:00Z",
        "metrics": { "success_rate": 1.0, "avg_latency_ms": 20, "error_count": 0, "p95_latency_ms": 50 },
        "thresholds": {}, "test_results": { "tests_run": 8, "tests_passed": 8 } }"#;
    let baseline = Baseline::from_json(text).unwrap();
    let mut dog = Watchdog::new(config(), Thresholds::default(), Some(baseline));
    let told = story(&mut dog, 0..300, |s| {
        let ms = match s {
            0..100 => 40.0,
            100..200 => 900.0,
            _ => 4000.0,
        };
        vec![probe(s * SECOND, ms, None)]
    });
    let signs: Vec<_> = told.iter().map(|(_, t)| t.as_str()).collect();
    let drift = "drift/drift/latency_p95";
    assert_eq!(
        signs,
        [
            format!("+{drift}"),
            format!("-{drift}"),
            format!("+{LATENCY}")
        ],
        "{told:?}"
    );
    let anomaly = dog.active().next().unwrap();
    assert_eq!(anomaly.baseline, Some(50.0));
}

/// SAFETY 17: nothing is learned while learning is frozen.
#[test]
fn frozen_means_frozen() {
    let learned = |frozen: bool| {
        let mut dog = watchdog();
        if frozen {
            dog.freeze();
        }
        story(&mut dog, 0..100, |s| vec![probe(s * SECOND, 20.0, None)]);
        dog.unfreeze();
        let told = story(&mut dog, 100..115, |s| vec![probe(s * SECOND, 900.0, None)]);
        told.iter().any(|(_, t)| t == "+drift/drift/latency_p95")
    };
    assert!(
        learned(false),
        "an unfrozen watchdog knows what was healthy"
    );
    assert!(
        !learned(true),
        "a frozen one has learned nothing to compare with"
    );
}

/// SAFETY 11: a clock that jumps makes no evidence, but a note; and it does not lose a death.
#[test]
fn a_clock_jump_is_noted_once_and_resets_the_windows() {
    for jump in [-3600 * SECOND, 3600 * SECOND] {
        let mut dog = watchdog();
        assert_eq!(
            story(&mut dog, 0..2, |s| vec![counts(s * SECOND, 50, 100)]),
            []
        );
        dog.observe(&counts(2 * SECOND, 50, 100));
        dog.observe(&down(2 * SECOND));
        let told_at_jump = told(dog.check(at(2 * SECOND + jump)));
        assert_eq!(told_at_jump, [format!("+{DOWN}"), format!("~{TELEMETRY}")]);
        assert_eq!(dog.measure("error_rate"), None);
        assert_eq!(dog.dropped().values().sum::<u64>(), 1);
    }
    let mut dog = watchdog();
    story(&mut dog, 0..2, |s| vec![counts(s * SECOND, 50, 100)]);
    let after = story(&mut dog, 3600..3610, |s| vec![counts(s * SECOND, 0, 100)]);
    assert_eq!(
        after,
        [line(3600, '+', TELEMETRY), line(3602, '-', TELEMETRY)]
    );
}

#[test]
fn waiting_samples_are_bounded_and_the_oldest_go_first() {
    let mut dog = watchdog();
    for i in 0..10_000 {
        dog.observe(&counts(i, 0, 1));
    }
    dog.check(at(10_000));
    assert_eq!(dog.measure("error_rate").unwrap().samples, 4096);
    assert_eq!(dog.dropped().values().sum::<u64>(), 10_000 - 4096);
}
