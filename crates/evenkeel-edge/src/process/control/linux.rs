//! Linux: pidfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use evenkeel_core::playbook::action::SignalName;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{MARK_ENV, Sent};
use crate::process::event::Exit;
use crate::process::procinfo::{self, ProcessId, linux};

/// Waits for one process to end.
#[derive(Debug)]
pub(crate) struct ExitWatch {
    pidfd: AsyncFd<OwnedFd>,
}

fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A pidfd of exactly this process. The start time is read after the pidfd was opened: if it agrees, the number
/// had not passed to another process before, and cannot mislead afterwards.
fn open_exact(process: &ProcessId) -> io::Result<Option<OwnedFd>> {
    let fd = open(process.pid)?;
    Ok(fd.filter(|_| procinfo::is_alive(process)))
}

impl ExitWatch {
    /// Watches a running process, ours or not. `None` when exactly this process is gone.
    pub(crate) fn attach(process: &ProcessId) -> io::Result<Option<Self>> {
        open_exact(process)?.map(Self::new).transpose()
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe, for descriptors that may be closed meanwhile: an OwnedFd cannot be"
    )]
    fn new(pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pidfd: AsyncFd::with_interest(pidfd, Interest::READABLE)?,
        })
    }

    /// Resolves at once when the process has ended. An own child stays a zombie until [`Self::reap`], so that its
    /// number (and its group's) means nobody else meanwhile.
    pub(crate) async fn exited(&mut self) -> Exit {
        if self.pidfd.readable().await.is_err() {
            return Exit::Unknown;
        }
        match self.wait(WaitIdOptions::NOWAIT) {
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            None => Exit::Unknown, // not our child: its parent knows, we do not
        }
    }

    /// Takes an own child out of the process table; does nothing for others.
    pub(crate) fn reap(&self) {
        self.wait(WaitIdOptions::empty());
    }

    fn wait(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        waitid(
            WaitId::PidFd(self.pidfd.get_ref().as_fd()),
            options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        )
        .ok()
        .flatten()
    }
}

/// Starts a program; it is not killed when anything here is dropped.
pub(crate) fn spawn(mut command: Command) -> io::Result<(ProcessId, ExitWatch)> {
    let pid = crate::launcher::launch(move || command.spawn())?.id();
    // The child cannot lose its number before we reap it, so these two cannot mean anybody else.
    let process = linux::identify_any(pid).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = open(pid)?.ok_or(io::ErrorKind::NotFound)?;
    Ok((process, ExitWatch::new(pidfd)?))
}

/// Sends a signal to exactly this process.
pub(crate) fn send(process: &ProcessId, signal: SignalName) -> io::Result<Sent> {
    let Some(pidfd) = open_exact(process)? else {
        return Ok(Sent::Gone);
    };
    let signal = match signal {
        SignalName::Term => Signal::TERM,
        SignalName::Hup => Signal::HUP,
        SignalName::Int => Signal::INT,
        SignalName::Usr1 => Signal::USR1,
        SignalName::Usr2 => Signal::USR2,
        SignalName::Cont => Signal::CONT,
        SignalName::Kill => Signal::KILL,
    };
    match pidfd_send_signal(&pidfd, signal) {
        Ok(()) => Ok(Sent::Delivered),
        Err(rustix::io::Errno::SRCH) => Ok(Sent::Gone),
        Err(e) => Err(e.into()),
    }
}

/// The living processes that belong to a service: its main process, what runs in the process group that this one
/// leads, and its descendants. When the main process is gone for good, the number of its group may be somebody
/// else's; then only processes that carry the service's mark count.
pub(crate) fn members(main: &ProcessId, mark: Option<&str>) -> Vec<ProcessId> {
    let mut found = match linux::group_of(main) {
        Some(group) if group == main.pid => linux::group_members(group),
        Some(_) => vec![main.clone()],
        None => {
            let mut marked = linux::group_members(main.pid);
            marked.retain(|p| mark.is_some_and(|m| linux::has_env(p, MARK_ENV, m)));
            marked
        }
    };
    for below in procinfo::descendants(main) {
        if !found.contains(&below) {
            found.push(below);
        }
    }
    // Evenkeel may itself have been started by what it guards.
    found.retain(|p| p.pid != std::process::id() && procinfo::is_alive(p));
    found
}
