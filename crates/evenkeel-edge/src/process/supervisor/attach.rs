//! Finding processes that run already: those an earlier Evenkeel started, and those one attaches to.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::{Inner, Phase, Run, Slot};
use crate::collect::probe::now;
use crate::process::control::ExitWatch;
#[cfg(target_os = "linux")]
use crate::process::control::MARK_ENV;
use crate::process::event::{Origin, ServiceEvent};
use crate::process::procinfo::{self, ProcessId};
use crate::process::record::{Entry, command_hash};

/// How much later than its pid file a process may have been started: clocks of files and processes differ.
const PID_FILE_SLACK_MS: i64 = 2_000;

impl Inner {
    /// Takes up what an earlier Evenkeel started, if exactly that process still runs.
    pub(super) fn take_up(self: &Arc<Self>, slot: &Slot) {
        let Some(entry) = self.records.get(slot.name()) else {
            return;
        };
        let Some(process) = entry.process.clone().or_else(|| unrecorded(&entry)) else {
            self.records.set(slot.name(), None);
            return;
        };
        if entry.command_hash != command_hash(&slot.spec.command) {
            tracing::warn!(
                service = slot.name(),
                "runs with an earlier command; a restart applies the present one"
            );
        }
        let run = Run {
            process,
            origin: Origin::TakenUp,
            mark: entry.mark,
            since: now(),
            begun: Instant::now(),
            output_from: 0,
            ready: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        // The mark stays recorded even when the main process is gone: its children may not be.
        self.supervise_existing(slot, run);
    }

    /// Looks for a service that one attaches to. Whether it runs now.
    pub(super) fn try_attach(self: &Arc<Self>, slot: &Slot) -> bool {
        if slot.run().is_some() {
            return true;
        }
        let found = find(slot)
            .filter(|p| self.may_be(slot, p))
            // A child that outlived its service still holds the port, and is not the service.
            .filter(|p| !self.left(slot).contains(p));
        let Some(process) = found else {
            return false;
        };
        let run = Run {
            process,
            origin: Origin::Attached,
            mark: None,
            since: now(),
            begun: Instant::now(),
            output_from: 0,
            ready: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        self.supervise_existing(slot, run)
    }

    /// Looks for the process that a started program has left in the background: it goes on as the same start.
    pub(super) fn try_follow(self: &Arc<Self>, slot: &Slot, starter: &Run) -> bool {
        let Some(process) = find(slot).filter(|p| self.may_be(slot, p)) else {
            return false;
        };
        let run = Run {
            process: process.clone(),
            origin: Origin::Started,
            mark: starter.mark.clone(),
            since: now(),
            begun: starter.begun,
            output_from: starter.output_from,
            ready: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        let found = self.supervise_existing(slot, run);
        if found && let Some(mut entry) = self.records.get(slot.name()) {
            entry.process = Some(process);
            self.records.set(slot.name(), Some(entry));
            self.write_records_durably();
        }
        found
    }

    /// Whether a process that was found can be this service: it is not Evenkeel itself, and not another service.
    fn may_be(&self, slot: &Slot, process: &ProcessId) -> bool {
        process.pid != std::process::id()
            && process.pid != 1
            && !self
                .slots
                .values()
                .filter(|other| other.name() != slot.name())
                .filter_map(Slot::run)
                .any(|run| run.process == *process)
    }

    fn supervise_existing(self: &Arc<Self>, slot: &Slot, run: Run) -> bool {
        match ExitWatch::attach(&run.process) {
            Ok(Some(watch)) => {
                self.supervise(slot, run, watch);
                true
            }
            Ok(None) => false,
            Err(e) => {
                tracing::warn!(
                    service = slot.name(),
                    pid = run.process.pid,
                    error = %e,
                    "a running process cannot be watched"
                );
                false
            }
        }
    }

    /// From now on this run is what the service is.
    pub(super) fn supervise(self: &Arc<Self>, slot: &Slot, run: Run, watch: ExitWatch) -> Arc<Run> {
        let run = Arc::new(run);
        slot.phase.send_replace(Phase::Running(Arc::clone(&run)));
        self.tell(ServiceEvent::Started {
            name: slot.name().to_owned(),
            process: run.process.clone(),
            origin: run.origin,
            at: run.since,
        });
        self.watch_exit(slot, Arc::clone(&run), watch);
        run
    }
}

/// The process of a start that was announced and never confirmed: Evenkeel died in between. It carries the mark,
/// and it leads a process group as everything that Evenkeel starts.
#[cfg(target_os = "linux")]
fn unrecorded(entry: &Entry) -> Option<ProcessId> {
    use procinfo::linux;
    linux::with_env(MARK_ENV, entry.mark.as_deref()?)
        .into_iter()
        .filter(|p| linux::group_of(p) == Some(p.pid))
        .min_by_key(|p| (p.start_ticks, p.pid))
}

#[cfg(not(target_os = "linux"))]
fn unrecorded(_entry: &Entry) -> Option<ProcessId> {
    None
}

fn find(slot: &Slot) -> Option<ProcessId> {
    let by_file = slot.spec.pid_file.as_deref().and_then(by_pid_file);
    by_file.or_else(|| slot.spec.port.and_then(procinfo::listener_on_port))
}

/// The process whose number stands in the file. A process that was started after the file was written is a
/// stranger that got the number.
fn by_pid_file(path: &Path) -> Option<ProcessId> {
    let file = std::fs::File::open(path).ok()?;
    let written = file.metadata().ok()?.modified().ok()?;
    let written_ms = jiff::Timestamp::try_from(written).ok()?.as_millisecond();
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).ok()?;
    let process = procinfo::identify(text.split_whitespace().next()?.parse().ok()?)?;
    let started_ms = procinfo::started_at(&process)?.as_millis();
    (started_ms <= written_ms + PID_FILE_SLACK_MS).then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_pid_file_leads_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(by_pid_file(&path).map(|p| p.pid), Some(std::process::id()));
        let before = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(
            by_pid_file(&path),
            None,
            "written before that process began"
        );
        for text in ["", "-1", "abc", "0", "99999999999999"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(by_pid_file(&path), None, "{text}");
        }
    }
}
