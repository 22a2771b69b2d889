//! Broken telemetry is never a reason to act (SAFETY 11).

use evenkeel_core::time::Timestamp;
use evenkeel_detect::{ProbeError, Sample, SampleValue, SeriesId, Verdict};
use proptest::prelude::*;

use crate::support::*;

/// What may be wrong with one second of telemetry.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    NotANumber,
    Infinite,
    Negative,
    Absurd,
    Contradiction,
    /// All samples of the second come several times, some of them a second later.
    Twice,
    /// They come in the wrong order, together with those of the second before.
    Disordered,
    /// They are lost.
    Lost,
    /// They are reported missing.
    Missing,
    /// Their time is elsewhere.
    Warped(i64),
    /// From here on the clock is set by this much, for samples and checks.
    Step(i64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::NotANumber),
        1 => Just(Fault::Infinite),
        1 => Just(Fault::Negative),
        1 => Just(Fault::Absurd),
        1 => Just(Fault::Contradiction),
        2 => Just(Fault::Twice),
        2 => Just(Fault::Disordered),
        1 => Just(Fault::Lost),
        1 => Just(Fault::Missing),
        1 => (-100_000_000_i64..100_000_000).prop_map(Fault::Warped),
        1 => prop_oneof![-100_000_i64..100_000, Just(i64::MIN), Just(i64::MAX)].prop_map(Fault::Step),
    ]
}

/// A healthy second: now and then one refused probe, one that timed out, a slow answer, an error. Any of them told
/// three times over would be an incident.
fn healthy(ms: i64, second: i64) -> Vec<Sample> {
    let (latency, error) = match second % 40 {
        7 => (0.0, Some(ProbeError::Refused)),
        17 => (5000.0, Some(ProbeError::Timeout)),
        27 => (2500.0, None),
        _ => (12.0, None),
    };
    vec![
        probe(ms, latency, error),
        counts(ms, u64::from(second % 10 == 3) * 3, 100),
        memory(ms, 1, 200 + (second.unsigned_abs() * 7919) % 15),
        runs(ms, 1, 10),
        sample(
            "histogram",
            ms,
            SampleValue::LatencyQuantile {
                p95_ms: 80.0,
                n: 100,
            },
        ),
    ]
}

fn broken(samples: &mut [Sample], latency: f64) {
    for sample in samples {
        match &mut sample.value {
            SampleValue::Probe { latency_ms, .. } => *latency_ms = latency,
            SampleValue::LatencyQuantile { p95_ms, .. } => *p95_ms = latency,
            _ => {}
        }
    }
}

fn absurd(samples: &mut [Sample], contradiction: bool) {
    for sample in samples {
        match &mut sample.value {
            SampleValue::Probe { latency_ms, .. } => *latency_ms = 1e300,
            SampleValue::LatencyQuantile { p95_ms, .. } => *p95_ms = 1e300,
            SampleValue::Counts { errors, total } => {
                *errors = u64::MAX;
                *total = if contradiction { 1 } else { u64::MAX };
            }
            SampleValue::PlaybookRuns { failed, total } => {
                *failed = u64::MAX;
                *total = if contradiction { 7 } else { u64::MAX };
            }
            SampleValue::Memory { rss_bytes, .. } => {
                *rss_bytes = if contradiction { 0 } else { u64::MAX }
            }
            _ => {}
        }
    }
}

fn acts(faults: &[Fault]) -> Vec<String> {
    let mut dog = watchdog();
    let mut clock: i64 = 0;
    let mut late: Vec<Sample> = Vec::new();
    let mut acts = Vec::new();
    for (second, fault) in (0..).zip(faults) {
        clock = clock.saturating_add(SECOND);
        if let Fault::Step(by) = fault {
            clock = clock.saturating_add(*by).clamp(-START, i64::MAX - START);
        }
        let mut samples = healthy(clock, second);
        samples.splice(0..0, std::mem::take(&mut late));
        match fault {
            Fault::None | Fault::Step(_) => {}
            Fault::NotANumber => broken(&mut samples, f64::NAN),
            Fault::Infinite => broken(&mut samples, f64::INFINITY),
            Fault::Negative => broken(&mut samples, -1.0),
            Fault::Absurd => absurd(&mut samples, false),
            Fault::Contradiction => absurd(&mut samples, true),
            Fault::Twice => {
                late.clone_from(&samples);
                samples = [samples.clone(), samples.clone(), samples].concat();
            }
            Fault::Disordered => {
                late = samples.split_off(samples.len() / 2);
                samples.reverse();
            }
            Fault::Lost => samples.clear(),
            Fault::Missing => {
                for sample in &mut samples {
                    sample.value = SampleValue::Missing {
                        reason: "connection refused".into(),
                    };
                }
            }
            Fault::Warped(by) => {
                for sample in &mut samples {
                    sample.at = sample.at.plus_millis(*by);
                }
            }
        }
        for sample in &samples {
            dog.observe(sample);
        }
        for verdict in dog.check(at(clock)) {
            if let Verdict::Raised(anomaly) = verdict
                && !["drift", "telemetry_missing"].contains(&anomaly.kind.as_str())
            {
                acts.push(format!(
                    "second {second}: {} ({})",
                    anomaly.key(),
                    anomaly.details
                ));
            }
        }
    }
    acts
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let number = prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        0.0..10_000.0
    ];
    let value = prop_oneof![
        (number.clone(), any::<bool>(), any::<bool>()).prop_map(|(latency_ms, ok, refused)| {
            SampleValue::Probe {
                service: None,
                endpoint: "x".into(),
                ok,
                latency_ms,
                error: refused.then_some(ProbeError::Refused),
            }
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(errors, total)| SampleValue::Counts { errors, total }),
        (0_u64..50, 0_u64..50).prop_map(|(errors, total)| SampleValue::Counts { errors, total }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(failed, total)| SampleValue::PlaybookRuns { failed, total }),
        (0_u64..2, any::<u64>()).prop_map(|(process, rss_bytes)| SampleValue::Memory {
            service: None,
            process,
            rss_bytes
        }),
        (number, any::<u64>()).prop_map(|(p95_ms, n)| SampleValue::LatencyQuantile { p95_ms, n }),
        Just(SampleValue::ServiceUp {
            service: "api".into()
        }),
        Just(SampleValue::ServiceDown {
            service: "api".into(),
            detail: "gone".into()
        }),
        Just(SampleValue::Missing {
            reason: "gone".into()
        }),
    ];
    (any::<i64>(), 0..5_u8, value).prop_map(|(ms, series, value)| Sample {
        at: Timestamp::from_millis(ms),
        series: SeriesId::new(format!("s{series}")).expect("a short name"),
        value,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// SAFETY 11: NaN, infinite, negative, absurd, contradictory, repeated, disordered, lost, missing and time-warped
    /// samples, and a clock that steps, never raise anything that may be acted on.
    #[test]
    fn broken_telemetry_never_acts(faults in prop::collection::vec(fault(), 1..150)) {
        prop_assert_eq!(acts(&faults), Vec::<String>::new());
    }

    /// Whatever comes, whenever: no panic, no figure that is not a number, and every verdict fits what stands.
    #[test]
    fn nothing_that_comes_breaks_it(
        rounds in prop::collection::vec((any::<i64>(), prop::collection::vec(any_sample(), 0..8)), 1..60),
        near in any::<bool>(),
    ) {
        let mut dog = watchdog();
        let mut standing = std::collections::BTreeSet::new();
        for (i, (ms, samples)) in (0_i64..).zip(rounds) {
            let now = if near { at(i * SECOND) } else { Timestamp::from_millis(ms) };
            for mut sample in samples {
                if near {
                    sample.at = now.plus_millis(-(ms.rem_euclid(2000)));
                }
                dog.observe(&sample);
            }
            for verdict in dog.check(now) {
                match verdict {
                    Verdict::Raised(anomaly) => {
                        prop_assert!(anomaly.current.is_finite() && anomaly.threshold.is_finite());
                        prop_assert!(standing.insert(anomaly.key()), "raised twice: {}", anomaly.key());
                    }
                    Verdict::Continues { key } => prop_assert!(standing.contains(&key)),
                    Verdict::Cleared { key, .. } => prop_assert!(standing.remove(&key)),
                    Verdict::Suppressed { key, .. } => prop_assert!(!standing.contains(&key)),
                }
            }
            let active: std::collections::BTreeSet<_> = dog.active().map(evenkeel_core::Anomaly::key).collect();
            prop_assert_eq!(&active, &standing);
        }
    }
}

/// The faults above stand on ground that would show: the same stream with real trouble is acted on.
#[test]
fn the_same_stream_with_real_trouble_is_acted_on() {
    assert_eq!(acts(&[Fault::None; 400]), Vec::<String>::new());
    let mut dog = watchdog();
    let told = story(&mut dog, 0..60, |s| {
        let mut samples = healthy(s * SECOND, s);
        samples[0] = probe(s * SECOND, 5000.0, Some(ProbeError::Timeout));
        samples
    });
    assert!(
        told.iter().any(|(_, t)| t == "+target_hung/liveness/api"),
        "{told:?}"
    );
}
