//! Reading the ledger as any program would: SQLite, read only.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// An entry.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) sequence: i64,
    pub(crate) timestamp: String,
    pub(crate) action: String,
    pub(crate) subsystem: String,
    pub(crate) result: String,
    pub(crate) payload: Value,
}

impl Row {
    /// A text of the payload; empty when it is not there.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.payload[key].as_str().unwrap_or_default()
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

fn read(file: &Path, condition: &str) -> rusqlite::Result<Vec<Row>> {
    let connection = open(file)?;
    let mut statement = connection.prepare(&format!(
        "SELECT sequence, timestamp, action, subsystem, result, payload FROM immutable_log
         WHERE {condition} ORDER BY sequence"
    ))?;
    let rows = statement.query_map([], |row| {
        let payload: String = row.get(5)?;
        Ok(Row {
            sequence: row.get(0)?,
            timestamp: row.get(1)?,
            action: row.get(2)?,
            subsystem: row.get(3)?,
            result: row.get(4)?,
            payload: serde_json::from_str(&payload).unwrap(),
        })
    })?;
    rows.collect()
}

/// The entries for which `condition` holds, in order.
pub(crate) fn rows(file: &Path, condition: &str) -> Vec<Row> {
    read(file, condition).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The entries of healing cycles, in order; none while the ledger is not there yet.
pub(crate) fn rows_of_cycles(file: &Path) -> Vec<Row> {
    if !file.exists() {
        return Vec::new();
    }
    read(file, "subsystem = 'orchestrator'").unwrap_or_default()
}

/// One number.
pub(crate) fn scalar(file: &Path, query: &str) -> i64 {
    open(file)
        .and_then(|c| c.query_row(query, [], |row| row.get(0)))
        .unwrap_or_else(|e| panic!("{query} on {}: {e}", file.display()))
}
