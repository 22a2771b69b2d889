//! Cheap anchors: a checkpoint of the ledger put where this host's administrator is not the master. Unlike a witness
//! they compare nothing; who looks at them later finds out what was cut off or rewritten since (SAFETY 21).
//!
//! [`mod@file`] appends to a file, on another machine's mount; [`post`] sends to an address.

use evenkeel_ledger::tlog::SignedNote;

pub mod file;
pub mod post;

pub use file::FileAnchor;
pub use post::PostAnchor;

/// Why a checkpoint was not put there, or not read back. No text holds an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// The anchor cannot be used as it is configured.
    #[error("the anchor is not configured rightly: {reason}")]
    Configured {
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be written, made durable or read.
    #[error(
        "the anchor file {path} failed while {doing}: {reason}; check that its file system is mounted, writable and not full"
    )]
    File {
        /// The file.
        path: String,
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The file system did not answer in time, or still has not answered an earlier call.
    #[error(
        "the anchor file {path} did not answer within {limit_ms} ms; check that its file system is reachable"
    )]
    Hangs {
        /// The file.
        path: String,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The address cannot be reached, or did not take it.
    #[error("the anchor's address did not take the checkpoint: {reason}")]
    Post {
        /// What happened, without the address.
        reason: String,
    },
}

/// Where checkpoints are put.
#[derive(Debug, Clone)]
pub enum Anchor {
    /// A file on another mount.
    File(FileAnchor),
    /// An address.
    Post(PostAnchor),
}

impl Anchor {
    /// Puts a checkpoint there. `Ok` means durable in the file, or taken with a status of 200 to 299.
    ///
    /// # Errors
    /// See [`AnchorError`]. Nothing is tried again here: the next checkpoint covers this one.
    pub async fn put(&self, note: &SignedNote) -> Result<(), AnchorError> {
        match self {
            Self::File(file) => file.put(note).await,
            Self::Post(post) => post.put(note).await,
        }
    }

    /// The last checkpoint put there, **not verified**; `None` where there is none yet, and always where nothing can be
    /// read back ([`Self::is_readable`]).
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub async fn last(&self) -> Result<Option<SignedNote>, AnchorError> {
        match self {
            Self::File(file) => file.last().await,
            Self::Post(_) => Ok(None),
        }
    }

    /// Whether what was put there can be read back.
    pub fn is_readable(&self) -> bool {
        matches!(self, Self::File(_))
    }
}
