//! Ending a service: asked first, then killed, with everything that belongs to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_core::playbook::action::SignalName;

use super::start::ended;
use super::{Inner, Phase, Run, Slot, StopReport, millis_since};
use crate::process::control;
use crate::process::error::SuperviseError;
use crate::process::procinfo::{self, ProcessId, ProcessState};

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at processes that are being ended and are not watched.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl Inner {
    /// Ends a service: SIGTERM to all of its processes, then SIGKILL after `grace` (`stop_timeout_ms` when absent).
    /// The caller holds `slot.operation`.
    pub(super) async fn stop(
        self: &Arc<Self>,
        slot: &Slot,
        grace: Option<Duration>,
    ) -> Result<StopReport, SuperviseError> {
        let begun = Instant::now();
        let grace = grace.unwrap_or(Duration::from_millis(slot.spec.stop_timeout_ms));
        let Some(run) = slot.run() else {
            self.sweep(slot).await?;
            // From now on it is down because somebody wants it so.
            slot.phase.send_if_modified(|phase| match phase {
                Phase::Ended { asked, .. } => !std::mem::replace(asked, true),
                _ => false,
            });
            return Ok(StopReport {
                name: slot.name().to_owned(),
                process: None,
                forced: false,
                took_ms: millis_since(begun),
            });
        };
        run.asked.store(true, Ordering::Relaxed);
        let members = run.members();
        let forced = end(slot, &run, &members, grace).await.inspect_err(|_| {
            // It lives on: should it end later, nobody will have asked for that.
            run.asked.store(false, Ordering::Relaxed);
        })?;
        // Only then the looking for what is left is over, and the process is reaped.
        drop(slot.sweeping.lock().await);
        // Its children were asked together with it and have what remains of the same grace.
        remember_left(slot, members);
        let left_forced = self
            .end_left(slot, grace.saturating_sub(begun.elapsed()))
            .await?;
        self.records.set(slot.name(), None);
        if let Err(e) = self.write_records() {
            tracing::warn!(error = %e, "a stopped service still stands in the record");
        }
        Ok(StopReport {
            name: slot.name().to_owned(),
            process: Some(run.process.clone()),
            forced: forced || left_forced,
            took_ms: millis_since(begun),
        })
    }

    /// Ends what earlier runs of a service left behind: it may hold the service's port or locks.
    pub(super) async fn sweep(self: &Arc<Self>, slot: &Slot) -> Result<(), SuperviseError> {
        let _swept = slot.sweeping.lock().await;
        let left = self.left(slot);
        if left.is_empty() {
            return Ok(());
        }
        tracing::info!(
            service = slot.name(),
            count = left.len(),
            "ends processes that an earlier run left behind"
        );
        ask_to_end(slot, &left)?;
        remember_left(slot, left);
        let grace = Duration::from_millis(slot.spec.stop_timeout_ms);
        self.end_left(slot, grace).await.map(drop)
    }

    /// Waits for what is left, and kills it after `grace`. Whether that was needed.
    async fn end_left(
        self: &Arc<Self>,
        slot: &Slot,
        grace: Duration,
    ) -> Result<bool, SuperviseError> {
        let begun = Instant::now();
        let mut forced = false;
        loop {
            let left = self.left(slot);
            let Some(first) = left.first() else {
                slot.leftovers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                return Ok(forced);
            };
            if begun.elapsed() >= grace + KILL_TIMEOUT {
                return Err(SuperviseError::DoesNotEnd {
                    name: slot.name().to_owned(),
                    pid: first.pid,
                    waited_ms: millis_since(begun),
                });
            }
            if begun.elapsed() >= grace {
                forced = true;
                for process in &left {
                    send(slot, process, SignalName::Kill)?;
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Asks the run's processes to end, and kills them after `grace`. Whether that was needed.
async fn end(
    slot: &Slot,
    run: &Arc<Run>,
    members: &[ProcessId],
    grace: Duration,
) -> Result<bool, SuperviseError> {
    if !grace.is_zero() {
        ask_to_end(slot, members)?;
        if tokio::time::timeout(grace, ended(slot, run)).await.is_ok() {
            return Ok(false);
        }
    }
    kill(slot, run).await.map(|()| true)
}

async fn kill(slot: &Slot, run: &Arc<Run>) -> Result<(), SuperviseError> {
    let begun = Instant::now();
    // Again and again: a process may have started another while it was being killed.
    while begun.elapsed() < KILL_TIMEOUT {
        let members = run.members();
        for member in &members {
            send(slot, member, SignalName::Kill)?;
        }
        remember_left(slot, members);
        if tokio::time::timeout(LOOK_INTERVAL * 5, ended(slot, run))
            .await
            .is_ok()
        {
            return Ok(());
        }
    }
    Err(SuperviseError::DoesNotEnd {
        name: slot.name().to_owned(),
        pid: run.process.pid,
        waited_ms: millis_since(begun),
    })
}

/// Sends a signal; a process that is gone already is as good.
pub(super) fn send(
    slot: &Slot,
    process: &ProcessId,
    signal: SignalName,
) -> Result<control::Sent, SuperviseError> {
    control::send(process, signal).map_err(|source| SuperviseError::Signal {
        name: slot.name().to_owned(),
        pid: process.pid,
        source,
    })
}

fn ask_to_end(slot: &Slot, members: &[ProcessId]) -> Result<(), SuperviseError> {
    for member in members {
        send(slot, member, SignalName::Term)?;
        // A stopped process takes the signal only when it goes on.
        if procinfo::state(member) == Some(ProcessState::Stopped) {
            send(slot, member, SignalName::Cont)?;
        }
    }
    Ok(())
}

fn remember_left(slot: &Slot, processes: Vec<ProcessId>) {
    let mut left = slot
        .leftovers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for process in processes {
        if !left.contains(&process) {
            left.push(process);
        }
    }
}
