//! Acting on processes by identity: signals that cannot hit a stranger, and noticing an exit at once.
//!
//! On Linux both go through a pidfd: once it is open and the start time agrees, it means that process and no other,
//! whatever becomes of the number. Elsewhere identity is checked just before a signal, and processes that are not
//! our children are looked at every 200 ms.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{ExitWatch, members, send, spawn};

#[cfg(any(not(target_os = "linux"), test))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{ExitWatch, members, send, spawn};

/// Environment variable that marks the processes of a service, so that they are known again after a crash.
pub(crate) const MARK_ENV: &str = "EVENKEEL_SERVICE_RUN";

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was delivered to exactly the process that was meant.
    Delivered,
    /// That process is gone; nobody got the signal.
    Gone,
}
