//! Opening the file: for the writer, and for readers that may have no right to write. Sets every pragma that
//! matters here. Touches nothing of a file that is not a ledger.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::ledger::Options;
use crate::schema::{self, FileKind};
use crate::{LedgerError, files};

/// How long a reader waits for a lock. Readers wait only while a crashed writer's log is being recovered.
const READER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this size when it starts anew.
const WAL_BYTES_KEPT: i64 = 16 << 20;

const OPENING: &str = "opening it";

/// Opens or creates a ledger for its writer.
pub(crate) fn writer(path: &Path, options: &Options) -> Result<Connection, LedgerError> {
    let fail = |error: rusqlite::Error| open_error(path, &error);
    check_parent(path)?;
    let created = files::create_private(path)
        .map_err(|error| LedgerError::io(path, "creating it", &error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    conn.busy_timeout(options.busy_timeout).map_err(fail)?;
    let kind = schema::file_kind(&conn).map_err(fail)?;
    if kind != FileKind::Empty {
        accept(path, kind)?;
    }
    configure(&conn).map_err(fail)?;
    set_size_limit(&conn, options.size_bytes_max).map_err(fail)?;
    if kind == FileKind::Empty {
        let transaction = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        // Another process may have been faster.
        if schema::file_kind(&transaction).map_err(fail)? == FileKind::Empty {
            schema::create(&transaction).map_err(fail)?;
        }
        transaction.commit().map_err(fail)?;
        tracing::info!(path = %path.display(), created, "ledger created");
    }
    Ok(conn)
}

pub(crate) fn configure(conn: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let message =
            format!("write-ahead logging is not possible here, SQLite stays in mode {mode}");
        return Err(rusqlite::Error::SqliteFailure(code, Some(message)));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    // macOS: fsync alone leaves data in the drive's cache. No effect elsewhere.
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    // The writer runs checkpoints itself: SQLite's automatic one swallows its errors.
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    // Bytes of pages that are given up are overwritten, so that a dropped payload leaves no copies behind.
    conn.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    // With these, REPLACE fires delete triggers and the schema cannot be edited through this connection.
    conn.pragma_update(None, "recursive_triggers", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(())
}

fn set_size_limit(conn: &Connection, limit: Option<u64>) -> rusqlite::Result<()> {
    let Some(bytes) = limit else { return Ok(()) };
    let page_size: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    conn.pragma_update_and_check(None, "max_page_count", (bytes / page_size).max(1), |_| {
        Ok(())
    })
}

/// Opens a ledger for reading, live or a copy. Where the files that SQLite needs beside a database in WAL mode
/// cannot be made, it is read as immutable, but only if no write-ahead log lies beside it.
pub(crate) fn reader(path: &Path) -> Result<Connection, LedgerError> {
    let conn = reader_of_any(path)?;
    accept(
        path,
        schema::file_kind(&conn).map_err(|error| open_error(path, &error))?,
    )?;
    Ok(conn)
}

/// As [`reader`], without asking whether it is a ledger. A file that is no database at all is
/// [`LedgerError::NotALedger`].
pub(crate) fn reader_of_any(path: &Path) -> Result<Connection, LedgerError> {
    if !path.is_file() {
        let detail = "there is no such file; check the path".to_owned();
        return Err(LedgerError::Open {
            path: path.to_owned(),
            detail,
        });
    }
    match try_reader(path, "mode=ro") {
        Err(error) if wants_to_write(&error) => {
            if files::has_wal(path) {
                let detail = "its -wal file holds entries, and reading them needs the right to write to its \
                              directory; copy the file together with its -wal to a writable directory and \
                              read the copy"
                    .to_owned();
                return Err(LedgerError::Open {
                    path: path.to_owned(),
                    detail,
                });
            }
            try_reader(path, "mode=ro&immutable=1").map_err(|error| open_error(path, &error))
        }
        other => other.map_err(|error| open_error(path, &error)),
    }
}

fn try_reader(path: &Path, query: &str) -> rusqlite::Result<Connection> {
    let uri = files::uri(path, query).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri, flags)?;
    conn.busy_timeout(READER_BUSY_TIMEOUT)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "query_only", true)?;
    // The first read is what opens the write-ahead log.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

fn wants_to_write(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

pub(crate) fn accept(path: &Path, kind: FileKind) -> Result<(), LedgerError> {
    let path = path.to_owned();
    match kind {
        FileKind::Ledger(1..=schema::VERSION) => Ok(()),
        FileKind::Ledger(found) if found > schema::VERSION => Err(LedgerError::NewerVersion {
            path,
            found,
            supported: schema::VERSION,
        }),
        FileKind::Ledger(found) => {
            let detail = format!("its format version is {found}, which never was");
            Err(LedgerError::NotALedger { path, detail })
        }
        FileKind::Empty => Err(LedgerError::NotALedger {
            path,
            detail: "it is an empty database".to_owned(),
        }),
        FileKind::Foreign => Err(LedgerError::NotALedger {
            path,
            detail: "it is the database of another program".to_owned(),
        }),
    }
}

pub(crate) fn open_error(path: &Path, error: &rusqlite::Error) -> LedgerError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        let detail = "it is not a SQLite database, or its first page is damaged".to_owned();
        return LedgerError::NotALedger {
            path: path.to_owned(),
            detail,
        };
    }
    LedgerError::sqlite(path, OPENING, error)
}

fn check_parent(path: &Path) -> Result<(), LedgerError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let detail = if path.is_dir() {
        "it is a directory; name a file in it".to_owned()
    } else if parent.is_dir() {
        return Ok(());
    } else {
        format!(
            "there is no directory {}; create it first",
            parent.display()
        )
    };
    Err(LedgerError::Open {
        path: path.to_owned(),
        detail,
    })
}
