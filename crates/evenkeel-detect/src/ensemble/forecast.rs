//! What the next value of a series should be: levels of several speeds, and the profile of the day.
//!
//! Each forecaster is a running mean with a half life. The slow ones take a shock in only so far (Huber 1964), so
//! that an outage does not become the baseline; the fast ones follow at once. The profile keeps a level for each
//! hour of the day (UTC), forgets over days rather than points, and says nothing for an hour never seen.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "differences from the first value need no more than 7 digits; an hour of the day is 0 to 23"
)]

use serde::{Deserialize, Serialize};

/// Hours of the day.
const HOURS: usize = 24;
const DAY_MS: i64 = 86_400_000;
/// Half lives, in points.
const FAST: f64 = 10.0;
const MEAN: f64 = 8.0;
const CONTEXT: f64 = 16.0;
const LAGGED: f64 = 11.2;
const SLOW: f64 = 90.0;
const SIZE: f64 = 2400.0;
const SCALE: f64 = 43.0;
const SEASON_SHIFT: f64 = 4.0;
/// Half life of the profile's hours, in days.
const PROFILE_DAYS: f64 = 3.0;
/// A shock counts as at most so many mean deviations for the slow levels.
const SHOCK_MAX: f64 = 10.0;
/// Points before shocks are limited: until then nobody knows what is large.
const WARM_UP_POINTS: u32 = 20;
/// How many points back the lagged level looks.
const LAG_POINTS: usize = 16;
/// The logarithm is softened around zero at this share of the usual size.
const SOFT: f64 = 0.03;

/// The weight of the newest point in a running mean with this half life.
fn weight(half_life: f64) -> f64 {
    1.0 - (-std::f64::consts::LN_2 / half_life).exp()
}

/// How far the newest value is from what was expected of it, in the ways that proved their worth.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Residuals {
    /// Against the fast level, in the value's unit.
    pub(super) fast: f64,
    /// The last few values' mean against the slow level, in the value's unit.
    pub(super) mean: f64,
    /// Against the hour's profile, in mean deviations from it.
    pub(super) season: f64,
    /// The same three, and a short mean of the third, as differences of logarithms.
    pub(super) log_fast: f64,
    pub(super) log_mean: f64,
    pub(super) log_season: f64,
    pub(super) log_season_mean: f64,
    /// The context level, and the value's distance from it.
    pub(super) context: f64,
    pub(super) deviation: f64,
    /// The lagged level's past and present.
    pub(super) before: f64,
    pub(super) now: f64,
    /// How far the last few values were above their hours' profile, in the value's unit.
    pub(super) season_shift: f64,
    /// The least change that could matter, in the value's unit.
    pub(super) unit: f64,
    /// The last few values' mean and that of their logarithms, the newest among them.
    mean_level: f64,
    log_mean_level: f64,
}

/// The forecasters of one series.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Bank {
    fast: f64,
    mean: f64,
    context: f64,
    lagged: f64,
    slow: f64,
    all: f64,
    size: f64,
    last: f64,
    last_deviation: f64,
    slow_deviation: f64,
    season_deviation: f64,
    season_shift: f64,
    log_mean: f64,
    log_season_mean: f64,
    /// Where the profile's and the lag's zero is: the first value. Differences fit in 4 bytes, values may not.
    origin: f64,
    lag: [f32; LAG_POINTS],
    profile: [f32; HOURS],
    profile_points: [u16; HOURS],
}

impl Bank {
    /// Starts at the first value.
    pub(super) fn start(&mut self, value: f64) {
        self.fast = value;
        self.mean = value;
        self.context = value;
        self.lagged = value;
        self.slow = value;
        self.all = value;
        self.size = value.abs();
        self.last = value;
        self.origin = value;
    }

    /// After a gap: what followed the value closely takes it as it is, for nobody saw how it got there.
    pub(super) fn resume(&mut self, value: f64) {
        self.fast = value;
        self.last = value;
        self.context = value;
        self.lagged = value;
        self.lag = [(value - self.origin) as f32; LAG_POINTS];
    }

    /// What was expected at `at_ms`: by the hour's profile if it has been nearer the truth than the slow level,
    /// else by the fast level. The second says whether it was the profile.
    pub(super) fn expected(&self, at_ms: i64) -> (f64, bool) {
        let hour = hour(at_ms);
        if self.profile_points[hour] > 0 && self.season_deviation < self.slow_deviation {
            (self.season(hour), true)
        } else {
            (self.fast, false)
        }
    }

    /// The mean deviation from the hour's profile, in the value's unit; never 0.
    pub(super) fn season_scale(&self) -> f64 {
        self.season_deviation.max(self.unit())
    }

    fn unit(&self) -> f64 {
        (1e-3 * self.size).max(1e-12)
    }

    fn season(&self, hour: usize) -> f64 {
        if self.profile_points[hour] > 0 {
            self.origin + f64::from(self.profile[hour])
        } else {
            self.all
        }
    }

    /// Looks at point number `points` (from 1).
    pub(super) fn look(&self, at_ms: i64, value: f64, points: u32) -> Residuals {
        let season = self.season(hour(at_ms));
        let unit = self.unit();
        let first = 1.0 / f64::from(points);
        let by = |half_life: f64| weight(half_life).max(first);
        let soft = SOFT * self.size.max(1e-12);
        let log = |x: f64| (x / soft).asinh();

        let mean_level = self.mean + by(MEAN) * (value - self.mean);
        let (log_value, log_season) = (log(value), log(season));
        let log_mean_level = self.log_mean + by(MEAN) * (log_value - self.log_mean);
        let log_season_mean =
            self.log_season_mean + 0.5 * (log_value - log_season - self.log_season_mean);
        let context = self.context + weight(CONTEXT) * (value - self.context);
        let lagged = self.lagged + weight(LAGGED) * (value - self.lagged);
        Residuals {
            fast: value - self.fast,
            mean: mean_level - self.slow,
            season: (value - season) / self.season_scale(),
            log_fast: log_value - log(self.fast),
            log_mean: log_mean_level - log(self.slow),
            log_season: log_value - log_season,
            log_season_mean,
            context,
            deviation: value - context,
            before: self.origin + f64::from(self.lag[lag_slot(points)]),
            now: lagged,
            season_shift: self.season_shift,
            unit,
            mean_level,
            log_mean_level,
        }
    }

    /// Learns what [`Bank::look`] found; `interval_ms` is the usual time between two points.
    pub(super) fn learn(
        &mut self,
        (at_ms, value): (i64, f64),
        found: &Residuals,
        points: u32,
        interval_ms: f64,
    ) {
        let hour = hour(at_ms);
        self.mean = found.mean_level;
        self.log_mean = found.log_mean_level;
        self.log_season_mean = found.log_season_mean;
        self.context = found.context;
        self.lagged = found.now;
        self.lag[lag_slot(points)] = (self.lagged - self.origin) as f32;
        let first = 1.0 / f64::from(points);
        let by = |half_life: f64| weight(half_life).max(first);
        let limited = |shock: f64, deviation: f64| {
            if points > WARM_UP_POINTS {
                let most = SHOCK_MAX * deviation.max(1e-12);
                shock.clamp(-most, most)
            } else {
                shock
            }
        };
        let season_off = value - self.season(hour);
        let slow_off = value - self.slow;
        let last_off = value - self.last;
        self.last = value;
        self.fast += by(FAST) * (value - self.fast);
        self.slow += by(SLOW) * limited(slow_off, self.slow_deviation.max(self.last_deviation));
        self.all += by(SIZE)
            * limited(
                value - self.all,
                2.0 * self.slow_deviation.max(self.last_deviation),
            );
        self.season_shift += by(SEASON_SHIFT) * (season_off - self.season_shift);
        let size_max = if points > WARM_UP_POINTS {
            10.0 * self.size
        } else {
            f64::INFINITY
        };
        self.size += by(SIZE) * (value.abs().min(size_max) - self.size);
        for (deviation, off) in [
            (&mut self.last_deviation, last_off),
            (&mut self.slow_deviation, slow_off),
            (&mut self.season_deviation, season_off),
        ] {
            let off = limited(off, 2.0 * *deviation).abs();
            *deviation += by(SCALE) * (off - *deviation);
        }
        let seen = self.profile_points[hour].saturating_add(1);
        self.profile_points[hour] = seen;
        let hour_points = (DAY_MS as f64 / HOURS as f64 / interval_ms.max(1.0)).max(1.0);
        let share =
            (std::f64::consts::LN_2 / (PROFILE_DAYS * hour_points)).max(1.0 / f64::from(seen));
        let level = f64::from(self.profile[hour]);
        self.profile[hour] = (share.mul_add(value - self.origin - level, level)) as f32;
    }
}

/// Where the lagged level of point number `points` lies, over the one that is forgotten for it.
fn lag_slot(points: u32) -> usize {
    points as usize % LAG_POINTS
}

fn hour(at_ms: i64) -> usize {
    (at_ms.rem_euclid(DAY_MS) * HOURS as i64 / DAY_MS) as usize
}
