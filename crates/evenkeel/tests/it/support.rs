//! The stage of a test: its directory, the binary at work, waiting, and looking at what was left.

mod http;
mod ledger;
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

pub(crate) use http::{HttpServer, free_port, get, post};
pub(crate) use ledger::{Row, rows, rows_of_cycles, scalar};
pub(crate) use process::{Finished, Running, alive, environ, processes_of, signal};

/// Longest wait for anything that has no limit of its own.
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// Longest wait for something that should come at once, on a busy machine.
pub(crate) const SHORT: Duration = Duration::from_secs(15);

/// Polls until `f` gives something. Fails with what was waited for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut f: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(
            begun.elapsed() < limit,
            "waited {} s in vain for: {what}",
            limit.as_secs()
        );
        std::thread::sleep(Duration::from_millis(3));
    }
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by tests that put the machine under load.
pub(crate) fn machine_shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by tests in which nothing may be slow: no test that puts the machine under load runs at the same time.
pub(crate) fn machine_alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A directory of its own for a test, with everything that runs in it.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("evenkeel-it-")
            .tempdir()
            .unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The ledger of a target that is no Grace.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.data().join("evenkeel.db")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name))
            .unwrap_or_else(|e| panic!("{name} in {}: {e}", self.path().display()))
    }

    /// `evenkeel` in this directory, with the data directory, and no setting from outside.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.data())
            .current_dir(self.path())
            .stdin(Stdio::null());
        for key in [
            "RUN_POST_BOOT_STRESS_TEST",
            "ESTABLISH_WATCHDOG_BASELINE",
            "ENABLE_ANOMALY_WATCHDOG",
            "WATCHDOG_ERROR_RATE_THRESHOLD",
            "WATCHDOG_LATENCY_P95_MS",
            "WATCHDOG_MEMORY_GROWTH_MB",
            "WATCHDOG_FAILURE_RATE",
            "MAX_HEALING_ATTEMPTS",
            "ENABLE_AMP_ESCALATION",
            "AMP_API_KEY",
            "EVENKEEL_CONFIG",
            "EVENKEEL_DATA_DIR",
            "NO_COLOR",
            "RUST_LOG",
        ] {
            command.env_remove(key);
        }
        command
    }

    /// Starts `evenkeel`.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::spawn(&mut self.command(args))
    }

    /// Runs `evenkeel` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        self.start(args).finish(LONG)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Twice: what was about to be started while the first ones were killed.
        for _ in 0..2 {
            for (pid, _) in processes_of(self.path()) {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
