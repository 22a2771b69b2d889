//! Everywhere else: children through tokio, others by looking every 200 ms, signals through `sysinfo`.

use std::io;
use std::process::Command;
use std::time::Duration;

use evenkeel_core::playbook::action::SignalName;
use sysinfo::{Pid, ProcessesToUpdate, Signal, System};

use super::Sent;
use crate::process::event::Exit;
use crate::process::procinfo::{self, ProcessId};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Waits for one process to end.
#[derive(Debug)]
pub(crate) enum ExitWatch {
    /// A child of ours.
    Own(Box<tokio::process::Child>),
    /// Anybody else's.
    Other(ProcessId),
}

impl ExitWatch {
    /// Watches a running process. `None` when exactly this process is gone.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same face as where opening a handle can fail"
    )]
    pub(crate) fn attach(process: &ProcessId) -> io::Result<Option<Self>> {
        Ok(procinfo::is_alive(process).then(|| Self::Other(process.clone())))
    }

    /// Resolves when the process has ended: at once for a child, within 200 ms for others.
    pub(crate) async fn exited(&mut self) -> Exit {
        match self {
            Self::Own(child) => child.wait().await.map_or(Exit::Unknown, Exit::of),
            Self::Other(process) => {
                while procinfo::is_alive(process) {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Exit::Unknown
            }
        }
    }

    /// Nothing to do: waiting has reaped the child.
    #[expect(
        clippy::unused_self,
        reason = "the same face as where children are reaped apart"
    )]
    pub(crate) fn reap(&self) {}
}

/// Starts a program; it is not killed when anything here is dropped.
pub(crate) fn spawn(command: Command) -> io::Result<(ProcessId, ExitWatch)> {
    let child = tokio::process::Command::from(command).spawn()?;
    let process = child
        .id()
        .map(|pid| {
            procinfo::identify(pid).unwrap_or(ProcessId {
                pid,
                start_ticks: 0,
                boot_id: None,
            })
        })
        .ok_or(io::ErrorKind::NotFound)?;
    Ok((process, ExitWatch::Own(Box::new(child))))
}

/// Sends a signal to exactly this process, as far as looking just before can tell.
pub(crate) fn send(process: &ProcessId, signal: SignalName) -> io::Result<Sent> {
    let signal = match signal {
        SignalName::Term => Signal::Term,
        SignalName::Hup => Signal::Hangup,
        SignalName::Int => Signal::Interrupt,
        SignalName::Usr1 => Signal::User1,
        SignalName::Usr2 => Signal::User2,
        SignalName::Cont => Signal::Continue,
        SignalName::Kill => Signal::Kill,
    };
    if !procinfo::is_alive(process) {
        return Ok(Sent::Gone);
    }
    let pid = Pid::from_u32(process.pid);
    let mut system = System::new().map_err(|e| io::Error::other(e.to_string()))?;
    system.refresh_processes(ProcessesToUpdate::Some(&[pid]), true);
    match system.process(pid).map(|p| p.kill_with(signal)) {
        None => Ok(Sent::Gone),
        Some(Some(true)) => Ok(Sent::Delivered),
        Some(Some(false)) => Err(io::ErrorKind::PermissionDenied.into()),
        Some(None) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The living processes that belong to a service: its main process and its descendants.
pub(crate) fn members(main: &ProcessId, _mark: Option<&str>) -> Vec<ProcessId> {
    let mut found = procinfo::descendants(main);
    found.insert(0, main.clone());
    found.retain(|p| p.pid != std::process::id() && procinfo::is_alive(p));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notices_exits_and_signals_by_identity() {
        let mut command = Command::new("sleep");
        command.arg("30");
        let (process, mut own) = spawn(command).unwrap();
        let mut other = ExitWatch::attach(&process).unwrap().unwrap();
        assert_eq!(members(&process, None), std::slice::from_ref(&process));
        let mut stranger = process.clone();
        stranger.start_ticks += 1;
        assert_eq!(send(&stranger, SignalName::Kill).unwrap(), Sent::Gone);
        assert_eq!(send(&process, SignalName::Term).unwrap(), Sent::Delivered);
        let ended = tokio::time::timeout(Duration::from_secs(5), own.exited()).await;
        assert_eq!(ended.unwrap(), Exit::Signal(15));
        own.reap();
        let ended = tokio::time::timeout(Duration::from_secs(5), other.exited()).await;
        assert_eq!(ended.unwrap(), Exit::Unknown);
        assert_eq!(send(&process, SignalName::Term).unwrap(), Sent::Gone);
    }
}
