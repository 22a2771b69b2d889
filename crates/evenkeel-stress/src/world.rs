//! What of a target is not HTTP: its memory, its database, and whether the healer hears its mesh.
//!
//! Someone else reads these (through procfs, SQLite, the responder); the tests only ask.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future, so that [`TargetAccess`] can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The memory of the target's processes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Resident memory of all its processes, in bytes.
    pub total_bytes: u64,
    /// The same for each of its services.
    pub by_service: BTreeMap<String, ServiceMemory>,
}

/// One service's share of a [`MemoryReading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceMemory {
    /// Its main process.
    pub pid: u32,
    /// When that process started, in a unit of the reader's choice: the same pid with another start
    /// is another process.
    pub started: u64,
    /// Resident memory of it and its children, in bytes.
    pub bytes: u64,
}

/// Why there is no [`MemoryReading`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The configuration names no process of the target.
    #[error("no process of the target is known")]
    NoProcess,
    /// A process is known and could not be read.
    #[error("{0}")]
    Unreadable(String),
}

/// What a number of parallel database queries gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// Queries that were made.
    pub queries: u64,
    /// Failed ones by kind: `locked`, `timeout`, `open`, ...
    pub errors: BTreeMap<String, u64>,
    /// How long the answered ones took.
    pub latencies: Vec<Duration>,
    /// One error's message, without secrets.
    pub sample: Option<String>,
}

/// The healer's own connection to the event mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshState {
    /// Whether its responder is subscribed.
    pub responder_connected: bool,
}

/// Access to a target beside HTTP.
pub trait TargetAccess: Send + Sync {
    /// The memory of the target's processes now.
    fn memory_bytes(&self) -> BoxFuture<'_, Result<MemoryReading, MemoryError>>;

    /// Makes `parallel` queries on the target's database at once, each bounded in time; nothing
    /// where no database is configured, a text where it could not be opened at all.
    fn pooled_queries(&self, parallel: u32) -> BoxFuture<'_, Option<Result<PoolReport, String>>>;

    /// How the healer stands with the event mesh; nothing where it takes no part in it.
    fn mesh(&self) -> Option<MeshState> {
        None
    }
}

/// A target of which nothing but its address is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpOnly;

impl TargetAccess for HttpOnly {
    fn memory_bytes(&self) -> BoxFuture<'_, Result<MemoryReading, MemoryError>> {
        Box::pin(async { Err(MemoryError::NoProcess) })
    }

    fn pooled_queries(&self, _parallel: u32) -> BoxFuture<'_, Option<Result<PoolReport, String>>> {
        Box::pin(async { None })
    }
}
