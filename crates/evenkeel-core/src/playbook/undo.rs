//! A step made ready to run, how it is taken back, and how it went.

use std::path::PathBuf;

use crate::guarded::GuardVerdict;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::action::Action;

/// One change to take back. Every kind is safe to run when the change it takes back never happened, and safe to
/// run twice: after a crash nobody knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum UndoOp {
    /// Put keys of a configuration file back. A key that holds neither the value before nor the value after was
    /// changed by somebody else: it is left alone, and the undo reports a failure.
    RestoreKeys {
        /// The file, absolute.
        file: PathBuf,
        /// The keys, in the order they were set.
        keys: Vec<KeyChange>,
    },
    /// Start services that the step stopped.
    StartServices {
        /// Their names.
        services: Vec<String>,
    },
    /// Restart services once, after configuration was put back, so that it counts.
    RestartServices {
        /// Their names.
        services: Vec<String>,
    },
    /// Run a statement on the target's database.
    Sql {
        /// The statement.
        statement: String,
    },
    /// Run a program.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Working directory, absolute.
        cwd: PathBuf,
    },
}

/// What a step changes in one key of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Dotted key. Where the change creates tables: the outermost new table, and `after` is that whole table.
    pub key: String,
    /// Its value before; `None` when the key was absent.
    pub before: Option<Value>,
    /// Its value after.
    pub after: Value,
}

/// A step with every argument filled in (secrets excepted), checked against the world, and with its undo: what the
/// record says before the step runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// The concrete action: relative changes have become absolute ones, `set_tunable` a `set_config`, words such as
    /// `heaviest` the names of services.
    pub action: Action,
    /// How it is taken back; empty when nothing needs to be.
    pub undo: Vec<UndoOp>,
    /// One line for a person: `set database.pool_size 2 -> 20 in grace.toml`.
    pub summary: String,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// It did what it should.
    pub ok: bool,
    /// One line for a person.
    pub message: String,
    /// What it found out, for the conditions of later steps.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub findings: Value,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// How a rollback went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RollbackOutcome {
    /// Everything that was changed is as it was.
    pub ok: bool,
    /// What was put back, one line each.
    pub restored: Vec<String>,
    /// What could not be put back, one line each.
    pub errors: Vec<String>,
    /// The guarded metrics that the attempt had made worse, measured once more: the undo is verified too (SAFETY 9).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardVerdict>,
}
