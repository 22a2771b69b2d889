//! The way back: one journaled intent over database and configuration, finished by whoever starts next.
//!
//! Before the target is touched the snapshot has verified, the broken state is kept, and the intent is on disk. Each
//! stage can be run again: an interrupted restore is simply done once more.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::sqlite::{self, SqliteError, companions};
use super::store::{TEMPORARY, sweep_temporary};
use super::take::{mode_of, pretty, read_bounded};
use super::{FORMAT_VERSION, FileRole, SnapshotError, SnapshotFile, SnapshotRef, Snapshots, io_at};
use crate::config_edit::{locate, replace_file, sync_dir};
use crate::target::confine;

/// The `type` of the copies of broken states.
pub(super) const FORENSIC_KIND: &str = "before_restore";

/// The database to restore into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRestore {
    /// The live database.
    pub path: PathBuf,
    /// Every service that writes to it has been stopped since before the changes that are to be taken back. Without
    /// that nothing is restored: data written since would be lost.
    pub fenced: bool,
}

/// What is to be restored, and where to.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// Now.
    pub at: Timestamp,
    /// The database; `None` leaves it alone.
    pub database: Option<DatabaseRestore>,
    /// Whether configuration files are restored.
    pub config: bool,
    /// The target's configuration files: only these are ever written.
    pub config_files: Vec<PathBuf>,
    /// The directory that they are below.
    pub root: PathBuf,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: String,
    /// What was put back.
    pub restored: Vec<PathBuf>,
    /// The snapshot that keeps the broken state.
    pub kept_as: String,
    /// Digest of the restored database, equal to the snapshot's.
    pub digest: Option<String>,
}

/// Points of a restore, for tests that stop there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStage {
    /// The snapshot verified.
    Verified,
    /// The broken state is kept.
    Kept,
    /// The intent is on disk.
    Intent,
    /// The database is restored.
    Database,
    /// And the journal says so.
    DatabaseNoted,
    /// The first configuration file is restored.
    FirstConfig,
    /// All are.
    Config,
    /// Everything was checked; only the journal is left to remove.
    Checked,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intent {
    format_version: u32,
    snapshot_id: String,
    kept_as: String,
    database: Option<PathBuf>,
    database_done: bool,
    /// Name in the snapshot, and where it goes.
    config: Vec<(String, PathBuf)>,
}

impl Snapshots {
    /// Puts a snapshot back. The ledger's copy is never among what is restored.
    ///
    /// An error before the intent is on disk has changed nothing; after it [`Self::recover`] finishes the restore.
    pub fn restore(
        &self,
        id: &str,
        request: &RestoreRequest,
    ) -> Result<RestoreReport, SnapshotError> {
        if let Some(open) = self.read_intent()? {
            return Err(SnapshotError::Unfinished {
                id: open.snapshot_id,
                journal: self.journal(),
            });
        }
        if request.database.as_ref().is_some_and(|d| !d.fenced) {
            return Err(SnapshotError::NotFenced);
        }
        let snapshot = self.verify(id)?;
        self.reached(RestoreStage::Verified)?;
        if request.database.is_some() {
            database_of(&snapshot)?;
        }
        let config = if request.config {
            config_targets(&snapshot, request)?
        } else {
            Vec::new()
        };
        let kept_as = self.keep_broken(request)?;
        self.reached(RestoreStage::Kept)?;
        let intent = Intent {
            format_version: FORMAT_VERSION,
            snapshot_id: id.to_owned(),
            kept_as,
            database: request.database.as_ref().map(|d| d.path.clone()),
            database_done: false,
            config,
        };
        self.write_intent(&intent)?;
        self.reached(RestoreStage::Intent)?;
        self.carry_out(&snapshot, intent, true)
    }

    /// Finishes a restore that was interrupted, and clears away what interrupted work left. `None`: there was none.
    /// To be called once at start, before any other snapshot is taken.
    ///
    /// `request` says what the target is now and whether it is fenced *still*; a database that the interrupted
    /// restore had finished is not touched again, so that nothing written since is lost.
    pub fn recover(
        &self,
        request: &RestoreRequest,
    ) -> Result<Option<RestoreReport>, SnapshotError> {
        self.sweep();
        self.sweep_targets(request);
        let Some(intent) = self.read_intent()? else {
            return Ok(None);
        };
        let mismatch = |reason: String| SnapshotError::JournalMismatch {
            journal: self.journal(),
            reason,
        };
        let snapshot = self.verify(&intent.snapshot_id)?;
        let allowed = config_targets(&snapshot, request)?;
        if let Some((_, file)) = intent.config.iter().find(|c| !allowed.contains(c)) {
            return Err(mismatch(format!(
                "{} is not one of `config_files`",
                file.display()
            )));
        }
        let mut fenced = false;
        if let Some(path) = &intent.database {
            match &request.database {
                Some(d) if d.path == *path => fenced = d.fenced,
                _ => {
                    return Err(mismatch(format!(
                        "{} is not the target's database",
                        path.display()
                    )));
                }
            }
        }
        self.carry_out(&snapshot, intent, fenced).map(Some)
    }

    /// Clears away what replacing a file left beside it when it was killed.
    fn sweep_targets(&self, request: &RestoreRequest) {
        let files = request
            .config_files
            .iter()
            .filter_map(|f| confine(&request.root, f))
            .filter_map(|f| locate(&request.root, &f).ok().or(Some(f)));
        let database = request.database.iter().map(|d| d.path.clone());
        let dirs: BTreeSet<PathBuf> = files
            .chain(database)
            .filter_map(|f| f.parent().map(Path::to_owned))
            .chain([self.storage.clone()])
            .collect();
        for dir in dirs {
            sweep_temporary(&dir);
        }
    }

    fn carry_out(
        &self,
        snapshot: &SnapshotRef,
        mut intent: Intent,
        fenced: bool,
    ) -> Result<RestoreReport, SnapshotError> {
        let mut restored = Vec::new();
        let mut digest = None;
        if let Some(live) = intent.database.clone() {
            if !intent.database_done {
                digest = Some(self.restore_database(snapshot, &live, fenced)?);
                self.reached(RestoreStage::Database)?;
                intent.database_done = true;
                self.write_intent(&intent)?;
                self.reached(RestoreStage::DatabaseNoted)?;
            }
            restored.push(live);
        }
        for (i, (name, target)) in intent.config.iter().enumerate() {
            let file = snapshot
                .files
                .iter()
                .find(|f| f.name == *name)
                .ok_or_else(|| missing(snapshot, name))?;
            restore_config(snapshot, file, target)?;
            restored.push(target.clone());
            if i == 0 {
                self.reached(RestoreStage::FirstConfig)?;
            }
        }
        self.reached(RestoreStage::Config)?;
        for (name, target) in &intent.config {
            let expected = read_bounded(&snapshot.dir.join(name))?;
            if read_bounded(target)? != expected {
                return Err(SnapshotError::NotRestored {
                    db: target.clone(),
                    reason: "the file was changed again at once".into(),
                });
            }
        }
        self.reached(RestoreStage::Checked)?;
        let journal = self.journal();
        fs::remove_file(&journal).map_err(io_at(&journal, "it cannot be removed"))?;
        sync_dir(&self.storage).map_err(io_at(&self.storage, "it cannot be synced"))?;
        Ok(RestoreReport {
            snapshot: snapshot.id.clone(),
            restored,
            kept_as: intent.kept_as,
            digest,
        })
    }

    /// The live database as the snapshot has it; returns the digest that both have.
    fn restore_database(
        &self,
        snapshot: &SnapshotRef,
        live: &Path,
        fenced: bool,
    ) -> Result<String, SnapshotError> {
        let file = database_of(snapshot)?;
        let whole = self.whole(snapshot, file)?;
        let copy = whole.path().to_path_buf();
        let failed = |source| match source {
            SqliteError::Locked { waited_ms } => SnapshotError::Locked {
                db: live.to_owned(),
                waited_ms,
                tried: "restored",
            },
            source => SnapshotError::Sqlite {
                db: live.to_owned(),
                source,
            },
        };
        let wanted = sqlite::open_copy(&copy)
            .map_err(SqliteError::from)
            .and_then(|c| sqlite::digest(&c))
            .map_err(failed)?;
        if !fenced {
            // After a crash: it may have been restored already, and only the note is missing.
            return match live_digest(live) {
                Ok(now) if now == wanted => Ok(wanted),
                _ => Err(SnapshotError::NotFenced),
            };
        }
        let busy = Duration::from_millis(self.limits.busy_ms);
        let into_live = if live.is_file() {
            sqlite::copy_into(&copy, live, busy)
        } else {
            Err(SqliteError::Missing)
        };
        match into_live {
            Ok(()) => {}
            Err(e) if matches!(e, SqliteError::Missing) || e.is_beyond_writing() => {
                replace_database(&copy, live, file.mode)?;
            }
            Err(e) => return Err(failed(e)),
        }
        sqlite::check_live(live, self.limits.full_check_bytes).map_err(failed)?;
        let now = live_digest(live).map_err(failed)?;
        if now == wanted {
            Ok(wanted)
        } else {
            Err(SnapshotError::NotRestored {
                db: live.to_owned(),
                reason: format!("its digest is {now}, the snapshot's is {wanted}"),
            })
        }
    }

    /// Keeps what is about to be overwritten, be it sound or not.
    fn keep_broken(&self, request: &RestoreRequest) -> Result<String, SnapshotError> {
        let live = request.database.as_ref().map(|d| d.path.clone());
        self.room(&[&live])?.enough(&self.dir())?;
        let mut build = self.begin()?;
        let mut verified = true;
        if let Some(db) = live.as_deref().filter(|d| d.is_file()) {
            match self.add_database(&mut build, db, FileRole::Database) {
                Ok(()) => {}
                Err(e @ (SnapshotError::Locked { .. } | SnapshotError::NoSpace { .. })) => {
                    return Err(e);
                }
                Err(_) => {
                    // Not to be copied as a database: its bytes are kept as they are. It is fenced, so nobody writes.
                    verified = false;
                    build = self.begin()?;
                    for file in std::iter::once(db.to_owned()).chain(companions(db)) {
                        keep_raw(&mut build, &file)?;
                    }
                }
            }
        }
        if request.config {
            build.add_configs(&request.root, &request.config_files)?;
        }
        let base = format!("{FORENSIC_KIND}_{}", request.at.compact());
        let kept = self.finish(
            build,
            &base,
            FORENSIC_KIND.to_owned(),
            None,
            request.at,
            verified,
        )?;
        Ok(kept.id)
    }

    fn read_intent(&self) -> Result<Option<Intent>, SnapshotError> {
        let journal = self.journal();
        if !journal.exists() {
            return Ok(None);
        }
        let unreadable = |reason: String| SnapshotError::JournalMismatch {
            journal: journal.clone(),
            reason,
        };
        let value: serde_json::Value = serde_json::from_slice(&read_bounded(&journal)?)
            .map_err(|e| unreadable(e.to_string()))?;
        let version = value["format_version"].as_u64().unwrap_or(0);
        if version > u64::from(FORMAT_VERSION) {
            return Err(SnapshotError::TooNew {
                what: journal.display().to_string(),
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| unreadable(e.to_string()))
    }

    /// The journal is replaced whole, so it is never read half written.
    fn write_intent(&self, intent: &Intent) -> Result<(), SnapshotError> {
        let journal = self.journal();
        let text = pretty(&serde_json::to_value(intent).unwrap_or_default());
        put(&journal, text.as_bytes(), Some(0o600))
    }

    fn reached(&self, stage: RestoreStage) -> Result<(), SnapshotError> {
        if self.stop_after == Some(stage) {
            return Err(SnapshotError::Stopped(stage));
        }
        Ok(())
    }
}

fn live_digest(live: &Path) -> Result<String, SqliteError> {
    let conn = sqlite::open_foreign(live, false)?;
    sqlite::digest(&conn)
}

fn missing(snapshot: &SnapshotRef, what: &str) -> SnapshotError {
    SnapshotError::NotInSnapshot {
        id: snapshot.id.clone(),
        what: what.to_owned(),
    }
}

fn database_of(snapshot: &SnapshotRef) -> Result<&SnapshotFile, SnapshotError> {
    snapshot
        .files
        .iter()
        .find(|f| f.role == FileRole::Database)
        .ok_or_else(|| missing(snapshot, "sound copy of the database"))
}

/// Where each configuration file of the snapshot goes: below the root, and only to files the target names.
fn config_targets(
    snapshot: &SnapshotRef,
    request: &RestoreRequest,
) -> Result<Vec<(String, PathBuf)>, SnapshotError> {
    let known: Vec<PathBuf> = request
        .config_files
        .iter()
        .filter_map(|f| confine(&request.root, f))
        .collect();
    let mut out = Vec::new();
    for file in snapshot.files.iter().filter(|f| f.role == FileRole::Config) {
        let inside = file.name.strip_prefix("config/").unwrap_or(&file.name);
        let target = confine(&request.root, Path::new(inside)).filter(|t| known.contains(t));
        let Some(target) = target else {
            return Err(SnapshotError::Refused {
                file: PathBuf::from(inside),
                reason: "it is in the snapshot and not one of the target's `config_files`".into(),
            });
        };
        // A link that was put there since must not lead the write away.
        let target = if fs::symlink_metadata(&target).is_ok() {
            locate(&request.root, &target)?
        } else {
            target
        };
        out.push((file.name.clone(), target));
    }
    Ok(out)
}

fn restore_config(
    snapshot: &SnapshotRef,
    file: &SnapshotFile,
    target: &Path,
) -> Result<(), SnapshotError> {
    let bytes = read_bounded(&snapshot.dir.join(&file.name))?;
    if target.is_file() {
        replace_file(target, &bytes, None)?;
        Ok(())
    } else {
        put(target, &bytes, file.mode)
    }
}

fn keep_raw(build: &mut super::take::Build, file: &Path) -> Result<(), SnapshotError> {
    let Some(name) = file.file_name().and_then(|n| n.to_str()) else {
        return Ok(());
    };
    if !file.is_file() {
        return Ok(());
    }
    let name = format!("raw_{name}");
    let copy = build.dir.path().join(&name);
    let mut out = sqlite::make_private(&copy).map_err(io_at(&copy, "it cannot be made"))?;
    fs::File::open(file)
        .and_then(|mut from| std::io::copy(&mut from, &mut out))
        .and_then(|_| out.sync_all())
        .map_err(io_at(file, "it cannot be copied"))?;
    build.add_existing(name, file.to_owned(), FileRole::Raw, mode_of(file))
}

/// The last resort, when the live file is no database any more: first what belongs to the old one goes (a WAL beside
/// another database would corrupt it), then the copy takes its place in one step.
fn replace_database(copy: &Path, live: &Path, mode: Option<u32>) -> Result<(), SnapshotError> {
    for file in companions(live) {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_at(&file, "it cannot be removed")(e));
            }
            _ => {}
        }
    }
    let dir = live.parent().unwrap_or(Path::new("."));
    sync_dir(dir).map_err(io_at(dir, "it cannot be synced"))?;
    let mut from = fs::File::open(copy).map_err(io_at(copy, "it cannot be read"))?;
    place(live, mode_of(live).or(mode), |out| {
        std::io::copy(&mut from, out).map(|_| ())
    })
}

/// Writes a file in one step, new or not.
fn put(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), SnapshotError> {
    place(path, mode, |out| out.write_all(bytes))
}

fn place(
    path: &Path,
    mode: Option<u32>,
    fill: impl FnOnce(&mut fs::File) -> std::io::Result<()>,
) -> Result<(), SnapshotError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(io_at(dir, "it cannot be made"))?;
    let mut temp = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)
        .map_err(io_at(dir, "no file can be made in it"))?;
    fill(temp.as_file_mut()).map_err(io_at(path, "it cannot be written"))?;
    #[cfg(unix)]
    if let Some(mode) = mode {
        use std::os::unix::fs::PermissionsExt;
        temp.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))
            .map_err(io_at(path, "its mode cannot be set"))?;
    }
    #[cfg(not(unix))]
    let _ = mode;
    temp.as_file()
        .sync_all()
        .map_err(io_at(path, "it cannot be synced"))?;
    temp.persist(path)
        .map_err(|e| io_at(path, "it cannot be replaced")(e.error))?;
    sync_dir(dir).map_err(io_at(dir, "it cannot be synced"))
}
