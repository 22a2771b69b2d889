//! The full verification: every entry re-hashed as stored, the chain, the Merkle tree, each checkpoint and its
//! signature, the keys, the schema, SQLite's own consistency. Reads only, needs no right to write, works on a live
//! ledger and on a copy.
//!
//! What nothing in the file can show: a tail that was cut off with its checkpoints, a history rewritten to its end by
//! somebody who has the key, an old copy put back. [`VerifyOptions::against`] takes checkpoints from elsewhere for
//! that, and [`Report::not_anchored`] says for which entries nobody elsewhere stands.

mod findings;
mod join;
mod scan;
mod whole;

use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use serde::Serialize;

use crate::error::describe;
use crate::merkle::Frontier;
use crate::tlog::{SignedNote, VerifierKey};
use crate::{Damage, DamageKind, Hash, LedgerError, connect, schema};

pub(crate) use findings::Findings;

/// Most damages that a report lists; all are counted.
pub const DAMAGE_LISTED_MAX: usize = 100;
/// Most threads that hash and check at the same time.
pub const VERIFY_THREADS_MAX: usize = 64;

/// What to verify, and against what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Also run SQLite's `integrity_check`, which compares the indexes with the table and reads each payload as JSON:
    /// an entry that is missing in an index is hidden from queries though the chain is whole. Default on. With more
    /// than one thread it has one of them, beside the hashing.
    pub integrity_check: bool,
    /// How many threads hash and check, 1 to [`VERIFY_THREADS_MAX`]. Default as many as the machine runs at once. The
    /// report is the same with any number.
    pub threads: usize,
    /// Checkpoints from elsewhere: from a witness, another mount, a person. The log must contain what they state.
    pub against: Vec<SignedNote>,
    /// The first key of the log, kept elsewhere: another one was substituted. Default: the file's word is taken.
    pub log_key: Option<VerifierKey>,
    /// The witnesses whose cosignatures count. Those of others are passed over.
    pub witnesses: Vec<VerifierKey>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            integrity_check: true,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            against: Vec::new(),
            log_key: None,
            witnesses: Vec::new(),
        }
    }
}

/// Somebody elsewhere who stands for the beginning of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// Name of the witness, or that it is a checkpoint given by the caller.
    pub by: String,
    /// For the first so many entries.
    pub tree_size: u64,
    /// When, as the witness states it, in seconds since 1970.
    pub time: Option<u64>,
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
    /// The name of the log; `None` if it has no key.
    pub origin: Option<String>,
    /// The key that signs it now.
    pub log_key: Option<VerifierKey>,
    /// How many checkpoints lie in the file.
    pub checkpoints: u64,
    /// How many entries the newest of them is about.
    pub newest_checkpoint: Option<u64>,
    /// Entries after the newest checkpoint: what nobody signed. 0 for a log without a key.
    pub unsigned: u64,
    /// Whether somebody stopped signing and nobody resumed it.
    pub signing_stopped: bool,
    /// Who elsewhere stands for how much of the log, each witness once.
    pub anchored: Vec<Anchor>,
    /// First and last of the entries for which nobody elsewhere stands: whoever has this machine may have changed
    /// them together with everything after them.
    pub not_anchored: Option<(u64, u64)>,
    /// Payloads that were dropped and have left their hashes.
    pub payloads_dropped: u64,
    /// The first entry that is damaged, as exactly as can be known, where damage is about entries.
    #[serde(rename = "first_bad_sequence")]
    first_bad: Option<u64>,
    /// What is wrong: schema first, then by sequence, then SQLite's own check. At most [`DAMAGE_LISTED_MAX`].
    pub damage: Vec<Damage>,
    /// How many damages there are, listed or not.
    pub damage_count: u64,
}

impl Report {
    /// Whether nothing is wrong, as far as the file and what it was compared with can tell.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    /// The first entry that is damaged, as exactly as can be known, where damage is about entries.
    pub fn first_bad_sequence(&self) -> Option<u64> {
        self.first_bad
    }

    fn empty() -> Self {
        Self {
            entries: 0,
            first_sequence: None,
            last_sequence: None,
            head: Hash::ZERO,
            merkle_root: Frontier::new().root(),
            origin: None,
            log_key: None,
            checkpoints: 0,
            newest_checkpoint: None,
            unsigned: 0,
            signing_stopped: false,
            anchored: Vec::new(),
            not_anchored: None,
            payloads_dropped: 0,
            first_bad: None,
            damage: Vec::new(),
            damage_count: 0,
        }
    }

    fn finish(mut self, findings: Findings) -> Self {
        self.first_bad = findings.first_bad();
        self.damage_count = findings.count();
        self.damage = findings.list();
        self
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
    verify_with(path, &VerifyOptions::default(), progress)
}

/// As [`verify`] with options. A checkpoint in [`VerifyOptions::against`] that has not the form of one is
/// [`LedgerError::Invalid`].
pub fn verify_with(
    path: impl AsRef<Path>,
    options: &VerifyOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, LedgerError> {
    let path = path.as_ref();
    if !(1..=VERIFY_THREADS_MAX).contains(&options.threads) {
        let problem = format!(
            "is {}, from 1 to {VERIFY_THREADS_MAX} are possible",
            options.threads
        );
        return Err(LedgerError::invalid("threads", problem));
    }
    let mut report = Report::empty();
    let mut findings = Findings::default();
    let conn = match connect::reader_of_any(path) {
        Ok(conn) => conn,
        // A first page that was overwritten looks just like a file that never was a database.
        Err(LedgerError::NotALedger { detail, .. } | LedgerError::Corrupt { detail, .. }) => {
            findings.add(Damage {
                sequence: None,
                kind: DamageKind::Unreadable { detail },
            });
            return Ok(report.finish(findings));
        }
        Err(error) => return Err(error),
    };
    let result = identify(&conn, path).and_then(|fault| {
        if let Some(fault) = fault {
            findings.add(fault);
        }
        whole::run(
            &conn,
            path,
            options,
            &mut progress,
            &mut report,
            &mut findings,
        )
    });
    match result {
        Ok(()) => Ok(report.finish(findings)),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Sqlite(error)) if is_damage(&error) => {
            findings.add(Damage {
                sequence: Some(report.last_sequence.map_or(1, |last| last + 1)),
                kind: DamageKind::Unreadable {
                    detail: describe(&error),
                },
            });
            Ok(report.finish(findings))
        }
        Err(Stop::Sqlite(error)) => Err(LedgerError::sqlite(path, "verifying it", &error)),
    }
}

enum Stop {
    Error(LedgerError),
    Sqlite(rusqlite::Error),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Error(error)
    }
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
