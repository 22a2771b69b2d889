//! How rare a piece of evidence is for this one series, judged by the series' own past.
//!
//! Two looks at the same past, because either alone is fooled. The *peaks* (the ten greatest separate events ever
//! seen) know what the series does on its worst days; the *bulk* (a running quantile, and how far values usually
//! exceed it) knows what an ordinary day looks like, and still raises its voice when the same fault comes back.
//! Both extrapolate beyond what was seen by a power law (Weissman 1978), whose index is Hill's (1975), drawn towards
//! a prior while there is little to go by.

#![expect(
    clippy::cast_possible_truncation,
    reason = "rarities need no more than the 7 digits of an f32, places among ten peaks no more than a byte"
)]

use serde::{Deserialize, Serialize};

/// Separate events that are remembered.
const PEAKS: usize = 10;
/// Points within which exceedances are one event.
const EVENT_POINTS: u16 = 10;
/// The share of points below the running quantile.
const QUANTILE: f64 = 0.97;
/// Hill's sum over the peaks starts with this many events of this size (in nepers): index 15, a light tail.
const PRIOR_PEAKS: f32 = 1.5;
const PRIOR_PEAKS_SUM: f32 = 0.1;
/// The mean exceedance of the bulk starts with this many exceedances of this size (in nepers).
const PRIOR_EXCEEDANCES: f32 = 30.0;
const PRIOR_EXCEEDANCE: f32 = 0.245;
/// Exceedances over which their mean forgets.
const EXCEEDANCE_MEMORY: f32 = 8.0;
/// Greatest exceedance that is learned, in nepers: an outage must not teach that outages are usual.
const EXCEEDANCE_MAX: f32 = 7.0;
/// How much of the verdict the peaks have; the bulk has the rest.
const PEAKS_SHARE: f32 = 0.73;
/// How far, in decades, the bulk may go beyond what the peaks say.
const BULK_LEAD: f32 = 2.0;
/// The quantile is taken no lower than this share of the smallest peak: a series that is zero most of the time has
/// a quantile of zero, and everything is infinitely beyond that.
const QUANTILE_FLOOR: f32 = 0.01;
/// The quantiles' steps grow smaller by this power of the points, with a floor so that a series may change its ways,
const STEP_POWER: f64 = -0.7;
const STEP_MIN: f64 = 0.015;
/// which is reached at this point.
const SETTLED_POINTS: u32 = 404;
/// Points before anything is judged.
const WARM_UP_POINTS: u32 = 20;

/// What all tails of a series share at one point: how much was seen, and how fast the quantiles move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    points: u32,
    rise: f32,
    fall: f32,
    /// Decades of the points seen so far, and of a few more, so that the first do not count as none.
    pub(super) decades: f32,
}

impl Pace {
    /// At the point number `points`, counted from 1.
    pub(super) fn at(points: u32) -> Self {
        let (rise, fall) = if points < SETTLED_POINTS {
            moves(f64::from(points).powf(STEP_POWER).max(STEP_MIN))
        } else {
            moves(STEP_MIN)
        };
        Self {
            points,
            rise,
            fall,
            decades: (f64::from(points) + 9.0).log10() as f32,
        }
    }
}

/// How the quantiles rise and fall by one of Robbins and Monro's steps (1951).
fn moves(step: f64) -> (f32, f32) {
    let step = 4.0 * step;
    let (rise, fall) = (step * QUANTILE, -step * (1.0 - QUANTILE));
    (rise.exp() as f32, fall.exp() as f32)
}

/// One side of one kind of evidence.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Tail {
    peaks: [f32; PEAKS],
    smallest: f32,
    index: f32,
    quantile: f32,
    exceedance: f32,
    exceedances: f32,
    since_event: u16,
    have: u8,
    event: u8,
}

impl Tail {
    /// How rare a value as great as `evidence` is, in decades (`-log10` of its share of all points); 0 when it is
    /// nothing special or little is known. `unit` is the least that could matter, in the evidence's own unit.
    pub(super) fn rarity(&self, evidence: f32, unit: f32, pace: Pace) -> f32 {
        let quantile = self.floored_quantile().max(unit);
        if evidence <= quantile || pace.points < WARM_UP_POINTS {
            return 0.0;
        }
        let usual = self
            .exceedance
            .mul_add(self.exceedances, PRIOR_EXCEEDANCE * PRIOR_EXCEEDANCES)
            / (self.exceedances + PRIOR_EXCEEDANCES);
        let rare = -((1.0 - QUANTILE).log10() as f32);
        let bulk = rare + (evidence / quantile).ln() / usual * std::f32::consts::LOG10_E;
        let smallest = self.smallest.max(unit);
        let peaks = if self.have >= 3 && evidence > smallest {
            pace.decades - f32::from(self.have).log10() + self.index * (evidence / smallest).log10()
        } else {
            0.0
        };
        PEAKS_SHARE.mul_add(peaks, (1.0 - PEAKS_SHARE) * bulk.min(peaks + BULK_LEAD))
    }

    /// The value that all but 3 % of the points stay below, in the evidence's unit.
    pub(super) fn quantile(&self) -> f32 {
        self.quantile
    }

    /// Takes one point's evidence in; what is not above zero only says that nothing happened on this side.
    pub(super) fn learn(&mut self, evidence: f32, pace: Pace) {
        self.since_event = self.since_event.saturating_add(1);
        if evidence <= 0.0 {
            self.quantile *= pace.fall;
            return;
        }
        if self.quantile <= f32::MIN_POSITIVE {
            self.quantile = evidence;
        }
        if evidence > self.quantile {
            if pace.points > WARM_UP_POINTS {
                let beyond = (evidence / self.floored_quantile()).max(1.0).ln();
                self.exceedances = (self.exceedances + 1.0).min(1e6);
                self.exceedance += (beyond.min(EXCEEDANCE_MAX) - self.exceedance)
                    * EXCEEDANCE_MEMORY.min(self.exceedances).recip();
            }
            self.quantile *= pace.rise;
        } else {
            self.quantile *= pace.fall;
        }
        self.remember(evidence);
    }

    /// Lets the great events fade by `share`: what has not come again for months is no longer usual.
    pub(super) fn fade(&mut self, share: f32) {
        for peak in &mut self.peaks {
            *peak *= 1.0 - share;
        }
        self.smallest *= 1.0 - share;
    }

    fn floored_quantile(&self) -> f32 {
        self.quantile.max(self.smallest * QUANTILE_FLOOR)
    }

    fn remember(&mut self, evidence: f32) {
        let have = usize::from(self.have);
        if self.since_event <= EVENT_POINTS && usize::from(self.event) < have {
            let peak = &mut self.peaks[usize::from(self.event)];
            if evidence > *peak {
                *peak = evidence;
                self.since_event = 0;
                self.refit();
            } else if evidence > self.smallest {
                self.since_event = 0;
            }
            return;
        }
        let place = if have < PEAKS {
            self.have += 1;
            have
        } else if evidence > self.smallest {
            (0..PEAKS).fold(0, |least, i| {
                if self.peaks[i] < self.peaks[least] {
                    i
                } else {
                    least
                }
            })
        } else {
            return;
        };
        self.peaks[place] = evidence;
        self.event = place as u8;
        self.since_event = 0;
        self.refit();
    }

    fn refit(&mut self) {
        let peaks = &self.peaks[..usize::from(self.have)];
        self.smallest = peaks.iter().copied().fold(f32::INFINITY, f32::min);
        let sum: f32 = peaks.iter().map(|peak| (peak / self.smallest).ln()).sum();
        self.index = (f32::from(self.have) - 1.0 + PRIOR_PEAKS) / (sum + PRIOR_PEAKS_SUM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taught(values: impl Iterator<Item = f32>) -> (Tail, Pace) {
        let mut tail = Tail::default();
        let mut pace = Pace::at(1);
        for (i, value) in values.enumerate() {
            pace = Pace::at(i as u32 + 1);
            tail.learn(value, pace);
        }
        (tail, pace)
    }

    /// A power law with index 4 by the golden ratio's low-discrepancy sequence.
    fn pareto(n: usize) -> impl Iterator<Item = f32> {
        (1..=n).map(|i| (1.0 - (i as f64 * 0.618_033_988_749_895).fract()).powf(-0.25) as f32)
    }

    #[test]
    fn a_rarer_value_is_never_less_rare() {
        let (tail, pace) = taught(pareto(5000));
        let mut last = 0.0;
        for i in 0..200 {
            let rarity = tail.rarity(1.0 + i as f32 * 0.5, 1e-6, pace);
            assert!(rarity >= last, "{rarity} after {last} at {i}");
            last = rarity;
        }
        assert!(last > 4.0);
    }

    #[test]
    fn the_quantile_is_where_it_says() {
        let (tail, _) = taught(pareto(20_000));
        let truth = 0.03_f64.powf(-0.25) as f32;
        assert!(
            (tail.quantile() / truth - 1.0).abs() < 0.15,
            "{}",
            tail.quantile()
        );
    }

    #[test]
    fn what_came_often_is_less_rare_than_what_never_came() {
        let spiky = |n: usize| {
            (0..n).map(|i| {
                if i % 200 == 199 {
                    50.0
                } else {
                    1.0 + (i % 7) as f32 * 0.1
                }
            })
        };
        let calm = |n: usize| (0..n).map(|i| 1.0 + (i % 7) as f32 * 0.1);
        let (often, pace) = taught(spiky(4000));
        let (never, _) = taught(calm(4000));
        assert!(often.rarity(50.0, 1e-6, pace) + 3.0 < never.rarity(50.0, 1e-6, pace));
    }

    #[test]
    fn the_steps_are_settled_where_their_floor_is_reached() {
        let step = |points: u32| f64::from(points).powf(STEP_POWER);
        assert!(step(SETTLED_POINTS - 1) > STEP_MIN && step(SETTLED_POINTS) < STEP_MIN);
        let computed = moves(std::hint::black_box(STEP_MIN));
        let settled = Pace::at(SETTLED_POINTS);
        assert_eq!(computed, (settled.rise, settled.fall));
    }

    #[test]
    fn nothing_is_judged_before_the_warm_up() {
        let (tail, pace) = taught((0..10).map(|_| 1.0));
        assert!(tail.rarity(1e9, 1e-6, pace) <= 0.0);
    }
}
