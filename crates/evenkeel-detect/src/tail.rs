//! How rare a score is on its own series: a probability in place of a number that means something else everywhere.
//!
//! A detector ranks the points of one series. An alarm budget needs more: of a healthy series, how often does such a
//! score come? [`Tail`] learns that from the scores themselves. What it promises is counted in *events*: points beyond
//! a level, at most twelve apart, are one (runs declustering, Leadbetter et al. 1989), and among `n` points about
//! `n * p` events have a tail probability of `p` or less.
//!
//! It keeps the greatest peaks of the series. How often the lowest of them is passed is a matter of counting; how far
//! beyond it a score may lie is extrapolated by a family of shapes (`shape`), all of them at once, each weighed by how
//! well it explains the peaks; that the peaks are few makes the answer cautious by itself. Below the lowest peak the
//! tail follows a few running quantiles (`bulk`), which is plenty for what is not rare.
//!
//! One event counts as one peak, however far out, so a great anomaly does not blind it for ever. Peaks are thinned
//! while a series is young, each time it has doubled its age, since its detector was young too; and every few months.

use serde::{Deserialize, Serialize};

mod bulk;
mod shape;

use bulk::Bulk;
use shape::Shape;

/// Greatest peaks that are kept.
const PEAKS: usize = 32;
/// First scores of a series, which are not learned: its detector knows nothing yet, and they are wild.
const SKIPPED: u32 = 50;
/// Scores before anything is said.
const LEARNED_AFTER: u32 = 150;
/// Scores after which the peaks are thinned to half: for the first time,
const THINNED_FIRST: u32 = 1_024;
/// and, doubled from each time to the next, at most: half a year of minutes.
const THINNED_AFTER: u32 = 262_144;
/// Scores that are counted at most, where peaks are too few to be thinned: 16 years of minutes.
const COUNTED_MAX: u32 = 8_388_608;
/// Points without one beyond a level, after which the next is another event.
const MERGE_POINTS: usize = 12;
/// The same, where a place in the ring is counted.
const MERGE_SLOTS: u8 = 12;
/// What has come before is not rarer than this share of how often it came, whatever shape fits the other peaks.
const RANK_COUNTS: f64 = 0.5;
/// Scores above this count as this.
const SCORE_MAX: f64 = 1e30;
/// Scores below this count as 0.
const SCORE_MIN: f64 = 1e-30;

/// The tail of one series' scores.
///
/// Scores are 0 or more and have no upper end: a distance, or a logarithm of a probability. Their unit does not matter:
/// multiples of the same scores have the same tails. What saturates, as a score between 0 and 1, must be stretched out
/// first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Scores seen, but for thinning.
    seen: u32,
    /// Scores after which the peaks are thinned next.
    thinned_after: u32,
    held: u8,
    newest: u8,
    /// The greatest peak is the one that goes at the next thinning.
    first_goes: bool,
    /// Whether all events are among the peaks, or only those beyond the threshold.
    thinned: bool,
    /// Beyond this the peaks are complete: the lowest of them, or the lowest there was before the last thinning.
    threshold: f32,
    /// The greatest peaks, falling; `held` of them.
    peaks: [f32; PEAKS],
    /// The newest scores, as a ring.
    recent: [f32; MERGE_POINTS],
    shape: Shape,
    bulk: Bulk,
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

impl Tail {
    /// Of a series of which nothing is known.
    pub fn new() -> Self {
        Self {
            seen: 0,
            thinned_after: THINNED_FIRST,
            held: 0,
            newest: 0,
            first_goes: false,
            thinned: false,
            threshold: 0.0,
            peaks: [0.0; PEAKS],
            recent: [0.0; MERGE_POINTS],
            shape: Shape::default(),
            bulk: Bulk::default(),
        }
    }

    /// Whether enough is known to say anything: 150 points.
    pub fn learned(&self) -> bool {
        self.seen >= LEARNED_AFTER
    }

    /// The tail probability of a score, which is learned afterwards: above 0 and at most 1, and 1 while too little is
    /// known. What is no number is 1 and teaches nothing.
    pub fn push(&mut self, score: f64) -> f64 {
        if score.is_nan() {
            return 1.0;
        }
        let tail = self.judge(score);
        self.learn(score);
        tail
    }

    /// The same without learning.
    pub fn judge(&self, score: f64) -> f64 {
        if !self.learned() || score.is_nan() || score < SCORE_MIN {
            return 1.0;
        }
        let score = score.min(SCORE_MAX);
        let counted = f64::from(self.counted()) + 1.0;
        let peaks = self.held();
        if peaks.is_empty() {
            return 1.0 / counted;
        }
        let lowest = f64::from(self.threshold);
        let rate = (peaks.len() as f64 / counted).min(1.0);
        if score > lowest {
            let fitted = rate * self.shape.beyond(score / lowest);
            let greater = peaks.partition_point(|p| f64::from(*p) >= score);
            return fitted.max(RANK_COUNTS * greater as f64 / counted);
        }
        if peaks.len() < PEAKS && !self.thinned {
            return ((peaks.len() as f64 + 1.0) / counted).min(1.0);
        }
        self.bulk.tail(score, (lowest, rate))
    }

    fn counted(&self) -> u32 {
        self.seen.saturating_sub(SKIPPED)
    }

    fn held(&self) -> &[f32] {
        &self.peaks[..usize::from(self.held).min(PEAKS)]
    }

    fn learn(&mut self, score: f64) {
        self.seen = self.seen.saturating_add(1).min(COUNTED_MAX);
        if self.seen <= SKIPPED {
            return;
        }
        let score = if score < SCORE_MIN {
            0.0
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "bounded above and below")]
            let score = score.min(SCORE_MAX) as f32;
            score
        };
        self.bulk.learn(score, self.counted());
        self.learn_peak(score);
        self.recent[usize::from(self.newest) % MERGE_POINTS] = score;
        self.newest = (self.newest + 1) % MERGE_SLOTS;
        if self.counted() >= self.thinned_after && self.held().len() == PEAKS {
            self.thin();
        }
    }

    /// Takes a score in that stands out from the points before it: as the same event, grown, or as a new one.
    fn learn_peak(&mut self, score: f32) {
        let held = self.held().len();
        let full = held == PEAKS;
        if score <= 0.0 || ((full || self.thinned) && score <= self.threshold) {
            return;
        }
        let before = self.recent.iter().copied().fold(0.0, f32::max);
        if score <= before {
            return;
        }
        let grown = self
            .held()
            .iter()
            .position(|p| p.to_bits() == before.to_bits());
        let mut place = match grown {
            Some(place) => place,
            None if full => PEAKS - 1,
            None => {
                self.held += 1;
                held
            }
        };
        while place > 0 && self.peaks[place - 1] < score {
            self.peaks[place] = self.peaks[place - 1];
            place -= 1;
        }
        self.peaks[place] = score;
        self.fit();
    }

    /// Every other peak goes, and half of the points with them: what comes now counts twice as much as what was.
    fn thin(&mut self) {
        let first = usize::from(self.first_goes);
        self.first_goes = !self.first_goes;
        for kept in 0..PEAKS / 2 {
            self.peaks[kept] = self.peaks[2 * kept + first];
        }
        self.held /= 2;
        self.seen = SKIPPED + self.counted() / 2;
        self.thinned_after = (2 * self.thinned_after).min(THINNED_AFTER);
        self.thinned = true;
        self.fit();
    }

    /// The threshold follows the lowest peak, but while there is room that a thinning made.
    fn fit(&mut self) {
        let held = usize::from(self.held).min(PEAKS);
        let room = self.thinned && held < PEAKS;
        if !room {
            self.threshold = self.peaks[held - 1];
        }
        let beyond = if room { held } else { held - 1 };
        self.shape = Shape::of(&self.peaks[..beyond], self.threshold, self.counted());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draws::Draws;

    const MONTH: u64 = 43_200;

    fn after(points: u64, mut score: impl FnMut(&mut Draws) -> f64) -> Tail {
        let (mut tail, mut draws) = (Tail::new(), Draws(7));
        for _ in 0..points {
            tail.push(score(&mut draws));
        }
        tail
    }

    /// Events with a tail of `nominal` a month, over what that promises: of 30 series for two months from the first
    /// point on.
    fn realised(per_month: f64, mut score: impl FnMut(&mut Draws, &mut f64) -> f64) -> f64 {
        let (series, months) = (30, 2);
        let level = per_month / MONTH as f64;
        let mut events = 0;
        for seed in 0..series {
            let (mut tail, mut draws) = (Tail::new(), Draws(seed * 1_000_003));
            let (mut state, mut quiet) = (0.0, MERGE_POINTS);
            for _ in 0..months * MONTH {
                if tail.push(score(&mut draws, &mut state)) > level {
                    quiet += 1;
                } else {
                    events += u64::from(quiet >= MERGE_POINTS);
                    quiet = 0;
                }
            }
        }
        events as f64 / (per_month * (series * months) as f64)
    }

    #[track_caller]
    fn kept(score: impl Fn(&mut Draws, &mut f64) -> f64) {
        for (per_month, low, high) in [(1.0, 0.6, 1.45), (10.0, 0.8, 1.2)] {
            let ratio = realised(per_month, &score);
            assert!((low..=high).contains(&ratio), "{per_month}: {ratio}");
        }
    }

    #[test]
    fn a_light_tail_is_as_rare_as_it_says() {
        kept(|draws, _| draws.normal().abs());
    }

    #[test]
    fn an_exponential_tail_is_as_rare_as_it_says() {
        kept(|draws, _| -draws.unit().ln());
    }

    #[test]
    fn a_heavy_tail_is_as_rare_as_it_says() {
        kept(|draws, _| draws.unit().powf(-1.0 / 3.0));
    }

    #[test]
    fn clusters_count_as_events() {
        kept(|draws, state| {
            *state = 0.9 * *state + 0.19_f64.sqrt() * draws.normal();
            state.abs()
        });
    }

    #[test]
    fn whole_numbers_are_as_rare_as_they_say() {
        kept(|draws, _| (-20.0 * draws.unit().ln()).floor());
    }

    #[test]
    fn jobs_that_come_again_and_again_are_known() {
        let tail = after(MONTH, |draws| {
            let job = if draws.unit() < 1.0 / 60.0 { 50.0 } else { 0.0 };
            draws.normal().abs() + job
        });
        assert!(tail.judge(50.0) > 1e-3, "{}", tail.judge(50.0));
        assert!(tail.judge(60.0) < 1e-6, "{}", tail.judge(60.0));
    }

    #[test]
    fn one_event_blinds_for_nothing_but_its_like() {
        let mut tail = after(2 * MONTH, |draws| draws.normal().abs());
        let alarm = 1.0 / MONTH as f64;
        for score in [40.0, 60.0, 80.0, 50.0, 20.0] {
            assert!(tail.push(score) < alarm);
        }
        // Five points are one event: what is as great is rare still, though no longer unheard of.
        assert!(tail.judge(70.0) < alarm, "{}", tail.judge(70.0));
        assert!(tail.judge(70.0) > 0.2 / (2 * MONTH) as f64);
        for _ in 0..10 {
            for _ in 0..20 {
                tail.push(1.0);
            }
            tail.push(80.0);
        }
        assert!(tail.judge(70.0) > alarm, "ten events are a habit");
    }

    #[test]
    fn a_series_that_was_always_still_is_judged_by_rank() {
        let mut tail = after(100_050, |_| 0.0);
        assert!((tail.judge(1e-3) * 100_001.0 - 1.0).abs() < 1e-9);
        assert!((tail.judge(0.0) - 1.0).abs() < 1e-9);
        for _ in 0..5 {
            tail.push(1.0);
            for _ in 0..MERGE_POINTS {
                tail.push(0.0);
            }
        }
        let known = 1.0 / tail.judge(0.9);
        assert!((1e4..2e4).contains(&known), "six of 100,000: {known}");
    }

    #[test]
    fn what_was_great_long_ago_is_forgotten() {
        let mut tail = after(MONTH, |draws| 10.0 * draws.normal().abs());
        let mut draws = Draws(3);
        let before = tail.judge(25.0);
        for _ in 0..24 * MONTH {
            tail.push(draws.normal().abs());
        }
        assert!(before > 1e-2, "{before}");
        assert!(tail.judge(25.0) < 2e-4, "{}", tail.judge(25.0));
    }

    #[test]
    fn nothing_is_said_before_enough_is_known() {
        let mut draws = Draws(1);
        let mut tail = Tail::new();
        for _ in 0..LEARNED_AFTER {
            assert!(!tail.learned());
            assert!((tail.push(draws.normal().abs()) - 1.0).abs() < f64::EPSILON);
        }
        assert!(tail.learned());
        assert!(tail.judge(1e9) < 0.01);
    }

    #[test]
    fn the_state_is_small() {
        assert!(size_of::<Tail>() <= 300, "{}", size_of::<Tail>());
    }

    #[test]
    fn the_unit_does_not_matter() {
        let (one, other) = (
            after(20_000, |draws| draws.normal().abs()),
            after(20_000, |draws| 1024.0 * draws.normal().abs()),
        );
        for score in [0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0] {
            let (a, b) = (one.judge(score), other.judge(1024.0 * score));
            assert!((a / b - 1.0).abs() < 0.01, "{score}: {a} {b}");
        }
    }

    fn any_score() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => 0.0..10.0_f64,
            2 => (-30.0..30.0_f64).prop_map(f64::exp),
            1 => Just(1.0),
            1 => any::<f64>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_comes_a_tail_is_a_probability_and_falls(
            scores in prop::collection::vec(any_score(), 0..900),
            skewed in 0_u32..3,
        ) {
            let mut tail = Tail::new();
            for _ in 0..skewed * 400 {
                tail.push(0.5);
            }
            for score in &scores {
                let p = tail.push(*score);
                prop_assert!(p > 0.0 && p <= 1.0, "{score}: {p}");
            }
            let mut before = 1.0;
            for exponent in -320..=310 {
                let p = tail.judge(10_f64.powf(f64::from(exponent) / 2.0));
                prop_assert!(p > 0.0 && p <= before, "1e{exponent}/2: {p} after {before}");
                before = p;
            }
            prop_assert!(tail.judge(f64::INFINITY) > 0.0);
            prop_assert!((tail.judge(f64::NAN) - 1.0).abs() < f64::EPSILON);
            let kept: Tail = serde_json::from_str(&serde_json::to_string(&tail).unwrap()).unwrap();
            prop_assert_eq!(kept, tail);
        }
    }
}
