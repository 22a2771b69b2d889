//! A witness's memory and its answers (C2SP `tlog-witness`): for each log that it knows the latest checkpoint that it
//! cosigned, and what a log signed that cannot be reconciled with that. Its own small SQLite file, best on another host
//! than the log's. Network and keys are the caller's.
//!
//! What is decided is [`crate::tlog::witness::decide`]'s matter; here it is made durable.
//!
//! # Invariants
//!
//! - **Stored, then signed.** The comparison with the checkpoint before, the new checkpoint and the commit are one
//!   IMMEDIATE transaction with `synchronous=FULL`; a cosignature leaves [`WitnessStore::add_checkpoint`] after the
//!   commit only. So a witness that was killed at any moment never forgets what it signed.
//! - **A storage failure is final.** After one everything is answered with 500 and nothing is cosigned, until the
//!   store was opened again, which checks it. A lock held by another process is no failure: 500 that time only.
//! - **A log never shrinks here.** Nothing puts a smaller checkpoint in the place of a larger one.
//! - **Time never goes back.** Where the clock is behind the time of the log's last cosignature, that time is stated
//!   again. A clock that once ran ahead is so stated until the true time is past it.
//! - **Evidence is kept, within bounds.** The signed request with the checkpoint known then; once for each text.
//!
//! An old copy of the store put back makes the witness forget, and it cannot notice that itself: whoever can write
//! its file must not be the one who can write the log's.
//!
//! | what | bound |
//! |---|---|
//! | logs | [`LOGS_MAX`], each with [`KEYS_PER_LOG_MAX`] keys |
//! | evidence for each log and kind | [`EVIDENCE_MAX`] requests, together [`EVIDENCE_BYTES_MAX`] |
//! | a request | [`REQUEST_BYTES_MAX`](crate::tlog::witness::REQUEST_BYTES_MAX) |
//! | waiting for another process's lock | [`BUSY_TIMEOUT`] |

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::files::{self, Identity};
use crate::tlog::witness::{
    AddCheckpoint, Decision, RequestError, SIZE_CONTENT_TYPE, cosignatures_body, decide, size_body,
};
use crate::tlog::{Algorithm, Checkpoint, Cosigner, SignedNote, VerifierKey, cosignature};
use crate::{Hash, connect};

mod error;
mod evidence;
mod rows;
mod schema;

pub use error::StoreError;
pub use evidence::{Evidence, EvidenceKind};
pub use schema::{APPLICATION_ID, VERSION};

use error::RowError;
use rows::Recorded;

/// The most logs that a store knows.
pub const LOGS_MAX: usize = 4096;

/// The most keys of one log.
pub const KEYS_PER_LOG_MAX: usize = 16;

/// The most requests kept as evidence for each log and kind.
pub const EVIDENCE_MAX: usize = 64;

/// The most bytes kept as evidence for each log and kind.
pub const EVIDENCE_BYTES_MAX: usize = 1 << 20;

/// How long another process's lock on the store is waited for.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// After so many commits the write-ahead log is written back.
const COMMITS_PER_CHECKPOINT: u32 = 128;

/// The content type of answers that are not sizes.
const TEXT: &str = "text/plain; charset=utf-8";

/// What is answered to a request, for whoever speaks HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200, 400, 403, 404, 409 or 422 as specified; 500 for a storage failure.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// Of 200 the cosignature's line, of 409 the known size; else a line for people.
    pub body: String,
}

impl Response {
    fn text(status: u16, line: impl std::fmt::Display) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: format!("{line}\n"),
        }
    }
}

/// The latest checkpoint of a log that was cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// As a note with the log's signature and the witness's.
    pub note: SignedNote,
    /// What it states.
    pub checkpoint: Checkpoint,
    /// When it was cosigned, seconds since 1970, as the cosignature states it.
    pub cosigned_unix: u64,
}

/// A log that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLog {
    /// The first line of its checkpoints.
    pub origin: String,
    /// The keys that it may sign with, in the order in which they were added.
    pub keys: Vec<VerifierKey>,
    /// When its first key was added, seconds since 1970.
    pub added_unix: u64,
    /// Number of entries in the latest checkpoint that was cosigned, `None` before the first.
    pub size: Option<u64>,
    /// How many requests are kept as evidence against it.
    pub evidence: u64,
}

/// The store; see the [module](self). Shared between threads by reference, one request at a time.
#[derive(Debug)]
pub struct WitnessStore {
    path: PathBuf,
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    conn: Connection,
    commits: u32,
    failed: Option<StoreError>,
}

/// What a request comes to, as things are in one transaction.
struct Judged {
    recorded: Option<Recorded>,
    keys: Vec<VerifierKey>,
    decision: Decision,
}

impl Judged {
    fn new(conn: &Connection, request: &AddCheckpoint) -> Result<Self, RowError> {
        let keys = rows::keys(conn, request.origin())?;
        let recorded = match &keys {
            Some(_) => rows::latest(conn, request.origin())?,
            None => None,
        };
        let known = recorded.as_ref().map(Recorded::known);
        Ok(Self {
            decision: decide(known.as_ref(), keys.as_deref(), request),
            keys: keys.unwrap_or_default(),
            recorded,
        })
    }

    /// What the request is evidence of. Also with a wrong old size another root of the known size is a fork.
    fn evidence(&self, request: &AddCheckpoint) -> Option<EvidenceKind> {
        match (&self.decision, &self.recorded) {
            (Decision::InconsistentRoot { .. }, _) => Some(EvidenceKind::OtherRoot),
            (Decision::BadProof(_), _) => Some(EvidenceKind::BadProof),
            (Decision::Conflict { .. }, Some(recorded)) => {
                let signed = Checkpoint::parse(request.checkpoint.text()).ok()?;
                let is_other = signed.size == recorded.checkpoint.size
                    && signed.root != recorded.checkpoint.root;
                is_other.then_some(EvidenceKind::OtherRoot)
            }
            _ => None,
        }
    }

    /// The answer where nothing is cosigned.
    fn refusal(&self) -> Response {
        match &self.decision {
            Decision::Conflict { size } | Decision::InconsistentRoot { size, .. } => Response {
                status: self.decision.status(),
                content_type: SIZE_CONTENT_TYPE,
                body: size_body(*size),
            },
            Decision::UnknownOrigin { .. } => Response::text(404, "this log is not known here"),
            Decision::NoTrustedSignature(error) => Response::text(403, error),
            Decision::Malformed(error) => Response::text(400, error),
            Decision::BadProof(error) => Response::text(422, error),
            Decision::Cosign { .. } => Response::text(500, "nothing was cosigned"),
        }
    }
}

impl WitnessStore {
    /// Opens or creates a store, mode 0600, and checks all of it: the schema, and that each checkpoint in it is signed
    /// by its log and cosigned by one of `own_keys`, this witness's present key and those it had before. A file that
    /// is anything else is refused and left as it is.
    pub fn open(path: &Path, own_keys: &[VerifierKey]) -> Result<Self, StoreError> {
        let cannot = |error: &dyn std::fmt::Display| StoreError::Open {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        files::create_private(path).map_err(|error| cannot(&error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags).map_err(|error| cannot(&error))?;
        conn.busy_timeout(BUSY_TIMEOUT)
            .map_err(|error| cannot(&error))?;
        prepare(&mut conn, path, own_keys).map_err(|error| match error {
            RowError::Sqlite(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) =>
            {
                StoreError::NotAStore {
                    path: path.to_owned(),
                    detail: "it is not a SQLite database, or its first page is damaged".to_owned(),
                }
            }
            RowError::Sqlite(error) => cannot(&error),
            other => other.at(path, "opening it"),
        })?;
        let identity = Identity::of(path).map_err(|error| cannot(&error))?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            state: Mutex::new(State {
                conn,
                commits: 0,
                failed: None,
            }),
        })
    }

    /// Answers the body of a POST to `add-checkpoint`; see the [module](self) for what is durable when. `now_unix` is
    /// the time of day, seconds since 1970. Blocks for a commit: not for an async thread.
    pub fn add_checkpoint(&self, body: &[u8], cosigner: &Cosigner, now_unix: u64) -> Response {
        let request = match AddCheckpoint::parse(body) {
            Ok(request) => request,
            Err(error) => return Response::text(400, error),
        };
        let answered = self.answer(&request, cosigner, now_unix);
        answered.unwrap_or_else(|error| {
            tracing::error!(%error, origin = request.origin(), "nothing was cosigned: the witness's store failed");
            Response::text(500, "the witness's store failed, nothing was cosigned")
        })
    }

    fn answer(
        &self,
        request: &AddCheckpoint,
        cosigner: &Cosigner,
        now_unix: u64,
    ) -> Result<Response, StoreError> {
        // What changes nothing takes no lock from those that do, and nobody without a log's key can cause a write.
        let judged = self.read(|conn| Judged::new(conn, request))?;
        if judged.evidence(request).is_none() && !matches!(judged.decision, Decision::Cosign { .. })
        {
            return Ok(judged.refusal());
        }
        self.change(|conn| {
            let judged = Judged::new(conn, request)?;
            let now_unix = now_unix.min(cosignature::TIME_MAX);
            if let Decision::Cosign { checkpoint } = &judged.decision {
                return cosign(conn, &judged, checkpoint, request, cosigner, now_unix);
            }
            if let (Some(kind), Ok(verified)) = (
                judged.evidence(request),
                request.checkpoint.verify(&judged.keys),
            ) {
                let request = AddCheckpoint {
                    checkpoint: evidence::trimmed(&request.checkpoint, &verified),
                    ..request.clone()
                };
                let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
                if evidence::keep(conn, kind, &request, judged.recorded.as_ref(), now)? {
                    tracing::warn!(
                        origin = request.origin(),
                        kind = kind.name(),
                        "a log signed what cannot be reconciled with what is known, the request is kept"
                    );
                }
            }
            Ok(judged.refusal())
        })
    }

    /// Makes a key of a log known: the first makes the log known, each further one is for rotation. The origin is the
    /// key's name where none is given. Returns whether the key is new.
    pub fn add_log(
        &self,
        key: &VerifierKey,
        origin: Option<&str>,
        now_unix: u64,
    ) -> Result<bool, StoreError> {
        if key.algorithm() != Algorithm::Ed25519 {
            let name = key.name().to_owned();
            return Err(StoreError::NotALogKey { name });
        }
        let origin = origin.unwrap_or(key.name());
        let plain = Checkpoint::new(origin, 0, Hash::ZERO);
        if Checkpoint::parse(&plain.to_text()) != Ok(plain) {
            let origin = origin.to_owned();
            return Err(StoreError::Origin { origin });
        }
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        self.change(|conn| rows::add_key(conn, origin, key, now))
    }

    /// The latest checkpoint of a log that was cosigned; `None` where there is none or the log is not known.
    pub fn latest(&self, origin: &str) -> Result<Option<Latest>, StoreError> {
        self.read(|conn| {
            let recorded = rows::latest(conn, origin)?;
            recorded.as_ref().map(Recorded::latest).transpose()
        })
    }

    /// The logs that are known, by origin; at most [`LOGS_MAX`].
    pub fn logs(&self) -> Result<Vec<KnownLog>, StoreError> {
        self.read(rows::logs)
    }

    /// What is kept against a log, oldest first.
    pub fn evidence(&self, origin: &str) -> Result<Vec<Evidence>, StoreError> {
        self.read(|conn| evidence::list(conn, origin))
    }

    /// The failure after which nothing is cosigned any more, if there was one.
    pub fn failure(&self) -> Option<StoreError> {
        self.lock().failed.clone()
    }

    /// The store's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has rolled its transaction back on the way out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        what: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let read = state
            .conn
            .transaction()
            .map_err(RowError::from)
            .and_then(|transaction| what(&transaction))
            .map_err(|error| error.at(&self.path, "reading it"));
        state.keep_failure(read)
    }

    /// Runs a change in one IMMEDIATE transaction. When this returns `Ok` it is committed, durable, and in the file
    /// that lies at the store's path.
    fn change<T>(
        &self,
        what: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let changed = state
            .change(what)
            .map_err(|error| error.at(&self.path, "writing to it"));
        let changed = changed.and_then(|done| {
            self.is_in_place()?;
            Ok(done)
        });
        state.keep_failure(changed)
    }

    fn is_in_place(&self) -> Result<(), StoreError> {
        let detail = match Identity::of(&self.path) {
            Ok(now) if now == self.identity => return Ok(()),
            Ok(_) => "another file lies there".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(StoreError::Replaced {
            path: self.path.clone(),
            detail,
        })
    }
}

impl State {
    fn change<T>(
        &mut self,
        what: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, RowError> {
        let transaction = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = what(&transaction)?;
        transaction.commit()?;
        self.commits += 1;
        if self.commits >= COMMITS_PER_CHECKPOINT {
            self.commits = 0;
            // SQLite's automatic one swallows its errors. That it could not do all, for a reader's sake, is none.
            self.conn
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        Ok(done)
    }

    fn keep_failure<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_final()
        {
            self.failed = Some(error.clone());
        }
        result
    }
}

fn prepare(conn: &mut Connection, path: &Path, own_keys: &[VerifierKey]) -> Result<(), RowError> {
    let is_new = schema::is_empty(conn, path)?;
    connect::configure(conn)?;
    if is_new {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        if schema::is_empty(&transaction, path)? {
            schema::create(&transaction)?;
        }
        transaction.commit()?;
    }
    let transaction = conn.transaction()?;
    schema::check(&transaction)?;
    rows::check(&transaction, own_keys)
}

/// Records the checkpoint with its cosignature. The answer must not leave before the commit.
fn cosign(
    conn: &Connection,
    judged: &Judged,
    checkpoint: &Checkpoint,
    request: &AddCheckpoint,
    cosigner: &Cosigner,
    now_unix: u64,
) -> Result<Response, RowError> {
    let verified = match request.checkpoint.verify(&judged.keys) {
        Ok(verified) => verified,
        Err(error) => return Ok(Response::text(403, error)),
    };
    let before = judged
        .recorded
        .as_ref()
        .map_or(0, |last| last.cosigned_unix);
    let cosigned_unix = now_unix.max(before);
    let recorded = Recorded {
        checkpoint: checkpoint.clone(),
        note: evidence::trimmed(&request.checkpoint, &verified),
        cosignature: cosigner.cosign(request.checkpoint.text(), cosigned_unix),
        cosigned_unix,
    };
    // What no note has room for cannot be shown to anybody either.
    let mut whole = recorded.note.clone();
    if let Err(error) = whole.add(recorded.cosignature.clone()) {
        return Ok(Response::text(400, RequestError::Note(error)));
    }
    rows::record(conn, &recorded)?;
    Ok(Response {
        status: 200,
        content_type: TEXT,
        body: cosignatures_body(&[recorded.cosignature]),
    })
}

#[cfg(test)]
mod tests;
