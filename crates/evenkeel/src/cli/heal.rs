//! `evenkeel heal TYPE`: a person orders an anomaly to be healed, or asks what would be done.

use clap::Args;
use evenkeel_core::anomaly::{Anomaly, AnomalyType};
use evenkeel_core::event::Trigger;
use evenkeel_core::playbook::parse::nearest;
use evenkeel_detect::SampleValue;
use evenkeel_stress::TestSpec;

use super::check::configuration;
use super::playbook::overrides;
use super::run::{conclude, runtime, start_log};
use super::{Exit, Failure, Global, forecast};
use crate::config::Config;
use crate::healing::{Forecaster, World, signal};
use crate::layout::Layout;
use crate::orchestrator::{Options, Orchestrator};
use crate::playbooks::Known;
use crate::secrets;
use crate::stop;
use crate::ui::{Style, Ui};

/// Arguments of `evenkeel heal`.
#[derive(Debug, Clone, Args)]
pub struct HealArgs {
    /// The anomaly's type, such as `memory_growth`
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// The stress test that fails, by its exact name; it verifies the fix
    #[arg(long, value_name = "NAME")]
    pub test: Option<String>,
    /// A parameter of the playbook, as `name=value`; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// Print the exact plan and do nothing; works while Evenkeel runs
    #[arg(long)]
    pub dry_run: bool,
}

pub(super) fn heal(global: &Global, args: &HealArgs) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let (kind, test) = wanted(&config, &playbooks, args)?;
    let overrides = overrides(&args.params)?;
    let mut anomaly = signal::ordered(&config, kind, test.as_ref());
    let layout = Layout::new(&global.data_dir, config.profile);
    let forecaster = Forecaster::new(&config, &environment, &playbooks, &layout)?;
    if args.dry_run {
        let forecast = forecaster.for_anomaly(&anomaly, &overrides)?;
        forecast::show(global, &forecaster, &forecast);
        return Ok(Exit::Healthy);
    }
    if layout.is_locked() {
        return Err(Failure::target(format!(
            "Evenkeel runs on the data directory {} and heals there by itself; stop it first to order a cycle by hand, or see with --dry-run what would be done",
            layout.root().display()
        )));
    }
    // Mistakes in parameters come before anything is started.
    let plan = if overrides.is_empty() {
        None
    } else {
        Some(forecaster.plan(&anomaly, &overrides)?)
    };
    let secrets = secrets::collect(&config, &environment, &playbooks);
    start_log(global, &layout, secrets.into_values())?;
    let ui = Ui::new(Style::detect(global.json));
    runtime()?.block_on(async {
        let (stopper, stop) = stop::pair();
        stop::on_signals(stopper);
        let mut o = Orchestrator::boot(Options {
            config,
            environment,
            playbooks,
            layout,
            ui: ui.clone(),
            stop,
            supervise: true,
            own_process: false,
        })
        .await?;
        o.resume().await?;
        measure(o.healing().world(), &mut anomaly, test.as_ref()).await;
        match plan {
            Some(plan) => o.run_plan(anomaly, plan).await?,
            None => o.heal_all(vec![anomaly], Trigger::Operator).await?,
        }
        let summary = o.finish().await;
        Ok(conclude(&ui, &summary))
    })
}

/// What is to be healed: a type that something here raises or heals, and the test that measures it.
fn wanted(
    config: &Config,
    playbooks: &[Known],
    args: &HealArgs,
) -> Result<(AnomalyType, Option<TestSpec>), Failure> {
    let known = signal::known_types(config, playbooks);
    if !known.contains(&args.kind) {
        let near = nearest(&args.kind, known.iter().map(String::as_str));
        return Err(Failure::usage(format!(
            "nothing here raises or heals `{}`; {}types: {}",
            args.kind,
            near.map_or_else(String::new, |n| format!("{n}; ")),
            known.join(", ")
        )));
    }
    let kind = AnomalyType::new(&args.kind).map_err(|e| Failure::usage(e.to_string()))?;
    let test = signal::test_for(config, &args.kind, args.test.as_deref());
    if let (Some(name), None) = (&args.test, &test) {
        let names: Vec<String> = config.tests().into_iter().map(|t| t.name).collect();
        let near = nearest(name, names.iter().map(String::as_str));
        return Err(Failure::usage(format!(
            "there is no stress test `{name}`; {}",
            near.unwrap_or_else(|| format!("tests: {}", names.join(", ")))
        )));
    }
    if let Some(missing) = test.as_ref().and_then(|t| t.missing.as_deref()) {
        return Err(Failure::usage(format!(
            "the stress test `{}` cannot be run here: {missing}",
            args.test.as_deref().unwrap_or_default()
        )));
    }
    Ok((kind, test))
}

/// Measures the signal before anything is done, so that what the cycle says of before and after is true.
async fn measure(world: &World, anomaly: &mut Anomaly, test: Option<&TestSpec>) {
    if let Some(test) = test {
        let result = world.run_test(test).await;
        anomaly.current = result.value;
        anomaly.threshold = result.limit;
        anomaly.unit.clone_from(&result.unit);
        anomaly.severity = result.severity;
        let found = result
            .issue
            .unwrap_or_else(|| "the test passes now".to_owned());
        anomaly.details = format!("{}: {found}", anomaly.details);
    } else if anomaly.unit == "ms" {
        let mut latencies: Vec<f64> = world
            .probe_all(5)
            .await
            .iter()
            .filter_map(|s| match &s.value {
                SampleValue::Probe { latency_ms, .. } => Some(*latency_ms),
                _ => None,
            })
            .collect();
        latencies.sort_by(f64::total_cmp);
        if let Some(slowest) = latencies.last() {
            anomaly.current = *slowest;
            anomaly.details = format!(
                "{}: the slowest of {} probes took {slowest:.0} ms",
                anomaly.details,
                latencies.len()
            );
        }
    }
}
