//! The full verification: every entry re-hashed as stored, the chain, the schema, SQLite's own consistency. Reads
//! only, needs no right to write, works on a live ledger and on a copy.
//!
//! What it cannot see without a checkpoint from elsewhere: a tail that was cut off, a history that was rewritten
//! to its end, an old copy put back. Compare [`Report::merkle_root`] or [`Report::head`] with one for that.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use serde::Serialize;

use crate::check::{CHUNK_ENTRIES, COLUMNS, Chain, to_u64};
use crate::error::describe;
use crate::merkle::Frontier;
use crate::{Damage, DamageKind, Hash, LedgerError, connect, schema};

/// Most damages that a report lists; all are counted.
pub const DAMAGE_LISTED_MAX: usize = 100;

/// Progress is told after this many entries.
const PROGRESS_ENTRIES: u64 = 1024;

/// What to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Also run SQLite's `integrity_check`, which compares the indexes with the table: an entry that is missing
    /// in an index is hidden from queries though the chain is whole. Default on.
    pub integrity_check: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            integrity_check: true,
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Entries read.
    pub entries: u64,
    /// Sequence of the first of them.
    pub first_sequence: Option<u64>,
    /// Sequence of the last of them.
    pub last_sequence: Option<u64>,
    /// Hash of the last entry, recomputed; zeros for an empty log.
    pub head: Hash,
    /// RFC 6962 Merkle root over the recomputed leaf hashes, entry 1 being leaf 0. Meaningful if the report
    /// [is sound](Report::is_sound).
    pub merkle_root: Hash,
    /// What is wrong, in the order of finding: schema, entries in sequence order, SQLite's own check. At most
    /// [`DAMAGE_LISTED_MAX`].
    pub damage: Vec<Damage>,
    /// How many damages there are, listed or not.
    pub damage_count: u64,
}

impl Report {
    /// Whether nothing is wrong, as far as the file alone can tell.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    /// The first entry that is damaged, where the damage is about entries.
    pub fn first_bad_sequence(&self) -> Option<u64> {
        self.damage.iter().find_map(|damage| damage.sequence)
    }

    fn empty() -> Self {
        Self {
            entries: 0,
            first_sequence: None,
            last_sequence: None,
            head: Hash::ZERO,
            merkle_root: Frontier::new().root(),
            damage: Vec::new(),
            damage_count: 0,
        }
    }

    fn add(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(damage);
        }
    }
}

/// Verifies a ledger from its first entry to the end it has now. `progress` hears (entries done, entries in all)
/// now and then and at the end.
///
/// Damage is in the report, also that of a file that is no database any more. An error is about the surroundings: no
/// such file, no permission, a newer format version, another program's database, a failing disk.
pub fn verify(
    path: impl AsRef<Path>,
    progress: impl FnMut(u64, u64),
) -> Result<Report, LedgerError> {
    verify_with(path, VerifyOptions::default(), progress)
}

/// As [`verify`] with options.
pub fn verify_with(
    path: impl AsRef<Path>,
    options: VerifyOptions,
    progress: impl FnMut(u64, u64),
) -> Result<Report, LedgerError> {
    let path = path.as_ref();
    let mut report = Report::empty();
    let conn = match connect::reader_of_any(path) {
        Ok(conn) => conn,
        // A first page that was overwritten looks just like a file that never was a database.
        Err(LedgerError::NotALedger { detail, .. } | LedgerError::Corrupt { detail, .. }) => {
            report.add(Damage {
                sequence: None,
                kind: DamageKind::Unreadable { detail },
            });
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let result = match identify(&conn, path) {
        Ok(fault) => {
            if let Some(fault) = fault {
                report.add(fault);
            }
            run(&conn, options, progress, &mut report)
        }
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Sqlite(error)) => Err(error),
    };
    match result {
        Ok(()) => Ok(report),
        Err(error) if is_damage(&error) => {
            let sequence = report.last_sequence.map_or(1, |last| last + 1);
            let kind = DamageKind::Unreadable {
                detail: describe(&error),
            };
            report.add(Damage {
                sequence: Some(sequence),
                kind,
            });
            Ok(report)
        }
        Err(error) => Err(LedgerError::sqlite(path, "verifying it", &error)),
    }
}

enum Stop {
    Error(LedgerError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A ledger whose marks in the file's header were changed is a damaged ledger, not somebody else's database.
fn identify(conn: &Connection, path: &Path) -> Result<Option<Damage>, Stop> {
    match connect::accept(path, schema::file_kind(conn)?) {
        Ok(()) => Ok(None),
        Err(LedgerError::NotALedger { detail, .. }) if schema::has_log(conn)? => {
            let object = format!("application_id or user_version is not a ledger's, so {detail}");
            Ok(Some(Damage {
                sequence: None,
                kind: DamageKind::ChangedSchema { object },
            }))
        }
        Err(error) => Err(Stop::Error(error)),
    }
}

/// Whether an error tells of the file's content, not of the disk, a lock or memory.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::Unknown
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
        ),
        // A value that is not of the type that its column must have.
        None => true,
    }
}

fn run(
    conn: &Connection,
    options: VerifyOptions,
    progress: impl FnMut(u64, u64),
    report: &mut Report,
) -> rusqlite::Result<()> {
    for fault in schema::faults(conn)? {
        report.add(fault);
    }
    // Without the table, or with another one, there is nothing more to read; that is reported already.
    if !schema::has_log(conn)? || conn.prepare(&select()).is_err() {
        return Ok(());
    }
    entries(conn, progress, report)?;
    if options.integrity_check {
        let found = conn.query_row("PRAGMA integrity_check(1)", [], |row| {
            row.get::<_, String>(0)
        });
        let detail = match found {
            Ok(ok) if ok == "ok" => return Ok(()),
            Ok(detail) => detail,
            Err(error) if is_damage(&error) => describe(&error),
            Err(error) => return Err(error),
        };
        report.add(Damage {
            sequence: None,
            kind: DamageKind::Inconsistent { detail },
        });
    }
    Ok(())
}

fn select() -> String {
    format!(
        "SELECT {COLUMNS} FROM immutable_log NOT INDEXED WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
    )
}

fn entries(
    conn: &Connection,
    mut progress: impl FnMut(u64, u64),
    report: &mut Report,
) -> rusqlite::Result<()> {
    let last: Option<i64> = conn.query_row(
        "SELECT max(sequence) FROM immutable_log NOT INDEXED",
        [],
        |row| row.get(0),
    )?;
    let last = last.unwrap_or(0);
    let total = to_u64(last);
    let mut statement = conn.prepare(&select())?;
    let mut chain = Chain::from_start();
    let mut tree = Frontier::new();
    let mut after = i64::MIN;
    // Ends: a full chunk moves `after` on, and `last` stands.
    loop {
        let mut rows = statement.query([after, last, CHUNK_ENTRIES])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let checked = chain.check(row, conn)?;
            read += 1;
            after = after.max(checked.sequence);
            report.entries += 1;
            let sequence = to_u64(checked.sequence);
            report.first_sequence.get_or_insert(sequence);
            report.last_sequence = Some(sequence);
            report.head = checked.hash;
            tree.push(checked.hash);
            if let Some(damage) = checked.damage {
                report.add(damage);
            }
            if report.entries.is_multiple_of(PROGRESS_ENTRIES) {
                progress(report.entries, total.max(report.entries));
            }
        }
        if read < CHUNK_ENTRIES {
            break;
        }
    }
    report.merkle_root = tree.root();
    progress(report.entries, total.max(report.entries));
    Ok(())
}
