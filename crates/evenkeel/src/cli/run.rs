//! `evenkeel run` and `evenkeel stress`.

use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{SuiteResult, TestStatus};
use evenkeel_edge::launcher;
use evenkeel_edge::process::{Options as SuperviseOptions, Supervisor};
use evenkeel_stress::{Cancel, TestContext, TestSpec, run_suite};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::check::configuration;
use super::table::print;
use super::{Exit, Failure, Global};
use crate::access::Access;
use crate::clock;
use crate::layout::Layout;
use crate::log::BackendLog;
use crate::orchestrator::{BootError, Options, Orchestrator, Summary, WorkflowError};
use crate::secrets;
use crate::stop;
use crate::ui::{Say, Style, Ui};

/// A runtime on one thread: what waits needs no more, and what computes runs elsewhere.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .build()
        .map_err(|e| Failure::target(format!("no runtime could be started: {e}")))
}

/// Writes `logs/backend.log` from here on, and to standard error when asked to say more.
pub(crate) fn start_log(
    global: &Global,
    layout: &Layout,
    secrets: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    std::fs::create_dir_all(layout.logs()).map_err(|e| {
        Failure::target(format!(
            "the data directory {} cannot be written: {e}; choose another with --data-dir",
            layout.root().display()
        ))
    })?;
    let redactor = Arc::new(Redactor::new(secrets));
    let log = BackendLog::open(layout.backend_log(), redactor)
        .map_err(|e| Failure::target(format!("{}: {e}", layout.backend_log().display())))?;
    let verbose = global.verbose.then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .compact()
    });
    let level = tracing_subscriber::filter::LevelFilter::INFO;
    // A second call in one process (tests) keeps the first log.
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(log)
        .with(verbose)
        .try_init();
    Ok(())
}

impl From<WorkflowError> for Failure {
    fn from(e: WorkflowError) -> Self {
        let message = e.to_string();
        match e {
            WorkflowError::Boot(BootError::Ledger(e))
            | WorkflowError::Ledger(e)
            | WorkflowError::Healing(crate::healing::HealingError::Ledger(e)) => e.into(),
            WorkflowError::Boot(
                BootError::LedgerDamaged { .. }
                | BootError::LedgerSuspect(_)
                | BootError::Replay(_),
            ) => Self::ledger_damaged(message),
            WorkflowError::Boot(_) => Self::target(message),
            WorkflowError::Healing(_) => Self::internal(message),
        }
    }
}

impl From<BootError> for Failure {
    fn from(e: BootError) -> Self {
        WorkflowError::from(e).into()
    }
}

pub(super) fn run(global: &Global, once: bool) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    let secrets = secrets::collect(&config, &environment, &playbooks);
    start_log(global, &layout, secrets.into_values())?;
    let ui = Ui::new(Style::detect(global.json));
    lower_priority(&ui, config.agent.nice);
    let memory_max_mb = config.agent.memory_max_mb;
    runtime()?.block_on(async {
        let (stopper, stop) = stop::pair();
        stop::on_signals(stopper);
        let options = Options {
            config,
            environment,
            playbooks,
            layout,
            ui: ui.clone(),
            stop,
            supervise: true,
            own_process: true,
        };
        let summary = if once {
            Box::pin(Orchestrator::run_once(options)).await?
        } else {
            Box::pin(Orchestrator::run_post_boot_workflow(options)).await?
        };
        if let Some(used) = summary.over_memory {
            return Err(Failure::internal(format!(
                "Evenkeel used {} MB of memory, and [agent] memory_max_mb allows {memory_max_mb}; it has stopped in good order, and its next start goes on from the ledger (the services run on)",
                used >> 20
            )));
        }
        Ok(conclude(&ui, &summary))
    })
}

/// Evenkeel's own work gives way to that of the services (SAFETY 22); those it starts keep the priority of before.
fn lower_priority(ui: &Ui, nice: u8) {
    if nice == 0 {
        return;
    }
    let lowered = launcher::keep_priority().and_then(|()| launcher::lower_priority(nice));
    if let Err(e) = lowered {
        ui.warn(format!(
            "the priority stays as it is ([agent] nice = {nice}): {e}"
        ));
    }
}

/// The last line, and how the command ends.
pub(crate) fn conclude(ui: &Ui, summary: &Summary) -> Exit {
    let healed = summary.cycles.iter().filter(|(_, o)| o.healed()).count();
    let (exit, text) = if summary.healthy() {
        let exit = if summary.interrupted {
            Exit::Interrupted
        } else {
            Exit::Healthy
        };
        (
            exit,
            match healed {
                0 => "Healthy: nothing had to be healed.".to_owned(),
                n => format!(
                    "Healthy: {n} anomal{} healed and verified.",
                    if n == 1 { "y" } else { "ies" }
                ),
            },
        )
    } else {
        let left: Vec<&str> = summary.unhealed.keys().map(String::as_str).collect();
        (
            Exit::Unhealed,
            format!("Left unhealed: {}.", left.join(", ")),
        )
    };
    ui.say(&Say::Verdict {
        success: exit != Exit::Unhealed,
        text,
        exit_code: exit.code(),
    });
    exit
}

pub(super) fn stress(global: &Global, wanted: &[String]) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let tests = chosen(config.tests(), wanted)?;
    let secrets = secrets::collect(&config, &environment, &playbooks);
    let redactor = Redactor::new(secrets.into_values());
    let style = Style::detect(global.json);
    let ui = Ui::new(if global.json { Style::Silent } else { style });
    let suite: SuiteResult = runtime()?.block_on(async {
        let supervisor = Supervisor::new(SuperviseOptions {
            scrub_env: config.secret_names(),
            ..SuperviseOptions::new(config.resolved.clone(), PathBuf::from(&global.data_dir))
        });
        // The running target is looked at, never started: this command only tests.
        for name in supervisor.names() {
            let _ = supervisor
                .wait_ready(&name, Some(std::time::Duration::from_secs(2)))
                .await;
        }
        let cancel = Cancel::new();
        let (stopper, stop) = stop::pair();
        stop::on_signals(stopper);
        let stopping = {
            let cancel = cancel.clone();
            tokio::spawn(async move {
                stop.requested().await;
                cancel.cancel();
            })
        };
        let mesh = config.target.mesh.as_ref().and(None);
        let context = TestContext {
            base_url: config.resolved.base_url.clone().unwrap_or_default(),
            access: Access::new(
                supervisor,
                &config,
                crate::access::postgres(&config, &environment),
                mesh,
            ),
            cancel,
            now: Arc::new(clock::now),
        };
        // Without a running Evenkeel nobody answers the self-test; so this command answers it itself.
        let responder = crate::healing::responder(&config);
        ui.say(&Say::StressStarted { total: tests.len() });
        let suite = run_suite(&tests, &context, &mut ui.test_progress()).await;
        stopping.abort();
        if let Some(responder) = responder {
            responder.stop().await;
        }
        suite
    });
    if global.json {
        let value = serde_json::to_value(&suite).map_err(|e| Failure::internal(e.to_string()))?;
        print(&redactor.value(&value).to_string());
    } else {
        ui.say(&Say::StressFinished {
            suite: Box::new(suite.clone()),
        });
        for anomaly in &suite.anomalies {
            print(&format!(
                "  {} ({}): {}",
                anomaly.kind, anomaly.severity, anomaly.details
            ));
        }
    }
    Ok(
        if suite.results.iter().any(|r| r.status == TestStatus::Failed) {
            Exit::Unhealed
        } else {
            Exit::Healthy
        },
    )
}

fn chosen(tests: Vec<TestSpec>, wanted: &[String]) -> Result<Vec<TestSpec>, Failure> {
    if wanted.is_empty() {
        return Ok(tests);
    }
    let names: Vec<String> = tests.iter().map(|t| t.name.clone()).collect();
    for w in wanted {
        if !names
            .iter()
            .any(|n| n.to_lowercase().contains(&w.to_lowercase()))
        {
            let near = evenkeel_core::playbook::parse::nearest(w, names.iter().map(String::as_str));
            return Err(Failure::usage(format!(
                "there is no stress test `{w}`; {}; tests: {}",
                near.unwrap_or_else(|| "see the list".into()),
                names.join(", ")
            )));
        }
    }
    Ok(tests
        .into_iter()
        .filter(|t| {
            wanted
                .iter()
                .any(|w| t.name.to_lowercase().contains(&w.to_lowercase()))
        })
        .collect())
}
