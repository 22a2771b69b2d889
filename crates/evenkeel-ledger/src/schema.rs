//! The schema of the file, its version, and whether a file has it. The statements are part of the file format:
//! SQLite keeps their text, and `faults` compares it letter by letter. Changing one is a new [`VERSION`].

mod objects;

use rusqlite::Connection;

use crate::{Damage, DamageKind};

/// `PRAGMA application_id` of a ledger: the letters `EvkL`.
pub const APPLICATION_ID: i64 = 0x4576_6b4c;

/// `PRAGMA user_version`: the newest file format this program knows.
///
/// Version 1 had the log alone. It is read and verified as it is, and becomes version 2 when it is opened for writing.
pub const VERSION: i64 = 2;

/// The value of `action` that makes an entry a row of `playbook_runs`.
pub const PLAYBOOK_RUN: &str = "complete_playbook_run";

/// What a database file is, as far as its header and its schema say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Nothing in it at all, no application claims it.
    Empty,
    /// A ledger of this format version.
    Ledger(i64),
    /// Somebody else's database.
    Foreign,
}

pub(crate) fn file_kind(conn: &Connection) -> rusqlite::Result<FileKind> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version, objects) {
        (APPLICATION_ID, version, _) => FileKind::Ledger(version),
        (0, 0, 0) => FileKind::Empty,
        _ => FileKind::Foreign,
    })
}

/// Whether there is a table of the log's name.
pub(crate) fn has_log(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'immutable_log'";
    conn.query_row(sql, [], |row| row.get::<_, i64>(0))
        .map(|tables| tables > 0)
}

/// The format version that the header tells, whoever's file it is.
pub(crate) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes an empty database a ledger. To be called inside a transaction.
pub(crate) fn create(conn: &Connection) -> rusqlite::Result<()> {
    create_version(conn, VERSION)
}

fn create_version(conn: &Connection, version: i64) -> rusqlite::Result<()> {
    for object in objects::of(version) {
        conn.execute_batch(object.sql)?;
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", version)
}

/// Makes a faultless ledger of version 1 one of version 2, all but the rows of `ledger_node`. To be called inside a
/// transaction.
pub(crate) fn upgrade_from_1(conn: &Connection) -> rusqlite::Result<()> {
    for sql in objects::upgrade_from_1() {
        conn.execute_batch(sql)?;
    }
    conn.pragma_update(None, "user_version", VERSION)
}

/// What differs from the schema of the format version in the file's header; empty when all is as it should be. A
/// version that never was is measured by the newest one.
pub(crate) fn faults(conn: &Connection) -> rusqlite::Result<Vec<Damage>> {
    let objects = objects::of(version(conn)?);
    let mut statement = conn.prepare(
        // ANALYZE keeps its figures in tables of SQLite's own. Nothing else is let pass by its name.
        "SELECT type, name, sql FROM sqlite_schema
          WHERE NOT (type = 'table' AND name IN ('sqlite_stat1', 'sqlite_stat4')) ORDER BY name LIMIT 100",
    )?;
    let found: Vec<(String, String, Option<String>)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut faults = Vec::new();
    for object in &objects {
        let same_name = found
            .iter()
            .find(|(kind, name, _)| kind == object.kind && name == object.name);
        let kind = match same_name {
            Some((_, _, Some(sql))) if sql == object.sql => continue,
            Some(_) => DamageKind::ChangedSchema {
                object: format!("the {} {} has another definition", object.kind, object.name),
            },
            None if object.kind == "trigger" => DamageKind::MissingTrigger {
                name: object.name.to_owned(),
            },
            None => DamageKind::ChangedSchema {
                object: format!("the {} {} is missing", object.kind, object.name),
            },
        };
        faults.push(Damage {
            sequence: None,
            kind,
        });
    }
    for (kind, name, _) in &found {
        if !objects
            .iter()
            .any(|object| object.kind == kind && object.name == name)
        {
            let object = format!("the {kind} {name} does not belong to a ledger");
            faults.push(Damage {
                sequence: None,
                kind: DamageKind::ChangedSchema { object },
            });
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        create(&conn).unwrap();
        conn
    }

    #[test]
    fn a_fresh_schema_has_no_faults() {
        let conn = fresh();
        assert_eq!(faults(&conn).unwrap(), []);
        assert_eq!(file_kind(&conn).unwrap(), FileKind::Ledger(VERSION));
        conn.execute_batch("ANALYZE").unwrap();
        assert_eq!(faults(&conn).unwrap(), []);
    }

    #[test]
    fn an_upgraded_schema_is_that_of_a_fresh_ledger() {
        let conn = Connection::open_in_memory().unwrap();
        create_version(&conn, 1).unwrap();
        assert_eq!(faults(&conn).unwrap(), []);
        upgrade_from_1(&conn).unwrap();
        assert_eq!(faults(&conn).unwrap(), []);
        assert_eq!(version(&conn).unwrap(), VERSION);
        // The header says 1, the tables are those of 2: neither.
        conn.pragma_update(None, "user_version", 1).unwrap();
        assert_ne!(faults(&conn).unwrap(), []);
    }

    #[test]
    fn each_object_is_missed_and_each_stranger_noticed() {
        let droppable = objects::of(VERSION).into_iter();
        for object in droppable.filter(|object| object.kind != "table") {
            let conn = fresh();
            conn.execute_batch(&format!("DROP {} {}", object.kind, object.name))
                .unwrap();
            let found = faults(&conn).unwrap();
            assert_eq!(found.len(), 1, "{}", object.name);
            assert!(found[0].to_string().contains(object.name));
            assert_eq!(
                matches!(found[0].kind, DamageKind::MissingTrigger { .. }),
                object.kind == "trigger"
            );
        }
        for stranger in [
            "CREATE TABLE t (x)",
            "CREATE VIEW v AS SELECT 1",
            "CREATE INDEX i ON immutable_log (result)",
            "CREATE TRIGGER t AFTER INSERT ON immutable_log BEGIN SELECT 1; END",
        ] {
            let conn = fresh();
            conn.execute_batch(stranger).unwrap();
            assert_eq!(faults(&conn).unwrap().len(), 1, "{stranger}");
        }
    }

    #[test]
    fn a_weaker_trigger_of_the_same_name_is_noticed() {
        let conn = fresh();
        conn.execute_batch(
            "DROP TRIGGER immutable_log_no_update;
             CREATE TRIGGER immutable_log_no_update BEFORE UPDATE ON immutable_log WHEN 0
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
        assert!(matches!(
            &faults(&conn).unwrap()[..],
            [Damage {
                kind: DamageKind::ChangedSchema { .. },
                ..
            }]
        ));
    }
}
