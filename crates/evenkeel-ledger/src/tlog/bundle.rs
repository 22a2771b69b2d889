//! Proof bundles (C2SP `tlog-proof@v1`): one text that shows offline that an entry is in the log and who saw it
//! there.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>                    optional, not authenticated
//! index <decimal>                   from 0
//! <base64 of a hash>                the inclusion proof, none or more
//!
//! <the checkpoint, a signed note with its cosignatures>
//! ```
//!
//! `extra` may hold anything. A log puts the canonical leaf of the entry there, so that the file alone tells what
//! was logged: whoever reads it must hash it ([`leaf_hash`](super::proof::leaf_hash)) and verify the bundle for
//! *that* hash, or the extra data mean nothing.
//!
//! | what | bound |
//! |---|---|
//! | a whole bundle | [`BUNDLE_BYTES_MAX`] (96 KiB): a note of 64 KiB, and what stands before it |
//! | the extra data, decoded | [`EXTRA_BYTES_MAX`] (16 KiB) |
//! | hashes | [`INCLUSION_HASHES_MAX`] (64) |

use std::fmt;
use std::str::FromStr;

use super::note::NOTE_BYTES_MAX;
use super::proof::{INCLUSION_HASHES_MAX, verify_inclusion};
use super::{
    Algorithm, Checkpoint, CheckpointError, NoteError, ProofError, SignedNote, VerifiedSignature,
    VerifierKey, text,
};
use crate::Hash;

/// The longest bundle that is read, in bytes.
pub const BUNDLE_BYTES_MAX: usize = NOTE_BYTES_MAX + (32 << 10);

/// The most extra data, decoded, in bytes: twice the longest canonical leaf.
pub const EXTRA_BYTES_MAX: usize = 16 << 10;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof that an entry is in a log, with the checkpoint that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofBundle {
    /// Not authenticated: see the module.
    pub extra: Option<Vec<u8>>,
    /// Which entry, from 0.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The log's checkpoint.
    pub checkpoint: SignedNote,
}

/// Why a bundle shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The text is longer than [`BUNDLE_BYTES_MAX`].
    #[error("the proof is longer than {BUNDLE_BYTES_MAX} bytes")]
    TooLong,
    /// The text has not the form of a bundle.
    #[error("not a `{FIRST_LINE}`: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it is not a signed note, or the log's signature does not hold.
    #[error("the proof's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The signed note in it is not a checkpoint.
    #[error("the proof's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The log did not sign the checkpoint.
    #[error("the proof's checkpoint is not signed by any of the log's keys")]
    NotSignedByLog,
    /// Something else than a witness's key was given as one.
    #[error("the key of {name} is not a witness's (signature type 0x04)")]
    NotAWitness {
        /// The key's name.
        name: String,
    },
    /// Too few witnesses saw the checkpoint.
    #[error("{found} of the trusted witnesses signed the proof's checkpoint, {quorum} must")]
    Quorum {
        /// How many did.
        found: usize,
        /// How many must.
        quorum: usize,
    },
    /// The hashes do not lead from the entry to the checkpoint's root.
    #[error("the entry is not shown to be in the log: {0}")]
    Proof(#[from] ProofError),
}

/// What a bundle was found to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBundle {
    /// What the log stated. Its origin is to be compared with that of the log that was meant, where one key signs
    /// for more than one.
    pub checkpoint: Checkpoint,
    /// The signatures of the log; at least one.
    pub log: Vec<VerifiedSignature>,
    /// One cosignature, the latest, of each trusted witness that signed.
    pub witnesses: Vec<VerifiedSignature>,
}

impl ProofBundle {
    /// Reads a bundle. Whatever is accepted, `Display` writes again byte for byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong);
        }
        let bundle = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        let (head, note) = bundle
            .split_once("\n\n")
            .ok_or(BundleError::Malformed("no empty line before a checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(BundleError::Malformed("the first line is another"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = extra.map(parse_extra).transpose()?;
        let index = lines
            .next()
            .and_then(|line| text::decimal(line.strip_prefix("index ")?))
            .ok_or(BundleError::Malformed(
                "no `index` line with a whole number",
            ))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == INCLUSION_HASHES_MAX {
                return Err(BundleError::Malformed("more than 64 hashes"));
            }
            let hash = text::decode_hash(line).ok_or(BundleError::Malformed(
                "a line of the proof is not the base64 of 32 bytes",
            ))?;
            hashes.push(hash);
        }
        let checkpoint = SignedNote::parse(note.as_bytes())?;
        Checkpoint::parse(checkpoint.text())?;
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint,
        })
    }

    /// Checks that the entry with this leaf hash is in the log: one of the log's keys must have signed the
    /// checkpoint, `quorum` of the witnesses cosigned it, and the hashes lead to its root.
    ///
    /// A signature by any of these keys that does not fit rejects the whole bundle. A witness counts once, whatever
    /// number of keys it has under one name and of names with one key; a key that is also the log's is none.
    pub fn verify(
        &self,
        leaf_hash: &Hash,
        log_keys: &[VerifierKey],
        witness_keys: &[VerifierKey],
        quorum: usize,
    ) -> Result<VerifiedBundle, BundleError> {
        let other = |key: &&VerifierKey| key.algorithm() != Algorithm::CosignatureV1;
        if let Some(key) = witness_keys.iter().find(other) {
            let name = key.name().to_owned();
            return Err(BundleError::NotAWitness { name });
        }
        let verified = self.checkpoint.verify(&[log_keys, witness_keys].concat())?;
        let (log, cosigned): (Vec<_>, Vec<_>) = verified
            .signatures()
            .iter()
            .cloned()
            .partition(|by| log_keys.contains(&by.key));
        if log.is_empty() {
            return Err(BundleError::NotSignedByLog);
        }
        let witnesses = distinct(cosigned, log_keys);
        if witnesses.len() < quorum {
            let found = witnesses.len();
            return Err(BundleError::Quorum { found, quorum });
        }
        let checkpoint = Checkpoint::parse(self.checkpoint.text())?;
        let (size, root) = (checkpoint.size, &checkpoint.root);
        verify_inclusion(leaf_hash, self.index, size, &self.hashes, root)?;
        Ok(VerifiedBundle {
            checkpoint,
            log,
            witnesses,
        })
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, BundleError> {
    let extra = line.strip_prefix("extra ").and_then(text::decode);
    match extra {
        None => Err(BundleError::Malformed("the `extra` line is not base64")),
        Some(extra) if extra.len() > EXTRA_BYTES_MAX => {
            Err(BundleError::Malformed("more than 16 KiB of extra data"))
        }
        Some(extra) => Ok(extra),
    }
}

/// The latest cosignature of each witness: no two of them share a name or a public key, and none has a key of the
/// log's, which would be its own witness.
fn distinct(mut cosigned: Vec<VerifiedSignature>, log: &[VerifierKey]) -> Vec<VerifiedSignature> {
    cosigned.sort_by_key(|by| std::cmp::Reverse(by.time));
    let mut witnesses: Vec<VerifiedSignature> = Vec::new();
    for by in cosigned {
        let public = by.key.public();
        let own = log.iter().any(|key| key.public() == public);
        let counted = witnesses
            .iter()
            .any(|have| have.key.name() == by.key.name() || have.key.public() == public);
        if !own && !counted {
            witnesses.push(by);
        }
    }
    witnesses
}

/// The bundle as it is stored, by custom in a file `*.tlog-proof`.
impl fmt::Display for ProofBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", text::encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", text::encode_hash(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for ProofBundle {
    type Err = BundleError;

    fn from_str(text: &str) -> Result<Self, BundleError> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
