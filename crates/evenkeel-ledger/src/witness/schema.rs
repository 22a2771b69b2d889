//! The schema of a witness's file, its version, and whether a file has it. Numbers of entries are 64 bits without
//! sign, which SQLite's integers are not: they stand there as decimals.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;
use super::error::RowError;

/// `PRAGMA application_id` of a witness's store: the letters `EvkW`.
pub const APPLICATION_ID: i64 = 0x4576_6b57;

/// `PRAGMA user_version`: the newest format that this program knows.
pub const VERSION: i64 = 1;

/// Name and text of each object. SQLite keeps the text, and [`check`] compares it letter by letter.
const OBJECTS: [(&str, &str); 6] = [
    (
        "fork_evidence",
        "CREATE TABLE fork_evidence (
  id INTEGER PRIMARY KEY CHECK (id >= 1),
  origin TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('other_root', 'bad_proof')),
  text_hash TEXT NOT NULL CHECK (length(text_hash) = 64),
  seen_unix INTEGER NOT NULL CHECK (seen_unix >= 0),
  request TEXT NOT NULL,
  known TEXT
) STRICT",
    ),
    (
        "fork_evidence_by_text",
        "CREATE INDEX fork_evidence_by_text ON fork_evidence (origin, kind, text_hash)",
    ),
    (
        "fork_evidence_no_delete",
        "CREATE TRIGGER fork_evidence_no_delete BEFORE DELETE ON fork_evidence
BEGIN
  SELECT RAISE(ABORT, 'fork_evidence is append-only: it cannot be deleted');
END",
    ),
    (
        "fork_evidence_no_update",
        "CREATE TRIGGER fork_evidence_no_update BEFORE UPDATE ON fork_evidence
BEGIN
  SELECT RAISE(ABORT, 'fork_evidence is append-only: it cannot be changed');
END",
    ),
    (
        "latest",
        "CREATE TABLE latest (
  origin TEXT NOT NULL PRIMARY KEY,
  size TEXT NOT NULL CHECK (size <> '' AND size NOT GLOB '*[^0-9]*'),
  root TEXT NOT NULL CHECK (length(root) = 64 AND root NOT GLOB '*[^0-9a-f]*'),
  note TEXT NOT NULL,
  cosignature TEXT NOT NULL,
  cosigned_unix INTEGER NOT NULL CHECK (cosigned_unix >= 0)
) STRICT",
    ),
    (
        "logs",
        "CREATE TABLE logs (
  origin TEXT NOT NULL,
  vkey TEXT NOT NULL,
  added_unix INTEGER NOT NULL CHECK (added_unix >= 0),
  PRIMARY KEY (origin, vkey)
) STRICT",
    ),
];

/// Whether the database is empty; an error where it is not empty and not a store of a known version.
pub(super) fn is_empty(conn: &Connection, path: &Path) -> Result<bool, RowError> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let path = path.to_owned();
    match (application, version, objects) {
        (0, 0, 0) => Ok(true),
        (APPLICATION_ID, VERSION, _) => Ok(false),
        (APPLICATION_ID, found, _) if found > VERSION => {
            Err(RowError::Refused(StoreError::NewerVersion {
                path,
                found,
                supported: VERSION,
            }))
        }
        _ => Err(RowError::Refused(StoreError::NotAStore {
            path,
            detail: "it is the database of another program".to_owned(),
        })),
    }
}

/// Makes an empty database a store. To be called inside a transaction.
pub(super) fn create(conn: &Connection) -> rusqlite::Result<()> {
    for (_, sql) in OBJECTS {
        conn.execute_batch(sql)?;
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)
}

/// That the database is sound as one, and has this schema and nothing else.
pub(super) fn check(conn: &Connection) -> Result<(), RowError> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(RowError::Stored(format!(
            "the database is damaged: {verdict}"
        )));
    }
    let mut statement = conn.prepare(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name LIMIT 100",
    )?;
    let found: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, sql) in &found {
        if !OBJECTS.contains(&(name.as_str(), sql.as_str())) {
            return Err(RowError::Stored(format!(
                "{name} is not part of its schema, or has another definition"
            )));
        }
    }
    match OBJECTS
        .iter()
        .find(|(name, _)| !found.iter().any(|(have, _)| have == name))
    {
        Some((name, _)) => Err(RowError::Stored(format!("{name} is missing"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_missed_and_a_stranger_noticed() {
        let fresh = || {
            let conn = Connection::open_in_memory().unwrap();
            create(&conn).unwrap();
            conn
        };
        check(&fresh()).unwrap();
        for (name, sql) in OBJECTS {
            let conn = fresh();
            let kind = sql.split(' ').nth(1).unwrap();
            conn.execute_batch(&format!("DROP {kind} {name}")).unwrap();
            assert!(check(&conn).is_err(), "{name}");
        }
        let conn = fresh();
        conn.execute_batch("CREATE TRIGGER t AFTER INSERT ON latest BEGIN SELECT 1; END")
            .unwrap();
        assert!(matches!(check(&conn), Err(RowError::Stored(_))));
    }
}
