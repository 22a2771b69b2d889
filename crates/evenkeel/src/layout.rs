//! Where everything lies in the data directory (CONTRACT section 4), and the lock that keeps it to one Evenkeel.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Profile;

/// The data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    profile: Profile,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It cannot be made or written.
    #[error(
        "the data directory {dir} cannot be written: {reason}; choose another with --data-dir, or mend its permissions"
    )]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another Evenkeel has it.
    #[error(
        "another Evenkeel ({holder}) works on the data directory {dir}; stop it first, or choose another with --data-dir"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
}

impl Layout {
    /// The layout of `root`, made absolute.
    pub fn new(root: &Path, profile: Profile) -> Self {
        Self {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf()),
            profile,
        }
    }

    /// The layout of an existing data directory, whichever profile made it.
    pub fn existing(root: &Path, configured: Profile) -> Self {
        let grace = Self::new(root, Profile::Grace);
        if grace.ledger().exists() {
            return grace;
        }
        Self::new(root, configured)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How files are named.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The ledger's database.
    pub fn ledger(&self) -> PathBuf {
        match self.profile {
            Profile::Service => self.root.join("evenkeel.db"),
            Profile::Grace => self.root.join("backend").join("grace.db"),
        }
    }

    /// The baseline.
    pub fn baseline(&self) -> PathBuf {
        self.root.join("storage").join("baseline.json")
    }

    /// What was learned of each series.
    pub fn series(&self) -> PathBuf {
        self.root.join("storage").join("series.bin")
    }

    /// What the watchdog saw last, for `status`.
    pub fn status(&self) -> PathBuf {
        self.root.join("run").join("status.json")
    }

    /// While this file exists nothing is done (SAFETY 16).
    pub fn pause_file(&self) -> PathBuf {
        self.root.join("PAUSE")
    }

    /// Where a running Evenkeel takes orders.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("run").join("control.sock")
    }

    /// The token of the HTTP interface.
    pub fn api_token(&self) -> PathBuf {
        self.root.join("run").join("api.token")
    }

    /// When Evenkeel last gave a sign of life, for who looks whether it does.
    pub fn heartbeat(&self) -> PathBuf {
        self.root.join("run").join("heartbeat")
    }

    /// Snapshots and the restore journal.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// Advisors' answers.
    pub fn guidance(&self) -> PathBuf {
        match self.profile {
            Profile::Service => self.root.join("training").join("amp_guidance"),
            Profile::Grace => self.root.join("grace_training").join("amp_guidance"),
        }
    }

    /// Logs and alerts.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Evenkeel's own log.
    pub fn backend_log(&self) -> PathBuf {
        self.logs().join("backend.log")
    }

    /// The key that signs the ledger, unless the configuration names another place.
    pub fn ledger_key(&self) -> PathBuf {
        self.root.join("keys").join("ledger.key")
    }

    /// The token that writers of audited actions send.
    pub fn audit_token(&self) -> PathBuf {
        self.root.join("run").join("audit.token")
    }

    /// `path` as people read it: relative to the data directory where it lies inside.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Makes every directory, and shows that each can be written.
    pub fn create(&self) -> Result<(), LayoutError> {
        let ledger = self.ledger();
        let ledger_dir = ledger.parent().unwrap_or(&self.root);
        for dir in [
            &self.root,
            ledger_dir,
            &self.storage().join("snapshots"),
            &self.guidance(),
            &self.logs(),
            &self.root.join("run"),
        ] {
            let not_writable = |e: std::io::Error| LayoutError::NotWritable {
                dir: dir.to_path_buf(),
                reason: e.to_string(),
            };
            std::fs::create_dir_all(dir).map_err(not_writable)?;
            let probe = dir.join(format!(".evenkeel-write-test-{}", std::process::id()));
            File::create(&probe).map_err(not_writable)?;
            let removed = std::fs::remove_file(&probe);
            removed.map_err(not_writable)?;
        }
        Ok(())
    }

    /// Takes the data directory for this process. It is given back when the lock is dropped or the process ends,
    /// however it ends.
    pub fn lock(&self) -> Result<DataDirLock, LayoutError> {
        let not_writable = |e: std::io::Error| LayoutError::NotWritable {
            dir: self.root.clone(),
            reason: e.to_string(),
        };
        std::fs::create_dir_all(&self.root).map_err(not_writable)?;
        let path = self.root.join("evenkeel.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let holder: String = holder.trim().chars().take(80).collect();
                return Err(LayoutError::InUse {
                    dir: self.root.clone(),
                    holder: if holder.is_empty() {
                        "of unknown number".to_owned()
                    } else {
                        holder
                    },
                });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(not_writable(e)),
        }
        // Who holds it is for people only; a full disk must not keep the lock from counting.
        let _ = file.set_len(0);
        let _ = write!(file, "process {}", std::process::id());
        Ok(DataDirLock { _file: file })
    }

    /// Whether some Evenkeel holds the data directory now.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.root.join("evenkeel.lock")) else {
            return false;
        };
        matches!(
            file.try_lock_shared(),
            Err(std::fs::TryLockError::WouldBlock)
        )
    }
}

/// Holds the data directory.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Writes `bytes` to `path` so that a reader sees the old content or the new, never a part: a temporary file in the
/// same directory, synced, renamed, and the directory synced.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let temp = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temp, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temp);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_data_directory_serves_one_evenkeel() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), Profile::Service);
        assert!(!layout.is_locked());
        let first = layout.lock().unwrap();
        assert!(layout.is_locked());
        let second = layout.lock().unwrap_err().to_string();
        assert!(
            second.contains(&format!("process {}", std::process::id())),
            "{second}"
        );
        drop(first);
        assert!(layout.lock().is_ok());
    }

    #[test]
    fn a_file_where_a_directory_should_be_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("storage"), "x").unwrap();
        let e = Layout::new(dir.path(), Profile::Service)
            .create()
            .unwrap_err()
            .to_string();
        assert!(e.contains("storage") && e.contains("--data-dir"), "{e}");
    }
}
