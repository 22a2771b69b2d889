//! Taking a snapshot: built beside, checked, synced, and only then given its name.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::blocks::{BlockStore, Manifest};
use super::sqlite::{self, SqliteError, make_private};
use super::{
    CONFIG_FILES_MAX, FORMAT_VERSION, FileRole, ID_LEN_MAX, LedgerAt, Metadata, SnapshotError,
    SnapshotFile, SnapshotKind, SnapshotRef, SnapshotRequest, Snapshots, bad_id, io_at, is_id,
};
use crate::config_edit::{FILE_LEN_MAX, locate, sync_dir};

/// Names in a snapshot that are not free for a database.
const TAKEN: [&str; 3] = ["metadata.json", "anomaly.json", "config"];
/// Most snapshots that may be made within one second.
const SAME_SECOND_MAX: u32 = 1_000;

impl Snapshots {
    /// Takes a snapshot. On any error nothing of it remains.
    pub fn take(&self, request: &SnapshotRequest) -> Result<SnapshotRef, SnapshotError> {
        let (base, kind, anomaly_id) = match &request.kind {
            SnapshotKind::PreHeal {
                anomaly,
                anomaly_id,
            } => (
                format!("pre_heal_{}_{}", anomaly.kind, request.at.compact()),
                anomaly.kind.to_string(),
                Some(self.redactor.text(anomaly_id)),
            ),
            SnapshotKind::Workflow { id } => (format!("workflow_{id}"), "workflow".into(), None),
            SnapshotKind::Manual { label } => (
                format!("manual_{label}_{}", request.at.compact()),
                "manual".into(),
                None,
            ),
        };
        if !is_id(&base) || base.len() > ID_LEN_MAX - 8 {
            return Err(bad_id(&base));
        }
        if request.config_files.len() > CONFIG_FILES_MAX {
            return Err(SnapshotError::Refused {
                file: request.root.clone(),
                reason: format!(
                    "{} configuration files; at most {CONFIG_FILES_MAX}",
                    request.config_files.len()
                ),
            });
        }
        self.room_for(request)?.enough(&self.dir())?;
        let mut build = self.begin()?;
        let large = |db: &Path, above: u64| len_with_wal(db) > above;
        if let Some(db) = &request.database {
            if large(db, self.limits.blocks_above_bytes) {
                self.add_blocks(&mut build, db, &base)?;
            } else {
                self.add_database(&mut build, db, FileRole::Database)?;
            }
        }
        if let Some(ledger) = &request.ledger {
            if large(ledger, self.limits.ledger_copy_bytes) {
                build.ledger = Some(ledger_at(ledger)?);
            } else {
                self.add_database(&mut build, ledger, FileRole::Ledger)?;
            }
        }
        build.add_configs(&request.root, &request.config_files)?;
        if let SnapshotKind::PreHeal { anomaly, .. } = &request.kind {
            let value = serde_json::to_value(anomaly).unwrap_or(Value::Null);
            let text = pretty(&self.redactor.value(&value));
            build.add_bytes(
                "anomaly.json",
                text.as_bytes(),
                PathBuf::new(),
                FileRole::Anomaly,
                None,
            )?;
        }
        self.finish(build, &base, kind, anomaly_id, request.at, true)
    }

    /// Whether the next snapshot fits on the disk: to be asked before healing begins.
    ///
    /// What is kept as blocks is copied whole first, so it needs twice its size for a moment.
    pub fn room_for(&self, request: &SnapshotRequest) -> Result<Room, SnapshotError> {
        let ledger = request
            .ledger
            .clone()
            .filter(|l| len_with_wal(l) <= self.limits.ledger_copy_bytes);
        self.room(&[&request.database, &ledger])
    }

    /// Space for the copies of these databases, before any is begun.
    pub(super) fn room(&self, databases: &[&Option<PathBuf>]) -> Result<Room, SnapshotError> {
        let dir = self.dir();
        fs::create_dir_all(&dir).map_err(io_at(&dir, "it cannot be made"))?;
        let size: u64 = databases
            .iter()
            .filter_map(|d| d.as_ref())
            .map(|db| {
                let len = len_with_wal(db);
                // The plain copy and its blocks are there together for a moment.
                let twice = len > self.limits.blocks_above_bytes;
                if twice { len.saturating_mul(2) } else { len }
            })
            .sum();
        // A fifth on top: the database grows while it is copied.
        let needed = size
            .saturating_add(size / 5)
            .saturating_add(self.limits.reserve_bytes);
        Ok(Room {
            needed,
            free: free_bytes(&dir),
        })
    }

    pub(super) fn begin(&self) -> Result<Build, SnapshotError> {
        let parent = self.dir();
        fs::create_dir_all(&parent).map_err(io_at(&parent, "it cannot be made"))?;
        let dir = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&parent)
            .map_err(io_at(&parent, "no directory can be made in it"))?;
        Ok(Build {
            dir,
            files: Vec::new(),
            ledger: None,
        })
    }

    pub(super) fn add_database(
        &self,
        build: &mut Build,
        db: &Path,
        role: FileRole,
    ) -> Result<(), SnapshotError> {
        let name = build.free_name(db, role)?;
        let copy = build.dir.path().join(&name);
        let failed = |source| not_copied(db, source);
        sqlite::copy(db, &copy, Duration::from_millis(self.limits.busy_ms)).map_err(failed)?;
        // The copy is what would be restored: it is the one that must be sound.
        sqlite::check(&copy, self.limits.full_check_bytes).map_err(failed)?;
        sync_file(&copy)?;
        build.add_existing(name, db.to_owned(), role, mode_of(db))
    }

    /// Keeps a large database as blocks: what the snapshot before has at the same place is not written again.
    fn add_blocks(&self, build: &mut Build, db: &Path, base: &str) -> Result<(), SnapshotError> {
        let name = build.free_name(db, FileRole::Database)?;
        let copy = build.dir.path().join(format!("{name}.copy"));
        let failed = |source| not_copied(db, source);
        sqlite::copy(db, &copy, Duration::from_millis(self.limits.busy_ms)).map_err(failed)?;
        let before = self.list()?.into_iter().find_map(|s| {
            let file = s
                .files
                .iter()
                .find(|f| f.stored_bytes.is_some() && f.source == db)?;
            Manifest::read(&s.dir.join(file.stored_name())).ok()
        });
        let store = BlockStore::new(&self.storage);
        let pack = unique(base);
        // The check reads the same pages at the same time: they are in memory.
        let (checked, kept) = std::thread::scope(|scope| {
            let check = scope.spawn(|| sqlite::check(&copy, self.limits.full_check_bytes));
            let kept = store.keep(&copy, before.as_ref(), &pack);
            let checked = check.join().unwrap_or(Err(SqliteError::Missing));
            (checked, kept)
        });
        checked.map_err(failed)?;
        let kept = kept?;
        let size = fs::metadata(&copy).map_or(0, |m| m.len());
        fs::remove_file(&copy).map_err(io_at(&copy, "it cannot be removed"))?;
        build.write(&format!("{name}.blocks"), &kept.manifest.to_bytes())?;
        build.files.push(SnapshotFile {
            name,
            sha256: kept.sha256,
            size,
            source: db.to_owned(),
            role: FileRole::Database,
            mode: mode_of(db),
            stored_bytes: Some(kept.stored),
        });
        Ok(())
    }

    /// Writes `metadata.json`, syncs everything and gives the directory its name.
    pub(super) fn finish(
        &self,
        mut build: Build,
        base: &str,
        kind: String,
        anomaly_id: Option<String>,
        at: evenkeel_core::Timestamp,
        verified: bool,
    ) -> Result<SnapshotRef, SnapshotError> {
        let parent = self.dir();
        let (id, dir) = reserve(&parent, base)?;
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            snapshot_id: id.clone(),
            anomaly_id,
            timestamp: at,
            kind: kind.clone(),
            verified,
            files: build.files.clone(),
            ledger: build.ledger.clone(),
        };
        let value = serde_json::to_value(&metadata).unwrap_or(Value::Null);
        let text = pretty(&self.redactor.value(&value));
        let done = build
            .write("metadata.json", text.as_bytes())
            .and_then(|()| sync_tree(build.dir.path()))
            .and_then(|()| {
                // On Unix an empty directory is replaced in one step; elsewhere it has to go first.
                #[cfg(not(unix))]
                let _ = fs::remove_dir(&dir);
                fs::rename(build.dir.path(), &dir)
                    .map_err(io_at(&dir, "it cannot be given its name"))
            });
        if let Err(e) = done {
            let _ = fs::remove_dir(&dir);
            return Err(e);
        }
        // It has moved: there is nothing left to clean up.
        build.dir.disable_cleanup(true);
        sync_dir(&parent).map_err(io_at(&parent, "it cannot be synced"))?;
        Ok(SnapshotRef {
            id,
            bytes: build.files.iter().map(SnapshotFile::bytes_on_disk).sum(),
            files: std::mem::take(&mut build.files),
            dir,
            verified,
            at,
            kind,
        })
    }
}

/// Why a database could not be copied.
fn not_copied(db: &Path, source: SqliteError) -> SnapshotError {
    match source {
        SqliteError::Locked { waited_ms } => SnapshotError::Locked {
            db: db.to_owned(),
            waited_ms,
            tried: "copied",
        },
        source => SnapshotError::Sqlite {
            db: db.to_owned(),
            source,
        },
    }
}

/// How much room there is for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that it needs at most.
    pub needed: u64,
    /// Bytes that are free; `None` where the system does not say, and then nothing is refused.
    pub free: Option<u64>,
}

impl Room {
    /// Whether it fits.
    pub fn fits(&self) -> bool {
        self.free.is_none_or(|free| free >= self.needed)
    }

    pub(super) fn enough(self, dir: &Path) -> Result<(), SnapshotError> {
        match self.free {
            Some(free) if free < self.needed => Err(SnapshotError::NoSpace {
                dir: dir.to_owned(),
                needed: self.needed,
                free,
            }),
            _ => Ok(()),
        }
    }
}

/// Bytes of a database with its WAL, in which much of it may still lie.
fn len_with_wal(db: &Path) -> u64 {
    let len = |p: &Path| fs::metadata(p).map_or(0, |m| m.len());
    len(db) + len(&sqlite::companions(db)[0])
}

/// A name for a pack that none has had: the snapshot's, and a moment that no clock repeats within one process.
fn unique(base: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{base}_{}_{count}", std::process::id())
}

/// How far a ledger reaches, without copying it.
fn ledger_at(ledger: &Path) -> Result<LedgerAt, SnapshotError> {
    let failed = |source: rusqlite::Error| SnapshotError::Sqlite {
        db: ledger.to_owned(),
        source: source.into(),
    };
    let conn = sqlite::open_foreign(ledger, false).map_err(failed)?;
    conn.query_row(
        "SELECT sequence, entry_hash FROM immutable_log ORDER BY sequence DESC LIMIT 1",
        [],
        |row| {
            let sequence: i64 = row.get(0)?;
            let entry_hash = match row.get_ref(1)? {
                rusqlite::types::ValueRef::Blob(b) => hex::encode(b),
                other => other.as_str().unwrap_or_default().to_owned(),
            };
            Ok(LedgerAt {
                sequence: u64::try_from(sequence).unwrap_or(0),
                entry_hash,
            })
        },
    )
    .map_err(failed)
}

/// A snapshot that has no name yet.
pub(super) struct Build {
    pub(super) dir: tempfile::TempDir,
    files: Vec<SnapshotFile>,
    ledger: Option<LedgerAt>,
}

impl Build {
    fn free_name(&self, db: &Path, role: FileRole) -> Result<String, SnapshotError> {
        let name =
            db.file_name()
                .and_then(|n| n.to_str())
                .ok_or_else(|| SnapshotError::Refused {
                    file: db.to_owned(),
                    reason: "its name is not UTF-8 text".into(),
                })?;
        let free = |n: &str| {
            !TAKEN.contains(&n.to_ascii_lowercase().as_str())
                && self.files.iter().all(|f| !f.name.eq_ignore_ascii_case(n))
        };
        let prefix = match role {
            FileRole::Ledger => "ledger_",
            _ => "database_",
        };
        Ok(if free(name) {
            name.to_owned()
        } else {
            format!("{prefix}{name}")
        })
    }

    pub(super) fn add_configs(
        &mut self,
        root: &Path,
        files: &[PathBuf],
    ) -> Result<(), SnapshotError> {
        for file in files {
            let clean =
                crate::target::confine(root, file).ok_or_else(|| SnapshotError::Refused {
                    file: file.clone(),
                    reason: format!("it leads out of {}", root.display()),
                })?;
            if fs::symlink_metadata(&clean).is_err() {
                continue;
            }
            let real = locate(root, file)?;
            let inside = root_relative(root, &clean)?;
            let name = format!("config/{inside}");
            if self.files.iter().any(|f| f.name == name) {
                continue;
            }
            let bytes = read_bounded(&real)?;
            self.add_bytes(&name, &bytes, clean, FileRole::Config, mode_of(&real))?;
        }
        Ok(())
    }

    pub(super) fn add_bytes(
        &mut self,
        name: &str,
        bytes: &[u8],
        source: PathBuf,
        role: FileRole,
        mode: Option<u32>,
    ) -> Result<(), SnapshotError> {
        self.write(name, bytes)?;
        self.add_existing(name.to_owned(), source, role, mode)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SnapshotError> {
        let path = self.dir.path().join(name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io_at(dir, "it cannot be made"))?;
        }
        let mut file = make_private(&path).map_err(io_at(&path, "it cannot be made"))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(io_at(&path, "it cannot be written"))
    }

    /// Notes a file that stands in the directory already, with the hash of what is read back from there.
    pub(super) fn add_existing(
        &mut self,
        name: String,
        source: PathBuf,
        role: FileRole,
        mode: Option<u32>,
    ) -> Result<(), SnapshotError> {
        let (sha256, size) = hash_file(&self.dir.path().join(&name))?;
        self.files.push(SnapshotFile {
            name,
            sha256,
            size,
            source,
            role,
            mode,
            stored_bytes: None,
        });
        Ok(())
    }
}

/// A directory that is this snapshot's alone: `base`, else `base-2`, `base-3`, ...
fn reserve(parent: &Path, base: &str) -> Result<(String, PathBuf), SnapshotError> {
    for n in 1..=SAME_SECOND_MAX {
        let id = if n == 1 {
            base.to_owned()
        } else {
            format!("{base}-{n}")
        };
        let dir = parent.join(&id);
        match fs::create_dir(&dir) {
            Ok(()) => return Ok((id, dir)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_at(&dir, "it cannot be made")(e)),
        }
    }
    Err(SnapshotError::Refused {
        file: parent.join(base),
        reason: "a thousand snapshots have this name".into(),
    })
}

/// The path below `root`, with `/` between its parts.
fn root_relative(root: &Path, file: &Path) -> Result<String, SnapshotError> {
    let refused = || SnapshotError::Refused {
        file: file.to_owned(),
        reason: "its path is not UTF-8 text below the target's root".into(),
    };
    let root = crate::target::confine(root, Path::new("")).ok_or_else(refused)?;
    let inside = file.strip_prefix(root).map_err(|_| refused())?;
    let parts: Option<Vec<&str>> = inside
        .components()
        .map(|c| c.as_os_str().to_str())
        .collect();
    parts.map(|p| p.join("/")).ok_or_else(refused)
}

pub(super) fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    text.push('\n');
    text
}

pub(super) fn read_bounded(file: &Path) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|f| f.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes))
        .map_err(io_at(file, "it cannot be read"))?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(SnapshotError::Refused {
            file: file.to_owned(),
            reason: format!("it is larger than {FILE_LEN_MAX} bytes"),
        });
    }
    Ok(bytes)
}

/// SHA-256 (hex) and length of a file, read in pieces.
pub(super) fn hash_file(file: &Path) -> Result<(String, u64), SnapshotError> {
    let mut input = fs::File::open(file).map_err(io_at(file, "it cannot be read"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    let mut size = 0u64;
    loop {
        let n = input
            .read(&mut buffer)
            .map_err(io_at(file, "it cannot be read"))?;
        if n == 0 {
            return Ok((hex::encode(hash.finalize()), size));
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
}

pub(super) fn sync_file(file: &Path) -> Result<(), SnapshotError> {
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|f| f.sync_all())
        .map_err(io_at(file, "it cannot be synced"))
}

/// Syncs a directory and those in it; the files in them are synced as they are written.
fn sync_tree(dir: &Path) -> Result<(), SnapshotError> {
    let entries = fs::read_dir(dir).map_err(io_at(dir, "it cannot be listed"))?;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(dir).map_err(io_at(dir, "it cannot be synced"))
}

pub(super) fn mode_of(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path)
            .ok()
            .map(|m| m.permissions().mode() & 0o7777)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Bytes free for this user; `None` where the system does not say, and then nothing is refused for space.
fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let s = rustix::fs::statvfs(dir).ok()?;
        Some(s.f_bavail.saturating_mul(s.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}
