//! What a process knows of itself and its surroundings: its memory, the signals that end it, and
//! the one line that says it is ready.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::error::GraceError;

/// Resident memory of this process in bytes, where the platform tells.
#[cfg(target_os = "linux")]
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Resident memory of this process in bytes, where the platform tells: not on this one.
#[cfg(not(target_os = "linux"))]
pub(crate) fn resident_bytes() -> Option<u64> {
    None
}

/// Says on standard output that the process is ready. A closed output is no reason to end.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What ends a process in good order: SIGTERM, SIGINT (Ctrl-C), or the end of its lifeline.
pub(crate) struct Shutdown {
    #[cfg(unix)]
    term: tokio::signal::unix::Signal,
    #[cfg(unix)]
    int: tokio::signal::unix::Signal,
    lifeline: Option<Arc<Notify>>,
}

impl Shutdown {
    /// Installs the handlers. With `lifeline`, the end of standard input is a signal too: the
    /// parent that holds its other end is gone, however it went.
    pub(crate) fn install(lifeline: bool) -> Result<Self, GraceError> {
        #[cfg(unix)]
        let handler = |kind| {
            tokio::signal::unix::signal(kind).map_err(GraceError::io("install a signal handler"))
        };
        Ok(Self {
            #[cfg(unix)]
            term: handler(tokio::signal::unix::SignalKind::terminate())?,
            #[cfg(unix)]
            int: handler(tokio::signal::unix::SignalKind::interrupt())?,
            lifeline: lifeline.then(watch_stdin),
        })
    }

    /// Waits for the first of them.
    pub(crate) async fn wait(&mut self) {
        let lifeline = async {
            match &self.lifeline {
                Some(ended) => ended.notified().await,
                None => std::future::pending().await,
            }
        };
        #[cfg(unix)]
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            () = lifeline => {}
        }
        #[cfg(not(unix))]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = lifeline => {}
        }
    }
}

/// A thread of its own reads standard input to its end; it ends with the process.
fn watch_stdin() -> Arc<Notify> {
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 64];
        let mut input = std::io::stdin().lock();
        while matches!(input.read(&mut buffer), Ok(n) if n > 0) {}
        tell.notify_one();
    });
    ended
}
