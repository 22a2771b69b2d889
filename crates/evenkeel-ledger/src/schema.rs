//! The schema of the file, its version, and whether a file has it. Statements here are part of the file format:
//! SQLite keeps their text, and `faults` compares it letter by letter. Changing one is a new [`VERSION`].

use rusqlite::Connection;

use crate::{Damage, DamageKind};

/// `PRAGMA application_id` of a ledger: the letters `EvkL`.
pub const APPLICATION_ID: i64 = 0x4576_6b4c;

/// `PRAGMA user_version`: the newest file format this program knows.
pub const VERSION: i64 = 1;

/// The value of `action` that makes an entry a row of `playbook_runs`.
pub const PLAYBOOK_RUN: &str = "complete_playbook_run";

/// One object of the schema.
#[derive(Debug)]
struct Object {
    kind: &'static str,
    name: &'static str,
    sql: &'static str,
}

/// `sequence` is the only unique column on purpose: with a second one, `INSERT OR REPLACE` of a correct next entry
/// that repeats an old value there would delete the old row, and no trigger would see it.
const OBJECTS: [Object; 9] = [
    Object {
        kind: "table",
        name: "immutable_log",
        sql: "CREATE TABLE immutable_log (
  sequence INTEGER PRIMARY KEY CHECK (sequence >= 1),
  timestamp TEXT NOT NULL CHECK (length(timestamp) = 24 AND timestamp GLOB '????-??-??T??:??:??.???Z'),
  actor TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 1024),
  action TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 1024),
  resource TEXT NOT NULL CHECK (length(resource) <= 1024),
  subsystem TEXT NOT NULL CHECK (length(subsystem) <= 1024),
  payload TEXT NOT NULL CHECK (json_valid(payload)),
  result TEXT NOT NULL CHECK (length(result) <= 1024),
  entry_hash TEXT NOT NULL CHECK (length(entry_hash) = 64 AND entry_hash NOT GLOB '*[^0-9a-f]*'),
  previous_hash TEXT NOT NULL CHECK (length(previous_hash) = 64 AND previous_hash NOT GLOB '*[^0-9a-f]*')
) STRICT",
    },
    Object {
        kind: "trigger",
        name: "immutable_log_no_update",
        sql: "CREATE TRIGGER immutable_log_no_update BEFORE UPDATE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be changed');
END",
    },
    Object {
        kind: "trigger",
        name: "immutable_log_no_delete",
        sql: "CREATE TRIGGER immutable_log_no_delete BEFORE DELETE ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: an entry cannot be deleted');
END",
    },
    Object {
        kind: "trigger",
        name: "immutable_log_next_only",
        sql: "CREATE TRIGGER immutable_log_next_only BEFORE INSERT ON immutable_log
BEGIN
  SELECT RAISE(ABORT, 'immutable_log is append-only: sequence must be the highest one plus 1')
   WHERE NEW.sequence IS NOT coalesce((SELECT max(sequence) FROM immutable_log), 0) + 1;
  SELECT RAISE(ABORT, 'immutable_log is a chain: previous_hash must be the entry_hash of the entry before')
   WHERE NEW.previous_hash IS NOT coalesce(
     (SELECT entry_hash FROM immutable_log ORDER BY sequence DESC LIMIT 1),
     '0000000000000000000000000000000000000000000000000000000000000000');
END",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_action",
        sql: "CREATE INDEX immutable_log_by_action ON immutable_log (action)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_subsystem",
        sql: "CREATE INDEX immutable_log_by_subsystem ON immutable_log (subsystem)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_timestamp",
        sql: "CREATE INDEX immutable_log_by_timestamp ON immutable_log (timestamp)",
    },
    Object {
        kind: "index",
        name: "immutable_log_by_workflow",
        sql: "CREATE INDEX immutable_log_by_workflow ON immutable_log (json_extract(payload, '$.workflow_id'))
 WHERE json_extract(payload, '$.workflow_id') IS NOT NULL",
    },
    Object {
        kind: "view",
        name: "playbook_runs",
        sql: "CREATE VIEW playbook_runs AS
SELECT sequence, timestamp,
       json_extract(payload, '$.run_id') AS run_id,
       json_extract(payload, '$.workflow_id') AS workflow_id,
       json_extract(payload, '$.playbook') AS playbook_id,
       json_extract(payload, '$.anomaly_type') AS anomaly_type,
       json_extract(payload, '$.attempt') AS attempt,
       json_extract(payload, '$.started_at') AS started_at,
       json_extract(payload, '$.finished_at') AS finished_at,
       json_extract(payload, '$.duration_ms') AS duration_ms,
       json_extract(payload, '$.steps') AS steps,
       json_extract(payload, '$.verified') AS verified,
       result
  FROM immutable_log
 WHERE action = 'complete_playbook_run'",
    },
];

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

/// Makes an empty database a ledger. To be called inside a transaction.
pub(crate) fn create(conn: &Connection) -> rusqlite::Result<()> {
    for object in &OBJECTS {
        conn.execute_batch(object.sql)?;
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)
}

/// What differs from the schema of this format version; empty when all is as it should be.
pub(crate) fn faults(conn: &Connection) -> rusqlite::Result<Vec<Damage>> {
    let mut statement = conn.prepare(
        // ANALYZE keeps its figures in tables of SQLite's own. Nothing else is let pass by its name.
        "SELECT type, name, sql FROM sqlite_schema
          WHERE NOT (type = 'table' AND name IN ('sqlite_stat1', 'sqlite_stat4')) ORDER BY name LIMIT 100",
    )?;
    let found: Vec<(String, String, Option<String>)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut faults = Vec::new();
    for object in &OBJECTS {
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
        if !OBJECTS
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
    fn each_object_is_missed_and_each_stranger_noticed() {
        for object in &OBJECTS[1..] {
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
