//! Signed notes (C2SP `signed-note`): a text, an empty line, and signatures by named keys.
//!
//! ```text
//! any text that ends with a newline
//!
//! — example.com/key base64(key id, 4 bytes big endian | signature)
//! ```
//!
//! | what | bound |
//! |---|---|
//! | a whole note | [`NOTE_BYTES_MAX`] (64 KiB) |
//! | its signatures | [`SIGNATURES_MAX`] (32) |
//! | a key's text | [`KEY_TEXT_BYTES_MAX`] (4 KiB) |

use std::fmt;
use std::str::FromStr;

use super::text;

mod key;
mod signer;

pub use key::{Algorithm, KEY_TEXT_BYTES_MAX, KeyError, KeyName, VerifierKey};
pub(super) use signer::SecretKey;
pub use signer::Signer;

/// The longest note that is read or made, in bytes, signatures included.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

/// The most signatures in a note. The specification asks for room for at least 16.
pub const SIGNATURES_MAX: usize = 32;

/// What a signature line begins with: an em dash and a space.
const LINE_PREFIX: &str = "\u{2014} ";

/// Bytes of the key id before a signature.
const ID_BYTES: usize = 4;

/// Why a note was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note is longer than [`NOTE_BYTES_MAX`].
    #[error("the note is longer than {NOTE_BYTES_MAX} bytes")]
    TooLong,
    /// The note has more than [`SIGNATURES_MAX`] signatures.
    #[error("the note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// The note is not UTF-8 or holds a control character other than the newline.
    #[error("the note is not UTF-8 without control characters")]
    NotText,
    /// There is no text, no empty line after it, or no signature.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// A signature line is not one.
    #[error("the note's signature {number} is not of the form `— name base64`")]
    Line {
        /// Which one, from 1.
        number: usize,
    },
    /// The signature of a key that is trusted does not fit the text: the note was changed, or was never signed.
    #[error(
        "the signature by {name} ({id:08x}) does not fit the note: it was changed after it was signed, or is forged"
    )]
    BadSignature {
        /// The name of the key.
        name: String,
        /// The id of the key.
        id: u32,
    },
    /// None of the signatures is by a key that is trusted.
    #[error("the note is not signed by any of the keys that are trusted")]
    Unverified,
}

/// One signature, verified or not: whose it claims to be, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignatureLine {
    name: String,
    id: u32,
    signature: Vec<u8>,
}

impl SignatureLine {
    /// The name of the key that it claims to be by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key that it claims to be by.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What follows the key id: 64 bytes of an Ed25519 key, 72 of a cosignature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// The line without its newline.
impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.signature);
        write!(f, "{LINE_PREFIX}{} {}", self.name, text::encode(&bytes))
    }
}

/// Reads a line without its newline.
impl FromStr for SignatureLine {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        if line.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        parse_line(line).ok_or(NoteError::Line { number: 1 })
    }
}

fn parse_line(line: &str) -> Option<SignatureLine> {
    let (name, data) = line.strip_prefix(LINE_PREFIX)?.split_once(' ')?;
    let name = KeyName::new(name).ok()?;
    let bytes = text::decode(data)?;
    let (id, signature) = bytes.split_first_chunk::<ID_BYTES>()?;
    if signature.is_empty() {
        return None;
    }
    Some(SignatureLine {
        name: name.as_str().to_owned(),
        id: u32::from_be_bytes(*id),
        signature: signature.to_vec(),
    })
}

/// Reads lines that each end with a newline, at least one, as they stand in a note or in a witness's answer.
pub(super) fn parse_lines(block: &str) -> Result<Vec<SignatureLine>, NoteError> {
    let block = block
        .strip_suffix('\n')
        .ok_or(NoteError::Malformed("the last line has no newline"))?;
    let mut lines = Vec::new();
    for (before, line) in block.split('\n').enumerate() {
        if before == SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let number = before + 1;
        lines.push(parse_line(line).ok_or(NoteError::Line { number })?);
    }
    Ok(lines)
}

/// A text with signatures. Its form is right; whether any signature is, only [`verify`](Self::verify) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl SignedNote {
    /// Puts a text, which must end with a newline, and at least one signature together.
    pub fn new(text: impl Into<String>, signatures: Vec<SignatureLine>) -> Result<Self, NoteError> {
        let note = Self {
            text: text.into(),
            signatures,
        };
        note.check()?;
        Ok(note)
    }

    /// Reads a note. Whatever is accepted, `Display` writes again byte for byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if !text::is_printable(note) {
            return Err(NoteError::NotText);
        }
        // The text may hold empty lines; the last one ends it.
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed(
            "no empty line between text and signatures",
        ))?;
        let (text, signatures) = note.split_at(at + 1);
        let signatures = parse_lines(&signatures[1..])?;
        Self::new(text, signatures)
    }

    /// The text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, verified or not, in the note's order.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a signature after the others; one by the same key is replaced. An error leaves the note as it was.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.retain(|have| (&have.name, have.id) != (&line.name, line.id));
        signatures.push(line);
        let note = Self {
            text: self.text.clone(),
            signatures,
        };
        note.check()?;
        *self = note;
        Ok(())
    }

    /// Adds a signature as [`add`](Self::add) does, if it is by this key and fits: what a witness answers must not
    /// push out the log's own line, nor spoil the note.
    pub fn add_verified(
        &mut self,
        line: SignatureLine,
        key: &VerifierKey,
    ) -> Result<VerifiedSignature, NoteError> {
        let only = Self {
            text: self.text.clone(),
            signatures: vec![line.clone()],
        };
        let verified = only.verify(std::slice::from_ref(key))?;
        self.add(line)?;
        let [signature, ..] = verified.signatures.as_slice() else {
            return Err(NoteError::Unverified);
        };
        Ok(signature.clone())
    }

    /// Checks the signatures by keys that are trusted.
    ///
    /// Signatures by other keys are ignored. One by a trusted key that does not fit rejects the whole note, though
    /// others may fit, and so does a note on which no trusted key signed. The same key may have signed more than
    /// once, as a witness does over time: count keys, not signatures.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Verified, NoteError> {
        let mut signatures = Vec::new();
        for line in &self.signatures {
            // Name and id are 32 bits of hash: two keys may share them, and then either may have signed.
            let mut named = keys
                .iter()
                .filter(|key| key.is_named(&line.name, line.id))
                .peekable();
            if named.peek().is_none() {
                continue;
            }
            let verified = named.find_map(|key| {
                let time = key.check(&self.text, &line.signature).ok()?;
                let key = key.clone();
                Some(VerifiedSignature { key, time })
            });
            signatures.push(verified.ok_or_else(|| NoteError::BadSignature {
                name: line.name.clone(),
                id: line.id,
            })?);
        }
        if signatures.is_empty() {
            return Err(NoteError::Unverified);
        }
        Ok(Verified { signatures })
    }

    fn check(&self) -> Result<(), NoteError> {
        if self.signatures.is_empty() {
            return Err(NoteError::Malformed("it has no signature"));
        }
        if self.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        if !self.text.ends_with('\n') {
            return Err(NoteError::Malformed("its text does not end with a newline"));
        }
        if !text::is_printable(&self.text) {
            return Err(NoteError::NotText);
        }
        let lines: usize = self.signatures.iter().map(line_bytes).sum();
        if self.text.len() + 1 + lines > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        Ok(())
    }
}

/// Length of a line with its newline, without writing it.
fn line_bytes(line: &SignatureLine) -> usize {
    let base64 = (ID_BYTES + line.signature.len()).div_ceil(3) * 4;
    LINE_PREFIX.len() + line.name.len() + 1 + base64 + 1
}

/// The note as it is sent and stored.
impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        Self::parse(note.as_bytes())
    }
}

/// What [`SignedNote::verify`] found: at least one signature, all of them right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    signatures: Vec<VerifiedSignature>,
}

/// A signature that fits, and the trusted key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The key.
    pub key: VerifierKey,
    /// When a witness says that it signed, seconds since 1970; a note signature states no time.
    pub time: Option<u64>,
}

impl Verified {
    /// The signatures that fit, in the note's order; never empty.
    pub fn signatures(&self) -> &[VerifiedSignature] {
        &self.signatures
    }

    /// Whether this key signed.
    pub fn is_by(&self, key: &VerifierKey) -> bool {
        self.signatures.iter().any(|by| by.key == *key)
    }
}

#[cfg(test)]
mod tests;
