//! The errors of a witness's store: what failed, on what file, and what to do.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::error::describe;
use crate::tlog::KeyError;

/// Why a witness's store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error(
        "cannot open the witness's store {path}: {detail}; check that its directory exists and may be written by this user"
    )]
    Open {
        /// The store's file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The file is something else; it was not touched.
    #[error(
        "{path} is not a witness's store ({detail}); give another path, this file was left as it is"
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// The file was written by a newer Evenkeel; it was not touched.
    #[error(
        "the witness's store {path} has format version {found}, this program knows versions up to {supported}; use the newer Evenkeel that wrote it"
    )]
    NewerVersion {
        /// The store's file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this program knows.
        supported: i64,
    },
    /// What is stored is not what this witness stored.
    #[error(
        "the witness's store {path} does not verify: {detail}; keep the file as evidence and find out who changed it, a witness that forgot what it signed is none"
    )]
    DoesNotVerify {
        /// The store's file.
        path: PathBuf,
        /// What is wrong, and of which log.
        detail: String,
    },
    /// The disk failed, is full or read-only. Final: nothing is cosigned before the store was opened again.
    #[error(
        "the witness's store {path} failed while {doing} ({detail}); check the disk and its free space, then start again"
    )]
    Storage {
        /// The store's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's or the system's message.
        detail: String,
    },
    /// Another process held the lock for too long. Nothing was written; asking again is safe.
    #[error(
        "the witness's store {path} is locked by another process, {doing} gave up waiting; find it with `fuser`"
    )]
    Busy {
        /// The store's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// The file was moved, deleted or replaced while it was open. Final, as [`Self::Storage`].
    #[error(
        "the witness's store {path} was moved, deleted or replaced while in use ({detail}); put the true file back, then start again"
    )]
    Replaced {
        /// The store's file.
        path: PathBuf,
        /// What was found there.
        detail: String,
    },
    /// The key cannot be one of a log.
    #[error(
        "the key of {name} is a witness's (signature type 0x04); give the log's own verifier key"
    )]
    NotALogKey {
        /// The key's name.
        name: String,
    },
    /// The origin cannot be the first line of a checkpoint.
    #[error(
        "an origin is one line, not empty and without control characters; this one is not: {origin:?}"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// There are as many logs, or keys of one log, as a store keeps.
    #[error("the witness's store already knows {max} {what}, which is the most it keeps")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
}

impl StoreError {
    pub(super) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path, doing },
            _ => Self::Storage {
                path,
                doing,
                detail: describe(error),
            },
        }
    }

    /// Whether nothing may be cosigned any more before the store was opened, and thereby checked, again.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::DoesNotVerify { .. } | Self::Storage { .. } | Self::Replaced { .. }
        )
    }
}

/// What goes wrong inside a transaction, before the file's path is put to it.
#[derive(Debug)]
pub(super) enum RowError {
    Sqlite(rusqlite::Error),
    /// A row that this program did not write so.
    Stored(String),
    /// Neither: refused for what was asked.
    Refused(StoreError),
}

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl RowError {
    pub(super) fn key(origin: &str, error: &KeyError) -> Self {
        Self::Stored(format!("a key of {origin}: {error}"))
    }

    pub(super) fn at(self, path: &Path, doing: &'static str) -> StoreError {
        match self {
            Self::Sqlite(error) => StoreError::sqlite(path, doing, &error),
            Self::Stored(detail) => StoreError::DoesNotVerify {
                path: path.to_owned(),
                detail,
            },
            Self::Refused(error) => error,
        }
    }
}
