//! One line of a log, understood as far as it goes: a JSON object with the usual keys, or plain text with a level
//! somewhere near its beginning.

use std::sync::LazyLock;

use evenkeel_core::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::process::procinfo::truncate;

/// Longest message that is kept, in bytes.
const MESSAGE_LEN_MAX: usize = 4096;
/// Longest code or name that is kept, in bytes.
const NAME_LEN_MAX: usize = 128;
/// How far into a plain line its level is looked for, in bytes.
const LEVEL_WITHIN: usize = 160;

/// How bad a line says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Trace.
    Trace,
    /// Debug.
    Debug,
    /// Info, notice.
    Info,
    /// Warning.
    Warn,
    /// Error.
    Error,
    /// Critical, fatal, panic and worse.
    Critical,
}

impl LogLevel {
    /// By the word that loggers use for it, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" | "information" | "notice" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "err" | "severe" => Self::Error,
            "critical" | "crit" | "fatal" | "panic" | "alert" | "emergency" | "emerg" => {
                Self::Critical
            }
            _ => return None,
        })
    }
}

/// One line of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was written, if the line says so.
    pub timestamp: Option<Timestamp>,
    /// How bad it says it is.
    pub level: Option<LogLevel>,
    /// The error code of a structured line, such as `database_locked`.
    pub error: Option<String>,
    /// What it says; the whole line when it is plain text. At most 4 KiB.
    pub message: String,
    /// The HTTP status of a structured line.
    pub status: Option<u16>,
    /// The subsystem, service or logger that wrote it.
    pub source: Option<String>,
}

impl LogEntry {
    /// Understands one line. Never fails: what is not understood is a message.
    pub fn parse(line: &[u8]) -> Self {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if text.starts_with('{')
            && let Ok(Value::Object(object)) = serde_json::from_str(text)
        {
            return of_object(&object);
        }
        of_text(text)
    }

    /// Whether it tells of something that went wrong: by its level, its error code, or its status (500 and above,
    /// and 429).
    pub fn is_error(&self) -> bool {
        self.level.is_some_and(|l| l >= LogLevel::Error)
            || self.error.is_some()
            || self.status.is_some_and(|s| s >= 500 || s == 429)
    }
}

fn of_object(object: &Map<String, Value>) -> LogEntry {
    // Loggers of the Rust family put what was logged below `fields`.
    let fields = object.get("fields").and_then(Value::as_object);
    let get = |names: &[&str]| {
        names.iter().find_map(|name| {
            object
                .get(*name)
                .or_else(|| fields?.get(*name))
                .filter(|v| !v.is_null())
        })
    };
    let text = |names: &[&str], len_max: usize| get(names).and_then(|v| plain(v, len_max));
    let error = get(&["error", "error_code", "err"]).and_then(|v| match v {
        Value::Object(o) => ["code", "kind", "type", "message"]
            .iter()
            .find_map(|k| plain(o.get(*k)?, NAME_LEN_MAX)),
        Value::Bool(_) => None,
        other => plain(other, NAME_LEN_MAX),
    });
    LogEntry {
        timestamp: get(&["timestamp", "time", "ts", "@timestamp"]).and_then(time_of),
        level: text(&["level", "severity", "lvl", "levelname"], NAME_LEN_MAX)
            .and_then(|word| LogLevel::parse(&word)),
        error: error.filter(|e| !e.is_empty()),
        message: text(
            &["message", "msg", "event", "event_type", "action"],
            MESSAGE_LEN_MAX,
        )
        .unwrap_or_default(),
        status: get(&["status", "status_code"]).and_then(status_of),
        source: text(
            &["subsystem", "service", "logger", "target", "name"],
            NAME_LEN_MAX,
        ),
    }
}

fn plain(value: &Value, len_max: usize) -> Option<String> {
    let mut text = match value {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        _ => return None,
    };
    truncate(&mut text, len_max);
    Some(text)
}

fn status_of(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(n) => n.as_u64()?,
        Value::String(s) => s.parse().ok()?,
        _ => return None,
    };
    u16::try_from(number)
        .ok()
        .filter(|s| (100..600).contains(s))
}

fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(s) => time_of_text(s),
        // Seconds, milliseconds, microseconds or nanoseconds since the epoch: told apart by their size.
        Value::Number(n) => {
            let mut number = n.as_f64().filter(|n| *n > 1e8 && n.is_finite())?;
            while number >= 1e14 {
                number /= 1000.0;
            }
            if number < 1e11 {
                number *= 1000.0;
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "below 1e14, and a millisecond is fine enough"
            )]
            let millis = number as i64;
            Some(Timestamp::from_millis(millis))
        }
        _ => None,
    }
}

/// RFC 3339, or the same without a zone, which then is this host's.
fn time_of_text(text: &str) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse(text) {
        return Some(time);
    }
    let civil: jiff::civil::DateTime = text.replace(',', ".").parse().ok()?;
    let time = jiff::tz::TimeZone::system().to_timestamp(civil).ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

fn of_text(text: &str) -> LogEntry {
    static LEVEL: LazyLock<Regex> = LazyLock::new(|| {
        let words = "TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERR|ERROR|SEVERE|CRITICAL|FATAL|PANIC";
        // In capitals anywhere, or in any case at the beginning, in brackets or before a colon.
        let anywhere = format!(r"(?-u:\b)({words})(?-u:\b)");
        let marked = format!(r"(?:^|[\[<(]|level=)(?i:({words}))[\]>):\s]");
        Regex::new(&format!("{anywhere}|{marked}")).expect("a pattern that never changes")
    });
    static TIME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^\[?([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)",
        )
        .expect("a pattern that never changes")
    });
    let mut head = text.to_owned();
    truncate(&mut head, LEVEL_WITHIN);
    let level = LEVEL.captures(&head).and_then(|c| {
        let word = c.get(1).or_else(|| c.get(2))?;
        LogLevel::parse(word.as_str())
    });
    let timestamp = TIME
        .captures(&head)
        .and_then(|c| time_of_text(c.get(1)?.as_str()));
    let mut message = text.to_owned();
    truncate(&mut message, MESSAGE_LEN_MAX);
    LogEntry {
        timestamp,
        level,
        message,
        ..LogEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> LogEntry {
        LogEntry::parse(line.as_bytes())
    }

    #[test]
    fn structured_lines_are_understood() {
        let e = parse(
            r#"{"timestamp":"2026-01-31T12:00:00.5Z","level":"error","error":"database_locked","message":"write failed","status":503,"subsystem":"chat"}"#,
        );
        assert_eq!(e.timestamp.unwrap().to_string(), "2026-01-31T12:00:00.500Z");
        assert_eq!(e.level, Some(LogLevel::Error));
        assert_eq!(e.error.as_deref(), Some("database_locked"));
        assert_eq!((e.message.as_str(), e.status), ("write failed", Some(503)));
        assert_eq!(e.source.as_deref(), Some("chat"));
        assert!(e.is_error());

        let e =
            parse(r#"{"level":"WARN","fields":{"message":"slow","status":"429"},"target":"x"}"#);
        assert_eq!((e.message.as_str(), e.status), ("slow", Some(429)));
        assert!(e.is_error(), "a refused request is an error to its user");
        assert!(!parse(r#"{"level":"info","error":null,"status":200}"#).is_error());
        assert_eq!(
            parse(r#"{"error":{"code":"E1","detail":[]}}"#)
                .error
                .as_deref(),
            Some("E1")
        );
    }

    #[test]
    fn times_are_read_in_the_usual_forms() {
        let millis = |text: &str| parse(text).timestamp.map(Timestamp::as_millis);
        let at = Some(1_762_715_115_000);
        assert_eq!(millis(r#"{"ts":1762715115}"#), at);
        assert_eq!(millis(r#"{"ts":1762715115000}"#), at);
        assert_eq!(millis(r#"{"ts":1762715115000000}"#), at);
        assert_eq!(millis(r#"{"time":"2025-11-09T20:05:15+01:00"}"#), at);
        assert_eq!(millis("2025-11-09T19:05:15Z ERROR x"), at);
        assert_eq!(millis("[2025-11-09T19:05:15Z] x"), at);
        assert!(millis("2025-11-09 19:05:15,123 x").is_some());
        for none in [
            r#"{"ts":"soon"}"#,
            r#"{"ts":-1}"#,
            r#"{"ts":1e308}"#,
            "9999-99-99T00:00:00Z",
        ] {
            assert_eq!(millis(none).filter(|m| *m < 0), None, "{none}");
        }
    }

    #[test]
    fn plain_lines_have_a_level() {
        for (line, level) in [
            (
                "2026-01-31 12:00:00,123 ERROR [x] failed",
                Some(LogLevel::Error),
            ),
            ("error: no such file", Some(LogLevel::Error)),
            ("[warning] disk", Some(LogLevel::Warn)),
            ("thread 'main' FATAL", Some(LogLevel::Critical)),
            ("0 errors found", None),
            ("the error was small", None),
            ("TERROR", None),
        ] {
            assert_eq!(parse(line).level, level, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry(line in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(LogEntry::parse(&line).message.len() <= MESSAGE_LEN_MAX);
        }

        #[test]
        fn any_object_is_an_entry(
            key in "(timestamp|ts|level|error|status|message|fields)",
            value in "[-0-9.e\\[\\]{}\"a-z]{0,12}",
        ) {
            LogEntry::parse(format!("{{\"{key}\":{value}}}").as_bytes());
        }
    }
}
