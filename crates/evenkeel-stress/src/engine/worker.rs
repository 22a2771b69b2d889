//! The closed loop: each worker owns a connection and takes one request after the other.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::EngineError;
use super::connection::{Asked, ConnectFailure, Connection, Stale, connect};
use super::tally::{End, Tally};
use crate::plan::{Limits, Load, Plan, Turns};
use crate::request::Prepared;

struct Shared {
    turns: Turns,
    limits: Limits,
    addresses: Vec<SocketAddr>,
    next: Cell<u64>,
    total: u64,
    start: Barrier,
    tally: Rc<RefCell<Tally>>,
}

impl Shared {
    fn take_turn(&self) -> Option<u64> {
        let n = self.next.get();
        if n >= self.total || self.tally.borrow().gave_up() {
            return None;
        }
        self.next.set(n + 1);
        self.tally.borrow_mut().begin();
        Some(n)
    }
}

/// Runs a plan to its end on this thread's local task set.
pub(crate) async fn run_plan(plan: &Plan, tally: &Rc<RefCell<Tally>>) -> Result<(), EngineError> {
    let Load::Closed {
        requests,
        concurrency,
    } = plan.load;
    let turns = plan.prepare()?;
    let unresolved = |reason: String| EngineError::Resolve {
        base: plan.base.to_string(),
        reason,
    };
    let addresses = tokio::time::timeout(plan.limits.connect, plan.base.resolve())
        .await
        .map_err(|_| unresolved("the resolver did not answer in time".to_owned()))?
        .map_err(|e| unresolved(e.to_string()))?;
    let workers = usize::try_from(u64::from(concurrency).min(requests)).unwrap_or(1);
    let shared = Rc::new(Shared {
        turns,
        limits: plan.limits,
        addresses,
        next: Cell::new(0),
        total: requests,
        start: Barrier::new(workers),
        tally: Rc::clone(tally),
    });
    let mut set = JoinSet::new();
    for _ in 0..workers {
        set.spawn_local(work(Rc::clone(&shared)));
    }
    while let Some(joined) = set.join_next().await {
        // A worker that panicked is a bug, and its numbers are missing from the result.
        if joined.is_err() {
            return Err(EngineError::Lost);
        }
    }
    Ok(())
}

async fn work(shared: Rc<Shared>) {
    let mut ready = Some(connect(&shared.addresses, shared.limits.connect).await);
    shared.start.wait().await;
    shared.tally.borrow_mut().start();
    while let Some(n) = shared.take_turn() {
        let what = shared.turns.at(n);
        let due = Instant::now();
        let asked = tokio::time::timeout(
            shared.limits.request,
            one(&shared.addresses, what, &shared.limits, ready.take()),
        )
        .await;
        let (end, latency) = match asked {
            Ok(asked) => {
                ready = asked.connection.map(Ok);
                (asked.end, due.elapsed())
            }
            // The timer may fire a tick early by the clock that is read here.
            Err(_) => (
                End::Timeout {
                    message: format!(
                        "{}: no complete answer within {} ms",
                        what.name,
                        shared.limits.request.as_millis()
                    ),
                },
                due.elapsed().max(shared.limits.request),
            ),
        };
        let give_up_after = shared.limits.give_up_after_timeouts;
        shared.tally.borrow_mut().end(latency, end, give_up_after);
    }
}

/// Asks once, over the given connection or a new one.
///
/// A connection that the target had closed while it was idle is replaced once, as every client
/// does; the request had not left.
async fn one(
    addresses: &[SocketAddr],
    what: &Prepared,
    limits: &Limits,
    ready: Option<Result<Connection, ConnectFailure>>,
) -> Asked {
    let ready = match ready {
        Some(Ok(connection)) if connection.is_closed() => None,
        other => other,
    };
    if let Some(Ok(connection)) = ready {
        if let Ok(asked) = connection.ask(what, limits).await {
            return asked;
        }
        return fresh(connect(addresses, limits.connect).await, what, limits).await;
    }
    let opened = match ready {
        Some(failed) => failed,
        None => connect(addresses, limits.connect).await,
    };
    fresh(opened, what, limits).await
}

async fn fresh(
    opened: Result<Connection, ConnectFailure>,
    what: &Prepared,
    limits: &Limits,
) -> Asked {
    let reset = || "the connection was closed before the request left".to_owned();
    let (kind, message) = match opened {
        Ok(connection) => match connection.ask(what, limits).await {
            Ok(asked) => return asked,
            Err(Stale) => ("reset", reset()),
        },
        Err((kind, message)) => (kind, format!("{}: {message}", what.name)),
    };
    Asked {
        end: End::NoAnswer { kind, message },
        connection: None,
    }
}
