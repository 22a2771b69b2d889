//! What advisors said and what came of it: one JSON file for each answer, kept to learn from.
//!
//! Written when the answer has come, and once more when its outcome is known. No file is ever overwritten by another
//! one's, none is ever half there, and none holds a known secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Anomaly, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fresh_file;

/// Longest file that is read back, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;
/// So many files are read back at most, the newest ones.
pub const LIST_MAX: usize = 1_000;
/// So many entries of the directory are looked at.
const SCAN_MAX: usize = 100_000;

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is being tried, or Evenkeel ended before it knew.
    Pending,
    /// It was run and verified.
    Success,
    /// It was run and did not help, or could not be run to its end.
    Failed,
    /// It was not allowed: unknown, out of bounds, too unsure, or against policy.
    Rejected,
}

/// One file: CONTRACT section 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// When the answer came.
    pub timestamp: Timestamp,
    /// Who gave it.
    pub advisor: String,
    /// What it was about.
    pub anomaly: Anomaly,
    /// The answer: its four fields, or as it came.
    pub amp_response: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether it is worth remembering for the next time.
    pub learned: bool,
}

/// Why guidance could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum GuidanceError {
    /// The file system refused.
    #[error(
        "guidance in {path}: {source}; check that the directory exists, is writable and has space"
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is not guidance.
    #[error("{path} is not guidance: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The path does not lead to a file right below the directory.
    #[error("{path} is not a guidance file of {dir}")]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
}

/// What was read back.
#[derive(Debug, Default)]
pub struct GuidanceList {
    /// The files that could be read, the oldest first.
    pub files: Vec<(PathBuf, Guidance)>,
    /// Those that could not, each with its reason.
    pub broken: Vec<GuidanceError>,
    /// How many older ones were not read.
    pub left_out: usize,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct GuidanceStore {
    dir: PathBuf,
    redactor: Redactor,
}

impl GuidanceStore {
    /// Guidance in this directory, which is made when it is first written to.
    pub fn new(dir: impl Into<PathBuf>, redactor: Redactor) -> Self {
        Self {
            dir: dir.into(),
            redactor,
        }
    }

    /// Writes `<type>_<YYYYMMDD_HHMMSS>.json`, with `-2` and so on when that is taken, and returns its path.
    pub fn write(&self, guidance: &Guidance) -> Result<PathBuf, GuidanceError> {
        let mut guidance = guidance.clone();
        if self.bytes(&guidance, &self.dir)?.len() as u64 > FILE_BYTES_MAX {
            // What cannot be read back is not written: the context is what grows.
            guidance.anomaly.context = "left out: too long".into();
        }
        let guidance = &guidance;
        let stem = format!("{}_{}", guidance.anomaly.kind, guidance.timestamp.compact());
        let bytes = self.bytes(guidance, &self.dir)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(GuidanceError::Broken {
                path: self.dir.join(stem),
                reason: format!(
                    "{} bytes are more than the {FILE_BYTES_MAX} that are read",
                    bytes.len()
                ),
            });
        }
        fresh_file::create(&self.dir, &stem, "json", &bytes).map_err(|source| GuidanceError::Io {
            path: self.dir.clone(),
            source,
        })
    }

    /// Notes what came of an answer that was written before.
    pub fn update_outcome(
        &self,
        path: &Path,
        outcome: Outcome,
        learned: bool,
    ) -> Result<(), GuidanceError> {
        if path.parent() != Some(&self.dir) || path.extension().is_none_or(|e| e != "json") {
            return Err(GuidanceError::Elsewhere {
                path: path.to_owned(),
                dir: self.dir.clone(),
            });
        }
        let mut guidance = read(path)?;
        guidance.outcome = outcome;
        guidance.learned = learned;
        let bytes = self.bytes(&guidance, path)?;
        fresh_file::replace(path, &bytes).map_err(|source| GuidanceError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads back the newest [`LIST_MAX`] files. A directory that is not there yet holds none.
    pub fn list(&self) -> Result<GuidanceList, GuidanceError> {
        let io = |source| GuidanceError::Io {
            path: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(GuidanceList::default()),
            Err(e) => return Err(io(e)),
        };
        let mut paths = Vec::new();
        for entry in entries.take(SCAN_MAX) {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == "json") {
                paths.push(path);
            }
        }
        paths.sort_by_key(|p| written_at(p));
        let mut list = GuidanceList {
            left_out: paths.len().saturating_sub(LIST_MAX),
            ..GuidanceList::default()
        };
        for path in paths.split_off(list.left_out) {
            match read(&path) {
                Ok(guidance) => list.files.push((path, guidance)),
                Err(e) => list.broken.push(e),
            }
        }
        Ok(list)
    }

    fn bytes(&self, guidance: &Guidance, path: &Path) -> Result<Vec<u8>, GuidanceError> {
        let broken = |e: serde_json::Error| GuidanceError::Broken {
            path: path.to_owned(),
            reason: e.to_string(),
        };
        let value = serde_json::to_value(guidance).map_err(broken)?;
        let mut bytes = serde_json::to_vec_pretty(&self.redactor.value(&value)).map_err(broken)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// What files are ordered by: the time and the suffix in the name, then the name.
fn written_at(path: &Path) -> (String, u32, String) {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let (name, suffix) = match stem.rsplit_once('-') {
        Some((name, n)) if n.parse::<u32>().is_ok() => (name, n.parse().unwrap_or(0)),
        _ => (stem.as_str(), 0),
    };
    let from = name.ceil_char_boundary(name.len().saturating_sub("YYYYMMDD_HHMMSS".len()));
    (name[from..].to_owned(), suffix, stem.clone())
}

fn read(path: &Path) -> Result<Guidance, GuidanceError> {
    let io = |source| GuidanceError::Io {
        path: path.to_owned(),
        source,
    };
    let broken = |reason: String| GuidanceError::Broken {
        path: path.to_owned(),
        reason,
    };
    let meta = fs::symlink_metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(broken("it is not a regular file".into()));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(broken(format!(
            "{} bytes are more than the {FILE_BYTES_MAX} that are read",
            meta.len()
        )));
    }
    let bytes = fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))
}
