//! What the file's triggers and checks demand of an append, done by the writer itself, once a group instead of once an
//! entry. The triggers and checks stay in the file and bind every other connection; the writer's own passes over them
//! while it appends, and only then: whatever else it does, they watch.
//!
//! | what the file demands of an INSERT | how it holds here |
//! |---|---|
//! | `sequence` is the highest plus 1, `previous_hash` is the newest `entry_hash` | both are taken from the head, and [`is_head`] compares that with the file inside the transaction, before the first entry and after the last |
//! | nothing is replaced | the statement is a plain INSERT, so a sequence that is there is refused as a key |
//! | sizes, timestamp, JSON | `NewEntry::validate`, before the queue |
//! | hashes are 64 lower-case digits | there is no other way to write a [`Hash`] |
//! | a checkpoint is of the whole log, and newer than all | [`checkpoint_is_next`], after the head was compared |
//! | a node is the next of its level, its subtree complete | [`node_is_next`] |

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use crate::check::{hash_column, to_u64};
use crate::ledger::Head;
use crate::nodes::{self, Node};
use crate::{DamageKind, Hash, signed};

/// Switches the triggers and checks of the file on or off for this connection alone.
pub(super) fn switch(conn: &Connection, on: bool) -> rusqlite::Result<()> {
    conn.pragma_update(None, "ignore_check_constraints", !on)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on)?;
    Ok(())
}

/// Whether the newest entry of the file is the head; if not, what is wrong with which entry.
pub(super) fn is_head(
    conn: &Connection,
    head: Head,
) -> rusqlite::Result<Result<(), (u64, DamageKind)>> {
    let sql =
        "SELECT sequence, entry_hash FROM immutable_log NOT INDEXED ORDER BY sequence DESC LIMIT 1";
    let newest: Option<(i64, Option<Hash>)> = conn
        .prepare_cached(sql)?
        .query_row([], |row| Ok((row.get(0)?, hash_column(row.get_ref(1)?))))
        .optional()?;
    let (found, hash) = newest.unwrap_or((0, Some(Hash::ZERO)));
    let sequence = to_u64(found);
    let kind = if sequence < head.sequence {
        DamageKind::TailCut {
            expected: head.sequence,
            found: sequence,
            by: "the ledger's writer".to_owned(),
        }
    } else if sequence > head.sequence {
        DamageKind::StrayRow { found }
    } else if hash != Some(head.hash) {
        DamageKind::BrokenLink
    } else {
        return Ok(Ok(()));
    };
    Ok(Err((head.sequence.min(sequence) + 1, kind)))
}

/// Whether every checkpoint in the file is of less than `size` entries.
pub(super) fn checkpoint_is_next(
    conn: &Connection,
    size: u64,
) -> rusqlite::Result<Result<(), (u64, DamageKind)>> {
    let newest = signed::newest_size(conn)?;
    Ok(match newest.filter(|newest| *newest >= size) {
        None => Ok(()),
        Some(newest) => Err((
            size,
            DamageKind::TailCut {
                expected: newest,
                found: size - 1,
                by: "a checkpoint in the file".to_owned(),
            },
        )),
    })
}

/// Whether a node of the tree is the next of its level.
pub(super) fn node_is_next(
    conn: &Connection,
    node: &Node,
) -> rusqlite::Result<Result<(), (u64, DamageKind)>> {
    if nodes::count(conn, node.level)? == node.position {
        return Ok(Ok(()));
    }
    let Node {
        level, position, ..
    } = *node;
    let first = (position << (nodes::WIDTH_BITS * level)) + 1;
    Ok(Err((first, DamageKind::NodeDiffers { level, position })))
}

#[cfg(test)]
mod tests;
