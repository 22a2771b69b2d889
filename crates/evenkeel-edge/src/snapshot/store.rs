//! The snapshots there are: listing, checking, and letting old ones go.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};

use evenkeel_core::Timestamp;

use super::blocks::{BlockStore, Manifest};
use super::take::{hash_file, read_bounded};
use super::{
    FORMAT_VERSION, FileRole, Metadata, SNAPSHOTS_MAX, SnapshotError, SnapshotFile, SnapshotRef,
    Snapshots, bad_id, io_at, is_id, sqlite,
};

/// What the names of temporary files begin with, here and in `config_edit`.
pub(super) const TEMPORARY: &str = ".evenkeel-";
/// Most names in a directory that are looked at for temporary files.
const SWEPT_MAX: usize = 100_000;

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
            bytes: meta.files.iter().map(SnapshotFile::bytes_on_disk).sum(),
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
            let stored = snapshot.dir.join(file.stored_name());
            if !fs::symlink_metadata(&stored).is_ok_and(|m| m.is_file()) {
                return Err(damaged(format!("{} is missing", file.name)));
            }
            let whole = self.whole(&snapshot, file).map_err(|e| match e {
                SnapshotError::Damaged { reason, .. } => {
                    damaged(format!("{}: {reason}", file.name))
                }
                other => other,
            })?;
            let path = whole.path();
            let (sha256, size) = hash_file(path)?;
            if (&sha256, size) != (&file.sha256, file.size) {
                return Err(damaged(format!(
                    "{} has {size} bytes and SHA-256 {sha256}; {} bytes and {} were expected",
                    file.name, file.size, file.sha256
                )));
            }
            if matches!(file.role, FileRole::Database | FileRole::Ledger) {
                sqlite::check(path, self.limits.full_check_bytes)
                    .map_err(|e| damaged(format!("{}: {e}", file.name)))?;
            }
        }
        Ok(snapshot)
    }

    /// A file of a snapshot as one file: itself, or put together from its blocks for as long as this is held.
    pub(super) fn whole(
        &self,
        snapshot: &SnapshotRef,
        file: &SnapshotFile,
    ) -> Result<Whole, SnapshotError> {
        let stored = snapshot.dir.join(file.stored_name());
        if file.stored_bytes.is_none() {
            return Ok(Whole::Itself(stored));
        }
        let manifest = Manifest::read(&stored)?;
        let dir = self.dir();
        let mut temp = tempfile::Builder::new()
            .prefix(".making-")
            .tempfile_in(&dir)
            .map_err(io_at(&dir, "no file can be made in it"))?;
        BlockStore::new(&self.storage).extract(&manifest, temp.as_file_mut())?;
        Ok(Whole::Together(temp))
    }

    /// Writes the files of a snapshot as plain files into an empty or new directory, each checked.
    pub fn extract(&self, id: &str, to: &Path) -> Result<Vec<std::path::PathBuf>, SnapshotError> {
        let snapshot = self.verify(id)?;
        fs::create_dir_all(to).map_err(io_at(to, "it cannot be made"))?;
        if fs::read_dir(to)
            .map_err(io_at(to, "it cannot be listed"))?
            .next()
            .is_some()
        {
            return Err(SnapshotError::Refused {
                file: to.to_owned(),
                reason: "it is not empty; name a new directory".into(),
            });
        }
        let mut out = Vec::new();
        for file in &snapshot.files {
            let whole = self.whole(&snapshot, file)?;
            let path = to.join(&file.name);
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).map_err(io_at(dir, "it cannot be made"))?;
            }
            fs::copy(whole.path(), &path).map_err(io_at(&path, "it cannot be written"))?;
            out.push(path);
        }
        Ok(out)
    }

    /// Deletes what the rules do not keep, oldest first, and says what that was.
    ///
    /// The newest snapshot that still verifies is never deleted, nor are the protected ones.
    pub fn prune(&self, rules: &PruneRules, now: Timestamp) -> Result<Vec<Pruned>, SnapshotError> {
        let all = self.list()?;
        let excess = |count: usize, bytes: u64, at: Timestamp| {
            count > rules.keep_count
                || bytes > rules.max_bytes
                || now.millis_since(at) > rules.keep_age_ms
        };
        let in_all: u64 = all.iter().map(|s| s.bytes).sum();
        // Whether the newest still verifies takes reading it whole; nobody has to know while nothing goes.
        if !all.iter().any(|s| excess(all.len(), in_all, s.at)) {
            return Ok(Vec::new());
        }
        let newest_good = all
            .iter()
            .filter(|s| s.verified && s.kind != super::restore::FORENSIC_KIND)
            .find(|s| self.verify(&s.id).is_ok())
            .map(|s| s.id.clone());
        let mut bytes = in_all;
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
        if !out.is_empty() {
            self.sweep_blocks();
        }
        Ok(out)
    }

    /// Removes blocks that no snapshot names any more.
    fn sweep_blocks(&self) {
        let Ok(entries) = fs::read_dir(self.dir()) else {
            return;
        };
        let mut manifests = Vec::new();
        for entry in entries.flatten().take(SNAPSHOTS_MAX) {
            let Ok(files) = fs::read_dir(entry.path()) else {
                continue;
            };
            let named = files.flatten().map(|f| f.path());
            manifests.extend(named.filter(|p| p.extension().is_some_and(|x| x == "blocks")));
        }
        BlockStore::new(&self.storage).sweep(&manifests);
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
                let _ = fs::remove_file(entry.path());
            } else if is_id(&name) {
                // Only an empty one goes: a name that was reserved and never used.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// A file as one file.
pub(super) enum Whole {
    /// It lies there as it is.
    Itself(std::path::PathBuf),
    /// Put together; gone when this is dropped.
    Together(tempfile::NamedTempFile),
}

impl Whole {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Itself(path) => path,
            Self::Together(temp) => temp.path(),
        }
    }
}

/// Removes the temporary files that replacing a file in this directory left when it was killed: `.evenkeel-` and six
/// letters or digits, as [`tempfile`] names them.
pub(super) fn sweep_temporary(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten().take(SWEPT_MAX) {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|n| n.strip_prefix(TEMPORARY))
            .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
        if ours && entry.file_type().is_ok_and(|t| t.is_file()) {
            let _ = fs::remove_file(entry.path());
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
