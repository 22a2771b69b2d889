//! Witnesses (C2SP `tlog-witness`): what a log sends to `add-checkpoint`, and what a witness must answer. The
//! decision only: a witness stores the new checkpoint durably, in the same step as it compared with the old one,
//! *before* it cosigns, and that is the caller's part.
//!
//! ```text
//! old 20852014                      the size that the witness is thought to know
//! <base64 of a hash>                the consistency proof, none or more
//!
//! <the checkpoint, a signed note>
//! ```
//!
//! | what | bound |
//! |---|---|
//! | a request | [`REQUEST_BYTES_MAX`] (68 KiB): a note of 64 KiB, and what stands before it |
//! | its proof | [`PROOF_LINES_MAX`] (63) hashes, as specified |
//! | an answer with cosignatures | as a note's signatures |

use std::fmt;

use super::note::{NOTE_BYTES_MAX, parse_lines};
use super::proof::{empty_root, verify_consistency};
use super::{
    Checkpoint, CheckpointError, NoteError, ProofError, SignatureLine, SignedNote, VerifierKey,
    text,
};
use crate::Hash;

/// The longest request that is read, in bytes.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + (4 << 10);

/// The most hashes in a request's proof.
pub const PROOF_LINES_MAX: usize = 63;

/// The content type of an answer 409 whose body is a size ([`size_body`]).
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// The longest size with its newline.
const SIZE_BODY_BYTES_MAX: usize = 21;

/// The body of a POST to `add-checkpoint`. `Display` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness cosigned last, 0 for none.
    pub old_size: u64,
    /// The consistency proof from there to the checkpoint.
    pub proof: Vec<Hash>,
    /// The new checkpoint, with the log's signature.
    pub checkpoint: SignedNote,
}

/// Why a request is not one; the answer is 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request is longer than [`REQUEST_BYTES_MAX`].
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// The request has not the form of one.
    #[error("not a request to add a checkpoint: {0}")]
    Malformed(&'static str),
    /// What follows the empty line is not a signed note.
    #[error("the request's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The signed note is not a checkpoint.
    #[error("the request's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The old size is larger than the checkpoint's.
    #[error("the checkpoint of {new} entries is older than the one of {old} that it is to follow")]
    Shrunk {
        /// The old size in the request.
        old: u64,
        /// The size of the checkpoint.
        new: u64,
    },
}

impl AddCheckpoint {
    /// Reads a request. Whatever is accepted, `Display` writes again byte for byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let request = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        let (head, note) = request
            .split_once("\n\n")
            .ok_or(RequestError::Malformed("no empty line before a checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| text::decimal(line.strip_prefix("old ")?))
            .ok_or(RequestError::Malformed("no `old` line with a whole number"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == PROOF_LINES_MAX {
                return Err(RequestError::Malformed("more than 63 lines of proof"));
            }
            let hash = text::decode_hash(line).ok_or(RequestError::Malformed(
                "a line of the proof is not the base64 of 32 bytes",
            ))?;
            proof.push(hash);
        }
        let checkpoint = SignedNote::parse(note.as_bytes())?;
        Checkpoint::parse(checkpoint.text())?;
        Ok(Self {
            old_size,
            proof,
            checkpoint,
        })
    }

    /// Which log it is about: the first line of the checkpoint, by which a witness finds the keys and the state
    /// that [`decide`] needs. Nothing about it is verified yet.
    pub fn origin(&self) -> &str {
        let text = self.checkpoint.text();
        text.split_once('\n').map_or(text, |(origin, _)| origin)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", text::encode_hash(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The latest checkpoint of a log that a witness cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// What a witness must do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// 200: store this as the latest checkpoint, then cosign the request's note text.
    Cosign {
        /// What was verified: signed by the log, and consistent with what was known.
        checkpoint: Checkpoint,
    },
    /// 404: no key of that log is known.
    UnknownOrigin {
        /// The log's origin as requested.
        origin: String,
    },
    /// 403: the log did not sign it.
    NoTrustedSignature(NoteError),
    /// 400: the request makes no sense.
    Malformed(RequestError),
    /// 409 with this size as body ([`size_body`]): it is not the request's old size. No sign of wrong-doing.
    Conflict {
        /// The size of the checkpoint known.
        size: u64,
    },
    /// 409: the log signed two roots for one size. The request's note and the known checkpoint together prove a
    /// fork: keep both. (Where nothing was known the log signed another root for the empty log than there is.)
    InconsistentRoot {
        /// The size of both.
        size: u64,
        /// The root that is known.
        known: Hash,
        /// The root in the request.
        signed: Hash,
    },
    /// 422: the log signed the checkpoint, but the request's proof does not show that the known one is its
    /// beginning. Keep the note: if the log cannot give a good proof for it either, it forked. Alone it proves
    /// nothing, since whoever sent the request may have spoiled the proof.
    BadProof(ProofError),
}

impl Decision {
    /// The HTTP status that the specification demands.
    pub fn status(&self) -> u16 {
        match self {
            Self::Cosign { .. } => 200,
            Self::Malformed(_) => 400,
            Self::NoTrustedSignature(_) => 403,
            Self::UnknownOrigin { .. } => 404,
            Self::Conflict { .. } | Self::InconsistentRoot { .. } => 409,
            Self::BadProof(_) => 422,
        }
    }

    /// Whether the request's note is to be kept as evidence of what the log signed.
    pub fn is_evidence(&self) -> bool {
        matches!(self, Self::InconsistentRoot { .. } | Self::BadProof(_))
    }
}

/// What a witness must answer to a request, checked in the specification's order.
///
/// `known` is the latest checkpoint cosigned for the request's origin, `None` before the first; `log_keys` are the
/// keys trusted for that origin, `None` where the origin is not known. A witness that knows nothing of a log knows
/// the log of size 0: a first checkpoint of that size must have the empty log's root.
pub fn decide(
    known: Option<&Known>,
    log_keys: Option<&[VerifierKey]>,
    request: &AddCheckpoint,
) -> Decision {
    let Some(log_keys) = log_keys else {
        let origin = request.origin().to_owned();
        return Decision::UnknownOrigin { origin };
    };
    if let Err(error) = request.checkpoint.verify(log_keys) {
        return Decision::NoTrustedSignature(error);
    }
    let checkpoint = match Checkpoint::parse(request.checkpoint.text()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Decision::Malformed(error.into()),
    };
    let (old, new) = (request.old_size, checkpoint.size);
    if old > new {
        return Decision::Malformed(RequestError::Shrunk { old, new });
    }
    let nothing = Known {
        size: 0,
        root: empty_root(),
    };
    let known = known.unwrap_or(&nothing);
    if old != known.size {
        return Decision::Conflict { size: known.size };
    }
    // Before the proof: two roots of one size are a fork whatever was sent along.
    if new == known.size && checkpoint.root != known.root {
        return Decision::InconsistentRoot {
            size: new,
            known: known.root,
            signed: checkpoint.root,
        };
    }
    match verify_consistency(old, new, &request.proof, &known.root, &checkpoint.root) {
        Ok(()) => Decision::Cosign { checkpoint },
        Err(error) => Decision::BadProof(error),
    }
}

/// The body of the answer to a request with the wrong old size.
pub fn size_body(size: u64) -> String {
    format!("{size}\n")
}

/// Reads [`size_body`]'s form; `None` for anything else.
pub fn parse_size_body(body: &[u8]) -> Option<u64> {
    if body.len() > SIZE_BODY_BYTES_MAX {
        return None;
    }
    let body = std::str::from_utf8(body).ok()?;
    text::decimal(body.strip_suffix('\n')?)
}

/// The body of the answer to a request that was granted: lines as in a note.
pub fn cosignatures_body(lines: &[SignatureLine]) -> String {
    lines.iter().fold(String::new(), |mut body, line| {
        body.push_str(&line.to_string());
        body.push('\n');
        body
    })
}

/// Reads [`cosignatures_body`]'s form. Nothing is verified, and some may be by keys that nobody asked: put on the
/// checkpoint those that [`SignedNote::add_verified`] takes.
pub fn parse_cosignatures_body(body: &[u8]) -> Result<Vec<SignatureLine>, NoteError> {
    if body.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLong);
    }
    let body = std::str::from_utf8(body).map_err(|_| NoteError::NotText)?;
    if !text::is_printable(body) {
        return Err(NoteError::NotText);
    }
    parse_lines(body)
}

#[cfg(test)]
mod tests;
