//! One look at the next value: everything that is seen of it, before anything is learned.
//!
//! A look hands on what it computed, so that who judges first and learns later, or not at all, looks once.

use super::forecast::Residuals;
use super::grid::{Grid, Place};
use super::tail::{Pace, Tail};
use super::{Ensemble, Evidence, GRIDS, KINDS, REFERENCE_MS, VALUE_MAX};

/// What each kind must be beyond, in decades, before it counts, in [`Ensemble::evidence`]'s order.
const HANDICAP: [f64; KINDS] = [-0.5, 0.4, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0];
/// Falling is less often a fault than rising: it must be so many decades rarer.
const FALLING: f64 = 1.2;
/// The strongest evidence counts in full but for this share, of which all evidence gets its part: kinds that agree
/// are worth more than one alone.
const AGREEMENT: f64 = 0.1;
/// What a new context counts beside the tails, for each of the grids in [`Ensemble::novelty`]'s order.
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

/// What one look at a value sees while nothing is learned of it; good until the series changes.
pub(crate) struct Sight {
    pub(super) at_ms: i64,
    pub(super) value: f64,
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

/// What one value amounts to before damping.
pub(super) struct Finding {
    /// Decades, per five minutes of the series' time.
    pub(super) rarity: f64,
    pub(super) evidence: Evidence,
    /// Decades that once in all points is by chance, likewise.
    pub(super) chance: f64,
    pub(super) expected: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Ensemble {
    /// Looks at a finite value that would be the next one.
    pub(super) fn look(&self, at_ms: i64, value: f64) -> Sight {
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
    pub(super) fn find(&self, sight: &Sight) -> Finding {
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

    /// Learns what was seen.
    pub(super) fn learn(&mut self, sight: &Sight) {
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
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "evidence needs no more than the 7 digits of an f32"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}
