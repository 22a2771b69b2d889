//! One `evenkeel --json run` over one service: what it says, with the time at which it was read.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_edge::process::{ProcessId, procinfo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::machine::now_ms;
use crate::services::{EVENKEEL, Guarding, Kind, Service};

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A line of the event stream.
pub(crate) struct Line {
    /// When it was read, by the shared clock.
    pub(crate) at_ms: f64,
    pub(crate) value: Value,
}

impl Line {
    pub(crate) fn is(&self, event: &str) -> bool {
        self.value["event"] == event
    }
}

/// Evenkeel at work. Dropping it ends it and the services it started.
pub(crate) struct Guarded {
    pub(crate) service: Service,
    evenkeel: Child,
    lines: Receiver<Line>,
    data_dir: PathBuf,
    dir: tempfile::TempDir,
}

impl Guarded {
    /// Boots it; back when the watchdog runs.
    pub(crate) fn start(kind: Kind, how: Guarding) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let service = Service::set_up(kind, dir.path(), how)?;
        let config = dir.path().join("evenkeel.toml");
        std::fs::write(&config, service.config())?;
        let data_dir = dir.path().join("data");
        let mut evenkeel = Command::new(EVENKEEL)
            .args(["--json", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&data_dir)
            .arg("run")
            .current_dir(dir.path())
            .env_remove("AMP_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("evenkeel cannot be started")?;
        let stdout = evenkeel.stdout.take().context("evenkeel's output")?;
        let (tx, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at_ms = now_ms();
                if let Ok(value) = serde_json::from_str(&text)
                    && tx.send(Line { at_ms, value }).is_err()
                {
                    break;
                }
            }
        });
        let guarded = Self {
            service,
            evenkeel,
            lines,
            data_dir,
            dir,
        };
        guarded.wait_for("the watchdog's start", |l| l.is("watchdog_started"))?;
        Ok(guarded)
    }

    /// The next line that `is_it`.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        is_it: impl Fn(&Line) -> bool,
    ) -> anyhow::Result<Line> {
        let begun = Instant::now();
        let mut last = Value::Null;
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if is_it(&line) => return Ok(line),
                Ok(line) => last = line.value,
                Err(RecvTimeoutError::Timeout) => bail!("waited for {what}; last was {last}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("evenkeel ended while {what} was waited for; last was {last}")
                }
            }
        }
    }

    /// Forgets what was said so far.
    pub(crate) fn forget(&self) {
        while self.lines.try_recv().is_ok() {}
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.data_dir.join("evenkeel.db")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("evenkeel.toml")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The number of the Evenkeel process.
    pub(crate) fn pid(&self) -> u32 {
        self.evenkeel.id()
    }

    /// The guarded service's process.
    pub(crate) fn service_process(&self) -> anyhow::Result<ProcessId> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let found = self
                .recorded()
                .into_iter()
                .find(|(name, p)| name == self.service.name && procinfo::is_alive(p));
            if let Some((_, process)) = found {
                return Ok(process);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the service's process does not stand in run/services.json")
    }

    /// Sends a signal to the service; when it was sent.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<f64> {
        let process = self.service_process()?;
        let at = now_ms();
        send(&process, signal)?;
        Ok(at)
    }

    /// When the service's processes did their first thing, oldest first.
    pub(crate) fn starts(&self) -> Vec<f64> {
        let out = self
            .data_dir
            .join("logs")
            .join(format!("{}.out", self.service.name));
        std::fs::read_to_string(out)
            .unwrap_or_default()
            .lines()
            .filter_map(|l| l.strip_prefix("started ")?.parse().ok())
            .collect()
    }

    /// The services that Evenkeel has started, by its own record.
    fn recorded(&self) -> Vec<(String, ProcessId)> {
        let file = self.data_dir.join("run").join("services.json");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(services) = record["services"].as_object() else {
            return Vec::new();
        };
        services
            .iter()
            .filter_map(|(name, entry)| {
                let process = serde_json::from_value(entry["process"].clone()).ok()?;
                Some((name.clone(), process))
            })
            .collect()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.evenkeel.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(12) {
            if matches!(self.evenkeel.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.evenkeel.kill();
        let _ = self.evenkeel.wait();
        // The services outlive Evenkeel, and shall not outlive the benchmark.
        for (_, process) in self.recorded() {
            let _ = send(&process, Signal::KILL);
        }
    }
}

/// Sends a signal to exactly this process.
fn send(process: &ProcessId, signal: Signal) -> anyhow::Result<()> {
    if !procinfo::is_alive(process) {
        bail!("process {process} is gone");
    }
    let pid = Pid::from_raw(process.pid.cast_signed()).context("a process number")?;
    kill_process(pid, signal)?;
    Ok(())
}
