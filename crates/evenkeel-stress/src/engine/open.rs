//! The arrivals of an open loop on one thread: who sends which request, and when.
//!
//! Requests are taken in the order in which they are due, by whichever worker is free first. A worker that finds the
//! next one due takes it at once; when none is due, it waits in line, and the pacer hands it its request at the moment.
//! Nothing is stored for requests that are due and find nobody free: they are still to come in the schedule.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::timer::Timer;
use crate::plan::Schedule;

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) due: Instant,
    /// Whether it is after the warm-up.
    pub(crate) counted: bool,
}

/// A worker in line.
#[derive(Default)]
struct Waiting {
    handed: Cell<Option<Arrival>>,
    wake: Notify,
}

struct Source {
    warm_up: Option<(Schedule, Duration)>,
    schedule: Schedule,
    /// Length of the warm-up.
    offset: Duration,
    duration: Duration,
    next: Option<(Duration, bool)>,
}

impl Source {
    /// The next arrival after the start, and whether it counts; it stays the next one until it is taken.
    fn peek(&mut self) -> Option<(Duration, bool)> {
        if self.next.is_none() {
            self.next = self.following();
        }
        self.next
    }

    fn following(&mut self) -> Option<(Duration, bool)> {
        if let Some((schedule, length)) = &mut self.warm_up {
            match schedule.next_due() {
                Some(due) if due < *length => return Some((due, false)),
                _ => self.warm_up = None,
            }
        }
        let due = self.schedule.next_due().filter(|d| *d < self.duration)?;
        Some((due + self.offset, true))
    }
}

/// See the module.
pub(crate) struct Arrivals {
    source: RefCell<Source>,
    /// When the run began, once it has.
    epoch: Cell<Option<Instant>>,
    /// When what is still to be sent is given up.
    gives_up: Cell<Option<Instant>>,
    line: RefCell<VecDeque<Rc<Waiting>>>,
    someone_waits: Notify,
}

impl Arrivals {
    /// `warm_up`: what comes before, for `offset`; `schedule`: what comes then, for `duration`.
    pub(crate) fn new(
        warm_up: Option<Schedule>,
        offset: Duration,
        schedule: Schedule,
        duration: Duration,
    ) -> Self {
        Self {
            source: RefCell::new(Source {
                warm_up: warm_up.map(|schedule| (schedule, offset)),
                schedule,
                offset,
                duration,
                next: None,
            }),
            epoch: Cell::new(None),
            gives_up: Cell::new(None),
            line: RefCell::new(VecDeque::new()),
            someone_waits: Notify::new(),
        }
    }

    /// The run begins; what is late is sent until `gives_up`.
    pub(crate) fn begin(&self, epoch: Instant, gives_up: Instant) {
        self.epoch.set(Some(epoch));
        self.gives_up.set(Some(gives_up));
    }

    fn peek(&self) -> Option<Arrival> {
        let epoch = self.epoch.get()?;
        let (due, counted) = self.source.borrow_mut().peek()?;
        Some(Arrival {
            due: epoch + due,
            counted,
        })
    }

    fn take(&self) {
        self.source.borrow_mut().next = None;
    }

    /// The next request for a worker that is free at `now`; nothing when there are no more.
    pub(crate) async fn next(&self, now: Instant) -> Option<Arrival> {
        let arrival = self.peek()?;
        if arrival.due <= now {
            if self.gives_up.get().is_some_and(|g| now > g) {
                return None;
            }
            self.take();
            return Some(arrival);
        }
        let waiting = Rc::new(Waiting::default());
        self.line.borrow_mut().push_back(Rc::clone(&waiting));
        self.someone_waits.notify_one();
        waiting.wake.notified().await;
        waiting.handed.get()
    }

    /// Hands out requests as they become due, until there are no more.
    pub(crate) async fn pace(&self, timer: &mut Timer) {
        while let Some(next) = self.peek() {
            timer.until(next.due).await;
            let now = Instant::now();
            while let Some(arrival) = self.peek()
                && arrival.due <= now
            {
                let Some(waiting) = self.line.borrow_mut().pop_front() else {
                    break;
                };
                self.take();
                waiting.handed.set(Some(arrival));
                waiting.wake.notify_one();
            }
            if self.peek().is_some_and(|a| a.due <= now) {
                // Nobody is free: whoever becomes free takes it without being told.
                if self.gives_up.get().is_some_and(|g| now > g) {
                    break;
                }
                let patience = tokio::time::sleep(Duration::from_millis(100));
                tokio::select! {
                    () = self.someone_waits.notified() => {}
                    () = patience => {}
                }
            }
        }
        for waiting in self.line.borrow_mut().drain(..) {
            waiting.wake.notify_one();
        }
    }

    /// What was due and never sent: how long each had waited at `now`.
    pub(crate) fn left_out(&self, now: Instant, mut each: impl FnMut(Duration)) {
        while let Some(arrival) = self.peek()
            && arrival.due <= now
        {
            self.take();
            if arrival.counted {
                each(now - arrival.due);
            }
        }
    }
}
