//! The errors of the ledger: what failed, on what file, and what to do. No SQL values, no payloads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::DamageKind;

/// Why the ledger could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The disk or the configured size limit is full.
    #[error(
        "no room for the ledger {path} while {doing} ({detail}); free space on its disk or raise its size limit, then start again"
    )]
    Full {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's message.
        detail: String,
    },
    /// The file or its directory may not be written.
    #[error(
        "the ledger {path} is read-only, {doing} failed ({detail}); make the file and its directory writable for this user, then start again"
    )]
    ReadOnly {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's message.
        detail: String,
    },
    /// The operating system failed to read, write or sync.
    #[error(
        "input/output error on the ledger {path} while {doing} ({detail}); check the disk, then start again and verify the ledger"
    )]
    Io {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's or SQLite's message.
        detail: String,
    },
    /// The file is damaged as a database.
    #[error(
        "the ledger {path} is damaged, {doing} failed ({detail}); keep the file as it is, and verify a copy of it"
    )]
    Corrupt {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's message.
        detail: String,
    },
    /// The file (or its `-wal`) was moved, deleted or replaced while it was open.
    #[error(
        "the ledger {path} was moved, deleted or replaced while in use ({detail}); find out who did it, put the true file back, then start again"
    )]
    Replaced {
        /// The ledger's file.
        path: PathBuf,
        /// Which file and what of it.
        detail: String,
    },
    /// Another process held the database's lock for too long. Nothing was written; trying again is safe.
    #[error(
        "the ledger {path} is locked by another process, {doing} gave up waiting ({detail}); find it with `fuser` and try again"
    )]
    Busy {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's message.
        detail: String,
    },
    /// The file cannot be opened at all.
    #[error("cannot open the ledger {path}: {detail}")]
    Open {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The file is not a ledger; it was not touched.
    #[error(
        "{path} is not an Evenkeel ledger ({detail}); give another path, this file was left as it is"
    )]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// The file was written by a newer Evenkeel; it was not touched.
    #[error(
        "the ledger {path} has format version {found}, this program knows versions up to {supported}; use the newer Evenkeel that wrote it"
    )]
    NewerVersion {
        /// The ledger's file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this program knows.
        supported: i64,
    },
    /// The ledger is damaged or was changed: nothing is appended to it.
    #[error("the ledger {path} does not verify{}: {kind}; keep the file as evidence and run a full verification", at(*sequence))]
    DoesNotVerify {
        /// The ledger's file.
        path: PathBuf,
        /// The entry, where it is about one.
        sequence: Option<u64>,
        /// What is wrong.
        kind: DamageKind,
    },
    /// The log is signed by another key than the one given; it was not touched.
    #[error(
        "the ledger {path} is signed by the key {trusted}, the key given is {given}; give the trusted one, and change keys by rotation, which needs both"
    )]
    WrongKey {
        /// The ledger's file.
        path: PathBuf,
        /// Name and id of the key that the log trusts now.
        trusted: String,
        /// Name and id of the key given.
        given: String,
    },
    /// There is no checkpoint or entry to prove anything about.
    #[error("the ledger {path} cannot prove that: {detail}")]
    NotProvable {
        /// The ledger's file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The entry or query given is not acceptable. Only this one is refused.
    #[error("{field} {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it and what is accepted.
        problem: String,
    },
    /// An earlier failure ended this writer. Nothing was written.
    #[error("the ledger takes no more entries since an earlier failure: {cause}")]
    Poisoned {
        /// The failure.
        cause: Arc<LedgerError>,
    },
    /// The ledger was closed. Nothing was written.
    #[error("the ledger {path} is closed; open it again to append")]
    Closed {
        /// The ledger's file.
        path: PathBuf,
    },
    /// SQLite refused in a way that has no better name here.
    #[error("the ledger {path} refused {doing} ({detail}); verify it")]
    Sqlite {
        /// The ledger's file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's message.
        detail: String,
    },
}

impl LedgerError {
    /// Whether this or the failure behind it is the given one, looking through [`LedgerError::Poisoned`].
    pub fn root_cause(&self) -> &Self {
        let mut error = self;
        // A poisoned writer keeps the first failure, so this is one step; the bound is the type's own nesting.
        while let Self::Poisoned { cause } = error {
            error = cause;
        }
        error
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            problem: problem.into(),
        }
    }

    pub(crate) fn io(path: &Path, doing: &'static str, error: &std::io::Error) -> Self {
        let (path, detail) = (path.to_owned(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                doing,
                detail,
            },
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                Self::ReadOnly {
                    path,
                    doing,
                    detail,
                }
            }
            _ => Self::Io {
                path,
                doing,
                detail,
            },
        }
    }

    pub(crate) fn sqlite(path: &Path, doing: &'static str, error: &rusqlite::Error) -> Self {
        let (path, detail) = (path.to_owned(), describe(error));
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full {
                path,
                doing,
                detail,
            },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly {
                path,
                doing,
                detail,
            },
            Some(ErrorCode::SystemIoFailure) => Self::Io {
                path,
                doing,
                detail,
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt {
                path,
                doing,
                detail,
            },
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Busy {
                path,
                doing,
                detail,
            },
            Some(ErrorCode::CannotOpen) => Self::Open {
                path,
                detail: format!(
                    "{detail}; check that file and directory exist and may be read by this user"
                ),
            },
            _ => Self::Sqlite {
                path,
                doing,
                detail,
            },
        }
    }
}

/// SQLite's message with its extended code, which tells a failed write from a failed sync.
pub(crate) fn describe(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, Some(message)) => {
            format!("{message}, SQLite code {}", code.extended_code)
        }
        other => other.to_string(),
    }
}

fn at(sequence: Option<u64>) -> String {
    sequence.map_or_else(String::new, |sequence| format!(" at entry {sequence}"))
}
