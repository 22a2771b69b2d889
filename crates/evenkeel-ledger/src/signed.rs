//! Reading what is signed: checkpoints, cosignatures, and what the log's own entries say about keys and signing. The
//! one place that decides whether a checkpoint's form and signature hold; whether its root does, the tree tells.

use std::collections::BTreeSet;
use std::slice;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};

use crate::check::{to_i64, to_u64};
use crate::tlog::{Checkpoint, NoteError, SignedNote};
use crate::{Damage, DamageKind, Hash, KeyHistory, keys, own};

/// Most cosignatures that are kept for one checkpoint: with the log's own, as many as a note may have.
pub const COSIGNATURES_MAX: usize = crate::tlog::note::SIGNATURES_MAX - 1;

/// A checkpoint that the log signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// How many entries it is about.
    pub tree_size: u64,
    /// The root of their Merkle tree.
    pub root: Hash,
    /// The note: what to hand to others.
    pub note: SignedNote,
}

/// What the log's own entries say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) keys: KeyHistory,
    /// Whether somebody stopped signing, and nobody resumed it.
    pub(crate) stopped: bool,
    /// The entries from which on nothing was signed.
    pub(crate) stops: BTreeSet<u64>,
    /// The entries with which a checkpoint was signed for certain.
    pub(crate) signed: BTreeSet<u64>,
    /// All of them.
    pub(crate) listed: BTreeSet<u64>,
}

impl Own {
    /// Goes on with the next of the log's own entries.
    pub(crate) fn accept(&mut self, entry: &crate::Entry) -> Result<(), DamageKind> {
        self.listed.insert(entry.sequence);
        match entry.action.as_str() {
            own::STOP_SIGNING => {
                self.stopped |= entry.result == own::STOPPED;
                self.stops.insert(entry.sequence);
            }
            own::RESUME_SIGNING => {
                self.stopped = false;
                self.signed.insert(entry.sequence);
            }
            own::TRUST_KEY | own::ROTATE_KEY => {
                self.signed.insert(entry.sequence);
            }
            _ => {}
        }
        self.keys.accept(entry)
    }
}

/// What the entries up to `last` say, and the first of them that is no good.
pub(crate) fn own(conn: &Connection, last: u64) -> rusqlite::Result<(Own, Option<Damage>)> {
    let mut own = Own::default();
    let mut first = None;
    for entry in own::entries(conn, last)? {
        if let Err(kind) = own.accept(&entry) {
            let sequence = Some(entry.sequence);
            first.get_or_insert(Damage { sequence, kind });
        }
    }
    Ok((own, first))
}

/// Checks form, size, origin and signature of a checkpoint that lies in the file at `tree_size`.
pub(crate) fn check(
    tree_size: u64,
    note: &str,
    keys: &KeyHistory,
) -> Result<Checkpoint, DamageKind> {
    let invalid = |detail: String| DamageKind::CheckpointInvalid { tree_size, detail };
    let note = SignedNote::from_str(note).map_err(|error| invalid(error.to_string()))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| invalid(error.to_string()))?;
    let Some(key) = keys.at(tree_size) else {
        return Err(invalid("the log trusted no key then".to_owned()));
    };
    if let Err(error) = note.verify(slice::from_ref(key)) {
        return Err(invalid(match error {
            NoteError::Unverified => {
                format!("it is not signed by {}, the log's key", keys::name(key))
            }
            error => error.to_string(),
        }));
    }
    if keys.origin() != Some(&checkpoint.origin) {
        return Err(DamageKind::OriginDiffers {
            expected: keys.origin().unwrap_or_default().to_owned(),
            found: checkpoint.origin,
            by: format!("the checkpoint of {tree_size} entries"),
        });
    }
    if checkpoint.size != tree_size {
        return Err(invalid(format!("it speaks of {} entries", checkpoint.size)));
    }
    Ok(checkpoint)
}

/// The newest checkpoint as it lies in the file. `None` also for a ledger of version 1.
pub(crate) fn newest_row(conn: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    row(
        conn,
        "SELECT tree_size, note FROM ledger_checkpoint WHERE ?1 ORDER BY tree_size DESC LIMIT 1",
        1,
    )
}

/// The size of the newest checkpoint.
pub(crate) fn newest_size(conn: &Connection) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT max(tree_size) FROM ledger_checkpoint";
    let size: Option<i64> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(size.map(to_u64))
}

/// The checkpoint of one size as it lies in the file.
pub(crate) fn at(conn: &Connection, tree_size: u64) -> rusqlite::Result<Option<(u64, String)>> {
    let sql = "SELECT tree_size, note FROM ledger_checkpoint WHERE tree_size = ?1";
    row(conn, sql, to_i64(tree_size))
}

fn row(conn: &Connection, sql: &str, value: i64) -> rusqlite::Result<Option<(u64, String)>> {
    if !crate::nodes::are_kept(conn)? {
        return Ok(None);
    }
    let mut select = conn.prepare_cached(sql)?;
    select
        .query_row([value], |row| Ok((to_u64(row.get(0)?), row.get(1)?)))
        .optional()
}

/// The newest checkpoint, if it has the form of one.
pub(crate) fn newest(conn: &Connection) -> rusqlite::Result<Option<SignedCheckpoint>> {
    Ok(newest_row(conn)?.and_then(|(_, note)| parse(&note)))
}

pub(crate) fn parse(note: &str) -> Option<SignedCheckpoint> {
    let note = SignedNote::from_str(note).ok()?;
    let Checkpoint { size, root, .. } = Checkpoint::parse(note.text()).ok()?;
    Some(SignedCheckpoint {
        tree_size: size,
        root,
        note,
    })
}

/// The cosignatures on one checkpoint, as lines of a note without their newlines.
pub(crate) fn cosignatures(conn: &Connection, tree_size: u64) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT line FROM ledger_cosignature WHERE tree_size = ?1 ORDER BY received, line LIMIT ?2";
    let mut select = conn.prepare_cached(sql)?;
    let limit = to_i64(COSIGNATURES_MAX as u64);
    let rows = select.query_map([to_i64(tree_size), limit], |row| row.get(0))?;
    rows.collect()
}
