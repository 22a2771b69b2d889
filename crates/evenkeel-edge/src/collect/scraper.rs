//! Any number of metrics pages, each read again and again at its own pace, and turned into readings.
//!
//! A counter becomes a rate per second, a histogram the quantiles of what it counted between two scrapes, and of its
//! family over all labels; a level stays what it is. A counter that began anew counts from zero; one that is new counts
//! from the next scrape on, unless it says itself (`_created`) that it has only begun. What is missing is missing: a
//! target that does not answer gives no readings and one reason, and a series that three scrapes in a row lack is gone.
//!
//! Bounded: how many pages are read at once, how long each may take and how long it may be, and the series of each
//! target; the series beyond that are dropped, and one message says so.

mod histogram;
mod memory;
mod track;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::Timestamp;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use regex::Regex;
use zeroize::Zeroizing;

pub use memory::{FORGET_AFTER_S, MISSED_MAX};
pub use track::STAMP_AGE_MAX_MS;

use super::exposition::{Format, PAGE_LEN_MAX};
use super::probe::{PageRequest, Prober};
use super::reading::Reading;
use track::{Found, Moment, Rules, Track};

/// Most pages that are read at the same time.
pub const CONCURRENT_MAX: usize = 8;
/// Most series of one target, unless its configuration says otherwise.
pub const SERIES_MAX_DEFAULT: usize = 2_000;
/// A problem that was told is told again only after it was away for this long.
const QUIET_MS: i64 = 3_600_000;
/// What is understood, the best first.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// One page of metrics.
#[derive(Clone, Debug)]
pub struct ScrapeTarget {
    /// What people call it.
    pub name: Arc<str>,
    /// Its address.
    pub url: String,
    /// The service it belongs to.
    pub service: Option<Arc<str>>,
    /// Time between two scrapes.
    pub every: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Most series that are kept; buckets count, each.
    pub series_max: usize,
    /// Only metrics whose names match.
    pub include: Option<Regex>,
    /// No metrics whose names match.
    pub exclude: Option<Regex>,
    /// Sent as bearer token.
    pub token: Option<Zeroizing<String>>,
}

impl ScrapeTarget {
    /// A target with what is usual: every 10 seconds, 5 seconds at most, 2 000 series, all of them.
    pub fn new(name: impl Into<Arc<str>>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            service: None,
            every: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            series_max: SERIES_MAX_DEFAULT,
            include: None,
            exclude: None,
            token: None,
        }
    }
}

/// What came of one scrape of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetReport {
    /// Its name.
    pub target: Arc<str>,
    /// The service it belongs to.
    pub service: Option<Arc<str>>,
    /// When it was asked.
    pub at: Timestamp,
    /// Why there is nothing; `None`: there was a page.
    pub missing: Option<Missing>,
    /// How many series are remembered of it.
    pub series: usize,
    /// Problems that are told for the first time: each says what is wrong and what to do.
    pub notes: Vec<String>,
    /// Series that have just become stale.
    pub gone: Vec<Arc<str>>,
    /// Series of information, such as a version, that were not there at the scrape before: a deploy looks like this.
    pub told: Vec<Arc<str>>,
}

/// A page that did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// For people: why.
    pub reason: String,
    /// It came the time before: worth telling. Afterwards it is known.
    pub is_new: bool,
}

/// What came of the scrapes that were due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// What was read.
    pub readings: Vec<Reading>,
    /// One for each target that was asked.
    pub reports: Vec<TargetReport>,
}

/// Reads all of them.
#[derive(Debug)]
pub struct Scraper {
    prober: Prober,
    targets: Vec<Tracked>,
    begun: Instant,
}

impl Scraper {
    /// Nothing is read yet. The first scrapes are spread over the time between two, so that the targets are not all
    /// asked at once.
    pub fn new(targets: Vec<ScrapeTarget>, prober: Prober, now: Instant) -> Self {
        let share = 1.0 / targets.len().max(1) as f64;
        let tracked = targets.into_iter().enumerate().map(|(i, target)| {
            let due = now + target.every.mul_f64(i as f64 * share);
            Tracked::new(target, due)
        });
        Self {
            prober,
            targets: tracked.collect(),
            begun: now,
        }
    }

    /// When the next one is due; `None` when there are no targets.
    pub fn next_due(&self) -> Option<Instant> {
        self.targets.iter().map(|t| t.due).min()
    }

    /// How many series are remembered in all.
    pub fn series_len(&self) -> usize {
        self.targets.iter().map(|t| t.track.series_len()).sum()
    }

    /// Reads every page that is due at `now`. Takes at most as long as their timeouts, with [`CONCURRENT_MAX`] of them
    /// at a time; a scrape that could not be made in time is left out, not made up for.
    pub async fn round(&mut self, now: Instant) -> Round {
        let prober = &self.prober;
        let pace = Pace {
            now,
            since_begin: now.saturating_duration_since(self.begun),
            round: Instant::now(),
        };
        let due: Vec<&mut Tracked> = self.targets.iter_mut().filter(|t| t.due <= now).collect();
        let mut waiting = due.into_iter();
        let mut running = FuturesUnordered::new();
        let mut round = Round::default();
        loop {
            while running.len() < CONCURRENT_MAX
                && let Some(target) = waiting.next()
            {
                running.push(target.scrape(prober, pace));
            }
            let Some((readings, report)) = running.next().await else {
                break;
            };
            round.readings.extend(readings);
            round.reports.push(report);
        }
        round
    }
}

/// When a round is made.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// As it was told.
    now: Instant,
    /// From the first moment on, up to now.
    since_begin: Duration,
    /// By the clock, to know how long a target waits for its turn.
    round: Instant,
}

/// What can be wrong with a page that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    TooManySeries,
    Faults,
    CutOff,
    Twice,
    Odd,
}

/// One target and what is remembered of it.
#[derive(Debug)]
struct Tracked {
    target: ScrapeTarget,
    rules: Rules,
    track: Track,
    due: Instant,
    is_missing: bool,
    /// When each problem was last there, by our own clock, in milliseconds.
    told: BTreeMap<Problem, i64>,
}

impl Tracked {
    fn new(target: ScrapeTarget, due: Instant) -> Self {
        let rules = Rules {
            include: target.include.clone(),
            exclude: target.exclude.clone(),
            series_max: target.series_max,
            service: target.service.clone(),
        };
        Self {
            track: Track::of(&target.name),
            target,
            rules,
            due,
            is_missing: false,
            told: BTreeMap::new(),
        }
    }

    async fn scrape(&mut self, prober: &Prober, pace: Pace) -> (Vec<Reading>, TargetReport) {
        while self.due <= pace.now {
            self.due += self.target.every.max(Duration::from_millis(1));
        }
        let request = PageRequest {
            url: &self.target.url,
            deadline: self.target.timeout,
            // One more than is read: whether there was more is to be known.
            len_max: PAGE_LEN_MAX + 1,
            accept: Some(ACCEPT),
            token: self.target.token.as_deref().map(String::as_str),
        };
        // It may have waited for its turn.
        let steady = pace.since_begin + pace.round.elapsed();
        let steady_ms = i64::try_from(steady.as_millis()).unwrap_or(i64::MAX);
        let answer = prober.page(&request).await;
        let moment = Moment {
            at: answer.result.at,
            steady_ms,
        };
        let reason = if !answer.result.ok {
            Some(
                answer
                    .result
                    .detail
                    .unwrap_or_else(|| "no answer".to_owned()),
            )
        } else if answer.is_encoded {
            Some("the page is compressed, though plain text was asked for".to_owned())
        } else {
            None
        };
        let mut report = TargetReport {
            target: Arc::clone(&self.target.name),
            service: self.target.service.clone(),
            at: moment.at,
            missing: None,
            series: 0,
            notes: Vec::new(),
            gone: Vec::new(),
            told: Vec::new(),
        };
        let mut readings = Vec::new();
        if let Some(reason) = reason {
            self.track.fail(moment);
            let is_new = !std::mem::replace(&mut self.is_missing, true);
            report.missing = Some(Missing { reason, is_new });
        } else {
            self.is_missing = false;
            let format = Format::of_content_type(&answer.content_type);
            let found = self.track.absorb(&answer.body, format, moment, &self.rules);
            report.notes = self.notes(&found, steady_ms);
            report.gone = found.gone;
            report.told = found.told;
            readings = found.readings;
        }
        report.series = self.track.series_len();
        (readings, report)
    }

    /// What is wrong with a page and was not told before.
    fn notes(&mut self, found: &Found, now_ms: i64) -> Vec<String> {
        let name = &self.target.name;
        let first = found
            .faults
            .first
            .map_or_else(String::new, |f| f.to_string());
        let all = [
            (
                Problem::TooManySeries,
                found.dropped > 0,
                format!(
                    "{name} has more series than the {} that are kept of it: {} are dropped. Leave out what nobody needs with \
                 `include` or `exclude`, or raise its `series_max`",
                    self.target.series_max, found.dropped
                ),
            ),
            (
                Problem::Faults,
                found.faults.count > 0,
                format!(
                    "{name}: {} lines are not understood and passed over; the first is {first}",
                    found.faults.count
                ),
            ),
            (
                Problem::CutOff,
                !found.is_whole,
                format!(
                    "{name}: the page was cut off; what came is used, what did not come is not counted as gone"
                ),
            ),
            (
                Problem::Twice,
                found.twice > 0,
                format!(
                    "{name} has {} series twice on its page: the first of each counts",
                    found.twice
                ),
            ),
            (
                Problem::Odd,
                found.odd > 0,
                format!(
                    "{name}: {} samples make no sense (a counter below zero, a bucket without a bound, a label twice, or a time \
                 more than {} s from now) and are passed over",
                    found.odd,
                    STAMP_AGE_MAX_MS / 1000
                ),
            ),
        ];
        let mut notes = Vec::new();
        for (problem, is_there, text) in all {
            if !is_there {
                continue;
            }
            let last = self.told.insert(problem, now_ms);
            if last.is_none_or(|last| now_ms - last > QUIET_MS) {
                notes.push(text);
            }
        }
        notes
    }
}

#[cfg(test)]
mod tests;
