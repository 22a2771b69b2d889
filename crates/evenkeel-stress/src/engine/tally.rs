//! What a run counts while it runs, and what it hands over when it ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::measure::LatencySummary;
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::text::bounded;

/// Largest latency that is told apart, in microseconds: one hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Most different error codes that are counted.
const CODES_MAX: usize = 32;
/// Longest error code, in characters.
const CODE_CHARS_MAX: usize = 64;
/// Most sample messages that are kept.
const SAMPLES_MAX: usize = 3;
/// Longest sample message, in characters.
const SAMPLE_CHARS_MAX: usize = 300;

/// A histogram of latencies: microseconds to one hour, three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are valid constants")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(micros.clamp(1, LATENCY_US_MAX));
}

pub(crate) fn summary(histogram: &Histogram<u64>) -> LatencySummary {
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

/// How one request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Answered as expected.
    Good,
    /// Answered, but not as expected.
    BadAnswer {
        kind: String,
        message: String,
        code: Option<String>,
    },
    /// Not answered within its limit.
    Timeout { message: String },
    /// No answer: the connection failed.
    NoAnswer { kind: &'static str, message: String },
}

/// Counters of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Option<Instant>,
    last: Option<Instant>,
    begun: u64,
    ended: u64,
    answered: u64,
    errors: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    codes: BTreeMap<String, u64>,
    samples: Vec<String>,
    timeouts_in_a_row: u32,
    gave_up: bool,
    local_error: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            started: None,
            last: None,
            begun: 0,
            ended: 0,
            answered: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
            codes: BTreeMap::new(),
            samples: Vec::new(),
            timeouts_in_a_row: 0,
            gave_up: false,
            local_error: None,
        }
    }
}

impl Tally {
    /// The first requests leave now; later calls change nothing.
    pub(crate) fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    pub(crate) fn begin(&mut self) {
        self.begun += 1;
    }

    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Counts how a request ended; `give_up_after` time-outs in a row end the run.
    pub(crate) fn end(&mut self, latency: Duration, end: End, give_up_after: Option<u32>) {
        self.last = Some(Instant::now());
        self.ended += 1;
        let timed_out = match &end {
            End::Timeout { .. } => true,
            End::NoAnswer { kind, .. } => *kind == "connect_timeout",
            _ => false,
        };
        match end {
            End::Good => {
                self.answered += 1;
                record(&mut self.latency, latency);
            }
            End::BadAnswer {
                kind,
                message,
                code,
            } => {
                self.answered += 1;
                record(&mut self.latency, latency);
                self.error(kind, &message);
                if let Some(code) = code {
                    let code = bounded(&code, CODE_CHARS_MAX);
                    if self.codes.len() < CODES_MAX || self.codes.contains_key(&code) {
                        *self.codes.entry(code).or_default() += 1;
                    }
                }
            }
            End::Timeout { message } => {
                record(&mut self.latency, latency);
                self.error("timeout".to_owned(), &message);
            }
            End::NoAnswer { kind, message } => {
                if kind == "local" && self.local_error.is_none() {
                    self.local_error = Some(bounded(&message, SAMPLE_CHARS_MAX));
                }
                self.error(kind.to_owned(), &message);
            }
        }
        if timed_out {
            self.timeouts_in_a_row = self.timeouts_in_a_row.saturating_add(1);
            self.gave_up |= give_up_after.is_some_and(|most| self.timeouts_in_a_row >= most);
        } else {
            self.timeouts_in_a_row = 0;
        }
    }

    fn error(&mut self, kind: String, message: &str) {
        // The kinds are a handful of names and at most 500 statuses.
        *self.errors.entry(kind).or_default() += 1;
        if self.samples.len() < SAMPLES_MAX {
            let message = bounded(message, SAMPLE_CHARS_MAX);
            if !self.samples.contains(&message) {
                self.samples.push(message);
            }
        }
    }

    pub(crate) fn finish(self, cancelled: bool) -> Outcome {
        let elapsed = match (self.started, self.last) {
            (Some(started), _) if cancelled => started.elapsed(),
            (Some(started), Some(last)) => last.saturating_duration_since(started),
            _ => Duration::ZERO,
        };
        Outcome {
            requests: self.ended,
            answered: self.answered,
            aborted: self.begun.saturating_sub(self.ended),
            errors: self.errors,
            latency: self.latency,
            elapsed,
            error_codes: self.codes,
            error_samples: self.samples,
            gave_up: self.gave_up,
            cancelled,
            local_error: self.local_error,
        }
    }
}

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that came to an end, good or bad: sent ones, and those for which no connection opened.
    pub requests: u64,
    /// Requests that got a complete answer, whatever it says.
    pub answered: u64,
    /// Requests under way when the run was ended early; they are in no other count.
    pub aborted: u64,
    /// Failed requests by kind, as the table of [`crate::engine`] names them.
    pub errors: BTreeMap<String, u64>,
    /// Latencies of answered requests, and of timed-out ones at no less than their limit, in
    /// microseconds.
    pub latency: Histogram<u64>,
    /// From the start of the first request to the end of the last.
    pub elapsed: Duration,
    /// The texts under `error` in JSON bodies of bad answers, at most 32 different ones.
    pub error_codes: BTreeMap<String, u64>,
    /// The first few different error messages, at most 3 of at most 300 characters.
    pub error_samples: Vec<String>,
    /// The run ended early because too many requests in a row timed out.
    pub gave_up: bool,
    /// The run was ended early from outside.
    pub cancelled: bool,
    /// Why this host, not the target, was the bottleneck; the figures then say nothing.
    pub local_error: Option<String>,
}

impl Outcome {
    /// Latencies in milliseconds.
    pub fn summary(&self) -> LatencySummary {
        summary(&self.latency)
    }

    /// Answered requests per second.
    pub fn throughput_rps(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.answered as f64 / seconds
        } else {
            0.0
        }
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

/// The text under `error` of a JSON object.
pub(crate) fn error_code(body: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(body).ok()? {
        Value::Object(mut map) => match map.remove("error") {
            Some(Value::String(code)) if !code.is_empty() => Some(code),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(n: usize) -> End {
        End::BadAnswer {
            kind: "status_500".into(),
            message: format!("message {n} {}", "x".repeat(1000)),
            code: Some(format!("code_{n}")),
        }
    }

    #[test]
    fn codes_and_samples_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..100 {
            tally.begin();
            tally.end(Duration::from_millis(1), bad(n % 50), None);
        }
        let outcome = tally.finish(false);
        assert_eq!(outcome.error_codes.len(), CODES_MAX);
        assert_eq!(outcome.error_samples.len(), SAMPLES_MAX);
        assert!(
            outcome
                .error_samples
                .iter()
                .all(|s| s.chars().count() <= SAMPLE_CHARS_MAX + 1)
        );
        assert_eq!((outcome.error_count(), outcome.server_errors()), (100, 100));
    }

    #[test]
    fn gives_up_after_timeouts_in_a_row_only() {
        let mut tally = Tally::default();
        let timeout = || End::Timeout {
            message: "late".into(),
        };
        let second = Duration::from_secs(1);
        tally.end(second, timeout(), Some(2));
        tally.end(second, End::Good, Some(2));
        tally.end(second, timeout(), Some(2));
        assert!(!tally.gave_up());
        tally.end(second, timeout(), Some(2));
        assert!(tally.gave_up());
    }

    #[test]
    fn an_error_code_is_a_text_at_the_top() {
        assert_eq!(
            error_code(b"{\"error\":\"pool_timeout\"}").as_deref(),
            Some("pool_timeout")
        );
        for none in [
            &b"{\"error\":{\"a\":1}}"[..],
            b"[1]",
            b"<html>",
            b"",
            b"{\"error\":\"\"}",
        ] {
            assert_eq!(error_code(none), None);
        }
    }
}
