//! Proving: checkpoints, inclusion and consistency from a ledger's file, by its stored nodes. Each answer is made from
//! one state of the file, however it grows meanwhile.

use rusqlite::Connection;

use crate::check::to_u64;
use crate::leaf::Leaf;
use crate::merkle::Frontier;
use crate::nodes::{self, NodeError, WIDTH_BITS};
use crate::signed::{self, SignedCheckpoint};
use crate::tlog::{Nodes, ProofBundle, ProveError, SignatureLine, SignedNote, proof};
use crate::{DroppedPayload, Entry, Hash, KeyHistory, LedgerError, Reader};

/// The Merkle tree of a ledger as its file has it: nodes as stored, leaves as `entry_hash` says.
///
/// Any one node is read from at most 128 rows. Nothing is checked: verify the ledger, or what is proved with it.
#[derive(Debug, Clone, Copy)]
pub struct SqliteNodes<'a> {
    reader: &'a Reader,
}

impl Nodes for SqliteNodes<'_> {
    type Error = LedgerError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, LedgerError> {
        // Between two stored levels: from the lower one.
        let (stored, above) = (level / WIDTH_BITS, level % WIDTH_BITS);
        let mut tree = Frontier::new();
        let (first, end) = (index << above, (index + 1) << above);
        nodes::hashes(&self.reader.conn, stored, first, end, &mut |hash| {
            tree.push(hash);
        })
        .map_err(|error| self.reader.node_error(error))?;
        Ok(tree.root())
    }
}

impl Reader {
    /// The Merkle tree of the log.
    pub fn nodes(&self) -> SqliteNodes<'_> {
        SqliteNodes { reader: self }
    }

    /// The newest checkpoint with the cosignatures that are kept for it; `None` if nothing was ever signed.
    pub fn checkpoint(&self) -> Result<Option<SignedNote>, LedgerError> {
        self.at_one_moment(|conn| match signed::newest(conn)? {
            Some(newest) => cosigned(conn, newest).map(Some),
            None => Ok(None),
        })
    }

    /// The checkpoint of the first `tree_size` entries, as [`Reader::checkpoint`]; `None` if none was signed there.
    pub fn checkpoint_at(&self, tree_size: u64) -> Result<Option<SignedNote>, LedgerError> {
        self.at_one_moment(|conn| {
            let found = signed::at(conn, tree_size)?;
            match found.and_then(|(_, note)| signed::parse(&note)) {
                Some(found) => cosigned(conn, found).map(Some),
                None => Ok(None),
            }
        })
    }

    /// The newest checkpoint on which one of these witnesses signed, whatever came after it.
    pub fn cosigned_by(&self, witness: &str) -> Result<Option<SignedNote>, LedgerError> {
        self.at_one_moment(|conn| {
            if !nodes::are_kept(conn)? {
                return Ok(None);
            }
            let sql = "SELECT max(tree_size) FROM ledger_cosignature WHERE name = ?1";
            let size: Option<i64> = conn
                .prepare_cached(sql)?
                .query_row([witness], |row| row.get(0))?;
            let Some(size) = size else { return Ok(None) };
            let found = signed::at(conn, to_u64(size))?;
            match found.and_then(|(_, note)| signed::parse(&note)) {
                Some(found) => cosigned(conn, found).map(Some),
                None => Ok(None),
            }
        })
    }

    /// The keys of the log over time, as its own entries state and prove them.
    pub fn keys(&self) -> Result<KeyHistory, LedgerError> {
        let (own, damage) = self.at_one_moment(|conn| signed::own(conn, u64::MAX))?;
        match damage {
            None => Ok(own.keys),
            Some(damage) => Err(LedgerError::DoesNotVerify {
                path: self.path.clone(),
                sequence: damage.sequence,
                kind: damage.kind,
            }),
        }
    }

    /// The proof that the entry at `sequence` is in the log, by the checkpoint of the first `tree_size` entries, with
    /// its cosignatures. `None` takes the newest checkpoint. The entry's canonical leaf is the bundle's extra data.
    pub fn prove(&self, sequence: u64, tree_size: Option<u64>) -> Result<ProofBundle, LedgerError> {
        let checkpoint = match tree_size {
            Some(size) => self.checkpoint_at(size)?,
            None => self.checkpoint()?,
        };
        let checkpoint = checkpoint.ok_or_else(|| {
            self.not_provable("there is no such checkpoint; only what was signed can be proved")
        })?;
        let stated = proof_size(&checkpoint)
            .ok_or_else(|| self.not_provable("its checkpoint cannot be read; verify the ledger"))?;
        let entry = self.get(sequence)?;
        let entry = entry.ok_or_else(|| self.not_provable("there is no such entry"))?;
        let index = sequence - 1;
        let hashes = proof::inclusion(&self.nodes(), index, stated)
            .map_err(|error| self.prove_error(error))?;
        Ok(ProofBundle {
            extra: Some(leaf_bytes(&entry)),
            index,
            hashes,
            checkpoint,
        })
    }

    /// The proof that the first `old` entries are the beginning of the first `new` ones.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, LedgerError> {
        self.within(new)?;
        proof::consistency(&self.nodes(), old, new).map_err(|error| self.prove_error(error))
    }

    /// The root of the Merkle tree over the first `size` entries.
    pub fn root_at(&self, size: u64) -> Result<Hash, LedgerError> {
        self.within(size)?;
        proof::root(&self.nodes(), size)
    }

    /// The hashes of one tile of C2SP's `tlog-tiles`, for an export: `width` of them (1 to 256) from `256 * index` on, of
    /// entries at level 0, of complete subtrees of 256^`level` entries above (to 7).
    pub fn tile_hashes(
        &self,
        level: u32,
        index: u64,
        width: u16,
    ) -> Result<Vec<Hash>, LedgerError> {
        let width = u64::from(width);
        if !(1..=nodes::WIDTH).contains(&width) || level > nodes::LEVEL_MAX {
            return Err(self.not_provable("a tile has 1 to 256 hashes, and its level is 0 to 7"));
        }
        let first = index.saturating_mul(nodes::WIDTH);
        let mut hashes = Vec::new();
        nodes::hashes(
            &self.conn,
            level,
            first,
            first.saturating_add(width),
            &mut |hash| {
                hashes.push(hash);
            },
        )
        .map_err(|error| self.node_error(error))?;
        Ok(hashes)
    }

    fn within(&self, size: u64) -> Result<(), LedgerError> {
        let last = self.last_sequence()?;
        if size > last {
            return Err(self.not_provable(format!("it has {last} entries, not {size}")));
        }
        Ok(())
    }

    /// Runs several statements on one state of the file.
    fn at_one_moment<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        self.conn
            .unchecked_transaction()
            .and_then(|transaction| read(&transaction))
            .map_err(|error| LedgerError::sqlite(&self.path, "reading it", &error))
    }

    fn not_provable(&self, detail: impl Into<String>) -> LedgerError {
        LedgerError::NotProvable {
            path: self.path.clone(),
            detail: detail.into(),
        }
    }

    fn prove_error(&self, error: ProveError<LedgerError>) -> LedgerError {
        match error {
            ProveError::Nodes(error) => error,
            other => self.not_provable(other.to_string()),
        }
    }

    fn node_error(&self, error: NodeError) -> LedgerError {
        match error {
            NodeError::Sqlite(error) => LedgerError::sqlite(&self.path, "reading it", &error),
            NodeError::Missing { level, position } => self.not_provable(format!(
                "node {position} of level {level} of its tree is missing or damaged; verify it"
            )),
        }
    }
}

fn proof_size(note: &SignedNote) -> Option<u64> {
    Some(crate::tlog::Checkpoint::parse(note.text()).ok()?.size)
}

/// The checkpoint's note with the cosignatures that are kept. Lines that are none are for `verify` to tell.
fn cosigned(conn: &Connection, checkpoint: SignedCheckpoint) -> rusqlite::Result<SignedNote> {
    let SignedCheckpoint {
        tree_size, note, ..
    } = checkpoint;
    let mut lines = note.signatures().to_vec();
    for line in signed::cosignatures(conn, tree_size)? {
        lines.extend(line.parse::<SignatureLine>());
    }
    Ok(SignedNote::new(note.text(), lines).unwrap_or(note))
}

/// The canonical leaf of an entry: what its hash is made from. Of a dropped payload the hash that it left is taken.
fn leaf_bytes(entry: &Entry) -> Vec<u8> {
    let dropped = DroppedPayload::parse(entry.payload.as_bytes());
    Leaf {
        previous_hash: entry.previous_hash,
        sequence: entry.sequence,
        timestamp: entry.timestamp.as_bytes(),
        actor: entry.actor.as_bytes(),
        action: entry.action.as_bytes(),
        resource: entry.resource.as_bytes(),
        subsystem: entry.subsystem.as_bytes(),
        result: entry.result.as_bytes(),
        payload_hash: dropped
            .map_or_else(|| Hash::of(entry.payload.as_bytes()), |left| left.sha256),
    }
    .encode()
}

impl Entry {
    /// The canonical leaf: the bytes that `entry_hash` is the RFC 6962 leaf hash of. See [`crate::leaf`].
    pub fn leaf_bytes(&self) -> Vec<u8> {
        leaf_bytes(self)
    }
}
