//! How far beyond the threshold that the greatest peaks have in common a score may lie.
//!
//! Raised to the right power, the excesses of most tails are exponential: the square of a normal variable's, nearly,
//! the first power of an exponential one's, the logarithm of a power law's (Weibull-type and Pareto-type tails). For a
//! given power the probability that the next excess is greater than `y`, when `k` excesses had the sum `S`, is
//! `(1 + y / S)^-k`, exactly and whatever the scale: the uncertainty is in it. Several powers are taken together, each
//! weighed by its marginal likelihood with the scale integrated out (Bayesian model averaging, Hoeting et al. 1999), so
//! that a tail may be light where the peaks show it and is heavy where they could be. One supposed excess keeps the
//! first hours sober, when there is little else to go by.

use serde::{Deserialize, Serialize};

/// Powers that are tried; 0 stands for the logarithm, and below it the tail is heavier than any power law.
const POWERS: [f64; 8] = [-0.25, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Excesses that are supposed beside those that were seen: one,
const PRIOR_COUNT: f64 = 1.0;
/// as great as a tail of that power has them (Weibull's, so far out), but no greater than one of this power. A power is
/// as probable beforehand as it is far from its neighbours: about itself, and no less than this.
const PRIOR_POWER_MIN: f64 = 0.5;
/// and no more than this: nobody expects a tail that is much lighter than a normal one's.
const PRIOR_POWER_MAX: f64 = 2.0;
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
    /// Sums of the excesses over the threshold.
    sums: [f32; POWERS.len()],
    /// How probable the power is; together 1, and 0 while there is no peak.
    weights: [f32; POWERS.len()],
    /// How many excesses there are, with those that are supposed.
    count: f32,
}

impl Shape {
    /// Of the peaks beyond a threshold, which is above 0, when `counted` points were seen.
    pub(super) fn of(above: &[f32], threshold: f32, counted: u32) -> Self {
        let mut sums = [0.0; POWERS.len()];
        let mut logs = 0.0;
        for peak in above {
            let log = (f64::from(*peak) / f64::from(threshold)).ln().max(0.0);
            logs += log;
            for (sum, power) in sums.iter_mut().zip(POWERS) {
                *sum += raised(log, power);
            }
        }
        let count = above.len() as f64 + PRIOR_COUNT;
        let depth = (f64::from(counted) / (above.len() as f64 + 1.0))
            .ln()
            .max(1.0);
        let mut evidence = [0.0; POWERS.len()];
        for ((evidence, sum), power) in evidence.iter_mut().zip(&mut sums).zip(POWERS) {
            let supposed = PRIOR_COUNT / (power.max(PRIOR_POWER_MIN) * depth);
            *sum = (*sum + supposed).min(f64::from(f32::MAX));
            *evidence = power * logs
                + power.clamp(PRIOR_POWER_MIN, PRIOR_POWER_MAX).ln()
                + PRIOR_COUNT * supposed.ln()
                - count * sum.ln();
        }
        let most = evidence.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = evidence.map(|e| (e - most).exp());
        let all: f64 = weights.iter().sum();
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        Self {
            sums: sums.map(|s| s as f32),
            weights: weights.map(|w| (w / all) as f32),
            count: count as f32,
        }
    }

    /// The share of the events beyond the threshold that go beyond `ratio` times it; above 0, at most 1.
    pub(super) fn beyond(&self, ratio: f64) -> f64 {
        let (log, count) = (ratio.ln(), f64::from(self.count));
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
