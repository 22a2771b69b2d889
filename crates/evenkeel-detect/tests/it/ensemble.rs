//! The drift ensemble from outside: faults of telemetry say nothing, real ones are said, and the promise is kept.

use evenkeel_detect::ensemble::{Ensemble, Evidence, Score};
use proptest::prelude::*;

const MINUTE_MS: i64 = 60_000;
const STEP_MS: i64 = 5 * MINUTE_MS;
const DAY_POINTS: i64 = 288;
/// An anomaly that a healthy series reaches about once a month.
const CALL: f64 = 0.64;

/// Splitmix64: numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// 0 to 1, both excluded.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn gauss(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A healthy series: a daily wave with noise.
fn healthy(seed: u64, points: i64) -> Vec<(i64, f64)> {
    let mut numbers = Numbers(seed);
    (0..points)
        .map(|i| {
            let day = (i as f64 / DAY_POINTS as f64 * std::f64::consts::TAU).sin();
            (i * STEP_MS, 200.0 + 80.0 * day + 10.0 * numbers.gauss())
        })
        .collect()
}

fn sane(score: &Score) -> bool {
    (0.0..=1.0).contains(&score.anomaly)
        && (0.0..=1.0).contains(&score.tail)
        && score.expected.is_finite()
        && score.low <= score.expected
        && score.expected <= score.high
        && score.high.is_finite()
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e3..1e3,
        2 => Just(0.0),
        2 => Just(7.0),
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::MAX),
        1 => Just(f64::MIN_POSITIVE),
        1 => 1e-300..1e-290,
    ]
}

fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        10 => Just(STEP_MS),
        1 => Just(0),
        1 => -100_000_000_i64..100_000_000,
        1 => Just(i64::MAX),
        1 => Just(i64::MIN),
        1 => Just(1),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_comes_the_answer_is_sane(
        stream in prop::collection::vec((any_step(), any_value()), 0..400)
    ) {
        let mut ensemble = Ensemble::new();
        let mut at = 0_i64;
        for (step, value) in stream {
            at = at.wrapping_add(step);
            let judged = ensemble.judge(at, value);
            prop_assert!(sane(&judged), "judged {judged:?} at {at} for {value}");
            let pushed = ensemble.push(at, value);
            prop_assert!(sane(&pushed), "pushed {pushed:?} at {at} for {value}");
        }
    }

    /// SAFETY 11: not a number, twice, or late is as if it had never come.
    #[test]
    fn broken_points_change_nothing(
        seed in any::<u64>(),
        faults in prop::collection::vec((0_usize..600, 0_u8..4, -1e6..1e6), 1..60),
    ) {
        let mut clean = Ensemble::new();
        let mut faulty = Ensemble::new();
        for (i, (at, value)) in healthy(seed, 600).into_iter().enumerate() {
            let expected = clean.push(at, value);
            prop_assert_eq!(expected, faulty.push(at, value));
            for (_, kind, odd) in faults.iter().filter(|fault| fault.0 == i) {
                let said = match kind {
                    0 => faulty.push(at + 1, f64::NAN),
                    1 => faulty.push(at + 1, f64::INFINITY),
                    2 => faulty.push(at, *odd),
                    _ => faulty.push(at - 2 * STEP_MS, *odd),
                };
                prop_assert!(said.anomaly <= 0.0 && said.evidence == Evidence::None);
            }
        }
        prop_assert_eq!(clean.points(), faulty.points());
    }

    #[test]
    fn state_survives_being_written_down(seed in any::<u64>(), points in 1_i64..400) {
        let mut ensemble = Ensemble::new();
        for (at, value) in healthy(seed, points) {
            ensemble.push(at, value);
        }
        let text = serde_json::to_string(&ensemble).unwrap();
        let mut back: Ensemble = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&back, &ensemble);
        prop_assert_eq!(back.push(points * STEP_MS, 900.0), ensemble.push(points * STEP_MS, 900.0));
    }
}

#[test]
fn a_series_takes_no_more_than_it_may() {
    assert!(size_of::<Ensemble>() <= 2560, "{}", size_of::<Ensemble>());
}

/// SAFETY 11: what is missing is not evidence. The wave goes on unseen, and the first value after the gap is far
/// from the last one before it.
#[test]
fn gaps_alone_raise_nothing() {
    for seed in 0..40_u32 {
        let mut numbers = Numbers(u64::from(seed) + 1000);
        let mut ensemble = Ensemble::new();
        let begin = 10 * DAY_POINTS + i64::from(seed) * 7;
        let end = begin + 30 + i64::from(seed % 8) * 15;
        for i in 0..end + 24 {
            if (begin..end).contains(&i) {
                continue;
            }
            let day = (i as f64 / DAY_POINTS as f64 * std::f64::consts::TAU).sin();
            let value = 200.0 + 80.0 * day + 0.5 * numbers.gauss();
            let score = ensemble.push(i * STEP_MS, value);
            if i >= end {
                assert!(
                    score.anomaly < CALL,
                    "seed {seed}, {} after the gap: {score:?}",
                    i - end
                );
            }
        }
    }
}

#[test]
fn a_constant_says_nothing_until_it_moves() {
    let mut ensemble = Ensemble::new();
    for i in 0..2000 {
        assert!(ensemble.push(i * STEP_MS, 45.0).anomaly < 0.5);
    }
    assert!(ensemble.push(2000 * STEP_MS, 45.000_001).anomaly < 0.5);
    assert!(ensemble.push(2001 * STEP_MS, 90.0).anomaly > CALL);
}

#[test]
fn a_clock_that_was_set_back_is_believed_after_a_while() {
    let mut ensemble = Ensemble::new();
    let year_ms = 365 * 86_400_000;
    for (at, value) in healthy(1, 1000) {
        ensemble.push(at + year_ms, value);
    }
    let before = ensemble.points();
    for (at, value) in healthy(2, 100) {
        assert!(ensemble.push(at, value).anomaly < 0.72);
    }
    assert_eq!(ensemble.points(), before + 81);
}

#[test]
fn real_faults_are_said_and_named() {
    type Fault = fn(i64, f64) -> f64;
    let faults: [(&str, Fault, &[Evidence]); 3] = [
        (
            "one value, twice as high as ever",
            |i, value| if i == 0 { 600.0 } else { value },
            &[Evidence::Point, Evidence::Range, Evidence::Season],
        ),
        (
            "doubled for good",
            |_, value| 2.0 * value,
            &[
                Evidence::Point,
                Evidence::Range,
                Evidence::Season,
                Evidence::Shift,
            ],
        ),
        (
            "night at noon",
            |_, value| 400.0 - value,
            &[
                Evidence::Point,
                Evidence::Season,
                Evidence::Context,
                Evidence::Range,
            ],
        ),
    ];
    for (name, fault, evidence) in faults {
        for seed in 0..10 {
            let mut ensemble = Ensemble::new();
            let quiet = 14 * DAY_POINTS + DAY_POINTS / 4;
            let mut best: Option<Score> = None;
            for (i, (at, value)) in (0..).zip(healthy(seed, quiet + 12)) {
                let score = ensemble.push(
                    at,
                    if i < quiet {
                        value
                    } else {
                        fault(i - quiet, value)
                    },
                );
                if i >= quiet && best.is_none_or(|best| score.anomaly > best.anomaly) {
                    best = Some(score);
                }
            }
            let best = best.unwrap();
            assert!(best.anomaly > CALL, "{name}, seed {seed}: {best:?}");
            assert!(best.tail * 8640.0 < 1.0, "{name}, seed {seed}: {best:?}");
            assert!(
                evidence.contains(&best.evidence),
                "{name}, seed {seed}: {best:?}"
            );
        }
    }
}

#[test]
fn judging_learns_nothing_and_is_not_damped() {
    let mut ensemble = Ensemble::new();
    for (at, value) in healthy(3, 14 * DAY_POINTS) {
        ensemble.push(at, value);
    }
    let before = ensemble.clone();
    for i in 0..50 {
        let at = (14 * DAY_POINTS + i) * STEP_MS;
        assert!(ensemble.judge(at, 900.0).anomaly > CALL, "{i}");
    }
    assert_eq!(before, ensemble);
}

#[test]
fn what_stands_is_news_once_and_strong_while_it_stands() {
    let mut ensemble = Ensemble::new();
    for (at, value) in healthy(5, 14 * DAY_POINTS) {
        ensemble.push(at, value);
    }
    let scores: Vec<Score> = (0..6)
        .map(|i| ensemble.push((14 * DAY_POINTS + i) * STEP_MS, 600.0))
        .collect();
    assert!(scores[0].anomaly > CALL && scores[0].strength >= scores[0].anomaly);
    assert!(
        scores[5].anomaly < 0.5 && scores[5].strength > CALL,
        "{scores:?}"
    );
}

#[test]
fn the_band_holds_what_is_usual() {
    let mut ensemble = Ensemble::new();
    let (mut inside, mut all) = (0_u32, 0_u32);
    for (i, (at, value)) in (0_i64..).zip(healthy(4, 30 * DAY_POINTS)) {
        let score = ensemble.push(at, value);
        if i > 5 * DAY_POINTS {
            all += 1;
            inside += u32::from(value >= score.low && value <= score.high);
        }
    }
    let share = f64::from(inside) / f64::from(all);
    assert!((0.90..0.98).contains(&share), "{share}");
}

/// At one alarm a series-month, 240 series-months of four kinds of healthy noise raise about as many as promised.
/// The bench measures this over many more, kind by kind.
#[test]
fn the_promise_is_kept() {
    let months = 3;
    let series = 20;
    let mut alarms = 0_u32;
    for kind in 0..4 {
        for seed in 0..series {
            let mut numbers = Numbers(seed * 100 + kind);
            let mut ensemble = Ensemble::new();
            let (mut level, mut last) = (0.0, -100_i64);
            for i in 0..months * 30 * 24 {
                let day = (i as f64 / 24.0 * std::f64::consts::TAU).sin();
                let noise = numbers.gauss();
                level = 0.9 * level + noise;
                let value = match kind {
                    0 => 100.0 + 10.0 * noise,
                    1 => 100.0 + 5.0 * level,
                    2 => 200.0 + 80.0 * day + 10.0 * noise,
                    _ => (4.0 + 0.7 * day + 0.25 * noise).exp(),
                };
                let score = ensemble.push(i * 60 * MINUTE_MS, value);
                if i > 30 * 24 && score.tail * 720.0 <= 1.0 {
                    alarms += u32::from(i - last > 12);
                    last = i;
                }
            }
        }
    }
    let promised = f64::from(4 * 20 * 2);
    let ratio = f64::from(alarms) / promised;
    assert!((0.3..1.5).contains(&ratio), "{ratio}");
}
