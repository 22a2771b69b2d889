//! What goes wrong: real programs beside Grace, and real signals.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use evenkeel_edge::advisor::{ScriptedReply, ScriptedServer};
use serde_json::json;

use super::Scenario;
use super::stage::{Configured, Stage};
use crate::cli::Failure;
use crate::orchestrator::Orchestrator;
use crate::ui::Ui;

/// Programs that are none of Grace's services. They end with the demonstration.
#[derive(Default)]
pub(super) struct Bystanders(Vec<Child>);

impl Drop for Bystanders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Bystanders {
    /// What has to be there before Grace starts.
    pub(super) fn before_boot(
        &mut self,
        ui: &Ui,
        scenario: Scenario,
        stage: &Stage,
    ) -> Result<(), Failure> {
        if scenario == Scenario::Latency {
            let listen = format!("127.0.0.1:{}", stage.upstream);
            self.start(&[
                "grace",
                "upstream",
                "--listen",
                &listen,
                "--delay-ms",
                "2500",
                "--concurrency",
                "64",
            ])?;
            ui.note(format!(
                "Beside Grace: a model server on {listen} that takes 2.5 s for an answer"
            ));
        }
        Ok(())
    }

    /// What comes when Grace runs.
    pub(super) fn after_boot(
        &mut self,
        ui: &Ui,
        scenario: Scenario,
        stage: &Stage,
    ) -> Result<(), Failure> {
        if scenario == Scenario::ErrorSpike {
            let database = stage.layout.root().join("backend").join("grace_data.db");
            let said = self.start(&[
                "grace",
                "hold-lock",
                "--db",
                &database.to_string_lossy(),
                "--for",
                "120",
            ])?;
            ui.note(format!("Beside Grace: {said}"));
        }
        Ok(())
    }

    /// Starts a program of this binary and waits for its first line.
    fn start(&mut self, args: &[&str]) -> Result<String, Failure> {
        let failed =
            |e: std::io::Error| Failure::target(format!("`evenkeel {}`: {e}", args.join(" ")));
        let exe = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(exe)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = child.stdout.take();
        self.0.push(child);
        let mut line = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        if line.trim().is_empty() {
            return Err(Failure::target(format!(
                "`evenkeel {}` ended at once",
                args.join(" ")
            )));
        }
        Ok(line.trim().to_owned())
    }
}

/// Strikes the running service.
#[cfg(unix)]
pub(super) fn strike(
    ui: &Ui,
    scenario: Scenario,
    orchestrator: &Orchestrator,
) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, kill_process};
    let status = orchestrator
        .healing()
        .world()
        .supervisor
        .status("api")
        .map_err(|e| Failure::target(e.to_string()))?;
    let process = status
        .process()
        .ok_or_else(|| Failure::target("Grace's api does not run"))?;
    let (signal, name) = match scenario {
        Scenario::Hang => (Signal::STOP, "SIGSTOP"),
        _ => (Signal::KILL, "SIGKILL"),
    };
    let pid = i32::try_from(process.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Failure::internal("a process number out of range"))?;
    ui.note(
        format!("The fault: {name} to Grace's api ({pid:?})")
            .replace("Pid(", "process ")
            .replace("))", ")"),
    );
    kill_process(pid, signal).map_err(|e| Failure::target(format!("{name}: {e}")))
}

/// Strikes the running service.
#[cfg(not(unix))]
pub(super) fn strike(_: &Ui, _: Scenario, _: &Orchestrator) -> Result<(), Failure> {
    Err(Failure::target(
        "this scenario sends Unix signals; choose another",
    ))
}

/// The advisor of the escalation scenarios: a script behind the same HTTP protocol, and the screen says so. With
/// `AMP_API_KEY` set and escalation on the real one is asked.
pub(super) async fn advisor(
    ui: &Ui,
    scenario: Scenario,
    configured: &Configured,
) -> Result<Option<ScriptedServer>, Failure> {
    let script = match scenario {
        Scenario::PersistentFailure => {
            if configured.environment.get("AMP_API_KEY").is_some()
                && configured.config.escalation.enabled
            {
                ui.note("AMP_API_KEY is set: the real Amp will be asked");
                return Ok(None);
            }
            vec![ScriptedReply::Answer(json!({
                "suggested_action": "scale_up_resources",
                "confidence": 0.85,
                "reasoning": "Try increasing rate limits and worker count: requests are refused because no worker is free",
                "recommended_config": {"workers": 16, "queue": 64},
            }))]
        }
        Scenario::Exhausted => vec![ScriptedReply::Answer(json!({
            "suggested_action": "sudo reboot --force",
            "confidence": 0.99,
            "reasoning": "Turning it off and on again often helps",
            "recommended_config": {},
        }))],
        _ => return Ok(None),
    };
    let server = ScriptedServer::start(script)
        .await
        .map_err(|e| Failure::target(format!("the scripted advisor could not listen: {e}")))?;
    ui.note(format!(
        "No real advisor is asked in this demo: a scripted one answers on {}, through the same protocol",
        server.url()
    ));
    Ok(Some(server))
}
