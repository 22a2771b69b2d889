//! How often a level is passed, as events: measured where it happens, extrapolated beyond.
//!
//! A detector's tail probabilities say how often a *point* is so rare. An alarm is an *event*: neighbouring points of
//! one excursion are one, and how many belong together depends on the series. So events are counted at a ladder of
//! levels, and one that goes on is counted anew now and then: so never fewer are counted than a deeper level, which it may
//! pass again and again, could have. From rung to rung a share of them survives; that share is estimated from the counts, each rung's estimate
//! drawn towards the one above it by some pseudo-counts, and goes on unchanged where nothing was counted yet. That
//! is the conditional-survival form of a Hill estimate (Hill 1975) over declustered exceedances (runs estimator,
//! Leadbetter et al. 1989), and it serves for single points and for `k` of `n` alike: dependence shows in the shares.
//!
//! A series is drawn towards all series together, so a new one begins with what the others have shown.

use serde::{Deserialize, Serialize};

/// Rungs of a ladder.
const RUNGS: usize = 16;
/// Deepest events whose levels are kept as they are.
const DEEPEST: usize = 16;
/// How deep each rung is, in decades below the highest one: close where things are counted, and far enough down for a
/// tail that is much too light.
const DEPTHS: [f64; RUNGS] = [
    0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 6.0, 8.0, 12.0, 18.0, 27.0,
];
/// Least decades of events for a decade of levels.
const SLOPE_MIN: f64 = 0.05;
/// Most decades of events for a decade of levels, in those of independent points.
const SLOPE_MAX: f64 = 1.25;
/// Points without one beyond a level, after which the next is another event.
pub(super) const MERGE_POINTS: u8 = 12;
/// Events that an estimate from the rung above counts as.
const PSEUDO_EVENTS: f64 = 8.0;
/// Points that the nominal rate at the highest rung counts as.
const PSEUDO_POINTS: f64 = 2_000.0;
/// What of the events of one rung counts at the next, with its pseudo-events.
const HANDED_DOWN: f64 = 0.1;
/// What of a series' deviation from all series is expected at the next rung too, as an exponent.
const KEEPS_DEVIATING: f64 = 0.7;
/// Points after which the counts of one series are halved: three months of minutes.
const HALVED_AFTER: f64 = 131_072.0;
/// Points after which the counts of all series together are halved.
const ALL_HALVED_AFTER: f64 = 67_108_864.0;

/// Newest points of which some must be rare for what lasts.
pub(super) const LASTING_OF: u8 = 5;

/// What is watched: that `needs` of the newest points are rare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Watch {
    pub(super) needs: usize,
    /// Logarithm (base 10) of the level of the highest rung.
    top: f64,
    /// Events per point at the highest rung, roughly, for independent points.
    top_rate: f64,
}

impl Watch {
    /// One rare point.
    pub(super) const POINT: Self = Self {
        needs: 1,
        top: -1.5,
        top_rate: 0.021_5,
    };
    /// Three rare points of five: the newest, and two of the four before it.
    pub(super) const LASTING: Self = Self {
        needs: 3,
        top: -0.75,
        top_rate: 0.016,
    };

    fn bounded(self, slope: f64) -> f64 {
        slope.clamp(SLOPE_MIN, SLOPE_MAX * self.needs as f64)
    }

    /// Rungs that `level` reaches, 0 to [`RUNGS`].
    fn depth(self, level: f64) -> u8 {
        let below = self.top - level.log10();
        let reached = DEPTHS.iter().take_while(|d| **d <= below);
        reached.map(|_| 1).sum()
    }
}

/// Decades of events for a decade of levels, between rung `j - 1` and rung `j`: `prior` counts as `weight` events.
fn slope(events: &[f64; RUNGS], j: usize, prior: f64, weight: f64) -> f64 {
    let step = DEPTHS[j] - DEPTHS[j - 1];
    let expected = weight * 10_f64.powf(-step * prior);
    let survive = (events[j] + expected) / (events[j - 1] + weight);
    -survive.max(f64::MIN_POSITIVE).log10() / step
}

/// Points and events of one series, or of all together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counts {
    points: f64,
    events: [f64; RUNGS],
    /// The levels of the deepest events, the deepest first; 1 where there was none.
    deepest: [f32; DEEPEST],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            points: 0.0,
            events: [0.0; RUNGS],
            deepest: [1.0; DEEPEST],
        }
    }
}

impl Counts {
    fn halve_above(&mut self, points: f64) {
        if self.points > points {
            self.points /= 2.0;
            for events in &mut self.events {
                *events /= 2.0;
            }
            // Every other one stands for the half of them.
            let before = self.deepest;
            self.deepest = [1.0; DEEPEST];
            for (kept, level) in self
                .deepest
                .iter_mut()
                .zip(before.iter().skip(1).step_by(2))
            {
                *kept = *level;
            }
        }
    }

    /// Events per point that were at least as deep as `level`, as they were counted: no more than a few, and a tail
    /// that ends in a lump, all of it beyond some rung, shows nowhere else.
    fn counted(&self, level: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "as it is kept")]
        let level = level as f32;
        let as_deep = self.deepest.iter().take_while(|d| **d <= level);
        as_deep.map(|_| 1.0).sum::<f64>() / self.points.max(1.0)
    }

    fn keep(&mut self, level: f32) {
        let at = self.deepest.partition_point(|d| *d <= level);
        if at < DEEPEST {
            self.deepest[at..].rotate_right(1);
            self.deepest[at] = level;
        }
    }

    #[cfg(test)]
    pub(super) fn events(&self) -> &[f64] {
        &self.events
    }

    fn drop(&mut self, level: f32) {
        if let Some(at) = self
            .deepest
            .iter()
            .position(|d| d.total_cmp(&level).is_eq())
        {
            self.deepest[at..].rotate_left(1);
            self.deepest[DEEPEST - 1] = 1.0;
        }
    }

    fn top(&self, prior: f64) -> f64 {
        (self.events[0] + prior * PSEUDO_POINTS) / (self.points + PSEUDO_POINTS)
    }

    fn shape(&self, watch: Watch) -> Shape {
        // Neighbours depend on each other, how much is not known yet: half way between fully and not at all.
        let mut slopes = [f64::midpoint(1.0, watch.needs as f64); RUNGS];
        let mut weight = PSEUDO_EVENTS;
        for j in 1..RUNGS {
            slopes[j] = watch.bounded(slope(&self.events, j, slopes[j - 1], weight));
            weight = f64::max(PSEUDO_EVENTS, HANDED_DOWN * (self.events[j - 1] + weight));
        }
        Shape {
            top: self.top(watch.top_rate),
            slopes,
        }
    }

    /// The same of one series, drawn towards all series together.
    fn shape_near(&self, watch: Watch, all: &Shape) -> Shape {
        let mut slopes = all.slopes;
        let mut deviation: f64 = 1.0;
        for (j, of_rung) in slopes.iter_mut().enumerate().skip(1) {
            let of_all = *of_rung;
            let prior = watch.bounded(of_all * deviation.powf(KEEPS_DEVIATING));
            *of_rung = watch.bounded(slope(&self.events, j, prior, PSEUDO_EVENTS));
            deviation = *of_rung / of_all;
        }
        Shape {
            top: self.top(all.top),
            slopes,
        }
    }
}

/// Expected events per point at the highest rung, and decades of events for a decade of levels from there to each.
#[derive(Clone, Copy, Debug)]
struct Shape {
    top: f64,
    slopes: [f64; RUNGS],
}

impl Shape {
    /// Expected events per point at `level`, which is below the highest rung.
    fn rate(&self, watch: Watch, level: f64) -> f64 {
        let below = watch.top - level.log10();
        let mut log = self.top.log10();
        for (j, slope) in self.slopes.iter().enumerate().skip(1) {
            let end = if j == RUNGS - 1 { f64::MAX } else { DEPTHS[j] };
            log -= slope * (below.min(end) - DEPTHS[j - 1]).max(0.0);
        }
        10_f64.powf(log)
    }
}

/// The ladder of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ladder {
    counts: Counts,
    /// Points seen, and at which of them each rung was counted last.
    seen: u32,
    counted_at: [u32; RUNGS],
    newest: Event,
    /// The newest event that raised an alarm.
    alarm: Event,
    alarm_is_newest: bool,
}

/// How deep an event went: the rungs that it reached, and its level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    rungs: u8,
    level: f32,
}

impl Event {
    const NONE: Self = Self {
        rungs: 0,
        level: 1.0,
    };
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            seen: u32::from(MERGE_POINTS) + 1,
            counted_at: [0; RUNGS],
            newest: Event::NONE,
            alarm: Event::NONE,
            alarm_is_newest: false,
        }
    }
}

impl Ladder {
    /// Expected events per point that are as rare as `level` or rarer; 1 where that is nothing out of the ordinary.
    /// Where more were counted than the ladder expects, it is what was counted.
    pub(super) fn rate(&self, watch: Watch, all: &Counts, level: f64) -> f64 {
        if watch.depth(level) == 0 {
            return 1.0;
        }
        let shape = all.shape(watch);
        let expected = self.counts.shape_near(watch, &shape).rate(watch, level);
        expected
            .max(self.counts.counted(level))
            .max(all.counted(level))
    }

    /// Counts one more point, for the series and for all.
    pub(super) fn learn(&mut self, watch: Watch, all: &mut Counts, level: f64) {
        let depth = watch.depth(level);
        let is_new = |counted_at: u32| self.seen.wrapping_sub(counted_at) > u32::from(MERGE_POINTS);
        if depth > 0 && is_new(self.counted_at[0]) {
            // What goes on is not yet counted among the deepest: it shall not be held against itself.
            if self.newest.rungs > 0 {
                self.counts.keep(self.newest.level);
                all.keep(self.newest.level);
            }
            self.newest = Event::NONE;
            self.alarm_is_newest = false;
        }
        if depth > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "came from one")]
            let level = level as f32;
            self.newest.rungs = self.newest.rungs.max(depth);
            self.newest.level = self.newest.level.min(level);
        }
        if self.alarm_is_newest {
            self.alarm = self.newest;
        }
        for j in 0..usize::from(depth) {
            if is_new(self.counted_at[j]) {
                self.counted_at[j] = self.seen;
                self.counts.events[j] += 1.0;
                all.events[j] += 1.0;
            }
        }
        self.seen = self.seen.wrapping_add(1);
        self.counts.points += 1.0;
        all.points += 1.0;
        self.counts.halve_above(HALVED_AFTER);
        all.halve_above(ALL_HALVED_AFTER);
    }

    /// The newest event raised an alarm.
    pub(super) fn alarmed(&mut self) {
        self.alarm = self.newest;
        self.alarm_is_newest = true;
    }

    /// The newest event that raised an alarm was no chance: takes it back, once.
    pub(super) fn take_back(&mut self, all: &mut Counts) {
        let alarm = std::mem::replace(&mut self.alarm, Event::NONE);
        for j in 0..usize::from(alarm.rungs) {
            self.counts.events[j] = (self.counts.events[j] - 1.0).max(0.0);
            all.events[j] = (all.events[j] - 1.0).max(0.0);
        }
        if self.alarm_is_newest {
            self.newest = Event::NONE;
        } else if alarm.rungs > 0 {
            self.counts.drop(alarm.level);
            all.drop(alarm.level);
        }
        self.alarm_is_newest = false;
    }
}
