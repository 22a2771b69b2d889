//! `run/services.json`: which processes Evenkeel has started, so that a restarted Evenkeel knows them again.
//!
//! Worth something only until the machine reboots, so a lost or broken file costs no more than having to look for
//! the services anew. It holds no environment and no arguments, only their hash.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::procinfo::ProcessId;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Larger files are not ours.
const FILE_LEN_MAX: u64 = 1 << 20;

/// One service's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The process; absent from the moment a start is announced until it has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<ProcessId>,
    /// The mark that the processes of this run carry in their environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<String>,
    /// Of the command as configured when it was started.
    pub(crate) command_hash: String,
    /// When it was started.
    pub(crate) since: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    services: BTreeMap<String, Entry>,
}

/// The file, and what stands in it.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    path: PathBuf,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    writing: Arc<Mutex<()>>,
}

impl Records {
    /// Reads the file; one that is missing, broken or newer counts as empty.
    pub(crate) fn load(path: PathBuf) -> Self {
        let entries = match read(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => {
                tracing::warn!(
                    path = %path.display(),
                    error = %e,
                    "the record of started services cannot be used; running services are looked for anew"
                );
                BTreeMap::new()
            }
        };
        Self {
            path,
            entries: Arc::new(Mutex::new(entries)),
            writing: Arc::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get(&self, name: &str) -> Option<Entry> {
        self.lock().get(name).cloned()
    }

    /// The services that have an entry.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Changes one entry in memory; [`Self::write`] puts it on the disk.
    pub(crate) fn set(&self, name: &str, entry: Option<Entry>) {
        let mut entries = self.lock();
        match entry {
            Some(entry) => entries.insert(name.to_owned(), entry),
            None => entries.remove(name),
        };
    }

    /// Replaces the file by what is known now. Not `durable`, it survives the end of Evenkeel but perhaps not that
    /// of the machine, after which it is worth nothing anyway; then it takes microseconds.
    pub(crate) fn write(&self, durable: bool) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let document = Document {
            version: VERSION,
            services: self.lock().clone(),
        };
        let text = serde_json::to_vec_pretty(&document)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        // Temporary files are made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&text)?;
        if durable {
            file.as_file().sync_all()?;
        }
        file.persist(&self.path).map_err(|e| e.error)?;
        if durable && cfg!(unix) {
            std::fs::File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Entry>> {
    if std::fs::metadata(path)?.len() > FILE_LEN_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    let text = std::fs::read(path)?;
    let version = serde_json::from_slice::<Version>(&text)?.version;
    if version > VERSION {
        return Err(io::Error::other(format!(
            "its version is {version}, this Evenkeel knows up to {VERSION}"
        )));
    }
    Ok(serde_json::from_slice::<Document>(&text)?.services)
}

/// SHA-256 over the length-prefixed arguments.
pub(crate) fn command_hash(command: &[String]) -> String {
    let mut hash = Sha256::new();
    for argument in command {
        hash.update(argument.len().to_le_bytes());
        hash.update(argument);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            process: Some(ProcessId {
                pid: 7,
                start_ticks: 9,
                boot_id: Some("b".into()),
            }),
            mark: Some("m".into()),
            command_hash: command_hash(&["a".into(), "b".into()]),
            since: Timestamp::from_millis(1000),
        }
    }

    #[test]
    fn is_read_as_written_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/services.json");
        let records = Records::load(path.clone());
        records.set("api", Some(entry()));
        records.write(true).unwrap();
        assert_eq!(Records::load(path.clone()).get("api"), Some(entry()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        records.set("api", None);
        records.write(false).unwrap();
        assert_eq!(Records::load(path).get("api"), None);
    }

    #[test]
    fn a_broken_or_newer_file_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services.json");
        for text in [
            "",
            "{",
            "[]",
            "\0\0\0",
            r#"{"version":1}"#,
            r#"{"version":2,"services":{"api":{"command_hash":"","since":"1970-01-01T00:00:01Z"}}}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Records::load(path.clone()).get("api"), None, "{text}");
        }
    }

    #[test]
    fn arguments_are_not_run_together() {
        assert_ne!(
            command_hash(&["ab".into(), "c".into()]),
            command_hash(&["a".into(), "bc".into()])
        );
    }
}
