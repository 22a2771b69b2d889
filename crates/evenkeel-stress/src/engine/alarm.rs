//! The time limits of all requests of a thread, for what they cost: a request sets a number, and one look at all of
//! them every so often finds what is over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Shortest and longest time between two looks.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Looks within one time limit.
const LOOKS: u32 = 200;

/// Ends the request of a worker when its time is over; never too early, and up to 50 ms, or a 200th of its limit, late.
#[derive(Debug)]
pub(crate) struct Alarm(Rc<Bell>);

#[derive(Debug, Default)]
struct Bell {
    deadline: Cell<Option<Instant>>,
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Goes off at `deadline`, and not for anything before.
    pub(crate) fn set(&self, deadline: Instant) {
        self.0.deadline.set(Some(deadline));
        self.0.rung.set(false);
    }

    /// Does not go off.
    pub(crate) fn clear(&self) {
        self.0.deadline.set(None);
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.rung.get() {
            return Poll::Ready(());
        }
        let mut waker = self.0.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// All alarms of a thread.
#[derive(Debug, Default)]
pub(crate) struct Alarms(RefCell<Vec<Rc<Bell>>>);

impl Alarms {
    pub(crate) fn add(&self) -> Alarm {
        let bell = Rc::new(Bell::default());
        self.0.borrow_mut().push(Rc::clone(&bell));
        Alarm(bell)
    }

    /// Lets those go off whose time is over, for ever; `limit`: the time they are set to.
    pub(crate) async fn watch(&self, limit: Duration) {
        let pause = (limit / LOOKS).clamp(LOOK.0, LOOK.1);
        loop {
            tokio::time::sleep(pause).await;
            let now = Instant::now();
            for bell in self.0.borrow().iter() {
                if bell.deadline.get().is_some_and(|d| d <= now) {
                    bell.deadline.set(None);
                    bell.rung.set(true);
                    if let Some(waker) = bell.waker.borrow_mut().take() {
                        waker.wake();
                    }
                }
            }
        }
    }
}
