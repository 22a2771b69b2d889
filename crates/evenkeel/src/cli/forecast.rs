//! A dry run for people: the exact plan, as things stand now.

use evenkeel_core::playbook::{Tier, UndoKind, UndoOp};
use serde_json::{Value, json};

use super::table::print;
use super::{Failure, Global};
use crate::clock;
use crate::healing::{Fate, Forecast, ForecastError, Forecaster, StepForecast};
use crate::overview;
use crate::state;

/// Prints a forecast, and what of the limits is left for it.
pub(super) fn show(global: &Global, forecaster: &Forecaster, forecast: &Forecast) {
    let healer = super::ledger::reader(global)
        .ok()
        .and_then(|(_, reader)| state::replay(&reader).ok())
        .unwrap_or_default();
    let policy = super::status::policy(global).unwrap_or_default();
    let now = clock::now();
    let mode = healer.mode_of(&forecast.playbook, &policy);
    if global.json {
        let mut document = forecaster.document(forecast);
        document["mode"] = json!(mode);
        document["standing"] = overview::overview(&healer, &policy, now);
        print(&document.to_string());
        return;
    }
    for line in lines(forecast) {
        print(&line);
    }
    print("");
    print(&format!("{} would be in mode {mode}", forecast.playbook));
    for line in overview::lines(&healer, &policy, now) {
        print(&line);
    }
}

impl From<ForecastError> for Failure {
    fn from(e: ForecastError) -> Self {
        match e {
            ForecastError::Runtime(_) => Self::target(e.to_string()),
            ForecastError::NoPlaybook { .. } | ForecastError::Param(_) => {
                Self::usage(e.to_string())
            }
        }
    }
}

fn lines(f: &Forecast) -> Vec<String> {
    let mut out = vec![
        "Dry run: nothing is changed, started or written.".to_owned(),
        String::new(),
        format!("for         {}", f.anomaly.key().trim_end_matches('/')),
        format!("playbook    {}", f.playbook),
        format!("risk        {}", f.risk),
        format!("tier        {}: {}", f.tier, tier(f.tier)),
    ];
    let params: Vec<String> = f
        .params
        .iter()
        .map(|(k, v)| format!("{k}={}", word(v)))
        .collect();
    if !params.is_empty() {
        out.push(format!("parameters  {}", params.join(", ")));
    }
    let free = f
        .snapshot
        .free_bytes
        .map_or_else(String::new, |free| format!(" ({} free)", size(free)));
    out.push(format!(
        "snapshot    {} files, at most {}{free}",
        f.snapshot.files,
        size(f.snapshot.bytes)
    ));
    out.push(format!("verified by {}", f.verified_by));
    if !f.services_down.is_empty() {
        out.push(format!(
            "not running {}: a cycle begins with starting what is down",
            f.services_down.join(", ")
        ));
    }
    out.extend(f.passed_over.iter().map(|p| format!("passed over {p}")));
    out.push(String::new());
    for (n, s) in f.steps.iter().enumerate() {
        let fate = match s.fate {
            Fate::Runs => "",
            Fate::Looked => " [looked now]",
            Fate::Skipped => " [left out]",
            Fate::Open => " [perhaps]",
            Fate::Refused => " [CANNOT BE DONE: the attempt would end here]",
        };
        out.push(format!("{}. {}: {}{fate}", n + 1, s.id, s.summary));
        if let Some(why) = &s.why {
            out.push(format!("     {}", one_line(why)));
        }
        if matches!(s.fate, Fate::Skipped | Fate::Looked | Fate::Refused) {
            continue;
        }
        let arguments = s.action.as_object().and_then(|map| map.values().next());
        if let Some(Value::Object(arguments)) = arguments {
            for (name, value) in arguments {
                if !value.is_null() {
                    out.push(format!("     {name}: {}", one_line(&word(value))));
                }
            }
        }
        out.push(format!("     {}", undo(s)));
        let again = match s.retries {
            0 => String::new(),
            n => format!(", tried again up to {n} times"),
        };
        out.push(format!("     at most {} ms{again}", s.timeout_ms));
    }
    out
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::One => "acts by itself",
        Tier::Two => "acts by itself and notifies",
        Tier::Three => "waits for a person's approval",
        Tier::Four => "is never run automatically",
    }
}

fn undo(s: &StepForecast) -> String {
    if !s.changes {
        return "changes nothing".to_owned();
    }
    let ops: Vec<String> = s.undo_ops.iter().map(operation).collect();
    match (s.undo, ops.is_empty()) {
        (UndoKind::Irreversible, _) => "undo: none, IRREVERSIBLE".to_owned(),
        (_, false) => format!("undo: {}", ops.join("; ")),
        (UndoKind::Reversible, true) if s.fate == Fate::Open => {
            "undo: as its arguments will say".to_owned()
        }
        (UndoKind::Reversible, true) => "undo: there is nothing to take back".to_owned(),
        (UndoKind::NoneNeeded, true) => "undo: none needed".to_owned(),
    }
}

fn operation(op: &UndoOp) -> String {
    match op {
        UndoOp::RestoreKeys { file, keys } => {
            let keys: Vec<String> = keys
                .iter()
                .map(|k| match &k.before {
                    Some(before) => format!("{} = {}", k.key, word(before)),
                    None => format!("{} absent", k.key),
                })
                .collect();
            format!("put {} back in {}", keys.join(", "), file.display())
        }
        UndoOp::StartServices { services } => format!("start {}", services.join(", ")),
        UndoOp::RestartServices { services } => format!("restart {}", services.join(", ")),
        UndoOp::Sql { statement } => format!("run SQL: {}", one_line(statement)),
        UndoOp::Command { argv, .. } => format!("run `{}`", one_line(&argv.join(" "))),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn size(bytes: u64) -> String {
    let b = bytes as f64;
    if b >= 1_073_741_824.0 {
        format!("{:.1} GB", b / 1_073_741_824.0)
    } else if b >= 1_048_576.0 {
        format!("{:.1} MB", b / 1_048_576.0)
    } else {
        format!("{:.1} kB", b / 1024.0)
    }
}
