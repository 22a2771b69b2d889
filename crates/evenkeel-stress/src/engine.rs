//! The load engine: connections in, a histogram and counted errors out.
//!
//! HTTP/1.1 at connection level, one current-thread runtime on a thread of its own, so that neither
//! the caller's runtime disturbs the measurement nor the measurement the caller. The engine judges
//! single answers; whether a run as a whole is good is for its caller.
//!
//! Latency counts from the moment a request is due on its connection to the last byte of its
//! answer. Opening the first connection is not in it (that is done before the start); opening a
//! connection anew because the target closed the old one is.
//!
//! Kinds of errors, by the names under which they are counted:
//!
//! | kind | what happened |
//! |---|---|
//! | `refused` | the connection was refused |
//! | `connect_timeout` | the connection did not open within its limit |
//! | `connect` | the connection could not be opened for another reason |
//! | `reset` | the connection ended before the answer was complete |
//! | `timeout` | the answer was not complete within its limit |
//! | `protocol` | what came back is not HTTP/1.1 |
//! | `status_<code>` | a complete answer with a status that is not expected |
//! | `body` | a complete answer with an expected status whose body fails its check |
//! | `local` | this host ran out of sockets or ports: the run says nothing about the target |

mod connection;
mod tally;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::{oneshot, watch};

use crate::cancel::Cancel;
use crate::plan::Plan;
use crate::target::PlanError;

pub use tally::Outcome;
pub(crate) use tally::{histogram, record, summary};

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
    plan.check()?;
    let (result_tx, result_rx) = oneshot::channel();
    // Nothing is ever sent: the receiver sees the sender go when this future ends or is dropped.
    let (_alive, alive_rx) = watch::channel(());
    let (plan, cancel) = (plan.clone(), cancel.clone());
    std::thread::Builder::new()
        .name("evenkeel-load".to_owned())
        .spawn(move || {
            // The caller may be gone already; then nobody wants the result.
            let _ = result_tx.send(on_this_thread(&plan, &cancel, alive_rx));
        })
        .map_err(EngineError::Start)?;
    result_rx.await.map_err(|_| EngineError::Lost)?
}

fn on_this_thread(
    plan: &Plan,
    cancel: &Cancel,
    mut alive: watch::Receiver<()>,
) -> Result<Outcome, EngineError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(EngineError::Start)?;
    let local = tokio::task::LocalSet::new();
    let tally = Rc::new(RefCell::new(tally::Tally::default()));
    let ended = local.block_on(&runtime, async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            _ = alive.changed() => None,
            done = worker::run_plan(plan, &tally) => Some(done),
        }
    });
    drop(local);
    // A name may still be being resolved on a blocking thread; nobody waits for that.
    runtime.shutdown_background();
    if let Some(Err(error)) = ended {
        return Err(error);
    }
    let tally = std::mem::take(&mut *tally.borrow_mut());
    Ok(tally.finish(ended.is_none()))
}
