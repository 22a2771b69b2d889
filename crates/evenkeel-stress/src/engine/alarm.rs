//! One timer for all requests of a worker, one after the other.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Goes off at its deadline.
///
/// Deadlines only move on, so the timer behind it is left where it is and set anew only when it goes off too early:
/// once in a time limit, not once a request.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Alarm {
    /// Goes off after `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            deadline,
        }
    }

    /// Goes off at `deadline` instead, which is not before the one it had.
    pub(crate) fn set(&mut self, deadline: std::time::Instant) {
        self.deadline = deadline.into();
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
        }
    }
}
