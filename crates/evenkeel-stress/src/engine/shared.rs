//! What all threads of a run share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::cancel::Cancel;
use crate::dial::Dialer;
use crate::plan::{Load, Plan, Turns, Until};

/// Connections that are being opened at once: what a usual listening queue (128 to 4096) takes with ease.
const OPENING_MAX: usize = 100;

/// What all threads of a run share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) turns: Turns,
    pub(crate) dialer: Dialer,
    pub(crate) opening: Semaphore,
    /// Ends the run early from inside.
    pub(crate) stop: Cancel,
    next: AtomicU64,
    counted: AtomicU64,
    timeouts_in_a_row: AtomicU32,
    gave_up: AtomicBool,
}

impl Shared {
    pub(crate) fn new(plan: Plan, turns: Turns, dialer: Dialer) -> Self {
        Self {
            plan,
            turns,
            dialer,
            opening: Semaphore::new(OPENING_MAX),
            stop: Cancel::new(),
            next: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            timeouts_in_a_row: AtomicU32::new(0),
            gave_up: AtomicBool::new(false),
        }
    }

    /// The next turn, whatever it is for.
    pub(crate) fn next_turn(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next turn of a closed loop at `now`, and whether it is after the warm-up; nothing when there are no more.
    pub(crate) fn take_turn(&self, now: Instant, warm_until: Instant) -> Option<(u64, bool)> {
        if self.stopped() {
            return None;
        }
        let Load::Closed { until, .. } = self.plan.load else {
            return None;
        };
        if now < warm_until {
            return Some((self.next_turn(), false));
        }
        if let Until::Elapsed(duration) = until
            && now >= warm_until + duration
        {
            return None;
        }
        if let Until::Requests(total) = until
            && self.counted.fetch_add(1, Ordering::Relaxed) >= total
        {
            return None;
        }
        Some((self.next_turn(), true))
    }

    /// When the time of a run that has one is over, counted from its beginning.
    pub(crate) fn ends(&self, epoch: Instant) -> Option<Instant> {
        let duration = match self.plan.load {
            Load::Closed {
                until: Until::Elapsed(duration),
                ..
            }
            | Load::Open { duration, .. } => duration,
            Load::Closed { .. } => return None,
        };
        Some(epoch + self.plan.warm_up + duration)
    }

    /// Notes whether a request timed out; too many in a row end the run.
    pub(crate) fn note_timeout(&self, timed_out: bool) {
        if timed_out {
            let row = self.timeouts_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
            let most = self.plan.limits.give_up_after_timeouts;
            if most.is_some_and(|most| row >= most) {
                self.gave_up.store(true, Ordering::Relaxed);
            }
        } else if self.timeouts_in_a_row.load(Ordering::Relaxed) > 0 {
            self.timeouts_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Too many requests in a row timed out.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// No further request is to begin.
    pub(crate) fn stopped(&self) -> bool {
        self.gave_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HttpVersion;
    use crate::request::RequestSpec;
    use crate::target::BaseUrl;
    use std::time::Duration;

    #[test]
    fn gives_up_after_timeouts_in_a_row_only() {
        let base = BaseUrl::parse("http://h:1").unwrap();
        let mut plan = Plan::closed(base.clone(), vec![RequestSpec::get("/")], 9, 1);
        plan.limits.give_up_after_timeouts = Some(2);
        let second = Duration::from_secs(1);
        let dialer = Dialer::new(&base, Vec::new(), second, HttpVersion::Http1, None).unwrap();
        let turns = plan.prepare().unwrap();
        let shared = Shared::new(plan, turns, dialer);
        for timed_out in [true, false, true] {
            shared.note_timeout(timed_out);
        }
        assert!(!shared.gave_up());
        let now = Instant::now();
        assert!(shared.take_turn(now, now).is_some());
        shared.note_timeout(true);
        assert!(shared.gave_up());
        assert!(shared.take_turn(now, now).is_none());
    }
}
