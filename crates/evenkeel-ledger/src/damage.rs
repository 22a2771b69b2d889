//! What can be wrong with a ledger: the vocabulary that opening and verifying share. Only data.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The first entry it touches; `None` where it is not about one entry.
    pub sequence: Option<u64>,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sequence {
            Some(sequence) => write!(f, "entry {sequence}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// The kinds of damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DamageKind {
    /// The payload or another field is not what was hashed.
    #[error("a field or the payload was changed after it was written")]
    ContentEdited,
    /// The `entry_hash` itself was changed; the next entry still knows the true one.
    #[error("its entry_hash was changed after it was written")]
    HashEdited,
    /// `previous_hash` is not the `entry_hash` of the entry before: one of the two was replaced.
    #[error(
        "its previous_hash is not the hash of the entry before it, so one of the two was replaced"
    )]
    BrokenLink,
    /// Entries are missing.
    #[error("missing, the next one found is {found}")]
    Gap {
        /// The sequence that was found instead.
        found: i64,
    },
    /// A row whose sequence cannot be.
    #[error("a row with sequence {found} stands where none can be")]
    StrayRow {
        /// Its sequence.
        found: i64,
    },
    /// A column does not hold what the format demands (type, hexadecimal digits).
    #[error("column {column} does not hold what the format demands")]
    Malformed {
        /// The column's name.
        column: &'static str,
    },
    /// The payload is not JSON.
    #[error("its payload is not valid JSON")]
    InvalidJson,
    /// A trigger that guards the table is gone.
    #[error("the trigger {name} is missing")]
    MissingTrigger {
        /// The trigger's name.
        name: String,
    },
    /// Table, trigger, index or view differs from what this format version has, or is missing or additional.
    #[error("the schema was changed: {object}")]
    ChangedSchema {
        /// Which object, and how.
        object: String,
    },
    /// SQLite's own check found an index, a page or a constraint that does not agree with the table.
    #[error("the database is inconsistent: {detail}")]
    Inconsistent {
        /// The first finding of `PRAGMA integrity_check`.
        detail: String,
    },
    /// The file cannot be read as a database from here on.
    #[error("the database cannot be read: {detail}")]
    Unreadable {
        /// SQLite's message.
        detail: String,
    },
    /// A checkpoint in the file has not the form of one, or its signature is not that of the key trusted then.
    #[error("the checkpoint of {tree_size} entries does not hold: {detail}")]
    CheckpointInvalid {
        /// The checkpoint's place in the file, or the size that it states.
        tree_size: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The entries are not those that were signed. Which one differs is known as far as other checkpoints tell.
    #[error(
        "the entries are not those that {by} of {tree_size} entries stands for: the first that differs is one of {first} to {tree_size}"
    )]
    RootDiffers {
        /// How many entries the checkpoint is about.
        tree_size: u64,
        /// First entry that may differ.
        first: u64,
        /// Whose checkpoint.
        by: String,
    },
    /// Entries at the end are missing: the log is older, or was cut.
    #[error(
        "the tail was cut off or an old copy was put back: {expected} entries expected by {by}, {found} found"
    )]
    TailCut {
        /// How many entries there were.
        expected: u64,
        /// How many there are.
        found: u64,
        /// What tells so.
        by: String,
    },
    /// A key that the key before it did not bring in, or another first key than the one pinned.
    #[error("the log's key was substituted: {detail}")]
    KeySubstituted {
        /// Which key, and what is wrong with it.
        detail: String,
    },
    /// A key or a signature of an algorithm that is unknown here or not meant for logs.
    #[error("an unknown or weaker signature algorithm: {detail}")]
    Algorithm {
        /// Which key.
        detail: String,
    },
    /// The name of the log is another one.
    #[error("{by} is about the log {found}, this one is {expected}")]
    OriginDiffers {
        /// The name of this log.
        expected: String,
        /// The name that was found.
        found: String,
        /// Where it was found.
        by: String,
    },
    /// Entries after the newest checkpoint, and no record that signing stopped.
    #[error("from here on nothing is signed, and no entry says that signing stopped")]
    UnsignedTail,
    /// A checkpoint that was written together with this entry is gone.
    #[error("the checkpoint that was signed together with it is missing")]
    CheckpointMissing,
    /// A cosignature of a known witness does not fit, or is about no checkpoint in the file.
    #[error(
        "the cosignature by {name} on the checkpoint of {tree_size} entries does not hold: {detail}"
    )]
    CosignatureInvalid {
        /// The checkpoint.
        tree_size: u64,
        /// The witness.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A stored node of the Merkle tree is not what the entries make it.
    #[error(
        "node {position} of level {level} of the Merkle tree is not that of its entries, or is missing"
    )]
    NodeDiffers {
        /// 1 for 256 entries, 2 for 65,536, and so on.
        level: u32,
        /// Its place among those of its level, from 0.
        position: u64,
    },
    /// A payload is gone and no entry records that it was dropped.
    #[error("its payload was dropped, and no entry records that")]
    DroppedWithoutRecord,
    /// The payloads that are gone are not those that this entry says it dropped.
    #[error(
        "it records {recorded} dropped payloads of {recorded_bytes} bytes together, {found} of {found_bytes} are found"
    )]
    DropDiffers {
        /// Payloads by the record.
        recorded: u64,
        /// Their bytes by the record.
        recorded_bytes: u64,
        /// Payloads found dropped.
        found: u64,
        /// Their bytes as they stand there.
        found_bytes: u64,
    },
    /// One of the ledger's own entries cannot be read, or is hidden from the index on `action`.
    #[error("an entry of the ledger about itself cannot be used: {detail}")]
    OwnEntry {
        /// What is wrong with it.
        detail: String,
    },
}
