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
}
