//! How far beyond the lowest of the greatest peaks a score may lie.
//!
//! Raised to the right power, the excesses of most tails are exponential: the square of a normal variable's, nearly,
//! the first power of an exponential one's, the logarithm of a power law's (Weibull-type and Pareto-type tails). For a
//! given power the probability that the next excess is greater than `y`, when `k` excesses had the sum `S`, is
//! `(1 + y / S)^-k`, exactly and whatever the scale: the uncertainty is in it. Several powers are taken together, each
//! weighed by its marginal likelihood with the scale integrated out (Bayesian model averaging, Hoeting et al. 1999), so
//! that a tail may be light where the peaks show it and is heavy where they could be.

use serde::{Deserialize, Serialize};

/// Powers that are tried; 0 stands for the logarithm, and below it the tail is heavier than any power law.
const POWERS: [f64; 8] = [-0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Least sum of excesses, in units of the lowest peak: where all are equal.
const SUM_MIN: f64 = 1e-9;
/// Least share of a tail that is said, so that it stays above 0.
const SHARE_MIN: f64 = 1e-290;

/// Box and Cox's transform (1964) of a ratio with logarithm `log`: 0 at 1.
fn raised(log: f64, power: f64) -> f64 {
    if power == 0.0 {
        log
    } else {
        (power * log).exp_m1() / power
    }
}

/// What is remembered of the fit, for each power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shape {
    /// Sum of the excesses over the lowest peak.
    sums: [f32; POWERS.len()],
    /// How probable the power is; together 1, and 0 while there are no two peaks.
    weights: [f32; POWERS.len()],
}

impl Shape {
    /// Of peaks, falling.
    pub(super) fn of(peaks: &[f32]) -> Self {
        let Some((lowest, above)) = peaks.split_last().filter(|(_, above)| !above.is_empty())
        else {
            return Self::default();
        };
        let mut sums = [0.0; POWERS.len()];
        let mut logs = 0.0;
        for peak in above {
            let log = (f64::from(*peak) / f64::from(*lowest)).ln().max(0.0);
            logs += log;
            for (sum, power) in sums.iter_mut().zip(POWERS) {
                *sum += raised(log, power);
            }
        }
        let count = above.len() as f64;
        let mut evidence = [0.0; POWERS.len()];
        for ((evidence, sum), power) in evidence.iter_mut().zip(&mut sums).zip(POWERS) {
            *sum = sum.clamp(SUM_MIN, f64::from(f32::MAX));
            *evidence = power * logs - count * sum.ln();
        }
        let most = evidence.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = evidence.map(|e| (e - most).exp());
        let all: f64 = weights.iter().sum();
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        Self {
            sums: sums.map(|s| s as f32),
            weights: weights.map(|w| (w / all) as f32),
        }
    }

    /// The share of the events beyond the lowest of `peaks` peaks that go beyond `ratio` times it; above 0, at most 1.
    pub(super) fn beyond(&self, ratio: f64, peaks: usize) -> f64 {
        if peaks < 2 {
            return 1.0;
        }
        let (log, count) = (ratio.ln(), (peaks - 1) as f64);
        let mut share = 0.0;
        for ((power, sum), weight) in POWERS.iter().zip(self.sums).zip(self.weights) {
            if weight > 0.0 {
                let excess = raised(log, *power) / f64::from(sum);
                share += f64::from(weight) * (-count * excess.ln_1p()).exp();
            }
        }
        share.clamp(SHARE_MIN, 1.0)
    }
}
