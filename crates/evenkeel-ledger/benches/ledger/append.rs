//! Appending: one entry after another, many writers at once, and against SQLite alone.

use std::error::Error;
use std::time::{Duration, Instant};

use evenkeel_ledger::{Ledger, LedgerError, NewEntry};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::disk::Disk;
use crate::entries::{entries, entry, open};
use crate::table::{Reach, Table};

/// Times that each thing is measured, in turns with what it is compared with.
const ROUNDS: usize = 12;

type Measured = Result<(), Box<dyn Error>>;

/// One durable entry after another.
pub(crate) fn single(table: &mut Table) -> Measured {
    const ENTRIES: u32 = 60;
    let directory = tempfile::tempdir()?;
    let mut disk = Disk::new(directory.path())?;
    let ledger = open(&directory.path().join("ledger.db"))?;
    let (mut next, mut ratios, mut rates) = (0_u64, Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut raw, mut appending) = (Duration::ZERO, Duration::ZERO);
        // In small turns: a shared disk changes its pace within a second.
        for _ in 0..ENTRIES {
            raw += disk.sync(1)?;
            let one = entry(next);
            next += 1;
            let begun = Instant::now();
            ledger.append_blocking(one)?;
            appending += begun.elapsed();
        }
        ratios.push(raw.as_secs_f64() / appending.as_secs_f64());
        rates.push(f64::from(ENTRIES) / raw.as_secs_f64());
    }
    table.row(
        "one durable entry at a time, over raw fdatasync rate",
        Reach::AtLeast(0.8),
        ratios,
    );
    table.row(
        "raw 8 KiB overwrite + fdatasync, 1/s",
        Reach::Nothing,
        rates,
    );
    Ok(ledger.close()?)
}

/// 256 writers, each with one entry under way.
pub(crate) fn groups(table: &mut Table) -> Measured {
    const WRITERS: u64 = 256;
    const EACH: u16 = 12;
    const SYNCS: u32 = 40;
    let directory = tempfile::tempdir()?;
    let mut disk = Disk::new(directory.path())?;
    let ledger = open(&directory.path().join("ledger.db"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS as u64 {
        let made: Vec<Vec<NewEntry>> = (0..WRITERS)
            .map(|writer| entries((round * WRITERS + writer) * u64::from(EACH), EACH.into()))
            .collect();
        let before = disk.sync(SYNCS)?;
        let begun = Instant::now();
        runtime.block_on(write(&ledger, made))?;
        let writing = begun.elapsed();
        let raw = before + disk.sync(SYNCS)?;
        let raw_rate = f64::from(2 * SYNCS) / raw.as_secs_f64();
        ratios.push((WRITERS * u64::from(EACH)) as f64 / writing.as_secs_f64() / raw_rate);
    }
    table.row(
        "entries/s in groups from 256 writers, over raw fdatasync rate",
        Reach::AtLeast(12.0),
        ratios,
    );
    Ok(ledger.close()?)
}

async fn write(ledger: &Ledger, made: Vec<Vec<NewEntry>>) -> Result<(), Box<dyn Error>> {
    let writers: Vec<_> = made
        .into_iter()
        .map(|entries| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for entry in entries {
                    ledger.append(entry).await?;
                }
                Ok::<(), LedgerError>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// The same rows in the same groups, by the ledger and by SQLite alone.
pub(crate) fn bare(table: &mut Table) -> Measured {
    for (group, rounds, commits) in [(1, ROUNDS, 60), (16, ROUNDS, 20), (256, ROUNDS, 8)] {
        let directory = tempfile::tempdir()?;
        let ledger = open(&directory.path().join("ledger.db"))?;
        let mut indexed = Bare::new(&directory.path().join("indexed.db"), true)?;
        let mut plain = Bare::new(&directory.path().join("plain.db"), false)?;
        let (mut next, mut over_indexed, mut over_plain) = (0, Vec::new(), Vec::new());
        for _ in 0..rounds {
            let groups: Vec<Vec<NewEntry>> = (0..commits)
                .map(|commit| entries(next + commit * group as u64, group))
                .collect();
            next += commits * group as u64;
            let mut times = [Duration::ZERO; 3];
            for rows in &groups {
                times[1] += indexed.append(rows)?;
            }
            for rows in &groups {
                times[2] += plain.append(rows)?;
            }
            let begun = Instant::now();
            for rows in groups {
                ledger.append_all_blocking(rows)?;
            }
            idle(&ledger)?;
            times[0] += begun.elapsed();
            let [whole, indexed, plain] = times.map(|time| time.as_secs_f64());
            over_indexed.push(whole / indexed);
            over_plain.push(whole / plain);
        }
        table.row(
            format!(
                "append by {group}, time over a bare insert into a table with the same indexes"
            ),
            Reach::AtMost(1.25),
            over_indexed,
        );
        table.row(
            format!("append by {group}, time over a bare insert without any index"),
            Reach::Nothing,
            over_plain,
        );
        ledger.close()?;
    }
    Ok(())
}

/// Waits until the writer has nothing to do. It copies the write-ahead log after it answered: that is part of its time,
/// and must not lie in that of what is measured next.
fn idle(ledger: &Ledger) -> Result<(), LedgerError> {
    ledger
        .wait(ledger.add_cosignatures(1, Vec::new()))
        .map(|_| ())
}

/// A table with the ledger's columns and pragmas, and nothing that checks, hashes or signs.
struct Bare {
    conn: Connection,
    next: i64,
    pages: usize,
}

impl Bare {
    fn new(path: &std::path::Path, indexed: bool) -> rusqlite::Result<Self> {
        let conn = Connection::open(path)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = on;
             PRAGMA checkpoint_fullfsync = on; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 16777216;
             PRAGMA secure_delete = on; PRAGMA cell_size_check = on;
             CREATE TABLE log (sequence INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, actor TEXT NOT NULL,
               action TEXT NOT NULL, resource TEXT NOT NULL, subsystem TEXT NOT NULL, payload TEXT NOT NULL,
               result TEXT NOT NULL, entry_hash TEXT NOT NULL, previous_hash TEXT NOT NULL) STRICT;",
        )?;
        if indexed {
            conn.execute_batch(
                "CREATE INDEX by_action ON log (action); CREATE INDEX by_subsystem ON log (subsystem);
                 CREATE INDEX by_timestamp ON log (timestamp);
                 CREATE INDEX by_workflow ON log (json_extract(payload, '$.workflow_id'))
                  WHERE json_extract(payload, '$.workflow_id') IS NOT NULL;",
            )?;
        }
        Ok(Self {
            conn,
            next: 1,
            pages: 0,
        })
    }

    /// One transaction, and the write-ahead log copied as often as the ledger does it.
    fn append(&mut self, rows: &[NewEntry]) -> rusqlite::Result<Duration> {
        let (hash, previous) = ("1".repeat(64), "2".repeat(64));
        let begun = Instant::now();
        if self.pages >= 1000 {
            self.pages = 0;
            self.conn
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        let transaction = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            for row in rows {
                insert.execute(params![
                    self.next,
                    row.timestamp,
                    row.actor,
                    row.action,
                    row.resource,
                    row.subsystem,
                    row.payload,
                    row.result,
                    hash,
                    previous
                ])?;
                self.next += 1;
            }
        }
        transaction.commit()?;
        let bytes: usize = rows.iter().map(|row| row.payload.len() + 60).sum();
        self.pages += 8 + bytes / 2048;
        Ok(begun.elapsed())
    }
}
