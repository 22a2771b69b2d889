//! Real processes for the tests of supervision, and a guard that ends every one of them, whatever happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_edge::process::procinfo::{self, ProcessId};
use evenkeel_edge::process::{Options, ServiceEvent, Supervisor};
use evenkeel_edge::target::{ReadySpec, ServiceSpec, Target};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::broadcast;

/// Every process of a test carries this variable with the test's own value.
const GUARD_ENV: &str = "EVENKEEL_TEST_WORLD";

/// A data directory, and the promise that nothing started in it survives.
pub(crate) struct World {
    path: PathBuf,
    /// `None` in a world that somebody else cleans up.
    _dir: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            path: dir.path().to_owned(),
            _dir: Some(dir),
        }
    }

    /// The same world, seen from another process.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, _dir: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A service that runs this program and carries the guard.
    pub(crate) fn service(&self, name: &str, command: &[&str]) -> ServiceSpec {
        let guard = self.path().display().to_string();
        ServiceSpec {
            name: name.into(),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            cwd: Some(self.path().to_owned()),
            env: BTreeMap::from([(GUARD_ENV.to_owned(), guard)]),
            depends_on: Vec::new(),
            needs: Vec::new(),
            instance_of: None,
            ready: None,
            pid_file: None,
            port: None,
            output: None,
            start_timeout_ms: 10_000,
            stop_timeout_ms: 3_000,
        }
    }

    pub(crate) fn shell(&self, name: &str, script: &str) -> ServiceSpec {
        self.service(name, &["/bin/sh", "-c", script])
    }

    /// Python's web server, ready when it answers.
    pub(crate) fn web(&self, name: &str, port: u16) -> ServiceSpec {
        let port_text = port.to_string();
        let command = [
            "python3",
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            &port_text,
        ];
        let mut service = self.service(name, &command);
        service.ready = Some(ReadySpec {
            http: Some(format!("http://127.0.0.1:{port}/")),
            port: None,
        });
        service
    }

    pub(crate) fn options(&self, services: Vec<ServiceSpec>) -> Options {
        let target = Target {
            name: "test".into(),
            services,
            ..Target::default()
        };
        let target = target.resolve(self.path()).expect("a target that fits");
        Options::new(target, self.path().join("data"))
    }

    pub(crate) fn supervise(&self, services: Vec<ServiceSpec>) -> Supervisor {
        Supervisor::new(self.options(services))
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.path().join("data/run/services.json")
    }

    /// Somebody else's process, with the guard but without any mark of Evenkeel.
    pub(crate) fn stranger(&self, command: &[&str]) -> Stranger {
        let child = std::process::Command::new(command[0])
            .args(&command[1..])
            .current_dir(self.path())
            .env(GUARD_ENV, self.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        Stranger(child)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let guard = self.path().as_os_str().to_owned();
        for _ in 0..3 {
            for process in procfs::process::all_processes()
                .into_iter()
                .flatten()
                .flatten()
            {
                let env = process.environ().unwrap_or_default();
                if env.get(std::ffi::OsStr::new(GUARD_ENV)) == Some(&guard)
                    && let Some(pid) = Pid::from_raw(process.pid())
                {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}

/// Somebody else's process; ended and reaped when it is dropped.
pub(crate) struct Stranger(std::process::Child);

impl Stranger {
    pub(crate) fn id(&self) -> ProcessId {
        procinfo::identify(self.0.id()).expect("it runs")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

pub(crate) fn send(process: &ProcessId, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("the process is ours");
}

/// Waits for the first event that is wanted.
pub(crate) async fn event(
    events: &mut broadcast::Receiver<ServiceEvent>,
    wanted: impl Fn(&ServiceEvent) -> bool,
) -> ServiceEvent {
    let wait = async {
        loop {
            let event = events.recv().await.expect("the supervisor lives");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the event comes within 10 s")
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("not within 10 s: {what}"));
}
