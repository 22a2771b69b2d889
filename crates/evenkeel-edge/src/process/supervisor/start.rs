//! Starting a service, and waiting until it is ready.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{Inner, Phase, Run, Slot, StartReport, millis_since};
use crate::collect::probe::now;
use crate::process::error::SuperviseError;
use crate::process::event::{Exit, Origin};
use crate::process::procinfo::{self, ProcessId};
use crate::process::ready::Check;
use crate::process::record::{Entry, command_hash};
use crate::process::{control, spawn};

/// A service without `ready` counts as running when it has not ended within this time.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks whether it is ready passes this part of the time since the first: it is seen a tenth late at most.
const READY_INTERVAL_PART: u32 = 10;
/// Shortest and longest time between two looks.
const READY_INTERVAL_MIN: Duration = Duration::from_millis(2);
const READY_INTERVAL_MAX: Duration = Duration::from_millis(200);
/// Longest time that one look may take.
const READY_DEADLINE_MAX: Duration = Duration::from_secs(2);

impl Inner {
    /// Starts a service unless it runs, and waits until it is ready. The caller holds `slot.operation`.
    pub(super) async fn start(
        self: &Arc<Self>,
        slot: &Slot,
    ) -> Result<StartReport, SuperviseError> {
        let begun = Instant::now();
        let (run, was_running) = match self.find_running(slot).await? {
            Some(run) => (run, true),
            None => (self.spawn(slot)?, false),
        };
        let run = self.wait_ready(slot, run, None).await?;
        Ok(StartReport {
            name: slot.name().to_owned(),
            process: run.process.clone(),
            was_running,
            took_ms: millis_since(begun),
        })
    }

    /// The running service, if it runs; what earlier runs left behind is ended otherwise.
    pub(super) async fn find_running(
        self: &Arc<Self>,
        slot: &Slot,
    ) -> Result<Option<Arc<Run>>, SuperviseError> {
        if let Some(run) = slot.run() {
            return Ok(Some(run));
        }
        self.sweep(slot).await?;
        self.try_attach(slot);
        Ok(slot.run())
    }

    /// Everything that can be known to be in the way of a start, before anything is changed.
    pub(super) fn check_startable(&self, slot: &Slot) -> Result<(), SuperviseError> {
        if slot.spec.command.is_empty() {
            let file = slot.spec.pid_file.as_ref();
            let mut looked: Vec<String> = Vec::new();
            looked.extend(file.map(|f| format!("no such process by {}", f.display())));
            looked.extend(
                slot.spec
                    .port
                    .map(|p| format!("no process was found that listens on port {p}")),
            );
            return Err(SuperviseError::NotFound {
                name: slot.name().to_owned(),
                looked: looked.join(", "),
            });
        }
        self.check_ports(slot)
    }

    /// Whether the ports that the service will listen on are free, or belong to the target.
    pub(super) fn check_ports(&self, slot: &Slot) -> Result<(), SuperviseError> {
        let check = Check::of(&slot.spec, &self.target)?;
        for port in [check.local_port(), slot.spec.port].into_iter().flatten() {
            if procinfo::port_is_taken(port) && !self.is_ours(slot, port) {
                let holder = procinfo::listener_on_port(port).map_or_else(
                    || "a process that Evenkeel may not look at".to_owned(),
                    |p| {
                        let command = procinfo::shown_command(&p).unwrap_or_default();
                        format!("pid {p} ({command})")
                    },
                );
                return Err(SuperviseError::PortInUse {
                    name: slot.name().to_owned(),
                    port,
                    holder,
                });
            }
        }
        Ok(())
    }

    /// Whether the port belongs to another service of the target, or to what is left of this one.
    fn is_ours(&self, slot: &Slot, port: u16) -> bool {
        let Some(holder) = procinfo::listener_on_port(port) else {
            // Who listens may not be told. While the service runs, it is most likely the service itself.
            return slot.run().is_some();
        };
        self.left(slot).contains(&holder)
            || self
                .slots
                .values()
                .filter_map(Slot::run)
                .any(|run| run.process == holder || run.members().contains(&holder))
    }

    fn spawn(self: &Arc<Self>, slot: &Slot) -> Result<Arc<Run>, SuperviseError> {
        self.check_startable(slot)?;
        let mark = new_mark(slot.name());
        let mut entry = Entry {
            process: None,
            mark: Some(mark.clone()),
            command_hash: command_hash(&slot.spec.command),
            since: now(),
        };
        // Announced before it happens: if Evenkeel dies in between, the mark leads to the process.
        self.records.set(slot.name(), Some(entry.clone()));
        self.write_records()?;
        let begun = Instant::now();
        let spawned = spawn::spawn(&slot.spec, &self.data_dir, &self.scrub_env, &mark)?;
        entry.process = Some(spawned.process.clone());
        self.records.set(slot.name(), Some(entry));
        self.write_records_durably();
        let run = Run {
            process: spawned.process,
            origin: Origin::Started,
            mark: Some(mark),
            since: now(),
            begun,
            output_from: spawned.output_from,
            ready: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        Ok(self.supervise(slot, run, spawned.watch))
    }

    /// Writes the record, so that it survives Evenkeel.
    pub(super) fn write_records(&self) -> Result<(), SuperviseError> {
        self.records
            .write(false)
            .map_err(|source| SuperviseError::Record {
                path: self.records.path().to_owned(),
                source,
            })
    }

    /// Writes the record to the disk in the background.
    pub(super) fn write_records_durably(&self) {
        let records = self.records.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = records.write(true) {
                tracing::warn!(
                    path = %records.path().display(),
                    error = %e,
                    "the record of started services could not be written"
                );
            }
        });
    }

    /// Waits until the run is ready; at most `timeout`, or `start_timeout_ms`. A program that puts itself into the
    /// background and writes a pid file is followed there: the run that became ready is returned.
    pub(super) async fn wait_ready(
        self: &Arc<Self>,
        slot: &Slot,
        mut run: Arc<Run>,
        timeout: Option<Duration>,
    ) -> Result<Arc<Run>, SuperviseError> {
        let timeout = timeout.unwrap_or(Duration::from_millis(slot.spec.start_timeout_ms));
        let begun = Instant::now();
        let check = Check::of(&slot.spec, &self.target)?;
        let mut last = None;
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero()
                && let Some(last) = last
            {
                return Err(SuperviseError::NotReady {
                    name: slot.name().to_owned(),
                    waited_ms: millis_since(begun),
                    last,
                    output: self.output_tail(slot, run.output_from),
                });
            }
            let attempt = async {
                if check == Check::Runs && run.begun.elapsed() < SETTLE {
                    tokio::time::sleep(SETTLE.saturating_sub(run.begun.elapsed())).await;
                }
                check
                    .attempt(
                        &self.prober,
                        left.clamp(READY_INTERVAL_MIN, READY_DEADLINE_MAX),
                    )
                    .await
            };
            let exit = tokio::select! {
                biased;
                exit = ended(slot, &run) => Some(exit),
                answer = attempt => match answer {
                    Ok(()) => {
                        self.ready(slot, &run);
                        return Ok(run);
                    }
                    Err(e) => {
                        last = Some(e);
                        None
                    }
                },
            };
            if let Some(exit) = exit {
                run = self.follow(slot, &run, exit, begun + timeout).await?;
                continue;
            }
            let interval = (begun.elapsed() / READY_INTERVAL_PART)
                .clamp(READY_INTERVAL_MIN, READY_INTERVAL_MAX);
            tokio::select! {
                _ = ended(slot, &run) => {}
                () = tokio::time::sleep(interval.min(left)) => {}
            }
        }
    }

    /// After a start's process has ended: the process that it left in the background, or an error.
    async fn follow(
        self: &Arc<Self>,
        slot: &Slot,
        run: &Run,
        exit: Exit,
        until: Instant,
    ) -> Result<Arc<Run>, SuperviseError> {
        let may_daemonise = slot.spec.pid_file.is_some() || slot.spec.port.is_some();
        while exit == Exit::Code(0) && may_daemonise && Instant::now() < until {
            if self.try_follow(slot, run)
                && let Some(found) = slot.run()
            {
                return Ok(found);
            }
            tokio::time::sleep(READY_INTERVAL_MAX.min(until - Instant::now())).await;
        }
        Err(SuperviseError::ExitedWhileStarting {
            name: slot.name().to_owned(),
            exit,
            waited_ms: millis_since(run.begun),
            output: self.output_tail(slot, run.output_from),
        })
    }

    /// Processes that earlier runs left behind.
    pub(super) fn left(&self, slot: &Slot) -> Vec<ProcessId> {
        let mut left = slot
            .leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(Entry {
            process: Some(process),
            mark: Some(mark),
            ..
        }) = self.records.get(slot.name())
            && !procinfo::is_alive(&process)
        {
            left.extend(control::members(&process, Some(&mark)));
        }
        left.retain(procinfo::is_alive);
        left
    }
}

/// Resolves when this run has ended.
pub(super) async fn ended(slot: &Slot, run: &Arc<Run>) -> Exit {
    let mut phases = slot.phase.subscribe();
    loop {
        match &*phases.borrow_and_update() {
            Phase::Running(r) if Arc::ptr_eq(r, run) => {}
            Phase::Ended { process, exit, .. } if *process == run.process => return *exit,
            _ => return Exit::Unknown,
        }
        if phases.changed().await.is_err() {
            return Exit::Unknown; // cannot be: the slot owns the sender
        }
    }
}

/// A text that nobody else's process carries.
fn new_mark(name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update(std::process::id().to_le_bytes());
    hash.update(jiff::Timestamp::now().as_nanosecond().to_le_bytes());
    hex::encode(&hash.finalize()[..16])
}
