//! What the stress tests need of the target beside HTTP: its memory, its database, the healer's mesh connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_edge::process::Supervisor;
use evenkeel_edge::target::DatabaseSpec;
use evenkeel_stress::world::{
    BoxFuture, MemoryError, MemoryReading, MeshState, PoolReport, ServiceMemory, TargetAccess,
};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

/// How long one direct query may wait for a lock.
const QUERY_BUSY: Duration = Duration::from_secs(5);
/// Most direct connections at once.
const PARALLEL_MAX: u32 = 64;

/// The configured target.
pub struct Access {
    supervisor: Supervisor,
    database: Option<DatabaseSpec>,
    mesh: Option<watch::Receiver<bool>>,
}

impl Access {
    /// Reads through these; `mesh` tells whether the healer's consumer is connected.
    pub fn new(
        supervisor: Supervisor,
        database: Option<DatabaseSpec>,
        mesh: Option<watch::Receiver<bool>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            supervisor,
            database,
            mesh,
        })
    }
}

impl TargetAccess for Access {
    fn memory_bytes(&self) -> BoxFuture<'_, Result<MemoryReading, MemoryError>> {
        Box::pin(async {
            let names = self.supervisor.names();
            let processes: BTreeMap<String, (u32, u64)> = names
                .iter()
                .filter_map(|name| {
                    let status = self.supervisor.status(name).ok()?;
                    let p = status.process()?;
                    Some((name.clone(), (p.pid, p.start_ticks)))
                })
                .collect();
            if processes.is_empty() {
                return Err(MemoryError::NoProcess);
            }
            let supervisor = self.supervisor.clone();
            let used = tokio::task::spawn_blocking(move || supervisor.memory())
                .await
                .map_err(|e| MemoryError::Unreadable(e.to_string()))?;
            let mut reading = MemoryReading {
                total_bytes: used.total_bytes,
                by_service: BTreeMap::new(),
            };
            for (name, (pid, started)) in processes {
                let bytes = used.by_service.get(&name).copied().ok_or_else(|| {
                    MemoryError::Unreadable(format!("the memory of {name} could not be read"))
                })?;
                reading.by_service.insert(
                    name,
                    ServiceMemory {
                        pid,
                        started,
                        bytes,
                    },
                );
            }
            Ok(reading)
        })
    }

    fn pooled_queries(&self, parallel: u32) -> BoxFuture<'_, Option<Result<PoolReport, String>>> {
        Box::pin(async move {
            let database = self.database.clone()?;
            let query = database
                .query
                .clone()
                .unwrap_or_else(|| "SELECT count(*) FROM sqlite_master".to_owned());
            let tasks: Vec<_> = (0..parallel.min(PARALLEL_MAX))
                .map(|_| {
                    let (path, query) = (database.path.clone(), query.clone());
                    tokio::task::spawn_blocking(move || one_query(path, &query))
                })
                .collect();
            let mut report = PoolReport {
                queries: tasks.len() as u64,
                ..PoolReport::default()
            };
            for task in tasks {
                match task.await {
                    Ok(Ok(took)) => report.latencies.push(took),
                    Ok(Err((kind, message))) => {
                        *report.errors.entry(kind.to_owned()).or_insert(0) += 1;
                        report.sample.get_or_insert(message);
                    }
                    Err(e) => return Some(Err(e.to_string())),
                }
            }
            Some(Ok(report))
        })
    }

    fn mesh(&self) -> Option<MeshState> {
        self.mesh.as_ref().map(|rx| MeshState {
            responder_connected: *rx.borrow(),
        })
    }
}

fn one_query(path: PathBuf, query: &str) -> Result<Duration, (&'static str, String)> {
    let begun = Instant::now();
    let kind = |e: &rusqlite::Error| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => "locked",
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::NotADatabase) => "open",
        _ => "query",
    };
    let run = || -> rusqlite::Result<()> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(QUERY_BUSY)?;
        let mut statement = conn.prepare(query)?;
        let mut rows = statement.query([])?;
        // Bounded: a test asks for an answer, not for a table.
        for _ in 0..1000 {
            if rows.next()?.is_none() {
                break;
            }
        }
        Ok(())
    };
    match run() {
        Ok(()) => Ok(begun.elapsed()),
        Err(e) => Err((kind(&e), e.to_string())),
    }
}
