//! What one thread counts while it runs, handed over a few times a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::outcome::{PER_REQUEST_MAX, RequestFigures, histogram, record};
use crate::text::bounded;

/// Most different error codes that are counted.
const CODES_MAX: usize = 32;
/// Longest error code, in characters.
const CODE_CHARS_MAX: usize = 64;
/// Most sample messages that are kept.
const SAMPLES_MAX: usize = 3;
/// Longest sample message, in characters.
const SAMPLE_CHARS_MAX: usize = 300;
/// Statuses that are told apart are below this.
const STATUSES: usize = 1000;

/// How one request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Answered as expected.
    Good { status: u16 },
    /// Answered, but not as expected.
    BadAnswer {
        status: u16,
        kind: String,
        message: String,
        code: Option<String>,
    },
    /// Not answered within its limit.
    Timeout { message: String },
    /// No answer: the connection failed.
    NoAnswer { kind: &'static str, message: String },
}

impl End {
    pub(crate) fn timed_out(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::NoAnswer { kind, .. } => *kind == "connect_timeout",
            _ => false,
        }
    }
}

/// One request that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Which of the plan.
    pub(crate) index: usize,
    /// From the moment it was due.
    pub(crate) latency: Duration,
    /// From the moment it was sent.
    pub(crate) service: Duration,
    pub(crate) end: End,
}

/// Counters of a part of a run.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) answered: u64,
    /// Answered before the time of a run that has one was over.
    pub(crate) answered_in_time: u64,
    /// Begun within the time for which requests were planned.
    pub(crate) sent_in_time: u64,
    pub(crate) unsent: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    statuses: Vec<u64>,
    pub(crate) latency: Histogram<u64>,
    /// In a closed loop the same as `latency`, and not kept twice.
    pub(crate) service: Option<Histogram<u64>>,
    pub(crate) lateness: Option<Histogram<u64>>,
    pub(crate) per_request: Vec<RequestFigures>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) opened: u64,
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) samples: Vec<String>,
    pub(crate) local_error: Option<String>,
    /// How long the thread did not get to run when it should have.
    pub(crate) stalled: Duration,
}

impl Part {
    /// Nothing yet. `open`: for an open loop.
    pub(crate) fn new(open: bool, names: &[String]) -> Self {
        let figures = |name: &String| RequestFigures {
            name: name.clone(),
            requests: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
        };
        let per_request = if names.len() > 1 {
            names.iter().take(PER_REQUEST_MAX).map(figures).collect()
        } else {
            Vec::new()
        };
        Self {
            first: None,
            last: None,
            begun: 0,
            ended: 0,
            answered: 0,
            answered_in_time: 0,
            sent_in_time: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            statuses: vec![0; STATUSES],
            latency: histogram(),
            service: open.then(histogram),
            lateness: open.then(histogram),
            per_request,
            received: 0,
            sent: 0,
            opened: 0,
            codes: BTreeMap::new(),
            samples: Vec::new(),
            local_error: None,
            stalled: Duration::ZERO,
        }
    }

    /// A request begins that was due at `due`.
    pub(crate) fn begin(&mut self, due: Instant) {
        self.first.get_or_insert(due);
        self.begun += 1;
    }

    /// A request of an open loop leaves at `now`, which `could` have been earlier; `ends`: when the planned time is over.
    pub(crate) fn left(&mut self, could: Instant, now: Instant, ends: Option<Instant>) {
        if let Some(lateness) = &mut self.lateness {
            record(lateness, now.saturating_duration_since(could));
        }
        if ends.is_none_or(|e| now <= e) {
            self.sent_in_time += 1;
        }
    }

    /// A request of an open loop was due, and had waited so long when it was given up.
    pub(crate) fn left_out(&mut self, waited: std::time::Duration) {
        self.unsent += 1;
        record(&mut self.latency, waited);
    }

    /// Counts how a request ended, at `now`.
    pub(crate) fn end(&mut self, ended: Ended, now: Instant) {
        self.last = Some(now);
        self.ended += 1;
        let has_latency = match &ended.end {
            End::Good { status } | End::BadAnswer { status, .. } => {
                self.answered += 1;
                if let Some(count) = self.statuses.get_mut(usize::from(*status)) {
                    *count += 1;
                }
                true
            }
            End::Timeout { .. } => true,
            End::NoAnswer { .. } => false,
        };
        if has_latency {
            record(&mut self.latency, ended.latency);
            if let Some(service) = &mut self.service {
                record(service, ended.service);
            }
        }
        if let Some(figures) = self.per_request.get_mut(ended.index) {
            figures.requests += 1;
            if has_latency {
                record(&mut figures.latency, ended.latency);
            }
        }
        match ended.end {
            End::Good { .. } => {}
            End::BadAnswer {
                kind,
                message,
                code,
                ..
            } => {
                self.error(ended.index, kind, &message);
                if let Some(code) = code {
                    count_code(&mut self.codes, &bounded(&code, CODE_CHARS_MAX), 1);
                }
            }
            End::Timeout { message } => self.error(ended.index, "timeout".to_owned(), &message),
            End::NoAnswer { kind, message } => {
                if kind == "local" && self.local_error.is_none() {
                    self.local_error = Some(bounded(&message, SAMPLE_CHARS_MAX));
                }
                self.error(ended.index, kind.to_owned(), &message);
            }
        }
    }

    fn error(&mut self, index: usize, kind: String, message: &str) {
        if let Some(figures) = self.per_request.get_mut(index) {
            *figures.errors.entry(kind.clone()).or_default() += 1;
        }
        // The kinds are a handful of names and at most some hundred statuses.
        *self.errors.entry(kind).or_default() += 1;
        keep_sample(&mut self.samples, bounded(message, SAMPLE_CHARS_MAX));
    }

    /// Adds another thread's or a later part.
    pub(crate) fn add(&mut self, other: &Self) {
        self.first = match (self.first, other.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last = self.last.max(other.last);
        self.begun += other.begun;
        self.ended += other.ended;
        self.answered += other.answered;
        self.answered_in_time += other.answered_in_time;
        self.sent_in_time += other.sent_in_time;
        self.unsent += other.unsent;
        add_counts(&mut self.errors, &other.errors);
        for (a, b) in self.statuses.iter_mut().zip(&other.statuses) {
            *a += b;
        }
        add_histogram(&mut self.latency, &other.latency);
        for (a, b) in [
            (&mut self.service, &other.service),
            (&mut self.lateness, &other.lateness),
        ] {
            if let (Some(a), Some(b)) = (a, b) {
                add_histogram(a, b);
            }
        }
        for (a, b) in self.per_request.iter_mut().zip(&other.per_request) {
            a.requests += b.requests;
            add_counts(&mut a.errors, &b.errors);
            add_histogram(&mut a.latency, &b.latency);
        }
        self.received += other.received;
        self.sent += other.sent;
        self.opened += other.opened;
        for (code, n) in &other.codes {
            count_code(&mut self.codes, code, *n);
        }
        for sample in &other.samples {
            keep_sample(&mut self.samples, sample.clone());
        }
        if self.local_error.is_none() {
            self.local_error.clone_from(&other.local_error);
        }
        self.stalled += other.stalled;
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Complete answers by status.
    pub(crate) fn statuses(&self) -> BTreeMap<u16, u64> {
        (0..)
            .zip(&self.statuses)
            .filter(|(_, n)| **n > 0)
            .map(|(status, n)| (status, *n))
            .collect()
    }
}

fn add_counts(to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (key, n) in from {
        match to.get_mut(key) {
            Some(count) => *count += n,
            None => {
                to.insert(key.clone(), *n);
            }
        }
    }
}

fn add_histogram(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    to.add(from).expect("both grow with what is recorded");
}

fn count_code(codes: &mut BTreeMap<String, u64>, code: &str, n: u64) {
    if codes.len() < CODES_MAX || codes.contains_key(code) {
        *codes.entry(code.to_owned()).or_default() += n;
    }
}

fn keep_sample(samples: &mut Vec<String>, sample: String) {
    if samples.len() < SAMPLES_MAX && !samples.contains(&sample) {
        samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(n: usize) -> Ended {
        Ended {
            index: n % 2,
            latency: Duration::from_millis(n as u64 + 1),
            service: Duration::from_millis(1),
            end: End::BadAnswer {
                status: 500,
                kind: "status_500".into(),
                message: format!("message {n} {}", "x".repeat(1000)),
                code: Some(format!("code_{n}")),
            },
        }
    }

    #[test]
    fn codes_and_samples_are_bounded_and_parts_add_up() {
        let names = ["GET /a".to_owned(), "GET /b".to_owned()];
        let mut whole = Part::new(true, &names);
        for p in 0..2 {
            let mut part = Part::new(true, &names);
            for n in 0..50 {
                part.end(ended(p * 50 + n), Instant::now());
            }
            whole.add(&part);
        }
        assert_eq!(whole.codes.len(), CODES_MAX);
        assert_eq!(whole.samples.len(), SAMPLES_MAX);
        let short = |s: &String| s.chars().count() <= SAMPLE_CHARS_MAX + 1;
        assert!(whole.samples.iter().all(short));
        assert_eq!(
            (whole.ended, whole.answered, whole.error_count()),
            (100, 100, 100)
        );
        assert_eq!(whole.statuses(), BTreeMap::from([(500, 100)]));
        assert_eq!(whole.latency.len(), 100);
        assert_eq!(whole.latency.max() / 1000, 100, "the range grows");
        assert_eq!(whole.per_request[1].errors["status_500"], 50);
        assert_eq!(whole.service.unwrap().len(), 100);
    }
}
