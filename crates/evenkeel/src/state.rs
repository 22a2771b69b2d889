//! The healer's memory, from the ledger: state is a fold over the records.

use std::ops::ControlFlow;

use evenkeel_core::Timestamp;
use evenkeel_core::healer::Healer;
use evenkeel_core::record;
use evenkeel_ledger::{LedgerError, Query, Reader};

/// Why the memory could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFailure {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An entry does not fit.
    #[error(
        "ledger entry {sequence} cannot be replayed: {reason}; keep the ledger as evidence, and call for help"
    )]
    Entry {
        /// Its sequence.
        sequence: u64,
        /// Why.
        reason: String,
    },
}

/// Folds every entry of the healer over an empty memory.
pub fn replay(reader: &Reader) -> Result<Healer, ReplayFailure> {
    let mut healer = Healer::default();
    let query = Query::new().subsystem(record::SUBSYSTEM);
    let flow = reader.for_each(&query, |entry| {
        // An entry of this subsystem by anybody else is not the healer's.
        if entry.actor != record::ACTOR {
            return ControlFlow::Continue(());
        }
        let broken = |reason: String| {
            ControlFlow::Break(ReplayFailure::Entry {
                sequence: entry.sequence,
                reason,
            })
        };
        let at = match Timestamp::parse(&entry.timestamp) {
            Ok(at) => at,
            Err(e) => return broken(e.to_string()),
        };
        match record::read_back(&entry.action, at, &entry.payload) {
            Ok(Some(event)) => match healer.apply(&event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => broken(e.to_string()),
            },
            Ok(None) => ControlFlow::Continue(()),
            Err(e) => broken(e.to_string()),
        }
    })?;
    match flow {
        ControlFlow::Continue(()) => Ok(healer),
        ControlFlow::Break(failure) => Err(failure),
    }
}
