//! How a command ends: the documented exit codes.

use evenkeel_ledger::LedgerError;

/// A command that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Healthy, or healed.
    Healthy,
    /// Anomalies are left unhealed.
    Unhealed,
    /// A threshold of `load` was missed.
    Missed,
    /// No request of `load` was answered, or its figures say nothing about the target.
    Unreached,
    /// The ledger does not verify.
    LedgerDamaged,
    /// Ended by a signal, in good order.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Healthy | Self::Interrupted => 0,
            Self::Unhealed | Self::Missed => 1,
            Self::Unreached => 3,
            Self::LedgerDamaged => 4,
        }
    }
}

/// A command that could not do its work: one message, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Usage or configuration: 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 2,
        }
    }

    /// Target or environment: 3.
    pub fn target(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 3,
        }
    }

    /// The ledger does not verify: 4.
    pub fn ledger_damaged(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 4,
        }
    }

    /// A bug: 5.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 5,
        }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl From<LedgerError> for Failure {
    fn from(e: LedgerError) -> Self {
        match e.root_cause() {
            LedgerError::DoesNotVerify { .. } | LedgerError::Corrupt { .. } => {
                Self::ledger_damaged(e.to_string())
            }
            LedgerError::Invalid { .. } => Self::internal(e.to_string()),
            _ => Self::target(e.to_string()),
        }
    }
}

impl From<evenkeel_ledger::export::ExportError> for Failure {
    fn from(e: evenkeel_ledger::export::ExportError) -> Self {
        use evenkeel_ledger::export::ExportError;
        match e {
            ExportError::Ledger(e) => e.into(),
            ExportError::Damaged(_) => Self::ledger_damaged(e.to_string()),
            _ => Self::target(e.to_string()),
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(e: crate::config::ConfigError) -> Self {
        Self::usage(e.to_string())
    }
}

impl From<crate::layout::LayoutError> for Failure {
    fn from(e: crate::layout::LayoutError) -> Self {
        Self::target(e.to_string())
    }
}

impl From<crate::playbooks::PlaybooksError> for Failure {
    fn from(e: crate::playbooks::PlaybooksError) -> Self {
        Self::usage(e.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::target(e.to_string())
    }
}
