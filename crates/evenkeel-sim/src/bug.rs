//! Drivers that are wrong on purpose: a checker that never failed has shown nothing.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Says that a snapshot was taken and takes none.
    SkipSnapshot,
    /// Goes on after a snapshot failed, as if there were one.
    ActWithoutSnapshot,
    /// Runs a step while its intent is not yet on record.
    ActBeforeRecord,
    /// Does not write the intent of a step.
    ForgetIntent,
    /// After a crash runs the step that was under way again, without looking.
    RerunBlindly,
    /// After a failed re-test of a step of unknown outcome runs the step again, whatever it is.
    RerunNonIdempotent,
    /// Says that changes were taken back and takes none back.
    DropRollback,
    /// Takes back only what the last try of each step changed.
    ForgetFirstUndo,
    /// Calls a failed rollback a good one.
    HideFailedRollback,
    /// Writes the closing entry twice.
    CloseTwice,
    /// Forgets failed attempts when it is built again.
    LoseAttempts,
    /// Leaves attempts out that were already on record, when it asks whether to open a cycle.
    ForgetRecurrence,
    /// Says that people were alerted and alerts nobody.
    NoAlert,
    /// Is silent when the ledger takes nothing any more.
    NoAlertWithoutLedger,
    /// Takes a re-test that concluded nothing for one that passed.
    BelieveInconclusive,
    /// Goes by wider rules than it was given.
    WidenRules,
    /// Runs what needs a person's approval without one.
    IgnoreTier,
    /// Goes on although a person said hands off.
    DeafToPause,
    /// Never gets to the end: the closing entry is never written.
    NeverClose,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::SkipSnapshot,
        Self::ActWithoutSnapshot,
        Self::ActBeforeRecord,
        Self::ForgetIntent,
        Self::RerunBlindly,
        Self::RerunNonIdempotent,
        Self::DropRollback,
        Self::ForgetFirstUndo,
        Self::HideFailedRollback,
        Self::CloseTwice,
        Self::LoseAttempts,
        Self::ForgetRecurrence,
        Self::NoAlert,
        Self::NoAlertWithoutLedger,
        Self::BelieveInconclusive,
        Self::WidenRules,
        Self::IgnoreTier,
        Self::DeafToPause,
        Self::NeverClose,
    ];
}
