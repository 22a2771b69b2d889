//! Snapshots: what the target was like before anything was changed, and the way back to it.
//!
//! A snapshot is a directory below `storage/snapshots` (CONTRACT section 4) that appears whole or not at all. The
//! database is copied by SQLite's online backup, never as a file. Only the application's database and its
//! configuration are ever restored, and the database only when the caller fenced the service; the ledger's copy is
//! evidence. Nothing here checkpoints a foreign database or changes a lasting pragma of it.
//!
//! Everything blocks: call it from `spawn_blocking`.

pub(crate) mod blocks;
mod restore;
pub(crate) mod sqlite;
mod store;
mod take;

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Anomaly, Timestamp};
use serde::{Deserialize, Serialize};

pub use restore::{DatabaseRestore, Fence, RestoreReport, RestoreRequest, RestoreStage};
pub use sqlite::SqliteError;
pub use store::{PruneRules, Pruned};
pub use take::Room;

/// Version of `metadata.json` and of the restore journal that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Longest snapshot id, in bytes.
pub const ID_LEN_MAX: usize = 160;
/// Most configuration files in a snapshot.
pub const CONFIG_FILES_MAX: usize = 256;
/// Most snapshots in the directory that are looked at.
pub const SNAPSHOTS_MAX: usize = 10_000;

/// Why a snapshot is taken.
#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotKind {
    /// Before a healing: `pre_heal_<type>_<time>`.
    PreHeal {
        /// The anomaly to be healed, kept as `anomaly.json`.
        anomaly: Box<Anomaly>,
        /// Its name in the records.
        anomaly_id: String,
    },
    /// By the post-boot workflow: `workflow_<id>`.
    Workflow {
        /// The workflow: letters, digits, `_` and `-`.
        id: String,
    },
    /// Because a person asked: `manual_<label>_<time>`.
    Manual {
        /// The person's word for it: letters, digits, `_` and `-`.
        label: String,
    },
}

/// What goes into a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRequest {
    /// Why.
    pub kind: SnapshotKind,
    /// Now.
    pub at: Timestamp,
    /// The target's SQLite database.
    pub database: Option<PathBuf>,
    /// Evenkeel's ledger, copied as evidence and never restored.
    pub ledger: Option<PathBuf>,
    /// The target's configuration files; those that do not exist are left out.
    pub config_files: Vec<PathBuf>,
    /// The directory that the configuration files are below.
    pub root: PathBuf,
}

/// What a file in a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// The application's database.
    Database,
    /// The ledger: evidence only.
    Ledger,
    /// A configuration file.
    Config,
    /// The anomaly.
    Anomaly,
    /// A raw piece of a database that could not be copied properly (only in `before_restore_...`).
    Raw,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Its path in the snapshot, with `/`.
    pub name: String,
    /// SHA-256, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Where it was copied from.
    pub source: PathBuf,
    /// What it is.
    pub role: FileRole,
    /// Permission bits of the source, on Unix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Kept as blocks that snapshots share: how many bytes were written for it. `<name>.blocks` stands in its place, and
    /// `evenkeel snapshot extract` puts it together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

impl SnapshotFile {
    /// What stands for it in the snapshot's directory.
    pub fn stored_name(&self) -> String {
        match self.stored_bytes {
            Some(_) => format!("{}.blocks", self.name),
            None => self.name.clone(),
        }
    }

    /// Bytes that it takes on the disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.stored_bytes.unwrap_or(self.size)
    }
}

/// A snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRef {
    /// Its name: the directory's name.
    pub id: String,
    /// The directory.
    pub dir: PathBuf,
    /// Bytes that were written for it.
    pub bytes: u64,
    /// Its files, without `metadata.json`.
    pub files: Vec<SnapshotFile>,
    /// Every database in it passed its integrity check when it was taken, and every hash was read back.
    pub verified: bool,
    /// When it was taken.
    pub at: Timestamp,
    /// Why: the anomaly's type, `workflow`, `manual` or `before_restore`.
    pub kind: String,
}

/// `metadata.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Metadata {
    format_version: u32,
    snapshot_id: String,
    anomaly_id: Option<String>,
    timestamp: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    verified: bool,
    files: Vec<SnapshotFile>,
    /// Where the ledger stood, when it was too large to be copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<LedgerAt>,
}

/// How far a ledger reached: evidence that needs no copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAt {
    /// Number of its newest entry.
    pub sequence: u64,
    /// That entry's hash, hex.
    pub entry_hash: String,
}

/// Bounds on the making of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// How long a locked database is waited for, in milliseconds.
    pub busy_ms: u64,
    /// Free space that must remain beside the copies, in bytes.
    pub reserve_bytes: u64,
    /// Databases above this get the quick check instead of the full one, in bytes.
    pub full_check_bytes: u64,
    /// A target's database above this is kept as blocks that snapshots share, in bytes.
    pub blocks_above_bytes: u64,
    /// A ledger above this is not copied: how far it reached is noted instead, in bytes.
    pub ledger_copy_bytes: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            busy_ms: 5_000,
            reserve_bytes: 16 * 1024 * 1024,
            full_check_bytes: 64 * 1024 * 1024,
            blocks_above_bytes: 64 * 1024 * 1024,
            ledger_copy_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Why there is no snapshot, or no restore. The target is untouched unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another process holds the database locked.
    #[error(
        "{} was locked by another process for {waited_ms} ms: it could not be {tried}; end the transaction that holds the lock", db.display()
    )]
    Locked {
        /// The database.
        db: PathBuf,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// What was tried: `copied`, `restored`.
        tried: &'static str,
    },
    /// Too little space.
    #[error(
        "{} has {free} bytes free and a snapshot needs {needed}: make room, or prune snapshots", dir.display()
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// SQLite's words.
    #[error("{}: {source}", db.display())]
    Sqlite {
        /// The database.
        db: PathBuf,
        /// Why.
        source: SqliteError,
    },
    /// A text that cannot name a snapshot.
    #[error("`{id}` cannot name a snapshot: 1 to {ID_LEN_MAX} of letters, digits, _ and -")]
    BadId {
        /// The text, cut.
        id: String,
    },
    /// No such snapshot.
    #[error("there is no snapshot `{id}` in {}; `snapshot list` shows those there are", dir.display())]
    Unknown {
        /// The id.
        id: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Its files are not what they were.
    #[error("the snapshot `{id}` is damaged: {reason}; take another one")]
    Damaged {
        /// The snapshot.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error(
        "{what} has format version {found}, and this Evenkeel reads {FORMAT_VERSION}: use a newer one"
    )]
    TooNew {
        /// What.
        what: String,
        /// Its version.
        found: u32,
    },
    /// It does not hold what is to be restored.
    #[error("the snapshot `{id}` holds no {what}")]
    NotInSnapshot {
        /// The snapshot.
        id: String,
        /// What was asked for.
        what: String,
    },
    /// The database may have been written since.
    #[error(
        "the database is not restored: the service was not fenced (stopped) for the whole time, and data written since the snapshot would be lost; stop it, or restore by hand"
    )]
    NotFenced,
    /// A service was started while its database was replaced.
    #[error(
        "{} is restored, and a service was started meanwhile: what it wrote may be lost, and what it holds in memory may be stale; stop what starts it, and restore once more", db.display()
    )]
    FenceBroken {
        /// The database.
        db: PathBuf,
    },
    /// A restore was begun and has not ended.
    #[error("an earlier restore of `{id}` has not ended: finish it first (`recover`), see {}", journal.display())]
    Unfinished {
        /// The snapshot.
        id: String,
        /// The journal.
        journal: PathBuf,
    },
    /// The journal speaks of files that the target does not have.
    #[error("the unfinished restore in {} does not fit the target: {reason}", journal.display())]
    JournalMismatch {
        /// The journal.
        journal: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The restored database is not what was in the snapshot. The journal stays; the broken state was kept.
    #[error("after the restore {} does not equal the snapshot: {reason}", db.display())]
    NotRestored {
        /// The database.
        db: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] crate::config_edit::ConfigError),
    /// Something that a snapshot cannot hold.
    #[error("{}: {reason}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its words.
        source: io::Error,
    },
    /// Stopped by a test.
    #[doc(hidden)]
    #[error("stopped after {0:?}")]
    Stopped(RestoreStage),
}

fn io_at(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, what, source }
}

/// The snapshots of one target.
#[derive(Clone, Debug)]
pub struct Snapshots {
    storage: PathBuf,
    redactor: Redactor,
    limits: SnapshotLimits,
    stop_after: Option<RestoreStage>,
}

impl Snapshots {
    /// Snapshots in `storage_dir/snapshots`; the restore journal is `storage_dir/restore.journal`. One process at a
    /// time may use a storage directory.
    pub fn new(storage_dir: PathBuf, redactor: Redactor, limits: SnapshotLimits) -> Self {
        Self {
            storage: storage_dir,
            redactor,
            limits,
            stop_after: None,
        }
    }

    /// For tests: a restore stops with [`SnapshotError::Stopped`] after this stage, as if it had been killed.
    #[doc(hidden)]
    #[must_use]
    pub fn stop_after(mut self, stage: RestoreStage) -> Self {
        self.stop_after = Some(stage);
        self
    }

    /// The directory that holds the snapshots.
    pub fn dir(&self) -> PathBuf {
        self.storage.join("snapshots")
    }

    fn journal(&self) -> PathBuf {
        self.storage.join("restore.journal")
    }
}

/// Whether a text may be a snapshot's id, or a part of one.
fn is_id(id: &str) -> bool {
    (1..=ID_LEN_MAX).contains(&id.len())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn bad_id(id: &str) -> SnapshotError {
    SnapshotError::BadId {
        id: id.chars().take(80).collect(),
    }
}
