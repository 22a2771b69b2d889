//! How often a healthy series reaches a score: the promise that an alarm budget is spent by.
//!
//! A table made from synthetic healthy series says how often; the series itself says how far it is from the table.
//! The score's own rate falls by half or so for each decade; a series with more (or fewer) calls than the table
//! expects also has a flatter (or steeper) tail, so the correction grows with the score.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a count of calls needs no more than the 7 digits of an f32"
)]

use serde::{Deserialize, Serialize};

/// `log10` of the events a month at the score [`CALL`], at one point every five minutes, and its slopes in decades
/// a decade of score, up to [`KNEE`] and beyond. Measured on Gaussian, heavy-tailed, autocorrelated, seasonal,
/// bursting and level-dependent noise and on counts, together with the corrections below: it is lower than the 0.4
/// of series that have long been watched, because the calls of a young series go on correcting it upwards.
const AT_CALL: f64 = -0.08;
const SLOPE: f64 = -0.32;
const KNEE: f64 = 9.0;
const SLOPE_BEYOND: f64 = -0.40;
/// How the rate goes with the interval between points, as a power.
const INTERVAL_POWER: f64 = -0.4;
/// A score that a healthy series reaches a few times a month: often enough to count.
const CALL: f64 = 6.0;
/// Points within which calls are one event.
const EVENT_POINTS: u16 = 12;
/// As many calls as this, just as many as expected, are taken for granted.
const PRIOR_CALLS: f32 = 4.0;
/// A series' own calls may correct the table upwards by so many decades: incidents are calls too.
const CORRECTION_MAX: f64 = 0.6;
/// And downwards by so many: silence is the weaker witness.
const CORRECTION_DOWN_MAX: f64 = 0.1;
/// How much more the correction is for each decade of score beyond [`CALL`].
const CORRECTION_GROWTH: f64 = 0.7;
/// ... but never so much that a greater score would be promised more often.
const CORRECTION_SLOPE_MAX: f64 = 0.25;
/// When so many points were seen, a score comes twice as often as later; it goes on in inverse proportion.
const YOUNG_POINTS: f64 = 1500.0;
const MONTH_MS: f64 = 30.0 * 86_400_000.0;

/// How often one series called, and how often it should have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Nominal {
    calls: f32,
    expected: f32,
    since_call: u16,
}

impl Nominal {
    /// Probability that a healthy series of `points` values so far, one every `interval_ms`, comes to `score` or more at any one
    /// point, for the first time in an hour or so; 0 to 1, never 0.
    pub(super) fn probability(&self, score: f64, points: u32, interval_ms: f64) -> f64 {
        let interval_ms = interval_ms.max(1000.0);
        let own = (self.calls + PRIOR_CALLS) / (self.expected + PRIOR_CALLS);
        let own = f64::from(own)
            .log10()
            .clamp(-CORRECTION_DOWN_MAX, CORRECTION_MAX);
        let slope = (CORRECTION_GROWTH * own).min(CORRECTION_SLOPE_MAX);
        let a_month = slope.mul_add(
            (score - CALL).max(0.0),
            table(score, points, interval_ms) + own,
        );
        let a_point = a_month + (interval_ms / MONTH_MS).log10();
        10.0_f64.powf(a_point.clamp(-300.0, 0.0))
    }

    /// Counts a point that came to `score`; a young series is expected to call no more than an old one, so that its
    /// own calls soon speak for it.
    pub(super) fn push(&mut self, score: f64, interval_ms: f64) {
        self.since_call = self.since_call.saturating_add(1);
        let interval_ms = interval_ms.max(1000.0);
        self.expected +=
            (10.0_f64.powf(table(CALL, u32::MAX, interval_ms)) * interval_ms / MONTH_MS) as f32;
        if score >= CALL {
            if self.since_call > EVENT_POINTS {
                self.calls += 1.0;
            }
            self.since_call = 0;
        }
    }
}

/// `log10` of the events a month.
fn table(score: f64, points: u32, interval_ms: f64) -> f64 {
    let to_knee = score.min(KNEE) - CALL;
    let beyond = (score - KNEE).max(0.0);
    let interval = INTERVAL_POWER * (interval_ms / 300_000.0).log10();
    let young = (1.0 + YOUNG_POINTS / f64::from(points.max(1))).log10();
    SLOPE.mul_add(to_knee, SLOPE_BEYOND.mul_add(beyond, AT_CALL)) + interval + young
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greater_score_is_rarer_for_any_history() {
        for calls in [0.0, 5.0, 500.0] {
            let nominal = Nominal {
                calls,
                expected: 20.0,
                since_call: 0,
            };
            let mut last = 1.0;
            for i in -30..200 {
                let now = nominal.probability(f64::from(i) * 0.2, 5000, 60_000.0);
                assert!(
                    now <= last && now > 0.0,
                    "{calls} calls, {i}: {now} after {last}"
                );
                last = now;
            }
        }
    }

    #[test]
    fn a_series_that_calls_often_is_promised_more_alarms() {
        let (mut often, mut never) = (Nominal::default(), Nominal::default());
        for i in 0..20_000 {
            often.push(if i % 1000 == 0 { 6.5 } else { 0.0 }, 300_000.0);
            never.push(0.0, 300_000.0);
        }
        assert!(
            often.probability(8.0, 20_000, 300_000.0)
                > 4.0 * never.probability(8.0, 20_000, 300_000.0)
        );
    }
}
