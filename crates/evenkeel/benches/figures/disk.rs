//! A durable entry of the ledger, over what the disk itself needs to make a page durable.

use std::fs::File;
use std::io::Write as _;

use evenkeel_ledger::{Ledger, NewEntry};

use crate::machine::now_ms;
use crate::table::{Samples, Table};

/// Rounds; in each, entries and raw writes take turns.
const ROUNDS: usize = 300;
/// What one entry makes SQLite write, about: two pages and their frame headers.
const WRITE_LEN: usize = 8 * 1024;

/// One entry, awaited, again and again.
pub(crate) fn append(table: &mut Table) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = File::create(dir.path().join("raw"))?;
    let block = vec![7u8; WRITE_LEN];
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let ledger = Ledger::open(dir.path().join("ledger.db"))?;
    let (mut entries, mut raw, mut share) =
        (Samples::default(), Samples::default(), Samples::default());
    for n in 0..ROUNDS {
        let begun = now_ms();
        file.write_all(&block)?;
        file.sync_data()?;
        let disk = now_ms() - begun;
        let entry = NewEntry {
            timestamp: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string(),
            actor: "benchmark".into(),
            action: "append".into(),
            resource: "disk".into(),
            subsystem: "benchmark".into(),
            payload: serde_json::json!({"n": n, "text": "x".repeat(600)}).to_string(),
            result: "success".into(),
        };
        let begun = now_ms();
        runtime.block_on(ledger.append(entry))?;
        let entry = now_ms() - begun;
        raw.push(disk);
        entries.push(entry);
        share.push(entry / disk);
    }
    table.row("a durable ledger entry", "ms", None, entries);
    table.row("8 KiB appended to a file and fdatasync", "ms", None, raw);
    table.row("a durable entry / fdatasync", "x", None, share);
    Ok(())
}
