//! The tail of scores that are not rare: a few running quantiles, and straight lines between them.

use serde::{Deserialize, Serialize};

/// Tail probabilities of the quantiles.
const TAILS: [f32; 6] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01];
/// Logarithm of a score that counts as 0.
const LOG_OF_NOTHING: f32 = -70.0;
/// Steps of a quantile, in logarithms of the score: at first this over the number of points,
const STEP_FIRST: f32 = 8.0;
/// and in the long run this.
const STEP_LEAST: f32 = 0.008;

/// Running quantiles of the logarithm of the scores, each moved up by every score above it and down by every other
/// (stochastic approximation, Robbins and Monro 1951).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bulk {
    /// Rising.
    logs: [f32; TAILS.len()],
    begun: bool,
}

impl Bulk {
    /// One more score, 0 or more; it is the `counted`th.
    pub(super) fn learn(&mut self, score: f32, counted: u32) {
        let log = if score > 0.0 {
            score.ln()
        } else {
            LOG_OF_NOTHING
        };
        if !self.begun {
            self.begun = score > 0.0;
            self.logs = [log; TAILS.len()];
            return;
        }
        let step = (STEP_FIRST / counted as f32).max(STEP_LEAST);
        let mut below = LOG_OF_NOTHING;
        for (at, tail) in self.logs.iter_mut().zip(TAILS) {
            *at += step * if log > *at { 1.0 - tail } else { -tail };
            *at = at.max(below);
            below = *at;
        }
    }

    /// Tail probability of a score up to `end`, a score with a known one.
    pub(super) fn tail(&self, score: f64, end: (f64, f64)) -> f64 {
        let (log, end) = (score.ln(), (end.0.ln(), end.1));
        let mut below: Option<(f64, f64)> = None;
        let known = self.logs.iter().zip(TAILS);
        let known = known.map(|(at, tail)| (f64::from(*at), f64::from(tail)));
        // What is beyond the end, either way, is not known better than the end is.
        let within = known.take_while(|(at, tail)| *at < end.0 && *tail > end.1);
        for (at, tail) in within.chain([end]) {
            if log <= at {
                return below.map_or(1.0 - (1.0 - tail) * (log - at).exp(), |(from, most)| {
                    most * (tail / most).powf((log - from) / (at - from).max(1e-9))
                });
            }
            below = Some((at, tail));
        }
        end.1
    }
}
