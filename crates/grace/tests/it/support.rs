//! Starting the real program, and a plain blocking HTTP client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use grace::Settings;
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A working directory with a settings file.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

impl Home {
    /// With settings on a free port, changed by `change`.
    pub(crate) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        home.set(change);
        home
    }

    /// Writes the settings anew, as a playbook would before a restart.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = grace::default_settings(0);
        change(&mut settings);
        std::fs::write(self.path("grace.toml"), settings.to_commented_toml()).unwrap();
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grace"));
        command
            .args(["--settings", "grace.toml", "--root"])
            .arg(self.dir.path())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// The log's lines that have `key` equal to `value`.
    pub(crate) fn log(&self, key: &str, value: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("logs/grace.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line[key] == value)
            .collect()
    }
}

/// A running program that said it is ready; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// What it said.
    pub(crate) line: String,
    pub(crate) ready_after: Duration,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines();
            let _ = tell.send(lines.next());
        });
        let line = told.recv_timeout(LIMIT).unwrap().unwrap().unwrap();
        Self {
            child,
            line,
            ready_after: start.elapsed(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        let (_, addr) = self.line.rsplit_once("http://").unwrap();
        addr.parse().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        request(self.addr(), "GET", path, &[], "").unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        request(self.addr(), "POST", path, &[], body).unwrap()
    }

    /// `count` requests at the same moment, over the given paths in turn.
    pub(crate) fn burst(
        &self,
        count: usize,
        method: &'static str,
        paths: &[&str],
        body: &str,
    ) -> Vec<Reply> {
        let gun = Arc::new(Barrier::new(count));
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (gun, addr) = (Arc::clone(&gun), self.addr());
                let (path, body) = (paths[n % paths.len()].to_owned(), body.to_owned());
                std::thread::spawn(move || {
                    let stream = TcpStream::connect(addr).unwrap();
                    gun.wait();
                    exchange(stream, method, &path, &[], &body).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    }

    /// The value of a metric without labels that is a whole number.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no metric {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Sends a signal by its name.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The status, and the code of an error.
    pub(crate) fn outcome(&self) -> (u16, String) {
        let code = match self.status {
            200..300 => String::new(),
            _ => self.json()["error"].as_str().unwrap().to_owned(),
        };
        (self.status, code)
    }
}

/// How many of the replies have this status and code (empty for a good answer).
pub(crate) fn count(replies: &[Reply], status: u16, code: &str) -> usize {
    let is = |reply: &&Reply| reply.outcome() == (status, code.to_owned());
    replies.iter().filter(is).count()
}

pub(crate) fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Reply> {
    exchange(TcpStream::connect(addr)?, method, path, headers, body)
}

fn exchange(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Reply> {
    let start = Instant::now();
    stream.set_read_timeout(Some(LIMIT))?;
    let more = headers
        .iter()
        .fold(String::new(), |text, (k, v)| text + k + ": " + v + "\r\n");
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Ok(Reply {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("not an answer: {head:?}")))?,
        head: head.to_owned(),
        body: body.to_owned(),
        took: start.elapsed(),
    })
}

/// Polls until there is something, with a deadline.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A decision to ask for.
pub(crate) const ASK: &str = r#"{"subject":"user:1","action":"read","resource":"document/3"}"#;
