//! What is guarded: four services, each with the configuration that guards it.
//!
//! Each is started through this program, which writes the time and then becomes the service: that time is when the
//! new process did its first thing, so it lies a little after the moment at which the restart was issued.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::machine::now_ms;

pub(crate) const STAMP_AND_EXEC: &str = "--stamp-and-exec";
pub(crate) const PLAIN_SERVICE: &str = "--plain-service";
/// The product, as built for this benchmark.
pub(crate) const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// A Python service with something to do before it can answer.
const PREPARING: &str = r#"import asyncio, decimal, email.message, hashlib, http.server, json, sqlite3, ssl, sys
index = {}
for n in range(int(sys.argv[2])):
    index[hashlib.sha256(str(n).encode()).hexdigest()] = n
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"keys": len(index)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;
/// Keys of that service's index: about a second on a machine of 2024.
const PREPARING_KEYS: u32 = 600_000;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing to start: a listener of this program's own.
    Plain,
    /// `python3 -m http.server`.
    HttpServer,
    /// Python with an index to build first.
    Preparing,
    /// The reference service.
    Grace,
}

impl Kind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Plain => "a bare listener",
            Self::HttpServer => "python3 -m http.server",
            Self::Preparing => "a Python service that builds an index first",
            Self::Grace => "Grace",
        }
    }
}

/// How Evenkeel is set up to guard it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarding {
    pub(crate) interval_ms: u64,
    pub(crate) probe_timeout_ms: u64,
    pub(crate) stress: bool,
}

impl Default for Guarding {
    fn default() -> Self {
        Self {
            interval_ms: 1_000,
            probe_timeout_ms: 400,
            stress: false,
        }
    }
}

/// A service, ready to be started below a directory.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) port: u16,
    pub(crate) ready_path: &'static str,
    config: String,
}

impl Service {
    /// Writes the files that it needs into `dir`.
    pub(crate) fn set_up(kind: Kind, dir: &Path, how: Guarding) -> anyhow::Result<Self> {
        let [port, collector] = free_ports()?;
        let (name, command, ready_path) = match kind {
            Kind::Plain => ("plain", own(&[PLAIN_SERVICE, &port.to_string()])?, "/"),
            Kind::HttpServer => {
                let port = port.to_string();
                let server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", &port];
                ("web", stamped(&server)?, "/")
            }
            Kind::Preparing => {
                let script = dir.join("preparing.py");
                std::fs::write(&script, PREPARING)?;
                let (port, keys) = (port.to_string(), PREPARING_KEYS.to_string());
                let server = ["python3", &script.to_string_lossy(), &port, &keys];
                ("index", stamped(&server)?, "/")
            }
            Kind::Grace => {
                std::fs::write(dir.join("grace.toml"), grace_settings(port, collector))?;
                let api = [EVENKEEL, "grace", "api", "--settings", "grace.toml"];
                ("api", stamped(&api)?, "/health")
            }
        };
        let is_grace = kind == Kind::Grace;
        let only_grace = |text: &'static str| if is_grace { text } else { "" };
        let rest = if is_grace {
            let collect = [
                EVENKEEL,
                "grace",
                "metrics-collector",
                "--settings",
                "grace.toml",
            ];
            format!(
                "[[target.services]]\nname = \"metrics-collector\"\ncommand = {}\ndepends_on = [\"api\"]\n\
                 ready = {{ http = \"http://127.0.0.1:{collector}/health\" }}\n{GRACE_ENDPOINTS}",
                toml_list(&collect.map(str::to_owned)),
            )
        } else {
            format!("[target.endpoints]\nhealth = \"{ready_path}\"\n")
        };
        // One crash after the other is what is measured here, not an anomaly that keeps coming back.
        let config = format!(
            "[target]\nname = \"{name}\"\nbase_url = \"http://127.0.0.1:{port}\"\n{}\n\
             [[target.services]]\nname = \"{name}\"\ncommand = {}\nready = {{ http = \"{ready_path}\" }}\n\
             stop_timeout_ms = 3000\n{rest}[stress]\nenabled = {}\n\
             [healing]\nmode = \"auto\"\n[watchdog]\ninterval_ms = {}\nprobe_timeout_ms = {}\n{}\
             [healing]\nsettle_ms = 200\nretry_wait_ms = 1000\nrecurrence_window_s = 0\n\
             [escalation]\nenabled = false\n",
            only_grace(GRACE_TARGET),
            toml_list(&command),
            how.stress,
            how.interval_ms,
            how.probe_timeout_ms,
            only_grace(GRACE_SCRAPE),
        );
        Ok(Self {
            name,
            command,
            port,
            ready_path,
            config,
        })
    }

    /// The configuration that guards it.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// Whether its ready address answers now.
    pub(crate) fn is_ready(&self) -> bool {
        answers(self.port, self.ready_path)
    }
}

const GRACE_TARGET: &str = "config_files = [\"grace.toml\"]\nlogs = [\"logs/grace.log\"]\n";
const GRACE_SCRAPE: &str = "scrape = { requests = \"grace_http_requests_total\", latency = \"grace_http_request_duration_seconds\" }\n";
const GRACE_ENDPOINTS: &str = r#"
[target.database]
path = "backend/grace_data.db"
[target.endpoints]
health = "/health"
database = "/api/governance/policies"
api = ["/health", "/api/metrics/summary", "/api/governance/policies", "/docs"]
metrics = "/metrics"
memory = "/api/governance/policies"
chat = { method = "POST", path = "/api/multimodal/chat", body = { message = "Which policies apply to me?" } }
governance = { method = "POST", path = "/api/governance/decide", body = { subject = "ada", action = "read", resource = "report" } }
[target.mesh]
publish_path = "/api/events"
subscribe_path = "/api/events"
[target.serves]
api = "api"
metrics = "metrics-collector"
mesh = "api"
"#;

/// Grace as a healthy one is set up by the demonstration.
fn grace_settings(api: u16, collector: u16) -> String {
    let mut settings = grace::default_settings(api);
    settings.metrics.collector_port = collector;
    settings.metrics.interval_ms = 500;
    settings.to_commented_toml()
}

/// This program with these arguments.
fn own(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let exe = std::env::current_exe().context("the benchmark's own path")?;
    let mut command = vec![exe.to_string_lossy().into_owned()];
    command.extend(arguments.iter().map(|a| (*a).to_owned()));
    Ok(command)
}

fn stamped(command: &[&str]) -> anyhow::Result<Vec<String>> {
    let arguments: Vec<&str> = std::iter::once(STAMP_AND_EXEC)
        .chain(command.iter().copied())
        .collect();
    own(&arguments)
}

fn toml_list(items: &[String]) -> String {
    // A JSON list of texts is one in TOML too.
    serde_json::json!(items).to_string()
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, two) = (listen()?, listen()?);
    Ok([one.local_addr()?.port(), two.local_addr()?.port()])
}

/// Whether a GET of `path` is answered with 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"
        )?;
        let mut head = [0u8; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn stamp() {
    println!("started {:.3}", now_ms());
}

/// Writes the time, and becomes the program that follows.
pub(crate) fn stamp_and_exec(command: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("{STAMP_AND_EXEC} needs a program");
    };
    stamp();
    let failed = std::process::Command::new(program).args(arguments).exec();
    Err(failed).with_context(|| format!("{program} cannot be started"))
}

/// Writes the time, listens, and answers whatever it is asked.
pub(crate) fn plain_service(arguments: &[String]) -> anyhow::Result<()> {
    stamp();
    let port: u16 = arguments.first().context("a port")?.parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        // Connections may stay open: each has a thread of its own.
        std::thread::spawn(move || {
            let mut request = [0u8; 4096];
            while stream.read(&mut request).is_ok_and(|n| n > 0) {
                let answer = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                if answer.is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}
