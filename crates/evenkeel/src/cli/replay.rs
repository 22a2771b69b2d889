//! `evenkeel replay`: the watchdog over recorded telemetry. It prints what it would have found, and what would have been
//! done about it; nothing is done, and no clock is read but that of the record.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use clap::Args;
use evenkeel_core::Timestamp;
use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::healer::{Healer, NOTE_ONLY};
use evenkeel_core::playbook::select::select;
use evenkeel_detect::{Sample, Verdict, Watchdog};
use serde_json::{Value, json};

use super::check::configuration;
use super::table::print;
use super::{Exit, Failure, Global};

/// Longest line of a record, in bytes.
const LINE_LEN_MAX: usize = 64 * 1024;
/// Checks of a gap in the record that are made at most; beyond it the watchdog sees that the clock jumped.
const GAP_CHECKS_MAX: i64 = 1_000;

/// Arguments of `evenkeel replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// Recorded telemetry, one sample a line, as `[watchdog] record` writes it
    pub file: PathBuf,
}

#[derive(Default)]
struct Counted {
    samples: u64,
    checks: u64,
    raised: BTreeMap<String, u64>,
    actions: BTreeMap<String, u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

pub(super) fn replay(global: &Global, args: &ReplayArgs) -> Result<Exit, Failure> {
    let (config, _, playbooks) = configuration(global)?;
    let playbooks: Vec<_> = playbooks.into_iter().map(|k| k.playbook).collect();
    let (healer, policy) = (Healer::default(), config.policy());
    let mut watchdog = Watchdog::new(config.detectors(), config.watchdog.thresholds.into(), None)
        .with_follow(config.watchdog.series.clone().into());
    let interval = watchdog.config().interval_ms;
    let file = std::fs::File::open(&args.file)
        .map_err(|e| Failure::usage(format!("{}: {e}", args.file.display())))?;
    let mut reader = BufReader::new(file);
    let mut counted = Counted::default();
    let mut next: Option<Timestamp> = None;
    let mut text = String::new();
    let mut line = 0_u64;
    let tell = |at: Timestamp, verdicts: Vec<Verdict>, counted: &mut Counted| {
        for verdict in verdicts {
            match verdict {
                Verdict::Raised(anomaly) => {
                    *counted.raised.entry(anomaly.kind.to_string()).or_default() += 1;
                    let would = would(&anomaly, &playbooks);
                    if let Some(playbook) = &would {
                        *counted.actions.entry(playbook.clone()).or_default() += 1;
                    }
                    let mode = would
                        .as_deref()
                        .map(|playbook| healer.mode_of(playbook, &policy).to_string());
                    raised(global, at, &anomaly, would.as_deref(), mode.as_deref());
                }
                Verdict::Cleared { key, .. } => {
                    if global.json {
                        print(&json!({"at": at, "verdict": "cleared", "key": key}).to_string());
                    } else {
                        print(&format!("{at}  over      {key}"));
                    }
                }
                Verdict::Suppressed { key, by, .. } => {
                    if global.json {
                        print(
                            &json!({"at": at, "verdict": "suppressed", "key": key, "by": by})
                                .to_string(),
                        );
                    } else {
                        print(&format!("{at}  explained {key}, by {by}"));
                    }
                }
                Verdict::Continues { .. } => {}
            }
        }
    };
    loop {
        text.clear();
        if reader.read_line(&mut text)? == 0 {
            break;
        }
        line += 1;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |e: &str| {
            Failure::usage(format!(
                "{} line {line}: {e}; a record has one sample a line, as `[watchdog] record` writes it",
                args.file.display()
            ))
        };
        if text.len() > LINE_LEN_MAX {
            return Err(wrong("the line is too long"));
        }
        let sample: Sample = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        let due = *next.get_or_insert(sample.at.plus_millis(interval));
        if sample.at >= due {
            let behind = sample.at.millis_since(due) / interval.max(1);
            let mut at = if behind > GAP_CHECKS_MAX {
                sample.at
            } else {
                due
            };
            while sample.at >= at {
                counted.checks += 1;
                let verdicts = watchdog.check(at);
                tell(at, verdicts, &mut counted);
                at = at.plus_millis(interval);
            }
            next = Some(at);
        }
        counted.samples += 1;
        counted.first.get_or_insert(sample.at);
        counted.last = Some(sample.at);
        watchdog.observe(&sample);
    }
    if let Some(at) = next {
        counted.checks += 1;
        let verdicts = watchdog.check(at);
        tell(at, verdicts, &mut counted);
    }
    summary(global, &counted);
    Ok(Exit::Healthy)
}

/// The playbook that would be taken, where something would be done at all.
fn would(anomaly: &Anomaly, playbooks: &[evenkeel_core::playbook::Playbook]) -> Option<String> {
    if NOTE_ONLY.contains(&anomaly.kind.as_str()) {
        return None;
    }
    let scope = json!({ "anomaly": anomaly, "attempt": 1, "findings": {}, "params": {} });
    let (found, _) = select(playbooks, anomaly, &scope);
    found.map(|p| p.name.clone())
}

fn raised(
    global: &Global,
    at: Timestamp,
    anomaly: &Anomaly,
    playbook: Option<&str>,
    mode: Option<&str>,
) {
    if global.json {
        let value: Value = json!({
            "at": at, "verdict": "raised", "anomaly": anomaly, "playbook": playbook, "mode": mode,
        });
        print(&value.to_string());
        return;
    }
    let then = match (playbook, mode) {
        (Some(name), Some(mode)) => format!("{name} would be chosen (mode {mode})"),
        _ if NOTE_ONLY.contains(&anomaly.kind.as_str()) => "noted, never acted on".to_owned(),
        _ => "no playbook applies: a person would be called".to_owned(),
    };
    print(&format!(
        "{at}  {}  {}: {}\n{:26}{then}",
        anomaly.severity, anomaly.kind, anomaly.details, ""
    ));
}

fn summary(global: &Global, counted: &Counted) {
    if global.json {
        print(
            &json!({
                "samples": counted.samples, "checks": counted.checks, "raised": counted.raised,
                "playbooks": counted.actions, "from": counted.first, "to": counted.last,
            })
            .to_string(),
        );
        return;
    }
    let (Some(first), Some(last)) = (counted.first, counted.last) else {
        print("The record is empty.");
        return;
    };
    let counts = |map: &BTreeMap<String, u64>| {
        map.iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    print(&format!(
        "{} samples from {first} to {last}, {} checks; raised: {}; playbooks: {}",
        counted.samples,
        counted.checks,
        if counted.raised.is_empty() {
            "nothing".to_owned()
        } else {
            counts(&counted.raised)
        },
        if counted.actions.is_empty() {
            "none".to_owned()
        } else {
            counts(&counted.actions)
        },
    ));
}
