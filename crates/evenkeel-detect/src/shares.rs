//! Two shares of failures, each counted in windows: whether they differ, by how much, and how sure that is.
//!
//! Failures come in bursts: a server that restarts fails everybody for a second. Taken for independent, 50 failures of
//! one burst look like 50 proofs. So each side's variation from window to window is measured against what chance gives
//! (Pearson's statistic over its degrees of freedom; `McCullagh` & Nelder, Generalized Linear Models, section 4.5), and the
//! counts are taken to be worth that many times less. On these runs Fisher's exact test (1922), two-sided, and the
//! interval of Newcombe (1998) for the difference, made of two of Wilson's.

use crate::counts::gamma::ln_gamma;
use crate::stats::normal_quantile;

/// Events on each side below which nothing is said.
pub const EVENTS_MIN: u64 = 30;
/// Windows of a side below which its variation is not measured, and taken to be that of the other or chance.
const WINDOWS_MIN: usize = 4;
/// A term of the exact test that is this part of the largest no longer counts.
const ENOUGH: f64 = 1e-14;
/// Terms of the exact test at most, to either side; the terms that count are some tens of standard deviations.
const TERMS_MAX: u32 = 1_000_000;

/// How the second share lies to the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareChange {
    /// Share of the first side, 0 to 1.
    pub old: f64,
    /// Share of the second side, 0 to 1.
    pub new: f64,
    /// `new - old`.
    pub by: f64,
    /// Lower end of the interval of `by`.
    pub low: f64,
    /// Upper end of the interval of `by`.
    pub high: f64,
    /// Two-sided probability of a difference at least as clear by chance, 0 to 1.
    pub p_value: f64,
    /// How much more the counts vary from window to window than by chance, at least 1.
    pub dispersion: f64,
}

/// Whether and by how much the share of failures differs between two sides, each given as windows of (failures,
/// events). The interval holds the true difference with about `confidence` (0.5 to 0.9999). Windows with more failures
/// than events are left out; nothing is said below [`EVENTS_MIN`] events on a side.
pub fn share_change(
    old: &[(u64, u64)],
    new: &[(u64, u64)],
    confidence: f64,
) -> Option<ShareChange> {
    let ((k0, n0), (k1, n1)) = (total(old), total(new));
    if n0 < EVENTS_MIN || n1 < EVENTS_MIN {
        return None;
    }
    let dispersion = dispersion(old).max(dispersion(new));
    let worth = |k: u64, n: u64| (k as f64 / dispersion, n as f64 / dispersion);
    let ((k0, n0), (k1, n1)) = (worth(k0, n0), worth(k1, n1));
    let (share0, share1) = (k0 / n0, k1 / n1);
    let z = normal_quantile(f64::midpoint(1.0, confidence.clamp(0.5, 0.9999)));
    let ((low0, high0), (low1, high1)) = (wilson(k0, n0, z), wilson(k1, n1, z));
    let by = share1 - share0;
    Some(ShareChange {
        old: share0,
        new: share1,
        by,
        low: by - ((share1 - low1).powi(2) + (high0 - share0).powi(2)).sqrt(),
        high: by + ((high1 - share1).powi(2) + (share0 - low0).powi(2)).sqrt(),
        p_value: fisher(
            (k0.round(), n0.round().max(k0.round())),
            (k1.round(), n1.round().max(k1.round())),
        ),
        dispersion,
    })
}

fn good(windows: &[(u64, u64)]) -> impl Iterator<Item = (u64, u64)> {
    windows.iter().copied().filter(|(k, n)| k <= n && *n > 0)
}

fn total(windows: &[(u64, u64)]) -> (u64, u64) {
    good(windows).fold((0, 0), |(k, n), (failures, events)| {
        (k + failures, n + events)
    })
}

/// Pearson's statistic of one share for all windows, over its degrees of freedom; at least 1.
fn dispersion(windows: &[(u64, u64)]) -> f64 {
    let (failures, events) = total(windows);
    let count = good(windows).count();
    if count < WINDOWS_MIN || failures == 0 || failures == events {
        return 1.0;
    }
    let share = failures as f64 / events as f64;
    let squares: f64 = good(windows)
        .map(|(k, n)| {
            let expected = n as f64 * share;
            (k as f64 - expected).powi(2) / (expected * (1.0 - share))
        })
        .sum();
    (squares / (count as f64 - 1.0)).max(1.0)
}

/// Wilson's score interval (1927) of a share of `k` in `n`.
fn wilson(k: f64, n: f64, z: f64) -> (f64, f64) {
    let p = k / n;
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// Probability of the two counts, or of less likely ones, all margins given: the terms of the hypergeometric
/// distribution that are no larger than that of what was counted. Whole numbers.
fn fisher((k0, n0): (f64, f64), (k1, n1): (f64, f64)) -> f64 {
    let failures = k0 + k1;
    let (least, most) = ((failures - n0).max(0.0), failures.min(n1));
    let ln_term = |k: f64| ln_choose(n1, k) + ln_choose(n0, failures - k);
    let mode = ((failures + 1.0) * (n1 + 1.0) / (n0 + n1 + 2.0))
        .floor()
        .clamp(least, most);
    let base = ln_term(mode);
    // A little above, so that terms that are equal but for rounding count.
    let own = (ln_term(k1) - base).exp() * (1.0 + 1e-7);
    let (mut all, mut as_extreme) = (0.0, 0.0);
    let mut count = |term: f64| {
        all += term;
        if term <= own {
            as_extreme += term;
        }
        term > ENOUGH
    };
    let (mut k, mut term) = (mode, 1.0);
    for _ in 0..TERMS_MAX {
        if !count(term) || k >= most {
            break;
        }
        term *= (n1 - k) * (failures - k) / ((k + 1.0) * (n0 - failures + k + 1.0));
        k += 1.0;
    }
    let (mut k, mut term) = (mode, 1.0);
    for _ in 0..TERMS_MAX {
        if k <= least {
            break;
        }
        term *= k * (n0 - failures + k) / ((n1 - k + 1.0) * (failures - k + 1.0));
        k -= 1.0;
        if !count(term) {
            break;
        }
    }
    (as_extreme / all).clamp(0.0, 1.0)
}

fn ln_choose(n: f64, k: f64) -> f64 {
    ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use proptest::prelude::*;

    impl Draws {
        /// Thirty windows of a hundred; in a share of `bursts` of them half fail, in all a share of `share`.
        fn windows(&mut self, share: f64, bursts: f64) -> Vec<(u64, u64)> {
            (0..30)
                .map(|_| {
                    let p = if self.unit() < bursts { 0.5 } else { share };
                    let failures = (0..100).filter(|_| self.unit() < p).count();
                    (failures as u64, 100)
                })
                .collect()
        }
    }

    #[test]
    fn the_exact_test_agrees_with_values_worked_out_by_hand() {
        // Fisher's tea: of 70 tables 16 + 1 are as far to one side, and as many to the other.
        assert!((fisher((1.0, 4.0), (3.0, 4.0)) - 34.0 / 70.0).abs() < 1e-9);
        assert!((fisher((0.0, 4.0), (4.0, 4.0)) - 2.0 / 70.0).abs() < 1e-9);
        assert!((fisher((0.0, 50.0), (0.0, 50.0)) - 1.0).abs() < 1e-12);
        // One-sided only: 3 of 3 on the side that is the smaller, and no table is as unlikely on the other.
        assert!((fisher((0.0, 7.0), (3.0, 3.0)) - 1.0 / 120.0).abs() < 1e-9);
        // Millions of events take no time and lose no precision: 3,000 against 3,400 of ten million is 5 deviations.
        let p = fisher((3_000.0, 1e7), (3_400.0, 1e7));
        assert!((1e-7..1e-6).contains(&p), "{p}");
    }

    /// Newcombe (1998), table II, method 10: 56 of 70 against 48 of 80 is 0.2 with 0.0524 to 0.3339 at 95 %.
    #[test]
    fn the_interval_agrees_with_the_published_one() {
        let found = share_change(&[(48, 80)], &[(56, 70)], 0.95).unwrap();
        assert!((found.by - 0.2).abs() < 1e-12);
        assert!((found.low - 0.0524).abs() < 1e-4, "{found:?}");
        assert!((found.high - 0.3339).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_burst_is_one_event_and_not_fifty() {
        let calm: Vec<_> = (0..30).map(|_| (0, 100)).collect();
        let mut burst = calm.clone();
        burst[7].0 = 50;
        let mut spread = calm.clone();
        for (k, _) in spread.iter_mut().take(25) {
            *k = 2;
        }
        let (one, many) = (
            share_change(&calm, &burst, 0.99).unwrap(),
            share_change(&calm, &spread, 0.99).unwrap(),
        );
        assert!((one.by - many.by).abs() < 1e-12, "the same failures");
        assert!(one.p_value > 0.05 && one.low < 0.0, "{one:?}");
        assert!(many.p_value < 1e-6 && many.low > 0.0, "{many:?}");
    }

    #[test]
    fn false_alarms_stay_at_their_level_with_and_without_bursts() {
        let mut draws = Draws(9);
        for bursts in [0.0, 0.1] {
            let alarms = (0..1_000)
                .filter(|_| {
                    let (a, b) = (draws.windows(0.02, bursts), draws.windows(0.02, bursts));
                    share_change(&a, &b, 0.99).unwrap().p_value < 0.01
                })
                .count();
            assert!(alarms <= 25, "{bursts}: {alarms} of 1000");
        }
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(share_change(&[(1, 29)], &[(1, 100)], 0.95), None);
        assert_eq!(share_change(&[], &[(1, 100)], 0.95), None);
        assert_eq!(share_change(&[(200, 100)], &[(1, 100)], 0.95), None);
    }

    proptest! {
        #[test]
        fn sides_are_alike_and_nothing_leaves_its_range(
            old in proptest::collection::vec((0..20_u64, 20..200_u64), 2..20),
            new in proptest::collection::vec((0..20_u64, 20..200_u64), 2..20),
        ) {
            let (a, b) = (share_change(&old, &new, 0.95).unwrap(), share_change(&new, &old, 0.95).unwrap());
            prop_assert!((a.by + b.by).abs() < 1e-12 && (a.low + b.high).abs() < 1e-9);
            prop_assert!((a.p_value - b.p_value).abs() < 1e-6, "{} {}", a.p_value, b.p_value);
            prop_assert!(a.low <= a.by && a.by <= a.high && a.low >= -1.0 && a.high <= 1.0);
            prop_assert!((0.0..=1.0).contains(&a.p_value) && a.dispersion >= 1.0);
        }
    }
}
