//! The snapshots there are: listing, checking, and letting old ones go.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};

use evenkeel_core::Timestamp;

use super::take::{hash_file, read_bounded};
use super::{
    FORMAT_VERSION, FileRole, Metadata, SNAPSHOTS_MAX, SnapshotError, SnapshotRef, Snapshots,
    bad_id, io_at, is_id, sqlite,
};

/// How many snapshots are kept. The newest good one and the protected ones are kept whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneRules {
    /// At most this many.
    pub keep_count: usize,
    /// None older than this, in milliseconds.
    pub keep_age_ms: i64,
    /// At most this many bytes in all.
    pub max_bytes: u64,
    /// Ids that are never deleted: those of open cycles.
    pub protected: BTreeSet<String>,
}

/// A snapshot that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Its id.
    pub id: String,
    /// Bytes freed.
    pub bytes: u64,
    /// Which rule: `count`, `age` or `bytes`.
    pub rule: &'static str,
}

impl Snapshots {
    /// All snapshots that can be read, newest first. What is no snapshot is left out.
    pub fn list(&self) -> Result<Vec<SnapshotRef>, SnapshotError> {
        let dir = self.dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_at(&dir, "it cannot be listed")(e)),
        };
        let mut out: Vec<SnapshotRef> = entries
            .flatten()
            .take(SNAPSHOTS_MAX)
            .filter_map(|e| self.get(e.file_name().to_str()?).ok())
            .collect();
        out.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        Ok(out)
    }

    /// One snapshot by its id, without reading its files.
    pub fn get(&self, id: &str) -> Result<SnapshotRef, SnapshotError> {
        if !is_id(id) {
            return Err(bad_id(id));
        }
        let dir = self.dir().join(id);
        let file = dir.join("metadata.json");
        let plain = fs::symlink_metadata(&dir).is_ok_and(|m| m.is_dir())
            && fs::symlink_metadata(&file).is_ok_and(|m| m.is_file());
        if !plain {
            return Err(SnapshotError::Unknown {
                id: id.to_owned(),
                dir: self.dir(),
            });
        }
        let damaged = |reason: String| SnapshotError::Damaged {
            id: id.to_owned(),
            reason,
        };
        let value: serde_json::Value = serde_json::from_slice(&read_bounded(&file)?)
            .map_err(|e| damaged(format!("metadata.json: {e}")))?;
        let version = value["format_version"].as_u64().unwrap_or(0);
        if version > u64::from(FORMAT_VERSION) {
            return Err(SnapshotError::TooNew {
                what: format!("the snapshot `{id}`"),
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        let meta: Metadata =
            serde_json::from_value(value).map_err(|e| damaged(format!("metadata.json: {e}")))?;
        if meta.snapshot_id != id {
            return Err(damaged(format!(
                "it says that it is `{}`",
                meta.snapshot_id
            )));
        }
        if let Some(f) = meta.files.iter().find(|f| !is_inside(&f.name)) {
            return Err(damaged(format!("`{}` is no file of a snapshot", f.name)));
        }
        Ok(SnapshotRef {
            id: meta.snapshot_id,
            dir,
            bytes: meta.files.iter().map(|f| f.size).sum(),
            files: meta.files,
            verified: meta.verified,
            at: meta.timestamp,
            kind: meta.kind,
        })
    }

    /// Reads every file of a snapshot again: hashes, sizes, and the integrity of its databases.
    pub fn verify(&self, id: &str) -> Result<SnapshotRef, SnapshotError> {
        let snapshot = self.get(id)?;
        let damaged = |reason: String| SnapshotError::Damaged {
            id: id.to_owned(),
            reason,
        };
        for file in &snapshot.files {
            let path = snapshot.dir.join(&file.name);
            if !fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
                return Err(damaged(format!("{} is missing", file.name)));
            }
            let (sha256, size) = hash_file(&path)?;
            if (&sha256, size) != (&file.sha256, file.size) {
                return Err(damaged(format!(
                    "{} has {size} bytes and SHA-256 {sha256}; {} bytes and {} were expected",
                    file.name, file.size, file.sha256
                )));
            }
            if matches!(file.role, FileRole::Database | FileRole::Ledger) {
                sqlite::check(&path, self.limits.full_check_bytes)
                    .map_err(|e| damaged(format!("{}: {e}", file.name)))?;
            }
        }
        Ok(snapshot)
    }

    /// Deletes what the rules do not keep, oldest first, and says what that was.
    ///
    /// The newest snapshot that still verifies is never deleted, nor are the protected ones.
    pub fn prune(&self, rules: &PruneRules, now: Timestamp) -> Result<Vec<Pruned>, SnapshotError> {
        let all = self.list()?;
        let newest_good = all
            .iter()
            .filter(|s| s.verified && s.kind != super::restore::FORENSIC_KIND)
            .find(|s| self.verify(&s.id).is_ok())
            .map(|s| s.id.clone());
        let mut bytes: u64 = all.iter().map(|s| s.bytes).sum();
        let mut count = all.len();
        let mut out = Vec::new();
        for snapshot in all.iter().rev() {
            let rule = if now.millis_since(snapshot.at) > rules.keep_age_ms {
                "age"
            } else if count > rules.keep_count {
                "count"
            } else if bytes > rules.max_bytes {
                "bytes"
            } else {
                continue;
            };
            if rules.protected.contains(&snapshot.id) || newest_good.as_ref() == Some(&snapshot.id)
            {
                continue;
            }
            self.delete(&snapshot.dir)?;
            bytes -= snapshot.bytes;
            count -= 1;
            out.push(Pruned {
                id: snapshot.id.clone(),
                bytes: snapshot.bytes,
                rule,
            });
        }
        Ok(out)
    }

    /// Takes a snapshot's name away first, so that none is ever seen half deleted.
    fn delete(&self, dir: &Path) -> Result<(), SnapshotError> {
        let parent = self.dir();
        let gone = tempfile::Builder::new()
            .prefix(".deleting-")
            .tempdir_in(&parent)
            .map_err(io_at(&parent, "no directory can be made in it"))?;
        fs::rename(dir, gone.path().join("it")).map_err(io_at(dir, "it cannot be deleted"))?;
        gone.close().map_err(io_at(dir, "it cannot be deleted"))
    }

    /// Removes what an interrupted `take` or `prune` left.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.dir()) else {
            return;
        };
        for entry in entries.flatten().take(SNAPSHOTS_MAX) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".making-") || name.starts_with(".deleting-") {
                let _ = fs::remove_dir_all(entry.path());
            } else if is_id(&name) {
                // Only an empty one goes: a name that was reserved and never used.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Whether a name from `metadata.json` stays inside the snapshot.
fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|c| matches!(c, Component::Normal(_)))
}
