//! One entry in words. Events that are not known here are told by their name and their fields.

use evenkeel_core::anomaly::format_measure;
use serde_json::{Map, Value};

use super::{Mark, text};

/// Longest text of a field, in characters.
const FIELD_LEN_MAX: usize = 300;
/// Most fields of an event that is not known here, and most items of a list.
const FIELDS_MAX: usize = 16;

/// What is said about an entry.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) mark: Mark,
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// Tells an entry of a cycle.
pub(super) fn entry(event: &str, result: &str, p: &Value) -> Told {
    let mut told = known(event, p).unwrap_or_else(|| Told {
        mark: Mark::Note,
        title: event.replace('_', " "),
        lines: fields(p),
    });
    told.mark = match (told.mark, result) {
        (Mark::Act, _) | (_, "started") => Mark::Act,
        (_, "success") => Mark::Ok,
        (_, "failed") => Mark::Fail,
        (_, "skipped") => Mark::Skip,
        (mark, _) => mark,
    };
    told.title = plain(&told.title);
    for line in &mut told.lines {
        *line = plain(line);
    }
    told
}

fn known(event: &str, p: &Value) -> Option<Told> {
    let (title, lines) = match event {
        "opened" => opened(p),
        "snapshot_taken" => (
            format!("snapshot {}", text(&p["snapshot"]["id"])),
            vec![size(&p["snapshot"])],
        ),
        "snapshot_failed" => (
            "no snapshot, so nothing may be changed".to_owned(),
            vec![text(&p["error"])],
        ),
        "playbook_selected" => selected(p),
        "no_playbook" => ("no playbook applies".to_owned(), vec![text(&p["reason"])]),
        "step_prepared" => {
            let lines = undo(&p["prepared"]["undo"]);
            let title = format!("{}: {}", step(p), text(&p["prepared"]["summary"]));
            return Some(Told {
                mark: Mark::Act,
                title,
                lines,
            });
        }
        "step_skipped" => (format!("{} left out", step(p)), vec![text(&p["reason"])]),
        "step_refused" => (
            format!("{} cannot be made ready; nothing was done", step(p)),
            vec![text(&p["error"])],
        ),
        "step_finished" => finished(p),
        "verified" => verified(&p["verification"]),
        "settled" => (
            if p["stayed_normal"] == true {
                "the signal stayed normal".to_owned()
            } else {
                "the signal did not stay normal".to_owned()
            },
            vec![text(&p["details"])],
        ),
        "rolled_back" => rolled_back(&p["outcome"]),
        "run_concluded" => (
            format!(
                "attempt {}: {} with {}, {}",
                text(&p["attempt"]),
                text(&p["verdict"]),
                text(&p["playbook"]),
                took(&p["duration_ms"])
            ),
            Vec::new(),
        ),
        "retry_due" => (
            if p["still_there"] == true {
                "looked again after the wait: still there".to_owned()
            } else {
                "looked again after the wait: gone".to_owned()
            },
            vec![text(&p["details"])],
        ),
        "advised" => advised(&p["advice"]),
        "advice_failed" => (
            format!("{} gave nothing that can be used", text(&p["advisor"])),
            vec![text(&p["reason"])],
        ),
        "alerted" => alerted(&p["alert"]),
        "closed" => (
            format!("ended: {}", text(&p["ended"]).replace('_', " ")),
            vec![text(&p["summary"])],
        ),
        "parked" => (
            format!(
                "Evenkeel stopped; the cycle was put aside{}",
                if p["interrupted"] == true {
                    " in the middle of a step"
                } else {
                    ""
                }
            ),
            Vec::new(),
        ),
        "resumed" => (
            if p["after_crash"] == true {
                "Evenkeel is back after a crash; what was under way has an unknown outcome"
                    .to_owned()
            } else {
                "Evenkeel is back; the cycle goes on".to_owned()
            },
            Vec::new(),
        ),
        _ => return None,
    };
    let lines = lines.into_iter().filter(|l| !l.is_empty()).collect();
    Some(Told {
        mark: Mark::Note,
        title,
        lines,
    })
}

fn opened(p: &Value) -> (String, Vec<String>) {
    let by = match p["trigger"].as_str() {
        Some("post_boot") => "the stress test after boot",
        Some("watchdog") => "the watchdog",
        Some("operator") => "a person's order",
        Some(other) => other,
        None => "nobody known",
    };
    let a = &p["anomaly"];
    let unit = a["unit"].as_str().unwrap_or("");
    let measure = |key: &str| a[key].as_f64().map(|v| format_measure(v, unit));
    let mut lines = Vec::new();
    if let (Some(current), Some(limit)) = (measure("current"), measure("threshold"))
        && a["threshold"].as_f64() != a["current"].as_f64()
    {
        let healthy = measure("baseline").map_or_else(String::new, |b| format!(", healthy {b}"));
        lines.push(format!("measured {current}, limit {limit}{healthy}"));
    }
    let rules = &p["rules"];
    if rules.is_object() {
        lines.push(format!(
            "rules: at most {} failed attempts, then {} advisor(s); re-tests settle for {}",
            text(&rules["max_attempts"]),
            text(&rules["advisors"]),
            took(&rules["settle_ms"])
        ));
    }
    if p["prior_attempts"].as_u64().unwrap_or(0) > 0 {
        lines.push(format!(
            "{} failed attempt(s) for {} came before",
            text(&p["prior_attempts"]),
            text(&a["type"])
        ));
    }
    if let Some(earlier) = p["recurrence_of"].as_str() {
        lines.push(format!("it came back: the fix of {earlier} did not last"));
    }
    if p["plan"].is_object() {
        lines.push(format!("a person chose the plan: {}", plan(&p["plan"])));
    }
    (format!("opened by {by}"), lines)
}

fn selected(p: &Value) -> (String, Vec<String>) {
    let plan_value = &p["plan"];
    let by = match plan_value["chosen_by"].as_str() {
        Some("mapping") => "as the first that applies",
        Some("operator") => "by a person",
        Some("advisor") => "by an advisor",
        _ => "",
    };
    let mut lines = vec![plan(plan_value)];
    lines.extend(list(&p["passed_over"], "passed over: "));
    (
        format!("playbook {} chosen {by}", text(&plan_value["playbook"])),
        lines,
    )
}

/// A plan in one line.
fn plan(plan: &Value) -> String {
    let steps: Vec<String> = items(&plan["steps"]).map(|s| text(&s["id"])).collect();
    let params: Vec<String> = plan["params"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", text(v)))
        .collect();
    let mut out = format!(
        "{}, risk {}; steps: {}",
        text(&plan["tier"]),
        text(&plan["risk"]),
        steps.join(", ")
    );
    if !params.is_empty() {
        out.push_str("; ");
        out.push_str(&params.join(", "));
    }
    out
}

fn finished(p: &Value) -> (String, Vec<String>) {
    let o = &p["outcome"];
    let verb = if o["ok"] == true { "done" } else { "failed" };
    let title = format!("{} {verb} in {}", step(p), took(&o["duration_ms"]));
    let mut lines = vec![text(&o["message"])];
    if let Some(findings) = o["findings"].as_object() {
        let found: Vec<String> = findings
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| format!("{k} {}", short(v)))
            .collect();
        if !found.is_empty() {
            lines.push(format!("found: {}", found.join("; ")));
        }
    }
    (title, lines)
}

fn verified(v: &Value) -> (String, Vec<String>) {
    let how = match v["verification_method"].as_str() {
        Some("stress_test_rerun") => format!("the test {} again", text(&v["subject"])),
        Some("monitor_window") => format!("{} over fresh samples", text(&v["subject"])),
        Some("readiness") => "readiness".to_owned(),
        other => format!("{} {}", other.unwrap_or("check"), text(&v["subject"])),
    };
    let verdict = if v["inconclusive"] == true {
        "inconclusive, which counts as failed"
    } else if v["passed"] == true {
        "passed"
    } else {
        "failed"
    };
    let mut lines = vec![text(&v["improvement"]), text(&v["details"])];
    lines.dedup();
    (
        format!("verified by {how}: {verdict} ({})", took(&v["duration_ms"])),
        lines,
    )
}

fn rolled_back(o: &Value) -> (String, Vec<String>) {
    let mut lines: Vec<String> = list(&o["restored"], "put back: ");
    let good = o["ok"] == true;
    if lines.is_empty() && good {
        lines.push("nothing had been changed that needs to be put back".to_owned());
    }
    lines.extend(list(&o["errors"], "not put back: "));
    let title = if good {
        "taken back: the target is as it was before the attempt"
    } else {
        "the rollback failed: the target is neither as it was nor healed"
    };
    (title.to_owned(), lines)
}

fn advised(a: &Value) -> (String, Vec<String>) {
    let lines = vec![
        text(&a["reasoning"]),
        plan(&a["plan"]),
        a["guidance_file"]
            .as_str()
            .map_or_else(String::new, |f| format!("kept in {f}")),
    ];
    (
        format!(
            "{} advises {} (confidence {})",
            text(&a["advisor"]),
            text(&a["suggested_action"]),
            text(&a["confidence"])
        ),
        lines,
    )
}

fn alerted(a: &Value) -> (String, Vec<String>) {
    let to: Vec<String> = items(&a["delivered"]).map(text).collect();
    let title = if to.is_empty() {
        "a person was to be alerted, and no channel took it".to_owned()
    } else {
        format!("a person was alerted, by {}", to.join(", "))
    };
    let mut lines = vec![text(&a["file"])];
    lines.extend(list(&a["failed"], "failed: "));
    (title, lines)
}

/// `step cap`.
fn step(p: &Value) -> String {
    match p["step_id"].as_str() {
        Some(id) => format!("step {id}"),
        None => format!("step {}", text(&p["step"])),
    }
}

/// What takes a step back, one line for each operation.
fn undo(ops: &Value) -> Vec<String> {
    items(ops)
        .map(|op| match op["kind"].as_str() {
            Some("restore_keys") => {
                let keys: Vec<String> = items(&op["keys"])
                    .map(|k| {
                        let before = if k["before"].is_null() {
                            "absent".to_owned()
                        } else {
                            short(&k["before"])
                        };
                        format!("{} (now {before})", text(&k["key"]))
                    })
                    .collect();
                format!(
                    "undo: put {} back in {}",
                    keys.join(", "),
                    text(&op["file"])
                )
            }
            Some("start_services") => format!("undo: start {}", words(&op["services"])),
            Some("restart_services") => format!("undo: restart {}", words(&op["services"])),
            Some("sql") => format!("undo: run SQL: {}", text(&op["statement"])),
            Some("command") => format!("undo: run `{}`", words(&op["argv"]).replace(", ", " ")),
            _ => format!("undo: {}", short(op)),
        })
        .collect()
}

/// The fields of an event, beside those that every event has.
fn fields(p: &Value) -> Vec<String> {
    const EVERYWHERE: [&str; 4] = ["workflow_id", "at", "event", "run_id"];
    let none = Map::new();
    let map = p.as_object().unwrap_or(&none);
    map.iter()
        .filter(|(k, v)| !EVERYWHERE.contains(&k.as_str()) && !v.is_null())
        .take(FIELDS_MAX)
        .map(|(k, v)| format!("{}: {}", k.replace('_', " "), short(v)))
        .collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten().take(FIELDS_MAX)
}

fn list(value: &Value, before: &str) -> Vec<String> {
    items(value)
        .map(|v| format!("{before}{}", text(v)))
        .collect()
}

fn words(value: &Value) -> String {
    let mut all: Vec<String> = items(value).map(text).collect();
    // The same line of a log twenty times is one line to a reader.
    all.dedup();
    all.join(", ")
}

/// A value in one bounded line; a list of texts without its brackets.
fn short(value: &Value) -> String {
    let whole = match value.as_array() {
        Some(all) if all.iter().all(Value::is_string) => words(value),
        _ => text(value),
    };
    let cut: String = whole.chars().take(FIELD_LEN_MAX).collect();
    if cut.len() < whole.len() {
        format!("{cut}...")
    } else {
        cut
    }
}

fn size(snapshot: &Value) -> String {
    let bytes = snapshot["bytes"].as_f64();
    let files = text(&snapshot["files"]);
    match bytes {
        None => String::new(),
        Some(b) if b >= 1_048_576.0 => format!("{files} files, {:.1} MB", b / 1_048_576.0),
        Some(b) => format!("{files} files, {:.1} kB", b / 1024.0),
    }
}

/// Milliseconds as people write them.
fn took(value: &Value) -> String {
    let ms = value.as_u64().unwrap_or(0);
    if ms < 1_000 {
        format!("{ms} ms")
    } else {
        format!("{:.1} s", ms as f64 / 1_000.0)
    }
}

/// One line without control characters: what a program printed does not draw on the terminal of the reader.
pub(in super::super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
