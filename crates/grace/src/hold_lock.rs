//! Another program that opens the database and forgets to commit, as a nightly report job might:
//! it takes the write lock, writes, and keeps the transaction open until it is ended or its time
//! is up. It gives the lock back by a rollback.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::GraceError;
use crate::process::{Shutdown, say};

/// Longest wait for the lock at the start.
const LOCK_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn run(
    path: &Path,
    seconds: u64,
    exclusive: bool,
    mut shutdown: Shutdown,
) -> Result<(), GraceError> {
    let connection = take(path, exclusive).map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy) => GraceError::DatabaseLocked {
            path: path.to_owned(),
        },
        _ => GraceError::Database {
            path: path.to_owned(),
            message: error.to_string(),
        },
    })?;
    say(&format!(
        "grace hold-lock: pid {} holds the write lock of {} for at most {seconds} s",
        std::process::id(),
        path.display()
    ));
    // Whichever comes first; the time limit is the bound.
    let _ = tokio::time::timeout(Duration::from_secs(seconds), shutdown.wait()).await;
    // Closing the connection rolls the open transaction back.
    drop(connection);
    Ok(())
}

fn take(path: &Path, exclusive: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.execute_batch(if exclusive {
        "BEGIN EXCLUSIVE"
    } else {
        "BEGIN IMMEDIATE"
    })?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS nightly_reports (at TEXT NOT NULL, decisions INTEGER NOT NULL);
         INSERT INTO nightly_reports SELECT strftime('%Y-%m-%dT%H:%M:%fZ'), count(*) FROM decisions;",
    )?;
    Ok(connection)
}
