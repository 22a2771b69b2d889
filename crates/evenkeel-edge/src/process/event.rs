//! What a supervisor tells: the state of a service, and what has just happened to it.

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::procinfo::{ProcessId, ProcessState};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not known: it was not our child, so only its parent was told.
    Unknown,
}

impl Exit {
    /// From what the standard library says.
    #[cfg(any(not(target_os = "linux"), test))]
    pub(crate) fn of(status: std::process::ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        status.code().map_or(Self::Unknown, Self::Code)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => write!(f, "unknown exit status"),
        }
    }
}

/// How a running process came under supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Started by this supervisor.
    Started,
    /// Started by an earlier Evenkeel, and taken up again.
    TakenUp,
    /// Started by somebody else, and found by pid file or port.
    Attached,
}

/// The state of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ServiceStatus {
    /// It was not running when Evenkeel first looked, and nothing has been tried yet.
    NotStarted,
    /// It runs.
    Running {
        /// Its main process.
        process: ProcessId,
        /// Since when Evenkeel knows this process.
        since: Timestamp,
        /// Whether it was seen ready.
        ready: bool,
        /// How it came under supervision.
        origin: Origin,
    },
    /// It ended and nobody had asked for it.
    Down {
        /// The process that ended.
        process: ProcessId,
        /// How it ended.
        exit: Exit,
        /// When that was noticed.
        at: Timestamp,
    },
    /// It ended because Evenkeel was told to end it.
    Stopped {
        /// When.
        at: Timestamp,
    },
}

impl ServiceStatus {
    /// Its main process, if it runs.
    pub fn process(&self) -> Option<&ProcessId> {
        match self {
            Self::Running { process, .. } => Some(process),
            _ => None,
        }
    }
}

/// Something that happened to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ServiceEvent {
    /// A process is supervised from now on.
    Started {
        /// The service.
        name: String,
        /// Its process.
        process: ProcessId,
        /// Where the process came from.
        origin: Origin,
        /// When.
        at: Timestamp,
    },
    /// It was seen ready for the first time.
    Ready {
        /// The service.
        name: String,
        /// Its process.
        process: ProcessId,
        /// From its start (or from when it was found) to ready, in milliseconds.
        took_ms: u64,
        /// When.
        at: Timestamp,
    },
    /// Its process ended.
    Exited {
        /// The service.
        name: String,
        /// The process that ended.
        process: ProcessId,
        /// How it ended.
        exit: Exit,
        /// Whether Evenkeel had been told to end it.
        expected: bool,
        /// When it was noticed.
        at: Timestamp,
    },
    /// It runs, was ready, and has not answered several times in a row.
    StoppedResponding {
        /// The service.
        name: String,
        /// Its process.
        process: ProcessId,
        /// What the process is doing: `stopped` explains the silence.
        process_state: Option<ProcessState>,
        /// How often in a row it did not answer.
        failures: u32,
        /// When the first of them was.
        since: Timestamp,
        /// What the last try met.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// It answers again.
    RespondsAgain {
        /// The service.
        name: String,
        /// Its process.
        process: ProcessId,
        /// When.
        at: Timestamp,
    },
}

impl ServiceEvent {
    /// The service that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Started { name, .. }
            | Self::Ready { name, .. }
            | Self::Exited { name, .. }
            | Self::StoppedResponding { name, .. }
            | Self::RespondsAgain { name, .. } => name,
        }
    }
}
