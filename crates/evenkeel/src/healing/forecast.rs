//! What a cycle would do, found out without doing any of it: `--dry-run`.
//!
//! **Invariant:** it changes nothing and starts nothing. The services are looked at once and then stand there as a
//! picture that refuses every order; of the steps only those that read the target's log files are carried out, because
//! later conditions speak of what they find. It needs no lock, so it works while Evenkeel runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::playbook::action::SignalName;
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::select::select;
use evenkeel_core::playbook::{Action, Plan, PlannedStep, Playbook, Risk, Tier, UndoKind, UndoOp};
use evenkeel_core::redact::Redactor;
use evenkeel_edge::action::{
    BoxFuture, Cancel, ControlError, Executor, Preparation, ServiceControl,
};
use evenkeel_edge::process::{Options as SuperviseOptions, Supervisor};
use serde::Serialize;
use serde_json::{Map, Value};

use super::perform::{Logs, Mesh};
use super::signal;
use crate::config::{Config, Environment};
use crate::layout::Layout;
use crate::playbooks::Known;

/// What would be done about an anomaly, as things stand now.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Forecast {
    /// What the cycle would be for.
    pub(crate) anomaly: Anomaly,
    /// The playbook.
    pub(crate) playbook: String,
    /// Who chose it.
    pub(crate) chosen_by: ChosenBy,
    /// Candidates that were passed over, and why.
    pub(crate) passed_over: Vec<String>,
    /// How much harm it can do.
    pub(crate) risk: Risk,
    /// How much freedom it has.
    pub(crate) tier: Tier,
    /// Whether a person would have to approve it first.
    pub(crate) needs_approval: bool,
    /// Every parameter.
    pub(crate) params: BTreeMap<String, Value>,
    /// What would be kept before the first step.
    pub(crate) snapshot: SnapshotSize,
    /// Services that do not run now: they are started before a cycle begins.
    pub(crate) services_down: Vec<String>,
    /// The steps, in order.
    pub(crate) steps: Vec<StepForecast>,
    /// What would show that it helped.
    pub(crate) verified_by: String,
}

/// How large the snapshot would be at most: files as they lie there now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SnapshotSize {
    /// Files in it.
    pub(crate) files: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Bytes free where it would lie; none when that cannot be told.
    pub(crate) free_bytes: Option<u64>,
}

/// What would become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fate {
    /// It would be run as it stands here.
    Runs,
    /// It only reads, and was carried out to know what follows.
    Looked,
    /// Its condition does not hold now.
    Skipped,
    /// It depends on what an earlier step finds, which only a run can tell.
    Open,
    /// It cannot be made ready: the attempt would end here.
    Refused,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepForecast {
    /// Its name.
    pub(crate) id: String,
    /// What would become of it.
    pub(crate) fate: Fate,
    /// What it does, in one line.
    pub(crate) summary: String,
    /// Why it is skipped, open or refused; what it found when it was carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// The action with its arguments; resolved unless the step is open or refused.
    pub(crate) action: Value,
    /// Whether it changes anything.
    pub(crate) changes: bool,
    /// How it is taken back.
    pub(crate) undo: UndoKind,
    /// Exactly what would take it back.
    pub(crate) undo_ops: Vec<UndoOp>,
    /// Time limit, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// How often it would be tried again.
    pub(crate) retries: u32,
}

/// Why there is nothing to forecast.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForecastError {
    /// No playbook applies.
    #[error("no playbook applies to {kind} here; passed over: {}", or_none(.passed_over))]
    NoPlaybook {
        /// The anomaly's type.
        kind: String,
        /// Candidates, and why none was taken.
        passed_over: Vec<String>,
    },
    /// A parameter.
    #[error(transparent)]
    Param(#[from] evenkeel_core::playbook::ParamError),
    /// The runtime.
    #[error("no runtime could be started: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Looks ahead on the configured target.
pub(crate) struct Forecaster {
    executor: Executor,
    redactor: Redactor,
    playbooks: Vec<Playbook>,
    config: Config,
    services_down: Vec<String>,
    ledger: PathBuf,
    storage: PathBuf,
}

impl Forecaster {
    /// Looks at the target's services once. `layout` need not exist.
    pub(crate) fn new(
        config: &Config,
        environment: &Environment,
        playbooks: &[Known],
        layout: &Layout,
    ) -> std::io::Result<Self> {
        let secrets = crate::secrets::collect(config, environment, playbooks);
        let redactor = Redactor::new(secrets.values().cloned());
        let picture = Picture::taken(config, layout)?;
        let services_down = picture.down();
        let mut executor = Executor::new(
            Arc::new(config.resolved.clone()),
            Arc::new(picture),
            Arc::new(move |name: &str| secrets.get(name).cloned()),
            redactor.clone(),
        )
        .with_logs(Arc::new(Logs(config.resolved.logs.clone())));
        if config.target.mesh.is_some() {
            executor = executor.with_mesh(Arc::new(Mesh::default()));
        }
        Ok(Self {
            executor,
            redactor,
            playbooks: playbooks.iter().map(|k| k.playbook.clone()).collect(),
            config: config.clone(),
            services_down,
            ledger: layout.ledger(),
            storage: layout.storage(),
        })
    }

    /// Chooses a playbook as a cycle would, and looks what it would do.
    pub(crate) fn for_anomaly(
        &self,
        anomaly: &Anomaly,
        overrides: &BTreeMap<String, Value>,
    ) -> Result<Forecast, ForecastError> {
        let scope = self.scope(anomaly, &Map::new(), &BTreeMap::new());
        let (found, passed_over) = select(&self.playbooks, anomaly, &scope);
        let passed_over: Vec<String> = passed_over
            .iter()
            .map(|p| format!("{}: {}", p.playbook, p.reason))
            .collect();
        let Some(playbook) = found else {
            return Err(ForecastError::NoPlaybook {
                kind: anomaly.kind.to_string(),
                passed_over,
            });
        };
        let by = if overrides.is_empty() {
            ChosenBy::Mapping
        } else {
            ChosenBy::Operator
        };
        let plan = Plan::new(playbook, overrides, by)?;
        let mut forecast = self.for_plan(anomaly, &plan)?;
        forecast.passed_over = passed_over;
        Ok(forecast)
    }

    /// Looks what a plan would do.
    pub(crate) fn for_plan(
        &self,
        anomaly: &Anomaly,
        plan: &Plan,
    ) -> Result<Forecast, ForecastError> {
        // A runtime of its own, in which nothing but the reading of logs is ever run.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut findings = Map::new();
        let mut unknown = BTreeSet::new();
        let mut steps = Vec::new();
        for step in &plan.steps {
            let told = runtime.block_on(self.step(anomaly, plan, step, &mut findings, &unknown));
            if !matches!(told.fate, Fate::Looked | Fate::Skipped) {
                unknown.insert(step.id.clone());
            }
            steps.push(told);
        }
        Ok(Forecast {
            anomaly: anomaly.clone(),
            playbook: plan.playbook.clone(),
            chosen_by: plan.chosen_by,
            passed_over: Vec::new(),
            risk: plan.risk,
            tier: plan.tier,
            needs_approval: plan.tier >= Tier::Three,
            params: plan.params.clone(),
            snapshot: self.snapshot_size(),
            services_down: self.services_down.clone(),
            steps,
            verified_by: signal::verified_by(&self.config, anomaly, plan.verify.as_ref()),
        })
    }

    /// The playbook that would be chosen for an anomaly, made concrete with `overrides`.
    pub(crate) fn plan(
        &self,
        anomaly: &Anomaly,
        overrides: &BTreeMap<String, Value>,
    ) -> Result<Plan, ForecastError> {
        let chosen = self.for_anomaly(anomaly, overrides)?.playbook;
        let playbook = self.playbooks.iter().find(|p| p.name == chosen);
        let playbook = playbook.ok_or_else(|| ForecastError::NoPlaybook {
            kind: anomaly.kind.to_string(),
            passed_over: Vec::new(),
        })?;
        Ok(Plan::new(playbook, overrides, ChosenBy::Operator)?)
    }

    /// As a document, without secrets.
    pub(crate) fn document(&self, forecast: &Forecast) -> Value {
        let value = serde_json::to_value(forecast).unwrap_or(Value::Null);
        self.redactor.value(&value)
    }

    fn scope(
        &self,
        anomaly: &Anomaly,
        findings: &Map<String, Value>,
        params: &BTreeMap<String, Value>,
    ) -> Value {
        let findings = Value::Object(findings.clone());
        self.executor.scope(anomaly, 1, &findings, params)
    }

    async fn step(
        &self,
        anomaly: &Anomaly,
        plan: &Plan,
        step: &PlannedStep,
        findings: &mut Map<String, Value>,
        unknown: &BTreeSet<String>,
    ) -> StepForecast {
        let mut told = StepForecast {
            id: step.id.clone(),
            fate: Fate::Runs,
            summary: step.action.name().to_owned(),
            why: None,
            action: serde_json::to_value(&step.action).unwrap_or(Value::Null),
            changes: step.action.changes_something() && !step.action.only_looks(),
            undo: step.undo,
            undo_ops: Vec::new(),
            timeout_ms: step.timeout_ms,
            retries: step.retries,
        };
        if let Some(id) = depends_on(step, unknown) {
            told.fate = Fate::Open;
            told.why = Some(match &step.when {
                Some(when) => format!("known when step {id} has run; its condition: {when}"),
                None => format!("its arguments are known when step {id} has run"),
            });
            return told;
        }
        let scope = self.scope(anomaly, findings, &plan.params);
        match self.executor.prepare(step, &scope) {
            Ok(Preparation::Skipped { reason }) => {
                told.fate = Fate::Skipped;
                told.why = Some(reason);
            }
            Ok(Preparation::Ready(prepared)) => {
                told.action = serde_json::to_value(&prepared.action).unwrap_or(Value::Null);
                told.summary.clone_from(&prepared.summary);
                told.undo_ops.clone_from(&prepared.undo);
                if matches!(prepared.action, Action::QueryLogs(_)) {
                    let limit = Duration::from_millis(step.timeout_ms);
                    let outcome = self.executor.run(&prepared, limit, &Cancel::never()).await;
                    told.fate = Fate::Looked;
                    told.why = Some(outcome.message);
                    if !outcome.findings.is_null() {
                        findings.insert(step.id.clone(), outcome.findings);
                    }
                }
            }
            Err(e) => {
                told.fate = Fate::Refused;
                told.why = Some(self.redactor.text(&e.to_string()));
            }
        }
        told
    }

    fn snapshot_size(&self) -> SnapshotSize {
        let target = &self.config.resolved;
        let mut size = SnapshotSize {
            free_bytes: free_bytes(&self.storage),
            ..SnapshotSize::default()
        };
        let database = target.database.as_ref().map(|d| d.path.clone());
        for path in database.iter().chain([&self.ledger]) {
            let mut wal = path.clone().into_os_string();
            wal.push("-wal");
            if let Some(bytes) = len(path) {
                size.files += 1;
                size.bytes += bytes + len(Path::new(&wal)).unwrap_or(0);
            }
        }
        for bytes in target.config_files.iter().filter_map(|f| len(f)) {
            size.files += 1;
            size.bytes += bytes;
        }
        size
    }
}

fn or_none(passed_over: &[String]) -> String {
    if passed_over.is_empty() {
        "none".to_owned()
    } else {
        passed_over.join("; ")
    }
}

fn len(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.len())
}

/// Free space where `dir` is or would be.
fn free_bytes(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|d| d.exists())?;
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}

/// The step of unknown findings that this one speaks of.
fn depends_on<'a>(step: &PlannedStep, unknown: &'a BTreeSet<String>) -> Option<&'a str> {
    let action = serde_json::to_string(&step.action).unwrap_or_default();
    let texts = [step.when.as_deref().unwrap_or_default(), &action];
    let speaks_of = |id: &str| {
        texts.iter().any(|text| {
            text.split("findings").skip(1).any(|rest| {
                let word: String = rest
                    .trim_start_matches(['.', '[', '\'', '"', '\\'])
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                // Findings without a name are all of them.
                word == id || word.is_empty()
            })
        })
    };
    unknown.iter().map(String::as_str).find(|id| speaks_of(id))
}

/// The services as they were when it was taken. It refuses every order.
struct Picture {
    names: Vec<String>,
    pids: BTreeMap<String, Vec<u32>>,
    heaviest: Option<String>,
}

impl Picture {
    fn taken(config: &Config, layout: &Layout) -> std::io::Result<Self> {
        // The runtime is entered and never driven: the supervisor's tasks, which would take note of a service that
        // ends, never run.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        let supervisor = Supervisor::new(SuperviseOptions {
            scrub_env: config.secret_names(),
            ..SuperviseOptions::new(config.resolved.clone(), layout.root().to_path_buf())
        });
        let names = supervisor.names();
        let mut pids = BTreeMap::new();
        for name in &names {
            // Finds those that one attaches to.
            let _ = supervisor.status(name);
            let all = supervisor.processes(name).unwrap_or_default();
            pids.insert(name.clone(), all.iter().map(|p| p.pid).collect());
        }
        Ok(Self {
            names,
            pids,
            heaviest: supervisor.heaviest().map(|(name, _)| name),
        })
    }
}

impl Picture {
    fn down(&self) -> Vec<String> {
        let down = |name: &&String| self.pids.get(*name).is_none_or(Vec::is_empty);
        self.names.iter().filter(down).cloned().collect()
    }
}

fn refuse() -> BoxFuture<'static, Result<(), ControlError>> {
    Box::pin(async { Err(ControlError("a dry run acts on nothing".to_owned())) })
}

impl ServiceControl for Picture {
    fn restart<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), ControlError>> {
        refuse()
    }
    fn stop<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), ControlError>> {
        refuse()
    }
    fn start<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), ControlError>> {
        refuse()
    }
    fn signal<'a>(&'a self, _: &'a str, _: SignalName) -> BoxFuture<'a, Result<(), ControlError>> {
        refuse()
    }
    fn wait_ready<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), ControlError>> {
        refuse()
    }
    fn pids(&self, name: &str) -> Vec<u32> {
        self.pids.get(name).cloned().unwrap_or_default()
    }
    fn heaviest(&self) -> Option<String> {
        self.heaviest.clone()
    }
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(when: &str) -> PlannedStep {
        serde_json::from_value(serde_json::json!({
            "id": "s", "action": {"restart": {"services": "all"}}, "when": when, "timeout_ms": 1, "retries": 0,
            "on_failure": "fail", "undo": "none_needed", "idempotent": true,
        }))
        .unwrap()
    }

    #[test]
    fn a_step_that_speaks_of_what_is_not_known_yet_is_open() {
        let unknown = BTreeSet::from(["probe".to_owned()]);
        for (when, open) in [
            ("findings.probe.rows > 0", true),
            ("findings['probe'].rows > 0", true),
            ("size(findings) > 0", true),
            ("findings.logs.total > 0", false),
            ("target.database", false),
        ] {
            assert_eq!(depends_on(&step(when), &unknown).is_some(), open, "{when}");
        }
        assert!(depends_on(&step("findings.probe.rows > 0"), &BTreeSet::new()).is_none());
    }
}
