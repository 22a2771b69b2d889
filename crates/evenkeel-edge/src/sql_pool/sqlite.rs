//! Connections to a SQLite file, each used on a blocking thread.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, RecycleResult};
use rusqlite::{Connection, ErrorCode};

use super::{Asked, Fault, QueryLoad, QueryReport, run};
use crate::snapshot::sqlite::open_foreign;

/// Longest wait for a lock, even where a query may take longer.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most rows read of an answer: a test asks for an answer, not for a table.
const ROWS_MAX: usize = 1000;
/// Instructions of SQLite's machine between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 2_000;
/// Asked where no query is configured.
const QUERY_DEFAULT: &str = "SELECT count(*) FROM sqlite_master";

/// A SQLite file that is asked through a pool.
#[derive(Clone, Debug)]
pub struct SqlitePool {
    path: PathBuf,
    query: String,
}

/// An open connection and what it is asked.
#[derive(Debug)]
struct Seat {
    connection: Connection,
    query: String,
}

impl SqlitePool {
    /// Asks `query` of the file at `path`; without one, how many tables and indices there are.
    pub fn new(path: PathBuf, query: Option<String>) -> Self {
        Self {
            path,
            query: query.unwrap_or_else(|| QUERY_DEFAULT.to_owned()),
        }
    }

    /// Makes the queries. Needs a tokio runtime.
    pub async fn run(self, load: QueryLoad) -> QueryReport {
        run(Opener(self), load).await
    }
}

/// Opens connections for the pool.
struct Opener(SqlitePool);

impl Manager for Opener {
    type Type = Seat;
    type Error = Fault;

    async fn create(&self) -> Result<Seat, Fault> {
        let (path, query) = (self.0.path.clone(), self.0.query.clone());
        let opened = tokio::task::spawn_blocking(move || open_foreign(&path, false));
        let connection = opened.await.map_err(|e| lost(&e))?.map_err(|e| told(&e))?;
        Ok(Seat { connection, query })
    }

    async fn recycle(&self, _: &mut Seat, _: &Metrics) -> RecycleResult<Fault> {
        Ok(())
    }
}

impl Asked for Opener {
    async fn ask(mut connection: Object<Self>, limit: Duration) -> Result<(), Fault> {
        let asked = tokio::task::spawn_blocking(move || connection.ask(limit));
        asked.await.map_err(|e| lost(&e))?.map_err(|e| told(&e))
    }
}

impl Seat {
    fn ask(&mut self, limit: Duration) -> rusqlite::Result<()> {
        self.connection.busy_timeout(limit.min(LOCK_WAIT_MAX))?;
        let deadline = Instant::now() + limit;
        let is_late = move || Instant::now() >= deadline;
        self.connection
            .progress_handler(STEPS_BETWEEN_LOOKS, Some(is_late))?;
        let mut statement = self.connection.prepare_cached(&self.query)?;
        let mut rows = statement.query([])?;
        for _ in 0..ROWS_MAX {
            if rows.next()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

fn told(e: &rusqlite::Error) -> Fault {
    let kind = match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "locked",
        Some(ErrorCode::CannotOpen | ErrorCode::NotADatabase) => "open",
        Some(ErrorCode::OperationInterrupted) => "timeout",
        _ => "query",
    };
    Fault {
        kind,
        message: e.to_string(),
    }
}

fn lost(e: &tokio::task::JoinError) -> Fault {
    Fault {
        kind: "pool",
        message: e.to_string(),
    }
}
