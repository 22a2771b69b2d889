//! Direct queries of a stress test: many askers share a pool of real connections, as an application does.
//!
//! All connections are opened first and timed apart; then each query waits for one of them, is asked, and gives it
//! back. What is slow or fails is told apart: opening, the wait for a connection, and the query. Nothing is changed in
//! the database: SQLite is opened for reading, PostgreSQL is asked in read-only transactions.

mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Manager, Object, Pool, PoolError, TimeoutType};
use tokio::task::JoinSet;

pub use postgres::{PostgresPool, PostgresPoolError};
pub use sqlite::SqlitePool;

/// How the queries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLoad {
    /// Askers at once.
    pub parallel: u32,
    /// Queries in all; each is kept as one duration.
    pub queries: u64,
    /// Connections of the pool.
    pub pool_size: u32,
    /// How long a query may wait for a connection.
    pub acquire_timeout: Duration,
    /// How long it may take once it has one.
    pub query_timeout: Duration,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
}

/// What the queries gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryReport {
    /// Connections opened before the first query.
    pub connections: u64,
    /// Connections that did not open then; when none did, nothing was asked.
    pub connections_failed: u64,
    /// Queries that came to an end, good or bad.
    pub queries: u64,
    /// Failures by kind, of connections and of queries: `open`, `refused`, `connect`, `connect_timeout`, `auth`,
    /// `too_many_connections`, `acquire_timeout`, `timeout`, `locked`, `closed`, `query`, `pool`.
    pub errors: BTreeMap<&'static str, u64>,
    /// How long connections took to open.
    pub connects: Vec<Duration>,
    /// How long queries waited for a connection, in vain or not.
    pub acquires: Vec<Duration>,
    /// How long answered queries took once they had one.
    pub latencies: Vec<Duration>,
    /// One failure's message.
    pub sample: Option<String>,
}

impl QueryReport {
    fn fail(&mut self, fault: Fault) {
        *self.errors.entry(fault.kind).or_insert(0) += 1;
        self.sample.get_or_insert(fault.message);
    }

    fn add(&mut self, other: Self) {
        self.queries += other.queries;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_insert(0) += count;
        }
        self.acquires.extend(other.acquires);
        self.latencies.extend(other.latencies);
        if self.sample.is_none() {
            self.sample = other.sample;
        }
    }
}

/// A failure of a connection or a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    kind: &'static str,
    message: String,
}

/// A database that can be asked through a pool.
pub(crate) trait Asked: Manager<Error = Fault> + Sized {
    /// Asks once on this connection, which goes back to the pool if it is still usable.
    fn ask(
        connection: Object<Self>,
        limit: Duration,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Opens the connections, then makes the queries. Dropping the future ends both; what runs on a blocking thread ends
/// with its own limit.
pub(crate) async fn run<D>(database: D, load: QueryLoad) -> QueryReport
where
    D: Asked + Send + Sync + 'static,
    D::Type: Send,
{
    let mut report = QueryReport::default();
    let size = usize::try_from(load.pool_size.max(1)).unwrap_or(1);
    let built = Pool::<D>::builder(database)
        .max_size(size)
        .wait_timeout(Some(load.acquire_timeout))
        .create_timeout(Some(load.connect_timeout))
        .runtime(Runtime::Tokio1)
        .build();
    let pool = match built {
        Ok(pool) => pool,
        Err(e) => {
            report.fail(Fault {
                kind: "pool",
                message: e.to_string(),
            });
            report.connections_failed = 1;
            return report;
        }
    };
    open_all(&pool, size, &mut report).await;
    if report.connections == 0 {
        return report;
    }
    let next = Arc::new(AtomicU64::new(0));
    let mut askers = JoinSet::new();
    for _ in 0..u64::from(load.parallel.max(1)).min(load.queries) {
        askers.spawn(asker(pool.clone(), load, Arc::clone(&next)));
    }
    while let Some(part) = askers.join_next().await {
        match part {
            Ok(part) => report.add(part),
            Err(e) => report.fail(Fault {
                kind: "pool",
                message: e.to_string(),
            }),
        }
    }
    report
}

/// Opens as many connections as the pool holds, all at once, and gives them back when all are there.
async fn open_all<D>(pool: &Pool<D>, size: usize, report: &mut QueryReport)
where
    D: Asked + Send + Sync + 'static,
    D::Type: Send,
{
    let mut opening = JoinSet::new();
    for _ in 0..size {
        let pool = pool.clone();
        opening.spawn(async move {
            let begun = Instant::now();
            (pool.get().await, begun.elapsed())
        });
    }
    // Kept until all are there: given back early, one would serve for two.
    let mut kept = Vec::with_capacity(size);
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok((Ok(connection), took)) => {
                report.connections += 1;
                report.connects.push(took);
                kept.push(connection);
            }
            Ok((Err(e), _)) => {
                report.connections_failed += 1;
                report.fail(fault(e));
            }
            Err(e) => {
                report.connections_failed += 1;
                report.fail(Fault {
                    kind: "pool",
                    message: e.to_string(),
                });
            }
        }
    }
}

async fn asker<D>(pool: Pool<D>, load: QueryLoad, next: Arc<AtomicU64>) -> QueryReport
where
    D: Asked + Send + Sync + 'static,
    D::Type: Send,
{
    let mut part = QueryReport::default();
    while next.fetch_add(1, Ordering::Relaxed) < load.queries {
        part.queries += 1;
        let begun = Instant::now();
        let got = pool.get().await;
        part.acquires.push(begun.elapsed());
        let asked = match got {
            Ok(connection) => {
                let begun = Instant::now();
                let answered = D::ask(connection, load.query_timeout).await;
                answered.map(|()| part.latencies.push(begun.elapsed()))
            }
            Err(e) => Err(fault(e)),
        };
        if let Err(fault) = asked {
            part.fail(fault);
        }
    }
    part
}

fn fault(e: PoolError<Fault>) -> Fault {
    let kind = match e {
        PoolError::Backend(fault) => return fault,
        PoolError::Timeout(TimeoutType::Wait) => "acquire_timeout",
        PoolError::Timeout(_) => "connect_timeout",
        _ => "pool",
    };
    let message = match kind {
        "acquire_timeout" => "no connection of the pool became free in time".to_owned(),
        "connect_timeout" => "the connection did not open in time".to_owned(),
        _ => e.to_string(),
    };
    Fault { kind, message }
}
