//! The load engine: connections in, a histogram and counted errors out.
//!
//! HTTP at connection level, each thread with a runtime of its own, so that neither the caller's runtime disturbs
//! the measurement nor the measurement the caller. The engine judges
//! single answers; whether a run as a whole is good is for its caller.
//!
//! Latency counts from the moment a request is *due* to the last byte of its answer. In a closed loop it is due when the
//! one before it on the same connection was answered; in an open loop when it was planned, and a target that pauses is
//! charged with all who had to wait for it, not with the few that happened to be under way (Gil Tene's "coordinated
//! omission"). The time from the moment it really left is kept beside it as service time. Opening the first connection
//! is in neither (that is done before the start); opening one anew because the target closed the old one is in both.
//!
//! Kinds of errors, by the names under which they are counted:
//!
//! | kind | what happened |
//! |---|---|
//! | `refused` | the connection was refused |
//! | `connect_timeout` | the connection did not open within its limit |
//! | `connect` | the connection could not be opened for another reason |
//! | `reset` | the connection ended before the answer was complete |
//! | `tls` | TLS could not be agreed on: an unknown authority, another name, no common version |
//! | `timeout` | the answer was not complete within its limit |
//! | `protocol` | what came back is not HTTP |
//! | `status_<code>` | a complete answer with a status that is not expected |
//! | `assertion` | a complete answer with an expected status whose body fails its check, or that came too late |
//! | `local` | this host ran out of sockets or ports: the run says nothing about the target |

mod alarm;
mod collect;
pub mod http1;
mod http2;
mod judge;
mod open;
mod shared;
mod tally;
mod thread;
mod thread_time;
mod timer;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, mpsc, oneshot, watch};

use self::collect::Collector;
use self::shared::Shared;
use self::tally::Part;
use self::thread::{Message, Seat, Time, at_most_needed};
use crate::cancel::Cancel;
use crate::dial::Dialer;
use crate::outcome::Outcome;
use crate::plan::{Load, Plan};
use crate::target::{BaseUrl, PlanError};

pub use collect::Live;

/// Messages of threads that wait to be read.
const MESSAGES_MAX: usize = 64;
/// Least share of the planned requests that must have left in time, unless the target held them up.
const SENT_SHARE_MIN: f64 = 0.99;
/// Share of a processor from which a thread is taken to be the bottleneck.
const BUSY: f64 = 0.9;
/// Share of the time that threads did not get to run from which they are.
const STALLED: f64 = 0.01;

/// Why a run could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The plan cannot be carried out as it is written.
    #[error("the load plan is not usable: {0}")]
    Plan(#[from] PlanError),
    /// The target's name could not be resolved.
    #[error("cannot find the address of {base}: {reason}; check the target's base address")]
    Resolve {
        /// The base address.
        base: String,
        /// What the resolver said.
        reason: String,
    },
    /// This host could not start the engine.
    #[error("cannot start the load engine: {0}; check this host's limits on threads and files")]
    Start(#[source] std::io::Error),
    /// The engine's thread ended without a result.
    #[error("the load engine ended without a result; this is a bug")]
    Lost,
}

/// Makes the load that `plan` asks for and measures it.
///
/// Ends early, with what was measured so far and [`Outcome::cancelled`] set, when `cancel` is
/// switched on; dropping the future ends the load as well.
pub async fn run(plan: &Plan, cancel: &Cancel) -> Result<Outcome, EngineError> {
    run_observed(plan, cancel, None).await
}

/// What is told a few times a second while a run goes on.
pub type Observer<'a> = &'a mut (dyn FnMut(&Live) + Send);

/// As [`run`], and tells `observer` about four times a second how it goes.
pub async fn run_observed(
    plan: &Plan,
    cancel: &Cancel,
    mut observer: Option<Observer<'_>>,
) -> Result<Outcome, EngineError> {
    let turns = plan.prepare()?;
    let addresses = match &plan.transport.addresses {
        Some(known) => known.clone(),
        None => addresses(&plan.base, plan.limits.connect).await?,
    };
    let dialer = Dialer::new(
        &plan.base,
        addresses,
        plan.limits.connect,
        plan.transport.version,
        plan.transport.authorities.as_deref(),
    )?;
    let names: Vec<String> = turns.names().map(str::to_owned).collect();
    let shared = Arc::new(Shared::new(plan.clone(), turns, dialer));
    // Nothing is ever sent: the receiver sees the sender go when this future ends or is dropped.
    let (_alive, alive) = watch::channel(());
    let epoch = Arc::new(OnceLock::new());
    let mut messages = start(&shared, &epoch, cancel, &alive)?;
    let threads = plan.threads as usize;
    let open = matches!(plan.load, Load::Open { .. });
    let stop_at = plan.limits.stop_at_error_share;
    let mut collector = Collector::new(threads, stop_at, move || Part::new(open, &names));
    let mut times = Vec::new();
    let mut failure = None;
    let mut ended = 0;
    while ended < threads {
        match messages.recv().await.ok_or(EngineError::Lost)? {
            Message::Piece(piece) => {
                collector.take(&piece);
                if collector.too_many_errors() {
                    shared.stop.cancel();
                }
                if let Some(observer) = &mut observer
                    && piece.thread == 0
                {
                    let zero = epoch.get().map(|e: &Instant| *e + plan.warm_up);
                    let elapsed = zero.map_or(Duration::ZERO, |z| z.elapsed());
                    observer(&collector.live(elapsed, !elapsed.is_zero()));
                }
            }
            Message::Ended(Ok(time)) => {
                times.push(time);
                ended += 1;
            }
            Message::Ended(Err(error)) => {
                // The others are of no use without it.
                failure.get_or_insert(error);
                shared.stop.cancel();
                ended += 1;
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    Ok(finish(
        &shared,
        collector,
        &times,
        epoch.get().copied(),
        cancel,
    ))
}

fn start(
    shared: &Arc<Shared>,
    epoch: &Arc<OnceLock<Instant>>,
    cancel: &Cancel,
    alive: &watch::Receiver<()>,
) -> Result<mpsc::Receiver<Message>, EngineError> {
    let plan = &shared.plan;
    let workers = at_most_needed(&plan.load) * u64::from(plan.transport.streams);
    let seats = usize::try_from(workers).unwrap_or(usize::MAX) + plan.threads as usize;
    let start = Arc::new(Barrier::new(seats));
    let (tx, messages) = mpsc::channel(MESSAGES_MAX);
    for index in 0..plan.threads as usize {
        let seat = Seat {
            index,
            shared: Arc::clone(shared),
            start: Arc::clone(&start),
            epoch: Arc::clone(epoch),
            messages: tx.clone(),
            cancel: cancel.clone(),
            alive: alive.clone(),
        };
        std::thread::Builder::new()
            .name("evenkeel-load".to_owned())
            .spawn(move || seat.run())
            .map_err(|e| {
                // Those that run already would wait for this one.
                shared.stop.cancel();
                EngineError::Start(e)
            })?;
    }
    Ok(messages)
}

fn finish(
    shared: &Shared,
    collector: Collector,
    times: &[Option<Time>],
    epoch: Option<Instant>,
    cancel: &Cancel,
) -> Outcome {
    let plan = &shared.plan;
    let open = matches!(plan.load, Load::Open { .. });
    let window = epoch.and_then(|e| Some(shared.ends(e)? - (e + plan.warm_up)));
    let (in_time, stalled) = collector.pace();
    let mut outcome = collector.finish(window);
    outcome.gave_up = shared.gave_up();
    outcome.cancelled = cancel.is_cancelled();
    let known: Vec<_> = times.iter().flatten().collect();
    if known.len() == times.len() {
        outcome.cpu_seconds = Some(known.iter().map(|t| t.used.as_secs_f64()).sum());
        outcome.busiest_thread = busiest(&known, |t| t.used);
    }
    if open {
        let planned = outcome.requests + outcome.aborted + outcome.unsent;
        outcome.planned = Some(planned);
        let share = in_time as f64 / planned.max(1) as f64;
        // A thread that waits for a processor would use it.
        let busy = busiest(&known, |t| t.used + t.waited).unwrap_or(0.0);
        let stalled = stalled.as_secs_f64() / times.len().max(1) as f64;
        let stalled = stalled / outcome.elapsed.as_secs_f64().max(0.001);
        if outcome.invalid.is_none() && planned > 0 && share < SENT_SHARE_MIN {
            let why = if busy > BUSY {
                Some(format!(
                    "its busiest thread used a processor or waited for one {:.0} % of the time; use more threads, or \
                     free this host of other work",
                    busy * 100.0
                ))
            } else if stalled > STALLED && share / (1.0 - stalled.min(0.999)) >= SENT_SHARE_MIN {
                // Without the stalls enough would have left; where they explain less, the target held the rest up.
                Some(format!(
                    "it did not get to run for {:.1} % of the time; free this host of other work",
                    stalled * 100.0
                ))
            } else {
                None
            };
            outcome.invalid = why.map(|why| {
                format!(
                    "the generator was the bottleneck: {:.1} % of the planned requests left in time, and {why}",
                    share * 100.0
                )
            });
        }
    }
    outcome
}

/// The largest share of its time that a thread spent so.
fn busiest(times: &[&Time], so: impl Fn(&Time) -> Duration) -> Option<f64> {
    times
        .iter()
        .filter(|t| !t.wall.is_zero())
        .map(|t| so(t).as_secs_f64() / t.wall.as_secs_f64())
        .reduce(f64::max)
}

/// The addresses of a target's host, at most eight, in the order in which they are tried.
///
/// # Errors
///
/// [`EngineError::Resolve`] when there is none, or none is told within `limit`; [`EngineError::Start`] when this host has no
/// thread left to ask from.
pub async fn addresses(base: &BaseUrl, limit: Duration) -> Result<Vec<SocketAddr>, EngineError> {
    let unresolved = |reason: String| EngineError::Resolve {
        base: base.to_string(),
        reason,
    };
    let (tx, rx) = oneshot::channel();
    let (host, port) = (base.host().to_owned(), base.port());
    // On a thread of its own: a resolver that hangs holds nobody up but itself.
    std::thread::Builder::new()
        .name("evenkeel-resolve".to_owned())
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            // The caller may have given up.
            let _ = tx.send(found.map(|all| all.take(8).collect::<Vec<_>>()));
        })
        .map_err(EngineError::Start)?;
    let found = tokio::time::timeout(limit, rx)
        .await
        .map_err(|_| unresolved("the resolver did not answer in time".to_owned()))?
        .map_err(|_| EngineError::Lost)?
        .map_err(|e| unresolved(e.to_string()))?;
    if found.is_empty() {
        return Err(unresolved("the name has no address".to_owned()));
    }
    Ok(found)
}
