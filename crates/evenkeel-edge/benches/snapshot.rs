//! What a snapshot of a large live database costs, against a plain copy of the file in the same run:
//! `cargo bench -p evenkeel-edge --bench snapshot`.
//!
//! A database of 500 MB in WAL mode, a writer that commits all the time and notes its longest stall, three snapshots: the
//! first, one after some pages changed, and one with the writer at work.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to tell"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_core::Timestamp;
use evenkeel_core::redact::Redactor;
use evenkeel_edge::snapshot::{SnapshotKind, SnapshotLimits, SnapshotRequest, Snapshots};
use rusqlite::Connection;

const MB: u64 = 1024 * 1024;
const ROWS: i64 = 500 * 1024;
/// Rows that change between two snapshots; each lies on a page of its own.
const CHANGED: i64 = 2_000;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("app.db");
    fill(&db);
    let size = std::fs::metadata(&db).unwrap().len();
    let snapshots = Snapshots::new(
        dir.path().join("storage"),
        Redactor::default(),
        SnapshotLimits::default(),
    );
    let mut at = Timestamp::from_millis(1_800_000_000_000);
    let mut take = |label: &str| {
        at = at.plus_millis(1_000);
        let begun = Instant::now();
        let taken = snapshots.take(&SnapshotRequest {
            kind: SnapshotKind::Manual {
                label: label.to_owned(),
            },
            at,
            database: Some(db.clone()),
            ledger: None,
            config_files: Vec::new(),
            root: dir.path().to_path_buf(),
        });
        (taken.unwrap(), begun.elapsed())
    };
    let copy = copied(&db, &dir.path().join("plain"));
    let (first, took_first) = take("first");
    let alone = stall(&db, || std::thread::sleep(Duration::from_secs(3)));
    let mut took_busy = Duration::ZERO;
    let busy = stall(&db, || took_busy = take("busy").1);
    // What the writer changed after the last one was pinned is not to count below.
    take("settled");
    let changed = change(&db);
    let (second, took_second) = take("second");
    let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1000.0);
    let over = |d: Duration| d.as_secs_f64() / copy.as_secs_f64();
    println!(
        "database: {} MB in WAL mode; a plain copy of the file, synced: {}",
        size / MB,
        ms(copy)
    );
    println!(
        "first snapshot: {} ({:.2} x the copy), {} MB stored",
        ms(took_first),
        over(took_first),
        first.bytes / MB
    );
    println!(
        "with a writer at work: {} ({:.2} x the copy)",
        ms(took_busy),
        over(took_busy)
    );
    println!(
        "longest stall of the writer: {} alone, {} during the snapshot",
        ms(alone),
        ms(busy)
    );
    println!(
        "second snapshot: {}, {} KB stored for {} KB of changed pages ({:.2} x)",
        ms(took_second),
        second.bytes / 1024,
        changed / 1024,
        second.bytes as f64 / changed as f64
    );
}

fn fill(db: &Path) {
    let c = Connection::open(db).unwrap();
    c.execute_batch("PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, v BLOB)")
        .unwrap();
    c.execute_batch(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t SELECT i, 0, randomblob(480) || zeroblob(480) FROM n;
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))
    .unwrap();
}

fn copied(db: &Path, to: &Path) -> Duration {
    let begun = Instant::now();
    std::fs::copy(db, to).unwrap();
    std::fs::File::open(to).unwrap().sync_all().unwrap();
    let took = begun.elapsed();
    std::fs::remove_file(to).unwrap();
    took
}

/// The longest commit of a writer while `f` runs.
fn stall(db: &Path, f: impl FnOnce()) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, db) = (Arc::clone(&stop), db.to_path_buf());
    let writer = std::thread::spawn(move || {
        let c = Connection::open(db).unwrap();
        c.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0")
            .unwrap();
        let (mut longest, mut i) = (Duration::ZERO, 0i64);
        while !seen.load(Ordering::Relaxed) {
            let begun = Instant::now();
            i = (i + 7919) % ROWS;
            c.execute("UPDATE t SET n = n + 1 WHERE id = ?1", [i + 1])
                .unwrap();
            longest = longest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        longest
    });
    f();
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap()
}

/// Changes rows on pages of their own; gives the bytes of these pages.
fn change(db: &Path) -> u64 {
    let c = Connection::open(db).unwrap();
    let step = ROWS / CHANGED;
    c.execute("UPDATE t SET v = randomblob(960) WHERE id % ?1 = 0", [step])
        .unwrap();
    let count: i64 = c
        .query_row("SELECT count(*) FROM t WHERE id % ?1 = 0", [step], |r| {
            r.get(0)
        })
        .unwrap();
    u64::try_from(count).unwrap() * 4096
}
