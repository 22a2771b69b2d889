//! Writing to the ledger: every entry of Evenkeel passes here, without secrets, and stands in the log too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::record::{self, Record};
use evenkeel_core::redact::Redactor;
use evenkeel_ledger::{Entry, Ledger, LedgerError, NewEntry};
use serde_json::Value;
use tokio::time::Instant;

/// Subsystems whose entries are Evenkeel's own and never count as the target's errors.
pub const OWN_SUBSYSTEMS: [&str; 7] = [
    record::SUBSYSTEM,
    "watchdog",
    "stress_test",
    "boot",
    "escalation",
    "evenkeel",
    "ledger",
];
/// Actors that are Evenkeel itself.
pub const OWN_ACTORS: [&str; 5] = [
    record::ACTOR,
    "anomaly_watchdog",
    "stress_tester",
    "evenkeel",
    "ledger",
];

/// Largest payload that is written whole, in bytes; beyond it long texts are cut.
const PAYLOAD_LEN_MAX: usize = 512 * 1024;

/// The way to the ledger.
#[derive(Clone)]
pub struct Journal {
    ledger: Ledger,
    redactor: Arc<Redactor>,
    writing: Arc<Mutex<Writing>>,
}

/// Entries that are being written, by a number of their own: since when.
#[derive(Debug, Default)]
struct Writing {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// Stands for an entry while it is being written, whoever gives up waiting for it.
pub(crate) struct UnderWay<'a> {
    journal: &'a Journal,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.journal.writing().since.remove(&self.number);
    }
}

impl Journal {
    /// Writes to `ledger`.
    pub fn new(ledger: Ledger, redactor: Arc<Redactor>) -> Self {
        Self {
            ledger,
            redactor,
            writing: Arc::default(),
        }
    }

    /// For how long the oldest entry that is being written has been waited for; zero when none is.
    pub fn waiting(&self) -> Duration {
        let writing = self.writing();
        let oldest = writing.since.values().next();
        oldest.map_or(Duration::ZERO, Instant::elapsed)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn under_way(&self) -> UnderWay<'_> {
        let mut writing = self.writing();
        let number = writing.next;
        writing.next += 1;
        writing.since.insert(number, Instant::now());
        UnderWay {
            journal: self,
            number,
        }
    }

    /// The ledger itself.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What keeps secrets out.
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Writes an entry of a cycle; ready when it is durable.
    pub async fn record(&self, record: &Record) -> Result<Entry, LedgerError> {
        self.append(
            record::ACTOR,
            record.action,
            &record.resource,
            record::SUBSYSTEM,
            &record.payload,
            record.result,
            record.at,
        )
        .await
    }

    /// Writes an entry that belongs to no cycle.
    pub async fn note(
        &self,
        actor: &str,
        subsystem: &str,
        action: &str,
        resource: &str,
        payload: &Value,
        result: &str,
    ) -> Result<Entry, LedgerError> {
        self.append(
            actor,
            action,
            resource,
            subsystem,
            payload,
            result,
            crate::clock::now(),
        )
        .await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "these are the columns of an entry"
    )]
    async fn append(
        &self,
        actor: &str,
        action: &str,
        resource: &str,
        subsystem: &str,
        payload: &Value,
        result: &str,
        at: evenkeel_core::Timestamp,
    ) -> Result<Entry, LedgerError> {
        let payload = self.redactor.value(payload);
        let mut text = payload.to_string();
        if text.len() > PAYLOAD_LEN_MAX {
            text = shortened(&payload).to_string();
        }
        let _under_way = self.under_way();
        let entry = self
            .ledger
            .append(NewEntry {
                timestamp: at.to_string(),
                actor: field(actor),
                action: field(action),
                resource: field(&self.redactor.text(resource)),
                subsystem: field(subsystem),
                payload: text,
                result: field(result),
            })
            .await?;
        log(&entry, &payload);
        Ok(entry)
    }
}

/// The entry as a line of `logs/backend.log`.
fn log(entry: &Entry, payload: &Value) {
    let event_type = match entry.action.as_str() {
        record::COMPLETE_HEALING_CYCLE => "healing_cycle_complete",
        record::COMPLETE_PLAYBOOK_RUN => "playbook_run_complete",
        other => other,
    };
    let run_id = payload["run_id"]
        .as_str()
        .or(payload["workflow_id"].as_str())
        .unwrap_or("");
    let playbook_id = payload["playbook"].as_str().unwrap_or("");
    let verification_id = if entry.action == "verify_healing" {
        format!("{run_id}/verify")
    } else {
        String::new()
    };
    tracing::info!(
        subsystem = entry.subsystem,
        event_type,
        action = entry.action,
        result = entry.result,
        run_id,
        playbook_id,
        verification_id,
        resource = entry.resource,
        sequence = entry.sequence,
        details = entry.payload,
        "{}",
        entry.action.replace('_', " ")
    );
}

fn field(text: &str) -> String {
    let mut out: String = text.replace('\0', " ");
    if out.len() > 1000 {
        let mut end = 1000;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
    }
    out
}

/// The payload with every text and list cut to a bounded length: records stay readable whatever a program printed.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(s) if s.len() > 2_000 => Value::String(format!(
            "{}... [{} bytes]",
            s.chars().take(1_000).collect::<String>(),
            s.len()
        )),
        Value::Array(items) => Value::Array(items.iter().take(100).map(shortened).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), shortened(v))).collect())
        }
        other => other.clone(),
    }
}
