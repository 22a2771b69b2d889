//! `evenkeel status` and `evenkeel baseline show`.

use evenkeel_core::Policy;
use evenkeel_core::healer::Healer;
use evenkeel_ledger::tlog::Checkpoint;
use evenkeel_ledger::{CosignedBy, Reader};
use serde_json::{Value, json};

use super::ledger::{configured_witnesses, reader};
use super::table::print;
use super::{Exit, Failure, Global};
use crate::layout::Layout;
use crate::overview::{self, overview};
use crate::state;

pub(super) fn baseline(global: &Global) -> Result<Exit, Failure> {
    let layout = Layout::existing(&global.data_dir, crate::config::Profile::Service);
    let path = layout.baseline();
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Failure::target(format!(
            "no baseline at {}: {e}; `evenkeel run` establishes one after the stress test",
            path.display()
        ))
    })?;
    if global.json {
        let value: Value = serde_json::from_str(&text).map_err(|e| {
            Failure::target(format!(
                "{} is not JSON: {e}; remove it and run again",
                path.display()
            ))
        })?;
        print(&value.to_string());
    } else {
        print(text.trim_end());
    }
    Ok(Exit::Healthy)
}

pub(super) fn status(global: &Global) -> Result<Exit, Failure> {
    let (layout, reader) = reader(global)?;
    let healer = state::replay(&reader).map_err(|e| Failure::ledger_damaged(e.to_string()))?;
    let running = layout.is_locked();
    let seen: Value = std::fs::read_to_string(layout.status())
        .ok()
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or(Value::Null);
    let baseline: Value = std::fs::read_to_string(layout.baseline())
        .ok()
        .and_then(|t| serde_json::from_str(&t).ok())
        .unwrap_or(Value::Null);
    let active = running && seen["watchdog"] == "ACTIVE";
    let head = reader.head()?;
    let signed = reader
        .checkpoint()?
        .and_then(|note| Checkpoint::parse(note.text()).ok());
    let cosigned = cosigned(global, &reader)?;
    let policy = policy(global);
    let now = crate::clock::now();
    let pause_file = layout.pause_file().exists();
    if global.json {
        let value = json!({
            "watchdog": if active { "ACTIVE" } else { "STOPPED" },
            "running": running,
            "baseline": baseline,
            "last_check": seen["last_check"],
            "measures": seen["measures"],
            "services": seen["services"],
            "series": seen["series"],
            "anomalies": if active { seen["anomalies"].clone() } else { json!([]) },
            "healing_attempts": healer.healing_attempts,
            "open_cycle": healer.open.as_ref().map(open_json),
            "last_cycles": healer.last,
            "policy": policy.as_ref().map(|p| overview(&healer, p, now)),
            "pause_file": pause_file,
            "ledger": {
                "entries": head.sequence, "head": head.hash.to_string(),
                "origin": signed.as_ref().map(|c| &c.origin), "signed": signed.as_ref().map(|c| c.size),
                "anchored": cosigned,
            },
        });
        print(&value.to_string());
    } else {
        print(&text(
            active,
            running,
            &seen,
            &baseline,
            &healer,
            &ledger_line(head.sequence, signed.as_ref(), &cosigned),
        ));
        if pause_file {
            print(&format!(
                "PAUSED by the file {}",
                layout.pause_file().display()
            ));
        }
        match &policy {
            Some(policy) => print(&overview::lines(&healer, policy, now).join("\n")),
            None => print("Mode and limits: not known without the configuration (--config)"),
        }
    }
    Ok(Exit::Healthy)
}

/// What holds for every decision, where there is a configuration that says so.
pub(super) fn policy(global: &Global) -> Option<Policy> {
    super::check::configuration(global)
        .ok()
        .map(|(config, _, _)| config.policy())
}

/// Who of the configured witnesses cosigned how much; of all who did where there is no configuration.
fn cosigned(global: &Global, reader: &Reader) -> Result<Vec<CosignedBy>, Failure> {
    let known = configured_witnesses(global);
    let mut all = reader.cosigners()?;
    if !known.is_empty() {
        all.retain(|c| known.iter().any(|key| key.name() == c.name));
    }
    Ok(all)
}

/// The ledger in one line, with what is left open.
fn ledger_line(entries: u64, signed: Option<&Checkpoint>, cosigned: &[CosignedBy]) -> String {
    let signed = match signed {
        None => "not signed".to_owned(),
        Some(c) if c.size == entries => "all signed".to_owned(),
        Some(c) => format!("{} signed", c.size),
    };
    let by: Vec<String> = cosigned
        .iter()
        .map(|c| format!("{} up to entry {} at {}", c.name, c.tree_size, c.received))
        .collect();
    let open = if by.is_empty() {
        "not protected against this host's administrator (no checkpoint is kept elsewhere)"
            .to_owned()
    } else {
        format!("cosigned by {}", by.join(", "))
    };
    format!("Ledger: {entries} entries, {signed}; {open}")
}

fn open_json(cycle: &evenkeel_core::Cycle) -> Value {
    json!({
        "workflow_id": cycle.workflow_id, "anomaly": cycle.anomaly, "phase": cycle.phase, "parked": cycle.parked,
        "attempt": cycle.attempt(), "failed_attempts": cycle.failed_attempts,
    })
}

fn text(
    active: bool,
    running: bool,
    seen: &Value,
    baseline: &Value,
    healer: &Healer,
    ledger: &str,
) -> String {
    let mut out = vec![format!(
        "Watchdog: {}",
        match (active, running) {
            (true, _) => "ACTIVE",
            (false, true) => "STOPPED (Evenkeel is running without it)",
            (false, false) => "STOPPED",
        }
    )];
    out.push(match baseline["metrics"]["success_rate"].as_f64() {
        Some(rate) => format!(
            "Baseline: success rate {:.1}%, average latency {:.0} ms, of {}",
            rate * 100.0,
            baseline["metrics"]["avg_latency_ms"]
                .as_f64()
                .unwrap_or(0.0),
            baseline["timestamp"].as_str().unwrap_or("an unknown time")
        ),
        None => "Baseline: none".to_owned(),
    });
    if let Some(last) = seen["last_check"].as_str().filter(|_| active) {
        out.push(format!("Last check: {last}"));
        if let Some(measures) = seen["measures"].as_object() {
            for (name, value) in measures {
                if !value.is_null() {
                    out.push(format!("  {name}: {}", measure(value)));
                }
            }
        }
        if let Some(services) = seen["services"].as_object() {
            for (name, value) in services {
                out.push(format!(
                    "  service {name}: {}",
                    value.as_str().unwrap_or("?")
                ));
            }
        }
    }
    if let Some(followed) = seen["series"]["followed"].as_u64().filter(|_| active) {
        let alarms = &seen["series"]["alarms"]["notify"];
        out.push(format!(
            "Series: {followed} followed; alarms of them so far: {} (by chance about {:.1})",
            alarms["realised"].as_u64().unwrap_or(0),
            alarms["nominal"].as_f64().unwrap_or(0.0)
        ));
    }
    match &healer.open {
        Some(c) => out.push(format!(
            "Open cycle: {} ({}), attempt {}{}",
            c.workflow_id,
            c.anomaly.kind,
            c.attempt(),
            if c.parked { ", parked" } else { "" }
        )),
        None => out.push("Open cycle: none".to_owned()),
    }
    if healer.healing_attempts.is_empty() {
        out.push("Failed healing attempts: none".to_owned());
    } else {
        out.push("Failed healing attempts:".to_owned());
        out.extend(
            healer
                .healing_attempts
                .iter()
                .map(|(k, n)| format!("  {k}: {n}")),
        );
    }
    for (key, past) in healer.last.iter().filter(|(_, p)| !p.outcome.healed()) {
        out.push(format!("Waits for a person: {key} ({})", past.workflow_id));
    }
    out.push(ledger.to_owned());
    out.join("\n")
}

/// A measure with as many digits as a person reads.
fn measure(value: &Value) -> String {
    match (value.as_f64(), value.as_object()) {
        (Some(x), _) if x.abs() >= 100.0 => format!("{x:.0}"),
        (Some(x), _) => format!("{}", (x * 100.0).round() / 100.0),
        (None, Some(services)) => services
            .iter()
            .map(|(name, up)| {
                format!(
                    "{name} {}",
                    if up == &Value::Bool(true) {
                        "up"
                    } else {
                        "down"
                    }
                )
            })
            .collect::<Vec<_>>()
            .join(", "),
        (None, None) => value.to_string(),
    }
}
