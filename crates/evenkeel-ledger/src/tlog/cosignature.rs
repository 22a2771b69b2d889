//! Cosignatures (C2SP `tlog-cosignature`, Ed25519, type 0x04): a witness's word that at a time it saw a checkpoint
//! and that the log had only grown.
//!
//! The signature in a note's line is the time as 8 bytes, big endian, and 64 bytes of Ed25519 over
//!
//! ```text
//! cosignature/v1
//! time 1679315147
//! <the checkpoint's text>
//! ```
//!
//! It is verified by [`SignedNote::verify`](super::SignedNote::verify) like any other signature, which then also
//! tells the time. The message does not contain the witness's name: one key, one witness.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::note::SecretKey;
use super::{Algorithm, KeyError, KeyName, SignatureLine, VerifierKey};

/// The latest time that a cosignature can state, in seconds since 1970: 2^63 - 1.
pub const TIME_MAX: u64 = i64::MAX as u64;

/// A witness's secret key. Its text is a [`Signer`](super::Signer)'s with the algorithm byte 0x04.
pub struct Cosigner(SecretKey);

impl Cosigner {
    /// A key from its 32 secret bytes (the seed of RFC 8032). They must be random and used for nothing else, not
    /// for another witness and not for a log either.
    pub fn from_seed(name: KeyName, seed: [u8; 32]) -> Self {
        Self(SecretKey::from_seed(name, Algorithm::CosignatureV1, seed))
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        self.0.verifier().name()
    }

    /// The public key, for those who verify.
    pub fn verifier(&self) -> &VerifierKey {
        self.0.verifier()
    }

    /// The secret as text, to be kept where nobody else can read it.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        self.0.to_text()
    }

    /// States that at this time (seconds since 1970, at most [`TIME_MAX`]; a later one is written as that) this was
    /// the largest checkpoint seen of its log, and consistent with all before it. Whether that is so the caller
    /// must have decided, and stored, before.
    pub fn cosign(&self, checkpoint_text: &str, unix_seconds: u64) -> SignatureLine {
        let time = unix_seconds.min(TIME_MAX);
        let mut signature = time.to_be_bytes().to_vec();
        signature.extend_from_slice(&self.0.sign(&message(checkpoint_text, time)));
        self.0.line(signature)
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({}, secret not shown)", self.verifier())
    }
}

impl FromStr for Cosigner {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        SecretKey::parse(text, Algorithm::CosignatureV1).map(Self)
    }
}

/// What is signed.
pub(super) fn message(checkpoint_text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{checkpoint_text}").into_bytes()
}

/// The time and the Ed25519 signature in a signature line's bytes.
pub(super) fn split(signature: &[u8]) -> Option<(u64, &[u8])> {
    let (time, rest) = signature.split_first_chunk()?;
    let time = u64::from_be_bytes(*time);
    (time <= TIME_MAX).then_some((time, rest))
}
