//! Systems that do not list who holds a lock.

use std::path::Path;

use super::{LockError, LockHolder};

pub(super) enum Signal {
    Term,
    Kill,
}

fn unsupported() -> LockError {
    LockError::Unsupported {
        reason: "only Linux lists which process holds a file lock".into(),
    }
}

pub(super) fn find(_db: &Path) -> Result<Vec<LockHolder>, LockError> {
    Err(unsupported())
}

pub(super) fn with_ancestors(pid: u32) -> Vec<u32> {
    vec![pid]
}

pub(super) fn may_signal(_uid: u32) -> bool {
    false
}

pub(super) fn signal(_holder: &LockHolder, _signal: Signal) -> Result<(), LockError> {
    Err(unsupported())
}
