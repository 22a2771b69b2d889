//! Drift of one numeric series: is this value, here and now, unlike everything the series has done?
//!
//! A bank of forecasters (`forecast`) says what should have come; what came instead is evidence of several kinds.
//! Each kind is turned into a rarity by the series' own past (`tail`), values that were never seen in their context
//! add theirs (`grid`), and together they become a score that may be compared between series and that speaks up once
//! for a thing (`damping`). One set of constants serves every series; nothing is known of it beforehand.
//!
//! Rarities are counted in decades (`-log10` of a share) and per *time*, not per point: a threshold means as many
//! alarms a month for a series measured every minute as for one measured every hour.
//!
//! **Invariant:** what is not a finite number, comes twice or comes late changes nothing at all, and after a gap
//! nobody is accused of what happened unseen.

mod damping;
mod forecast;
mod grid;
mod sight;
mod tail;

use damping::Damping;
use forecast::Bank;
use grid::Grid;
use serde::{Deserialize, Serialize};
use sight::Finding;
pub(crate) use sight::Sight;
use tail::Tail;

/// Kinds of evidence that have tails of their own, above and below; the last has one above only.
const KINDS: usize = 8;
/// Grids that say what is new.
const GRIDS: usize = 4;
/// The interval for which rarities are given, in milliseconds.
const REFERENCE_MS: f64 = 300_000.0;
/// A gap is more than so many usual intervals without a value.
const GAP_INTERVALS: f64 = 4.0;
/// So many values after a gap no context is known: the levels that make it are still on their way.
const SETTLING_POINTS: u8 = 16;
/// So many values in a row from before the newest one: then it is the clock that was set back.
const CLOCK_SET_BACK: u8 = 20;
/// Each day the great events of the past fade by this share: half in a year.
const FADE_A_DAY: f32 = 0.002;
const DAY_MS: i64 = 86_400_000;
/// What the grids have seen is kept for one to two generations, each at least so long and of so many points.
const GENERATION_MS: i64 = 60 * DAY_MS;
const GENERATION_POINTS: u32 = 8192;
/// Values beyond this (in either direction) are taken as this.
const VALUE_MAX: f64 = 1e30;

/// What spoke loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing did.
    None,
    /// One value far from those just before it.
    Point,
    /// Values that are unusual for this time of day.
    Season,
    /// The last few values together have left the level.
    Shift,
    /// A value beyond, or in a gap of, all that was ever seen.
    Range,
    /// A value that is usual elsewhere and was never seen after such values.
    Context,
}

/// What the ensemble says of one value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// How much of news this is: 0 (nothing) to 1 (never in any lifetime), comparable between series.
    pub anomaly: f64,
    /// The same without regard to what stands already: it stays up for as long as the evidence does.
    pub strength: f64,
    /// Nominal probability that a healthy series raises such a score or a greater one at any one point: 0 to 1.
    pub tail: f64,
    /// The value that was expected, in the series' unit.
    pub expected: f64,
    /// The usual band around it, in the series' unit: 3 % of the values are below, and 3 % above.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// What spoke loudest.
    pub evidence: Evidence,
}

/// The state of one series. Start with [`Ensemble::default`] or [`Ensemble::new`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ensemble {
    points: u32,
    last_ms: i64,
    interval_ms: f64,
    late: u8,
    settling: u8,
    day: i64,
    generation_ms: i64,
    generation_points: u32,
    bank: Bank,
    above: [Tail; KINDS],
    below: [Tail; KINDS - 1],
    value: Grid<1>,
    season: Grid<1>,
    trend: Grid<32>,
    deviation: Grid<32>,
    damping: Damping,
    rareness: crate::tail::Tail,
}

/// How a value was admitted.
enum Admitted {
    /// The series is as it was.
    Unchanged,
    /// Something began or was forgotten: what was seen of the value before is so no more.
    Changed,
}

impl Ensemble {
    /// A series of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges `value`, measured at `at_ms` (Unix time in milliseconds), and learns it. What is not finite, or not
    /// newer than the last one, is neither judged nor learned.
    pub fn push(&mut self, at_ms: i64, value: f64) -> Score {
        if self.admit(at_ms, value).is_none() {
            return self.quiet(at_ms);
        }
        let sight = self.look(at_ms, value);
        self.take(&sight)
    }

    /// [`Ensemble::push`] of what was seen already.
    pub(crate) fn push_seen(&mut self, sight: &Sight) -> Score {
        match self.admit(sight.at_ms, sight.value) {
            None => self.quiet(sight.at_ms),
            Some(Admitted::Unchanged) => self.take(sight),
            Some(Admitted::Changed) => {
                let sight = self.look(sight.at_ms, sight.value);
                self.take(&sight)
            }
        }
    }

    /// Judges `value` as [`Ensemble::push`] does and learns nothing: for use while something is wrong. What stands
    /// already is not damped, so that this says whether the value is unusual *in itself*.
    pub fn judge(&self, at_ms: i64, value: f64) -> Score {
        self.see(at_ms, value)
            .map_or_else(|| self.quiet(at_ms), |sight| self.judge_seen(&sight))
    }

    /// A look at a value that may be judged, and learned afterwards: nothing where it is no number, or the first.
    pub(crate) fn see(&self, at_ms: i64, value: f64) -> Option<Sight> {
        (value.is_finite() && self.points > 0).then(|| self.look(at_ms, value))
    }

    /// [`Ensemble::judge`] of what was seen already.
    pub(crate) fn judge_seen(&self, sight: &Sight) -> Score {
        let finding = self.find(sight);
        let score = finding.rarity - self.damping.restlessness(finding.chance);
        self.scored(score, self.rareness.judge(height(score)), &finding)
    }

    /// Enough was learned to say how rare a value is; before, nothing is.
    pub fn learned(&self) -> bool {
        self.rareness.learned()
    }

    /// Values that were learned.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Whether the value counts; if so the clock has moved on to it.
    fn admit(&mut self, at_ms: i64, value: f64) -> Option<Admitted> {
        if !value.is_finite() {
            return None;
        }
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        let mut admitted = Admitted::Unchanged;
        if self.points == 0 {
            self.bank.start(value);
            admitted = Admitted::Changed;
        } else {
            let step_ms = at_ms.saturating_sub(self.last_ms);
            if step_ms <= 0 {
                self.late = if step_ms < 0 {
                    self.late.saturating_add(1)
                } else {
                    self.late
                };
                if self.late < CLOCK_SET_BACK {
                    return None;
                }
                self.resume(value);
                admitted = Admitted::Changed;
            } else {
                let step = step_ms as f64;
                if self.interval_ms <= 0.0 {
                    self.interval_ms = step;
                } else if step > GAP_INTERVALS * self.interval_ms {
                    self.resume(value);
                    admitted = Admitted::Changed;
                }
                // A running median: one step of 2 % towards each interval.
                let towards = if step > self.interval_ms { 1.02 } else { 0.98 };
                if (step - self.interval_ms).abs() > 0.02 * self.interval_ms {
                    self.interval_ms *= towards;
                }
            }
        }
        self.late = 0;
        if self.age(at_ms) {
            admitted = Admitted::Changed;
        }
        self.last_ms = at_ms;
        Some(admitted)
    }

    fn resume(&mut self, value: f64) {
        self.bank.resume(value);
        self.settling = SETTLING_POINTS;
    }

    /// Lets the past fade, once a day and once a generation. Whether it did.
    fn age(&mut self, at_ms: i64) -> bool {
        let day = at_ms.div_euclid(DAY_MS);
        let mut faded = false;
        if self.points == 0 {
            (self.day, self.generation_ms) = (day, at_ms);
        }
        if day != self.day {
            self.day = day;
            for tail in self.above.iter_mut().chain(&mut self.below) {
                tail.fade(FADE_A_DAY);
            }
            faded = true;
        }
        self.generation_points = self.generation_points.saturating_add(1);
        let old = at_ms.saturating_sub(self.generation_ms);
        if self.generation_points > GENERATION_POINTS && !(0..GENERATION_MS).contains(&old) {
            (self.generation_ms, self.generation_points) = (at_ms, 0);
            self.value.turn();
            self.season.turn();
            self.trend.turn();
            self.deviation.turn();
            faded = true;
        }
        faded
    }

    /// Scores what was seen, and learns it.
    fn take(&mut self, sight: &Sight) -> Score {
        self.learn(sight);
        let finding = self.find(sight);
        let interval = self.interval_ms / REFERENCE_MS;
        let score = self.damping.push(finding.rarity, finding.chance, interval);
        let tail = self.rareness.push(height(score));
        self.scored(score, tail, &finding)
    }

    /// What is expected at `at_ms`, and between which bounds all but 3 % on either side have been.
    fn band(&self, at_ms: i64) -> (f64, f64, f64) {
        let (expected, by_season) = self.bank.expected(at_ms);
        let (kind, scale) = if by_season {
            (2, self.bank.season_scale())
        } else {
            (0, 1.0)
        };
        let low = expected - scale * f64::from(self.below[kind].quantile());
        let high = expected + scale * f64::from(self.above[kind].quantile());
        (expected, low, high)
    }

    fn scored(&self, score: f64, tail: f64, finding: &Finding) -> Score {
        let undamped = finding.rarity - self.damping.restlessness(finding.chance);
        Score {
            anomaly: share(score),
            strength: share(score.max(undamped)),
            tail,
            expected: finding.expected,
            low: finding.low,
            high: finding.high,
            evidence: finding.evidence,
        }
    }

    /// What is said of a value that does not count.
    fn quiet(&self, at_ms: i64) -> Score {
        let (expected, low, high) = self.band(at_ms);
        Score {
            anomaly: 0.0,
            strength: 0.0,
            tail: 1.0,
            expected,
            low,
            high,
            evidence: Evidence::None,
        }
    }
}

/// A score as a share: 0 at -3 and below, a half at 3, two thirds at 9.
fn share(score: f64) -> f64 {
    let height = height(score);
    height / (height + 6.0)
}

/// A score as a height above nothing.
fn height(score: f64) -> f64 {
    score.max(-3.0) + 3.0
}
