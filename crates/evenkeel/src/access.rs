//! What the stress tests need of the target beside HTTP: its memory, its database, the healer's mesh connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_edge::advisor::Secret;
use evenkeel_edge::collect::exposition::{Entry, Exposition, Format};
use evenkeel_edge::collect::probe::{PageRequest, Prober};
use evenkeel_edge::collect::{GroupMemory, Roots};
use evenkeel_edge::process::Supervisor;
use evenkeel_edge::sql_pool::{PostgresPool, QueryLoad, SqlitePool};
use evenkeel_edge::target::DatabaseSpec;
use evenkeel_stress::world::{
    BoxFuture, MemoryError, MemoryReading, MeshState, PoolError, PoolLoad, PoolReport,
    ServiceMemory, TargetAccess,
};
use tokio::sync::watch;

use crate::config::{Config, Environment};

/// How long the target's page of metrics may take.
const PAGE_LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of it that are read.
const PAGE_LEN_MAX: usize = 16 << 20;

/// The configured target.
pub struct Access {
    supervisor: Supervisor,
    database: Option<DatabaseSpec>,
    postgres: Option<Result<PostgresPool, String>>,
    /// The address of the target's own page of metrics.
    metrics: Option<String>,
    prober: Prober,
    mesh: Option<watch::Receiver<bool>>,
}

impl Access {
    /// Reads the target of `config`; `postgres`, as [`postgres`] has it, is asked before its SQLite file, and `mesh` tells
    /// whether the healer's consumer is connected.
    pub fn new(
        supervisor: Supervisor,
        config: &Config,
        postgres: Option<Result<PostgresPool, String>>,
        mesh: Option<watch::Receiver<bool>>,
    ) -> Arc<Self> {
        let metrics = config.target.endpoints.metrics.as_ref();
        Arc::new(Self {
            supervisor,
            database: config.resolved.database.clone(),
            postgres,
            metrics: metrics.and_then(|page| config.resolved.url(&page.path)),
            prober: Prober::new(),
            mesh,
        })
    }
}

/// What the control groups of services are charged with.
fn group_memory(supervisor: &Supervisor, roots: &Roots) -> BTreeMap<String, u64> {
    let names = supervisor.names().into_iter();
    of_one_service_each(names.filter_map(|name| {
        let status = supervisor.status(&name).ok()?;
        // Where there is none, resident memory alone is told.
        let group = roots.group_memory(status.process()?).ok()?;
        Some((name, group))
    }))
}

/// The groups that no two services share.
fn of_one_service_each(
    found: impl Iterator<Item = (String, GroupMemory)>,
) -> BTreeMap<String, u64> {
    let mut by_group: BTreeMap<PathBuf, Vec<(String, u64)>> = BTreeMap::new();
    for (name, group) in found {
        let services = by_group.entry(group.directory).or_default();
        services.push((name, group.bytes));
    }
    let alone = by_group
        .into_values()
        .filter(|services| services.len() == 1);
    alone.flatten().collect()
}

/// The sum of the series of a metric on a page.
async fn metric_of(prober: &Prober, url: &str, name: &str) -> Result<f64, MemoryError> {
    let unreadable = |reason: String| MemoryError::Unreadable(format!("metric `{name}`: {reason}"));
    let page = prober
        .page(&PageRequest {
            url,
            deadline: PAGE_LIMIT,
            len_max: PAGE_LEN_MAX,
            accept: None,
            token: None,
        })
        .await;
    if !page.result.ok {
        return Err(unreadable(page.result.detail.unwrap_or_default()));
    }
    let lines = Exposition::new(&page.body, Format::of_content_type(&page.content_type));
    let values: Vec<f64> = lines
        .filter_map(|entry| match entry {
            Entry::Sample(sample) if sample.name.unescape() == name => Some(sample.value),
            _ => None,
        })
        .collect();
    let sum: f64 = values.iter().sum();
    if values.is_empty() || !sum.is_finite() {
        return Err(unreadable("the page has no such number".to_owned()));
    }
    Ok(sum)
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
            let (used, groups) = tokio::task::spawn_blocking(move || {
                let groups = group_memory(&supervisor, &Roots::default());
                (supervisor.memory(), groups)
            })
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
                let group_bytes = groups.get(&name).copied();
                reading.by_service.insert(
                    name,
                    ServiceMemory {
                        pid,
                        started,
                        bytes,
                        group_bytes,
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

    fn metric<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<f64, MemoryError>> {
        Box::pin(async move {
            match &self.metrics {
                Some(url) => metric_of(&self.prober, url, name).await,
                None => Err(MemoryError::Unreadable(
                    "[target.endpoints] metrics is not set".to_owned(),
                )),
            }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_control_group_of_two_services_is_that_of_neither() {
        let found = [("a", "/x", 1), ("b", "/y", 2), ("c", "/x", 1)].map(|(name, group, bytes)| {
            let directory = PathBuf::from(group);
            (name.to_owned(), GroupMemory { directory, bytes })
        });
        let alone = of_one_service_each(found.into_iter());
        assert_eq!(alone, BTreeMap::from([("b".to_owned(), 2)]));
    }

    #[tokio::test]
    async fn a_metric_is_the_sum_of_its_series_and_never_a_guess() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let page = "# TYPE heap gauge\nheap{pool=\"a\"} 1024\nheap{pool=\"b\"} 2048\nheap_max 7\nodd NaN\n";
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let mut stream = stream.unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                let length = page.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream
                    .write_all(format!("{head}{page}").as_bytes())
                    .unwrap();
            }
        });
        let prober = Prober::new();
        let found = metric_of(&prober, &url, "heap").await;
        assert_eq!(found, Ok(3072.0));
        for name in ["nothing", "odd"] {
            let error = metric_of(&prober, &url, name)
                .await
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(name) && error.contains("no such number"),
                "{error}"
            );
        }
        server.join().unwrap();
        assert!(metric_of(&prober, &url, "heap").await.is_err());
    }
}
