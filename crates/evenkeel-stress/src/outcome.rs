//! What a run measured.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::measure::LatencySummary;
use hdrhistogram::Histogram;

/// Largest latency that is told apart, in microseconds: one hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A histogram of latencies: microseconds to one hour, three significant digits. It grows with what is recorded.
pub(crate) fn histogram() -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(1, 2, 3).expect("the bounds are valid constants");
    histogram.auto(true);
    histogram
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    // It fails only where the range is fixed or memory is out.
    let _ = histogram.record(micros.clamp(1, LATENCY_US_MAX));
}

/// Percentiles in milliseconds of a histogram in microseconds; zeros where nothing is recorded.
pub fn summary(histogram: &Histogram<u64>) -> LatencySummary {
    if histogram.is_empty() {
        return LatencySummary::default();
    }
    let ms = |q| histogram.value_at_quantile(q) as f64 / 1000.0;
    LatencySummary {
        p50: ms(0.50),
        p90: ms(0.90),
        p95: ms(0.95),
        p99: ms(0.99),
        max: histogram.max() as f64 / 1000.0,
        mean: histogram.mean() / 1000.0,
    }
}

/// What a run measured. Requests of the warm-up are in none of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that came to an end, good or bad: sent ones, and those for which no connection opened.
    pub requests: u64,
    /// Requests that got a complete answer, whatever it says.
    pub answered: u64,
    /// Requests under way when the run was ended early; they are in no other count.
    pub aborted: u64,
    /// Requests of an open loop that were due and for which no connection became free in time: in no other count, and
    /// in `latency` with the time they had waited when the run ended.
    pub unsent: u64,
    /// Requests that an open loop planned within its duration; nothing for a closed one.
    pub planned: Option<u64>,
    /// Failed requests by kind, as the table of [`crate::engine`] names them.
    pub errors: BTreeMap<String, u64>,
    /// Complete answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// What a user feels, in microseconds: from the moment a request was due to the end of its answer; for timed-out
    /// ones no less than their limit. In a closed loop a request is due when it is sent.
    pub latency: Histogram<u64>,
    /// What the target took, in microseconds: from the moment a request was really sent. The same as `latency` in a
    /// closed loop.
    pub service_time: Histogram<u64>,
    /// How much later than it could have a request of an open loop left, in microseconds: from the moment it was due
    /// and a connection was free. This is the engine's own doing; empty for a closed loop.
    pub send_lateness: Histogram<u64>,
    /// The same by request, in the order of the plan; at most [`PER_REQUEST_MAX`].
    pub per_request: Vec<RequestFigures>,
    /// The course of the run, in order. Lengths grow on a long run, so that there are never more than some thousands.
    pub series: Vec<Interval>,
    /// From the start of the first request to the end of the last.
    pub elapsed: Duration,
    /// Answered requests a second; where a run had a duration, those answered within it.
    pub throughput_rps: f64,
    /// Bytes read, heads included, before TLS and HTTP/2 framing are taken off for HTTP/1.1 over TLS and HTTP/2.
    pub bytes_received: u64,
    /// Bytes written, likewise.
    pub bytes_sent: u64,
    /// Connections that were opened, those of the warm-up included.
    pub connections_opened: u64,
    /// The texts under `error` in JSON bodies of bad answers, at most 32 different ones.
    pub error_codes: BTreeMap<String, u64>,
    /// The first few different error messages, at most 3 of at most 300 characters.
    pub error_samples: Vec<String>,
    /// The run ended early because too many requests in a row timed out.
    pub gave_up: bool,
    /// The run ended early because too large a share of the requests failed: that share.
    pub too_many_errors: Option<f64>,
    /// The run was ended early from outside.
    pub cancelled: bool,
    /// Why this host could not make the load (sockets, ports); the figures then say nothing.
    pub local_error: Option<String>,
    /// Share of one processor that the busiest thread used, 0 to 1; nothing where this system does not tell.
    pub busiest_thread: Option<f64>,
    /// Processor time of all threads that made load, in seconds; nothing where this system does not tell.
    pub cpu_seconds: Option<f64>,
    /// Why the figures say nothing about the target: the engine itself was the bottleneck, or `local_error`.
    pub invalid: Option<String>,
}

/// Most requests of a plan that are told apart in [`Outcome::per_request`]; the later ones are in the totals only.
pub const PER_REQUEST_MAX: usize = 64;

/// What was measured of one of several requests.
#[derive(Clone, Debug)]
pub struct RequestFigures {
    /// `GET /path`, as the plan has it.
    pub name: String,
    /// As [`Outcome::requests`].
    pub requests: u64,
    /// Failed ones by kind.
    pub errors: BTreeMap<String, u64>,
    /// As [`Outcome::latency`].
    pub latency: Histogram<u64>,
}

/// A part of a run: what ended within it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// When it begins, after the first counted request was due.
    pub start: Duration,
    /// How long it is; the last one may be shorter.
    pub length: Duration,
    /// As [`Outcome::requests`].
    pub requests: u64,
    /// As [`Outcome::answered`].
    pub answered: u64,
    /// Failed ones.
    pub errors: u64,
    /// Of those that ended here, in milliseconds, as [`Outcome::latency`].
    pub latency_ms: LatencySummary,
    /// As [`Outcome::service_time`], in milliseconds.
    pub service_ms: LatencySummary,
}

impl Interval {
    /// Answered requests a second.
    pub fn throughput_rps(&self) -> f64 {
        per_second(self.answered, self.length)
    }
}

impl Outcome {
    /// Latencies in milliseconds.
    pub fn summary(&self) -> LatencySummary {
        summary(&self.latency)
    }

    /// All failed requests.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Failed requests over all; 0 when there was none.
    pub fn error_rate(&self) -> f64 {
        if self.requests == 0 {
            0.0
        } else {
            self.error_count() as f64 / self.requests as f64
        }
    }

    /// Answers with a status from 500 to 599 that were not expected.
    pub fn server_errors(&self) -> u64 {
        self.errors
            .iter()
            .filter(|(kind, _)| kind.starts_with("status_5"))
            .map(|(_, count)| count)
            .sum()
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}
