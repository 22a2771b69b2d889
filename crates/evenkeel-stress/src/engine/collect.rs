//! Puts the parts of all threads together: totals, and the course of the run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::tally::Part;
use crate::outcome::{Interval, Outcome, summary};

/// Intervals of one length in [`Outcome::series`]; after so many they become twice as long.
const SAME_LENGTH: u64 = 900;
/// Seconds over which the share of errors is looked at.
const ERROR_SECONDS: usize = 10;
/// Requests below which no share of errors ends a run.
const ERROR_REQUESTS_MIN: u64 = 100;

/// A part of one thread, and when it began after the first counted request could be due.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) thread: usize,
    pub(crate) begins: Duration,
    pub(crate) part: Part,
}

/// What is known while a run goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Live {
    /// Since the first counted request could be due; zero during the warm-up.
    pub elapsed: Duration,
    /// Whether the warm-up is over.
    pub measuring: bool,
    /// Requests that have ended so far.
    pub requests: u64,
    /// Failed ones by kind.
    pub errors: BTreeMap<String, u64>,
    /// All latencies so far, as [`Outcome::latency`], in microseconds.
    pub latency: hdrhistogram::Histogram<u64>,
    /// Requests under way.
    pub under_way: u64,
    /// The last interval that is complete.
    pub last: Option<Interval>,
}

/// The interval of a second: where it begins and how long it is, in seconds.
fn interval_of(second: u64) -> (u64, u64) {
    let (mut start, mut length) = (0, 1);
    while second >= start + SAME_LENGTH * length {
        start += SAME_LENGTH * length;
        length *= 2;
    }
    (second - (second - start) % length, length)
}

pub(crate) struct Collector {
    total: Part,
    empty: Box<dyn Fn() -> Part + Send>,
    open: BTreeMap<u64, Part>,
    series: Vec<Interval>,
    /// How far each thread has come.
    come: Vec<Duration>,
    recent: VecDeque<(u64, u64)>,
    stop_at: Option<f64>,
    too_many: Option<f64>,
}

impl Collector {
    pub(crate) fn new(
        threads: usize,
        stop_at: Option<f64>,
        empty: impl Fn() -> Part + Send + 'static,
    ) -> Self {
        Self {
            total: empty(),
            empty: Box::new(empty),
            open: BTreeMap::new(),
            series: Vec::new(),
            come: vec![Duration::ZERO; threads],
            recent: VecDeque::new(),
            stop_at,
            too_many: None,
        }
    }

    /// Takes a part; true when an interval was completed by it.
    pub(crate) fn take(&mut self, piece: &Piece) -> bool {
        self.total.add(&piece.part);
        let (start, _) = interval_of(piece.begins.as_secs());
        self.open
            .entry(start)
            .or_insert_with(&self.empty)
            .add(&piece.part);
        if let Some(come) = self.come.get_mut(piece.thread) {
            *come = (*come).max(piece.begins);
        }
        let come = self.come.iter().min().copied().unwrap_or_default();
        self.close_until(Some(come))
    }

    /// Makes intervals of what is complete: all that ends before `come`, or everything.
    fn close_until(&mut self, come: Option<Duration>) -> bool {
        let mut closed = false;
        while let Some(entry) = self.open.first_entry() {
            let (start, length) = interval_of(*entry.key());
            if come.is_some_and(|c| c.as_secs() < start + length) {
                break;
            }
            let part = entry.remove();
            self.watch_errors(&part, length);
            let latency_ms = summary(&part.latency);
            self.series.push(Interval {
                start: Duration::from_secs(start),
                length: Duration::from_secs(length),
                requests: part.ended,
                answered: part.answered,
                errors: part.error_count(),
                latency_ms,
                service_ms: part.service.as_ref().map_or(latency_ms, summary),
            });
            closed = true;
        }
        closed
    }

    fn watch_errors(&mut self, part: &Part, seconds: u64) {
        let Some(most) = self.stop_at else {
            return;
        };
        self.recent.push_back((part.ended, part.error_count()));
        let kept = (ERROR_SECONDS as u64).div_ceil(seconds);
        while self.recent.len() as u64 > kept {
            self.recent.pop_front();
        }
        let (ended, failed) = self
            .recent
            .iter()
            .fold((0, 0), |(e, f), (a, b)| (e + a, f + b));
        let share = failed as f64 / ended.max(1) as f64;
        if ended >= ERROR_REQUESTS_MIN && share > most {
            self.too_many.get_or_insert(share);
        }
    }

    /// Whether so many requests fail that the run is to be ended.
    pub(crate) fn too_many_errors(&self) -> bool {
        self.too_many.is_some()
    }

    pub(crate) fn live(&self, elapsed: Duration, measuring: bool) -> Live {
        Live {
            elapsed,
            measuring,
            requests: self.total.ended,
            errors: self.total.errors.clone(),
            latency: self.total.latency.clone(),
            under_way: self.total.begun.saturating_sub(self.total.ended),
            last: self.series.last().cloned(),
        }
    }

    /// Requests of an open loop that left within the planned time, and how long threads did not get to run.
    pub(crate) fn pace(&self) -> (u64, Duration) {
        (self.total.sent_in_time, self.total.stalled)
    }

    /// All there is. `window`: the time of a run that has one.
    pub(crate) fn finish(mut self, window: Option<Duration>) -> Outcome {
        self.close_until(None);
        let total = self.total;
        let elapsed = match (total.first, total.last) {
            (Some(first), Some(last)) => last.saturating_duration_since(first),
            _ => Duration::ZERO,
        };
        if let Some(last) = self.series.last_mut() {
            let ends = last.start + last.length;
            if elapsed > last.start && elapsed < ends {
                last.length = elapsed.saturating_sub(last.start);
            }
        }
        let throughput_rps = match window {
            Some(window) if window < elapsed => {
                total.answered_in_time as f64 / window.as_secs_f64()
            }
            _ if elapsed.is_zero() => 0.0,
            _ => total.answered as f64 / elapsed.as_secs_f64(),
        };
        Outcome {
            requests: total.ended,
            answered: total.answered,
            aborted: total.begun.saturating_sub(total.ended),
            unsent: total.unsent,
            planned: None,
            statuses: total.statuses(),
            errors: total.errors,
            service_time: total.service.unwrap_or_else(|| total.latency.clone()),
            latency: total.latency,
            send_lateness: total.lateness.unwrap_or_else(crate::outcome::histogram),
            per_request: total.per_request,
            series: self.series,
            elapsed,
            throughput_rps,
            bytes_received: total.received,
            bytes_sent: total.sent,
            connections_opened: total.opened,
            error_codes: total.codes,
            error_samples: total.samples,
            gave_up: false,
            too_many_errors: self.too_many,
            cancelled: false,
            invalid: total
                .local_error
                .as_ref()
                .map(|reason| format!("this host ran out of sockets ({reason}); raise its limits")),
            local_error: total.local_error,
            busiest_thread: None,
            cpu_seconds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tally::{End, Ended};
    use std::time::Instant;

    fn piece(thread: usize, at_ms: u64, good: u64, bad: u64) -> Piece {
        let mut part = Part::new(false, &[]);
        for n in 0..good + bad {
            let end = if n < good {
                End::Good { status: 200 }
            } else {
                End::NoAnswer {
                    kind: "reset",
                    message: String::new(),
                }
            };
            part.end(
                Ended {
                    index: 0,
                    latency: Duration::from_millis(1),
                    service: Duration::from_millis(1),
                    end,
                },
                Instant::now(),
            );
        }
        Piece {
            thread,
            begins: Duration::from_millis(at_ms),
            part,
        }
    }

    fn collector(threads: usize, stop_at: Option<f64>) -> Collector {
        Collector::new(threads, stop_at, || Part::new(false, &[]))
    }

    #[test]
    fn a_second_is_complete_when_all_threads_are_past_it() {
        let mut c = collector(2, None);
        for (thread, at, done) in [
            (0, 0, false),
            (1, 0, false),
            (0, 750, false),
            (0, 1000, false),
            (1, 1250, true),
        ] {
            assert_eq!(c.take(&piece(thread, at, 1, 0)), done, "{thread} {at}");
        }
        let outcome = c.finish(None);
        let counts: Vec<u64> = outcome.series.iter().map(|i| i.requests).collect();
        assert_eq!(counts, [3, 2]);
        assert_eq!(outcome.requests, 5);
    }

    #[test]
    fn intervals_get_longer_so_that_there_are_not_too_many() {
        assert_eq!(interval_of(899), (899, 1));
        assert_eq!(interval_of(900), (900, 2));
        assert_eq!(interval_of(903), (902, 2));
        assert_eq!(interval_of(2_701), (2_700, 4));
        let week = 7 * 86_400;
        let mut starts: Vec<u64> = (0..week).map(|s| interval_of(s).0).collect();
        starts.dedup();
        assert!(starts.len() < 10_000, "{}", starts.len());
        assert!(
            starts
                .windows(2)
                .all(|w| interval_of(w[0]).0 + interval_of(w[0]).1 == w[1])
        );
    }

    #[test]
    fn a_share_of_errors_ends_a_run_from_a_hundred_requests_on() {
        let mut few = collector(1, Some(0.5));
        for second in 0..5 {
            few.take(&piece(0, second * 1000, 0, 10));
        }
        assert!(!few.too_many_errors());
        let mut many = collector(1, Some(0.5));
        for second in 0..3 {
            many.take(&piece(0, second * 1000, 40, 60));
        }
        assert!(many.too_many_errors());
        let mut just = collector(1, Some(0.5));
        for second in 0..30 {
            just.take(&piece(0, second * 1000, 60, 40));
        }
        assert!(!just.too_many_errors());
    }
}
