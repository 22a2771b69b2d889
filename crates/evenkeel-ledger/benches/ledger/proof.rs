//! Proofs from a log of 10^9 entries. The file holds every node of the tree that such a ledger stores, and of its
//! entries those that the proofs read; all entries have the same hash, so that the tree is true and its proofs verify.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use evenkeel_ledger::merkle::node_hash;
use evenkeel_ledger::tlog::{Checkpoint, Nodes, proof};
use evenkeel_ledger::{Hash, NewEntry, Reader};
use rusqlite::{Connection, params};

use crate::entries::{entry, open, signer};
use crate::table::{Reach, Table};

/// Not a round number: the right edge of the tree has something of each level.
const SIZE: u64 = 999_999_999;
const WIDTH: u64 = 256;
const PROOFS: u64 = 200;

pub(crate) fn proof(table: &mut Table) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ledger.db");
    let rows = simulate(&path)?;
    let reader = Reader::open(&path)?;
    let (mut sizes, mut inclusion, mut bundles) = (Vec::new(), Vec::new(), Vec::new());
    let key = signer().verifier().clone();
    for n in 0..PROOFS {
        let index = index(n);
        let begun = Instant::now();
        let hashes = proof::inclusion(&reader.nodes(), index, SIZE)?;
        inclusion.push(begun.elapsed().as_secs_f64() * 1e3);
        if !(29..=30).contains(&hashes.len()) {
            return Err(format!("a proof has {} hashes", hashes.len()).into());
        }
        let begun = Instant::now();
        let bundle = reader.prove(index + 1, Some(SIZE))?;
        bundles.push(begun.elapsed().as_secs_f64() * 1e3);
        bundle.verify(&leaf(), std::slice::from_ref(&key), &[], 0)?;
        sizes.push(bundle.to_string().len() as f64 / 1024.0);
    }
    table.row(
        "bundle of an inclusion proof at 10^9 entries, KiB",
        Reach::AtMost(2.0),
        sizes,
    );
    table.row("its hashes, ms", Reach::AtMost(1.0), inclusion);
    table.row(
        "the whole bundle, with entry and checkpoint, ms",
        Reach::AtMost(1.0),
        bundles,
    );
    table.note(format!(
        "the proofs read from a file with {rows} stored nodes"
    ));
    Ok(())
}

/// Which entry a proof is about: anywhere in the log, and the same on every run.
fn index(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % SIZE
}

fn leaf() -> Hash {
    Hash::of(b"the entry")
}

/// A tree whose leaves are all the same.
struct Uniform(Vec<Hash>);

impl Uniform {
    fn new() -> Self {
        let mut levels = vec![leaf()];
        for _ in 0..40 {
            let last = levels[levels.len() - 1];
            levels.push(node_hash(&last, &last));
        }
        Self(levels)
    }
}

impl Nodes for Uniform {
    type Error = std::convert::Infallible;

    fn node(&self, level: u32, _index: u64) -> Result<Hash, Self::Error> {
        Ok(self.0[level as usize])
    }
}

/// Writes the file. Returns how many nodes it holds.
fn simulate(path: &Path) -> Result<u64, Box<dyn Error>> {
    open(path)?.close()?;
    let mut conn = Connection::open(path)?;
    let triggers: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for trigger in triggers {
        conn.execute_batch(&format!("DROP TRIGGER {trigger}"))?;
    }
    conn.execute_batch(
        "PRAGMA synchronous = OFF; DELETE FROM immutable_log; DELETE FROM ledger_checkpoint;",
    )?;
    let tree = Uniform::new();
    let transaction = conn.transaction()?;
    let mut rows = 0;
    {
        let mut insert = transaction.prepare("INSERT INTO ledger_node VALUES (?1, ?2, ?3)")?;
        for level in 1..4_u32 {
            let hash = tree.0[8 * level as usize];
            for position in 0..SIZE >> (8 * level) {
                insert.execute(params![level, position.cast_signed(), hash.as_bytes()])?;
                rows += 1;
            }
        }
        let mut blocks: Vec<u64> = (0..PROOFS).map(|n| index(n) / WIDTH).collect();
        blocks.push(SIZE / WIDTH);
        blocks.sort_unstable();
        blocks.dedup();
        let mut insert = transaction
            .prepare("INSERT INTO immutable_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)")?;
        let hash = leaf().to_string();
        for sequence in blocks
            .iter()
            .flat_map(|block| block * WIDTH..((block + 1) * WIDTH).min(SIZE))
            .map(|index| index + 1)
        {
            let NewEntry {
                timestamp,
                actor,
                action,
                resource,
                subsystem,
                payload,
                result,
            } = entry(sequence);
            insert.execute(params![
                sequence.cast_signed(),
                timestamp,
                actor,
                action,
                resource,
                subsystem,
                payload,
                result,
                hash
            ])?;
        }
        let root = proof::root(&tree, SIZE)?;
        let signer = signer();
        let note = Checkpoint::new(signer.name(), SIZE, root).sign(&signer)?;
        transaction.execute(
            "INSERT INTO ledger_checkpoint VALUES (?1, ?2)",
            params![SIZE.cast_signed(), note.to_string()],
        )?;
    }
    transaction.commit()?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(rows)
}
