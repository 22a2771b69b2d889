//! `logs/backend.log`: one JSON object a line, with the names people's `jq` lines look for.
//!
//! A `tracing` layer. Fields with a name of their own in CONTRACT section 4 stand at the top; all others go under
//! `details`. Every text passes the redactor. The file is capped: at its limit it is moved to `backend.log.1`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_core::redact::Redactor;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Size at which the log is moved aside, in bytes.
pub const LOG_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Fields that stand at the top of a line.
const TOP: [&str; 8] = [
    "subsystem",
    "event_type",
    "action",
    "result",
    "run_id",
    "playbook_id",
    "verification_id",
    "request_id",
];

/// The layer that writes the log.
#[derive(Clone)]
pub struct BackendLog {
    file: Arc<Mutex<Capped>>,
    redactor: Arc<Redactor>,
}

struct Capped {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    len_max: u64,
}

impl BackendLog {
    /// Opens (appends to) `path`.
    pub fn open(path: PathBuf, redactor: Arc<Redactor>) -> std::io::Result<Self> {
        Self::with_len_max(path, redactor, LOG_LEN_MAX)
    }

    fn with_len_max(path: PathBuf, redactor: Arc<Redactor>, len_max: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(Mutex::new(Capped {
                path,
                file: Some(file),
                len,
                len_max,
            })),
            redactor,
        })
    }

    fn write(&self, line: &Value) {
        let mut bytes = self.redactor.value(line).to_string().into_bytes();
        bytes.push(b'\n');
        let mut capped = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        capped.write(&bytes);
    }
}

impl Capped {
    /// The log is a convenience, the ledger is the record: when the log cannot be written (a full disk), the line is
    /// lost and the work goes on.
    fn write(&mut self, bytes: &[u8]) {
        let added = bytes.len() as u64;
        if self.len + added > self.len_max {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            self.file = None;
            let _ = std::fs::rename(&self.path, old);
            self.file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)
                .ok();
            self.len = 0;
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.len += added;
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for BackendLog {
    fn on_new_span(
        &self,
        attrs: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        ctx: Context<'_, S>,
    ) {
        if let Some(span) = ctx.span(id) {
            let mut fields = Fields::default();
            attrs.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let meta = event.metadata();
        let mut fields = Fields::default();
        if let Some(scope) = ctx.event_scope(event) {
            for span in scope.from_root() {
                if let Some(outer) = span.extensions().get::<Fields>() {
                    fields.0.extend(outer.0.clone());
                }
            }
        }
        event.record(&mut fields);
        let Fields(mut map) = fields;
        let mut line = Map::new();
        line.insert("timestamp".into(), json!(crate::clock::now().to_string()));
        line.insert("level".into(), json!(meta.level().as_str()));
        line.insert("logger".into(), json!(meta.target()));
        let message = map.remove("message").unwrap_or_else(|| json!(""));
        for name in TOP {
            if let Some(value) = map.remove(name) {
                line.insert(name.into(), value);
            }
        }
        line.entry("subsystem").or_insert_with(|| json!("evenkeel"));
        line.entry("event_type").or_insert_with(|| json!("log"));
        line.insert("message".into(), message);
        let details = match map.remove("details") {
            // A value that was logged as JSON text stands there as JSON.
            Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            Some(other) => other,
            None => Value::Null,
        };
        if !map.is_empty() {
            let mut all = map;
            if let Value::Object(more) = details {
                all.extend(more);
            } else if !details.is_null() {
                all.insert("details".into(), details);
            }
            line.insert("details".into(), Value::Object(all));
        } else if !details.is_null() {
            line.insert("details".into(), details);
        }
        self.write(&Value::Object(line));
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0
            .insert(field.name().into(), json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::prelude::*;

    fn lines(path: &std::path::Path) -> Vec<Value> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    /// SAFETY 22
    #[test]
    fn lines_have_the_contracts_names_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backend.log");
        let redactor = Arc::new(Redactor::new(["sk-very-secret".to_owned()]));
        let log = BackendLog::open(path.clone(), redactor).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            let span = tracing::info_span!("cycle", run_id = "heal_x/1");
            let _in = span.enter();
            tracing::info!(
                subsystem = "orchestrator",
                event_type = "healing_cycle_complete",
                action = "complete_healing_cycle",
                result = "success",
                details = r#"{"key":"sk-very-secret"}"#,
                attempts = 2,
                "done with sk-very-secret"
            );
        });
        let line = &lines(&path)[0];
        assert_eq!(line["event_type"], "healing_cycle_complete");
        assert_eq!(line["run_id"], "heal_x/1");
        assert_eq!(line["details"]["attempts"], 2);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(!line.to_string().contains("very-secret"), "{line}");
    }

    #[test]
    fn the_log_is_moved_aside_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backend.log");
        let log = BackendLog::with_len_max(path.clone(), Arc::default(), 300).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            for n in 0..10 {
                tracing::info!(
                    n,
                    "a line of some length, so that the limit is reached soon"
                );
            }
        });
        assert!(path.metadata().unwrap().len() <= 300);
        assert!(dir.path().join("backend.log.1").exists());
    }
}
