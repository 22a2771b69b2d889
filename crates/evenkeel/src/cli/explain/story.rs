//! A cycle's entries told as moments: what happened, what was decided and why, and what it changed. Pure.

use evenkeel_core::Timestamp;
use evenkeel_ledger::Entry;
use serde::Serialize;
use serde_json::Value;

mod tell;

pub(super) use tell::plain;

/// How a moment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// It went well.
    Ok,
    /// It did not.
    Fail,
    /// Something is about to be done: the intent, written before the act.
    Act,
    /// Left out, on purpose.
    Skip,
    /// Something to know.
    Note,
}

/// One entry, told.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// The entry.
    pub(super) entry: Entry,
    /// Milliseconds since the opening; negative before it.
    pub(super) after_ms: i64,
    /// The part of the story that it belongs to: `Attempt 1`.
    pub(super) section: String,
    /// Name of the event, as the entry has it.
    pub(super) event: String,
    /// How it went.
    pub(super) mark: Mark,
    /// What happened.
    pub(super) title: String,
    /// More about it.
    pub(super) lines: Vec<String>,
}

/// One cycle.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) workflow_id: String,
    /// As the opening entry has it.
    pub(super) anomaly: Value,
    /// The anomaly's key: type and place.
    pub(super) key: String,
    /// Who found it.
    pub(super) trigger: String,
    pub(super) opened_at: String,
    /// None while it is open.
    pub(super) closed_at: Option<String>,
    /// `resolved`, `human_alert`, ...; none while it is open.
    pub(super) ended: Option<String>,
    /// The closing entry's sentence.
    pub(super) summary: Option<String>,
    /// To the last entry, in milliseconds.
    pub(super) duration_ms: i64,
    /// How many attempts began.
    pub(super) attempts: u64,
    pub(super) moments: Vec<Moment>,
}

/// The section of what is found before and after.
const AFTERWARDS: &str = "Afterwards";

impl Story {
    /// Tells the entries of one cycle, oldest first; `None` when its opening is not among them.
    pub(super) fn of(id: &str, entries: &[Entry]) -> Option<Self> {
        let opening = entries.iter().find(|e| payload(e)["event"] == "opened")?;
        let opened = payload(opening);
        let begin = time(&opening.timestamp);
        let last = entries.last().map_or(begin, |e| time(&e.timestamp));
        let mut story = Self {
            workflow_id: id.to_owned(),
            key: key(&opened["anomaly"]),
            anomaly: opened["anomaly"].clone(),
            trigger: text(&opened["trigger"]),
            opened_at: opening.timestamp.clone(),
            closed_at: None,
            ended: None,
            summary: None,
            duration_ms: last - begin,
            attempts: 0,
            moments: Vec::new(),
        };
        let mut section = "Opening".to_owned();
        let mut concluded = true;
        for entry in entries {
            let p = payload(entry);
            let event = p["event"]
                .as_str()
                .map_or_else(|| entry.action.clone(), str::to_owned);
            if let Some(run) = run_number(&p).filter(|run| *run > story.attempts) {
                story.attempts = run;
                concluded = false;
                section = format!("Attempt {run}");
            }
            match event.as_str() {
                // An attempt begins with its snapshot. One that is taken again after a crash begins no other.
                "snapshot_taken" | "snapshot_failed" if concluded => {
                    section = format!("Attempt {}", story.attempts + 1);
                }
                "run_concluded" => concluded = true,
                "advised" | "advice_failed" => "Advice".clone_into(&mut section),
                "alerted" | "closed" => "End".clone_into(&mut section),
                _ => {}
            }
            if event == "closed" {
                story.closed_at = Some(entry.timestamp.clone());
                story.ended = Some(text(&p["ended"]));
                story.summary = p["summary"].as_str().map(str::to_owned);
            }
            let told = tell::entry(&event, &entry.result, &p);
            story.push(entry, &section, event, told);
        }
        Some(story)
    }

    /// The finding that the cycle began with.
    pub(super) fn found(&mut self, entry: &Entry) {
        let a = &payload(entry)["anomaly"];
        let told = tell::Told {
            mark: Mark::Note,
            title: format!(
                "{} found {}: {}",
                entry.actor.replace('_', " "),
                text(&a["type"]).replace('_', " "),
                text(&a["details"])
            ),
            lines: Vec::new(),
        };
        self.push(entry, "Opening", "anomaly_detected".into(), told);
        self.moments.sort_by_key(|m| m.entry.sequence);
    }

    /// Its anomaly was seen to be gone.
    pub(super) fn cleared(&mut self, entry: &Entry) {
        let how = if payload(entry)["verified"] == true {
            "the test that had failed passes"
        } else {
            "the signal is normal again"
        };
        let told = tell::Told {
            mark: Mark::Note,
            title: format!("the anomaly is gone: {how}"),
            lines: Vec::new(),
        };
        self.push(entry, AFTERWARDS, "anomaly_cleared".into(), told);
    }

    /// Its anomaly came back.
    pub(super) fn came_back(&mut self, entry: &Entry) {
        let told = tell::Told {
            mark: Mark::Fail,
            title: format!(
                "the same anomaly came back, so the fix did not last: {}",
                text(&payload(entry)["workflow_id"])
            ),
            lines: Vec::new(),
        };
        self.push(entry, AFTERWARDS, "opened".into(), told);
    }

    fn push(&mut self, entry: &Entry, section: &str, event: String, told: tell::Told) {
        self.moments.push(Moment {
            entry: entry.clone(),
            after_ms: time(&entry.timestamp) - time(&self.opened_at),
            section: section.to_owned(),
            event,
            mark: told.mark,
            title: told.title,
            lines: told.lines,
        });
    }
}

fn payload(entry: &Entry) -> Value {
    entry.payload_json().unwrap_or(Value::Null)
}

/// Milliseconds; 0 where the text is no time, which the ledger's own checks do not let in.
fn time(text: &str) -> i64 {
    Timestamp::parse(text).map_or(0, Timestamp::as_millis)
}

/// The number of the attempt in `run_id`, which is `<workflow_id>/<attempt>`.
fn run_number(payload: &Value) -> Option<u64> {
    payload["run_id"].as_str()?.rsplit_once('/')?.1.parse().ok()
}

/// As the core makes it: type and place.
fn key(anomaly: &Value) -> String {
    let place = ["test", "series", "service"]
        .iter()
        .find_map(|k| anomaly[*k].as_str())
        .unwrap_or("");
    match anomaly["type"].as_str() {
        Some(kind) => format!("{kind}/{place}"),
        None => String::new(),
    }
}

/// A value as one word or line; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Entries as a ledger returns them.
    fn entries(payloads: &[Value]) -> Vec<Entry> {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ledger = evenkeel_ledger::Ledger::open(dir.path().join("l.db")).unwrap();
            let mut out = Vec::new();
            for (n, payload) in payloads.iter().enumerate() {
                let entry = ledger.append(evenkeel_ledger::NewEntry {
                    timestamp: Timestamp::from_millis(
                        1_800_000_000_000 + i64::try_from(n).unwrap() * 1500,
                    )
                    .to_string(),
                    actor: "a".into(),
                    action: "did_something".into(),
                    resource: "r".into(),
                    subsystem: "orchestrator".into(),
                    payload: payload.to_string(),
                    result: "noted".into(),
                });
                out.push(entry.await.unwrap());
            }
            out
        })
    }

    #[test]
    fn what_a_newer_version_wrote_is_told_by_name_and_fields() {
        let all = entries(&[
            json!({"workflow_id": "w", "event": "opened", "trigger": "watchdog",
                   "anomaly": {"type": "memory_growth", "series": "memory/api", "current": 120.0, "threshold": 100.0,
                               "unit": "MB/h", "severity": "high", "details": "it grows"}}),
            json!({"workflow_id": "w", "event": "approval_requested", "at": "x", "run_id": "w/1",
                   "plan_hash": "ab12", "expires_in_s": 900, "by": {"socket": true}}),
        ]);
        let story = Story::of("w", &all).unwrap();
        assert_eq!(story.key, "memory_growth/memory/api");
        assert!(story.ended.is_none(), "it is still open");
        let told = &story.moments[1];
        assert_eq!(
            (told.after_ms, told.title.as_str()),
            (1500, "approval requested")
        );
        assert_eq!(
            told.lines,
            [
                "plan hash: ab12",
                "expires in s: 900",
                "by: {\"socket\":true}"
            ]
        );
    }

    #[test]
    fn without_its_opening_there_is_no_story() {
        let all = entries(&[json!({"workflow_id": "w", "event": "settled"})]);
        assert!(Story::of("w", &all).is_none());
    }

    #[test]
    fn attempts_are_sections() {
        let all = entries(&[
            json!({"event": "opened", "anomaly": {"type": "x"}}),
            json!({"event": "snapshot_taken", "snapshot": {"id": "s1", "files": 2, "bytes": 2048}}),
            json!({"event": "playbook_selected", "run_id": "w/1", "plan": {"playbook": "p"}}),
            json!({"event": "run_concluded", "run_id": "w/1", "verdict": "failed"}),
            json!({"event": "snapshot_taken", "run_id": "w/1", "snapshot": {"id": "s2"}}),
            json!({"event": "closed", "ended": "human_alert", "summary": "no"}),
        ]);
        let story = Story::of("w", &all).unwrap();
        let sections: Vec<&str> = story.moments.iter().map(|m| m.section.as_str()).collect();
        assert_eq!(
            sections,
            [
                "Opening",
                "Attempt 1",
                "Attempt 1",
                "Attempt 1",
                "Attempt 2",
                "End"
            ]
        );
        assert_eq!(story.moments[1].lines, ["2 files, 2.0 kB"]);
    }
}
