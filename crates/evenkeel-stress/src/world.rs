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
    /// What a control group that is its own is charged with and cannot drop, in bytes; nothing where it has none. It
    /// holds what resident memory does not: shared memory files, sockets, the kernel's own for it.
    pub group_bytes: Option<u64>,
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

/// The direct queries of a test: so many askers at once share a pool of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLoad {
    /// Askers at once, 1 to 1,000.
    pub parallel: u32,
    /// Queries in all, 1 to 100,000.
    pub queries: u64,
    /// Connections of the pool, all opened before the first query; 1 to 256.
    pub pool_size: u32,
    /// How long a query may wait for a free connection.
    pub acquire_timeout: Duration,
    /// How long one may take once it has a connection.
    pub query_timeout: Duration,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
}

/// What the direct queries gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// Which database was asked: `sqlite`, `postgresql`.
    pub database: String,
    /// Connections that were opened before the first query.
    pub connections: u64,
    /// Connections that could not be opened then; each is in `errors` too.
    pub connections_failed: u64,
    /// Queries that came to an end, good or bad: also those that got no connection.
    pub queries: u64,
    /// Failures by kind: `acquire_timeout`, `timeout`, `locked`, `open`, `query`, `closed`, ...
    pub errors: BTreeMap<String, u64>,
    /// How long the connections took to open.
    pub connects: Vec<Duration>,
    /// How long queries waited for a connection of the pool, those that waited in vain included.
    pub acquires: Vec<Duration>,
    /// How long the answered ones took, once they had a connection.
    pub latencies: Vec<Duration>,
    /// One error's message, without secrets.
    pub sample: Option<String>,
}

/// Why there is no [`PoolReport`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queries cannot be made as they are configured: nothing was learnt about the database.
    #[error("{0}")]
    Unusable(String),
    /// They were begun and did not come to an end.
    #[error("{0}")]
    Broken(String),
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

    /// Makes queries on the target's database through a pool of real connections, each bounded in time; nothing where
    /// no database is configured.
    fn pooled_queries(
        &self,
        load: PoolLoad,
    ) -> BoxFuture<'_, Option<Result<PoolReport, PoolError>>>;

    /// A metric of the target's own page of metrics now, all its series added up.
    fn metric<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<f64, MemoryError>> {
        let reason = format!("there is no page of metrics to read `{name}` from");
        Box::pin(async { Err(MemoryError::Unreadable(reason)) })
    }

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

    fn pooled_queries(
        &self,
        _load: PoolLoad,
    ) -> BoxFuture<'_, Option<Result<PoolReport, PoolError>>> {
        Box::pin(async { None })
    }
}
