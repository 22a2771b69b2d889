//! `kill -9` of a rollback at every system call that it makes: a child process restores a snapshot under `ptrace` and is
//! killed before its call number 1, then 2, and so on until it gets through. After each kill the recovery of the next
//! start runs, and the target has to be wholly old or wholly new: its database *and* its configuration.
//!
//! Then the same for the recovery itself. Linux only.

use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use evenkeel_core::Timestamp;
use evenkeel_core::redact::Redactor;
use evenkeel_edge::snapshot::{
    DatabaseRestore, RestoreRequest, RestoreStage, SnapshotError, SnapshotKind, SnapshotLimits,
    SnapshotRequest, Snapshots,
};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;

use crate::check::new_directory;
use crate::trace::{Ended, kill_at, wait_for_tracer};

/// The subcommand by which the program starts itself as the process that is killed.
pub const CHILD: &str = "rollback-child";

const AT: Timestamp = Timestamp::from_millis(1_795_478_400_000);
const CONFIG: [&str; 3] = ["conf/pool.toml", "conf/more/limits.yaml", ".env"];
const OLD_CONFIG: &str = "size = 99\n";
const NEW_CONFIG: &str = "size = 2 # as it was\n";

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kill at every call whose number is `first` plus a multiple of this.
    pub every: u64,
    /// The first call to kill at, from 1.
    pub first: u64,
    /// Processes killed side by side.
    pub threads: usize,
    /// The program that takes [`CHILD`], a directory and `restore` or `recover` as arguments.
    pub program: PathBuf,
    /// A bug made on purpose: nothing is recovered at the next start.
    pub skip_recovery: bool,
    /// Whether to tell progress on standard error.
    pub progress: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Kills.
    pub kills: u64,
    /// System calls of an undisturbed run, summed over all cases.
    pub calls: u64,
    /// Kills after which everything was as before the rollback.
    pub old: u64,
    /// Kills after which everything was as in the snapshot.
    pub new: u64,
    /// Kills after which it was neither.
    pub losses: Vec<Loss>,
}

/// A kill that left the target half restored.
#[derive(Debug)]
pub struct Loss {
    /// Which case.
    pub case: &'static str,
    /// Which system call.
    pub call: u64,
    /// What is wrong.
    pub problem: String,
    /// The files.
    pub kept_in: PathBuf,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  {}, killed before call {}\n  state in {}",
            self.problem,
            self.case,
            self.call,
            self.kept_in.display()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills at the {} system calls of all cases: {} wholly old, {} wholly new, {} neither",
            self.kills,
            self.calls,
            self.old,
            self.new,
            self.losses.len()
        )
    }
}

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Restore,
    Recover,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Recover => "recover",
        }
    }
}

/// A target, its snapshot, and what is done to it.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    journal_mode: &'static str,
    /// The live file is no database any more.
    wreck: bool,
    act: Act,
}

const CASES: [Case; 6] = [
    Case {
        name: "a restore into a database with a WAL",
        journal_mode: "wal",
        wreck: false,
        act: Act::Restore,
    },
    Case {
        name: "a restore into a database with a rollback journal",
        journal_mode: "delete",
        wreck: false,
        act: Act::Restore,
    },
    Case {
        name: "a restore over a file that is no database any more",
        journal_mode: "wal",
        wreck: true,
        act: Act::Restore,
    },
    Case {
        name: "the recovery into a database with a WAL",
        journal_mode: "wal",
        wreck: false,
        act: Act::Recover,
    },
    Case {
        name: "the recovery into a database with a rollback journal",
        journal_mode: "delete",
        wreck: false,
        act: Act::Recover,
    },
    Case {
        name: "the recovery over a file that is no database any more",
        journal_mode: "wal",
        wreck: true,
        act: Act::Recover,
    },
];

/// What the target says: its database in words, or the bytes of a file that is none, and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    database: String,
    config: Vec<Option<String>>,
}

/// A case made ready: a directory to be copied for each kill.
struct Ready {
    case: Case,
    template: tempfile::TempDir,
    old: State,
    new: State,
}

/// Kills. An error is about the surroundings; what was left half restored is in the summary.
pub fn run(settings: &Settings) -> anyhow::Result<Summary> {
    ensure!(
        settings.first > 0 && settings.every > 0,
        "calls are counted from 1"
    );
    let mut summary = Summary::default();
    for case in CASES {
        let ready = Ready::new(case).with_context(|| case.name)?;
        one_case(settings, &ready, &mut summary).with_context(|| case.name)?;
        if settings.progress {
            eprintln!("{}: done; {summary}", case.name);
        }
    }
    Ok(summary)
}

fn one_case(settings: &Settings, ready: &Ready, summary: &mut Summary) -> anyhow::Result<()> {
    let next = AtomicU64::new(0);
    let through = AtomicBool::new(false);
    let shared = Mutex::new(summary);
    let work = || -> anyhow::Result<()> {
        while !through.load(Ordering::Relaxed) {
            let call = settings.first + settings.every * next.fetch_add(1, Ordering::Relaxed);
            let directory = new_directory()?;
            ready.copy_to(directory.path())?;
            let mut command = Command::new(&settings.program);
            command
                .arg(CHILD)
                .arg(directory.path())
                .arg(ready.case.act.word());
            let ended = kill_at(&mut command, call)?;
            if ended == Ended::Killed && !settings.skip_recovery {
                // What the next start does.
                snapshots(directory.path())
                    .recover(&request(directory.path()))
                    .map(|_| ())
                    .or_else(|e| note(directory.path(), &e))?;
            }
            let judged = ready.judge(directory.path(), ended);
            let mut summary = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ended::Finished { calls } = ended {
                if !through.swap(true, Ordering::Relaxed) {
                    summary.calls += calls;
                }
                if let Err(problem) = judged {
                    bail!("nobody killed it, and yet: {problem}");
                }
                continue;
            }
            summary.kills += 1;
            match judged {
                Ok(true) => summary.new += 1,
                Ok(false) => summary.old += 1,
                Err(problem) => summary.losses.push(Loss {
                    case: ready.case.name,
                    call,
                    problem,
                    kept_in: directory.keep(),
                }),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..settings.threads.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

/// A recovery that fails is judged by what it left, and its words are kept for whoever reads of the loss.
fn note(directory: &Path, error: &SnapshotError) -> anyhow::Result<()> {
    Ok(fs::write(
        directory.join("RECOVERY_FAILED"),
        error.to_string(),
    )?)
}

/// The process that is killed.
pub fn child(directory: &Path, act: &str) -> anyhow::Result<()> {
    let snapshots = snapshots(directory);
    let request = request(directory);
    wait_for_tracer();
    if act == Act::Recover.word() {
        let report = snapshots.recover(&request)?;
        ensure!(report.is_some(), "there was nothing to recover");
        return Ok(());
    }
    let id = fs::read_to_string(directory.join("id"))?;
    snapshots.restore(&id, &request)?;
    Ok(())
}

fn snapshots(directory: &Path) -> Snapshots {
    Snapshots::new(
        directory.join("storage"),
        Redactor::default(),
        SnapshotLimits::default(),
    )
}

fn request(directory: &Path) -> RestoreRequest {
    let app = directory.join("app");
    RestoreRequest {
        at: AT,
        database: Some(DatabaseRestore {
            path: app.join("app.db"),
            fenced: true,
            fence: None,
        }),
        config: true,
        config_files: CONFIG.iter().map(PathBuf::from).collect(),
        root: app,
    }
}

impl Ready {
    fn new(case: Case) -> anyhow::Result<Self> {
        let template = new_directory().context("making a directory")?;
        let app = template.path().join("app");
        let db = app.join("app.db");
        fs::create_dir_all(app.join("conf/more"))?;
        for file in &CONFIG[..2] {
            fs::write(app.join(file), NEW_CONFIG)?;
        }
        let conn = open(&db)?;
        conn.pragma_update(None, "journal_mode", case.journal_mode)?;
        conn.execute_batch(
            "CREATE TABLE acc(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, t TEXT);
             CREATE INDEX acc_n ON acc(n);
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300)
             INSERT INTO acc SELECT x, x * 7, hex(zeroblob(40)) || x FROM c;",
        )?;
        let taken = snapshots(template.path()).take(&SnapshotRequest {
            kind: SnapshotKind::Manual {
                label: "good".into(),
            },
            at: AT,
            database: Some(db.clone()),
            ledger: None,
            config_files: CONFIG.iter().map(PathBuf::from).collect(),
            root: app.clone(),
        })?;
        fs::write(template.path().join("id"), &taken.id)?;
        drop(conn);
        let new = state(template.path())?;
        // The service goes wrong: its last commits are in the WAL, where there is one.
        let conn = open(&db)?;
        conn.execute_batch(
            "UPDATE acc SET n = 0 WHERE id % 3 = 0; DELETE FROM acc WHERE id > 250; CREATE TABLE junk(x);
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 40)
             INSERT INTO junk SELECT hex(zeroblob(500)) FROM c;",
        )?;
        drop(conn);
        if case.wreck {
            fs::write(&db, "this is no database at all\n".repeat(500))?;
        }
        for file in &CONFIG[..2] {
            fs::write(app.join(file), OLD_CONFIG)?;
        }
        let old = state(template.path())?;
        ensure!(old != new, "nothing is to be restored");
        if case.act == Act::Recover {
            let stopped = snapshots(template.path())
                .stop_after(RestoreStage::Intent)
                .restore(&taken.id, &request(template.path()));
            ensure!(
                matches!(stopped, Err(SnapshotError::Stopped(_))),
                "the restore was not interrupted: {stopped:?}"
            );
        }
        Ok(Self {
            case,
            template,
            old,
            new,
        })
    }

    /// The case in a directory of its own. The journal names files by their whole path, so it is moved as well.
    fn copy_to(&self, directory: &Path) -> anyhow::Result<()> {
        copy_tree(self.template.path(), directory)?;
        let journal = directory.join("storage/restore.journal");
        if journal.exists() {
            let (from, to) = (self.template.path().display(), directory.display());
            let text = fs::read_to_string(&journal)?.replace(&from.to_string(), &to.to_string());
            fs::write(&journal, text)?;
        }
        Ok(())
    }

    /// Whether the target is wholly new (or wholly old); in words what it is, if neither.
    fn judge(&self, directory: &Path, ended: Ended) -> Result<bool, String> {
        let now = state(directory).map_err(|e| format!("the target cannot be read: {e:#}"))?;
        if let Ok(words) = fs::read_to_string(directory.join("RECOVERY_FAILED")) {
            return Err(format!("the recovery failed: {words}"));
        }
        let is_new = if now == self.new {
            true
        } else if now == self.old {
            false
        } else {
            let database = if now.database == self.new.database {
                "new"
            } else if now.database == self.old.database {
                "old"
            } else {
                "neither"
            };
            return Err(format!(
                "the database is {database}, the configuration {:?}",
                now.config
            ));
        };
        // The intent was on disk, or nobody killed it: then it is done.
        if !is_new && (self.case.act == Act::Recover || ended != Ended::Killed) {
            return Err("the restore was not carried out".into());
        }
        if directory.join("storage/restore.journal").exists() {
            return Err("the restore's journal is still there".into());
        }
        for folder in ["app", "storage"] {
            if let Some(left) = leftover(&directory.join(folder)).map_err(|e| e.to_string())? {
                return Err(format!("{} was left behind", left.display()));
            }
        }
        let snapshots = snapshots(directory);
        let all = snapshots.list().map_err(|e| e.to_string())?;
        for snapshot in &all {
            if snapshot.verified {
                snapshots.verify(&snapshot.id).map_err(|e| e.to_string())?;
            }
        }
        let kept = all.iter().any(|s| s.kind == "before_restore");
        if is_new && !kept {
            return Err("the state before was not kept".into());
        }
        Ok(is_new)
    }
}

/// A temporary file or directory that nobody will take away.
fn leftover(directory: &Path) -> std::io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if [".evenkeel-", ".making-", ".deleting-"]
            .iter()
            .any(|p| name.starts_with(p))
        {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = leftover(&entry.path())?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A connection that leaves the WAL where it is when it is closed, as a killed service does.
fn open(db: &Path) -> anyhow::Result<Connection> {
    let conn = Connection::open(db)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

/// Reads the target with plain SQLite, not with what is tested.
fn state(directory: &Path) -> anyhow::Result<State> {
    let app = directory.join("app");
    let db = app.join("app.db");
    let config = CONFIG
        .iter()
        .map(|file| fs::read_to_string(app.join(file)).ok())
        .collect();
    let database = match words(&db) {
        Ok(words) => words,
        Err(rusqlite::Error::SqliteFailure(e, _))
            if e.code == rusqlite::ErrorCode::NotADatabase =>
        {
            String::from_utf8_lossy(&fs::read(&db)?).into_owned()
        }
        Err(e) => return Err(e.into()),
    };
    Ok(State { database, config })
}

fn words(db: &Path) -> rusqlite::Result<String> {
    let conn = Connection::open(db)?;
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let mut text = format!("{check}\n");
    let mut tables = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    let tables = tables
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (name, sql) in tables {
        let _ = writeln!(text, "{sql}");
        if sql.starts_with("CREATE TABLE") {
            let mut all = conn.prepare(&format!("SELECT * FROM {name}"))?;
            let width = all.column_count();
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                for i in 0..width {
                    let value: ValueRef<'_> = row.get_ref(i)?;
                    let _ = write!(text, "{value:?}|");
                }
                text.push('\n');
            }
        }
    }
    Ok(text)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
