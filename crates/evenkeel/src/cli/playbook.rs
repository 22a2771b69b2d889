//! `evenkeel playbook list|show|lint|test|run|schema`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{self, Plan, Playbook, VerifyWith};
use evenkeel_sim::rehearsal::rehearse;
use serde_json::{Value, json};

use super::check::configuration;
use super::run::{conclude, runtime, start_log};
use super::table::{print, table};
use super::{Exit, Failure, Global, PlaybookCommand, forecast};
use crate::clock;
use crate::config::Config;
use crate::healing::Forecaster;
use crate::layout::Layout;
use crate::orchestrator::{Options, Orchestrator};
use crate::playbooks::{self, Known};
use crate::secrets;
use crate::stop;
use crate::ui::{Style, Ui};

pub(super) fn playbook(global: &Global, command: PlaybookCommand) -> Result<Exit, Failure> {
    match command {
        PlaybookCommand::List => list(global),
        PlaybookCommand::Show { name } => show(global, &name),
        PlaybookCommand::Lint { files } => lint(global, &files),
        PlaybookCommand::Test { files } => test(global, &files),
        PlaybookCommand::Run {
            name,
            params,
            dry_run,
        } => run(global, &name, &params, dry_run),
        PlaybookCommand::Schema => {
            print(&serde_json::to_string_pretty(&playbook::json_schema()).unwrap_or_default());
            Ok(Exit::Healthy)
        }
    }
}

/// Built-in playbooks, and the user's own where a configuration says where they are.
fn known(global: &Global) -> Result<Vec<Known>, Failure> {
    if global.config.exists() {
        return Ok(configuration(global)?.2);
    }
    Ok(playbooks::load(&PathBuf::from("playbooks"), &[])?)
}

fn find(known: Vec<Known>, name: &str) -> Result<Known, Failure> {
    let near = playbook::parse::nearest(name, known.iter().map(|k| k.playbook.name.as_str()));
    known
        .into_iter()
        .find(|k| k.playbook.name == name)
        .ok_or_else(|| {
            Failure::usage(format!(
                "there is no playbook `{name}`; {}",
                near.unwrap_or_else(|| "see `evenkeel playbook list`".into())
            ))
        })
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let known = known(global)?;
    if global.json {
        for k in &known {
            let p = &k.playbook;
            print(
                &json!({"name": p.name, "description": p.description, "risk": p.risk, "tier": p.effective_tier(),
                        "for": p.remedies, "params": p.params, "origin": k.origin})
                .to_string(),
            );
        }
        return Ok(Exit::Healthy);
    }
    let mut t = table(["playbook", "for", "risk", "tier", "origin", "what it does"]);
    for k in &known {
        let p = &k.playbook;
        let mut subjects = p.remedies.anomalies.clone();
        subjects.extend(p.remedies.tests.iter().map(|t| format!("\"{t}\"")));
        t.add_row([
            p.name.clone(),
            if subjects.is_empty() {
                "advisors".to_owned()
            } else {
                subjects.join(", ")
            },
            p.risk.to_string(),
            p.effective_tier().to_string(),
            k.origin.clone(),
            p.description.clone(),
        ]);
    }
    print(&t.to_string());
    Ok(Exit::Healthy)
}

fn show(global: &Global, name: &str) -> Result<Exit, Failure> {
    let k = find(known(global)?, name)?;
    if global.json {
        print(
            &serde_json::to_value(&k.playbook)
                .unwrap_or_default()
                .to_string(),
        );
    } else {
        print(k.text.trim_end());
    }
    Ok(Exit::Healthy)
}

fn lint(global: &Global, files: &[PathBuf]) -> Result<Exit, Failure> {
    let tests: Vec<String> = Config::default()
        .tests()
        .into_iter()
        .map(|t| t.name)
        .collect();
    let mut problems = Vec::new();
    if files.is_empty() {
        let count = known(global)?.len();
        print(&format!("{count} playbooks: good"));
        return Ok(Exit::Healthy);
    }
    for file in files {
        let shown = file.display().to_string();
        let text =
            std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
        match playbooks::read(&shown, &text, &tests) {
            Ok(p) if !global.json => print(&format!("{shown}: good ({})", p.name)),
            Ok(_) => {}
            Err(found) => problems.extend(found),
        }
    }
    for p in &problems {
        if global.json {
            print(
                &json!({"file": p.file, "line": p.line, "column": p.column, "message": p.message, "hint": p.hint})
                    .to_string(),
            );
        } else {
            print(&p.to_string());
        }
    }
    if problems.is_empty() {
        Ok(Exit::Healthy)
    } else {
        Err(Failure::usage(format!(
            "{} problem(s) in playbooks",
            problems.len()
        )))
    }
}

/// Each step failing, each step's result lost, a death after each record, a rollback that breaks off, a fix that does
/// not help: in a simulated world, so nothing is touched.
fn test(global: &Global, files: &[PathBuf]) -> Result<Exit, Failure> {
    let chosen = if files.is_empty() {
        known(global)?.into_iter().map(|k| k.playbook).collect()
    } else {
        read_all(files)?
    };
    let mut good = true;
    for playbook in &chosen {
        let rehearsal = rehearse(playbook).map_err(|e| Failure::usage(e.to_string()))?;
        good &= rehearsal.is_good();
        if global.json {
            for case in &rehearsal.cases {
                print(
                    &json!({"playbook": rehearsal.playbook, "case": case.name, "ended": case.ended,
                            "good": case.problems.is_empty(), "problems": case.problems})
                    .to_string(),
                );
            }
        } else {
            print(&rehearsal.to_string());
        }
    }
    Ok(if good { Exit::Healthy } else { Exit::Unhealed })
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Playbook>, Failure> {
    let tests: Vec<String> = Config::default()
        .tests()
        .into_iter()
        .map(|t| t.name)
        .collect();
    files
        .iter()
        .map(|file| {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
            playbooks::read(&shown, &text, &tests).map_err(|problems| {
                let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Failure::usage(told.join("\n"))
            })
        })
        .collect()
}

fn run(global: &Global, name: &str, params: &[String], dry_run: bool) -> Result<Exit, Failure> {
    let (config, environment, playbooks) = configuration(global)?;
    let k = find(playbooks.clone(), name)?;
    let overrides = overrides(params)?;
    let mut plan = Plan::new(&k.playbook, &overrides, ChosenBy::Operator)
        .map_err(|e| Failure::usage(e.to_string()))?;
    if plan.verify.is_none() {
        plan.verify = Some(VerifyWith::Ready {});
    }
    let anomaly = Anomaly {
        kind: AnomalyType::known(AnomalyType::MANUAL_REQUEST),
        severity: Severity::Low,
        current: 0.0,
        threshold: 0.0,
        details: format!("a person asked for {name}"),
        unit: String::new(),
        baseline: None,
        test: None,
        series: Some(format!("playbook/{name}")),
        service: None,
        since: clock::now(),
        score: None,
        context: Value::Null,
    };
    let layout = Layout::new(&global.data_dir, config.profile);
    if dry_run {
        let forecaster = Forecaster::new(&config, &environment, &playbooks, &layout)?;
        let forecast = forecaster.for_plan(&anomaly, &plan)?;
        forecast::show(global, &forecaster, &forecast);
        return Ok(Exit::Healthy);
    }
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
        o.run_plan(anomaly, plan).await?;
        let summary = o.finish().await;
        Ok(conclude(&ui, &summary))
    })
}

pub(super) fn overrides(params: &[String]) -> Result<BTreeMap<String, Value>, Failure> {
    params
        .iter()
        .map(|p| {
            let (name, value) = p
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--param {p}: write NAME=VALUE")))?;
            // A number or true/false as such, anything else as a text.
            let value = serde_json::from_str(value)
                .ok()
                .filter(|v: &Value| v.is_number() || v.is_boolean())
                .unwrap_or_else(|| Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        })
        .collect()
}
