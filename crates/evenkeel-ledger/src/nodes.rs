//! The stored nodes of the Merkle tree: roots of complete subtrees of 256, 65,536, ... entries, so that the right edge
//! of the tree and a proof are read from a few hundred rows, whatever the log's length. Derived data: the leaves
//! decide, and verification compares.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::check::{hash_column, to_i64, to_u64};
use crate::merkle::Frontier;
use crate::{DamageKind, Hash};

/// A node of the next level stands for so many of this one, as in a tile of C2SP's `tlog-tiles`.
pub(crate) const WIDTH: u64 = 1 << WIDTH_BITS;
/// Level 1 holds subtrees of this height, level 2 of twice this height.
pub(crate) const WIDTH_BITS: u32 = 8;
/// Highest level that is stored: subtrees of 2^56 entries.
pub(crate) const LEVEL_MAX: u32 = 7;

const INSERT: &str = "INSERT INTO ledger_node (level, position, hash) VALUES (?1, ?2, ?3)";

/// Why nodes cannot be read.
#[derive(Debug)]
pub(crate) enum NodeError {
    Sqlite(rusqlite::Error),
    /// An entry or a node that must be there is not.
    Missing {
        level: u32,
        position: u64,
    },
}

impl From<rusqlite::Error> for NodeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// One stored node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) level: u32,
    pub(crate) position: u64,
    pub(crate) hash: Hash,
}

impl Node {
    /// The node to store for a subtree that is complete, if one of its height is stored.
    pub(crate) fn of(height: u32, position: u64, hash: &Hash) -> Option<Self> {
        let level = height / WIDTH_BITS;
        (height > 0 && height.is_multiple_of(WIDTH_BITS) && level <= LEVEL_MAX).then_some(Self {
            level,
            position,
            hash: *hash,
        })
    }

    pub(crate) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut insert = conn.prepare_cached(INSERT)?;
        insert.execute(params![
            self.level,
            to_i64(self.position),
            self.hash.as_bytes()
        ])?;
        Ok(())
    }

    /// The same node as it is stored, `None` if there is none.
    pub(crate) fn stored(&self, conn: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut select =
            conn.prepare_cached("SELECT hash FROM ledger_node WHERE level = ?1 AND position = ?2")?;
        let row = select.query_row(params![self.level, to_i64(self.position)], |row| row.get(0));
        row.optional()
    }
}

/// How many nodes of one level a log of this size has.
pub(crate) fn due(size: u64, level: u32) -> u64 {
    size.checked_shr(WIDTH_BITS * level).unwrap_or(0)
}

/// How many nodes of one level are stored, as far as the highest position tells.
pub(crate) fn count(conn: &Connection, level: u32) -> rusqlite::Result<u64> {
    let mut select =
        conn.prepare_cached("SELECT max(position) + 1 FROM ledger_node WHERE level = ?1")?;
    let count: Option<i64> = select.query_row([level], |row| row.get(0))?;
    Ok(count.map_or(0, to_u64))
}

/// Whether the file has stored nodes at all: a ledger of version 1 has none.
pub(crate) fn are_kept(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'ledger_node'";
    let tables: i64 = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(tables > 0)
}

/// Gives the hashes of one level, from position `first` up to but not including `end`, to `each`.
pub(crate) fn hashes(
    conn: &Connection,
    level: u32,
    first: u64,
    end: u64,
    each: &mut dyn FnMut(Hash),
) -> Result<(), NodeError> {
    if first >= end {
        return Ok(());
    }
    let mut position = first;
    if level > 0 && !are_kept(conn)? {
        // Version 1: from the level below, down to the entries.
        while position < end {
            let mut tree = Frontier::new();
            hashes(
                conn,
                level - 1,
                position * WIDTH,
                (position + 1) * WIDTH,
                &mut |hash| tree.push(hash),
            )?;
            each(tree.root());
            position += 1;
        }
        return Ok(());
    }
    let mut select = if level == 0 {
        conn.prepare_cached(
            "SELECT sequence - 1, entry_hash FROM immutable_log NOT INDEXED
              WHERE sequence > ?2 AND sequence <= ?3 AND ?1 = 0 ORDER BY sequence",
        )?
    } else {
        conn.prepare_cached(
            "SELECT position, hash FROM ledger_node WHERE level = ?1 AND position >= ?2 AND position < ?3
              ORDER BY position",
        )?
    };
    let mut rows = select.query(params![level, to_i64(first), to_i64(end)])?;
    while let Some(row) = rows.next()? {
        let missing = NodeError::Missing { level, position };
        let hash = match row.get_ref(1)? {
            value @ ValueRef::Text(_) => hash_column(value),
            ValueRef::Blob(bytes) => bytes.try_into().ok().map(Hash::from_bytes),
            _ => None,
        };
        let Some(hash) = hash.filter(|_| row.get_ref(0) == Ok(ValueRef::Integer(to_i64(position))))
        else {
            return Err(missing);
        };
        each(hash);
        position += 1;
    }
    if position < end {
        return Err(NodeError::Missing { level, position });
    }
    Ok(())
}

/// The right edge of the tree over the first `size` entries. Reads at most 255 rows for each level.
pub(crate) fn frontier(conn: &Connection, size: u64) -> Result<Frontier, NodeError> {
    let mut tree = Frontier::new();
    for level in (0..=LEVEL_MAX).rev() {
        let first = due(size, level + 1) * WIDTH;
        hashes(conn, level, first, due(size, level), &mut |hash| {
            tree.push_subtree(WIDTH_BITS * level, hash, |_, _, _| {});
        })?;
    }
    Ok(tree)
}

/// Stores the nodes that a log of this size should have and has not. Nothing to do after a clean end.
pub(crate) fn fill(conn: &Connection, size: u64) -> Result<(), NodeError> {
    for level in 1..=LEVEL_MAX {
        for position in count(conn, level)?..due(size, level) {
            let mut tree = Frontier::new();
            let first = position * WIDTH;
            hashes(conn, level - 1, first, first + WIDTH, &mut |hash| {
                tree.push(hash);
            })?;
            let hash = tree.root();
            Node {
                level,
                position,
                hash,
            }
            .insert(conn)?;
        }
    }
    Ok(())
}

/// A node that speaks of more entries than there are: the log was cut.
pub(crate) fn surplus(conn: &Connection, size: u64) -> rusqlite::Result<Option<DamageKind>> {
    for level in 1..=LEVEL_MAX {
        let count = count(conn, level)?;
        if count > due(size, level) {
            let expected = count << (WIDTH_BITS * level);
            return Ok(Some(DamageKind::TailCut {
                expected,
                found: size,
                by: "a node of its Merkle tree".to_owned(),
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of nothing but hashes, which is all that is read here.
    fn log(size: u64) -> (Connection, Vec<Hash>) {
        let conn = Connection::open_in_memory().unwrap();
        crate::schema::create(&conn).unwrap();
        let mut leaves = Vec::new();
        let mut previous = Hash::ZERO;
        for sequence in 1..=size {
            let hash = Hash::of(&sequence.to_be_bytes());
            let sql = "INSERT INTO immutable_log VALUES (?1, '2026-01-31T12:00:00.000Z', 'a', 'b', '', '', '{}', '', ?2, ?3)";
            let values = params![to_i64(sequence), hash.to_string(), previous.to_string()];
            conn.prepare_cached(sql).unwrap().execute(values).unwrap();
            leaves.push(hash);
            previous = hash;
        }
        (conn, leaves)
    }

    /// Beyond 65,536 entries there are two levels, and both are right at every kind of size.
    #[test]
    fn the_frontier_of_any_size_is_read_from_stored_nodes() {
        let (conn, leaves) = log(66_000);
        fill(&conn, 66_000).unwrap();
        assert_eq!(count(&conn, 1).unwrap(), 257);
        assert_eq!(count(&conn, 2).unwrap(), 1);
        assert_eq!(surplus(&conn, 66_000).unwrap(), None);
        let mut tree = Frontier::new();
        for leaf in &leaves {
            tree.push(*leaf);
            if [1, 255, 256, 257, 1000, 65_535, 65_536, 65_537, 66_000].contains(&tree.len()) {
                assert_eq!(frontier(&conn, tree.len()).unwrap(), tree, "{}", tree.len());
            }
        }
        assert_eq!(frontier(&conn, 0).unwrap(), Frontier::new());
        assert!(matches!(
            frontier(&conn, 66_001),
            Err(NodeError::Missing {
                level: 0,
                position: 66_000
            })
        ));
        // One that is wrong makes another tree: it is used, not hashed anew.
        conn.execute_batch("DROP TRIGGER ledger_node_no_update; UPDATE ledger_node SET hash = zeroblob(32) WHERE level = 2")
            .unwrap();
        assert_ne!(frontier(&conn, 66_000).unwrap(), tree);
        assert!(surplus(&conn, 65_000).unwrap().is_some());
    }

    #[test]
    fn a_subtree_is_stored_once_and_when_it_is_complete() {
        let (conn, _) = log(300);
        let node = |position| Node {
            level: 1,
            position,
            hash: Hash::ZERO,
        };
        assert!(node(1).insert(&conn).is_err());
        node(0).insert(&conn).unwrap();
        assert!(node(0).insert(&conn).is_err());
        assert!(node(1).insert(&conn).is_err(), "only 300 entries");
    }
}
