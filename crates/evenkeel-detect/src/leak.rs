//! A leak over minutes to weeks, from little state: evidence beside the hour that [`crate::memory`] looks at.
//!
//! Readings of a process go into blocks of a minute, a quarter of an hour, two hours and a day; each block keeps its
//! minimum, which sees through the saw-tooth of a collector and the peaks of requests, and a ring keeps the blocks. A
//! trend through a ring is a leak when it is beyond chance (Mann-Kendall), still rising at the end, did not come in one
//! step, and is larger than what is usual:
//!
//! - within a day memory breathes with load, so a rise must exceed the largest one of healthy days over as long a time
//!   and the level of those days; before a day is known it must double the memory, or take much of what is free;
//! - over a day each two hours are compared with the same two hours of the day before (Hirsch et al. 1982): nearly all
//!   must have gained, about the same, and much of what the memory swings by within a day;
//! - over days the minima of whole days are compared, where no daily cycle is left. That sees a leak of weeks.
//!
//! Another process (a restart) begins anew; what is usual for the series stays known. Days on which memory ended higher
//! by much of its own largest rise teach nothing, so a leak does not become usual by itself.

use serde::{Deserialize, Serialize};

mod blocks;

use blocks::{Blocks, Trend};

const DAY_MS: i64 = 86_400_000;
const MS_PER_HOUR: f64 = 3_600_000.0;
/// Blocks of the four time scales, in milliseconds.
const SCALES_MS: [i64; 4] = [60_000, 900_000, 7_200_000, DAY_MS];
/// Of those, the ones that are shorter than a day together.
const WITHIN_A_DAY: usize = 3;
/// Blocks looked at within a day: 24 minutes, 6 hours, 20 hours.
const LOOK_BACK: [usize; WITHIN_A_DAY] = [24, 24, 10];
/// Blocks needed for a trend, by time scale.
const BLOCKS_MIN: [usize; WITHIN_A_DAY] = [15, 6, 6];
/// Two-hour blocks in a day.
const DAY_OF_BLOCKS: usize = 12;
/// Readings of a new process that are passed over, in milliseconds.
const WARM_UP_MS: i64 = 300_000;
/// Chance that a trend within a day may have.
const TAIL_MAX: f64 = 2e-3;
/// Chance that a trend over days may have: five days that rise, one after the other.
const TAIL_OF_DAYS_MAX: f64 = 0.01;
/// Days that a trend over days needs.
const DAYS_MIN: usize = 6;
/// What of the whole slope the last third must still have.
const STILL_RISING: f64 = 2.0 / 3.0;
/// What of the rise may come from one block to the next.
const ONE_STEP: f64 = 0.5;
/// Rise that is worth a word, in MB.
const RISE_MIN_MB: f64 = 20.0;
/// What is usual must be exceeded by this factor.
const UNUSUAL: f64 = 1.5;
/// Rise that a new series needs at least, in MB.
const NEW_RISE_MIN_MB: f64 = 200.0;
/// What of the free memory a rise of a new series must take, where there is a limit.
const NEW_OF_FREE: f64 = 0.4;
/// What of the level a rise from day to day must have.
const OF_LEVEL: f64 = 0.15;
/// What of the swing within a day a rise from day to day must have.
const OF_SWING: f64 = 0.5;
/// Hours of the same time a day apart that must have gained.
const PAIRS_MIN: usize = 6;
/// What the least of them must have gained, of their median.
const EVENLY: f64 = 0.5;
/// What is left of the usual rise after a day without one.
const FORGET_A_DAY: f64 = 0.93;
/// What of the largest rise of a day may be left at its end for the day to be a usual one.
const BACK_AGAIN: f64 = 0.5;
/// Hours to exhaustion beyond which a leak is left alone, where there is a limit: 60 days.
const EXHAUSTION_MAX_HOURS: f64 = 1_440.0;

/// A leak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeakFinding {
    /// Growth, in MB an hour.
    pub mb_per_hour: f64,
    /// Growth over the time looked at, in MB.
    pub rise_mb: f64,
    /// The time looked at, in hours.
    pub span_hours: f64,
    /// Least memory of the newest block, in MB.
    pub now_mb: f64,
    /// One-sided probability of such a trend by chance, cycles apart.
    pub tail: f64,
    /// Hours until the limit is reached at this rate, where there is a limit.
    pub exhausted_in_hours: Option<f64>,
}

impl LeakFinding {
    /// In words, for a person.
    pub fn details(&self) -> String {
        let mut text = format!(
            "Memory grows by {:.1} MB an hour: {:+.0} MB in {}, {:.0} MB now",
            self.mb_per_hour,
            self.rise_mb,
            hours_in_words(self.span_hours),
            self.now_mb
        );
        if let Some(hours) = self.exhausted_in_hours {
            text.push_str(", exhausted in ");
            text.push_str(&hours_in_words(hours));
        }
        text
    }
}

fn hours_in_words(hours: f64) -> String {
    if hours < 2.0 {
        format!("{:.0} min", hours * 60.0)
    } else if hours < 48.0 {
        format!("{hours:.0} h")
    } else {
        format!("{:.0} days", hours / 24.0)
    }
}

/// What is usual for a series, whatever process it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Usual {
    days: u32,
    /// Largest rise of a healthy day, by time scale, in MB.
    rise_mb: [f64; WITHIN_A_DAY],
    /// Highest block minimum of a healthy day, in MB.
    level_mb: f64,
}

/// The long view of one memory series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    process: u64,
    began_ms: i64,
    last_ms: i64,
    scales: [Blocks; SCALES_MS.len()],
    usual: Usual,
    /// Largest rises since the day began.
    today: Usual,
    /// Judgements in a row that called it a leak, by time scale.
    in_a_row: [u8; SCALES_MS.len()],
    found: [Option<LeakFinding>; SCALES_MS.len()],
}

impl Leak {
    /// The first reading of `process` (whatever tells one process from the next) was at `at_ms`.
    pub fn new(at_ms: i64, process: u64) -> Self {
        Self {
            process,
            began_ms: at_ms,
            last_ms: at_ms,
            scales: SCALES_MS.map(Blocks::new),
            usual: Usual::default(),
            today: Usual::default(),
            in_a_row: [0; SCALES_MS.len()],
            found: [None; SCALES_MS.len()],
        }
    }

    /// Takes a reading in MB at `at_ms` (milliseconds), with the limit of the process in MB where it has one, and says
    /// whether there is a leak now. What is no number or comes out of order is passed over. With `learn` false nothing
    /// becomes usual.
    pub fn push(
        &mut self,
        at_ms: i64,
        process: u64,
        mb: f64,
        limit_mb: Option<f64>,
        learn: bool,
    ) -> Option<LeakFinding> {
        if process != self.process {
            let usual = self.usual;
            *self = Self::new(at_ms, process);
            self.usual = usual;
        }
        let since_ms = at_ms.saturating_sub(self.began_ms);
        if !(mb.is_finite() && mb > 0.0) || at_ms < self.last_ms {
            return self.finding();
        }
        self.last_ms = at_ms;
        if since_ms < WARM_UP_MS {
            return None;
        }
        let since_ms = since_ms - WARM_UP_MS;
        for scale in 0..SCALES_MS.len() {
            if self.scales[scale].push(since_ms, mb) {
                self.judge(scale, limit_mb);
                if scale == WITHIN_A_DAY {
                    self.end_of_day(learn);
                }
            }
        }
        self.finding()
    }

    /// The leak that was found last and is still there: of the longest time scale that sees one.
    pub fn finding(&self) -> Option<LeakFinding> {
        self.found.iter().rev().find_map(|f| *f)
    }

    fn judge(&mut self, scale: usize, limit_mb: Option<f64>) {
        let free = |mb: f64| limit_mb.map(|limit| (limit - mb).max(0.0));
        let found = if scale < WITHIN_A_DAY {
            let trend = self.scales[scale].trend(LOOK_BACK[scale]);
            if let Some(trend) = trend {
                let most = &mut self.today.rise_mb[scale];
                *most = most.max(trend.rise_mb);
            }
            let within = trend.filter(|t| self.leaks_within_a_day(scale, t, free(t.level_mb)));
            within.or_else(|| (scale == 2).then(|| self.leaks_from_day_to_day())?)
        } else {
            self.scales[scale].trend(blocks::BLOCKS).filter(|t| {
                t.blocks >= DAYS_MIN
                    && t.tail <= TAIL_OF_DAYS_MAX
                    && goes_on(t)
                    && t.rise_mb >= RISE_MIN_MB.max(OF_LEVEL * t.level_mb)
            })
        };
        let now_mb = self.scales[scale].newest_mb().unwrap_or(0.0);
        let found = found.map(|t| LeakFinding {
            mb_per_hour: t.mb_per_hour,
            rise_mb: t.rise_mb,
            span_hours: t.span_hours,
            now_mb,
            tail: t.tail,
            exhausted_in_hours: free(now_mb).map(|free| free / t.mb_per_hour),
        });
        let found = found.filter(|f| {
            f.exhausted_in_hours
                .is_none_or(|h| h <= EXHAUSTION_MAX_HOURS)
        });
        let in_a_row = &mut self.in_a_row[scale];
        *in_a_row = if found.is_some() {
            in_a_row.saturating_add(1)
        } else {
            0
        };
        // Of minutes two judgements in a row are needed; a longer one is worth waiting for no other.
        let needed = if scale == 0 { 2 } else { 1 };
        self.found[scale] = found.filter(|_| *in_a_row >= needed);
    }

    fn leaks_within_a_day(&self, scale: usize, trend: &Trend, free: Option<f64>) -> bool {
        if trend.blocks < BLOCKS_MIN[scale] || trend.tail > TAIL_MAX || !goes_on(trend) {
            return false;
        }
        if self.usual.days == 0 {
            let of_free = free.map_or(f64::INFINITY, |free| NEW_OF_FREE * free);
            let much = trend.level_mb.min(of_free.max(0.5 * trend.level_mb));
            return trend.rise_mb >= much.max(NEW_RISE_MIN_MB);
        }
        // After a restart memory comes back to its level, which is no leak.
        let reached = trend.level_mb + trend.rise_mb;
        trend.rise_mb >= UNUSUAL * self.usual.rise_mb[scale] + RISE_MIN_MB
            && reached >= self.usual.level_mb * (1.0 + OF_LEVEL) + RISE_MIN_MB
    }

    /// The trend of each two hours against the same ones of the day before.
    fn leaks_from_day_to_day(&self) -> Option<Trend> {
        let blocks = &self.scales[2];
        let mut gains = blocks.gains(DAY_OF_BLOCKS);
        if gains.len() < PAIRS_MIN {
            return None;
        }
        // The newest pairs: of longer ago the day scale knows more.
        let gains = gains.split_off(gains.len().saturating_sub(DAY_OF_BLOCKS));
        let gained = crate::stats::median(gains.clone())?;
        let least = gains.iter().copied().fold(f64::INFINITY, f64::min);
        let trend = blocks.trend(blocks::BLOCKS)?;
        let mb_per_hour = gained / 24.0;
        let worth = RISE_MIN_MB
            .max(OF_LEVEL * trend.level_mb)
            .max(OF_SWING * blocks.swing(mb_per_hour));
        let goes_on =
            least >= EVENLY * gained && gains.last().is_some_and(|g| *g >= STILL_RISING * gained);
        (gained >= worth && goes_on && trend.tail <= TAIL_MAX).then_some(Trend {
            mb_per_hour,
            rise_mb: gained,
            span_hours: 24.0,
            ..trend
        })
    }

    fn end_of_day(&mut self, learn: bool) {
        let quiet = self.found.iter().all(Option::is_none);
        let most = self.today.rise_mb.iter().copied().fold(0.0, f64::max);
        // From the first two hours of the day to the last.
        let gained = self.scales[2].gains(DAY_OF_BLOCKS - 1).last().copied();
        let back = gained.is_some_and(|g| g <= BACK_AGAIN * most.max(RISE_MIN_MB));
        if learn && quiet && back {
            self.usual.days = self.usual.days.saturating_add(1);
            for (usual, today) in self.usual.rise_mb.iter_mut().zip(self.today.rise_mb) {
                *usual = (*usual * FORGET_A_DAY).max(today);
            }
            if let Some(level) = self.scales[2].median_mb() {
                self.usual.level_mb = (self.usual.level_mb * FORGET_A_DAY).max(level);
            }
        }
        self.today = Usual::default();
    }
}

/// Still rising, and not by one step.
fn goes_on(trend: &Trend) -> bool {
    trend.mb_per_hour > 0.0
        && trend.recent_mb_per_hour >= STILL_RISING * trend.mb_per_hour
        && trend.step_mb <= ONE_STEP * trend.rise_mb
}
