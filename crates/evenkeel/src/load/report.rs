//! What `evenkeel load` keeps of a run: one JSON document that says what was asked and what came of it, that other
//! commands read again, and that holds no header value, no body and no row of data.
//!
//! Its names are an interface. A field may be added; one that is there keeps its name, its unit and its meaning, or
//! [`VERSION`] changes.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::Timestamp;
use evenkeel_stress::{Interval, Outcome, RequestFigures};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The version of the document that is written.
pub const VERSION: u32 = 1;

/// Most pairs of a [`Buckets`]; a histogram with more is kept with two significant digits instead of three.
pub const BUCKETS_MAX: usize = 4_096;

/// A saved run that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It was written by a newer Evenkeel.
    #[error("it has version {found}, and this Evenkeel reads up to {VERSION}; use a newer one")]
    Newer {
        /// The version it has.
        found: u64,
    },
    /// It is no saved run.
    #[error("it is no run saved by `evenkeel load --save`: {0}")]
    Unreadable(String),
}

/// A run: what was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The version of Evenkeel that made the load.
    pub evenkeel: String,
    /// When the run began.
    pub started_at: Timestamp,
    /// What was asked.
    pub run: Asked,
    /// [`Report::end`] is good.
    pub passed: bool,
    /// Why the figures say nothing about the target; nothing when they do.
    pub invalid: Option<String>,
    /// Requests that came to an end, good or bad.
    pub requests: u64,
    /// Those that got a complete answer, whatever it says.
    pub answered: u64,
    /// Those that were under way when the run was ended early.
    pub aborted: u64,
    /// Those of an open loop that never left.
    pub unsent: u64,
    /// Those that an open loop planned; nothing for a closed one.
    pub planned: Option<u64>,
    /// Failed ones.
    pub failed: u64,
    /// Failed ones over all that came to an end, 0 to 1.
    pub error_share: f64,
    /// Failed ones by kind: `refused`, `connect_timeout`, `connect`, `reset`, `tls`, `timeout`, `protocol`,
    /// `status_<code>`, `assertion`, `local`.
    pub errors: BTreeMap<String, u64>,
    /// Complete answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Texts under `error` in JSON bodies of bad answers, at most 32.
    pub error_codes: BTreeMap<String, u64>,
    /// The first few different messages, at most 3.
    pub error_samples: Vec<String>,
    /// From the start of the first request to the end of the last, in seconds.
    pub elapsed_s: f64,
    /// Answered requests a second.
    pub throughput_rps: f64,
    /// From the moment a request was due to the end of its answer, in milliseconds: what a user feels.
    pub latency_ms: Percentiles,
    /// From the moment it really left, in milliseconds; the same as `latency_ms` in a closed loop.
    pub service_ms: Percentiles,
    /// How much later than they could have requests of an open loop left; nothing for a closed one.
    pub send_lateness_ms: Option<Lateness>,
    /// All of `latency_ms`.
    pub latency_histogram: Buckets,
    /// All of `service_ms`; empty in a closed loop, where it is the same.
    pub service_histogram: Buckets,
    /// The same by request where there are several, at most 64, in the order of the plan.
    pub per_request: Vec<OneRequest>,
    /// The course of the run, in order.
    pub series: Vec<Point>,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Connections opened, those of the warm-up included.
    pub connections_opened: u64,
    /// It was ended early by a signal.
    pub cancelled: bool,
    /// It ended early because too many requests in a row timed out.
    pub gave_up: bool,
    /// It ended early because this share of its requests failed, 0 to 1.
    pub too_many_errors: Option<f64>,
    /// Share of one processor that the busiest thread used, 0 to 1.
    pub busiest_thread: Option<f64>,
    /// Processor time of the threads that made load, in seconds.
    pub cpu_seconds: Option<f64>,
    /// The thresholds that were asked for, and what became of them.
    pub thresholds: Vec<Verdict>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The figures say something, and every threshold was kept.
    Good,
    /// The figures say something, and it is not good: why.
    Missed(String),
    /// The figures say nothing about the target: why.
    Useless(String),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The address, with what looks like a secret taken out.
    pub url: String,
    /// In words: `50 connections for 10 s`.
    pub words: String,
    /// How requests were paced.
    pub load: Pacing,
    /// Connections at most.
    pub connections: u32,
    /// Threads that made load.
    pub threads: u32,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// Whether connections were used again.
    pub keep_alive: bool,
    /// Requests at once on one connection.
    pub streams: u32,
    /// Time before requests were counted, in milliseconds.
    pub warm_up_ms: u64,
    /// Limit for opening a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Limit for a request, in milliseconds.
    pub request_timeout_ms: u64,
    /// Where random arrivals and pauses began.
    pub seed: u64,
}

/// How requests were paced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Pacing {
    /// Each connection sent its next request when the last one was answered.
    Closed {
        /// It was to end after so many requests.
        requests: Option<u64>,
        /// It was to end after so long, in milliseconds.
        duration_ms: Option<u64>,
        /// Shortest and longest pause between an answer and the next request, in milliseconds.
        think_ms: [u64; 2],
    },
    /// Requests left when they were planned to.
    Open {
        /// Requests a second at the start.
        rate_from: f64,
        /// Requests a second at the end of the ramp, and after it.
        rate_to: f64,
        /// How long the ramp took, in milliseconds; 0 for a constant rate.
        ramp_ms: u64,
        /// For how long requests were planned, in milliseconds.
        duration_ms: u64,
        /// `constant` or `poisson`.
        arrivals: String,
    },
}

/// Percentiles, in milliseconds; zeros where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 75th percentile.
    pub p75: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p99_9: f64,
    /// 99.99th percentile.
    pub p99_99: f64,
    /// Largest.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

/// How late requests left, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// A histogram: its buckets that hold something, each with the largest value it holds and how many it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// Significant digits of the values: 3, or 2 where more than [`BUCKETS_MAX`] buckets hold something.
    pub digits: u8,
    /// Values in microseconds, rising, with their counts.
    pub us: Vec<(u64, u64)>,
}

/// What was measured of one of several requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneRequest {
    /// `GET /path`.
    pub name: String,
    /// Those that came to an end.
    pub requests: u64,
    /// Failed ones by kind.
    pub errors: BTreeMap<String, u64>,
    /// As [`Report::latency_ms`].
    pub latency_ms: Percentiles,
}

/// A part of the run: what ended within it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it begins, in seconds after the first counted request was due.
    pub at_s: f64,
    /// How long it is, in seconds.
    pub length_s: f64,
    /// Requests that came to an end.
    pub requests: u64,
    /// Those that got a complete answer.
    pub answered: u64,
    /// Failed ones.
    pub errors: u64,
    /// Answered requests a second.
    pub throughput_rps: f64,
    /// As [`Report::latency_ms`].
    pub latency_ms: evenkeel_core::measure::LatencySummary,
    /// As [`Report::service_ms`].
    pub service_ms: evenkeel_core::measure::LatencySummary,
}

/// A threshold, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// As it was asked for: `p95 < 300ms`.
    pub text: String,
    /// What was measured, in `unit`; nothing where nothing was.
    pub measured: Option<f64>,
    /// Its limit, in `unit`.
    pub limit: f64,
    /// `ms`, `%` or `/s`.
    pub unit: String,
    /// Whether it was kept.
    pub passed: bool,
}

impl Report {
    /// The document of a run that ended, without thresholds.
    pub fn new(asked: Asked, started_at: Timestamp, outcome: &Outcome) -> Self {
        let open = matches!(asked.load, Pacing::Open { .. });
        let mut report = Self {
            version: VERSION,
            evenkeel: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            run: asked,
            passed: false,
            invalid: outcome.invalid.clone(),
            requests: outcome.requests,
            answered: outcome.answered,
            aborted: outcome.aborted,
            unsent: outcome.unsent,
            planned: outcome.planned,
            failed: outcome.error_count(),
            error_share: outcome.error_rate(),
            errors: outcome.errors.clone(),
            statuses: outcome.statuses.clone(),
            error_codes: outcome.error_codes.clone(),
            error_samples: outcome.error_samples.clone(),
            elapsed_s: outcome.elapsed.as_secs_f64(),
            throughput_rps: outcome.throughput_rps,
            latency_ms: Percentiles::of(&outcome.latency),
            service_ms: Percentiles::of(&outcome.service_time),
            send_lateness_ms: open.then(|| Lateness::of(&outcome.send_lateness)),
            latency_histogram: Buckets::of(&outcome.latency),
            service_histogram: if open {
                Buckets::of(&outcome.service_time)
            } else {
                Buckets::default()
            },
            per_request: outcome.per_request.iter().map(OneRequest::of).collect(),
            series: outcome.series.iter().map(Point::of).collect(),
            bytes_received: outcome.bytes_received,
            bytes_sent: outcome.bytes_sent,
            connections_opened: outcome.connections_opened,
            cancelled: outcome.cancelled,
            gave_up: outcome.gave_up,
            too_many_errors: outcome.too_many_errors,
            busiest_thread: outcome.busiest_thread,
            cpu_seconds: outcome.cpu_seconds,
            thresholds: Vec::new(),
        };
        report.judge(Vec::new());
        report
    }

    /// Takes over how thresholds were kept.
    pub fn judge(&mut self, thresholds: Vec<Verdict>) {
        self.thresholds = thresholds;
        self.passed = self.end() == End::Good;
    }

    /// How the run ended.
    pub fn end(&self) -> End {
        if let Some(why) = &self.invalid {
            return End::Useless(format!("invalid: {why}"));
        }
        if self.answered == 0 && self.requests + self.unsent > 0 {
            return End::Useless(format!("{} did not answer a single request", self.run.url));
        }
        if let Some(share) = self.too_many_errors {
            return End::Missed(format!(
                "ended early: {:.0} % of the last requests failed",
                share * 100.0
            ));
        }
        if self.gave_up {
            return End::Missed("ended early: too many requests in a row timed out".to_owned());
        }
        let missed = self.thresholds.iter().filter(|t| !t.passed).count();
        if missed > 0 {
            let all = self.thresholds.len();
            return End::Missed(format!("{missed} of {all} thresholds missed"));
        }
        if self.cancelled && !self.thresholds.is_empty() {
            // What was not measured to its end has not shown that it is good.
            return End::Missed("ended before the thresholds could be judged".to_owned());
        }
        End::Good
    }

    /// Reads a saved run. Names that are not known are passed over; a newer version is refused.
    pub fn read(text: &str) -> Result<Self, ReportError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let unreadable = |e: serde_json::Error| ReportError::Unreadable(e.to_string());
        let Head { version } = serde_json::from_str(text).map_err(unreadable)?;
        if version > u64::from(VERSION) {
            return Err(ReportError::Newer { found: version });
        }
        serde_json::from_str(text).map_err(unreadable)
    }

    /// Whether requests were planned ahead, so that the two latencies differ.
    pub fn is_open(&self) -> bool {
        matches!(self.run.load, Pacing::Open { .. })
    }
}

impl Percentiles {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let ms = |q| millis(histogram.value_at_quantile(q));
        Self {
            p50: ms(0.50),
            p75: ms(0.75),
            p90: ms(0.90),
            p95: ms(0.95),
            p99: ms(0.99),
            p99_9: ms(0.999),
            p99_99: ms(0.9999),
            max: millis(histogram.max()),
            mean: histogram.mean() / 1000.0,
        }
    }
}

impl Lateness {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            p50: millis(histogram.value_at_quantile(0.50)),
            p99: millis(histogram.value_at_quantile(0.99)),
            max: millis(histogram.max()),
        }
    }
}

impl Buckets {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let fine = pairs(histogram);
        if fine.len() <= BUCKETS_MAX {
            return Self {
                digits: 3,
                us: fine,
            };
        }
        // Two digits of an hour in microseconds are less than 3,500 buckets.
        let coarse = Histogram::<u64>::new(2).ok().and_then(|mut coarse| {
            coarse.add(histogram).ok()?;
            Some(pairs(&coarse))
        });
        Self {
            digits: 2,
            us: coarse.unwrap_or_default(),
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.us.iter().map(|(_, count)| count).sum()
    }
}

fn pairs(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|bucket| {
            (
                bucket.value_iterated_to(),
                bucket.count_since_last_iteration(),
            )
        })
        .collect()
}

impl OneRequest {
    fn of(figures: &RequestFigures) -> Self {
        Self {
            name: figures.name.clone(),
            requests: figures.requests,
            errors: figures.errors.clone(),
            latency_ms: Percentiles::of(&figures.latency),
        }
    }
}

impl Point {
    fn of(interval: &Interval) -> Self {
        Self {
            at_s: interval.start.as_secs_f64(),
            length_s: interval.length.as_secs_f64(),
            requests: interval.requests,
            answered: interval.answered,
            errors: interval.errors,
            throughput_rps: interval.throughput_rps(),
            latency_ms: interval.latency_ms,
            service_ms: interval.service_ms,
        }
    }
}

fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Whole milliseconds.
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of an open loop.
    pub(crate) fn example() -> Report {
        serde_json::from_str(include_str!("report/example.json")).unwrap()
    }

    /// A saved run of version 1 is read for ever, and written as it was.
    #[test]
    fn a_saved_run_is_read_and_written_again() {
        let text = include_str!("report/example.json");
        let report = Report::read(text).unwrap();
        let again = serde_json::to_value(&report).unwrap();
        assert_eq!(
            again,
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
        // A field that a later version adds does not stand in the way.
        let later = text.replacen('{', "{\"added_later\": [1],", 1);
        assert_eq!(Report::read(&later).unwrap(), report);
    }

    #[test]
    fn a_run_ends_well_only_when_everything_is_well() {
        let good = example();
        assert_eq!(good.end(), End::Good);
        let ended = |spoil: fn(&mut Report)| {
            let mut report = example();
            spoil(&mut report);
            report.end()
        };
        for (spoil, word) in [
            (
                (|r| r.thresholds[0].passed = false) as fn(&mut Report),
                "1 of 1",
            ),
            (|r| r.too_many_errors = Some(0.6), "60 %"),
            (|r| r.gave_up = true, "timed out"),
            (|r| r.cancelled = true, "before"),
        ] {
            match ended(spoil) {
                End::Missed(why) => assert!(why.contains(word), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        for spoil in [
            (|r| r.answered = 0) as fn(&mut Report),
            (|r| r.invalid = Some("busy".to_owned())),
        ] {
            assert!(matches!(ended(spoil), End::Useless(_)));
        }
        let cancelled = ended(|r| {
            r.cancelled = true;
            r.thresholds.clear();
        });
        assert_eq!(cancelled, End::Good);
    }

    #[test]
    fn a_histogram_is_kept_whole_and_bounded() {
        let mut few = Histogram::<u64>::new(3).unwrap();
        for us in [150, 150, 2_500_000] {
            few.record(us).unwrap();
        }
        let kept = Buckets::of(&few);
        assert_eq!(kept.digits, 3);
        assert_eq!(kept.us, [(150, 2), (2_500_607, 1)]);
        // One value in every bucket that three digits have between a microsecond and an hour.
        let mut all = Histogram::<u64>::new(3).unwrap();
        let mut value = 1;
        while value < 3_600_000_000 {
            all.record(value).unwrap();
            value = all.next_non_equivalent(value);
        }
        assert!(pairs(&all).len() > BUCKETS_MAX);
        let kept = Buckets::of(&all);
        assert_eq!(kept.digits, 2);
        assert!(kept.us.len() <= BUCKETS_MAX, "{}", kept.us.len());
        assert_eq!(kept.count(), all.len());
        assert!(kept.us.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn a_newer_or_foreign_document_is_refused_in_words() {
        let newer = Report::read(r#"{"version": 2, "whatever": 1}"#).unwrap_err();
        assert_eq!(newer, ReportError::Newer { found: 2 });
        for foreign in ["", "[]", "{}", r#"{"version": 1}"#] {
            let error = Report::read(foreign).unwrap_err().to_string();
            assert!(error.contains("--save"), "{foreign}: {error}");
        }
    }
}
