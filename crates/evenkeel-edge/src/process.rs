//! The processes that make up the target: who they are, and keeping them as they should be.
//!
//! In reading order: what the system says about a process ([`procinfo`]), acting on it by identity (control), what
//! is told about services ([`event`], [`error`]), what is remembered about them (record), starting one (spawn),
//! knowing that it is ready (ready), and all of it together ([`supervisor`]).
//!
//! **Invariant:** no signal is ever sent to a bare process number.

mod control;
pub mod error;
pub mod event;
pub mod procinfo;
mod ready;
mod record;
mod spawn;
pub mod supervisor;

pub use error::SuperviseError;
pub use event::{Exit, Origin, ServiceEvent, ServiceStatus};
pub use procinfo::{ProcessId, ProcessState};
pub use supervisor::{
    MemoryUse, Options, Responsiveness, RestartReport, StartReport, StopReport, Supervisor,
};
