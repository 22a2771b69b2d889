//! The adapters that a healing cycle works through, put together from the configuration.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Cycle, Facts, TestResult};
use evenkeel_detect::{Sample, Watchdog};
use evenkeel_edge::action::Executor;
use evenkeel_edge::advisor::{
    Advisor, AdvisorError, AmpAdvisor, AmpOptions, Answer, HttpAdvisor, HttpOptions, Question,
    Secret,
};
use evenkeel_edge::alert::{AlertChannel, AlertFile, CommandChannel, WebhookChannel};
use evenkeel_edge::collect::probe::Prober;
use evenkeel_edge::collect::scraper::ScrapeTarget;
use evenkeel_edge::guidance::GuidanceStore;
use evenkeel_edge::process::{Options as SuperviseOptions, Supervisor};
use evenkeel_edge::snapshot::{
    DatabaseRestore, Fence, PruneRules, RestoreRequest, SnapshotLimits, Snapshots,
};
use evenkeel_edge::sql_pool::PostgresPool;
use evenkeel_stress::{BaseUrl, Cancel, MeshClient, Responder, TestContext, TestSpec, run_test};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::perform::{Logs, Mesh, Services};
use crate::access::Access;
use crate::anchoring::Gate;
use crate::clock;
use crate::config::{Config, Environment};
use crate::journal::Journal;
use crate::layout::Layout;
use crate::mind::Mind;
use crate::playbooks::Known;
use crate::pulse::Pulse;
use crate::ui::{Mark, Ui};
use crate::watch::{Detector, probe_sample};

/// How long an alert channel may take.
const ALERT_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that effects are carried out with.
pub struct World {
    /// The configuration.
    pub config: Config,
    /// Where files lie.
    pub layout: Layout,
    /// Whom to tell.
    pub ui: Ui,
    /// The playbooks.
    pub playbooks: Vec<Known>,
    /// The target's processes.
    pub supervisor: Supervisor,
    /// Asks the target.
    pub prober: Prober,
    /// What is probed.
    pub probes: Vec<String>,
    /// Which pages of metrics are read.
    pub(crate) metrics: Vec<ScrapeTarget>,
    /// The stress tests.
    pub tests: Vec<TestSpec>,
    /// The detectors.
    pub watchdog: Detector,
    pub(super) executor: Executor,
    pub(super) snapshots: Snapshots,
    pub(super) advisors: Vec<Box<dyn Advisor>>,
    pub(super) alerts: Vec<Arc<dyn AlertChannel>>,
    pub(super) guidance: GuidanceStore,
    pub(super) redactor: Arc<Redactor>,
    pub(super) journal: Journal,
    pub(super) mind: Mind,
    /// Dependencies outside the target that do not answer now.
    pub(crate) outside_down: Arc<Mutex<BTreeSet<String>>>,
    pub(super) gate: Gate,
    /// Signs of life.
    pub(crate) pulse: Pulse,
    mesh: Arc<Mesh>,
    postgres: Option<Result<PostgresPool, String>>,
    pub(super) notices: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    unused_advisors: Vec<String>,
}

impl World {
    /// Puts the adapters together. Nothing is started yet.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that a cycle works with"
    )]
    pub(crate) fn new(
        config: &Config,
        environment: &Environment,
        playbooks: Vec<Known>,
        layout: &Layout,
        ui: &Ui,
        redactor: Arc<Redactor>,
        journal: &Journal,
        mind: &Mind,
        gate: Gate,
        pulse: Pulse,
    ) -> Result<Self, String> {
        let prober = Prober::new();
        let supervisor = Supervisor::new(SuperviseOptions {
            target: config.resolved.clone(),
            data_dir: layout.root().to_path_buf(),
            scrub_env: config.secret_names(),
            prober: prober.clone(),
        });
        let watched: Vec<String> = if config.watchdog.probes.is_empty() {
            config
                .target
                .endpoints
                .health
                .iter()
                .map(|r| r.path.clone())
                .collect()
        } else {
            config.watchdog.probes.clone()
        };
        let addresses = watched
            .iter()
            .map(|p| {
                config
                    .resolved
                    .url(p)
                    .ok_or_else(|| format!("`{p}` cannot be probed: [target] base_url is not set"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mesh = Arc::new(Mesh::default());
        let secrets = crate::secrets::collect(config, environment, &playbooks);
        let mut executor = Executor::new(
            Arc::new(config.resolved.clone()),
            Arc::new(Services(supervisor.clone())),
            Arc::new(move |name: &str| secrets.get(name).cloned()),
            (*redactor).clone(),
        )
        .with_logs(Arc::new(Logs(config.resolved.logs.clone())));
        if config.target.mesh.is_some() {
            executor = executor.with_mesh(Arc::clone(&mesh) as Arc<_>);
        }
        let (advisors, unused_advisors) = advisors(config, environment, &redactor)?;
        Ok(Self {
            tests: config.tests(),
            postgres: crate::access::postgres(config, environment),
            watchdog: Detector::new(
                Watchdog::new(config.detectors(), config.watchdog.thresholds.into(), None)
                    .with_follow(config.watchdog.series.clone().into()),
            ),
            executor,
            snapshots: Snapshots::new(
                layout.storage(),
                (*redactor).clone(),
                SnapshotLimits::default(),
            ),
            alerts: alert_channels(config, layout, &redactor)?,
            guidance: GuidanceStore::new(layout.guidance(), (*redactor).clone()),
            config: config.clone(),
            layout: layout.clone(),
            ui: ui.clone(),
            journal: journal.clone(),
            mind: mind.clone(),
            outside_down: Arc::default(),
            gate,
            pulse,
            playbooks,
            supervisor,
            prober,
            probes: addresses,
            metrics: config.scrape_targets(environment)?,
            advisors,
            redactor,
            mesh,
            notices: Mutex::default(),
            unused_advisors,
        })
    }

    /// Finishes a restore that was interrupted, before anything else is done. One line about it, if there was one.
    pub async fn finish_restore(&self) -> Result<Option<String>, String> {
        let target = &self.config.resolved;
        let request = RestoreRequest {
            at: clock::now(),
            // What runs now may have written since; only services that are down are still fenced.
            database: target.database.as_ref().map(|d| DatabaseRestore {
                path: d.path.clone(),
                fenced: self.all_down(),
                fence: Some(self.fence()),
            }),
            config: true,
            config_files: target.config_files.clone(),
            root: target.root.clone(),
        };
        let snapshots = self.snapshots.clone();
        let report = tokio::task::spawn_blocking(move || snapshots.recover(&request))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let Some(report) = report else {
            return Ok(None);
        };
        let payload = serde_json::json!({"restored": report.restored, "kept_as": report.kept_as});
        self.journal
            .note(
                "evenkeel",
                "evenkeel",
                "finish_restore",
                &report.snapshot,
                &payload,
                "success",
            )
            .await
            .map_err(|e| e.to_string())?;
        Ok(Some(format!(
            "a restore of {} that was interrupted is finished; the state before is kept as {}",
            report.snapshot, report.kept_as
        )))
    }

    /// No service of the target has a process.
    pub(super) fn all_down(&self) -> bool {
        let names = self.supervisor.names();
        names
            .iter()
            .all(|name| self.supervisor.processes(name).is_ok_and(|p| p.is_empty()))
    }

    /// The same, to be asked again and again.
    pub(super) fn fence(&self) -> Fence {
        let supervisor = self.supervisor.clone();
        Fence::new(move || {
            let mut names = supervisor.names().into_iter();
            names.all(|name| supervisor.processes(&name).is_ok_and(|p| p.is_empty()))
        })
    }

    /// Starts the target's services, or (`supervise` off) finds those that run. One line for each.
    pub async fn bring_up(&self, supervise: bool) -> Result<Vec<String>, String> {
        if supervise {
            let reports = self
                .supervisor
                .start_all()
                .await
                .map_err(|e| e.to_string())?;
            return Ok(reports
                .iter()
                .map(|r| {
                    let how = if r.was_running {
                        "running as"
                    } else {
                        "started as"
                    };
                    format!("{} ({how} {})", r.name, r.process)
                })
                .collect());
        }
        let mut lines = Vec::new();
        for name in self.supervisor.names() {
            let report = self
                .supervisor
                .wait_ready(&name, None)
                .await
                .map_err(|e| e.to_string())?;
            lines.push(format!("{} (running as {})", report.name, report.process));
        }
        Ok(lines)
    }

    /// Where orders and events are taken.
    pub fn mind(&self) -> &Mind {
        &self.mind
    }

    /// What decisions have to know of the world now.
    pub fn facts(&self) -> Facts {
        let mut down: BTreeSet<String> = self
            .supervisor
            .names()
            .into_iter()
            .filter(|name| {
                let status = self.supervisor.status(name);
                status.is_ok_and(|s| s.process().is_none())
            })
            .collect();
        down.extend(lock(&self.outside_down).iter().cloned());
        Facts {
            pause_file: self.layout.pause_file().exists(),
            down,
            no_room: self.no_room(),
        }
    }

    /// Takes part in the target's event mesh, where it has one.
    pub fn connect_mesh(&mut self) {
        let (Some(spec), Some(base)) = (&self.config.target.mesh, &self.config.resolved.base_url)
        else {
            return;
        };
        let client = BaseUrl::parse(base).and_then(|base| MeshClient::new(base, spec.clone()));
        match client {
            Ok(client) => self.mesh.connect(
                Responder::new(client, evenkeel_stress::mesh::ResponderOptions::default()).spawn(),
            ),
            Err(e) => self.ui.warn(format!("[target.mesh] cannot be used: {e}")),
        }
    }

    /// Ends what runs in the background. The target's services run on.
    pub async fn end(&self) {
        self.mesh.end().await;
        let notices: Vec<_> = lock(&self.notices).drain(..).collect();
        for notice in notices {
            let _ = tokio::time::timeout(ALERT_DEADLINE, notice).await;
        }
    }

    /// What the stress tests need.
    pub fn test_context(&self) -> TestContext {
        TestContext {
            base_url: self.config.resolved.base_url.clone().unwrap_or_default(),
            access: Access::new(
                self.supervisor.clone(),
                &self.config,
                self.postgres.clone(),
                self.mesh.connected(),
            ),
            cancel: Cancel::new(),
            now: Arc::new(clock::now),
        }
    }

    /// Runs one stress test. Dropping the future ends its load.
    pub async fn run_test(&self, spec: &TestSpec) -> TestResult {
        run_test(spec, &self.test_context()).await
    }

    /// Probes every watched address `times` times.
    pub async fn probe_all(&self, times: usize) -> Vec<Sample> {
        let mut samples = Vec::new();
        for _ in 0..times {
            for url in &self.probes {
                let result = self.prober.probe(url, self.probe_deadline()).await;
                samples.push(probe_sample(url, self.probe_service(), &result));
            }
        }
        samples
    }

    /// The memory of each service now.
    pub fn memory_samples(&self) -> Vec<Sample> {
        crate::watch::memory_samples(&self.supervisor)
    }

    /// How long a probe may take.
    pub fn probe_deadline(&self) -> Duration {
        Duration::from_millis(self.config.watchdog.probe_timeout_ms)
    }

    /// The service that answers the probes.
    pub fn probe_service(&self) -> Option<String> {
        self.config
            .target
            .serves
            .api
            .clone()
            .or_else(|| self.config.resolved.primary().map(|s| s.name.clone()))
    }

    /// The stage of the boot gate that says who is asked and who is called.
    pub fn describe_escalation(&self) -> (Mark, String) {
        let advisors = if !self.config.escalation.enabled {
            "advisors are switched off".to_owned()
        } else if self.advisors.is_empty() {
            format!("no advisor ({})", self.unused_advisors.join("; "))
        } else {
            let names: Vec<&str> = self.advisors.iter().map(|a| a.name()).collect();
            format!("advisors: {}", names.join(", "))
        };
        let channels: Vec<&str> = self.alerts.iter().map(|c| c.name()).collect();
        let mark = if self.config.escalation.enabled && self.advisors.is_empty() {
            Mark::Warn
        } else {
            Mark::Ok
        };
        (mark, format!("{advisors}; alerts: {}", channels.join(", ")))
    }

    /// The present value of each tunable.
    pub(super) fn tunables(&self) -> Map<String, Value> {
        self.config
            .resolved
            .tunables
            .iter()
            .map(|(name, t)| {
                let value =
                    evenkeel_edge::config_edit::read(&self.config.resolved.root, &t.file, &t.key);
                (name.clone(), value.ok().flatten().unwrap_or(Value::Null))
            })
            .collect()
    }

    /// Whether the ledger knows a cycle of this id.
    pub(super) fn has_workflow(&self, id: &str) -> bool {
        self.journal
            .ledger()
            .reader()
            .and_then(|r| {
                r.count(
                    &evenkeel_ledger::Query::new()
                        .action("start_healing_cycle")
                        .payload("workflow_id", id),
                )
            })
            .is_ok_and(|n| n > 0)
    }

    /// Keeps the snapshots within their bounds, never one of an open cycle. Each deletion is an entry.
    pub async fn prune_snapshots(&self, open: impl Iterator<Item = &Cycle>) {
        let s = &self.config.snapshots;
        let protected = open
            .flat_map(|c| {
                c.runs
                    .iter()
                    .filter_map(|r| r.snapshot.as_ref().map(|s| s.id.clone()))
                    .chain(c.snapshot.iter().map(|s| s.id.clone()))
            })
            .collect();
        let rules = PruneRules {
            keep_count: s.keep,
            keep_age_ms: i64::try_from(s.keep_days.saturating_mul(86_400_000)).unwrap_or(i64::MAX),
            max_bytes: s.max_bytes,
            protected,
        };
        match self.snapshots.prune(&rules, clock::now()) {
            Ok(pruned) => {
                for p in pruned {
                    let payload =
                        serde_json::json!({"snapshot": p.id, "bytes": p.bytes, "rule": p.rule});
                    let noted = self
                        .journal
                        .note(
                            "evenkeel",
                            "evenkeel",
                            "delete_snapshot",
                            &p.id,
                            &payload,
                            "success",
                        )
                        .await;
                    if let Err(e) = noted {
                        self.ui.warn(e.to_string());
                    }
                }
            }
            Err(e) => self
                .ui
                .warn(format!("old snapshots could not be removed: {e}")),
        }
    }
}

/// Those who can be asked, and why others cannot.
type Advisors = (Vec<Box<dyn Advisor>>, Vec<String>);

fn advisors(
    config: &Config,
    environment: &Environment,
    redactor: &Redactor,
) -> Result<Advisors, String> {
    let mut advisors: Vec<Box<dyn Advisor>> = Vec::new();
    let mut unused = Vec::new();
    if !config.escalation.enabled {
        return Ok((advisors, unused));
    }
    let deadline = Duration::from_millis(config.escalation.timeout_ms);
    match environment.get("AMP_API_KEY") {
        Some(key) => advisors.push(Box::new(AmpAdvisor::new(
            AmpOptions {
                program: config.escalation.amp.command.clone().into(),
                api_key: Some(Secret::new(key)),
                url: environment.get("AMP_URL").map(str::to_owned),
                path: environment
                    .get("PATH")
                    .unwrap_or("/usr/local/bin:/usr/bin:/bin")
                    .into(),
                tool_server: std::env::current_exe()
                    .map(|exe| vec![exe.to_string_lossy().into_owned(), "advisor-mcp".to_owned()])
                    .unwrap_or_default(),
                deadline,
                ..AmpOptions::default()
            },
            redactor.clone(),
        ))),
        None => unused.push("AMP_API_KEY is not set".to_owned()),
    }
    for http in &config.escalation.http {
        let options = HttpOptions {
            url: http.url.clone(),
            token_env: http.token_env.clone(),
            deadline,
        };
        let advisor = HttpAdvisor::new(
            &options,
            |key| environment.get(key).map(str::to_owned),
            redactor.clone(),
        )
        .map_err(|e| format!("advisor {}: {e}", http.name))?;
        advisors.push(Box::new(Named {
            name: http.name.clone(),
            advisor,
        }));
    }
    Ok((advisors, unused))
}

/// An advisor under the name that the configuration gives it.
struct Named {
    name: String,
    advisor: HttpAdvisor,
}

impl Advisor for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AdvisorError>> {
        self.advisor.ask(question)
    }
}

pub(crate) fn alert_channels(
    config: &Config,
    layout: &Layout,
    redactor: &Redactor,
) -> Result<Vec<Arc<dyn AlertChannel>>, String> {
    let mut channels: Vec<Arc<dyn AlertChannel>> = vec![Arc::new(AlertFile::new(
        layout.logs(),
        layout.root().to_path_buf(),
    ))];
    if let Some(url) = &config.alerts.webhook {
        let webhook =
            WebhookChannel::new("webhook", &Secret::new(url.clone()), None, ALERT_DEADLINE);
        channels.push(Arc::new(webhook.map_err(|e| e.to_string())?));
    }
    if !config.alerts.command.is_empty() {
        let command = CommandChannel::new(
            "command",
            config.alerts.command.clone(),
            std::collections::BTreeMap::new(),
            redactor.clone(),
            ALERT_DEADLINE,
        );
        channels.push(Arc::new(command.map_err(|e| e.to_string())?));
    }
    Ok(channels)
}

/// Locks, whatever happened to who held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
