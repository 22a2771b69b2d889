//! Runs a process of this program under `ptrace` and kills it at the system call one asks for. Needs no privilege: the
//! child asks to be traced by its parent itself. Linux only.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// The child's exit code when it may not be traced.
const NOT_PERMITTED: i32 = 77;

/// How a traced process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Killed before the call it was to make next.
    Killed,
    /// It had ended before; it made this many calls.
    Finished {
        /// System calls, from the moment it was traced.
        calls: u64,
    },
}

/// In the child: asks to be traced and stops until the parent lets it go on.
pub(crate) fn wait_for_tracer() {
    if ptrace::traceme()
        .and_then(|()| raise(Signal::SIGSTOP))
        .is_err()
    {
        std::process::exit(NOT_PERMITTED);
    }
}

/// Starts a child that calls [`wait_for_tracer`], and kills it when it is about to make its call number `at`, counted
/// from 1; that call is not made any more. All of this belongs to one thread.
pub(crate) fn kill_at(command: &mut Command, at: u64) -> anyhow::Result<Ended> {
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .context("starting the process that is killed")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("the process's number")?);
    match waitpid(pid, None).context("waiting for the process")? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        WaitStatus::Exited(_, NOT_PERMITTED) => bail!(
            "this system permits no ptrace of a process's own child (a container's seccomp profile, or \
             kernel.yama.ptrace_scope = 3): the rollback cannot be tortured here"
        ),
        other => bail!("the process did not wait to be traced: {other:?}"),
    }
    // Whatever becomes of this process, the child does not outlive it.
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).context("ptrace")?;
    let mut calls = 0;
    let mut inside = false;
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take()).context("ptrace")?;
        match waitpid(pid, None).context("waiting for the process")? {
            WaitStatus::PtraceSyscall(_) => {
                inside = !inside;
                if inside {
                    calls += 1;
                }
                if inside && calls == at {
                    kill(pid, Signal::SIGKILL).context("killing the process")?;
                    while !matches!(waitpid(pid, None)?, WaitStatus::Signaled(..)) {}
                    return Ok(Ended::Killed);
                }
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, 0) => return Ok(Ended::Finished { calls }),
            other => bail!("the process ended otherwise than it should: {other:?}"),
        }
    }
}
