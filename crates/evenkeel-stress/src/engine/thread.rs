//! One thread that makes load: its runtime, its workers, and what it hands over while it runs.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::JoinSet;

use super::EngineError;
use super::alarm::Alarms;
use super::collect::Piece;
use super::http1::scratch;
use super::http2::Link;
use super::open::Arrivals;
use super::shared::Shared;
use super::tally::Part;
use super::thread_time;
use super::timer::Timer;
use super::worker::{Local, Worker};
use crate::cancel::Cancel;
use crate::plan::{HttpVersion, Load, Rate, Schedule};

/// How often what was counted is handed over.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether the thread gets to run.
const LOOK: Duration = Duration::from_millis(10);
/// Later than this it did not; the runtime's own timers are late by up to two milliseconds.
const LOOK_LATE: Duration = Duration::from_millis(5);

/// What a thread had of its time, from when it began to make load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// On a processor.
    pub(crate) used: Duration,
    /// Ready to run, without a processor; zero where that is not known.
    pub(crate) waited: Duration,
    /// All of it.
    pub(crate) wall: Duration,
}

/// What a thread tells.
#[derive(Debug)]
pub(crate) enum Message {
    /// What it counted since it last did.
    Piece(Box<Piece>),
    /// It has ended; what it had of its time, where that is known.
    Ended(Result<Option<Time>, EngineError>),
}

/// Which thread it is, and how it begins and ends with the others.
pub(crate) struct Seat {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    /// All workers of all threads meet here when their connections are open.
    pub(crate) start: Arc<Barrier>,
    /// When the run began.
    pub(crate) epoch: Arc<OnceLock<Instant>>,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) cancel: Cancel,
    /// Its sender goes when nobody wants the result any more.
    pub(crate) alive: watch::Receiver<()>,
}

/// How many of `all` are the `index`th thread's.
pub(crate) fn share(all: u64, threads: u32, index: usize) -> u64 {
    let threads = u64::from(threads);
    all / threads + u64::from((index as u64) < all % threads)
}

impl Seat {
    /// Makes this thread's part of the load; blocks until it is done.
    pub(crate) fn run(mut self) {
        // A thread that panics would leave the others waiting for it at the start.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.make_load()))
            .unwrap_or(Err(EngineError::Lost));
        // Nobody may be left to hear it.
        let _ = self.messages.blocking_send(Message::Ended(result));
    }

    fn make_load(&mut self) -> Result<Option<Time>, EngineError> {
        // What is due in an open loop waits for the next look at its timer; a closed loop waits for nothing.
        let open = matches!(self.shared.plan.load, Load::Open { .. });
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(if open { 16 } else { 128 })
            .build_local(LocalOptions::default())
            .map_err(EngineError::Start)?;
        let local = self.local();
        let used_before = thread_time::used();
        let waited_before = thread_time::waited();
        let begun_at = Cell::new(Duration::ZERO);
        let finished = runtime.block_on(async {
            let (cancel, stop) = (self.cancel.clone(), self.shared.stop.clone());
            let mut alive = self.alive.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(()),
                () = stop.cancelled() => Ok(()),
                _ = alive.changed() => Ok(()),
                done = self.work(&local, &begun_at) => done,
            }
        });
        let now = Instant::now();
        let waited = thread_time::waited()
            .zip(waited_before)
            .map_or(Duration::ZERO, |(a, b)| a.saturating_sub(b));
        drop(runtime);
        if let Some(arrivals) = &local.arrivals {
            let mut part = local.part.borrow_mut();
            arrivals.left_out(now, |waited| part.left_out(waited));
        }
        if self.epoch.get().is_some() {
            let piece = self.piece(&local, begun_at.get());
            let _ = self.messages.blocking_send(Message::Piece(Box::new(piece)));
        }
        finished?;
        let used = thread_time::used()
            .zip(used_before)
            .map(|(a, b)| a.saturating_sub(b));
        Ok(used.zip(self.epoch.get()).map(|(used, epoch)| Time {
            used,
            waited,
            wall: now.saturating_duration_since(*epoch),
        }))
    }

    fn names(&self) -> Vec<String> {
        self.shared.turns.names().map(str::to_owned).collect()
    }

    fn local(&self) -> Rc<Local> {
        let plan = &self.shared.plan;
        let index = u32::try_from(self.index).unwrap_or(0);
        let arrivals = match plan.load {
            Load::Closed { .. } => None,
            Load::Open {
                rate,
                arrivals,
                duration,
                ..
            } => {
                // Before a ramp comes its first rate; a ramp from nothing has nothing before it.
                let first = rate.at(Duration::ZERO);
                let before = (first > 0.0).then(|| Rate::constant(first));
                let schedule =
                    |rate, seed| Schedule::new(rate, arrivals, seed, index, plan.threads);
                let warm_up = before.map(|rate| schedule(rate, plan.seed.wrapping_add(1)));
                Some(Arrivals::new(
                    warm_up,
                    plan.warm_up,
                    schedule(rate, plan.seed),
                    duration,
                ))
            }
        };
        Rc::new(Local {
            part: RefCell::new(self.empty(&self.names())),
            shared: Arc::clone(&self.shared),
            scratch: scratch(),
            alarms: Alarms::default(),
            epoch: Cell::new(Instant::now()),
            arrivals,
        })
    }

    fn empty(&self, names: &[String]) -> Part {
        Part::new(matches!(self.shared.plan.load, Load::Open { .. }), names)
    }

    /// What was counted since the last time, which began so long after the first counted request could be due.
    fn piece(&self, local: &Local, begins: Duration) -> Piece {
        let part = local.part.replace(self.empty(&self.names()));
        Piece {
            thread: self.index,
            begins,
            part,
        }
    }

    async fn work(&self, local: &Rc<Local>, begun_at: &Cell<Duration>) -> Result<(), EngineError> {
        let mut workers = JoinSet::new();
        let transport = &self.shared.plan.transport;
        let connections = at_most_needed(&self.shared.plan.load);
        let threads = self.shared.plan.threads;
        let before: u64 = (0..self.index)
            .map(|i| share(connections, threads, i))
            .sum();
        for number in before..before + share(connections, threads, self.index) {
            let link = (transport.version == HttpVersion::Http2).then(|| Rc::new(Link::new()));
            for stream in 0..u64::from(transport.streams) {
                let (local, link) = (Rc::clone(local), link.clone());
                let (start, epoch) = (Arc::clone(&self.start), Arc::clone(&self.epoch));
                let number = number * u64::from(transport.streams) + stream;
                workers.spawn_local(async move {
                    let worker = Worker::open(Rc::clone(&local), link, number).await;
                    start.wait().await;
                    let epoch = *epoch.get_or_init(Instant::now);
                    local.begin(epoch);
                    match local.shared.plan.load {
                        Load::Closed { think, .. } => worker.run_closed(think).await,
                        Load::Open { .. } => worker.run_open().await,
                    }
                });
            }
        }
        self.start.wait().await;
        let epoch = *self.epoch.get_or_init(Instant::now);
        local.begin(epoch);
        let mut timer = Timer::new().map_err(EngineError::Start)?;
        let all_done = async {
            while let Some(joined) = workers.join_next().await {
                // A worker that panicked is a bug, and its numbers are missing from the result.
                if joined.is_err() {
                    return Err(EngineError::Lost);
                }
            }
            Ok(())
        };
        let side = async {
            let pace = async {
                match &local.arrivals {
                    Some(arrivals) => {
                        arrivals.pace(&mut timer).await;
                        std::future::pending::<()>().await;
                    }
                    None => std::future::pending::<()>().await,
                }
            };
            let watch = async {
                if local.arrivals.is_some() {
                    watch_stalls(local).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = pace => {}
                () = watch => {}
                () = self.hand_over(local, begun_at) => {}
                () = local.alarms.watch(self.shared.plan.limits.request) => {}
            }
        };
        tokio::select! {
            done = all_done => done,
            () = side => Err(EngineError::Lost),
        }
    }

    async fn hand_over(&self, local: &Local, begun_at: &Cell<Duration>) {
        let zero = local.warm_until();
        loop {
            let next = zero + begun_at.get() + TICK;
            tokio::time::sleep_until(next.into()).await;
            let ticks = zero.elapsed().as_nanos() / TICK.as_nanos();
            let come = TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
            let piece = self.piece(local, begun_at.replace(come));
            // Without a receiver this thread is about to end.
            let _ = self.messages.send(Message::Piece(Box::new(piece))).await;
        }
    }
}

/// Notes how long the thread did not get to run.
async fn watch_stalls(local: &Local) {
    loop {
        let due = Instant::now() + LOOK;
        tokio::time::sleep_until(due.into()).await;
        let late = due.elapsed();
        if late > LOOK_LATE && due > local.warm_until() {
            local.part.borrow_mut().stalled += late;
        }
    }
}

/// Connections, but no more than there are requests.
pub(crate) fn at_most_needed(load: &Load) -> u64 {
    let connections = u64::from(load.connections());
    match load {
        Load::Closed {
            until: crate::plan::Until::Requests(n),
            ..
        } => connections.min(*n),
        _ => connections,
    }
}
