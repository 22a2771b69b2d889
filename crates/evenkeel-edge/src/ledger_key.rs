//! Where the secret keys come from with which the ledger signs its checkpoints and a witness cosigns: a file of its
//! owner's only, an environment variable, or a program that prints it. Never the ledger's own file.
//!
//! A key is one line, `PRIVATE+KEY+name+id+base64`. No error, log line or `Debug` holds any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use evenkeel_ledger::tlog::note::KEY_TEXT_BYTES_MAX;
use evenkeel_ledger::tlog::{Cosigner, KeyError, KeyName, Signer};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::fresh_file;
use crate::outside::{CaptureError, ENV_KEPT, capture};

/// What the names of the ledger's new keys begin with.
const LOG_PREFIX: &str = "evenkeel";
/// What the names of a witness's new keys begin with.
const WITNESS_PREFIX: &str = "evenkeel-witness";
/// Random bytes in a new key's name: the same name for two logs would make them one to a witness.
const NAME_BYTES: usize = 16;

/// Where a secret key is.
#[derive(Clone)]
pub enum KeySource {
    /// In a file that nobody but its owner can read.
    File(PathBuf),
    /// In an environment variable of this name.
    Env(String),
    /// On the standard output of a program.
    Command {
        /// The program and its arguments; no shell.
        argv: Vec<String>,
        /// Environment on top of a small part of Evenkeel's own. May hold secrets, and is not shown.
        env: BTreeMap<String, String>,
        /// After this the program is killed with all that it started.
        limit: Duration,
    },
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self})")
    }
}

/// As in errors: what to look at, without what may be secret.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Command { argv, .. } => {
                write!(f, "the program {}", argv.first().map_or("", String::as_str))
            }
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerKeyError {
    /// There is none. For a ledger that was signed before, this is no reason to make another one.
    #[error("there is no signing key in {from}; put it back, or name the place where it is")]
    Missing {
        /// Where it was looked for.
        from: String,
    },
    /// Others may read or write the key's file.
    #[error(
        "the signing key {path} is open to others (mode {mode:04o}): who could read it can sign as this ledger; run `chmod 600 {path}`, and make a new key if somebody may have read it"
    )]
    OpenToOthers {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The file cannot be read or made.
    #[error("the signing key {path} cannot be {doing}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Read or made.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The program failed. What it wrote is not repeated.
    #[error(
        "the signing key cannot be had from {program}: {reason}; run it by hand to see what it says"
    )]
    Command {
        /// The program.
        program: String,
        /// How it ended.
        reason: String,
    },
    /// What was found is not a key.
    #[error("what is in {from} is not usable as a signing key: {error}")]
    Key {
        /// Where it was found.
        from: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A new key can only be made as a file.
    #[error(
        "a new signing key can be written to a file only, not to {from}; make one there by yourself"
    )]
    CannotMake {
        /// Where it should have gone.
        from: String,
    },
    /// The system gave no random bytes.
    #[error("the operating system gave no random bytes for a new signing key: {reason}")]
    Random {
        /// The system's words.
        reason: String,
    },
}

/// A key that was found or made.
#[derive(Debug)]
pub struct Found<K> {
    /// The key.
    pub key: K,
    /// Whether it was made just now.
    pub is_new: bool,
}

impl KeySource {
    /// The ledger's key. Makes none.
    ///
    /// # Errors
    /// [`LedgerKeyError::Missing`] where there is none, and others.
    pub async fn signer(&self) -> Result<Signer, LedgerKeyError> {
        self.read().await
    }

    /// The ledger's key; where its file is missing a new one is made there, mode 0600, named `evenkeel/` and 32 random
    /// hexadecimal digits. Only for a ledger that was never signed: another key on one that was looks like a forgery.
    ///
    /// # Errors
    /// As [`Self::signer`].
    pub async fn signer_or_new(&self) -> Result<Found<Signer>, LedgerKeyError> {
        self.or_new(|| {
            let (name, seed) = fresh(LOG_PREFIX)?;
            Ok(Signer::from_seed(name, *seed).to_secret_text())
        })
        .await
    }

    /// A witness's key. Makes none.
    ///
    /// # Errors
    /// As [`Self::signer`].
    pub async fn cosigner(&self) -> Result<Cosigner, LedgerKeyError> {
        self.read().await
    }

    /// A witness's key; where its file is missing a new one is made there, named `evenkeel-witness/` and 32 random
    /// hexadecimal digits.
    ///
    /// # Errors
    /// As [`Self::signer`].
    pub async fn cosigner_or_new(&self) -> Result<Found<Cosigner>, LedgerKeyError> {
        self.or_new(|| {
            let (name, seed) = fresh(WITNESS_PREFIX)?;
            Ok(Cosigner::from_seed(name, *seed).to_secret_text())
        })
        .await
    }

    async fn or_new<K: FromStr<Err = KeyError>>(
        &self,
        make: impl FnOnce() -> Result<Zeroizing<String>, LedgerKeyError>,
    ) -> Result<Found<K>, LedgerKeyError> {
        match self.read().await {
            Ok(key) => return Ok(Found { key, is_new: false }),
            Err(LedgerKeyError::Missing { from }) => {
                let Self::File(path) = self else {
                    return Err(LedgerKeyError::CannotMake { from });
                };
                let line = Zeroizing::new(format!("{}\n", *make()?));
                match fresh_file::create_exactly(path, line.as_bytes()) {
                    Ok(()) => tracing::info!(path = %path.display(), "a new signing key was made"),
                    // Another process was faster: its key is the key.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        let key = self.read().await?;
                        return Ok(Found { key, is_new: false });
                    }
                    Err(error) => return Err(file_error(path, "made", &error)),
                }
            }
            Err(other) => return Err(other),
        }
        // What is used is what the next start will read.
        let key = self.read().await?;
        Ok(Found { key, is_new: true })
    }

    async fn read<K: FromStr<Err = KeyError>>(&self) -> Result<K, LedgerKeyError> {
        let text = match self {
            Self::File(path) => read_file(path)?,
            Self::Env(name) => {
                let value = std::env::var(name).ok().filter(|value| !value.is_empty());
                Zeroizing::new(value.ok_or_else(|| self.missing())?)
            }
            Self::Command { argv, env, limit } => run(argv, env, *limit).await?,
        };
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(self.missing());
        }
        line.parse().map_err(|error| LedgerKeyError::Key {
            from: self.to_string(),
            error,
        })
    }

    fn missing(&self) -> LedgerKeyError {
        LedgerKeyError::Missing {
            from: self.to_string(),
        }
    }
}

/// A new secret for a log that has its name already: the key that comes after another.
///
/// # Errors
/// [`LedgerKeyError::Random`].
pub fn new_signer(name: KeyName) -> Result<Signer, LedgerKeyError> {
    fresh(LOG_PREFIX).map(|(_, seed)| Signer::from_seed(name, *seed))
}

/// Writes a key to a file that is not there yet, mode 0600, durable when this returns.
///
/// # Errors
/// [`LedgerKeyError::File`], also where the file is there.
pub fn write(path: &Path, signer: &Signer) -> Result<(), LedgerKeyError> {
    let line = Zeroizing::new(format!("{}\n", *signer.to_secret_text()));
    fresh_file::create_exactly(path, line.as_bytes())
        .map_err(|error| file_error(path, "made", &error))
}

/// A name and a secret, both from the operating system's random numbers.
fn fresh(prefix: &str) -> Result<(KeyName, Zeroizing<[u8; 32]>), LedgerKeyError> {
    let failed = |error: getrandom::Error| LedgerKeyError::Random {
        reason: error.to_string(),
    };
    let mut name = [0; NAME_BYTES];
    getrandom::fill(&mut name).map_err(failed)?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(failed)?;
    let name = format!("{prefix}/{}", hex::encode(name));
    let name = KeyName::new(name).map_err(|error| LedgerKeyError::Key {
        from: "a new name".into(),
        error,
    })?;
    Ok((name, seed))
}

fn file_error(path: &Path, doing: &'static str, error: &io::Error) -> LedgerKeyError {
    LedgerKeyError::File {
        path: path.display().to_string(),
        doing,
        reason: error.to_string(),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, LedgerKeyError> {
    let failed = |error: &io::Error| file_error(path, "read", error);
    // Opening a pipe would wait for its writer.
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeySource::File(path.to_owned()).missing());
        }
        Err(error) => return Err(failed(&error)),
    };
    if !meta.is_file() {
        return Err(failed(&io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(|error| failed(&error))?;
    check_private(path, &file)?;
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES_MAX + 3));
    file.take(KEY_TEXT_BYTES_MAX as u64 + 2)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    Ok(text)
}

/// Looks at the file that is open, not at what lies at its path by now.
#[cfg(unix)]
fn check_private(path: &Path, file: &File) -> Result<(), LedgerKeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = file
        .metadata()
        .map_err(|error| file_error(path, "read", &error))?;
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(LedgerKeyError::OpenToOthers {
            path: path.display().to_string(),
            mode,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "same shape as where permissions can be looked at"
)]
fn check_private(_path: &Path, _file: &File) -> Result<(), LedgerKeyError> {
    // Files there are their owner's by the directory they are made in.
    Ok(())
}

async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    limit: Duration,
) -> Result<Zeroizing<String>, LedgerKeyError> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |reason: String| LedgerKeyError::Command {
        program: program.clone(),
        reason,
    };
    if program.is_empty() {
        return Err(failed(
            "give the program and its arguments as a list".into(),
        ));
    }
    let mut command = Command::new(&program);
    command.args(&argv[1..]).env_clear();
    for key in ENV_KEPT {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command.envs(env);
    // One byte more than may be, so that a longer one is refused and not cut.
    let done = capture(&mut command, b"", KEY_TEXT_BYTES_MAX + 2, limit)
        .await
        .map_err(|error| match error {
            CaptureError::TimedOut => {
                failed(format!("it did not end within {} ms", limit.as_millis()))
            }
            CaptureError::Io(error) => failed(format!("it cannot be run: {error}")),
        })?;
    if !done.status.success() {
        return Err(failed(done.status.to_string()));
    }
    let bytes = Zeroizing::new(done.stdout.into_bytes());
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(failed("it did not print text".into())),
    }
}
