//! The writer thread: the only code that writes to the ledger. It drains the queue into groups, commits each as
//! one transaction and answers after COMMIT. It does not validate and knows no JSON.
//!
//! After a storage error nothing is tried again: it answers every later request with that error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::check::{self, Chain, to_i64, to_u64};
use crate::files::{self, Identity};
use crate::ledger::{Head, Options, State, lock};
use crate::{Entry, Hash, LedgerError, NewEntry, connect, schema};

/// Most entries in one commit, not counting a last batch that overshoots it.
pub const GROUP_ENTRIES_MAX: usize = 1024;
/// Most bytes in one commit, not counting a last batch that overshoots it: 8 MiB.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Entries whose hashes are checked when a ledger is opened.
const TAIL_ENTRIES: i64 = 64;
/// The write-ahead log is copied into the database after about this many pages.
const CHECKPOINT_PAGES: usize = 1000;
/// A write-ahead log that readers kept from being copied for this many pages is waited for.
const CHECKPOINT_PAGES_URGENT: i64 = 16_000;

const COMMITTING: &str = "writing an entry";
const INSERT: &str = "INSERT INTO immutable_log (sequence, timestamp, actor, action, resource, subsystem, payload, result, entry_hash, previous_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// One call of append: its entries are written together or not at all.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) entries: Vec<NewEntry>,
    /// SHA-256 of each payload, made in the caller's thread.
    pub(crate) payload_hashes: Vec<Hash>,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Entry>, LedgerError>>,
    /// The place in the queue, given back when the request is done.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Why a group was not committed.
enum Failure {
    /// This request (by its place in the group) breaks a constraint; the others are good.
    Refused(usize, LedgerError),
    /// Nothing was written and the writer is as good as before.
    Busy(LedgerError),
    /// The writer ends here.
    Fatal(LedgerError),
}

#[derive(Debug)]
pub(crate) struct Writer {
    conn: Connection,
    path: PathBuf,
    head: Head,
    /// Changes when another connection commits.
    data_version: i64,
    database: Identity,
    wal_path: PathBuf,
    wal: Identity,
    pages_since_checkpoint: usize,
}

impl Writer {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, LedgerError> {
        let conn = connect::writer(path, options)?;
        let fail = |error| LedgerError::sqlite(path, "opening it", &error);
        // Before the tail is read: what another process commits in between is looked at with the first commit.
        let data_version = data_version(&conn).map_err(fail)?;
        let head = check_tail(&conn, path)?;
        let io = |error| LedgerError::io(path, "opening it", &error);
        // SQLite resolves links once, so does this: later the same names are looked at.
        let path = fs::canonicalize(path).map_err(io)?;
        let database = Identity::of(&path).map_err(io)?;
        // The reads above made SQLite open, and if need be create, the write-ahead log.
        let wal_path = files::wal_path(&path);
        let wal = Identity::of(&wal_path).map_err(io)?;
        Ok(Self {
            conn,
            path,
            head,
            data_version,
            database,
            wal_path,
            wal,
            pages_since_checkpoint: 0,
        })
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Serves requests until every handle is gone or closed.
    pub(crate) fn run(mut self, requests: &Receiver<Request>, state: &State) {
        while let Ok(first) = requests.recv() {
            let group = gather(first, requests);
            self.serve(group, state);
            // A file that just failed is not written to again, not even to tidy it.
            if lock(&state.poison).is_none()
                && let Err(error) = self.checkpoint_if_due()
            {
                self.poison(state, error);
            }
        }
        self.close(state);
    }

    /// Commits a group and answers each of its requests.
    fn serve(&mut self, mut group: Vec<Request>, state: &State) {
        // Each round answers at least one request.
        while !group.is_empty() {
            if let Some(cause) = lock(&state.poison).clone() {
                refuse(group, &LedgerError::Poisoned { cause });
                return;
            }
            match self.commit(&group) {
                Ok(seals) => {
                    *lock(&state.head) = self.head;
                    answer(group, seals);
                    return;
                }
                Err(Failure::Refused(at, error)) => refuse(vec![group.remove(at)], &error),
                Err(Failure::Busy(error)) => {
                    refuse(group, &error);
                    return;
                }
                Err(Failure::Fatal(error)) => {
                    self.poison(state, error.clone());
                    refuse(group, &error);
                    return;
                }
            }
        }
    }

    /// One transaction for the group. Returns sequence, hash and previous hash of each entry, in order.
    fn commit(&mut self, group: &[Request]) -> Result<Vec<Seal>, Failure> {
        let path = &self.path;
        let fail = |error: rusqlite::Error| storage_failure(path, &error);
        // A statement that failed leaves the transaction to be rolled back when it is dropped; if even that
        // fails, the next BEGIN does, and ends the writer.
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)
                .map_err(fail)?;
        let (mut head, data_version) =
            if data_version(&transaction).map_err(fail)? == self.data_version {
                (self.head, self.data_version)
            } else {
                adopt(&transaction, path, self.head)?
            };
        let mut seals = Vec::new();
        {
            let mut insert = transaction.prepare_cached(INSERT).map_err(fail)?;
            for (at, request) in group.iter().enumerate() {
                for (entry, payload_hash) in request.entries.iter().zip(&request.payload_hashes) {
                    let seal = Seal::of(entry, *payload_hash, head);
                    seal.insert(&mut insert, entry).map_err(|error| {
                        match error.sqlite_extended_error_code() {
                            // The trigger's refusal is about the chain, not about this entry.
                            Some(rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER) => {
                                Failure::Fatal(LedgerError::sqlite(path, COMMITTING, &error))
                            }
                            _ if error.sqlite_error_code()
                                == Some(ErrorCode::ConstraintViolation) =>
                            {
                                Failure::Refused(at, LedgerError::sqlite(path, COMMITTING, &error))
                            }
                            _ => storage_failure(path, &error),
                        }
                    })?;
                    head = Head {
                        sequence: seal.sequence,
                        hash: seal.hash,
                    };
                    seals.push(seal);
                }
            }
        }
        transaction.commit().map_err(fail)?;
        self.data_version = data_version;
        self.head = head;
        let bytes: usize = group.iter().map(|request| request.bytes).sum();
        self.pages_since_checkpoint += 8 + bytes / 2048;
        self.still_in_place().map_err(Failure::Fatal)?;
        Ok(seals)
    }

    /// A file that was deleted or replaced takes writes and keeps none of them: look before acknowledging.
    fn still_in_place(&self) -> Result<(), LedgerError> {
        for (file, then, name) in [
            (&self.path, self.database, "the file"),
            (&self.wal_path, self.wal, "its -wal"),
        ] {
            let problem = match Identity::of(file) {
                Ok(now) if now == then => continue,
                Ok(_) => "is another file now".to_owned(),
                Err(error) => error.to_string(),
            };
            let detail = format!("{name}: {problem}");
            return Err(LedgerError::Replaced {
                path: self.path.clone(),
                detail,
            });
        }
        Ok(())
    }

    /// Copies the write-ahead log into the database now and then, after the answers were given.
    fn checkpoint_if_due(&mut self) -> Result<(), LedgerError> {
        if self.pages_since_checkpoint < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.pages_since_checkpoint = 0;
        let (_, pages) = self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)")?;
        if pages > CHECKPOINT_PAGES_URGENT {
            // Waits for readers as long as the busy timeout, and lets the log start anew. Busy is no error.
            let (busy, pages) = self.checkpoint("PRAGMA wal_checkpoint(RESTART)")?;
            if busy {
                tracing::warn!(
                    pages,
                    "a reader keeps the ledger's write-ahead log from being cut back"
                );
            }
        }
        Ok(())
    }

    fn checkpoint(&self, sql: &str) -> Result<(bool, i64), LedgerError> {
        let result = self
            .conn
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        match result {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Ok((true, 0))
            }
            other => other.map_err(|error| {
                LedgerError::sqlite(&self.path, "copying its write-ahead log into it", &error)
            }),
        }
    }

    fn poison(&self, state: &State, error: LedgerError) {
        let mut poison = lock(&state.poison);
        if poison.is_none() {
            tracing::error!(path = %self.path.display(), %error, "the ledger takes no more entries");
            *poison = Some(Arc::new(error));
        }
    }

    fn close(self, state: &State) {
        if lock(&state.poison).is_some() {
            // Closing would copy the write-ahead log into a database that just failed. Leave both as they
            // are; the next start recovers and checks.
            if let Err(error) = self
                .conn
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            {
                tracing::warn!(%error, "cannot switch off the ledger's checkpoint on closing");
            }
        }
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(path = %self.path.display(), %error, "closing the ledger failed");
        }
    }
}

/// What makes an entry part of the chain.
struct Seal {
    sequence: u64,
    hash: Hash,
    previous: Hash,
}

impl Seal {
    fn of(entry: &NewEntry, payload_hash: Hash, head: Head) -> Self {
        let sequence = head.sequence + 1;
        let hash = entry.leaf(sequence, head.hash, payload_hash).hash();
        Self {
            sequence,
            hash,
            previous: head.hash,
        }
    }

    fn insert(
        &self,
        insert: &mut rusqlite::CachedStatement<'_>,
        entry: &NewEntry,
    ) -> rusqlite::Result<usize> {
        insert.execute(params![
            to_i64(self.sequence),
            entry.timestamp,
            entry.actor,
            entry.action,
            entry.resource,
            entry.subsystem,
            entry.payload,
            entry.result,
            self.hash.to_string(),
            self.previous.to_string(),
        ])
    }
}

fn gather(first: Request, requests: &Receiver<Request>) -> Vec<Request> {
    let (mut entries, mut bytes) = (first.entries.len(), first.bytes);
    let mut group = vec![first];
    while entries < GROUP_ENTRIES_MAX
        && bytes < GROUP_BYTES_MAX
        && let Ok(request) = requests.try_recv()
    {
        entries += request.entries.len();
        bytes += request.bytes;
        group.push(request);
    }
    group
}

fn answer(group: Vec<Request>, seals: Vec<Seal>) {
    let mut seals = seals.into_iter();
    for request in group {
        let entries = request
            .entries
            .into_iter()
            .zip(seals.by_ref())
            .map(|(new, seal)| Entry::sealed(new, seal.sequence, seal.hash, seal.previous))
            .collect();
        // Nobody waits any more: the entry is written all the same, as documented.
        let _ = request.reply.send(Ok(entries));
    }
}

fn refuse(group: Vec<Request>, error: &LedgerError) {
    for request in group {
        let _ = request.reply.send(Err(error.clone()));
    }
}

fn storage_failure(path: &Path, error: &rusqlite::Error) -> Failure {
    match LedgerError::sqlite(path, COMMITTING, error) {
        busy @ LedgerError::Busy { .. } => Failure::Busy(busy),
        fatal => Failure::Fatal(fatal),
    }
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Another process committed: its entries have to continue the chain from the head that was known here, under the
/// same schema. Returns the new head.
fn adopt(conn: &Connection, path: &Path, known: Head) -> Result<(Head, i64), Failure> {
    let fail = |error: rusqlite::Error| storage_failure(path, &error);
    check_schema(conn, path).map_err(Failure::Fatal)?;
    let head = check_rows(conn, path, known, Chain::after(known.sequence, known.hash))
        .map_err(Failure::Fatal)?;
    if known.sequence > 0 {
        let there: Option<String> = conn
            .query_row(
                "SELECT max(entry_hash) FROM immutable_log WHERE sequence = ?1",
                [to_i64(known.sequence)],
                |row| row.get(0),
            )
            .map_err(fail)?;
        if there != Some(known.hash.to_string()) {
            let kind = crate::DamageKind::BrokenLink;
            return Err(Failure::Fatal(does_not_verify(
                path,
                Some(known.sequence),
                kind,
            )));
        }
    }
    Ok((head, data_version(conn).map_err(fail)?))
}

/// The schema, and the newest entries re-hashed. Returns the head.
fn check_tail(conn: &Connection, path: &Path) -> Result<Head, LedgerError> {
    check_schema(conn, path)?;
    let fail = |error| LedgerError::sqlite(path, "checking its newest entries", &error);
    let last: Option<i64> = conn
        .query_row("SELECT max(sequence) FROM immutable_log", [], |row| {
            row.get(0)
        })
        .map_err(fail)?;
    let last = last.unwrap_or(0);
    let empty = Head {
        sequence: 0,
        hash: Hash::ZERO,
    };
    if last <= TAIL_ENTRIES {
        return check_rows(conn, path, empty, Chain::from_start());
    }
    let before = Head {
        sequence: to_u64(last - TAIL_ENTRIES),
        hash: Hash::ZERO,
    };
    check_rows(
        conn,
        path,
        before,
        Chain::from_middle(last - TAIL_ENTRIES + 1),
    )
}

fn check_schema(conn: &Connection, path: &Path) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "checking its schema", &error);
    match schema::faults(conn).map_err(fail)?.into_iter().next() {
        None => Ok(()),
        Some(damage) => Err(does_not_verify(path, None, damage.kind)),
    }
}

/// Re-hashes all rows after `known`. Returns the last of them, or `known`.
fn check_rows(
    conn: &Connection,
    path: &Path,
    known: Head,
    mut chain: Chain,
) -> Result<Head, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "checking its newest entries", &error);
    let sql = format!(
        "SELECT {} FROM immutable_log NOT INDEXED WHERE sequence > ?1 ORDER BY sequence",
        check::COLUMNS
    );
    let mut statement = conn.prepare_cached(&sql).map_err(fail)?;
    let mut rows = statement.query([to_i64(known.sequence)]).map_err(fail)?;
    let mut head = known;
    while let Some(row) = rows.next().map_err(fail)? {
        let checked = chain.check(row, conn).map_err(fail)?;
        if let Some(damage) = checked.damage {
            return Err(does_not_verify(path, damage.sequence, damage.kind));
        }
        head = Head {
            sequence: to_u64(checked.sequence),
            hash: checked.hash,
        };
    }
    Ok(head)
}

fn does_not_verify(path: &Path, sequence: Option<u64>, kind: crate::DamageKind) -> LedgerError {
    LedgerError::DoesNotVerify {
        path: path.to_owned(),
        sequence,
        kind,
    }
}
