//! Entries: what a caller gives, what the log holds, and the bounds of both. Validation only; no database.

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::dropped::DROPPED_KEY;
use crate::leaf::{Hash, Leaf};
use crate::{LedgerError, own};

/// Largest payload, in bytes of JSON text: 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of arrays and objects in a payload. SQLite itself stops at 1000.
pub const PAYLOAD_DEPTH_MAX: usize = 100;
/// Largest size of each other field, in bytes: 1 KiB.
pub const FIELD_BYTES_MAX: usize = 1 << 10;
/// Most entries that one atomic batch may have.
pub const BATCH_ENTRIES_MAX: usize = 1024;
/// Largest size of one atomic batch, all its bytes together: 16 MiB.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// An entry to append. Sequence and hashes are the ledger's to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`. See [`format_timestamp`].
    pub timestamp: String,
    /// Who acted. Not empty.
    pub actor: String,
    /// What was done. Not empty.
    pub action: String,
    /// To what; may be empty.
    pub resource: String,
    /// In which part of the system; may be empty.
    pub subsystem: String,
    /// JSON text, stored byte for byte as given.
    pub payload: String,
    /// How it ended; may be empty.
    pub result: String,
}

impl NewEntry {
    /// Bytes of all fields together.
    pub(crate) fn size(&self) -> usize {
        self.fields()
            .iter()
            .map(|(_, field)| field.len())
            .sum::<usize>()
            + self.payload.len()
    }

    fn fields(&self) -> [(&'static str, &str); 6] {
        [
            ("timestamp", &self.timestamp),
            ("actor", &self.actor),
            ("action", &self.action),
            ("resource", &self.resource),
            ("subsystem", &self.subsystem),
            ("result", &self.result),
        ]
    }

    /// Checks what a caller may append: all that the table's constraints would refuse, so that a bad entry never
    /// reaches a commit, and what only the ledger itself may write.
    pub(crate) fn validate(&self) -> Result<(), LedgerError> {
        if own::is_own(self.action.as_bytes()) {
            let problem = format!("{} is the ledger's own; choose another", self.action);
            return Err(LedgerError::invalid("action", problem));
        }
        self.check_fields()?;
        check_timestamp("timestamp", &self.timestamp)?;
        check_payload(&self.payload)
    }

    fn check_fields(&self) -> Result<(), LedgerError> {
        for (name, field) in self.fields() {
            if field.len() > FIELD_BYTES_MAX {
                let problem = format!(
                    "has {} bytes, at most {FIELD_BYTES_MAX} are kept",
                    field.len()
                );
                return Err(LedgerError::invalid(name, problem));
            }
            if field.contains('\0') {
                return Err(LedgerError::invalid(
                    name,
                    "contains a NUL character; remove it",
                ));
            }
            if field.is_empty() && matches!(name, "actor" | "action") {
                return Err(LedgerError::invalid(name, "is empty; name it"));
            }
        }
        Ok(())
    }

    pub(crate) fn leaf(&self, sequence: u64, previous_hash: Hash, payload_hash: Hash) -> Leaf<'_> {
        Leaf {
            previous_hash,
            sequence,
            timestamp: self.timestamp.as_bytes(),
            actor: self.actor.as_bytes(),
            action: self.action.as_bytes(),
            resource: self.resource.as_bytes(),
            subsystem: self.subsystem.as_bytes(),
            result: self.result.as_bytes(),
            payload_hash,
        }
    }
}

/// An entry of the log. Serialises with the column names; `payload` stays the text that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Position in the log, from 1, without holes.
    pub sequence: u64,
    /// When, by the clock of whoever wrote it: RFC 3339, UTC, milliseconds.
    pub timestamp: String,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub resource: String,
    /// In which part of the system.
    pub subsystem: String,
    /// JSON text as stored.
    pub payload: String,
    /// How it ended.
    pub result: String,
    /// RFC 6962 leaf hash of this entry, see [`crate::leaf`].
    pub entry_hash: Hash,
    /// `entry_hash` of the entry before, zeros for the first.
    pub previous_hash: Hash,
}

impl Entry {
    /// The payload as a JSON value. For reading only: its hash is that of the text.
    pub fn payload_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_str(&self.payload)
    }

    pub(crate) fn sealed(
        new: NewEntry,
        sequence: u64,
        entry_hash: Hash,
        previous_hash: Hash,
    ) -> Self {
        let NewEntry {
            timestamp,
            actor,
            action,
            resource,
            subsystem,
            payload,
            result,
        } = new;
        Self {
            sequence,
            timestamp,
            actor,
            action,
            resource,
            subsystem,
            payload,
            result,
            entry_hash,
            previous_hash,
        }
    }
}

/// A point in time as the ledger stores it: `2026-01-31T12:00:00.000Z`, cut off (not rounded) after the
/// millisecond. Years 0000 to 9999; text order is time order.
pub fn format_timestamp(timestamp: jiff::Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Demands the one spelling that sorts as text, and a date that exists.
pub(crate) fn check_timestamp(field: &'static str, text: &str) -> Result<(), LedgerError> {
    const SHAPE: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    let shaped = text.len() == SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *shape,
        });
    // A parser may read second 60 as 59; the stored text is what counts, so it has to be a plain one.
    if shaped && &text[17..19] != "60" && text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(());
    }
    let problem = "is not a UTC time with milliseconds like 2026-01-31T12:00:00.000Z";
    Err(LedgerError::invalid(field, problem))
}

fn check_payload(payload: &str) -> Result<(), LedgerError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let problem = format!(
            "has {} bytes, at most {PAYLOAD_BYTES_MAX} are kept",
            payload.len()
        );
        return Err(LedgerError::invalid("payload", problem));
    }
    // Without so many brackets there is no such nesting; counting them is much quicker than following them.
    if brackets(payload.as_bytes()) > PAYLOAD_DEPTH_MAX
        && depth(payload.as_bytes()) > PAYLOAD_DEPTH_MAX
    {
        let problem = format!("is nested deeper than {PAYLOAD_DEPTH_MAX} arrays and objects");
        return Err(LedgerError::invalid("payload", problem));
    }
    if !is_json_text(payload) {
        return Err(LedgerError::invalid(
            "payload",
            "is not valid JSON; nothing else is stored",
        ));
    }
    if looks_dropped(payload) {
        let problem =
            format!("has the key {DROPPED_KEY}, which stands for dropped payloads; rename it");
        return Err(LedgerError::invalid("payload", problem));
    }
    Ok(())
}

/// Whether an object has the key of dropped payloads, however it is spelled.
fn looks_dropped(payload: &str) -> bool {
    let possible = payload.contains(DROPPED_KEY) || payload.contains("\\u");
    possible
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(payload)
            .is_ok_and(|object| object.contains_key(DROPPED_KEY))
}

/// Whether these bytes are one JSON text (RFC 8259) in UTF-8.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    // The parser skips strings without looking at their UTF-8 when the value is ignored.
    std::str::from_utf8(bytes).is_ok_and(is_json_text)
}

fn is_json_text(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// How many opening brackets there are, in strings too.
fn brackets(json: &[u8]) -> usize {
    // `[` and `{` differ in one bit. A byte is enough for the sum of a part, and lets many be added at a time.
    let opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    json.chunks(255)
        .map(|part| usize::from(part.iter().map(opening).sum::<u8>()))
        .sum()
}

/// Deepest nesting of brackets outside strings; meaningful for valid JSON, an over-estimate otherwise.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                now += 1;
                deepest = deepest.max(now);
            }
            (false, b']' | b'}') => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> NewEntry {
        NewEntry {
            timestamp: "2026-01-31T12:00:00.000Z".into(),
            actor: "a".into(),
            action: "b".into(),
            resource: String::new(),
            subsystem: String::new(),
            payload: "{}".into(),
            result: String::new(),
        }
    }

    fn refused(entry: &NewEntry) -> &'static str {
        match entry.validate() {
            Err(LedgerError::Invalid { field, .. }) => field,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn accepts_what_is_within_the_bounds() {
        plain().validate().unwrap();
        let full = NewEntry {
            actor: "x".repeat(FIELD_BYTES_MAX),
            payload: format!("\"{}\"", "y".repeat(PAYLOAD_BYTES_MAX - 2)),
            ..plain()
        };
        full.validate().unwrap();
        let deep = "[".repeat(PAYLOAD_DEPTH_MAX) + &"]".repeat(PAYLOAD_DEPTH_MAX);
        NewEntry {
            payload: deep,
            ..plain()
        }
        .validate()
        .unwrap();
        NewEntry {
            payload: r#""[[\"[[""#.into(),
            ..plain()
        }
        .validate()
        .unwrap();
        NewEntry {
            payload: r#"{"a":{"evenkeel_dropped_payload":1},"b":"\u0065"}"#.into(),
            ..plain()
        }
        .validate()
        .unwrap();
    }

    #[test]
    fn names_the_field_that_is_out_of_bounds() {
        assert_eq!(
            refused(&NewEntry {
                actor: String::new(),
                ..plain()
            }),
            "actor"
        );
        assert_eq!(
            refused(&NewEntry {
                action: String::new(),
                ..plain()
            }),
            "action"
        );
        assert_eq!(
            refused(&NewEntry {
                resource: "x".repeat(FIELD_BYTES_MAX + 1),
                ..plain()
            }),
            "resource"
        );
        assert_eq!(
            refused(&NewEntry {
                subsystem: "a\0b".into(),
                ..plain()
            }),
            "subsystem"
        );
        for action in own::ACTIONS {
            assert_eq!(
                refused(&NewEntry {
                    action: action.into(),
                    ..plain()
                }),
                "action"
            );
        }
        let long = format!("\"{}\"", "y".repeat(PAYLOAD_BYTES_MAX - 1));
        assert_eq!(
            refused(&NewEntry {
                payload: long,
                ..plain()
            }),
            "payload"
        );
        let deep = "[".repeat(PAYLOAD_DEPTH_MAX + 1) + &"]".repeat(PAYLOAD_DEPTH_MAX + 1);
        assert_eq!(
            refused(&NewEntry {
                payload: deep,
                ..plain()
            }),
            "payload"
        );
        for payload in [
            "",
            "{",
            "{}{}",
            "{a:1}",
            "'x'",
            "NaN",
            "\"\u{1}\"",
            "01",
            "[1,]",
            r#"{"evenkeel_dropped_payload":1}"#,
            r#"{"a":2, "evenkeel\u005fdropped_payload":{}}"#,
        ] {
            assert_eq!(
                refused(&NewEntry {
                    payload: payload.into(),
                    ..plain()
                }),
                "payload",
                "{payload}"
            );
        }
    }

    #[test]
    fn timestamps_have_one_spelling() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.000+00:00",
            "2026-01-31 12:00:00.000Z",
            "2026-01-31T12:00:00.000z",
            "2026-02-30T12:00:00.000Z",
            "2026-01-31T24:00:00.000Z",
            "2026-01-31T12:00:60.000Z",
            "2026-01-31T12:00:00.0000Z",
            "",
        ] {
            assert_eq!(
                refused(&NewEntry {
                    timestamp: text.into(),
                    ..plain()
                }),
                "timestamp",
                "{text}"
            );
        }
        let text = "2026-01-31T12:00:00.123Z";
        assert_eq!(
            format_timestamp("2026-01-31T13:00:00.1239+01:00".parse().unwrap()),
            text
        );
        NewEntry {
            timestamp: text.into(),
            ..plain()
        }
        .validate()
        .unwrap();
    }
}
