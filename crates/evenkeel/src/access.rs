//! What the stress tests need of the target beside HTTP: its memory, its database, the healer's mesh connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_edge::advisor::Secret;
use evenkeel_edge::process::Supervisor;
use evenkeel_edge::sql_pool::{PostgresPool, QueryLoad, SqlitePool};
use evenkeel_edge::target::DatabaseSpec;
use evenkeel_stress::world::{
    BoxFuture, MemoryError, MemoryReading, MeshState, PoolError, PoolLoad, PoolReport,
    ServiceMemory, TargetAccess,
};
use tokio::sync::watch;

use crate::config::{Config, Environment};

/// The configured target.
pub struct Access {
    supervisor: Supervisor,
    database: Option<DatabaseSpec>,
    postgres: Option<Result<PostgresPool, String>>,
    mesh: Option<watch::Receiver<bool>>,
}

impl Access {
    /// Reads through these; `postgres`, as [`postgres`] has it, is asked before `database`, and `mesh` tells whether the
    /// healer's consumer is connected.
    pub fn new(
        supervisor: Supervisor,
        database: Option<DatabaseSpec>,
        postgres: Option<Result<PostgresPool, String>>,
        mesh: Option<watch::Receiver<bool>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            supervisor,
            database,
            postgres,
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

    fn pooled_queries(
        &self,
        load: PoolLoad,
    ) -> BoxFuture<'_, Option<Result<PoolReport, PoolError>>> {
        Box::pin(async move {
            let load = QueryLoad {
                parallel: load.parallel,
                queries: load.queries,
                pool_size: load.pool_size,
                acquire_timeout: load.acquire_timeout,
                query_timeout: load.query_timeout,
                connect_timeout: load.connect_timeout,
            };
            let (name, report) = match &self.postgres {
                Some(Ok(pool)) => ("postgresql", pool.clone().run(load).await),
                Some(Err(reason)) => return Some(Err(PoolError::Unusable(reason.clone()))),
                None => {
                    let database = self.database.clone()?;
                    let pool = SqlitePool::new(database.path, database.query);
                    ("sqlite", pool.run(load).await)
                }
            };
            let errors = report.errors.into_iter();
            Some(Ok(PoolReport {
                database: name.to_owned(),
                connections: report.connections,
                connections_failed: report.connections_failed,
                queries: report.queries,
                errors: errors.map(|(kind, n)| (kind.to_owned(), n)).collect(),
                connects: report.connects,
                acquires: report.acquires,
                latencies: report.latencies,
                sample: report.sample,
            }))
        })
    }

    fn mesh(&self) -> Option<MeshState> {
        self.mesh.as_ref().map(|rx| MeshState {
            responder_connected: *rx.borrow(),
        })
    }
}

/// The PostgreSQL database that tests ask directly; the reason where its address is missing or cannot be used.
pub fn postgres(
    config: &Config,
    environment: &Environment,
) -> Option<Result<PostgresPool, String>> {
    let section = config.target.postgres.as_ref()?;
    let name = &section.url_env;
    let pool = match environment.get(name) {
        None => Err(format!(
            "[target.postgres]: {name}, which holds the database's address, is not set"
        )),
        Some(url) => PostgresPool::new(&Secret::new(url), section.query.clone())
            .map_err(|e| format!("[target.postgres]: the address in {name} cannot be used: {e}")),
    };
    Some(pool)
}
