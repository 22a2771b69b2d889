//! `evenkeel explain CYCLE`: the whole story of one healing cycle, from the ledger alone; of an anomaly, its evidence.
//!
//! It reads entries as JSON, not as the events of this version: what a newer Evenkeel wrote is told by its name and its
//! fields. Each line bears the sequence of its entry, so that it can be proved with `evenkeel ledger prove`.

mod anomaly;
mod show;
mod story;

use evenkeel_core::Timestamp;
use evenkeel_ledger::{Entry, Query, Reader};
use serde_json::{Value, json};

use super::ledger::reader;
use super::table::print;
use super::{Exit, Failure, Global};
use crate::ui::Style;
use story::{Moment, Story};

/// The action that opens a cycle.
const START: &str = "start_healing_cycle";
/// Most cycles among which a prefix is looked for, newest first.
const CYCLES_MAX: u32 = 10_000;
/// How long before its cycle an anomaly may have been found, in milliseconds: what is older was another finding.
const FOUND_BEFORE_MS: i64 = 3_600_000;

pub(super) fn explain(global: &Global, wanted: &str) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    if let Some((entry, found)) = anomaly::find(&reader, wanted)? {
        return anomaly::show(global, &reader, &entry, &found);
    }
    let id = find(&reader, wanted)?;
    let entries = reader.query(&Query::new().payload("workflow_id", &id))?;
    let mut story = Story::of(&id, &entries).ok_or_else(|| {
        Failure::usage(format!(
            "{id} has no opening entry in this ledger; `evenkeel ledger verify` says whether something is missing"
        ))
    })?;
    around(&reader, &entries, &mut story)?;
    if global.json {
        print(&document(&story).to_string());
    } else {
        let colour = Style::detect(false) == Style::Terminal { colour: true };
        for line in show::lines(&story, super::table::terminal_width(), colour) {
            print(&line);
        }
    }
    Ok(Exit::Healthy)
}

/// The cycle that is meant: its id, what only one id begins with, or `last`.
fn find(reader: &Reader, wanted: &str) -> Result<String, Failure> {
    if wanted != "last" {
        let exact = Query::new().action(START).payload("workflow_id", wanted);
        if !reader.query(&exact.limit(1))?.is_empty() {
            return Ok(wanted.to_owned());
        }
    }
    let cycles = Query::new().action(START).newest_first().limit(CYCLES_MAX);
    let ids: Vec<String> = reader
        .query(&cycles)?
        .iter()
        .filter_map(|entry| {
            let payload = entry.payload_json().ok()?;
            payload["workflow_id"].as_str().map(str::to_owned)
        })
        .collect();
    let newest = || {
        let some: Vec<&str> = ids.iter().take(5).map(String::as_str).collect();
        format!("the newest cycles: {}", some.join(", "))
    };
    if ids.is_empty() {
        return Err(Failure::usage(
            "the ledger has no healing cycle yet: nothing had to be healed",
        ));
    }
    if wanted == "last" {
        return Ok(ids[0].clone());
    }
    let found: Vec<&String> = ids.iter().filter(|id| id.starts_with(wanted)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::usage(format!(
            "there is no healing cycle `{wanted}`; {}",
            newest()
        ))),
        many => {
            let some: Vec<&str> = many.iter().take(5).map(|id| id.as_str()).collect();
            Err(Failure::usage(format!(
                "`{wanted}` is the beginning of {} cycles: {}{}; write more of it",
                many.len(),
                some.join(", "),
                if many.len() > 5 { ", ..." } else { "" }
            )))
        }
    }
}

/// What stands around the cycle: the finding it began with, and what became of its anomaly afterwards.
fn around(reader: &Reader, entries: &[Entry], story: &mut Story) -> Result<(), Failure> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(());
    };
    let since = Timestamp::parse(&first.timestamp)
        .map(|at| at.plus_millis(-FOUND_BEFORE_MS).to_string())
        .unwrap_or_default();
    let mut before = Query::new()
        .action("anomaly_detected")
        .resource(first.resource.as_str())
        .before(first.sequence)
        .newest_first()
        .limit(1);
    if !since.is_empty() {
        before = before.since(since);
    }
    if let Some(found) = reader.query(&before)?.first() {
        story.found(found);
    }
    if !story.key.is_empty() {
        let cleared = Query::new()
            .action(evenkeel_core::record::ANOMALY_CLEARED)
            .resource(story.key.as_str())
            .after(last.sequence)
            .limit(1);
        if let Some(entry) = reader.query(&cleared)?.first() {
            story.cleared(entry);
        }
    }
    let again = Query::new()
        .action(START)
        .payload("recurrence_of", &story.workflow_id)
        .after(last.sequence)
        .limit(1);
    if let Some(entry) = reader.query(&again)?.first() {
        story.came_back(entry);
    }
    Ok(())
}

/// The story as one document.
fn document(story: &Story) -> Value {
    let whole = |moment: &Moment| {
        let entry = &moment.entry;
        json!({
            "sequence": entry.sequence,
            "timestamp": entry.timestamp,
            "after_ms": moment.after_ms,
            "section": moment.section,
            "event": moment.event,
            "mark": moment.mark,
            "title": moment.title,
            "lines": moment.lines,
            "action": entry.action,
            "result": entry.result,
            "entry_hash": entry.entry_hash.to_string(),
            "payload": entry.payload_json().ok(),
        })
    };
    json!({
        "workflow_id": story.workflow_id,
        "anomaly": story.anomaly,
        "trigger": story.trigger,
        "opened_at": story.opened_at,
        "closed_at": story.closed_at,
        "ended": story.ended,
        "summary": story.summary,
        "duration_ms": story.duration_ms,
        "attempts": story.attempts,
        "timeline": story.moments.iter().map(whole).collect::<Vec<_>>(),
    })
}
