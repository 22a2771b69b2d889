//! What the tests share: entries, a ledger in a directory of its own, a second connection that tampers.

use std::path::{Path, PathBuf};

use evenkeel_ledger::{BATCH_ENTRIES_MAX, Ledger, NewEntry, Report, verify};
use rusqlite::Connection;
use tempfile::TempDir;

/// A directory with the path of a ledger that does not exist yet.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evenkeel.db");
        Self { dir, path }
    }

    /// A closed ledger of `n` entries.
    pub(crate) fn with_entries(n: u64) -> Self {
        let place = Self::new();
        let ledger = place.open();
        let entries: Vec<NewEntry> = (1..=n).map(entry).collect();
        for batch in entries.chunks(BATCH_ENTRIES_MAX) {
            ledger.append_all_blocking(batch.to_vec()).unwrap();
        }
        ledger.close().unwrap();
        place
    }

    pub(crate) fn open(&self) -> Ledger {
        Ledger::open(&self.path).unwrap()
    }

    /// A plain connection, as an administrator or an attacker has one.
    pub(crate) fn sql(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    pub(crate) fn verify(&self) -> Report {
        verify(&self.path, |_, _| {}).unwrap()
    }
}

/// An entry that can be told from others by its number.
pub(crate) fn entry(n: u64) -> NewEntry {
    NewEntry {
        timestamp: timestamp(n),
        actor: "evenkeel".to_owned(),
        action: "check".to_owned(),
        resource: format!("service:{n}"),
        subsystem: "watchdog".to_owned(),
        payload: format!(r#"{{"n": {n},  "text":"é \u00e9"}}"#),
        result: "success".to_owned(),
    }
}

/// `n` seconds after noon.
pub(crate) fn timestamp(n: u64) -> String {
    format!(
        "2026-01-31T{:02}:{:02}:{:02}.000Z",
        12 + n / 3600,
        n / 60 % 60,
        n % 60
    )
}

/// All triggers gone, as after an attacker's first step.
pub(crate) fn drop_triggers(conn: &Connection) {
    let mut names = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap();
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for name in names {
        conn.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
}

/// The statements that make the triggers, as they lie in a file.
pub(crate) fn triggers(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}
