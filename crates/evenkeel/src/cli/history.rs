//! `evenkeel history|escalations|report`: what happened, read from the ledger.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use evenkeel_core::healer::NOTE_ONLY;
use evenkeel_core::record::{COMPLETE_HEALING_CYCLE, COMPLETE_PLAYBOOK_RUN};
use evenkeel_ledger::{Entry, Query, Reader};
use serde_json::{Value, json};

use super::ledger::reader;
use super::table::{print, table};
use super::{Exit, Failure, Global, ResultFilter, SpanMillis};

pub(super) fn history(
    global: &Global,
    result: Option<ResultFilter>,
    limit: u32,
) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    let mut query = Query::new()
        .action(COMPLETE_HEALING_CYCLE)
        .newest_first()
        .limit(limit);
    query = match result {
        Some(ResultFilter::Success) => query.result("success"),
        Some(ResultFilter::Failed) => query.result("failed"),
        None => query,
    };
    let entries = reader.query(&query)?;
    let mitigated = mitigated(&reader)?;
    if global.json {
        for entry in &entries {
            let mut value = with_payload(entry);
            let workflow = value["payload"]["workflow_id"].as_str().unwrap_or("");
            if let Some(by) = mitigated.get(workflow) {
                value["mitigated_only"] = json!(by);
            }
            print(&value.to_string());
        }
        return Ok(Exit::Healthy);
    }
    if entries.is_empty() {
        print("No healing cycles.");
        return Ok(Exit::Healthy);
    }
    let mut t = table([
        "seq", "when", "anomaly", "subject", "playbook", "attempts", "ended", "what",
    ]);
    for entry in &entries {
        let p = entry.payload_json().unwrap_or(Value::Null);
        t.add_row([
            entry.sequence.to_string(),
            entry.timestamp.clone(),
            text(&p["anomaly"]["type"]),
            entry.resource.clone(),
            text(&p["playbook"]),
            p["attempts"].as_array().map_or(0, Vec::len).to_string(),
            match mitigated.get(p["workflow_id"].as_str().unwrap_or("")) {
                Some(by) => format!("mitigated (it came back: {by})"),
                None => text(&p["ended"]),
            },
            text(&p["verification"]["improvement"]),
        ]);
    }
    print(&t.to_string());
    Ok(Exit::Healthy)
}

/// Cycles whose fix did not last, each with the cycle that showed it: resolved is what lasts, mitigated what does not.
fn mitigated(reader: &Reader) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    let query = Query::new().action("start_healing_cycle");
    let flow = reader.for_each(&query, |entry| {
        let p = entry.payload_json().unwrap_or(Value::Null);
        if let Some(of) = p["recurrence_of"].as_str() {
            found.insert(of.to_owned(), text(&p["workflow_id"]));
        }
        std::ops::ControlFlow::<()>::Continue(())
    })?;
    debug_assert!(flow.is_continue());
    Ok(found)
}

pub(super) fn escalations(global: &Global) -> Result<Exit, Failure> {
    let (layout, reader) = reader(global)?;
    let mut entries = reader.query(
        &Query::new()
            .action("ask_advisor")
            .newest_first()
            .limit(1000),
    )?;
    let alerts = reader.query(
        &Query::new()
            .action("alert_human")
            .newest_first()
            .limit(1000),
    )?;
    entries.extend(alerts);
    entries.sort_by_key(|e| std::cmp::Reverse(e.sequence));
    if global.json {
        for entry in &entries {
            print(&with_payload(entry).to_string());
        }
        return Ok(Exit::Healthy);
    }
    if entries.is_empty() {
        print("No escalations: no advisor was asked and nobody was alerted.");
        return Ok(Exit::Healthy);
    }
    let mut t = table(["seq", "when", "to", "subject", "result", "answer"]);
    for entry in &entries {
        let p = entry.payload_json().unwrap_or(Value::Null);
        let (to, answer) = if entry.action == "alert_human" {
            ("a person".to_owned(), text(&p["alert"]["file"]))
        } else if entry.result == "success" {
            let a = &p["advice"];
            (
                text(&a["advisor"]),
                format!(
                    "{} (confidence {}): {}",
                    text(&a["suggested_action"]),
                    a["confidence"],
                    text(&a["reasoning"])
                ),
            )
        } else {
            (text(&p["advisor"]), text(&p["reason"]))
        };
        t.add_row([
            entry.sequence.to_string(),
            entry.timestamp.clone(),
            to,
            entry.resource.clone(),
            entry.result.clone(),
            answer,
        ]);
    }
    print(&t.to_string());
    print(&format!(
        "Answers are kept in {}",
        layout.guidance().display()
    ));
    Ok(Exit::Healthy)
}

/// What one week or month adds up to.
#[derive(Default)]
struct Sum {
    anomalies: u64,
    healed: u64,
    mitigated: u64,
    shadow: u64,
    with_advice: u64,
    alerted: u64,
    runs: u64,
    runs_failed: u64,
    heal_ms: Vec<i64>,
}

pub(super) fn report(global: &Global, since: SpanMillis) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    let from = crate::clock::now().plus_millis(-since.0);
    let mut sums: BTreeMap<(&'static str, String), Sum> = BTreeMap::new();
    let mitigated = mitigated(&reader)?;
    let mut alarms = Alarms::default();
    // What shadow mode would have run, and how often.
    let mut would: BTreeMap<String, u64> = BTreeMap::new();
    for action in [
        COMPLETE_HEALING_CYCLE,
        COMPLETE_PLAYBOOK_RUN,
        "anomaly_detected",
    ] {
        let query = Query::new().action(action).since(from.to_string());
        let flow = reader.for_each(&query, |entry| {
            if entry.action == "anomaly_detected" {
                let p = entry.payload_json().unwrap_or(Value::Null);
                alarms.add(&p["anomaly"]);
            }
            for period in periods(&entry.timestamp) {
                add(sums.entry(period).or_default(), &entry, &mitigated);
            }
            if entry.action == COMPLETE_HEALING_CYCLE && entry.result == "skipped" {
                let p = entry.payload_json().unwrap_or(Value::Null);
                *would.entry(text(&p["playbook"])).or_default() += 1;
            }
            std::ops::ControlFlow::<()>::Continue(())
        })?;
        debug_assert!(flow.is_continue());
    }
    let nominal = super::check::configuration(global)
        .ok()
        .map(|(config, _, _)| config.watchdog.series);
    if global.json {
        let rows: Vec<Value> = sums
            .iter()
            .map(|((kind, period), s)| row_json(kind, period, s))
            .collect();
        print(
            &json!({
                "since": from, "periods": rows, "shadow_would_have_run": would,
                "alarms": {
                    "series": alarms.series, "series_strong": alarms.strong, "limits": alarms.limits,
                    "by_chance_a_month": nominal.as_ref().map(|s| json!({
                        "series": s.notify_alarms_per_month, "series_strong": s.heal_alarms_per_month,
                    })),
                },
            })
            .to_string(),
        );
        return Ok(Exit::Healthy);
    }
    if sums.is_empty() {
        print(&format!("Nothing happened since {from}."));
        return Ok(Exit::Healthy);
    }
    let mut t = table([
        "period",
        "anomalies",
        "resolved",
        "mitigated",
        "with advice",
        "people alerted",
        "shadow",
        "playbook runs",
        "median time to heal",
    ]);
    for ((_, period), s) in &sums {
        t.add_row([
            period.clone(),
            s.anomalies.to_string(),
            s.healed.saturating_sub(s.mitigated).to_string(),
            s.mitigated.to_string(),
            s.with_advice.to_string(),
            s.alerted.to_string(),
            s.shadow.to_string(),
            format!("{} ({} failed)", s.runs, s.runs_failed),
            median(&s.heal_ms).map_or_else(
                || "-".to_owned(),
                |ms| format!("{:.1} s", ms as f64 / 1000.0),
            ),
        ]);
    }
    print(&t.to_string());
    let months = since.0 as f64 / (30.0 * 86_400_000.0);
    let by_chance = |a_month: Option<f64>| {
        a_month.map_or_else(String::new, |a| {
            format!(" (by chance at most {:.1})", a * months)
        })
    };
    print(&format!(
        "Alarms of followed series: {}{}, strong enough to act on: {}{}; of fixed limits and liveness: {}",
        alarms.series,
        by_chance(nominal.as_ref().map(|s| s.notify_alarms_per_month)),
        alarms.strong,
        by_chance(nominal.as_ref().map(|s| s.heal_alarms_per_month)),
        alarms.limits
    ));
    for (playbook, times) in &would {
        print(&format!(
            "Shadow mode: {playbook} would have been run {times} time(s)"
        ));
    }
    Ok(Exit::Healthy)
}

/// What the checks of the watchdog found.
#[derive(Default)]
struct Alarms {
    /// In followed series, which have a budget.
    series: u64,
    /// Of these, strong enough to act on when they were found.
    strong: u64,
    /// By fixed limits and liveness.
    limits: u64,
}

impl Alarms {
    fn add(&mut self, anomaly: &Value) {
        if !anomaly["test"].is_null() {
            return;
        }
        let context = &anomaly["context"];
        if context.get("together_with").is_some() {
            self.series += 1;
            self.strong += u64::from(context["strong"] == true);
        } else if !NOTE_ONLY.contains(&text(&anomaly["type"]).as_str()) {
            self.limits += 1;
        }
    }
}

fn add(sum: &mut Sum, entry: &Entry, mitigated: &BTreeMap<String, String>) {
    match entry.action.as_str() {
        COMPLETE_HEALING_CYCLE => {
            let p = entry.payload_json().unwrap_or(Value::Null);
            match p["ended"].as_str() {
                Some("resolved_with_advice") => {
                    sum.healed += 1;
                    sum.with_advice += 1;
                }
                Some("resolved") => sum.healed += 1,
                Some("human_alert" | "stuck") => sum.alerted += 1,
                Some("shadow") => sum.shadow += 1,
                _ => {}
            }
            let workflow = p["workflow_id"].as_str().unwrap_or("");
            sum.mitigated += u64::from(mitigated.contains_key(workflow));
            if entry.result == "success"
                && let Some(ms) = p["duration_ms"].as_i64()
            {
                sum.heal_ms.push(ms);
            }
        }
        COMPLETE_PLAYBOOK_RUN => {
            sum.runs += 1;
            sum.runs_failed += u64::from(entry.result != "success");
        }
        _ => sum.anomalies += 1,
    }
}

fn row_json(kind: &str, period: &str, s: &Sum) -> Value {
    json!({
        "kind": kind, "period": period, "anomalies": s.anomalies, "healed": s.healed,
        "resolved": s.healed.saturating_sub(s.mitigated), "mitigated": s.mitigated, "shadow": s.shadow,
        "healed_with_advice": s.with_advice, "people_alerted": s.alerted,
        "playbook_runs": s.runs, "playbook_runs_failed": s.runs_failed,
        "median_time_to_heal_ms": median(&s.heal_ms),
    })
}

/// The ISO week and the month of a time.
fn periods(timestamp: &str) -> Vec<(&'static str, String)> {
    let Ok(at) = Timestamp::parse(timestamp) else {
        return Vec::new();
    };
    let Ok(t) = jiff::Timestamp::from_millisecond(at.as_millis()) else {
        return Vec::new();
    };
    vec![
        ("week", t.strftime("week %G-W%V").to_string()),
        ("month", t.strftime("month %Y-%m").to_string()),
    ]
}

fn median(values: &[i64]) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn with_payload(entry: &Entry) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or(Value::Null);
    value["payload"] = entry.payload_json().unwrap_or(Value::Null);
    value
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
