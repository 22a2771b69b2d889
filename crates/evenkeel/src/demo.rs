//! `evenkeel demo`: the whole loop on Grace, a real service, with a fault that has a cause and is really removed.

mod fault;
mod scenario;
mod stage;

use std::time::Duration;

use clap::Args;
use evenkeel_core::cycle::Outcome;

use crate::cli::{Exit, Failure, Global};
use crate::demo::fault::Bystanders;
use crate::demo::stage::Stage;
use crate::orchestrator::{Options, Orchestrator, Summary, WatchFor};
use crate::secrets;
use crate::stop;
use crate::ui::{Say, Style, Ui};

pub use scenario::Scenario;

/// Longest wait for the watchdog to notice a fault and heal it, in milliseconds.
const FAULT_LIMIT_MS: u64 = 40_000;
/// Checks without an anomaly that end the demonstration.
const QUIET_CHECKS: u64 = 3;

/// Arguments of `evenkeel demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// What goes wrong
    #[arg(long, value_enum, default_value_t = Scenario::MemoryLeak)]
    pub scenario: Scenario,
    /// Stay up and go on watching until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// Runs a demonstration.
pub fn run(global: &Global, args: &DemoArgs) -> Result<Exit, Failure> {
    let style = Style::detect(global.json);
    let ui = Ui::new(style);
    let stage = Stage::set(&global.data_dir, args.scenario)?;
    let config = stage.config()?;
    let secrets = secrets::collect(&config.config, &config.environment, &config.playbooks);
    crate::cli::start_log(global, &stage.layout, secrets.into_values())?;
    let heading = format!(
        "Evenkeel demo: {} - {}",
        args.scenario.name(),
        args.scenario.story()
    );
    ui.say(&Say::Heading { text: heading });
    if let Some(moved) = &stage.moved {
        ui.note(format!(
            "What an earlier demo left was moved to {}",
            moved.display()
        ));
    }
    let runtime = crate::cli::runtime()?;
    runtime.block_on(play(&ui, args, stage, config))
}

async fn play(
    ui: &Ui,
    args: &DemoArgs,
    stage: Stage,
    config: stage::Configured,
) -> Result<Exit, Failure> {
    let scenario = args.scenario;
    let (stopper, stop) = stop::pair();
    stop::on_signals(stopper);
    let mut bystanders = Bystanders::default();
    let advisor = fault::advisor(ui, scenario, &config).await?;
    let mut config = config;
    if let Some(server) = &advisor {
        config.use_advisor(server.url());
    }
    bystanders.before_boot(ui, scenario, &stage)?;
    let options = Options {
        config: config.config.clone(),
        environment: config.environment.clone(),
        playbooks: config.playbooks.clone(),
        layout: stage.layout.clone(),
        ui: ui.clone(),
        stop: stop.clone(),
        supervise: true,
        own_process: false,
    };
    let mut orchestrator = match Orchestrator::boot(options).await {
        Ok(o) => o,
        Err(e) => {
            stage.stop_services(&config).await;
            return Err(e.into());
        }
    };
    let played = act(ui, args, &stage, &mut bystanders, &mut orchestrator, &stop).await;
    let supervisor = orchestrator.healing().world().supervisor.clone();
    let summary = orchestrator.finish().await;
    // Whatever happened, nothing that was started stays behind.
    drop(bystanders);
    if let Err(errors) = supervisor.stop_all().await {
        for e in errors {
            ui.warn(e.to_string());
        }
    }
    played?;
    let report = evenkeel_ledger::verify(stage.layout.ledger(), |_, _| {})?;
    ui.say(&Say::Heading {
        text: "What is left".into(),
    });
    ui.note(crate::cli::describe_ledger(&stage.layout.ledger(), &report));
    stage.show(ui);
    if !report.is_sound() {
        return Ok(Exit::LedgerDamaged);
    }
    Ok(verdict(ui, scenario, &summary))
}

async fn act(
    ui: &Ui,
    args: &DemoArgs,
    stage: &Stage,
    bystanders: &mut Bystanders,
    orchestrator: &mut Orchestrator,
    stop: &stop::Stop,
) -> Result<(), Failure> {
    bystanders.after_boot(ui, args.scenario, stage)?;
    orchestrator.after_boot().await?;
    if args.scenario.strikes_later() && !stop.is_requested() {
        // One quiet check first, so that what comes is seen against a healthy target.
        orchestrator.watch(WatchFor::QuietChecks(1)).await?;
        fault::strike(ui, args.scenario, orchestrator)?;
        orchestrator
            .watch(WatchFor::OneCycle {
                limit_ms: FAULT_LIMIT_MS,
            })
            .await?;
    }
    if orchestrator.summary().healthy() && !stop.is_requested() {
        orchestrator
            .watch(WatchFor::QuietChecks(QUIET_CHECKS))
            .await?;
    }
    if args.keep && !stop.is_requested() {
        ui.note("Watching on; Ctrl-C ends it");
        orchestrator.watch(WatchFor::Ever).await?;
    }
    // What was noticed last is told before the end is.
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// The last line: what was to be shown, and whether it was.
fn verdict(ui: &Ui, scenario: Scenario, summary: &Summary) -> Exit {
    let outcomes: Vec<Outcome> = summary.cycles.iter().map(|(_, o)| *o).collect();
    let (exit, text) = if summary.interrupted && outcomes.is_empty() {
        (
            Exit::Interrupted,
            "Interrupted before anything was shown.".to_owned(),
        )
    } else if !summary.healthy() {
        let left: Vec<&str> = summary.unhealed.keys().map(String::as_str).collect();
        let alerted = outcomes
            .iter()
            .any(|o| matches!(o, Outcome::HumanAlert | Outcome::Stuck));
        let end = if alerted {
            "; a person was alerted"
        } else {
            ""
        };
        (
            Exit::Unhealed,
            format!("NOT HEALED: {}{end}.", left.join(", ")),
        )
    } else if scenario == Scenario::Healthy {
        if outcomes.is_empty() {
            (
                Exit::Healthy,
                "HEALTHY: nothing was wrong, and nothing was touched.".to_owned(),
            )
        } else {
            (
                Exit::Unhealed,
                "A healthy target was acted on: this is a false action.".to_owned(),
            )
        }
    } else if outcomes.is_empty() {
        (Exit::Unhealed, "The fault was not found.".to_owned())
    } else {
        let with_advice = outcomes.contains(&Outcome::ResolvedWithAdvice);
        let how = if with_advice {
            "with the advisor's playbook, "
        } else {
            ""
        };
        (
            Exit::Healthy,
            format!("HEALED: {}, {how}re-tested and verified.", scenario.name()),
        )
    };
    ui.say(&Say::Verdict {
        success: exit != Exit::Unhealed,
        text,
        exit_code: exit.code(),
    });
    exit
}
