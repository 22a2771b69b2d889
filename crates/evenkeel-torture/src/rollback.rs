//! A rollback killed at every system call it makes. A child restores a snapshot, database and configuration together,
//! under `ptrace`; its parent kills it at the Nth call, for each N until it ends by itself, starts as the next start
//! would, and looks: everything is as it was before, or everything is as in the snapshot.
//!
//! A killed process loses nothing that it has written; what a power loss may lose is [`crate::power_loss`]'s.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use evenkeel_core::Timestamp;
use evenkeel_core::redact::Redactor;
use evenkeel_edge::snapshot::{
    DatabaseRestore, RestoreRequest, SnapshotKind, SnapshotLimits, SnapshotRequest, Snapshots,
};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rusqlite::Connection;

/// The subcommand by which the program starts itself as the process that is killed.
pub const CHILD: &str = "rollback-child";

/// Calls after which a restore that does not end is given up.
const CALLS_MAX: u64 = 100_000;
/// Rows of the database.
const ROWS: u32 = 300;
/// Configuration files.
const CONFIGS: [&str; 3] = ["app.toml", "more/limits.json", "more/new.yaml"];
const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Every so manieth call.
    pub every: u64,
    /// The program that takes [`CHILD`] and a directory as arguments.
    pub program: PathBuf,
    /// Whether to tell progress on standard error.
    pub progress: bool,
    /// A bug on purpose: the next start does not finish what was begun. It has to be found.
    pub skip_recovery: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Kills.
    pub kills: u64,
    /// System calls of a whole restore.
    pub calls: u64,
    /// Kills after which everything was as before.
    pub wholly_old: u64,
    /// Kills after which everything was as in the snapshot.
    pub wholly_new: u64,
    /// Kills after which it was neither.
    pub losses: Vec<Loss>,
}

/// A kill that left neither the old state nor the new one.
#[derive(Debug)]
pub struct Loss {
    /// At which system call.
    pub call: u64,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "killed at system call {}: {}", self.call, self.problem)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills over the {} system calls of a rollback: {} wholly old, {} wholly new, {} neither",
            self.kills,
            self.calls,
            self.wholly_old,
            self.wholly_new,
            self.losses.len()
        )
    }
}

/// Kills a restore at every `every`th system call.
pub fn run(settings: &Settings) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut call = 1;
    while call < CALLS_MAX {
        let dir = tempfile::tempdir()?;
        let scene = Scene::set(dir.path())?;
        let ended = kill_at(settings, dir.path(), call)?;
        if let Some(calls) = ended {
            summary.calls = calls;
            if scene.look()? != State::New {
                bail!("a restore that nobody killed restored nothing");
            }
            return Ok(summary);
        }
        summary.kills += 1;
        if !settings.skip_recovery {
            // As the next start does, before anything else.
            scene
                .snapshots()
                .recover(&scene.request())
                .context("the next start")?;
        }
        let left = scene.left_behind()?;
        if !settings.skip_recovery && !left.is_empty() {
            let problem = format!("left behind: {left:?}");
            summary.losses.push(Loss { call, problem });
        }
        match scene.look()? {
            State::Old => summary.wholly_old += 1,
            State::New => summary.wholly_new += 1,
            State::Neither(problem) => summary.losses.push(Loss { call, problem }),
        }
        if settings.progress && summary.kills % 100 == 0 {
            eprintln!("{summary}");
        }
        call += settings.every;
    }
    bail!("the restore did not end within {CALLS_MAX} system calls")
}

/// Starts the child and kills it at its `call`th system call; the number of all its calls where it ended before.
fn kill_at(settings: &Settings, dir: &Path, call: u64) -> anyhow::Result<Option<u64>> {
    let mut child = Command::new(&settings.program)
        .arg(CHILD)
        .arg(dir)
        .stdin(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).context(
        "ptrace is not permitted here (a container without SYS_PTRACE, or yama): it cannot be told where to kill",
    )?;
    ptrace::interrupt(pid)?;
    waitpid(pid, None)?;
    let mut stops = 0;
    let mut begun = child.stdin.take();
    let mut deliver = None;
    loop {
        ptrace::syscall(pid, deliver.take())?;
        // It waits for a byte; everything before it is the start of a program.
        if let Some(mut stdin) = begun.take() {
            stdin.write_all(b"x")?;
        }
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                stops += 1;
                // Each call stops it twice: before it is made, and after.
                if stops == 2 * call - 1 {
                    child.kill()?;
                    child.wait()?;
                    return Ok(None);
                }
            }
            WaitStatus::Exited(_, 0) => return Ok(Some(stops / 2)),
            WaitStatus::Exited(_, code) => bail!("the restore failed with exit code {code}"),
            WaitStatus::Signaled(_, signal, _) => bail!("the restore was ended by {signal}"),
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => deliver = Some(signal),
            _ => {}
        }
    }
}

/// The process that is killed: restores the one snapshot there is.
pub fn child(dir: &Path) -> anyhow::Result<()> {
    let mut go = [0u8; 1];
    std::io::stdin().read_exact(&mut go)?;
    let scene = Scene {
        root: dir.to_path_buf(),
    };
    let snapshots = scene.snapshots();
    let id = snapshots.list()?.first().context("no snapshot")?.id.clone();
    snapshots.restore(&id, &scene.request())?;
    Ok(())
}

/// A target: a database in WAL mode with data in the WAL, and configuration files.
struct Scene {
    root: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Old,
    New,
    Neither(String),
}

impl Scene {
    /// Makes the good state, a snapshot of it, and then the broken state.
    fn set(root: &Path) -> anyhow::Result<Self> {
        let scene = Self {
            root: root.to_path_buf(),
        };
        std::fs::create_dir_all(root.join("target/more"))?;
        let db = scene.connection()?;
        db.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        )?;
        scene.write("good", &db)?;
        scene.snapshots().take(&SnapshotRequest {
            kind: SnapshotKind::Manual {
                label: "good".into(),
            },
            at: AT,
            database: Some(scene.database()),
            ledger: None,
            config_files: scene.configs(),
            root: scene.target(),
        })?;
        scene.write("broken", &db)?;
        Ok(scene)
    }

    fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    fn database(&self) -> PathBuf {
        self.target().join("app.db")
    }

    fn configs(&self) -> Vec<PathBuf> {
        CONFIGS
            .iter()
            .map(|name| self.target().join(name))
            .collect()
    }

    fn connection(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(self.database())?)
    }

    fn write(&self, word: &str, db: &Connection) -> anyhow::Result<()> {
        db.execute("DELETE FROM t", [])?;
        for id in 0..ROWS {
            let text = format!("{word} {id} {}", "x".repeat(200));
            db.execute("INSERT INTO t VALUES (?1, ?2)", (id, text))?;
        }
        for file in self.configs() {
            std::fs::write(file, format!("word = \"{word}\"\n"))?;
        }
        Ok(())
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::new(
            self.root.join("storage"),
            Redactor::new(Vec::<String>::new()),
            SnapshotLimits::default(),
        )
    }

    fn request(&self) -> RestoreRequest {
        RestoreRequest {
            at: AT.plus_millis(1_000),
            database: Some(DatabaseRestore {
                path: self.database(),
                fenced: true,
            }),
            config: true,
            config_files: self.configs(),
            root: self.target(),
        }
    }

    /// Files beside the target's own ones that nobody asked for.
    fn left_behind(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for dir in [self.target(), self.target().join("more")] {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path
                    .file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with('.'))
                {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// What is there: the word in each row and in each file.
    fn look(&self) -> anyhow::Result<State> {
        let mut words = std::collections::BTreeMap::new();
        let db = self.connection()?;
        let sound: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
        if sound != "ok" {
            return Ok(State::Neither(sound));
        }
        let (rows, good): (u32, u32) =
            db.query_row("SELECT count(*), sum(v LIKE 'good %') FROM t", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })?;
        words.insert(
            "database".to_owned(),
            (good == ROWS, good == 0 && rows == ROWS),
        );
        for file in self.configs() {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let is = |word: &str| text == format!("word = \"{word}\"\n");
            words.insert(file.display().to_string(), (is("good"), is("broken")));
        }
        Ok(if words.values().all(|(good, _)| *good) {
            State::New
        } else if words.values().all(|(_, broken)| *broken) {
            State::Old
        } else {
            State::Neither(format!("(good, broken): {words:?}"))
        })
    }
}
