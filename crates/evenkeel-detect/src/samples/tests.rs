//! What the test and its interval promise is measured here: agreement with hand-worked values, coverage, false alarms.

use proptest::prelude::*;

use super::*;
use crate::draws::Draws;

impl Draws {
    /// A tail as latencies have it.
    fn skewed(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| (1.0 - self.unit()).powf(-0.4)).collect()
    }

    /// A first-order autoregression.
    fn correlated(&mut self, n: usize, r: f64) -> Vec<f64> {
        let mut value = self.normal();
        let noise = (1.0 - r * r).sqrt();
        (0..n)
            .map(|_| {
                value = r * value + noise * self.normal();
                value
            })
            .collect()
    }
}

/// Worked out by hand from the 64 differences of 1..=8 and 3.5..=10.5: all lie on a grid, their median is 2.5; with a
/// z of 1.96 and a deviation of 9.522 the rank is 13, and the 13th of the ordered differences is -0.5.
#[test]
fn a_small_case_agrees_with_pencil_and_paper() {
    let old: Vec<f64> = (1..=8).map(f64::from).collect();
    let new: Vec<f64> = old.iter().map(|v| v + 2.5).collect();
    let found = shift(&old, &new, 0.95, 1.0).unwrap();
    assert!((found.by - 2.5).abs() < 1e-12, "{found:?}");
    // Differences are 2.5 + d, d from -7 to 7, 8 - |d| times each: up to -4 there are 10 of them, up to -3 there are 15.
    assert!((found.low + 0.5).abs() < 1e-12, "{found:?}");
    assert!((found.high - 5.5).abs() < 1e-12, "{found:?}");
    // U counts the pairs with 2.5 + d > 0: d from -2, all but 15.
    let z = (49.0 - 32.0 - 0.5) / (64.0_f64 * 17.0 / 12.0).sqrt();
    assert!((found.p_value - 2.0 * upper_tail(z)).abs() < 1e-9);
}

#[test]
fn too_little_says_nothing_and_too_much_is_thinned() {
    let many: Vec<f64> = (0..5000).map(f64::from).collect();
    assert_eq!(shift(&many[..SAMPLE_MIN - 1], &many[..50], 0.95, 1.0), None);
    assert_eq!(shift(&[f64::NAN; 50], &many[..50], 0.95, 1.0), None);
    assert_eq!(shift(&[], &[], 0.95, 1.0), None);
    // Ten values whose variance is thirty times as large are worth less than one, however far apart they lie.
    let found = shift(&many[..10], &many[1_000..1_010], 0.95, 30.0).unwrap();
    assert!(!found.confident && found.p_value > 0.05, "{found:?}");
    assert_eq!((found.low, found.high), (991.0, 1_009.0));
    let found = shift(&many, &many, 0.95, 1.0).unwrap();
    assert_eq!((found.sizes, found.thinned), ((512, 512), true));
    assert!(found.by.abs() < 1e-9 && found.low < 0.0 && found.high > 0.0);
    let all_equal = shift(&[1.0; 20], &[1.0; 20], 0.95, 1.0).unwrap();
    assert!((all_equal.p_value - 1.0).abs() < 1e-12 && all_equal.by.abs() < 1e-12);
}

/// How often the interval holds the true shift, and how often the test cries wolf, for independent skewed values.
#[test]
fn the_interval_covers_and_the_test_keeps_its_level() {
    let mut draws = Draws(11);
    for (m, n) in [(8, 8), (10, 30), (30, 30)] {
        let (mut covered, mut alarms) = (0, 0);
        let rounds = 4_000;
        for _ in 0..rounds {
            let old = draws.skewed(m);
            let new: Vec<f64> = draws.skewed(n).iter().map(|v| v + 0.3).collect();
            let found = shift(&old, &new, 0.95, 1.0).unwrap();
            covered += u32::from(found.low <= 0.3 && 0.3 <= found.high);
            let same: Vec<f64> = new.iter().map(|v| v - 0.3).collect();
            let none = shift(&old, &same, 0.95, 1.0).unwrap();
            alarms += u32::from(none.p_value < 0.05);
        }
        let covered = f64::from(covered) / f64::from(rounds);
        let alarms = f64::from(alarms) / f64::from(rounds);
        // Four standard errors below the nominal level; above it only by as much as few ranks make it cautious.
        assert!((0.936..=0.975).contains(&covered), "{m} {n}: {covered}");
        assert!((0.025..=0.064).contains(&alarms), "{m} {n}: {alarms}");
    }
}

/// Neighbours that resemble each other: without the inflation the level of 1 % is missed by far, with it nearly kept.
#[test]
fn correlated_values_are_not_taken_for_independent_ones() {
    let mut draws = Draws(5);
    let rounds = 2_000;
    for (r, n, at_most) in [
        (0.0, 30, 0.02),
        (0.3, 30, 0.025),
        (0.6, 30, 0.045),
        (0.6, 100, 0.03),
    ] {
        let (mut naive, mut careful) = (0, 0);
        for _ in 0..rounds {
            let (a, b) = (draws.correlated(n, r), draws.correlated(n, r));
            let larger = inflation(&[&a, &b]);
            let alarm = |i| shift(&a, &b, 0.99, i).is_some_and(|s| s.p_value < 0.01);
            naive += u32::from(alarm(1.0));
            careful += u32::from(alarm(larger));
        }
        let share = |k: u32| f64::from(k) / f64::from(rounds);
        assert!(share(careful) <= at_most, "{r} {n}: {}", share(careful));
        if r > 0.5 {
            assert!(share(naive) > 0.1, "{r} {n}: {}", share(naive));
        }
    }
}

#[test]
fn correlation_is_measured() {
    let mut draws = Draws(3);
    for (r, from, to) in [(0.0, 1.0, 1.15), (0.5, 2.6, 3.4), (0.8, 7.5, 10.5)] {
        let found = inflation(&[&draws.correlated(4_000, r)]);
        assert!((from..=to).contains(&found), "{r}: {found}");
    }
    assert!((inflation(&[&[1.0; 50]]) - 1.0).abs() < 1e-12);
    assert!((inflation(&[]) - 1.0).abs() < 1e-12);
    let rising: Vec<f64> = (0..100).map(f64::from).collect();
    assert!(inflation(&[&rising]) > 20.0);
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    // Whole numbers, so that there are ties and sums are exact.
    proptest::collection::vec((0..200_i32).prop_map(f64::from), 8..60)
}

proptest! {
    #[test]
    fn shifting_a_sample_shifts_the_estimate(old in values(), new in values(), by in -50..50_i32) {
        let by = f64::from(by);
        let moved: Vec<f64> = new.iter().map(|v| v + by).collect();
        let (a, b) = (shift(&old, &new, 0.95, 1.0).unwrap(), shift(&old, &moved, 0.95, 1.0).unwrap());
        prop_assert_eq!((a.by + by, a.low + by, a.high + by), (b.by, b.low, b.high));
    }

    #[test]
    fn changing_sides_changes_the_sign_alone(old in values(), new in values()) {
        let (a, b) = (shift(&old, &new, 0.95, 1.0).unwrap(), shift(&new, &old, 0.95, 1.0).unwrap());
        prop_assert_eq!((a.by, a.low, a.high), (-b.by, -b.high, -b.low));
        prop_assert!((a.p_value - b.p_value).abs() < 1e-12);
    }

    #[test]
    fn the_estimate_lies_in_its_interval_and_more_confidence_is_wider(old in values(), new in values()) {
        let narrow = shift(&old, &new, 0.9, 1.0).unwrap();
        let wide = shift(&old, &new, 0.99, 1.5);
        prop_assert!(narrow.low <= narrow.by && narrow.by <= narrow.high);
        prop_assert!((0.0..=1.0).contains(&narrow.p_value));
        if let Some(wide) = wide {
            prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
        }
    }

    #[test]
    fn u_counts_pairs(old in values(), new in values()) {
        let mut counted = 0.0;
        for b in &old {
            for a in &new {
                counted += match a.total_cmp(b) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        prop_assert!((u_of(&old, &new) - counted).abs() < 1e-9);
    }
}
