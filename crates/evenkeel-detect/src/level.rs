//! The level of one live series: an ensemble that waits before it learns what is suspicious.
//!
//! The ensemble takes a new level for usual within a few points, and tells news once. Who watches a live series wants to
//! know whether it lasts. So a point that is suspicious is judged in itself and held back, a few in a row at most. When the
//! series comes back, what was held is learned after all, so that bursts that come again and again become known;
//! when it turned out to be an alarm, it is forgotten.

use serde::{Deserialize, Serialize};

use crate::ensemble::{Ensemble, Score};

/// A point as rare as this, or rarer, is suspicious.
const SUSPICIOUS_TAIL: f64 = 5e-3;
/// Suspicious points in a row that are held back at most.
const HELD_MAX: usize = 6;

/// What is known of a series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    ensemble: Ensemble,
    held: Vec<(i64, f64)>,
}

impl Level {
    /// A series of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges `value`, measured at `at_ms` (Unix time in milliseconds), and learns it, now or when it is known what
    /// it belongs to.
    pub fn push(&mut self, at_ms: i64, value: f64) -> Score {
        if self.held.len() < HELD_MAX
            && let Some(sight) = self.ensemble.see(at_ms, value)
        {
            let score = self.ensemble.judge_seen(&sight);
            if score.tail <= SUSPICIOUS_TAIL {
                self.held.push((at_ms, value));
                return score;
            }
            if self.held.is_empty() {
                return self.ensemble.push_seen(&sight);
            }
        }
        // What was seen without what is held back is so no more once that is learned.
        for (at_ms, value) in std::mem::take(&mut self.held) {
            self.ensemble.push(at_ms, value);
        }
        self.ensemble.push(at_ms, value)
    }

    /// Judges and learns nothing. What was held back is forgotten: it belongs to what is being judged.
    pub fn judge(&mut self, at_ms: i64, value: f64) -> Score {
        self.held.clear();
        self.ensemble.judge(at_ms, value)
    }

    /// Enough was learned to say how rare a value is; before, nothing is.
    pub fn learned(&self) -> bool {
        self.ensemble.learned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE_MS: i64 = 60_000;

    /// The level as it is said: judged first, and learned by a look of its own.
    fn push_in_two_steps(level: &mut Level, at_ms: i64, value: f64) -> Score {
        let score = level.ensemble.judge(at_ms, value);
        if score.tail <= SUSPICIOUS_TAIL && level.held.len() < HELD_MAX {
            level.held.push((at_ms, value));
            return score;
        }
        for (at_ms, value) in std::mem::take(&mut level.held) {
            level.ensemble.push(at_ms, value);
        }
        level.ensemble.push(at_ms, value)
    }

    /// Steps in time and factors of the value, most of them usual.
    fn any_points() -> impl Strategy<Value = Vec<(i64, f64)>> {
        let step = prop_oneof![
            40 => Just(MINUTE_MS),
            10 => MINUTE_MS / 2..2 * MINUTE_MS,
            1 => Just(0),
            1 => -30 * MINUTE_MS..0,
            1 => Just(60 * MINUTE_MS),
            1 => Just(24 * 60 * MINUTE_MS),
        ];
        let factor = prop_oneof![
            60 => 0.9..1.1,
            3 => 2.0..20.0,
            1 => Just(f64::NAN),
            1 => Just(0.0),
            1 => any::<f64>(),
        ];
        prop::collection::vec((step, factor), 400..900)
    }

    /// A thousand minutes with a ripple.
    fn known() -> (Level, i64) {
        let mut level = Level::new();
        let at = |i: i64| 1_700_000_000_000 + i * MINUTE_MS;
        for i in 0..1000 {
            level.push(at(i), 50.0 + (i * 7919 % 101) as f64 / 20.0);
        }
        (level, at(1000))
    }

    #[test]
    fn a_new_level_stays_rare_for_a_few_points_and_is_learned_then() {
        let (mut level, mut at) = known();
        let mut tails = Vec::new();
        for _ in 0..200 {
            at += MINUTE_MS;
            tails.push(level.push(at, 200.0 + (at / MINUTE_MS % 5) as f64).tail);
        }
        assert!(tails[..5].iter().all(|t| *t < 1e-4), "{:?}", &tails[..8]);
        assert!(
            tails[150..].iter().all(|t| *t > 1e-3),
            "{:?}",
            &tails[150..]
        );
    }

    #[test]
    fn bursts_that_come_again_and_again_become_known() {
        let (mut level, mut at) = known();
        let mut rarest = Vec::new();
        for burst in 0..40_i64 {
            let mut tail: f64 = 1.0;
            for minute in 0..60_i64 {
                at += MINUTE_MS;
                let ripple = ((burst * 60 + minute) * 7919 % 101) as f64 / 20.0;
                let value = if minute < 3 { 120.0 } else { 50.0 } + ripple;
                tail = tail.min(level.push(at, value).tail);
            }
            rarest.push(tail);
        }
        assert!(rarest[0] < 1e-4, "{rarest:?}");
        assert!(
            rarest[30..].iter().all(|t| *t > rarest[0] * 30.0),
            "{rarest:?}"
        );
    }

    #[test]
    fn what_is_judged_only_teaches_nothing() {
        let (mut level, mut at) = known();
        for _ in 0..500 {
            at += MINUTE_MS;
            assert!(level.judge(at, 200.0).tail < 1e-3);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_look_is_worth_two(points in any_points()) {
            let (mut one, mut two) = (Level::new(), Level::new());
            let mut at = 1_700_000_000_000;
            for (i, (step, factor)) in points.into_iter().enumerate() {
                at += step;
                let value = (50.0 + (i % 17) as f64) * factor;
                let score = one.push(at, value);
                prop_assert_eq!(score, push_in_two_steps(&mut two, at, value));
            }
            prop_assert_eq!(one, two);
        }
    }
}
