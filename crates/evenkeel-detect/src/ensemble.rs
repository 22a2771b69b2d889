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
mod tail;

use damping::Damping;
use forecast::{Bank, Residuals};
use grid::{Grid, Place};
use serde::{Deserialize, Serialize};
use tail::{Pace, Tail};

/// Kinds of evidence that have tails of their own, above and below; the last has one above only.
const KINDS: usize = 8;
/// What each kind must be beyond, in decades, before it counts, in [`Ensemble::evidence`]'s order.
const HANDICAP: [f64; KINDS] = [-0.5, 0.4, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0];
/// Falling is less often a fault than rising: it must be so many decades rarer.
const FALLING: f64 = 1.2;
/// The strongest evidence counts in full but for this share, of which all evidence gets its part: kinds that agree
/// are worth more than one alone.
const AGREEMENT: f64 = 0.1;
/// What a new context counts beside the tails, for each of the grids in [`Ensemble::novelty`]'s order.
const GRIDS: usize = 4;
const GRID_WEIGHT: [f64; GRIDS] = [1.0, 0.7, 0.6, 0.5];
const GRID_NAMES: [Evidence; GRIDS] = [
    Evidence::Range,
    Evidence::Context,
    Evidence::Context,
    Evidence::Season,
];
const GRIDS_TOGETHER: f64 = 1.1;
/// A distance of one twelfth of the range is where a new context begins to matter.
const GRID_SHARPNESS: f64 = 12.0;
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

/// What one look at a value sees while nothing is learned of it; good until the series changes.
pub(crate) struct Sight {
    at_ms: i64,
    value: f64,
    pace: Pace,
    residuals: Residuals,
    sizes: [f32; KINDS],
    places: [Place; GRIDS],
    /// Decades, for each point.
    rarity: f64,
    /// Decades of the points: what once in all of them is by chance.
    chance: f64,
    evidence: Evidence,
    expected: f64,
    low: f64,
    high: f64,
}

/// How a value was admitted.
enum Admitted {
    /// The series is as it was.
    Unchanged,
    /// Something began or was forgotten: what was seen of the value before is so no more.
    Changed,
}

/// What one value amounts to before damping.
struct Finding {
    /// Decades, per five minutes of the series' time.
    rarity: f64,
    evidence: Evidence,
    /// Decades that once in all points is by chance, likewise.
    chance: f64,
    expected: f64,
    low: f64,
    high: f64,
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

    /// Looks at a finite value that would be the next one.
    fn look(&self, at_ms: i64, value: f64) -> Sight {
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        let points = self.points.saturating_add(1);
        let pace = Pace::at(points);
        let chance = f64::from(points).log10();
        let (expected, low, high) = self.band(at_ms);
        let residuals = self.bank.look(at_ms, value, points);
        let places = self.places(value, &residuals);
        let (novelty, newest) = Self::novelty(&places, chance);

        let (mut best, mut sum, mut loudest) = (0.0, 0.0, Evidence::None);
        let mut sizes = [0.0; KINDS];
        let evidence = Self::evidence(&residuals, places[2].distance);
        for (kind, &(size, unit, name)) in evidence.iter().enumerate() {
            // What is beyond the number format is as far as it goes.
            let most = VALUE_MAX;
            let (size, unit) = (narrow(size.clamp(-most, most)), narrow(unit.min(most)));
            sizes[kind] = size;
            let mut hear = |tail: &Tail, size: f32, handicap: f64| {
                let rarity = f64::from(tail.rarity(size, unit, pace)) - handicap;
                if rarity > 0.0 {
                    sum += rarity;
                    if rarity > best {
                        (best, loudest) = (rarity, name);
                    }
                }
            };
            if size > 0.0 {
                hear(&self.above[kind], size, HANDICAP[kind]);
            } else if size < 0.0
                && let Some(tail) = self.below.get(kind)
            {
                hear(tail, -size, HANDICAP[kind] + FALLING);
            }
        }
        let strongest_novelty = novelty.iter().copied().fold(0.0, f64::max);
        let together = GRIDS_TOGETHER * novelty.iter().sum::<f64>();
        if together > best {
            loudest = newest;
        }
        sum += strongest_novelty;
        best = f64::max(best, strongest_novelty);
        Sight {
            at_ms,
            value,
            pace,
            residuals,
            sizes,
            places,
            rarity: (1.0 - AGREEMENT) * best + AGREEMENT * sum + together,
            chance,
            evidence: loudest,
            expected,
            low,
            high,
        }
    }

    /// What was seen amounts to this at the series' pace.
    fn find(&self, sight: &Sight) -> Finding {
        let time = (self.interval_ms.max(1000.0) / REFERENCE_MS).log10();
        Finding {
            rarity: sight.rarity + time,
            evidence: sight.evidence,
            chance: sight.chance + time,
            expected: sight.expected,
            low: sight.low,
            high: sight.high,
        }
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

    fn learn(&mut self, sight: &Sight) {
        self.points = self.points.saturating_add(1);
        let r = &sight.residuals;
        let at = (sight.at_ms, sight.value);
        self.bank.learn(at, r, self.points, self.interval_ms);
        let [value, trend, deviation, season] = &sight.places;
        self.value.learn(value, 0.0, sight.value, r.unit);
        if self.settling == 0 {
            self.trend.learn(trend, r.before, r.now, r.unit);
            self.deviation
                .learn(deviation, r.context, r.deviation, r.unit);
        }
        self.season.learn(season, 0.0, r.season_shift, r.unit);
        self.settling = self.settling.saturating_sub(1);
        for (kind, size) in sight.sizes.iter().enumerate() {
            self.above[kind].learn(*size, sight.pace);
            if let Some(tail) = self.below.get_mut(kind) {
                tail.learn(-size, sight.pace);
            }
        }
    }

    /// Size, least size that matters, and name of each kind of evidence.
    fn evidence(r: &Residuals, deviation_distance: f64) -> [(f64, f64, Evidence); KINDS] {
        const LOG_UNIT: f64 = 1e-3;
        [
            (r.fast, r.unit, Evidence::Point),
            (r.mean, r.unit, Evidence::Shift),
            (r.season, 1e-3, Evidence::Season),
            (r.log_fast, LOG_UNIT, Evidence::Point),
            (r.log_mean, LOG_UNIT, Evidence::Shift),
            (r.log_season, LOG_UNIT, Evidence::Season),
            (r.log_season_mean, LOG_UNIT, Evidence::Season),
            (deviation_distance, 1e-3, Evidence::Context),
        ]
    }

    /// Where the value lies on each grid.
    fn places(&self, value: f64, r: &Residuals) -> [Place; GRIDS] {
        let in_context = |grid: &Grid<32>, context, value| {
            if self.settling == 0 {
                grid.look(context, value, r.unit)
            } else {
                Place::default()
            }
        };
        [
            self.value.look(0.0, value, r.unit),
            in_context(&self.trend, r.before, r.now),
            in_context(&self.deviation, r.context, r.deviation),
            self.season.look(0.0, r.season_shift, r.unit),
        ]
    }

    /// What each grid's distance counts (decades), and the name of the one that counts most, after so many decades of
    /// points.
    fn novelty(places: &[Place; GRIDS], decades: f64) -> ([f64; GRIDS], Evidence) {
        let experience = (decades - 1.3).max(0.0);
        let mut counts = [0.0; GRIDS];
        let mut newest = (0.0, Evidence::None);
        for ((count, name), (place, weight)) in counts
            .iter_mut()
            .zip(GRID_NAMES)
            .zip(places.iter().zip(GRID_WEIGHT))
        {
            // Most values have been seen before, and need no logarithm.
            if place.distance > 0.0 {
                *count = weight * (GRID_SHARPNESS * place.distance).ln_1p() * experience;
            }
            if *count > newest.0 {
                newest = (*count, name);
            }
        }
        (counts, newest.1)
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

#[expect(
    clippy::cast_possible_truncation,
    reason = "evidence needs no more than the 7 digits of an f32"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}
