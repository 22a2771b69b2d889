//! The database: SQLite behind a bounded pool of connections.
//! Every query runs on a blocking thread with a connection of its own; a checkout waits at most
//! the configured time. Nothing else in Grace opens the database, but for the roles that are
//! other programs (`collector` through here, `hold_lock` on its own).

pub(crate) mod queries;
pub(crate) mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    self, Metrics as ObjectMetrics, PoolError, QueueMode, RecycleResult, TimeoutType,
};
use rusqlite::{Connection, OpenFlags};

use crate::error::GraceError;
use crate::metrics::Counter;
use crate::settings::Settings;

/// Longest time to open one connection. Apart from the wait for a free one, which is a setting.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// Page cache of one connection in KiB: small, since the operating system caches the file.
const PAGE_CACHE_KIB: i64 = 64;

/// Why a query gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    /// No connection got free in time.
    #[error("no database connection got free within {0:?}")]
    PoolTimeout(Duration),
    /// Another process held the lock longer than the busy timeout.
    #[error("the database is locked by another program")]
    Locked,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Self::Locked
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Opens connections for the pool.
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    busy_timeout: Duration,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = DbError;

    async fn create(&self) -> Result<Connection, DbError> {
        let (path, busy) = (self.path.clone(), self.busy_timeout);
        tokio::task::spawn_blocking(move || open(&path, busy))
            .await
            .map_err(|error| DbError::Failed(error.to_string()))?
            .map_err(DbError::from)
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &ObjectMetrics,
    ) -> RecycleResult<DbError> {
        if connection.is_autocommit() {
            Ok(())
        } else {
            Err(managed::RecycleError::message("left inside a transaction"))
        }
    }
}

type Pool = managed::Pool<Manager>;

/// The pool and what is counted about it.
#[derive(Debug)]
pub(crate) struct Store {
    pool: Pool,
    wait: Duration,
    /// Checkouts that found no connection in time.
    pub(crate) timeouts: Counter,
}

/// How the pool is at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolState {
    pub(crate) size: usize,
    pub(crate) in_use: usize,
    pub(crate) waiting: usize,
}

impl Store {
    /// Brings the database to the current schema and builds the pool. Blocks for a short time,
    /// meant for the start.
    pub(crate) fn open(settings: &Settings) -> Result<Self, GraceError> {
        let database = &settings.database;
        let fail = |message: String| GraceError::Database {
            path: database.path.clone(),
            message,
        };
        if let Some(dir) = database.path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| fail(error.to_string()))?;
        }
        let busy_timeout = Duration::from_millis(database.busy_timeout_ms);
        open(&database.path, busy_timeout)
            .map_err(DbError::from)
            .and_then(|mut connection| {
                schema::migrate(&mut connection, settings.governance.history_rows)
            })
            .map_err(|error| match error {
                DbError::Locked => GraceError::DatabaseLocked {
                    path: database.path.clone(),
                },
                other => fail(other.to_string()),
            })?;
        let wait = settings.pool_timeout();
        let pool = Pool::builder(Manager {
            path: database.path.clone(),
            busy_timeout,
        })
        .max_size(database.pool_size)
        .queue_mode(QueueMode::Lifo)
        .wait_timeout(Some(wait))
        .create_timeout(Some(OPEN_LIMIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            pool,
            wait,
            timeouts: Counter::default(),
        })
    }

    /// Runs `query` on a connection of the pool, on a blocking thread. The connection goes back
    /// when the query ends, even when the caller has gone.
    pub(crate) async fn run<T, F>(&self, query: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => {
                self.timeouts.inc();
                DbError::PoolTimeout(self.wait)
            }
            PoolError::Backend(error) => error,
            other => DbError::Failed(other.to_string()),
        })?;
        tokio::task::spawn_blocking(move || query(&mut connection))
            .await
            .map_err(|error| DbError::Failed(error.to_string()))?
            .map_err(DbError::from)
    }

    /// How the pool is at the moment.
    pub(crate) fn state(&self) -> PoolState {
        let status = self.pool.status();
        PoolState {
            size: status.max_size,
            in_use: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }
}

fn open(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(busy_timeout)?;
    // Asked first, and only changed when needed: a change needs the lock.
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    }
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    Ok(connection)
}
