//! The transparency log: signed checkpoints, witnesses, proofs. Pure: bytes in, values out; no SQLite, files,
//! clock, network or randomness.
//!
//! The formats are those of C2SP (<https://c2sp.org>), the algorithms those of RFC 6962 and RFC 9162, unchanged,
//! so that anybody's tools can check what this ledger says:
//!
//! | module | what | source |
//! |---|---|---|
//! | [`note`] | text with signatures; key names, verifier keys, signing keys | `signed-note` |
//! | [`checkpoint`] | the note text that states a log's size and root | `tlog-checkpoint` |
//! | [`cosignature`] | a witness's timestamped signature on a checkpoint | `tlog-cosignature`, type 0x04 |
//! | [`proof`] | that an entry is in a log, that a log has only grown | RFC 6962 2.1, RFC 9162 2.1.3.2, 2.1.4.2 |
//! | [`bundle`] | a proof of inclusion that checks offline, in one file | `tlog-proof` |
//! | [`tile`] | the log as static files | `tlog-tiles` |
//! | [`witness`] | what a log asks a witness, and what a witness answers | `tlog-witness` |
//!
//! # Invariants
//!
//! - **Whatever is parsed may be hostile.** No input panics, overflows or allocates beyond its own stated bound.
//! - **One spelling.** What parses is written again byte for byte: no leading zeros, canonical base64, no
//!   carriage returns. What is signed is exactly what is shown.
//! - **Nothing unverified is believed.** A note's text means nothing before [`note::SignedNote::verify`].

pub mod bundle;
pub mod checkpoint;
pub mod cosignature;
pub mod note;
pub mod proof;
mod text;
pub mod tile;
pub mod witness;

pub use bundle::{BundleError, ProofBundle};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosignature::Cosigner;
pub use note::{
    Algorithm, KeyError, KeyName, NoteError, SignatureLine, SignedNote, Signer, Verified,
    VerifiedSignature, VerifierKey,
};
pub use proof::{Nodes, ProofError, ProveError};
pub use witness::{AddCheckpoint, Decision, Known};
