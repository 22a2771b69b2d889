//! What the tests share: entries, a ledger in a directory of its own, a second connection that tampers.

use std::path::{Path, PathBuf};

use std::sync::Arc;

use evenkeel_ledger::tlog::{KeyName, Signer};
use evenkeel_ledger::{
    BATCH_ENTRIES_MAX, Ledger, NewEntry, Options, Report, VerifyOptions, verify, verify_with,
};
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

    /// A closed ledger of `n` entries after the one with its key, committed in groups of seven, each signed.
    pub(crate) fn signed(n: u64) -> Self {
        Self::signed_in_groups(n, 7)
    }

    /// As [`Self::signed`] in groups of another size.
    pub(crate) fn signed_in_groups(n: u64, group: usize) -> Self {
        let place = Self::new();
        let ledger = place.open_signed(1);
        let entries: Vec<NewEntry> = (1..=n).map(entry).collect();
        for batch in entries.chunks(group) {
            ledger.append_all_blocking(batch.to_vec()).unwrap();
        }
        ledger.close().unwrap();
        place
    }

    pub(crate) fn open(&self) -> Ledger {
        Ledger::open(&self.path).unwrap()
    }

    pub(crate) fn open_signed(&self, seed: u8) -> Ledger {
        Ledger::open_with(&self.path, &signing(seed)).unwrap()
    }

    pub(crate) fn verify_with(&self, options: &VerifyOptions) -> Report {
        verify_with(&self.path, options, |_, _| {}).unwrap()
    }

    /// A plain connection, as an administrator or an attacker has one.
    pub(crate) fn sql(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    pub(crate) fn verify(&self) -> Report {
        verify(&self.path, |_, _| {}).unwrap()
    }
}

/// The name of the log in these tests.
pub(crate) const ORIGIN: &str = "evenkeel/00112233445566778899aabbccddeeff";

/// The log's key, one for each seed.
pub(crate) fn signer(seed: u8) -> Arc<Signer> {
    Arc::new(Signer::from_seed(KeyName::new(ORIGIN).unwrap(), [seed; 32]))
}

/// Options with that key and a clock that stands still.
pub(crate) fn signing(seed: u8) -> Options {
    Options {
        signer: Some(signer(seed)),
        clock: || "2026-01-31T12:00:00Z".parse().unwrap(),
        ..Options::default()
    }
}

/// Changes a file behind the triggers' back and leaves the schema as it was.
pub(crate) fn tamper(path: &Path, change: impl FnOnce(&Connection)) {
    let guards = triggers(path);
    let conn = Connection::open(path).unwrap();
    drop_triggers(&conn);
    change(&conn);
    for guard in guards {
        conn.execute_batch(&guard).unwrap();
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
