//! Why a Grace process could not start or had to end. Errors of single requests are not here:
//! they are answers, see `api::error`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a Grace process could not start or had to end early. Each message says what failed, on
/// what, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraceError {
    /// The settings file could not be read.
    #[error("cannot read the settings file {}: {source}; pass an existing file with --settings", path.display())]
    SettingsRead {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The settings file is not valid TOML, or has an unknown key or a value of the wrong type.
    #[error("the settings file {} is not valid: {message}", path.display())]
    SettingsSyntax {
        /// The file asked for.
        path: PathBuf,
        /// Line, column, the offending key and what was expected.
        message: String,
    },
    /// A value of the settings is outside its range.
    #[error("setting {key} = {value} is not valid: {expected}")]
    SettingsValue {
        /// The key with its table, as in `database.pool_size`.
        key: &'static str,
        /// The value found.
        value: String,
        /// The range or form expected.
        expected: &'static str,
    },
    /// The address to listen on is taken or not available.
    #[error(
        "cannot listen on {addr}: {source}; stop the program that has the port or set another one"
    )]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The database could not be opened, read or brought to the current schema.
    #[error("cannot use the database {}: {message}; check the path, its rights and that it is a SQLite file", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite or the operating system said.
        message: String,
    },
    /// Another program holds the database's write lock where this process needs it itself.
    #[error("the database {} is locked by another program; end that program or wait, then try again", path.display())]
    DatabaseLocked {
        /// The database file.
        path: PathBuf,
    },
    /// Something of the operating system failed: a directory, a child process, a signal handler.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as in "start the metrics collector".
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl GraceError {
    /// The process exit code that fits: 2 for settings, 3 for the environment (port, database,
    /// operating system).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SettingsRead { .. }
            | Self::SettingsSyntax { .. }
            | Self::SettingsValue { .. } => 2,
            Self::Bind { .. }
            | Self::Database { .. }
            | Self::DatabaseLocked { .. }
            | Self::Io { .. } => 3,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
