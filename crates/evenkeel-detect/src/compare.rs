//! Before and after: whether a guarded metric got worse, by a two-sample test and by a smallest effect that is worth
//! acting on. A bare comparison of two noisy numbers would undo good fixes and keep bad ones.

use std::fmt;

use crate::samples::{deviation_of_u, u_of};
use crate::stats::{median, upper_tail};

/// Chance of calling a metric worse that is not, for one comparison.
const ALPHA: f64 = 0.01;
/// Latencies on each side below which nothing is concluded.
pub const LATENCIES_MIN: usize = 8;
/// Latencies on each side that are looked at; more are left out.
pub const LATENCIES_MAX: usize = 128;
/// Cliff's delta from which an effect is large (Romano et al. 2006).
const DELTA_MIN: f64 = 0.474;
/// How much slower it must have become: by this share of the median before...
const SLOWER_SHARE: f64 = 0.5;
/// ...and by so many milliseconds.
const SLOWER_MS: f64 = 25.0;
/// How much larger the share of errors must have become.
const ERRORS_MORE: f64 = 0.1;
/// Requests on each side below which nothing is concluded about errors.
pub const REQUESTS_MIN: u64 = 8;

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// No worse than before, or not by enough to matter.
    NotWorse,
    /// Worse: unlikely by chance, and by enough to matter.
    Worse {
        /// One-sided probability of such a difference by chance.
        p_value: f64,
        /// What got worse, in words.
        evidence: String,
    },
    /// Too little was measured.
    Inconclusive {
        /// Why.
        why: String,
    },
}

impl Comparison {
    /// It got worse.
    pub fn is_worse(&self) -> bool {
        matches!(self, Self::Worse { .. })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWorse => f.write_str("not worse"),
            Self::Worse { p_value, evidence } => write!(f, "worse: {evidence} (p = {p_value:.4})"),
            Self::Inconclusive { why } => write!(f, "nothing can be concluded: {why}"),
        }
    }
}

/// Whether latencies (milliseconds) got worse: Mann-Whitney's U (Mann & Whitney 1947), one-sided, by the normal
/// approximation with corrections for ties and continuity; and Cliff's delta; and the Hodges-Lehmann shift.
pub fn slower(before: &[f64], after: &[f64]) -> Comparison {
    let fit = |values: &[f64]| -> Vec<f64> {
        let finite = values
            .iter()
            .copied()
            .filter(|v| v.is_finite() && *v >= 0.0);
        finite.take(LATENCIES_MAX).collect()
    };
    let (before, after) = (fit(before), fit(after));
    if before.len() < LATENCIES_MIN || after.len() < LATENCIES_MIN {
        return Comparison::Inconclusive {
            why: format!(
                "{} latencies before and {} after; {LATENCIES_MIN} are needed",
                before.len(),
                after.len()
            ),
        };
    }
    let (m, n) = (before.len() as f64, after.len() as f64);
    let u = u_of(&before, &after);
    let mut differences = Vec::with_capacity(before.len() * after.len());
    for b in &before {
        differences.extend(after.iter().map(|a| a - b));
    }
    let delta = 2.0 * u / (m * n) - 1.0;
    let shift = median(differences).unwrap_or(0.0);
    let usual = median(before.clone()).unwrap_or(0.0);
    let p_value = upper_tail(standardised(u, &before, &after));
    let matters = delta >= DELTA_MIN && shift >= SLOWER_MS && shift >= SLOWER_SHARE * usual;
    if p_value < ALPHA && matters {
        Comparison::Worse {
            p_value,
            evidence: format!("slower by {shift:.0} ms (median {usual:.0} ms before)"),
        }
    } else {
        Comparison::NotWorse
    }
}

/// Whether more requests fail: Fisher's exact test (Fisher 1922), one-sided, and a smallest difference.
pub fn more_errors(before: (u64, u64), after: (u64, u64)) -> Comparison {
    let ((k0, n0), (k1, n1)) = (before, after);
    if n0 < REQUESTS_MIN || n1 < REQUESTS_MIN || k0 > n0 || k1 > n1 {
        return Comparison::Inconclusive {
            why: format!("{n0} requests before and {n1} after; {REQUESTS_MIN} are needed"),
        };
    }
    let (share0, share1) = (k0 as f64 / n0 as f64, k1 as f64 / n1 as f64);
    let p_value = fisher(k0, n0, k1, n1);
    if p_value < ALPHA && share1 - share0 >= ERRORS_MORE {
        Comparison::Worse {
            p_value,
            evidence: format!("{k1} of {n1} requests fail; {k0} of {n0} before"),
        }
    } else {
        Comparison::NotWorse
    }
}

/// U in standard deviations above what chance gives.
fn standardised(u: f64, before: &[f64], after: &[f64]) -> f64 {
    let deviation = deviation_of_u(before, after);
    if deviation <= 0.0 {
        return 0.0;
    }
    (u - before.len() as f64 * after.len() as f64 / 2.0 - 0.5) / deviation
}

/// Probability of at least `k1` of the failures on the second side, all margins given: the upper tail of the
/// hypergeometric distribution.
fn fisher(k0: u64, n0: u64, k1: u64, n1: u64) -> f64 {
    let (failures, all) = (k0 + k1, n0 + n1);
    let ln_all = ln_choose(all, failures);
    (k1..=failures.min(n1))
        .filter(|k| failures - k <= n0)
        .map(|k| (ln_choose(n1, k) + ln_choose(n0, failures - k) - ln_all).exp())
        .sum::<f64>()
        .min(1.0)
}

fn ln_choose(n: u64, k: u64) -> f64 {
    (1..=k.min(n - k))
        .map(|i| ((n + 1 - i) as f64 / i as f64).ln())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    impl Draws {
        /// Latencies with a long tail around `scale` milliseconds.
        fn latencies(&mut self, n: usize, scale: f64) -> Vec<f64> {
            (0..n)
                .map(|_| scale * (1.0 - self.unit()).powf(-0.4))
                .collect()
        }
    }

    #[test]
    fn the_normal_tail_and_the_exact_test_agree_with_tables() {
        for (z, p) in [
            (0.0, 0.5),
            (1.0, 0.158_655),
            (1.96, 0.024_998),
            (2.326_348, 0.01),
        ] {
            assert!((upper_tail(z) - p).abs() < 1e-5, "{z}");
        }
        // Fisher's tea: 3 of 4 guessed right by chance in 17 of 70 cases or better.
        assert!((fisher(1, 4, 3, 4) - 17.0 / 70.0).abs() < 1e-12);
        assert!((fisher(0, 4, 4, 4) - 1.0 / 70.0).abs() < 1e-12);
        assert!((fisher(0, 10, 0, 10) - 1.0).abs() < 1e-12);
    }

    /// SAFETY 9
    #[test]
    fn what_got_clearly_worse_is_worse_and_what_did_not_is_not() {
        let usual: Vec<f64> = (0..12).map(|i| 90.0 + f64::from(i)).collect();
        let doubled: Vec<f64> = usual.iter().map(|v| v * 2.0).collect();
        let a_little: Vec<f64> = usual.iter().map(|v| v + 12.0).collect();
        assert!(slower(&usual, &doubled).is_worse());
        // Beyond chance, and not by enough to matter.
        assert_eq!(slower(&usual, &a_little), Comparison::NotWorse);
        assert_eq!(slower(&doubled, &usual), Comparison::NotWorse);
        assert_eq!(slower(&usual, &usual), Comparison::NotWorse);
        // From 1 to 5 ms is five times as slow, and nobody notices.
        assert_eq!(slower(&[1.0; 12], &[5.0; 12]), Comparison::NotWorse);
        assert!(more_errors((0, 20), (8, 20)).is_worse());
        assert_eq!(more_errors((8, 20), (8, 20)), Comparison::NotWorse);
        assert_eq!(more_errors((0, 20), (1, 20)), Comparison::NotWorse);
    }

    /// SAFETY 10: nothing is concluded from nothing.
    #[test]
    fn too_little_is_inconclusive() {
        let few = [1.0; LATENCIES_MIN - 1];
        let nonsense = [f64::NAN; 20];
        for (before, after) in [
            (&few[..], &[1.0; 20][..]),
            (&[1.0; 20], &nonsense),
            (&[], &[]),
        ] {
            assert!(matches!(
                slower(before, after),
                Comparison::Inconclusive { .. }
            ));
        }
        assert!(matches!(
            more_errors((0, 2), (9, 9)),
            Comparison::Inconclusive { .. }
        ));
        assert!(matches!(
            more_errors((9, 8), (0, 9)),
            Comparison::Inconclusive { .. }
        ));
    }

    /// Measured, not assumed: how often it cries wolf, and how often it misses twice as slow.
    #[test]
    fn false_alarms_are_rare_and_a_real_shift_is_found() {
        let mut draws = Draws(1);
        let (mut wolf, mut missed) = (0, 0);
        for _ in 0..2_000 {
            let before = draws.latencies(12, 100.0);
            wolf += u32::from(slower(&before, &draws.latencies(12, 100.0)).is_worse());
            missed += u32::from(!slower(&before, &draws.latencies(12, 300.0)).is_worse());
        }
        assert!(wolf <= 2, "{wolf} of 2000");
        assert!(missed <= 60, "{missed} of 2000");
    }
}
