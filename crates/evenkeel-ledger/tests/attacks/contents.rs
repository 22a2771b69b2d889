//! All that a ledger's file says, as plain values: read with plain SQL, changed as somebody does who has the file, and
//! written back behind the triggers. Its own re-hashing and re-signing, so that what is expected of the verifier does not
//! come from the verifier.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use evenkeel_ledger::leaf::Leaf;
use evenkeel_ledger::merkle::Frontier;
use evenkeel_ledger::tlog::{Checkpoint, SignedNote, Signer};
use evenkeel_ledger::{DroppedPayload, Hash, own};
use rusqlite::{Connection, params};
use serde_json::json;

/// Places of the columns in [`Row::texts`].
pub(crate) const TIMESTAMP: usize = 0;
pub(crate) const ACTOR: usize = 1;
pub(crate) const ACTION: usize = 2;
pub(crate) const RESOURCE: usize = 3;
pub(crate) const SUBSYSTEM: usize = 4;
pub(crate) const PAYLOAD: usize = 5;
pub(crate) const RESULT: usize = 6;
pub(crate) const ENTRY_HASH: usize = 7;
pub(crate) const PREVIOUS_HASH: usize = 8;

const SELECT: &str = "SELECT sequence, timestamp, actor, action, resource, subsystem, payload, result, entry_hash, previous_hash FROM immutable_log NOT INDEXED ORDER BY sequence";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sequence: i64,
    pub(crate) texts: [String; 9],
}

impl Row {
    pub(crate) fn is_own(&self) -> bool {
        own::ACTIONS.contains(&self.texts[ACTION].as_str())
    }

    pub(crate) fn is_record(&self) -> bool {
        self.texts[ACTION] == own::DROP_PAYLOADS
    }

    pub(crate) fn dropped(&self) -> Option<DroppedPayload> {
        DroppedPayload::parse(self.texts[PAYLOAD].as_bytes())
    }

    /// The hash of what it holds.
    pub(crate) fn hash(&self) -> Hash {
        let text = |column: usize| self.texts[column].as_bytes();
        let dropped = self.dropped().map(|left| left.sha256);
        Leaf {
            previous_hash: Hash::from_hex(text(PREVIOUS_HASH)).unwrap(),
            sequence: u64::try_from(self.sequence).unwrap(),
            timestamp: text(TIMESTAMP),
            actor: text(ACTOR),
            action: text(ACTION),
            resource: text(RESOURCE),
            subsystem: text(SUBSYSTEM),
            result: text(RESULT),
            payload_hash: dropped.unwrap_or_else(|| Hash::of(text(PAYLOAD))),
        }
        .hash()
    }
}

/// The tables of a ledger, its schema and the marks in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) rows: Vec<Row>,
    pub(crate) checkpoints: BTreeMap<i64, String>,
    /// Size, name, line, received.
    pub(crate) cosignatures: Vec<(i64, String, String, String)>,
    pub(crate) nodes: BTreeMap<(i64, i64), Vec<u8>>,
    schema: BTreeSet<(String, String, String)>,
    marks: (i64, i64),
}

impl Contents {
    /// Reads whatever is there; a table that is not is empty.
    pub(crate) fn read(path: &Path) -> Self {
        let conn = Connection::open(path).unwrap();
        let mark = |name| {
            conn.pragma_query_value(None, name, |row| row.get(0))
                .unwrap()
        };
        Self {
            rows: all(&conn, SELECT, |row| {
                let mut texts: [String; 9] = Default::default();
                for (at, text) in texts.iter_mut().enumerate() {
                    *text = row.get(at + 1)?;
                }
                let sequence = row.get(0)?;
                Ok(Row { sequence, texts })
            }),
            checkpoints: all(
                &conn,
                "SELECT tree_size, note FROM ledger_checkpoint",
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .into_iter()
            .collect(),
            cosignatures: all(
                &conn,
                "SELECT tree_size, name, line, received FROM ledger_cosignature ORDER BY tree_size, line",
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            ),
            nodes: all(
                &conn,
                "SELECT level, position, hash FROM ledger_node",
                |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)),
            )
            .into_iter()
            .collect(),
            schema: all(
                &conn,
                "SELECT type, name, coalesce(sql, '') FROM sqlite_schema",
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .into_iter()
            .collect(),
            marks: (mark("application_id"), mark("user_version")),
        }
    }

    /// Writes the tables into the file that they were read from, where they differ from `before`. The triggers are there
    /// again afterwards.
    pub(crate) fn write(&self, before: &Self, path: &Path) {
        behind_triggers(path, |conn| {
            let same = self.rows.iter().zip(&before.rows);
            let same = same.take_while(|(now, then)| now == then).count();
            let last = before.rows[..same]
                .last()
                .map_or(i64::MIN, |row| row.sequence);
            conn.execute("DELETE FROM immutable_log WHERE sequence > ?1", [last])
                .unwrap();
            let mut insert = conn
                .prepare(
                    "INSERT INTO immutable_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )
                .unwrap();
            for Row { sequence, texts } in &self.rows[same..] {
                insert.raw_bind_parameter(1, sequence).unwrap();
                for (at, text) in texts.iter().enumerate() {
                    insert.raw_bind_parameter(at + 2, text).unwrap();
                }
                insert.raw_execute().unwrap();
            }
            conn.execute_batch("DELETE FROM ledger_checkpoint; DELETE FROM ledger_cosignature; DELETE FROM ledger_node")
                .unwrap();
            for (size, note) in &self.checkpoints {
                conn.execute(
                    "INSERT INTO ledger_checkpoint VALUES (?1, ?2)",
                    params![size, note],
                )
                .unwrap();
            }
            for (size, name, line, received) in &self.cosignatures {
                let values = params![size, name, line, received];
                conn.execute(
                    "INSERT INTO ledger_cosignature VALUES (?1, ?2, ?3, ?4)",
                    values,
                )
                .unwrap();
            }
            for ((level, position), hash) in &self.nodes {
                let values = params![level, position, hash];
                conn.execute("INSERT INTO ledger_node VALUES (?1, ?2, ?3)", values)
                    .unwrap();
            }
        });
    }

    pub(crate) fn size(&self) -> i64 {
        self.rows.last().map_or(0, |row| row.sequence)
    }

    pub(crate) fn row(&mut self, sequence: i64) -> &mut Row {
        self.rows
            .iter_mut()
            .find(|row| row.sequence == sequence)
            .unwrap()
    }

    /// The largest checkpoint of fewer than `sequence` entries.
    pub(crate) fn checkpoint_below(&self, sequence: i64) -> i64 {
        self.checkpoints
            .range(..sequence)
            .next_back()
            .map_or(0, |(size, _)| *size)
    }

    /// Numbers the rows anew, from 1.
    pub(crate) fn renumber(&mut self) {
        for (row, sequence) in self.rows.iter_mut().zip(1..) {
            row.sequence = sequence;
        }
    }

    /// Hashes and chains the rows anew from this sequence on, and the nodes of the tree with them.
    pub(crate) fn rehash(&mut self, from: i64) {
        self.rehash_with(from, &[]);
    }

    /// As [`Self::rehash`], with all keys of the log in hand: what both keys signed of a rotation is about its place, and
    /// is signed anew, and so are the checkpoints from there on.
    pub(crate) fn resign(&mut self, from: i64, keys: &[Arc<Signer>]) {
        let periods = self.rehash_with(from, keys);
        let mut tree = Frontier::new();
        for row in &self.rows {
            tree.push(row.hash());
            if row.sequence < from || !self.checkpoints.contains_key(&row.sequence) {
                continue;
            }
            let later = periods.partition_point(|start| *start <= row.sequence);
            let key = &keys[later - 1];
            let note = Checkpoint::new(key.name(), tree.len(), tree.root()).sign(key);
            self.checkpoints
                .insert(row.sequence, note.unwrap().to_string());
        }
    }

    /// Returns the entries that brought the keys.
    fn rehash_with(&mut self, from: i64, keys: &[Arc<Signer>]) -> Vec<i64> {
        let mut previous = Hash::ZERO.to_string();
        let mut periods = Vec::new();
        for row in &mut self.rows {
            let action = row.texts[ACTION].as_str();
            if action == own::TRUST_KEY || action == own::ROTATE_KEY {
                periods.push(row.sequence);
            }
            if row.sequence >= from {
                if action == own::ROTATE_KEY && !keys.is_empty() {
                    let (old, new) = (&keys[periods.len() - 2], &keys[periods.len() - 1]);
                    row.texts[PAYLOAD] = rotation(old, new, row.sequence, &previous);
                }
                row.texts[PREVIOUS_HASH].clone_from(&previous);
                row.texts[ENTRY_HASH] = row.hash().to_string();
            }
            previous.clone_from(&row.texts[ENTRY_HASH]);
        }
        self.rebuild_nodes();
        periods
    }

    /// Makes the nodes of the tree those of the rows.
    pub(crate) fn rebuild_nodes(&mut self) {
        assert!(self.rows.len() < 65_536, "one level is enough here");
        self.nodes = self
            .rows
            .chunks_exact(256)
            .enumerate()
            .map(|(position, rows)| {
                let mut tree = Frontier::new();
                for row in rows {
                    tree.push(row.hash());
                }
                let position = i64::try_from(position).unwrap();
                ((1, position), tree.root().as_bytes().to_vec())
            })
            .collect();
    }
}

/// The payload of a rotation at this place of the log.
pub(crate) fn rotation(old: &Signer, new: &Signer, sequence: i64, previous: &str) -> String {
    let (name, from, to) = (old.name(), old.verifier(), new.verifier());
    let text =
        format!("evenkeel-ledger-key-rotation-v1\n{name}\n{from}\n{to}\n{sequence}\n{previous}\n");
    let lines = vec![old.sign(&text), new.sign(&text)];
    let note = SignedNote::new(text, lines).unwrap().to_string();
    json!({"origin": name, "old_key": from.to_string(), "new_key": to.to_string(), "note": note})
        .to_string()
}

/// Changes a file with its triggers gone, and puts them back.
pub(crate) fn behind_triggers(path: &Path, change: impl FnOnce(&Connection)) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON; BEGIN IMMEDIATE",
    )
    .unwrap();
    let triggers: Vec<(String, String)> = all(
        &conn,
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'",
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    for (name, _) in &triggers {
        conn.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    change(&conn);
    for (_, sql) in &triggers {
        conn.execute_batch(sql).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

fn all<T>(
    conn: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let Ok(mut select) = conn.prepare(sql) else {
        return Vec::new();
    };
    let rows = select.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}
