//! Attacks on the tables by SQL, on the schema, on the stored nodes, and on what stands for dropped payloads.

use evenkeel_ledger::{DropSelection, DroppedPayload, Hash};
use rusqlite::Connection;
use serde_json::Value;

use crate::contents::{Contents, PAYLOAD, Row, TIMESTAMP, behind_triggers};
use crate::entries::some_foreign;
use crate::{Class, First, Made};

/// Whether a record dropped a payload, or would have.
fn covers(record: &Row, sequence: i64, timestamp: &str, bytes: u64) -> bool {
    let says: Value = serde_json::from_str(&record.texts[PAYLOAD]).unwrap();
    let first = says["first_sequence"].as_i64().unwrap();
    let last = says["last_sequence"].as_i64().unwrap_or(i64::MAX);
    let before = says["before"].as_str();
    record.sequence > sequence
        && (first..=last).contains(&sequence)
        && bytes >= says["bytes_min"].as_u64().unwrap()
        && before.is_none_or(|before| timestamp < before)
}

/// The first of the records that covers a payload.
fn record_of(contents: &Contents, row: &Row, bytes: u64) -> Option<i64> {
    let records = contents.rows.iter().filter(|row| row.is_record());
    let mut covering = records.filter(|r| covers(r, row.sequence, &row.texts[TIMESTAMP], bytes));
    covering.next().map(|record| record.sequence)
}

/// The dropped payloads that have no record any more, when some rows are gone.
pub(crate) fn uncovered_without(contents: &Contents, gone: impl Fn(&Row) -> bool) -> Vec<i64> {
    let mut left = contents.clone();
    left.rows.retain(|row| !gone(row));
    let rows = left.rows.iter();
    rows.filter(|row| {
        row.dropped()
            .is_some_and(|d| record_of(&left, row, d.bytes).is_none())
    })
    .map(|row| row.sequence)
    .collect()
}

pub(crate) const REPLACE: Class = Class {
    name: "INSERT OR REPLACE",
    fits: |_| true,
    attack: |rng, world, path| {
        let contents = &world.contents;
        let bad = some_foreign(rng, contents, 1, contents.size());
        let size = *rng.pick(&contents.checkpoints.keys().copied().collect::<Vec<_>>());
        let log = format!(
            "INTO immutable_log SELECT sequence, timestamp, actor || 'x', action, resource, subsystem, payload, result,
              entry_hash, previous_hash FROM immutable_log WHERE sequence = {bad}"
        );
        let note = format!(
            "INTO ledger_checkpoint SELECT tree_size, note || 'x' FROM ledger_checkpoint WHERE tree_size = {size}"
        );
        let node = "INTO ledger_node SELECT level, position, zeroblob(32) FROM ledger_node WHERE position = 0";
        let verb = *rng.pick(&["INSERT OR REPLACE", "REPLACE"]);
        let (statement, first) = match rng.below(5) {
            0 if !contents.nodes.is_empty() => (format!("{verb} {node}"), 1),
            0 | 1 => (format!("{verb} {note}"), size),
            2 => (
                format!(
                    "UPDATE OR REPLACE immutable_log SET actor = actor || 'x' WHERE sequence = {bad}"
                ),
                bad,
            ),
            3 => (
                format!("INSERT {log} ON CONFLICT (sequence) DO UPDATE SET actor = excluded.actor"),
                bad,
            ),
            _ => (format!("{verb} {log}"), bad),
        };
        let conn = Connection::open(path).unwrap();
        let recursive = if rng.once_in(2) { "ON" } else { "OFF" };
        conn.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}"))
            .unwrap();
        let refused = conn.execute_batch(&statement).expect_err(&statement);
        assert_eq!(
            refused.sqlite_error_code(),
            Some(rusqlite::ErrorCode::ConstraintViolation),
            "{statement}: {refused}"
        );
        drop(conn);
        assert_eq!(
            Contents::read(path),
            *contents,
            "refused, and done all the same"
        );
        // It is the triggers that refuse it. Without them it is done, and found.
        behind_triggers(path, |conn| conn.execute_batch(&statement).unwrap());
        Made::told(First::At(first))
    },
};

pub(crate) const SCHEMA: Class = Class {
    name: "dropped triggers or changed schema",
    fits: |_| true,
    attack: |rng, _world, path| {
        let conn = Connection::open(path).unwrap();
        let mut objects = conn
            .prepare("SELECT type, name, sql FROM sqlite_schema WHERE type <> 'table' AND sql IS NOT NULL ORDER BY name")
            .unwrap();
        let objects: Vec<(String, String, String)> = objects
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let of_kind = |kind: &str| -> Vec<&(String, String, String)> {
            objects.iter().filter(|object| object.0 == kind).collect()
        };
        let triggers = of_kind("trigger");
        let (_, trigger, sql) = *rng.pick(&triggers);
        let (kind, any, _) = rng.pick(&objects).clone();
        let rewrite = |from: &str, to: &str| {
            format!(
                "PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'immutable_log';
                 PRAGMA writable_schema = RESET"
            )
        };
        let statement = match rng.below(12) {
            0 => format!("DROP TRIGGER {trigger}"),
            1 => objects.iter().filter(|o| o.0 == "trigger").fold(String::new(), |all, (_, name, _)| {
                all + &format!("DROP TRIGGER {name};")
            }),
            // One of the same name that lets everything pass.
            2 => format!(
                "DROP TRIGGER {trigger}; {}",
                sql.split("\nBEGIN").next().unwrap().split("\nWHEN").next().unwrap().to_owned()
                    + " WHEN 0 BEGIN SELECT 1; END"
            ),
            // The same but for a letter of its message.
            3 => format!("DROP TRIGGER {trigger}; {}", sql.replace("append-only", "append-onIy").replace("a chain", "a cha1n").replace("is about", "is ab0ut")),
            4 => format!("DROP {kind} {any}"),
            5 => "CREATE TRIGGER help AFTER INSERT ON immutable_log BEGIN DELETE FROM ledger_node; END".to_owned(),
            6 => "CREATE UNIQUE INDEX helpful ON immutable_log (entry_hash)".to_owned(),
            7 => "CREATE TABLE notes (x)".to_owned(),
            8 => "DROP VIEW playbook_runs; CREATE VIEW playbook_runs AS SELECT * FROM immutable_log WHERE result = 'success'".to_owned(),
            9 => rewrite("CHECK (json_valid(payload))", ""),
            10 => rewrite("length(actor) BETWEEN 1 AND 1024", "1"),
            _ => (*rng.pick(&[
                "PRAGMA application_id = 7",
                "PRAGMA user_version = 1",
                "PRAGMA user_version = 0",
                "PRAGMA user_version = 9",
            ])).to_owned(),
        };
        conn.execute_batch(&statement).expect(&statement);
        Made::told(First::Nowhere)
    },
};

pub(crate) const NODES: Class = Class {
    name: "node table changed",
    fits: |world| !world.contents.nodes.is_empty(),
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let count = i64::try_from(contents.nodes.len()).unwrap();
        let position = rng.within(0, count - 1);
        let first = match rng.below(4) {
            0 => {
                let at = rng.below(32);
                contents.nodes.get_mut(&(1, position)).unwrap()[at] ^= 1 << rng.below(8);
                position * 256 + 1
            }
            1 => {
                contents.nodes.remove(&(1, position));
                position * 256 + 1
            }
            2 => {
                contents
                    .nodes
                    .insert((1, count), rng.bytes::<32>().to_vec());
                contents.size() + 1
            }
            _ => {
                let level = rng.within(2, 7);
                contents
                    .nodes
                    .insert((level, 0), rng.bytes::<32>().to_vec());
                contents.size() + 1
            }
        };
        contents.write(&world.contents, path);
        Made::told(First::At(first))
    },
};

fn left_of(payload: &[u8], bytes: u64) -> String {
    format!(
        r#"{{"evenkeel_dropped_payload":{{"sha256":"{}","bytes":{bytes}}}}}"#,
        Hash::of(payload)
    )
}

pub(crate) const DROPPED: Class = Class {
    name: "payload dropped without a record, or falsely",
    fits: |world| !world.payloads.is_empty(),
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let there = loop {
            let there = some_foreign(rng, &contents, 1, contents.size());
            if contents.row(there).dropped().is_none() {
                break there;
            }
        };
        let (gone, payload) = rng.pick(&world.payloads).clone();
        let left: DroppedPayload = contents.row(gone).dropped().unwrap();
        let first = match rng.below(5) {
            // The true hash of a payload that is there, with its length or one that suits a record.
            0 => {
                let row = contents.row(there).clone();
                let text = &row.texts[PAYLOAD];
                let bytes = if rng.once_in(2) {
                    text.len() as u64
                } else {
                    u64::from(u32::MAX)
                };
                contents.row(there).texts[PAYLOAD] = left_of(text.as_bytes(), bytes);
                record_of(&world.contents, &row, bytes).unwrap_or(there)
            }
            // The hash of something else.
            1 => {
                contents.row(there).texts[PAYLOAD] =
                    left_of(&rng.bytes::<8>(), DropSelection::default().bytes_min);
                there
            }
            2 => {
                contents.row(gone).texts[PAYLOAD] = left_of(&rng.bytes::<8>(), left.bytes);
                gone
            }
            // Another length: the record says how many bytes there were together.
            3 => {
                let bytes = left.bytes - 1 - rng.next() % left.bytes;
                let row = contents.row(gone);
                row.texts[PAYLOAD] = left_of(payload.as_bytes(), bytes);
                let row = row.clone();
                record_of(&world.contents, &row, bytes).unwrap_or(gone)
            }
            // The payload again, though the record says that it is gone.
            _ => {
                let row = contents.row(gone).clone();
                contents.row(gone).texts[PAYLOAD].clone_from(&payload);
                record_of(&world.contents, &row, left.bytes).unwrap()
            }
        };
        contents.write(&world.contents, path);
        Made::told(First::At(first))
    },
};
