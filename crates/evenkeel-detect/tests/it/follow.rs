//! Followed series: budget, incidents, freezing, deploys, state, and telemetry that cannot be true.

use evenkeel_core::anomaly::AnomalyType;
use evenkeel_core::time::Timestamp;
use evenkeel_detect::follow::{Follow, FollowConfig, Kind, Point};
use evenkeel_detect::verdict::Verdict;
use proptest::prelude::*;

const MINUTE: i64 = 60_000;

/// A small generator, so that every run sees the same noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, by twelve uniforms.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + minute * MINUTE)
}

struct Bench {
    follow: Follow,
    noise: Noise,
    minute: i64,
    verdicts: Vec<Verdict>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self {
            // So little is left to chance that whatever is raised has a cause.
            follow: Follow::new(FollowConfig {
                notify_alarms_per_month: 0.05,
                heal_alarms_per_month: 0.01,
                ..FollowConfig::default()
            }),
            noise: Noise(seed),
            minute: 0,
            verdicts: Vec::new(),
        }
    }

    fn put(&mut self, series: &str, kind: Kind, value: f64) {
        let point = Point {
            series,
            service: Some("api"),
            kind,
            at: at(self.minute),
            value,
            n: None,
            silent: false,
        };
        self.follow.observe(&point, at(self.minute));
    }

    /// `minutes` of every series at its level with noise of 5 %.
    fn run(&mut self, minutes: i64, series: &[(&str, Kind, f64)]) {
        for _ in 0..minutes {
            for (name, kind, level) in series {
                let value = level * (1.0 + 0.05 * self.noise.normal());
                self.put(name, *kind, value);
            }
            self.verdicts
                .extend(self.follow.check(at(self.minute), None, false));
            self.minute += 1;
        }
    }

    fn raised(&self) -> Vec<String> {
        self.verdicts
            .iter()
            .filter_map(|v| match v {
                Verdict::Raised(a) => Some(a.key()),
                _ => None,
            })
            .collect()
    }
}

const LATENCY: (&str, Kind, f64) = ("latency", Kind::Latency, 100.0);

#[test]
fn a_shift_is_raised_once_in_words_and_cleared_when_it_is_over() {
    let mut bench = Bench::new(1);
    bench.run(2000, &[LATENCY]);
    assert_eq!(bench.raised(), Vec::<String>::new(), "a quiet series");
    bench.run(10, &[("latency", Kind::Latency, 300.0)]);
    assert_eq!(bench.raised(), ["drift/latency"]);
    let raised = bench.verdicts.iter().find_map(|v| match v {
        Verdict::Raised(a) => Some(a.clone()),
        _ => None,
    });
    let raised = raised.unwrap();
    assert!(raised.details.contains("latency is"), "{}", raised.details);
    assert!(raised.details.contains("usual is"), "{}", raised.details);
    assert!(
        raised.context["plot"]
            .as_array()
            .is_some_and(|p| p.len() > 20)
    );
    bench.run(30, &[LATENCY]);
    assert!(
        matches!(bench.verdicts.iter().rfind(|v| !matches!(v, Verdict::Continues { .. })),
            Some(Verdict::Cleared { key, .. }) if key == "drift/latency"),
        "{:?}",
        bench.verdicts.last()
    );
}

#[test]
fn series_that_leave_together_are_one_incident_the_first_named_first() {
    let mut bench = Bench::new(2);
    let usual = [
        ("db_wait", Kind::Latency, 10.0),
        ("latency", Kind::Latency, 100.0),
        ("queue", Kind::Gauge, 50.0),
    ];
    bench.run(8000, &usual);
    bench.run(5, &[("db_wait", Kind::Latency, 80.0), usual[1], usual[2]]);
    bench.run(
        8,
        &[
            ("db_wait", Kind::Latency, 80.0),
            ("latency", Kind::Latency, 900.0),
            ("queue", Kind::Gauge, 500.0),
        ],
    );
    assert_eq!(bench.raised(), ["drift/db_wait"]);
    let active: Vec<_> = bench.follow.active().collect();
    let with = active[0].context["together_with"].as_array().unwrap();
    assert_eq!(
        with.len(),
        2,
        "{with:?} {:#?}",
        bench.follow.standings().collect::<Vec<_>>()
    );
}

/// SAFETY 17
#[test]
fn nothing_is_learned_while_frozen_or_in_an_alarm_and_errors_never_become_usual() {
    let mut bench = Bench::new(3);
    let errors = |level| {
        [
            ("errors", Kind::Errors, level),
            ("load", Kind::Gauge, 100.0),
        ]
    };
    bench.run(2000, &errors(0.01));
    bench.run(10, &errors(0.2));
    assert_eq!(bench.raised(), ["drift/errors"]);
    // Two days later it still stands: no level of errors is adopted.
    bench.run(2 * 1440, &errors(0.2));
    assert!(bench.follow.standing("errors").unwrap().alarmed);
    assert!(bench.follow.standing("errors").unwrap().high < 0.1);
    // A deploy does not excuse them; a person's word does.
    bench.follow.deployed(None, at(bench.minute));
    assert!(bench.follow.standing("errors").unwrap().learned);
    assert_eq!(bench.follow.relearn(Some("errors"), at(bench.minute)), 1);
    assert!(!bench.follow.standing("errors").unwrap().alarmed);
    assert_eq!(
        bench.follow.relearn(Some("errors"), at(bench.minute)),
        0,
        "said once"
    );
}

/// SAFETY 17
#[test]
fn a_level_that_stays_becomes_usual_only_without_other_trouble() {
    for trouble in [false, true] {
        let mut bench = Bench::new(4);
        bench.run(2000, &[("queue", Kind::Gauge, 50.0)]);
        bench.run(10, &[("queue", Kind::Gauge, 200.0)]);
        assert_eq!(bench.raised(), ["drift/queue"]);
        for _ in 0..1500 {
            let value = 200.0 * (1.0 + 0.05 * bench.noise.normal());
            bench.put("queue", Kind::Gauge, value);
            bench.follow.check(at(bench.minute), None, trouble);
            bench.minute += 1;
        }
        assert_eq!(bench.follow.standing("queue").unwrap().alarmed, trouble);
    }
}

/// SAFETY 2
#[test]
fn after_a_deploy_a_new_level_is_no_alarm_but_errors_are() {
    let mut bench = Bench::new(5);
    let usual = [
        ("latency", Kind::Latency, 100.0),
        ("errors", Kind::Errors, 0.01),
    ];
    bench.run(2000, &usual);
    assert!(bench.follow.deployed(Some("api"), at(bench.minute)));
    assert!(
        !bench.follow.deployed(Some("api"), at(bench.minute)),
        "counts once"
    );
    bench.run(
        200,
        &[
            ("latency", Kind::Latency, 160.0),
            ("errors", Kind::Errors, 0.01),
        ],
    );
    assert_eq!(bench.raised(), Vec::<String>::new());
    bench.follow.deployed(Some("api"), at(bench.minute));
    bench.run(
        10,
        &[
            ("latency", Kind::Latency, 160.0),
            ("errors", Kind::Errors, 0.3),
        ],
    );
    assert_eq!(bench.raised(), ["drift/errors"]);
}

#[test]
fn what_explains_it_keeps_it_quiet() {
    let mut bench = Bench::new(6);
    bench.run(2000, &[LATENCY]);
    for _ in 0..5 {
        bench.put("latency", Kind::Latency, 900.0);
        let verdicts = bench
            .follow
            .check(at(bench.minute), Some("target_down/api"), true);
        bench.verdicts.extend(verdicts);
        bench.minute += 1;
    }
    assert_eq!(bench.raised(), Vec::<String>::new());
    let said = bench
        .verdicts
        .iter()
        .filter(|v| matches!(v, Verdict::Suppressed { .. }));
    assert_eq!(said.count(), 1);
}

#[test]
fn what_was_learned_survives_a_restart_and_damage_is_noticed() {
    let mut bench = Bench::new(7);
    bench.run(1000, &[LATENCY, ("queue", Kind::Gauge, 50.0)]);
    let bytes = bench.follow.to_bytes();
    assert!(bytes.len() < 2 * 4096, "{} bytes", bytes.len());
    let mut again = Follow::from_bytes(&bytes, FollowConfig::default()).unwrap();
    assert_eq!(again.len(), 2);
    assert_eq!(again.standing("latency"), bench.follow.standing("latency"));
    // It goes on exactly as if nothing had been in between.
    for value in [101.0, 99.0, 350.0, 360.0] {
        for follow in [&mut again, &mut bench.follow] {
            let point = Point {
                series: "latency",
                service: Some("api"),
                kind: Kind::Latency,
                at: at(bench.minute),
                value,
                n: None,
                silent: false,
            };
            follow.observe(&point, at(bench.minute));
            follow.check(at(bench.minute), None, false);
        }
        bench.minute += 1;
    }
    assert_eq!(again.standing("latency"), bench.follow.standing("latency"));
    for cut in [0, 4, 19, bytes.len() - 1] {
        assert!(Follow::from_bytes(&bytes[..cut], FollowConfig::default()).is_err());
    }
    for place in (0..bytes.len()).step_by(97) {
        let mut broken = bytes.clone();
        broken[place] ^= 0x10;
        assert!(
            Follow::from_bytes(&broken, FollowConfig::default()).is_err(),
            "byte {place}"
        );
    }
    let few = FollowConfig {
        series_max: 1,
        ..FollowConfig::default()
    };
    assert_eq!(Follow::from_bytes(&bytes, few).unwrap().len(), 1);
}

/// Failures are counted: the same share says little of a few requests and much of many.
#[test]
fn a_share_of_failures_is_tested_as_a_count() {
    for (requests, raised) in [(15, 0), (40, 0), (4000, 1)] {
        let mut bench = Bench::new(9);
        for minute in 0..1010 {
            let share = if minute < 1000 { 0.01 } else { 0.05 };
            let failures = (f64::from(requests) * share + bench.noise.next()).floor();
            let point = Point {
                series: "errors",
                service: None,
                kind: Kind::Errors,
                at: at(bench.minute),
                value: failures / f64::from(requests),
                n: Some(u64::try_from(requests).unwrap()),
                silent: false,
            };
            bench.follow.observe(&point, at(bench.minute));
            let verdicts = bench.follow.check(at(bench.minute), None, false);
            bench.verdicts.extend(verdicts);
            bench.minute += 1;
        }
        assert_eq!(bench.raised().len(), raised, "{requests} requests a minute");
    }
}

#[test]
fn a_series_that_always_moved_and_stands_still_is_a_flat_line() {
    let mut bench = Bench::new(8);
    bench.follow = Follow::new(FollowConfig {
        notify_alarms_per_month: 1e-6,
        heal_alarms_per_month: 1e-6,
        ..FollowConfig::default()
    });
    bench.run(3000, &[("queue", Kind::Gauge, 50.0)]);
    for _ in 0..120 {
        bench.put("queue", Kind::Gauge, 51.0);
        let verdicts = bench.follow.check(at(bench.minute), None, false);
        bench.verdicts.extend(verdicts);
        bench.minute += 1;
    }
    assert_eq!(bench.raised(), [format!("{}/queue", AnomalyType::FLATLINE)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// SAFETY 11: whatever is wrong with the telemetry alone raises nothing and breaks nothing.
    #[test]
    fn telemetry_that_cannot_be_true_raises_nothing(
        seed in any::<u64>(),
        faults in prop::collection::vec((0..1500_i64, 0..7_u8), 0..60),
    ) {
        let mut bench = Bench::new(seed);
        // So little is left to chance that whatever is raised comes from the faults.
        bench.follow = Follow::new(FollowConfig {
            notify_alarms_per_month: 1e-6,
            heal_alarms_per_month: 1e-6,
            ..FollowConfig::default()
        });
        bench.run(1200, &[LATENCY]);
        let before = bench.raised().len();
        prop_assert_eq!(before, 0);
        let begin = bench.minute;
        for _ in 0..1500 {
            let offset = bench.minute - begin;
            let fault = faults.iter().find(|(m, _)| *m == offset).map(|(_, f)| *f);
            let value = 100.0 * (1.0 + 0.05 * bench.noise.normal());
            let (moment, value, skip) = match fault {
                Some(0) => (bench.minute, f64::NAN, false),
                Some(1) => (bench.minute, f64::INFINITY, false),
                Some(2) => (bench.minute - 5, value, false),
                Some(3) => (bench.minute + 30, 1e9, false),
                Some(4) => (bench.minute - 60, 1e9, false),
                Some(5) => (bench.minute, value, true),
                _ => (bench.minute, value, false),
            };
            if !skip {
                for _ in 0..=i64::from(fault == Some(6)) {
                    let point = Point {
                        series: "latency",
                        service: None,
                        kind: Kind::Latency,
                        at: at(moment),
                        value,
                        n: None,
                        silent: false,
                    };
                    bench.follow.observe(&point, at(bench.minute));
                }
            }
            let verdicts = bench.follow.check(at(bench.minute), None, false);
            bench.verdicts.extend(verdicts);
            bench.minute += 1;
        }
        prop_assert_eq!(bench.raised(), Vec::<String>::new());
    }

    #[test]
    fn any_values_at_any_times_never_panic(
        points in prop::collection::vec((any::<i32>(), any::<f64>(), 0..4_u8), 0..300),
    ) {
        let mut follow = Follow::new(FollowConfig { series_max: 3, ..FollowConfig::default() });
        for (minute, value, series) in points {
            let name = format!("s{series}");
            let now = at(i64::from(minute));
            let point = Point { series: &name, service: None, kind: Kind::Gauge, at: now, value, n: None, silent: false };
            follow.observe(&point, now);
            for verdict in follow.check(now, None, false) {
                if let Verdict::Raised(a) = verdict {
                    prop_assert!(a.current.is_finite() && a.threshold.is_finite());
                }
            }
        }
        prop_assert!(follow.len() <= 3);
    }
}
