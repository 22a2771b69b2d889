//! Carrying effects out: each ends in exactly one event.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use evenkeel_core::cycle::{Run, RunVerdict};
use evenkeel_core::event::{Event, SnapshotRef};
use evenkeel_core::guarded;
use evenkeel_core::playbook::action::{Action, SignalName};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::select::select;
use evenkeel_core::playbook::{Plan, Playbook, Prepared, RollbackOutcome, StepOutcome};
use evenkeel_core::{Anomaly, Cycle, Effect, Phase};
use evenkeel_edge::action::{
    BoxFuture, Cancel, ControlError, LogErrors, LogQuery, MeshControl, Preparation, ServiceControl,
};
use evenkeel_edge::collect::{log_follow, log_pattern};
use evenkeel_edge::process::{ServiceEvent, Supervisor};
use evenkeel_edge::snapshot::{
    self as edge_snapshot, DatabaseRestore, RestoreRequest, SnapshotKind, SnapshotRequest,
};
use evenkeel_stress::mesh::ResponderHandle;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::World;
use super::world::lock;
use crate::clock;

/// Most log lines that are looked at for recent errors.
const LOG_LINES_MAX: usize = 5_000;
/// How long the mesh may take to be connected again.
const MESH_DEADLINE: Duration = Duration::from_secs(5);

impl World {
    /// Carries out the effect that is due in a cycle.
    pub(super) async fn perform(&self, cycle: &Cycle, effect: &Effect) -> Event {
        match effect {
            Effect::TakeSnapshot => self.take_snapshot(cycle).await,
            Effect::SelectPlaybook => self.select_playbook(cycle),
            Effect::PrepareStep { step } => self.prepare_step(cycle, *step),
            Effect::RunStep { step } => Event::StepFinished {
                step: *step,
                outcome: self.run_step(cycle, *step).await,
            },
            Effect::Verify => {
                // The probing of a step of unknown outcome looks at the same signal.
                let verification = self.verify(cycle).await;
                Event::Verified {
                    verification: Box::new(verification),
                }
            }
            Effect::Settle { for_ms } => {
                let (stayed_normal, details) = self.settle(cycle, *for_ms).await;
                Event::Settled {
                    stayed_normal,
                    details,
                }
            }
            Effect::RollBack => Event::RolledBack {
                outcome: self.roll_back(cycle).await,
            },
            Effect::ConcludeRun => {
                if let (Phase::Concluding { verdict }, Some(run)) = (&cycle.phase, cycle.run())
                    && run.plan.chosen_by == ChosenBy::Advisor
                {
                    self.note_advice_outcome(cycle, *verdict == RunVerdict::Passed);
                }
                Event::RunConcluded
            }
            Effect::WaitRetry { for_ms } => {
                self.wait_retry(cycle, Duration::from_millis(*for_ms)).await
            }
            Effect::RequestApproval => self.request_approval(cycle).await,
            Effect::Recheck => {
                let (still_there, details) = self.still_there(&cycle.anomaly).await;
                Event::Rechecked {
                    still_there,
                    details,
                }
            }
            Effect::Advise { advisor } => self.ask(cycle, *advisor).await,
            Effect::Alert => self.call_people(cycle).await,
            Effect::Close { outcome } => Event::Closed { outcome: *outcome },
        }
    }

    /// Waits, and looks at the signal again. A service that ends meanwhile ends the wait: nobody is served by waiting
    /// for the next attempt at something smaller.
    async fn wait_retry(&self, cycle: &Cycle, time: Duration) -> Event {
        let mut events = self.supervisor.subscribe();
        let ended = async {
            loop {
                match events.recv().await {
                    Ok(ServiceEvent::Exited {
                        name,
                        expected: false,
                        exit,
                        ..
                    }) => return format!("{name} ended ({exit})"),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending::<()>().await,
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {
                let (still_there, details) = self.still_there(&cycle.anomaly).await;
                Event::RetryDue { still_there, details }
            }
            details = ended => Event::RetryDue { still_there: true, details },
        }
    }

    /// Whether some playbook applies to an anomaly now.
    pub fn has_playbook(&self, anomaly: &Anomaly) -> bool {
        let none = std::collections::BTreeMap::new();
        let scope = self
            .executor
            .scope(anomaly, 1, &Value::Object(serde_json::Map::new()), &none);
        let playbooks: Vec<Playbook> = self.playbooks.iter().map(|k| k.playbook.clone()).collect();
        select(&playbooks, anomaly, &scope).0.is_some()
    }

    async fn take_snapshot(&self, cycle: &Cycle) -> Event {
        let kind = SnapshotKind::PreHeal {
            anomaly: Box::new(cycle.anomaly.clone()),
            anomaly_id: cycle.workflow_id.clone(),
        };
        match self.snapshot(kind).await {
            Ok(s) => Event::SnapshotTaken {
                guards: self.measure_guards().await,
                snapshot: SnapshotRef {
                    dir: self.layout.shown(&s.dir),
                    bytes: s.bytes,
                    files: u32::try_from(s.files.len()).unwrap_or(u32::MAX),
                    id: s.id,
                },
            },
            Err(error) => Event::SnapshotFailed { error },
        }
    }

    /// Keeps the state that a workflow began with; gives its directory, as records write it.
    pub async fn workflow_snapshot(&self, id: &str) -> Result<String, String> {
        let kind = SnapshotKind::Workflow { id: id.to_owned() };
        let taken = self.snapshot(kind).await?;
        Ok(self.layout.shown(&taken.dir))
    }

    /// SAFETY 8: what was not checked for restorability is no snapshot.
    async fn snapshot(&self, kind: SnapshotKind) -> Result<edge_snapshot::SnapshotRef, String> {
        let request = self.snapshot_request(kind);
        let snapshots = self.snapshots.clone();
        let taken = tokio::task::spawn_blocking(move || snapshots.take(&request))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        if taken.verified {
            Ok(taken)
        } else {
            Err(format!("snapshot {} did not pass its check", taken.id))
        }
    }

    fn snapshot_request(&self, kind: SnapshotKind) -> SnapshotRequest {
        let target = &self.config.resolved;
        SnapshotRequest {
            kind,
            at: clock::now(),
            database: target.database.as_ref().map(|d| d.path.clone()),
            ledger: Some(self.layout.ledger()),
            config_files: target.config_files.clone(),
            root: target.root.clone(),
        }
    }

    /// Why the next snapshot would not fit on the disk.
    pub(super) fn no_room(&self) -> Option<String> {
        let kind = SnapshotKind::Manual {
            label: "room".to_owned(),
        };
        let room = self.snapshots.room_for(&self.snapshot_request(kind)).ok()?;
        (!room.fits()).then(|| {
            format!(
                "the next snapshot needs {} MB and {} MB are free in {}: make room, or nothing is healed",
                room.needed / 1_048_576,
                room.free.unwrap_or(0) / 1_048_576,
                self.layout.storage().display()
            )
        })
    }

    fn scope(&self, cycle: &Cycle, plan: Option<&Plan>) -> Value {
        let none = std::collections::BTreeMap::new();
        self.executor.scope(
            &cycle.anomaly,
            cycle.attempt(),
            &Value::Object(cycle.findings()),
            plan.map_or(&none, |p| &p.params),
        )
    }

    fn select_playbook(&self, cycle: &Cycle) -> Event {
        let playbooks: Vec<Playbook> = self.playbooks.iter().map(|k| k.playbook.clone()).collect();
        let scope = self.scope(cycle, None);
        let (found, passed_over) = select(&playbooks, &cycle.anomaly, &scope);
        let passed_over: Vec<String> = passed_over
            .iter()
            .map(|p| format!("{}: {}", p.playbook, p.reason))
            .collect();
        let none = std::collections::BTreeMap::new();
        match found.map(|p| Plan::new(p, &none, ChosenBy::Mapping)) {
            Some(Ok(plan)) => Event::PlaybookSelected {
                mode: self
                    .mind
                    .healer()
                    .mode_of(&plan.playbook, self.mind.policy()),
                plan: Box::new(plan),
                passed_over,
            },
            Some(Err(e)) => Event::NoPlaybook {
                reason: e.to_string(),
            },
            None => Event::NoPlaybook {
                reason: format!(
                    "no playbook is for {}{}",
                    cycle.anomaly.kind,
                    if passed_over.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", passed_over.join("; "))
                    }
                ),
            },
        }
    }

    fn prepare_step(&self, cycle: &Cycle, step: usize) -> Event {
        let plan = cycle.run().map(|r| &r.plan);
        let Some(planned) = plan.and_then(|p| p.steps.get(step)) else {
            return Event::StepRefused {
                step,
                error: "the plan has no such step".into(),
            };
        };
        match self.executor.prepare(planned, &self.scope(cycle, plan)) {
            Ok(Preparation::Ready(prepared)) => Event::StepPrepared { step, prepared },
            Ok(Preparation::Skipped { reason }) => Event::StepSkipped { step, reason },
            Err(e) => Event::StepRefused {
                step,
                error: self.redactor.text(&e.to_string()),
            },
        }
    }

    async fn run_step(&self, cycle: &Cycle, step: usize) -> StepOutcome {
        let run = cycle.run();
        let prepared = run
            .and_then(|r| r.steps.iter().find(|s| s.step == step))
            .and_then(|s| s.prepared.as_ref());
        let timeout_ms = run
            .and_then(|r| r.plan.steps.get(step))
            .map_or(evenkeel_core::playbook::default_timeout_ms(), |s| {
                s.timeout_ms
            })
            .min(
                self.mind
                    .policy()
                    .limits
                    .step_timeout_s
                    .saturating_mul(1_000),
            );
        match prepared {
            Some(prepared) => {
                if let Err(why) = self.restorable(cycle, prepared).await {
                    return StepOutcome {
                        ok: false,
                        message: why,
                        findings: Value::Null,
                        duration_ms: 0,
                    };
                }
                if let Err(why) = self.anchored(cycle, step, prepared).await {
                    return StepOutcome {
                        ok: false,
                        message: why,
                        findings: Value::Null,
                        duration_ms: 0,
                    };
                }
                let cancel = Cancel::never();
                self.executor
                    .run(prepared, Duration::from_millis(timeout_ms), &cancel)
                    .await
            }
            None => StepOutcome {
                ok: false,
                message: "its intent is not on record".into(),
                findings: Value::Null,
                duration_ms: 0,
            },
        }
    }

    /// SAFETY 8: before a step that may change the database, its snapshot is read whole once more.
    async fn restorable(&self, cycle: &Cycle, prepared: &Prepared) -> Result<(), String> {
        if !prepared.action.changes_database() {
            return Ok(());
        }
        let Some(snapshot) = cycle.run().and_then(|r| r.snapshot.clone()) else {
            return Err("there is no snapshot of this attempt".to_owned());
        };
        let snapshots = self.snapshots.clone();
        tokio::task::spawn_blocking(move || snapshots.verify(&snapshot.id))
            .await
            .map_err(|e| e.to_string())?
            .map(drop)
            .map_err(|e| format!("the snapshot could not be restored: {e}"))
    }

    /// Puts the database back from the attempt's snapshot, where that loses nothing: the playbook changed it, had stopped
    /// every service before, and none has run since. `None`: there is nothing to put back, or it may have been written
    /// since, and the copy is kept for a person.
    async fn restore_database(&self, run: &Run) -> Option<Result<String, String>> {
        let names = self.supervisor.names();
        if !changed_under_fence(run, &names) || !self.all_down() {
            return None;
        }
        let target = &self.config.resolved;
        let (path, id) = (
            target.database.as_ref()?.path.clone(),
            run.snapshot.as_ref()?.id.clone(),
        );
        let request = RestoreRequest {
            at: clock::now(),
            database: Some(DatabaseRestore {
                path,
                fenced: true,
                fence: Some(self.fence()),
            }),
            config: false,
            config_files: target.config_files.clone(),
            root: target.root.clone(),
        };
        let snapshots = self.snapshots.clone();
        let restored = tokio::task::spawn_blocking(move || snapshots.restore(&id, &request)).await;
        Some(match restored {
            Ok(Ok(report)) => Ok(format!(
                "the database as in {}; the state before is kept as {}",
                report.snapshot, report.kept_as
            )),
            Ok(Err(e)) => Err(format!("the database: {e}")),
            Err(e) => Err(format!("the database: {e}")),
        })
    }

    /// Before a step that changes something, what was written so far has to be seen elsewhere (SAFETY 21), as the
    /// configuration has it. A gap that is acted on is recorded before the act.
    async fn anchored(
        &self,
        cycle: &Cycle,
        step: usize,
        prepared: &Prepared,
    ) -> Result<(), String> {
        if prepared.action.only_looks() {
            return Ok(());
        }
        let size = self.journal.ledger().head().sequence;
        let gap = self.gate.before_change(size).await.map_err(|e| {
            let why = e.to_string();
            self.ui.warn(&why);
            why
        })?;
        let Some(gap) = gap else { return Ok(()) };
        self.ui.warn(format!("acting without a witness: {gap}"));
        let payload = json!({"workflow_id": cycle.workflow_id, "step": step, "gap": gap});
        self.journal
            .note(
                "evenkeel",
                "evenkeel",
                "act_without_witness",
                &cycle.workflow_id,
                &payload,
                "noted",
            )
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    }

    async fn roll_back(&self, cycle: &Cycle) -> RollbackOutcome {
        match cycle.run() {
            Some(run) => {
                let database = self.restore_database(run).await;
                let mut outcome = self.executor.undo(&run.undo_ops()).await;
                match database {
                    None => {}
                    Some(Ok(line)) => outcome.restored.push(line),
                    Some(Err(e)) => {
                        outcome.ok = false;
                        outcome.errors.push(e);
                    }
                }
                let made_worse = |name: &str| {
                    let guards = run.verification.iter().flat_map(|v| &v.guards);
                    guards.into_iter().any(|g| g.worse && g.name == name)
                };
                if run
                    .verification
                    .as_ref()
                    .is_some_and(|v| guarded::worse(&v.guards).is_some())
                {
                    // SAFETY 9: the undo is verified as the fix was.
                    outcome.guards = self.guards(cycle).await;
                    outcome.guards.retain(|g| made_worse(&g.name));
                }
                outcome
            }
            None => RollbackOutcome {
                ok: true,
                ..RollbackOutcome::default()
            },
        }
    }
}

/// Whether an attempt changed the database after it had stopped every service, and started none since.
fn changed_under_fence(run: &Run, services: &[String]) -> bool {
    let mut stopped: Vec<&str> = Vec::new();
    let mut changed = false;
    for action in run
        .steps
        .iter()
        .filter_map(|s| Some(&s.prepared.as_ref()?.action))
    {
        if action.changes_database() {
            if !services.iter().all(|s| stopped.contains(&s.as_str())) {
                return false;
            }
            changed = true;
        }
        match action {
            Action::Stop(_) => stopped.extend(action.interrupts()),
            Action::Start(_) | Action::Restart(_) if changed => return false,
            Action::Start(_) | Action::Restart(_) => {
                stopped.retain(|s| !action.touches().contains(s));
            }
            _ => {}
        }
    }
    changed
}

/// The supervisor, as playbook steps use it.
pub(super) struct Services(pub(super) Supervisor);

fn refused(e: impl std::fmt::Display) -> ControlError {
    ControlError(e.to_string())
}

impl ServiceControl for Services {
    fn restart<'a>(
        &'a self,
        name: &'a str,
        graceful_ms: u64,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let graceful = Some(Duration::from_millis(graceful_ms));
            self.0
                .restart(name, graceful)
                .await
                .map(drop)
                .map_err(refused)
        })
    }
    fn stop<'a>(
        &'a self,
        name: &'a str,
        graceful_ms: u64,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            let graceful = Some(Duration::from_millis(graceful_ms));
            self.0.stop(name, graceful).await.map(drop).map_err(refused)
        })
    }
    fn start<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move { self.0.start(name).await.map(drop).map_err(refused) })
    }
    fn signal<'a>(
        &'a self,
        name: &'a str,
        signal: SignalName,
    ) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move { self.0.signal(name, signal).await.map_err(refused) })
    }
    fn wait_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(async move {
            self.0
                .wait_ready(name, None)
                .await
                .map(drop)
                .map_err(refused)
        })
    }
    fn pids(&self, name: &str) -> Vec<u32> {
        self.0
            .processes(name)
            .map(|all| all.iter().map(|p| p.pid).collect())
            .unwrap_or_default()
    }
    fn heaviest(&self) -> Option<String> {
        self.0.heaviest().map(|(name, _)| name)
    }
    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// The target's log files, as `query_logs` reads them.
pub(super) struct Logs(pub(super) Vec<PathBuf>);

impl LogQuery for Logs {
    fn recent_errors(&self, since_s: u64) -> BoxFuture<'_, Result<LogErrors, ControlError>> {
        let files = self.0.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let since = clock::now()
                    .plus_millis(-i64::try_from(since_s.saturating_mul(1000)).unwrap_or(i64::MAX));
                let entries = log_follow::recent_errors(&files, since, LOG_LINES_MAX);
                let mut services: Vec<String> =
                    entries.iter().filter_map(|e| e.source.clone()).collect();
                services.sort();
                services.dedup();
                services.truncate(32);
                LogErrors {
                    total: entries.len() as u64,
                    patterns: log_pattern::group_by_pattern(&entries),
                    services,
                    samples: entries
                        .iter()
                        .rev()
                        .take(20)
                        .map(|e| e.message.clone())
                        .collect(),
                }
            });
            read.await.map_err(refused)
        })
    }
}

/// Evenkeel's own part in the target's event mesh.
#[derive(Default)]
pub(super) struct Mesh {
    responder: Mutex<Option<ResponderHandle>>,
}

impl Mesh {
    pub(super) fn connect(&self, responder: ResponderHandle) {
        *lock(&self.responder) = Some(responder);
    }

    /// Tells whether the consumer is connected; nothing where there is no mesh.
    pub(super) fn connected(&self) -> Option<watch::Receiver<bool>> {
        lock(&self.responder)
            .as_ref()
            .map(ResponderHandle::connected)
    }

    pub(super) async fn end(&self) {
        let responder = lock(&self.responder).take();
        if let Some(responder) = responder {
            responder.stop().await;
        }
    }
}

impl MeshControl for Mesh {
    fn reset(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async {
            let mut connected = {
                let responder = lock(&self.responder);
                let Some(responder) = responder.as_ref() else {
                    return Err(ControlError(
                        "[target.mesh] is not set: there is nothing to renew".into(),
                    ));
                };
                let connected = responder.connected();
                responder.reconnect();
                connected
            };
            // Done when the consumer hears the mesh again.
            match tokio::time::timeout(MESH_DEADLINE, connected.wait_for(|c| *c)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(ControlError("the consumer has ended".into())),
                Err(_) => Err(ControlError(format!(
                    "the consumer was not connected within {} s",
                    MESH_DEADLINE.as_secs()
                ))),
            }
        })
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("connected", &self.connected().map(|c| *c.borrow()))
            .finish()
    }
}

/// A responder for commands that test without a running Evenkeel.
pub(crate) fn responder(config: &crate::config::Config) -> Option<ResponderHandle> {
    let spec = config.target.mesh.clone()?;
    let base = evenkeel_stress::BaseUrl::parse(config.resolved.base_url.as_deref()?).ok()?;
    let client = evenkeel_stress::MeshClient::new(base, spec).ok()?;
    Some(
        evenkeel_stress::Responder::new(client, evenkeel_stress::mesh::ResponderOptions::default())
            .spawn(),
    )
}
