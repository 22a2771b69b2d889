//! The writer thread: the only code that writes to the ledger. It drains the queue into groups, commits each as
//! one transaction, with the checkpoint that signs it, and answers after COMMIT. It does not validate entries.
//!
//! After a storage error nothing is tried again: it answers every later request with that error.

mod batch;
mod control;
mod draft;
mod guards;
mod opening;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::LedgerError;
use crate::files::Identity;
use crate::ledger::{Head, State, lock};
use crate::merkle::Frontier;
use crate::signed::SignedCheckpoint;

pub(crate) use batch::Batch;
pub(crate) use control::{Control, Work};
pub(crate) use draft::Seal;
use draft::{Draft, Signing};

/// Most entries in one commit, not counting a last batch that overshoots it.
pub const GROUP_ENTRIES_MAX: usize = 1024;
/// Most bytes in one commit, not counting a last batch that overshoots it: 8 MiB.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// The write-ahead log is copied into the database after about this many pages.
const COPY_PAGES: usize = 1000;
/// A write-ahead log that readers kept from being copied for this many pages is waited for.
const COPY_PAGES_URGENT: i64 = 16_000;

const COMMITTING: &str = "writing an entry";

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Append(Append),
    Control(Control),
}

/// One call of append: its entries are written together or not at all.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) batch: Arc<Batch>,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Seal>, LedgerError>>,
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
    tree: Frontier,
    signing: Signing,
    clock: fn() -> jiff::Timestamp,
    newest: Option<Arc<SignedCheckpoint>>,
    /// Changes when another connection commits.
    data_version: i64,
    database: Identity,
    wal_path: PathBuf,
    wal: Identity,
    pages_since_copy: usize,
}

impl Writer {
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    pub(crate) fn newest(&self) -> Option<Arc<SignedCheckpoint>> {
        self.newest.clone()
    }

    /// Serves requests until every handle is gone or closed.
    pub(crate) fn run(mut self, requests: &Receiver<Request>, state: &State) {
        let mut next = None;
        while let Some(request) = next.take().or_else(|| requests.recv().ok()) {
            match request {
                Request::Append(first) => {
                    let group = gather(first, requests, &mut next);
                    self.serve(group, state);
                }
                Request::Control(control) => self.control(control, state),
            }
            // A file that just failed is not written to again, not even to tidy it.
            if lock(&state.poison).is_none()
                && let Err(error) = self.copy_wal_if_due()
            {
                self.poison(state, error);
            }
        }
        self.close(state);
    }

    /// Commits a group and answers each of its requests.
    fn serve(&mut self, mut group: Vec<Append>, state: &State) {
        // Each round answers at least one request.
        while !group.is_empty() {
            if let Some(cause) = lock(&state.poison).clone() {
                refuse(group, &LedgerError::Poisoned { cause });
                return;
            }
            match self.commit(&group) {
                Ok(seals) => {
                    self.publish(state);
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

    /// Tells the handles what is durable now.
    fn publish(&self, state: &State) {
        *lock(&state.head) = self.head;
        state.checkpoint.send_if_modified(|told| {
            let new = self.newest.as_ref().map(|checkpoint| checkpoint.tree_size);
            let changed = told.as_ref().map(|checkpoint| checkpoint.tree_size) != new;
            if changed {
                told.clone_from(&self.newest);
            }
            changed
        });
    }

    /// One transaction for the group. Returns what sealed each entry, in order.
    fn commit(&mut self, group: &[Append]) -> Result<Vec<Seal>, Failure> {
        let bytes = group.iter().map(|request| request.bytes).sum();
        self.transact(bytes, |draft| {
            draft.record_missing_key()?;
            let mut seals = Vec::new();
            for (at, request) in group.iter().enumerate() {
                for (entry, payload_hash) in request.batch.hashed() {
                    seals.push(draft.append(at, entry, payload_hash)?);
                }
            }
            Ok(seals)
        })
    }

    /// Runs `work` in a transaction, signs what it appended, commits, and looks whether the file is still there.
    fn transact<T>(
        &mut self,
        bytes: usize,
        work: impl FnOnce(&mut Draft<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let path = &self.path;
        let fail = |error: rusqlite::Error| storage_failure(path, &error);
        // A statement that failed leaves the transaction to be rolled back when it is dropped; if even that
        // fails, the next BEGIN does, and ends the writer.
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)
                .map_err(fail)?;
        let mut data_version = data_version(&transaction).map_err(fail)?;
        let mut draft = Draft::new(
            &transaction,
            path,
            self.head,
            self.tree.clone(),
            self.signing.clone(),
            self.clock,
        );
        if data_version != self.data_version {
            draft.adopt()?;
            data_version = self::data_version(&transaction).map_err(fail)?;
        }
        let done = work(&mut draft)?;
        let newest = draft.sign()?;
        let (head, tree, signing) = draft.into_parts();
        transaction.commit().map_err(fail)?;
        self.data_version = data_version;
        (self.head, self.tree, self.signing) = (head, tree, signing);
        self.newest = newest.map(Arc::new).or(self.newest.take());
        self.pages_since_copy += 8 + bytes / 2048;
        self.still_in_place().map_err(Failure::Fatal)?;
        Ok(done)
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
    fn copy_wal_if_due(&mut self) -> Result<(), LedgerError> {
        if self.pages_since_copy < COPY_PAGES {
            return Ok(());
        }
        self.pages_since_copy = 0;
        let (_, pages) = self.copy_wal("PRAGMA wal_checkpoint(PASSIVE)")?;
        if pages > COPY_PAGES_URGENT {
            // Waits for readers as long as the busy timeout, and lets the log start anew. Busy is no error.
            let (busy, pages) = self.copy_wal("PRAGMA wal_checkpoint(RESTART)")?;
            if busy {
                tracing::warn!(
                    pages,
                    "a reader keeps the ledger's write-ahead log from being cut back"
                );
            }
        }
        Ok(())
    }

    fn copy_wal(&self, sql: &str) -> Result<(bool, i64), LedgerError> {
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

/// Takes further appends from the queue; a request of another kind ends the group and is `next`.
fn gather(first: Append, requests: &Receiver<Request>, next: &mut Option<Request>) -> Vec<Append> {
    let (mut entries, mut bytes) = (first.batch.len(), first.bytes);
    let mut group = vec![first];
    while entries < GROUP_ENTRIES_MAX
        && bytes < GROUP_BYTES_MAX
        && let Ok(request) = requests.try_recv()
    {
        match request {
            Request::Append(append) => {
                entries += append.batch.len();
                bytes += append.bytes;
                group.push(append);
            }
            control @ Request::Control(_) => {
                *next = Some(control);
                break;
            }
        }
    }
    group
}

fn answer(group: Vec<Append>, seals: Vec<Seal>) {
    let mut seals = seals.into_iter();
    for Append { batch, reply, .. } in group {
        let own = seals.by_ref().take(batch.len()).collect();
        // The caller gets the entries back without a copy.
        drop(batch);
        // Nobody waits any more: the entry is written all the same, as documented.
        let _ = reply.send(Ok(own));
    }
}

fn refuse(group: Vec<Append>, error: &LedgerError) {
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
