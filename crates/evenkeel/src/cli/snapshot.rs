//! `evenkeel snapshot list|create|extract|restore`.

use std::sync::Arc;

use evenkeel_core::redact::Redactor;
use evenkeel_edge::process::{Options as SuperviseOptions, Supervisor};
use evenkeel_edge::snapshot::{
    DatabaseRestore, Fence, RestoreRequest, SnapshotKind, SnapshotLimits, SnapshotRequest,
    Snapshots,
};
use serde_json::json;

use super::check::configuration;
use super::run::{runtime, start_log};
use super::table::{print, table};
use super::{Exit, Failure, Global, SnapshotCommand};
use crate::clock;
use crate::config::Profile;
use crate::journal::Journal;
use crate::layout::Layout;
use crate::secrets;

pub(super) fn snapshot(global: &Global, command: SnapshotCommand) -> Result<Exit, Failure> {
    match command {
        SnapshotCommand::List => list(global),
        SnapshotCommand::Create => create(global),
        SnapshotCommand::Extract { id, to } => extract(global, &id, &to),
        SnapshotCommand::Restore { id, config_only } => restore(global, &id, config_only),
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let layout = Layout::existing(&global.data_dir, Profile::Service);
    let snapshots = Snapshots::new(
        layout.storage(),
        Redactor::default(),
        SnapshotLimits::default(),
    );
    let all = snapshots
        .list()
        .map_err(|e| Failure::target(e.to_string()))?;
    if global.json {
        for s in &all {
            print(
                &json!({"id": s.id, "dir": s.dir, "bytes": s.bytes, "files": s.files, "verified": s.verified,
                        "at": s.at, "type": s.kind})
                .to_string(),
            );
        }
        return Ok(Exit::Healthy);
    }
    if all.is_empty() {
        print("No snapshots.");
        return Ok(Exit::Healthy);
    }
    let mut t = table(["snapshot", "taken", "why", "files", "MB", "checked"]);
    for s in &all {
        t.add_row([
            s.id.clone(),
            s.at.to_string(),
            s.kind.clone(),
            s.files.len().to_string(),
            format!("{:.1}", s.bytes as f64 / 1_048_576.0),
            if s.verified { "yes" } else { "no" }.to_owned(),
        ]);
    }
    print(&t.to_string());
    Ok(Exit::Healthy)
}

/// Every service is down, and stays so.
fn fence(supervisor: &Supervisor) -> Fence {
    let supervisor = supervisor.clone();
    Fence::new(move || {
        let mut names = supervisor.names().into_iter();
        names.all(|name| supervisor.processes(&name).is_ok_and(|p| p.is_empty()))
    })
}

fn extract(global: &Global, id: &str, to: &std::path::Path) -> Result<Exit, Failure> {
    let layout = Layout::existing(&global.data_dir, Profile::Service);
    let snapshots = Snapshots::new(
        layout.storage(),
        Redactor::default(),
        SnapshotLimits::default(),
    );
    let files = snapshots
        .extract(id, to)
        .map_err(|e| Failure::target(e.to_string()))?;
    if global.json {
        print(&json!({"id": id, "files": files}).to_string());
    } else {
        for file in &files {
            print(&file.display().to_string());
        }
    }
    Ok(Exit::Healthy)
}

fn create(global: &Global) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    layout.create()?;
    let redactor = Redactor::new(secrets::collect(&config, &environment, &playbooks).into_values());
    let snapshots = Snapshots::new(layout.storage(), redactor, SnapshotLimits::default());
    let target = &config.resolved;
    let taken = snapshots
        .take(&SnapshotRequest {
            kind: SnapshotKind::Manual {
                label: "by_hand".into(),
            },
            at: clock::now(),
            database: target.database.as_ref().map(|d| d.path.clone()),
            ledger: Some(layout.ledger()).filter(|l| l.exists()),
            config_files: target.config_files.clone(),
            root: target.root.clone(),
        })
        .map_err(|e| Failure::target(e.to_string()))?;
    if global.json {
        print(&json!({"id": taken.id, "dir": taken.dir, "bytes": taken.bytes, "verified": taken.verified}).to_string());
    } else {
        print(&format!(
            "Snapshot {} ({} files, {} bytes, checked)",
            taken.id,
            taken.files.len(),
            taken.bytes
        ));
    }
    Ok(Exit::Healthy)
}

/// The services are stopped for the whole time, so that nothing written since can be lost unseen; the state before is
/// kept; the restore is written down; then the services are started again.
fn restore(global: &Global, id: &str, config_only: bool) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    let _lock = layout.lock()?;
    layout.create()?;
    let secrets = secrets::collect(&config, &environment, &playbooks);
    start_log(global, &layout, secrets.values().cloned())?;
    let redactor = Redactor::new(secrets.into_values());
    let options = evenkeel_ledger::Options {
        signer: runtime()?
            .block_on(crate::signing::signer(&config, &environment, &layout))
            .map_err(Failure::target)?,
        ..evenkeel_ledger::Options::default()
    };
    let snapshots = Snapshots::new(
        layout.storage(),
        redactor.clone(),
        SnapshotLimits::default(),
    );
    let verified = snapshots
        .verify(id)
        .map_err(|e| Failure::target(e.to_string()))?;
    let journal = Journal::new(
        evenkeel_ledger::Ledger::open_with(layout.ledger(), &options)?,
        Arc::new(redactor),
    );
    let target = config.resolved.clone();
    runtime()?.block_on(async {
        let supervisor = Supervisor::new(SuperviseOptions {
            scrub_env: config.secret_names(),
            ..SuperviseOptions::new(target.clone(), layout.root().to_path_buf())
        });
        let mut stopped = Vec::new();
        for name in supervisor.names().into_iter().rev() {
            match supervisor.stop(&name, None).await {
                Ok(report) if report.process.is_some() => stopped.push(name),
                Ok(_) => {}
                Err(e) => {
                    start_again(&supervisor, &stopped).await?;
                    return Err(Failure::target(format!("nothing was restored: {e}")));
                }
            }
        }
        let payload = json!({"snapshot": id, "config_only": config_only, "stopped": stopped});
        journal
            .note(
                "evenkeel",
                "evenkeel",
                "start_restore",
                id,
                &payload,
                "started",
            )
            .await?;
        let request =
            RestoreRequest {
                at: clock::now(),
                database: target.database.as_ref().filter(|_| !config_only).map(|d| {
                    DatabaseRestore {
                        path: d.path.clone(),
                        fenced: true,
                        fence: Some(fence(&supervisor)),
                    }
                }),
                config: true,
                config_files: target.config_files.clone(),
                root: target.root.clone(),
            };
        let restored = snapshots.restore(&verified.id, &request);
        let (payload, result) = match &restored {
            Ok(r) => (
                json!({"restored": r.restored, "kept_as": r.kept_as, "digest": r.digest}),
                "success",
            ),
            Err(e) => (json!({"error": e.to_string()}), "failed"),
        };
        journal
            .note(
                "evenkeel",
                "evenkeel",
                "finish_restore",
                id,
                &payload,
                result,
            )
            .await?;
        let started = start_again(&supervisor, &stopped).await;
        let r = restored.map_err(|e| Failure::target(e.to_string()))?;
        started?;
        if global.json {
            print(
                &json!({"snapshot": id, "restored": r.restored, "kept_as": r.kept_as}).to_string(),
            );
        } else {
            print(&format!(
                "Restored {id}; the state before is kept as {}",
                r.kept_as
            ));
            for path in &r.restored {
                print(&format!("  {}", path.display()));
            }
        }
        Ok(Exit::Healthy)
    })
}

/// Starts what was stopped, in the opposite order.
async fn start_again(supervisor: &Supervisor, stopped: &[String]) -> Result<(), Failure> {
    for name in stopped.iter().rev() {
        supervisor
            .start(name)
            .await
            .map_err(|e| Failure::target(e.to_string()))?;
    }
    Ok(())
}
