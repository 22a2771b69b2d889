//! Verifying, over what one core needs to hash the same bytes.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use evenkeel_ledger::{BATCH_ENTRIES_MAX, VerifyOptions, verify_with};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use crate::entries::{entries, open};
use crate::table::{Reach, Table};

const ENTRIES: usize = 60_000;
const ROUNDS: usize = 9;

pub(crate) fn verify(table: &mut Table) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ledger.db");
    let ledger = open(&path)?;
    for first in (0..ENTRIES).step_by(BATCH_ENTRIES_MAX) {
        let count = BATCH_ENTRIES_MAX.min(ENTRIES - first);
        ledger.append_all_blocking(entries(first as u64, count))?;
    }
    ledger.close()?;
    let bytes = bytes(&path)?;
    let (mut chain, mut whole, mut two, mut whole_two) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let limit = hashing(&bytes);
        let one = verifying(&path, 1, false)?;
        let both = verifying(&path, 2, false)?;
        let one_whole = verifying(&path, 1, true)?;
        let both_whole = verifying(&path, 2, true)?;
        chain.push(limit / one);
        whole.push(limit / one_whole);
        two.push(one / both);
        whole_two.push(one_whole / both_whole);
    }
    table.row(
        "verify, entries/s over one core's SHA-256 limit",
        Reach::AtLeast(0.7),
        chain,
    );
    table.row("verify on two threads, over one", Reach::AtLeast(1.8), two);
    table.row(
        "verify with SQLite's integrity_check, over one core's SHA-256 limit",
        Reach::Nothing,
        whole,
    );
    table.row(
        "the same on two threads, over one",
        Reach::Nothing,
        whole_two,
    );
    Ok(())
}

/// Seconds of a whole verification.
fn verifying(path: &Path, threads: usize, integrity_check: bool) -> Result<f64, Box<dyn Error>> {
    let options = VerifyOptions {
        threads,
        integrity_check,
        ..VerifyOptions::default()
    };
    let begun = Instant::now();
    let report = verify_with(path, &options, |_, _| {})?;
    let seconds = begun.elapsed().as_secs_f64();
    if !report.is_sound() || report.entries <= ENTRIES as u64 {
        return Err(format!("the ledger does not verify: {:?}", report.damage).into());
    }
    Ok(seconds)
}

/// What is hashed of one entry: its payload, and a leaf of so many bytes.
struct Bytes {
    payload: Vec<u8>,
    leaf: usize,
}

fn bytes(path: &Path) -> rusqlite::Result<Vec<Bytes>> {
    let conn = Connection::open(path)?;
    let mut select = conn.prepare(
        "SELECT payload, length(timestamp || actor || action || resource || subsystem || result)
           FROM immutable_log ORDER BY sequence",
    )?;
    // Prefix, tag, previous hash, sequence, six lengths and the payload's hash.
    let fixed = 1 + 18 + 32 + 8 + 6 * 4 + 32;
    let rows = select.query_map([], |row| {
        Ok(Bytes {
            payload: row.get::<_, String>(0)?.into_bytes(),
            leaf: fixed + usize::from(row.get::<_, u16>(1)?),
        })
    })?;
    rows.collect()
}

/// Seconds of hashing every payload, leaf and node, and nothing else.
fn hashing(entries: &[Bytes]) -> f64 {
    let block = [5; 4096];
    let begun = Instant::now();
    for entry in entries {
        black_box(Sha256::digest(&entry.payload));
        black_box(Sha256::digest(&block[..entry.leaf]));
    }
    for _ in 1..entries.len() {
        black_box(Sha256::digest(&block[..65]));
    }
    begun.elapsed().as_secs_f64()
}
