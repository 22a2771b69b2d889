//! The pages of `[[watchdog.metrics]]`: read in a task of their own, since each has its own pace, and handed to the
//! watchdog at its checks. When nobody takes what was read, the oldest of it is dropped, and counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evenkeel_edge::collect::probe::Prober;
use evenkeel_edge::collect::reading::Reading;
use evenkeel_edge::collect::scraper::{Round, ScrapeTarget, Scraper, TargetReport};
use tokio::task::JoinHandle;

/// Most readings that wait for the next check.
const READINGS_MAX: usize = 500_000;

/// What was read since it was last asked for.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The readings, the oldest first.
    pub readings: VecDeque<Reading>,
    /// The last report of each target that was asked.
    pub reports: BTreeMap<Arc<str>, TargetReport>,
    /// Readings that were dropped because too many waited.
    pub dropped: u64,
}

/// Reads the pages until it is dropped.
#[derive(Debug)]
pub(crate) struct Metrics {
    gathered: Arc<Mutex<Gathered>>,
    task: JoinHandle<()>,
}

impl Metrics {
    /// Starts to read; nothing when there is nothing to read.
    pub(crate) fn start(targets: Vec<ScrapeTarget>, prober: Prober) -> Option<Self> {
        if targets.is_empty() {
            return None;
        }
        let gathered = Arc::new(Mutex::new(Gathered::default()));
        let inbox = Arc::clone(&gathered);
        let task = tokio::spawn(async move {
            let mut scraper = Scraper::new(targets, prober, Instant::now());
            while let Some(due) = scraper.next_due() {
                tokio::time::sleep_until(due.into()).await;
                let round = scraper.round(Instant::now()).await;
                lock(&inbox).put(round);
            }
        });
        Some(Self { gathered, task })
    }

    /// Whether they are still being read.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// What was read since the last call.
    pub(crate) fn take(&self) -> Gathered {
        std::mem::take(&mut *lock(&self.gathered))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gathered {
    fn put(&mut self, round: Round) {
        for report in round.reports {
            tell(&report);
            self.reports.insert(Arc::clone(&report.target), report);
        }
        self.readings.extend(round.readings);
        let over = self.readings.len().saturating_sub(READINGS_MAX);
        self.readings.drain(..over);
        self.dropped += over as u64;
    }
}

/// Says what is new; what is known is not repeated.
fn tell(report: &TargetReport) {
    for note in &report.notes {
        tracing::warn!(
            subsystem = "watchdog",
            event_type = "metrics_note",
            target = &*report.target,
            "{note}"
        );
    }
    if let Some(missing) = report.missing.as_ref().filter(|m| m.is_new) {
        tracing::warn!(
            subsystem = "watchdog",
            event_type = "metrics_missing",
            target = &*report.target,
            reason = missing.reason,
            "the metrics cannot be read"
        );
    }
    if !report.told.is_empty() {
        tracing::info!(
            subsystem = "watchdog",
            event_type = "metrics_information",
            target = &*report.target,
            series = &*report.told[0],
            count = report.told.len(),
            "the target says something new of itself"
        );
    }
    if !report.gone.is_empty() {
        tracing::info!(
            subsystem = "watchdog",
            event_type = "metrics_gone",
            target = &*report.target,
            series = &*report.gone[0],
            count = report.gone.len(),
            "series are gone from the page"
        );
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Timestamp;
    use evenkeel_edge::collect::reading::ReadingKind;

    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_oldest_first_and_counted() {
        let reading = |ms| Reading {
            series: Arc::from("a"),
            service: None,
            at: Timestamp::from_millis(ms),
            value: 1.0,
            kind: ReadingKind::Gauge,
        };
        let mut gathered = Gathered::default();
        let len = i64::try_from(READINGS_MAX).unwrap();
        for part in [0..len - 1, len - 1..len + 2] {
            gathered.put(Round {
                readings: part.map(reading).collect(),
                reports: Vec::new(),
            });
        }
        assert_eq!(
            (gathered.readings.len(), gathered.dropped),
            (READINGS_MAX, 2)
        );
        assert_eq!(gathered.readings[0].at.as_millis(), 2);
    }
}
