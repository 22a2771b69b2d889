//! Memory growth: a robust slope of each process's resident memory.
//!
//! Readings are divided into 6, 9 or 12 blocks of equal time; each block keeps its minimum, which sees through the
//! saw-tooth of a collector and the peaks of requests; the Theil-Sen slope goes through the minima. A process leaks
//! when
//!
//! - its readings span the minimal time, are enough, and its warm-up is over;
//! - the slope exceeds the limit, and the growth over the span is worth acting on;
//! - the rise came in more than one step: of few blocks one step, with a little jitter for help, would move the slope;
//! - the last third of the blocks still rises at two thirds of the whole slope at least. One step up, wherever it
//!   falls in the window, cannot move both medians, and a warm-up levels off: one with a time constant of up to
//!   five minutes is silent at one reading a minute, a slower one looks like a leak until it has levelled off.
//!
//! Another process (a restart) begins a new window. Daily seasons are not known here: load that moves memory faster
//! than the limit for a good part of the window looks like growth.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::limits::{MEMORY_BLOCKS_MAX, MEMORY_SAMPLES_MAX, SERIES_MAX};
use crate::slot::{Evaluation, Finding, Seen, concerns};
use crate::stats::theil_sen;
use crate::verdict::MeasureNow;

/// The series of the anomalies that this monitor raises.
pub const SERIES: &str = "memory_growth";
/// One MB, in bytes.
pub const BYTES_PER_MB: f64 = 1_048_576.0;

const MS_PER_HOUR: f64 = 3_600_000.0;
/// What of the whole slope the last third must still have.
const STILL_RISING: f64 = 2.0 / 3.0;
/// What of the whole rise may come from one block to the next.
const ONE_STEP: f64 = 2.0 / 3.0;

#[derive(Clone, Debug)]
struct Tracker {
    service: Option<String>,
    process: u64,
    first_seen: Timestamp,
    newest_mb: f64,
    /// Time and MB, after the warm-up.
    readings: VecDeque<(Timestamp, f64)>,
    fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slope {
    mb_per_hour: f64,
    recent_mb_per_hour: f64,
    /// From the first block to the last, in MB.
    rise_mb: f64,
    /// The most of it that came from one block to the next, in MB.
    largest_step_mb: f64,
    span_hours: f64,
    since: Timestamp,
    samples: usize,
}

impl Tracker {
    fn slope(&self) -> Option<Slope> {
        let n = self.readings.len();
        let blocks = if n >= 24 {
            MEMORY_BLOCKS_MAX
        } else if n >= 18 {
            9
        } else {
            6
        };
        let (first, last) = (self.readings.front()?.0, self.readings.back()?.0);
        let span_ms = last.millis_since(first);
        if span_ms <= 0 {
            return None;
        }
        let mut minima: Vec<Option<(f64, f64)>> = vec![None; blocks];
        for (at, mb) in &self.readings {
            let elapsed = at.millis_since(first) as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and the number of blocks: readings are in order"
            )]
            let index = ((elapsed / span_ms as f64 * blocks as f64) as usize).min(blocks - 1);
            let block = minima.get_mut(index)?;
            if block.is_none_or(|(_, least)| *mb < least) {
                *block = Some((elapsed / MS_PER_HOUR, *mb));
            }
        }
        let third: Vec<_> = minima
            .iter()
            .skip(blocks - blocks / 3)
            .flatten()
            .copied()
            .collect();
        let all: Vec<_> = minima.into_iter().flatten().collect();
        Some(Slope {
            mb_per_hour: theil_sen(&all)?,
            recent_mb_per_hour: theil_sen(&third)?,
            rise_mb: all.last()?.1 - all.first()?.1,
            largest_step_mb: all.windows(2).map(|w| w[1].1 - w[0].1).fold(0.0, f64::max),
            span_hours: span_ms as f64 / MS_PER_HOUR,
            since: first,
            samples: n,
        })
    }

    fn enough(&self, config: &DetectConfig) -> bool {
        let span = match (self.readings.front(), self.readings.back()) {
            (Some((first, _)), Some((last, _))) => last.millis_since(*first),
            _ => 0,
        };
        span >= config.memory_min_span_ms && self.readings.len() >= config.memory_min_samples
    }

    fn push(&mut self, at: Timestamp, mb: f64) {
        self.readings.push_back((at, mb));
        if self.readings.len() > MEMORY_SAMPLES_MAX {
            self.readings = self
                .readings
                .make_contiguous()
                .chunks(2)
                .filter_map(|pair| pair.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)))
                .collect();
        }
    }
}

/// The monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    trackers: BTreeMap<String, Tracker>,
}

impl Memory {
    pub(crate) fn reading(
        &mut self,
        series: &str,
        service: Option<&str>,
        process: u64,
        at: Timestamp,
        rss_bytes: u64,
        config: &DetectConfig,
    ) {
        if self.trackers.len() >= SERIES_MAX && !self.trackers.contains_key(series) {
            return;
        }
        let mb = rss_bytes as f64 / BYTES_PER_MB;
        let new = || Tracker {
            service: service.map(str::to_owned),
            process,
            first_seen: at,
            newest_mb: mb,
            readings: VecDeque::new(),
            fresh: false,
        };
        let tracker = self.trackers.entry(series.to_owned()).or_insert_with(new);
        if tracker.process != process {
            *tracker = new();
        }
        tracker.newest_mb = mb;
        tracker.fresh = true;
        if at.millis_since(tracker.first_seen) >= config.memory_warmup_ms {
            tracker.push(at, mb);
        }
    }

    /// Forgets all windows, or those of `service`.
    pub(crate) fn reset(&mut self, service: Option<&str>) {
        self.trackers
            .retain(|_, t| !concerns(t.service.as_deref(), service));
    }

    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        config: &DetectConfig,
        limit: f64,
        culprit: Option<&str>,
    ) -> Evaluation {
        for tracker in self.trackers.values_mut() {
            while tracker
                .readings
                .front()
                .is_some_and(|(at, _)| now.millis_since(*at) > config.memory_window_ms)
            {
                tracker.readings.pop_front();
            }
        }
        // A process that is measured no longer leaves when its last readings have.
        self.trackers
            .retain(|_, t| t.fresh || !t.readings.is_empty() || t.within_warmup(now, config));
        let evaluation = Evaluation::combine(
            self.trackers
                .iter()
                .map(|(name, t)| (name.as_str(), judge(name, t, config, limit))),
            culprit,
        );
        for tracker in self.trackers.values_mut() {
            tracker.fresh = false;
        }
        evaluation
    }

    pub(crate) fn growth(&self, config: &DetectConfig) -> Option<MeasureNow> {
        self.trackers
            .values()
            .filter_map(|t| Some((t.enough(config), t.slope()?)))
            .max_by(|a, b| {
                a.0.cmp(&b.0)
                    .then(a.1.mb_per_hour.total_cmp(&b.1.mb_per_hour))
            })
            .map(|(enough, slope)| MeasureNow {
                value: slope.mb_per_hour,
                unit: "MB/h",
                samples: slope.samples as u64,
                enough,
            })
    }

    /// Newest readings of all processes together, in MB.
    pub(crate) fn total_mb(&self) -> Option<f64> {
        (!self.trackers.is_empty()).then(|| self.trackers.values().map(|t| t.newest_mb).sum())
    }
}

impl Tracker {
    fn within_warmup(&self, now: Timestamp, config: &DetectConfig) -> bool {
        now.millis_since(self.first_seen) <= config.memory_warmup_ms
    }
}

fn judge(name: &str, tracker: &Tracker, config: &DetectConfig, limit: f64) -> Evaluation {
    if !tracker.enough(config) {
        return Evaluation::UNKNOWN;
    }
    let Some(slope) = tracker.slope() else {
        return Evaluation::UNKNOWN;
    };
    let growth = slope.mb_per_hour * slope.span_hours;
    if slope.mb_per_hour > limit
        && slope.recent_mb_per_hour >= slope.mb_per_hour * STILL_RISING
        && slope.largest_step_mb <= slope.rise_mb * ONE_STEP
        && growth >= config.memory_min_growth_mb
    {
        let whose = tracker.service.as_deref().unwrap_or(name);
        let finding = Finding {
            current: slope.mb_per_hour,
            threshold: limit,
            unit: "MB/h",
            details: format!(
                "Memory of {whose} grows by {:.0} MB an hour, threshold {limit:.0}: {growth:+.0} MB in {}, {:.0} MB now",
                slope.mb_per_hour,
                span_in_words(slope.span_hours),
                tracker.newest_mb,
            ),
            service: tracker.service.clone(),
            source: name.to_owned(),
            since: slope.since,
            context: json!({
                "source": name,
                "growth_mb": growth,
                "span_s": slope.span_hours * 3600.0,
                "recent_mb_per_hour": slope.recent_mb_per_hour,
                "rss_mb": tracker.newest_mb,
                "samples": slope.samples,
            }),
        };
        Evaluation {
            seen: if tracker.fresh {
                Seen::Bad
            } else {
                Seen::BadStill
            },
            finding: Some(finding),
        }
    } else if slope.mb_per_hour > limit {
        Evaluation::UNSURE
    } else if tracker.fresh {
        Evaluation::GOOD
    } else {
        Evaluation::UNKNOWN
    }
}

fn span_in_words(hours: f64) -> String {
    let seconds = hours * 3600.0;
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// Checks that called it bad, over readings one a minute of MB by minute.
    fn bad_checks(minutes: i64, mb: impl Fn(i64) -> f64) -> usize {
        let (mut monitor, config) = (Memory::default(), DetectConfig::default());
        (0..minutes)
            .filter(|i| {
                let at = Timestamp::from_millis(i * MINUTE);
                monitor.reading("rss", Some("api"), 1, at, bytes(mb(*i)), &config);
                monitor.evaluate(at, &config, 100.0, None).seen == Seen::Bad
            })
            .count()
    }

    fn bytes(mb: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let bytes = (mb * BYTES_PER_MB) as u64;
        bytes
    }

    /// The same few "random" MB for the same minute, 0 to 30.
    fn noise(minute: i64) -> f64 {
        ((minute * 7919 + 13) * 104_729 % 1000) as f64 / 1000.0 * 30.0
    }

    fn daily(minute: i64) -> f64 {
        300.0 + 60.0 * (minute as f64 / 1440.0 * std::f64::consts::TAU).sin() + noise(minute)
    }

    /// SAFETY 2: a job that takes memory at once, soon after a window began, while readings jitter a little.
    #[test]
    fn a_step_after_few_readings_is_no_leak() {
        for start in 0..300 {
            for step in 9..16 {
                let mb = |i: i64| {
                    let job = if i >= step { 240.0 } else { 0.0 };
                    700.0 + noise(start + i) * 0.5 + job
                };
                let bad = bad_checks(step + 4, mb);
                assert!(bad < 3, "start {start}, step {step}: {bad} bad checks");
            }
        }
    }

    #[test]
    fn a_leak_under_daily_load_is_found_and_a_small_one_is_not() {
        for start in [0, 360, 720, 1080] {
            let leak = |rate: f64| bad_checks(180, |i| daily(start + i) + rate * i as f64 / 60.0);
            assert!(
                leak(200.0) > 60,
                "200 MB/h from minute {start}: {}",
                leak(200.0)
            );
            assert_eq!(leak(20.0), 0, "20 MB/h from minute {start}");
        }
        assert_eq!(bad_checks(2 * 1440, daily), 0, "two days of load alone");
    }

    #[test]
    fn a_warm_up_that_levels_off_and_a_single_step_are_no_leak() {
        for tau in [0.5, 1.0, 5.0] {
            let warm_up = |i: i64| 50.0 + 400.0 * (1.0 - (-(i as f64) / tau).exp());
            assert!(
                bad_checks(240, warm_up) == 0,
                "tau {tau}: {}",
                bad_checks(240, warm_up)
            );
        }
        for step_at in 5..120 {
            let step = |i: i64| if i < step_at { 100.0 } else { 180.0 };
            assert_eq!(bad_checks(180, step), 0, "step at minute {step_at}");
        }
    }

    #[test]
    fn exactly_at_the_limit_is_silent() {
        assert_eq!(bad_checks(240, |i| 100.0 + 99.9 * i as f64 / 60.0), 0);
        assert!(bad_checks(240, |i| 100.0 + 103.0 * i as f64 / 60.0) > 0);
    }

    #[test]
    fn a_restart_begins_anew() {
        let (mut monitor, config) = (Memory::default(), DetectConfig::default());
        let mut read = |i: i64, process| {
            let at = Timestamp::from_millis(i * MINUTE);
            monitor.reading(
                "rss",
                Some("api"),
                process,
                at,
                bytes(100.0 + 10.0 * i as f64),
                &config,
            );
            (
                monitor.evaluate(at, &config, 100.0, None).seen,
                monitor.growth(&config),
            )
        };
        for i in 0..30 {
            read(i, 1);
        }
        assert_eq!(read(30, 1).0, Seen::Bad);
        assert_eq!(read(31, 2), (Seen::Unknown, None));
    }

    #[test]
    fn a_fast_leak_is_found_in_seconds_when_so_configured() {
        let mut monitor = Memory::default();
        let config = DetectConfig {
            interval_ms: 1000,
            memory_min_span_ms: 5_000,
            memory_warmup_ms: 1_000,
            ..DetectConfig::default()
        };
        let first_bad = (0..60).find(|i| {
            let at = Timestamp::from_millis(i * 500);
            monitor.reading("rss", None, 1, at, bytes(50.0 + 4.0 * *i as f64), &config);
            monitor.evaluate(at, &config, 100.0, None).seen == Seen::Bad
        });
        assert!(first_bad.is_some_and(|i| i <= 14), "{first_bad:?}");
    }

    #[test]
    fn the_window_is_bounded() {
        let (mut monitor, config) = (Memory::default(), DetectConfig::default());
        for i in 0..20_000 {
            let at = Timestamp::from_millis(MINUTE + i * 100);
            monitor.reading("rss", None, 1, at, bytes(100.0), &config);
        }
        assert!(
            monitor
                .trackers
                .values()
                .all(|t| t.readings.len() <= MEMORY_SAMPLES_MAX)
        );
    }
}
