//! SQLite files: consistent copies of live databases, checks, digests, and the way back into a live one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use sha2::{Digest, Sha256};

/// Time between two tries at a locked database.
const RETRY: Duration = Duration::from_millis(20);

/// What went wrong with a database.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// Not there.
    #[error("there is no such database")]
    Missing,
    /// Locked for the whole time.
    #[error("locked by another process for {waited_ms} ms")]
    Locked {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The integrity check found something.
    #[error("the integrity check failed: {found}")]
    Integrity {
        /// Its first finding.
        found: String,
    },
    /// SQLite's own words.
    #[error("{0}")]
    Other(#[from] rusqlite::Error),
}

impl SqliteError {
    /// Whether the file is no database any more, so that nothing can be written into it.
    pub(super) fn is_beyond_writing(&self) -> bool {
        matches!(self, Self::Other(e) if matches!(
            e.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::ReadOnly)
        ))
    }
}

fn locked(e: &rusqlite::Error) -> bool {
    matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Opens somebody else's database so that closing it leaves its WAL alone.
pub(crate) fn open_foreign(path: &Path, write: bool) -> rusqlite::Result<Connection> {
    let mode = if write {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Of this connection only; nothing of it stays in the file.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.busy_timeout(Duration::ZERO)?;
    Ok(conn)
}

/// Opens a copy that nobody writes to, without making files beside it.
pub(super) fn open_copy(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    let text = path.to_string_lossy().replace('\\', "/");
    if !text.starts_with('/') {
        uri.push('/');
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-:~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.extend([format!("%{byte:02X}")]);
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(
        uri,
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Whether only an opener with write access can make this database readable: it was left in the middle of a
/// transaction, which the first opener rolls back, whoever that is.
fn needs_recovery(e: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(code, _) = e else {
        return false;
    };
    [
        ffi::SQLITE_READONLY_ROLLBACK,
        ffi::SQLITE_READONLY_RECOVERY,
        ffi::SQLITE_READONLY_CANTINIT,
        ffi::SQLITE_CANTOPEN,
    ]
    .contains(&code.extended_code)
}

/// Copies a live database in one step, so that a busy writer cannot make it start over for ever.
///
/// `copy` must not exist. A locked database is waited for until `busy` is over.
pub(super) fn copy(live: &Path, copy: &Path, busy: Duration) -> Result<(), SqliteError> {
    if !live.is_file() {
        return Err(SqliteError::Missing);
    }
    make_private(copy).map_err(|e| {
        SqliteError::Other(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_CANTOPEN),
            Some(format!("{}: {e}", copy.display())),
        ))
    })?;
    let begun = Instant::now();
    let mut write = false;
    loop {
        match copy_once(live, copy, write) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) if needs_recovery(&e) && !write => {
                write = true;
                continue;
            }
            Err(e) if locked(&e) => {}
            Err(e) => return Err(e.into()),
        }
        wait(begun, busy)?;
    }
}

fn copy_once(live: &Path, copy: &Path, write: bool) -> rusqlite::Result<bool> {
    let source = open_foreign(live, write)?;
    let mut target = Connection::open_with_flags(
        copy,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // The copy is synced as a file when it is whole.
    target.pragma_update(None, "synchronous", "OFF")?;
    target.pragma_update(None, "journal_mode", "MEMORY")?;
    let done = Backup::new(&source, &mut target)?.step(-1)? == StepResult::Done;
    Ok(done)
}

fn wait(begun: Instant, busy: Duration) -> Result<(), SqliteError> {
    if begun.elapsed() >= busy {
        return Err(SqliteError::Locked {
            waited_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
    thread::sleep(RETRY.min(busy));
    Ok(())
}

/// Puts a copy into a live database, in one transaction of that database: it is the old one or the new one, whenever
/// the power goes.
pub(super) fn copy_into(from: &Path, live: &Path, busy: Duration) -> Result<(), SqliteError> {
    let source = open_copy(from)?;
    let begun = Instant::now();
    loop {
        let mut target = open_foreign(live, true)?;
        target.pragma_update(None, "synchronous", "FULL")?;
        let step = Backup::new(&source, &mut target).and_then(|b| b.step(-1));
        match step {
            Ok(StepResult::Done) => return Ok(()),
            Ok(_) => {}
            Err(e) if locked(&e) => {}
            Err(e) => return Err(e.into()),
        }
        wait(begun, busy)?;
    }
}

/// Passes when SQLite finds nothing wrong in a copy: the full check up to `full_up_to` bytes, else the quick one.
pub(super) fn check(copy: &Path, full_up_to: u64) -> Result<(), SqliteError> {
    let size = fs::metadata(copy).map_or(0, |m| m.len());
    check_connection(&open_copy(copy)?, size, full_up_to)
}

/// The same for the live database.
pub(super) fn check_live(live: &Path, full_up_to: u64) -> Result<(), SqliteError> {
    let size = fs::metadata(live).map_or(0, |m| m.len());
    check_connection(&open_foreign(live, false)?, size, full_up_to)
}

fn check_connection(conn: &Connection, size: u64, full_up_to: u64) -> Result<(), SqliteError> {
    let pragma = if size > full_up_to {
        "PRAGMA quick_check(1)"
    } else {
        "PRAGMA integrity_check(1)"
    };
    let found: String = conn.query_row(pragma, [], |row| row.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(SqliteError::Integrity {
            found: found.chars().take(200).collect(),
        })
    }
}

/// SHA-256 over what a database says, however its pages lie: its schema in order of type and name, then each table's
/// rows in the table's own order.
pub(super) fn digest(conn: &Connection) -> Result<String, SqliteError> {
    let mut hash = Sha256::new();
    let mut tables = Vec::new();
    let mut schema = conn.prepare(
        "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema ORDER BY type, name",
    )?;
    let mut rows = schema.query([])?;
    while let Some(row) = rows.next()? {
        for i in 0..4 {
            add(&mut hash, row.get_ref(i)?);
        }
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        // Virtual tables keep their rows in tables of their own, which are here too.
        if kind == "table" && row.get::<_, Option<i64>>(4)?.unwrap_or(0) > 0 {
            tables.push(name);
        }
    }
    for table in tables {
        add(&mut hash, ValueRef::Text(table.as_bytes()));
        let quoted = table.replace('"', "\"\"");
        let mut info = conn.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?;
        let columns = info
            .query_map([&table], |r| r.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?
            .iter()
            .map(|c| format!("\"{}\"", c.replace('"', "\"\"")))
            .collect::<Vec<_>>()
            .join(", ");
        let mut all = conn.prepare(&format!("SELECT {columns} FROM \"{quoted}\" NOT INDEXED"))?;
        let width = all.column_count();
        let mut rows = all.query([])?;
        let mut count = 0u64;
        while let Some(row) = rows.next()? {
            count += 1;
            for i in 0..width {
                add(&mut hash, row.get_ref(i)?);
            }
        }
        hash.update(count.to_be_bytes());
    }
    Ok(hex::encode(hash.finalize()))
}

/// A value with its type and length in front, so that no two rows read alike.
fn add(hash: &mut Sha256, value: ValueRef<'_>) {
    let (tag, bytes): (u8, Vec<u8>) = match value {
        ValueRef::Null => (0, Vec::new()),
        ValueRef::Integer(i) => (1, i.to_be_bytes().to_vec()),
        ValueRef::Real(x) => (2, x.to_bits().to_be_bytes().to_vec()),
        ValueRef::Text(t) => (3, t.to_vec()),
        ValueRef::Blob(b) => (4, b.to_vec()),
    };
    hash.update([tag]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// The files that belong to a database beside itself.
pub(super) fn companions(db: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|ending| {
        let mut name = db.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

/// A new, empty file that only its owner may read.
pub(super) fn make_private(path: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
