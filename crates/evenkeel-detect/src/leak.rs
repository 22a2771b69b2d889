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
/// Blocks looked at within a day, by time scale, the most first: 24 minutes; 6, 4 and 2 hours; 20 hours.
const LOOK_BACK: [&[usize]; WITHIN_A_DAY] = [&[24], &[24, 16, 8], &[10]];
/// Blocks needed for a trend, by time scale.
const BLOCKS_MIN: [usize; WITHIN_A_DAY] = [15, 6, 6];
/// Minutes whose minimum is the floor that memory does not fall below.
const FLOOR_MINUTES: usize = 8;
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
const NEW_OF_FREE: f64 = 0.3;
/// Where an unusual rise must end, of the highest floor of healthy days.
const HIGHER: f64 = 1.05;
/// How much higher than on any healthy day the floor must be to be new: of that, and in MB.
const NEW_FLOOR: (f64, f64) = (0.12, 40.0);
/// What of the usual rise must have led to a new floor.
const NEW_RISE: f64 = 0.5;
/// What of its life a trend must cover that speaks for all of it.
const OF_LIFE: f64 = 1.0 / 3.0;
/// What of the mean growth since it began a new process must still have.
const AS_EVER: f64 = 0.8;
/// What of the level a rise from day to day must have.
const OF_LEVEL: f64 = 0.15;
/// Two-hour blocks that must have gained over the day before, and what of the swing within a day: half a day of them
/// by as much as that, or a whole day by half of it.
const GAINS: [(usize, f64); 2] = [(6, 1.0), (DAY_OF_BLOCKS, 0.5)];
/// What the least of them must have gained, of their median.
const EVENLY: f64 = 0.5;
/// What is left of the usual rise after a day without one.
const FORGET_A_DAY: f64 = 0.98;
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
    /// Median of the two-hour minima of healthy days, in MB.
    level_mb: f64,
    /// Highest floor of healthy days, in MB.
    floor_mb: f64,
}

/// The long view of one memory series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    process: u64,
    began_ms: i64,
    last_ms: i64,
    /// Days are those of the series, whatever process it is.
    day_began_ms: i64,
    scales: [Blocks; SCALES_MS.len()],
    usual: Usual,
    /// Largest rises since the day began.
    today: Usual,
    /// The floor that this process began with, in MB.
    began_mb: Option<f64>,
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
            day_began_ms: at_ms,
            scales: SCALES_MS.map(Blocks::new),
            usual: Usual::default(),
            today: Usual::default(),
            began_mb: None,
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
            *self = Self {
                usual: self.usual,
                today: self.today,
                day_began_ms: self.day_began_ms,
                ..Self::new(at_ms, process)
            };
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
            }
        }
        if at_ms.saturating_sub(self.day_began_ms) >= DAY_MS {
            self.day_began_ms = at_ms;
            self.end_of_day(learn);
        }
        self.finding()
    }

    /// The leak that was found last and is still there: of the longest time scale that sees one.
    pub fn finding(&self) -> Option<LeakFinding> {
        self.found.iter().rev().find_map(|f| *f)
    }

    fn judge(&mut self, scale: usize, limit_mb: Option<f64>) {
        let free = |mb: f64| limit_mb.map(|limit| (limit - mb).max(0.0));
        if scale == 0 {
            let floor = self.scales[0].floor_mb(FLOOR_MINUTES).unwrap_or(0.0);
            self.today.floor_mb = self.today.floor_mb.max(floor);
            self.began_mb = self.began_mb.or(self.scales[0].newest_mb());
        }
        let found = if scale < WITHIN_A_DAY {
            let trends = LOOK_BACK[scale]
                .iter()
                .map(|most| self.scales[scale].trend(*most));
            let trends: Vec<Trend> = trends.flatten().collect();
            if let Some(trend) = trends.first() {
                let most = &mut self.today.rise_mb[scale];
                *most = most.max(trend.rise_mb);
            }
            let leaks = |t: &Trend| self.leaks_within_a_day(scale, t, limit_mb);
            let within = trends.into_iter().find(leaks);
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

    fn leaks_within_a_day(&self, scale: usize, trend: &Trend, limit_mb: Option<f64>) -> bool {
        if trend.blocks < BLOCKS_MIN[scale] || trend.tail > TAIL_MAX || !goes_on(trend) {
            return false;
        }
        let reached_mb = trend.level_mb + trend.rise_mb;
        if self.usual.days == 0 {
            let doubled = trend.rise_mb >= trend.level_mb.max(NEW_RISE_MIN_MB);
            return doubled || self.fills_up(trend, reached_mb, limit_mb).unwrap_or(false);
        }
        // After a restart memory comes back to its level, and at noon it is higher than at night: neither is a leak.
        let usual = &self.usual;
        let unusual = trend.rise_mb >= UNUSUAL * usual.rise_mb[scale] + RISE_MIN_MB
            && reached_mb >= HIGHER * usual.floor_mb + RISE_MIN_MB;
        let floor_mb = self.scales[0].floor_mb(FLOOR_MINUTES).unwrap_or(0.0);
        let (share, least_mb) = NEW_FLOOR;
        let new_floor = floor_mb >= usual.floor_mb + least_mb.max(share * usual.floor_mb);
        let rises = trend.rise_mb >= RISE_MIN_MB.max(NEW_RISE * usual.rise_mb[scale]);
        // A level that a step led to is new as well, and then comes the next morning.
        let from_usual = trend.level_mb <= usual.floor_mb;
        unusual || (new_floor && rises && from_usual)
    }

    /// A process that was never seen before fills what was free, at the rate that it had from the beginning.
    fn fills_up(&self, trend: &Trend, reached_mb: f64, limit_mb: Option<f64>) -> Option<bool> {
        let (began_mb, limit_mb) = (self.began_mb?, limit_mb?);
        let hours = (self.last_ms - self.began_ms - WARM_UP_MS) as f64 / MS_PER_HOUR;
        let grown_mb = reached_mb - began_mb;
        let much = (NEW_OF_FREE * (limit_mb - began_mb)).max(NEW_RISE_MIN_MB);
        let as_ever = trend.mb_per_hour >= AS_EVER * grown_mb / hours;
        Some(grown_mb >= much && as_ever && trend.span_hours >= OF_LIFE * hours)
    }

    /// The trend of each two hours against the same ones of the day before.
    fn leaks_from_day_to_day(&self) -> Option<Trend> {
        let blocks = &self.scales[2];
        let all = blocks.gains(DAY_OF_BLOCKS);
        let trend = blocks.trend(blocks::BLOCKS)?;
        GAINS.iter().find_map(|(pairs, of_swing)| {
            let gains = all.get(all.len().checked_sub(*pairs)?..)?;
            let gained = crate::stats::median(gains.to_vec())?;
            let least = gains.iter().copied().fold(f64::INFINITY, f64::min);
            let mb_per_hour = gained / 24.0;
            let worth = RISE_MIN_MB
                .max(OF_LEVEL * trend.level_mb)
                .max(of_swing * blocks.swing(mb_per_hour));
            let newest = gains.last().copied().unwrap_or(0.0);
            let goes_on = least >= EVENLY * gained
                && newest >= STILL_RISING * gained
                && trend.step_mb <= ONE_STEP * gained;
            (gained >= worth && goes_on && trend.tail <= TAIL_MAX).then_some(Trend {
                mb_per_hour,
                rise_mb: gained,
                span_hours: 24.0,
                ..trend
            })
        })
    }

    fn end_of_day(&mut self, learn: bool) {
        let quiet = self.found.iter().all(Option::is_none);
        let most = self.today.rise_mb.iter().copied().fold(0.0, f64::max);
        // From the first two hours of the day to the last, or from the restart that came between.
        let gained = self.scales[2].gained_mb(DAY_OF_BLOCKS);
        let back = gained.is_some_and(|g| g <= BACK_AGAIN * most.max(RISE_MIN_MB));
        if learn && quiet && back {
            self.usual.days = self.usual.days.saturating_add(1);
            for (usual, today) in self.usual.rise_mb.iter_mut().zip(self.today.rise_mb) {
                *usual = (*usual * FORGET_A_DAY).max(today);
            }
            if let Some(level) = self.scales[2].median_mb() {
                self.usual.level_mb = (self.usual.level_mb * FORGET_A_DAY).max(level);
            }
            let floor = self.today.floor_mb;
            self.usual.floor_mb = (self.usual.floor_mb * FORGET_A_DAY).max(floor);
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

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;
    const DAY: i64 = 1_440;

    /// The same few "random" MB for the same minute, 0 to 20.
    fn noise(minute: i64) -> f64 {
        ((minute * 7919 + 13) * 104_729 % 1000) as f64 / 50.0
    }

    /// Load by day, a collector's saw, and noise: 240 to 380 MB.
    fn healthy(minute: i64) -> f64 {
        let day = (minute as f64 / DAY as f64 * std::f64::consts::TAU).sin();
        300.0 + 40.0 * day + noise(minute) + (minute % 17) as f64 * 2.0
    }

    /// The first minute at which a leak is found, of so many.
    fn found(minutes: i64, limit: Option<f64>, mb: impl Fn(i64) -> f64) -> Option<i64> {
        let mut leak = Leak::new(0, 1);
        (1..=minutes).find(|i| leak.push(i * MINUTE_MS, 1, mb(*i), limit, true).is_some())
    }

    /// SAFETY 2
    #[test]
    fn daily_load_is_no_leak_whenever_it_begins() {
        for start in [0, 300, 720, 1100] {
            let at = found(21 * DAY, Some(2048.0), |i| healthy(start + i));
            assert_eq!(at, None, "from minute {start}");
        }
    }

    /// SAFETY 17
    #[test]
    fn a_leak_over_weeks_is_seen_and_never_becomes_usual() {
        let slow = |i: i64| healthy(i) + 12.0 * i as f64 / DAY as f64;
        let at = found(28 * DAY, None, slow).expect("12 MB a day");
        assert!((5 * DAY..12 * DAY).contains(&at), "day {}", at / DAY);
        let mut leak = Leak::new(0, 1);
        for i in 1..=40 * DAY {
            leak.push(i * MINUTE_MS, 1, slow(i), None, true);
        }
        let finding = leak.finding().expect("still there after 40 days");
        assert!((finding.mb_per_hour - 0.5).abs() < 0.05, "{finding:?}");
    }

    #[test]
    fn a_fast_leak_is_seen_in_time_and_says_when_it_ends() {
        for (rate, begins) in [
            (15.0, 3 * DAY),
            (120.0, 3 * DAY + 400),
            (900.0, 4 * DAY),
            (400.0, 0),
        ] {
            let mb = |i: i64| healthy(i) + rate * (i - begins).max(0) as f64 / 60.0;
            #[expect(clippy::cast_possible_truncation, reason = "some thousand minutes")]
            let half = ((2048.0 - 380.0) / rate * 30.0) as i64;
            let at = found(begins + half, Some(2048.0), mb);
            assert!(
                at.is_some_and(|at| at > begins),
                "{rate} MB an hour: {at:?}"
            );
        }
        let mut leak = Leak::new(0, 1);
        let finding = (1..200).find_map(|i| {
            leak.push(
                i * MINUTE_MS,
                1,
                100.0 + 10.0 * i as f64,
                Some(2048.0),
                true,
            )
        });
        let finding = finding.expect("600 MB an hour");
        assert!((finding.mb_per_hour - 600.0).abs() < 5.0, "{finding:?}");
        let left = (2048.0 - finding.now_mb) / 600.0;
        assert!(
            (finding.exhausted_in_hours.unwrap() - left).abs() < 0.1,
            "{finding:?}"
        );
        assert!(
            finding.details().contains("600.0 MB an hour"),
            "{}",
            finding.details()
        );
    }

    #[test]
    fn steps_and_plateaus_are_no_leak() {
        for at in [100, 700, 2000, 4 * DAY] {
            let step = |i: i64| healthy(i) + if i >= at { 150.0 } else { 0.0 };
            assert_eq!(found(12 * DAY, Some(2048.0), step), None, "step at {at}");
        }
        for tau in [5.0, 30.0, 120.0, 300.0] {
            let cache = |i: i64| healthy(i) + 150.0 * (1.0 - (-(i as f64) / tau).exp());
            assert_eq!(
                found(12 * DAY, Some(2048.0), cache),
                None,
                "filled in {tau} min"
            );
        }
    }

    #[test]
    fn a_restart_begins_anew_and_a_warm_up_after_it_is_no_leak() {
        let mut leak = Leak::new(0, 1);
        let mut found = 0;
        for i in 1..=12 * DAY {
            // Each second day another process that comes back to its level within two hours.
            let (process, age) = (i / (2 * DAY), i % (2 * DAY));
            let warm = 1.0 - 0.7 * (-(age as f64) / 40.0).exp();
            let mb = healthy(i) * warm;
            #[expect(clippy::cast_sign_loss, reason = "a small positive number")]
            let process = process as u64 + 1;
            found += u32::from(
                leak.push(i * MINUTE_MS, process, mb, Some(2048.0), true)
                    .is_some(),
            );
        }
        assert_eq!(found, 0);
        let mut leaking = Leak::new(0, 1);
        for i in 1..400 {
            leaking.push(i * MINUTE_MS, 1, 100.0 + 10.0 * i as f64, None, true);
        }
        assert!(leaking.finding().is_some());
        leaking.push(400 * MINUTE_MS, 2, 100.0, None, true);
        assert_eq!(leaking.finding(), None);
    }

    /// SAFETY 11
    #[test]
    fn garbage_gaps_and_disorder_are_no_leak_and_the_state_survives_a_restart() {
        let mut leak = Leak::new(0, 1);
        for i in 1..=6 * DAY {
            let (at, mb) = match i % 7 {
                0 => (i * MINUTE_MS, f64::NAN),
                1 => (0, 1e9),
                2 => (i * MINUTE_MS, -5.0),
                3 if i % 1000 < 300 => continue,
                _ => (i * MINUTE_MS, healthy(i)),
            };
            assert_eq!(leak.push(at, 1, mb, Some(2048.0), true), None, "minute {i}");
        }
        let text = serde_json::to_string(&leak).unwrap();
        assert_eq!(serde_json::from_str::<Leak>(&text).unwrap(), leak);
        for at in [i64::MAX, i64::MIN, 0] {
            leak.push(at, 1, f64::INFINITY, None, true);
            leak.push(at, 9, 300.0, Some(f64::NAN), true);
        }
        assert!(size_of::<Leak>() <= 2_048, "{}", size_of::<Leak>());
    }
}
