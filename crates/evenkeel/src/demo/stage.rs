//! The stage: Grace's settings and Evenkeel's configuration, written as a user would write them.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use evenkeel_edge::process::{Options as SuperviseOptions, Supervisor};

use super::Scenario;
use crate::cli::Failure;
use crate::config::{self, Config, Environment, HttpAdvisorSection, Profile};
use crate::layout::Layout;
use crate::playbooks::{self, Known};
use crate::ui::Ui;

/// Marks a data directory as a demonstration's.
const MARK: &str = "demo.json";

/// A stage that is set.
pub(super) struct Stage {
    pub(super) layout: Layout,
    /// Where an earlier demonstration's data went.
    pub(super) moved: Option<PathBuf>,
    pub(super) upstream: u16,
    scenario: Scenario,
}

/// The configuration, read back from its file.
#[derive(Clone)]
pub(super) struct Configured {
    pub(super) config: Config,
    pub(super) environment: Environment,
    pub(super) playbooks: Vec<Known>,
}

impl Configured {
    /// Asks the scripted advisor at this address.
    pub(super) fn use_advisor(&mut self, url: String) {
        self.config.escalation.http.push(HttpAdvisorSection {
            name: "scripted advisor".to_owned(),
            url,
            token_env: None,
        });
    }
}

impl Stage {
    /// Writes everything into the data directory. An earlier demonstration's is moved aside, anything else is left
    /// alone and refused.
    pub(super) fn set(data_dir: &Path, scenario: Scenario) -> Result<Self, Failure> {
        let layout = Layout::new(data_dir, Profile::Grace);
        let moved = make_room(&layout)?;
        layout.create()?;
        let root = layout.root();
        let io =
            |what: &Path, e: std::io::Error| Failure::target(format!("{}: {e}", what.display()));
        let mark = root.join(MARK);
        std::fs::write(&mark, format!("{{\"scenario\":\"{}\"}}\n", scenario.name()))
            .map_err(|e| io(&mark, e))?;
        let [api, collector, upstream, audit] = free_ports()?;
        let mut settings = grace::default_settings(api);
        settings.metrics.collector_port = collector;
        settings.metrics.interval_ms = 500;
        settings.chat.upstream_timeout_ms = 1_000;
        settings.audit.url = format!("http://127.0.0.1:{audit}/v1/audit");
        settings.audit.token_file = "run/audit.token".into();
        if scenario == Scenario::Latency {
            settings.chat.upstream_url = format!("http://127.0.0.1:{upstream}");
        }
        scenario.put_into(&mut settings);
        let dir = root.join("config");
        std::fs::create_dir_all(&dir).map_err(|e| io(&dir, e))?;
        let file = dir.join("grace.toml");
        std::fs::write(&file, settings.to_commented_toml()).map_err(|e| io(&file, e))?;
        let file = root.join("evenkeel.toml");
        std::fs::write(&file, configuration(api, collector, audit)?).map_err(|e| io(&file, e))?;
        Ok(Self {
            layout,
            moved,
            upstream,
            scenario,
        })
    }

    /// Reads the configuration back, as `evenkeel run` would.
    pub(super) fn config(&self) -> Result<Configured, Failure> {
        let root = self.layout.root();
        let mut environment = Environment::read(Path::new("."));
        if self.scenario == Scenario::Exhausted {
            // What is to be shown is that the advisor fails; a real one might not.
            environment.remove("AMP_API_KEY");
        }
        let config = config::load(&root.join("evenkeel.toml"), &environment)?;
        let tests: Vec<String> = config.tests().into_iter().map(|t| t.name).collect();
        let playbooks = playbooks::load(&config.base.join(&config.healing.playbooks), &tests)?;
        Ok(Configured {
            config,
            environment,
            playbooks,
        })
    }

    /// Ends what a boot that failed had started.
    pub(super) async fn stop_services(&self, configured: &Configured) {
        let supervisor = Supervisor::new(SuperviseOptions::new(
            configured.config.resolved.clone(),
            self.layout.root().to_path_buf(),
        ));
        // What runs is found by the record that the supervisor keeps.
        for name in supervisor.names() {
            let _ = supervisor.stop(&name, None).await;
        }
    }

    /// Says where everything lies.
    pub(super) fn show(&self, ui: &Ui) {
        let l = &self.layout;
        let data = l.root().display();
        ui.note(format!("Data directory: {data}"));
        for (what, path) in [
            ("ledger", l.ledger()),
            ("baseline", l.baseline()),
            ("snapshots", l.storage().join("snapshots")),
            ("advisors' answers", l.guidance()),
            ("logs and alerts", l.logs()),
            (
                "Grace's settings",
                l.root().join("config").join("grace.toml"),
            ),
            ("configuration", l.root().join("evenkeel.toml")),
        ] {
            ui.note(format!("  {what:<18} {}", l.shown(&path)));
        }
        // As it was called: `cargo run` puts no `evenkeel` on the path.
        let program = std::env::args_os().next().map_or_else(
            || "evenkeel".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        for command in ["history", "status", "report", "ledger tail"] {
            ui.note(format!(
                "  look around with   {program} --data-dir {data} {command}"
            ));
        }
    }
}

/// The configuration that guards Grace.
fn configuration(api: u16, collector: u16, audit: u16) -> Result<String, Failure> {
    let exe = std::env::current_exe()
        .map_err(|e| Failure::target(format!("the program's own path is unknown: {e}")))?;
    let exe = toml::Value::String(exe.to_string_lossy().into_owned());
    Ok(format!(
        r#"# The demonstration's configuration: Grace, guarded by Evenkeel.
# With Grace's cause still in place you can go on by hand: evenkeel --config THIS --data-dir . run
profile = "grace"

[target]
name = "grace"
base_url = "http://127.0.0.1:{api}"
config_files = ["config/grace.toml"]
logs = ["logs/grace.log"]

[[target.services]]
name = "api"
command = [{exe}, "grace", "api", "--settings", "config/grace.toml"]
ready = {{ http = "/health" }}
stop_timeout_ms = 3000

[[target.services]]
name = "metrics-collector"
command = [{exe}, "grace", "metrics-collector", "--settings", "config/grace.toml"]
depends_on = ["api"]
ready = {{ http = "http://127.0.0.1:{collector}/health" }}
stop_timeout_ms = 3000

[target.database]
path = "backend/grace_data.db"
# A standing permission: only a program with this in its command line is ever stopped for holding the lock.
may_stop_lock_holders = ["grace hold-lock"]

[target.endpoints]
health = "/health"
database = "/api/governance/policies"
api = ["/health", "/api/metrics/summary", "/api/governance/policies", "/docs"]
metrics = "/metrics"
memory = "/api/governance/policies"
chat = {{ method = "POST", path = "/api/multimodal/chat", body = {{ message = "Which policies apply to me?" }} }}
governance = {{ method = "POST", path = "/api/governance/decide", body = {{ subject = "ada", action = "read", resource = "report" }} }}

[target.mesh]
publish_path = "/api/events"
subscribe_path = "/api/events"

[target.serves]
api = "api"
metrics = "metrics-collector"
mesh = "api"

[target.tunables]
db_pool_size = {{ file = "config/grace.toml", key = "database.pool_size", min = 1, max = 64, service = "api" }}
db_pool_timeout_ms = {{ file = "config/grace.toml", key = "database.pool_timeout_ms", min = 1, max = 60000, service = "api" }}
workers = {{ file = "config/grace.toml", key = "server.workers", min = 1, max = 64, service = "api" }}
queue = {{ file = "config/grace.toml", key = "server.queue", min = 0, max = 1024, service = "api" }}
rate_limit = {{ file = "config/grace.toml", key = "limits.requests_per_second", min = 1, max = 10000, service = "api" }}
rate_limit_burst = {{ file = "config/grace.toml", key = "limits.burst", min = 1, max = 10000, service = "api" }}
cache_max_entries = {{ file = "config/grace.toml", key = "sessions.max_entries", min = 1, max = 100000, service = "api" }}
upstream_timeout_ms = {{ file = "config/grace.toml", key = "chat.upstream_timeout_ms", min = 10, max = 60000, service = "api" }}
chat_max_concurrent = {{ file = "config/grace.toml", key = "chat.max_concurrent", min = 1, max = 512, service = "api" }}
governance_cache_entries = {{ file = "config/grace.toml", key = "governance.cache_entries", min = 1, max = 65536, service = "api" }}

[audit]
listen = "127.0.0.1:{audit}"

# Everything below is shorter than its default, so that a demonstration fits into a minute.
[watchdog]
interval_ms = 1000
probe_timeout_ms = 800
scrape = {{ requests = "grace_http_requests_total", latency = "grace_http_request_duration_seconds" }}

[healing]
mode = "auto"
settle_ms = 1000
retry_wait_ms = 1000

[escalation]
timeout_ms = 60000
"#
    ))
}

fn make_room(layout: &Layout) -> Result<Option<PathBuf>, Failure> {
    let root = layout.root();
    let empty = match std::fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => {
            return Err(Failure::target(format!(
                "{}: {e}; choose another --data-dir",
                root.display()
            )));
        }
        Ok(mut entries) => entries.next().is_none(),
    };
    if empty {
        return Ok(None);
    }
    if !root.join(MARK).exists() {
        return Err(Failure::target(format!(
            "{} holds something that is no demo's; choose another --data-dir",
            root.display()
        )));
    }
    if layout.is_locked() {
        // The lock's own error names the holder.
        let _lock = layout.lock()?;
    }
    let name = root.file_name().map_or_else(
        || "evenkeel-data".into(),
        |n| n.to_string_lossy().into_owned(),
    );
    let stamp = crate::clock::now().compact();
    for n in 1..1000 {
        let suffix = if n == 1 {
            String::new()
        } else {
            format!("_{n}")
        };
        let aside = root.with_file_name(format!("{name}.{stamp}{suffix}"));
        if !aside.exists() {
            std::fs::rename(root, &aside).map_err(|e| {
                Failure::target(format!(
                    "{}: {e}; choose another --data-dir",
                    root.display()
                ))
            })?;
            return Ok(Some(aside));
        }
    }
    Err(Failure::target(format!(
        "{}: no free name to move it to",
        root.display()
    )))
}

/// Four ports that are free now; they are held until all are known, so that no two are the same.
fn free_ports() -> Result<[u16; 4], Failure> {
    let listen = || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|e| Failure::target(format!("no free port on loopback: {e}")))
    };
    let held = [listen()?, listen()?, listen()?, listen()?];
    let mut ports = [0u16; 4];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener
            .local_addr()
            .map_err(|e| Failure::target(format!("no free port on loopback: {e}")))?
            .port();
    }
    Ok(ports)
}
