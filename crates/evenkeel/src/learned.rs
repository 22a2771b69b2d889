//! What was learned of each series, kept over restarts: `storage/series.bin`.
//!
//! It is written beside the old one and then put in its place. Losing it loses time and nothing else: everything is
//! learned anew.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_detect::{Follow, FollowConfig};

/// How often it is written.
const EVERY: Duration = Duration::from_mins(5);
/// Largest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 30;

/// Writes it now and then.
#[derive(Debug)]
pub(crate) struct Learned {
    path: PathBuf,
    written: Instant,
}

impl Learned {
    /// What was learned before, where something was.
    pub(crate) fn open(path: PathBuf, config: &FollowConfig) -> (Self, Option<Follow>) {
        let follow = match read(&path) {
            Ok(None) => None,
            Ok(Some(bytes)) => Follow::from_bytes(&bytes, config.clone())
                .map_err(|e| warn(&path, &e.to_string()))
                .ok(),
            Err(e) => {
                warn(&path, &e.to_string());
                None
            }
        };
        let written = Instant::now();
        (Self { path, written }, follow)
    }

    /// Writes it when it is time.
    pub(crate) fn keep(&mut self, follow: impl FnOnce() -> Vec<u8>) {
        if self.written.elapsed() >= EVERY {
            self.write(&follow());
        }
    }

    /// Writes it now.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.written = Instant::now();
        if let Err(e) = write(&self.path, bytes) {
            tracing::warn!(
                subsystem = "watchdog",
                "what was learned could not be written to {}: {e}",
                self.path.display()
            );
        }
    }
}

fn warn(path: &Path, reason: &str) {
    tracing::warn!(
        subsystem = "watchdog",
        "{}: {reason}; every series is learned anew",
        path.display()
    );
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_LEN_MAX => {
            Err(std::io::Error::other("it is larger than any written here"))
        }
        Ok(_) => std::fs::read(path).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temp = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temp)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    std::fs::rename(temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_absent_is_learned_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("series.bin");
        let config = FollowConfig::default();
        let (mut learned, none) = Learned::open(path.clone(), &config);
        assert!(none.is_none());
        learned.write(&Follow::new(config.clone()).to_bytes());
        assert!(Learned::open(path.clone(), &config).1.is_some());
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Learned::open(path, &config).1.is_none());
    }
}
