//! Dropped payloads: what stands in the place of a payload, and the entry that records the drop. Only the payload's
//! hash is in the leaf, so the chain and the tree hold without it. Pure.

use serde::{Deserialize, Serialize};

use crate::{Hash, LedgerError, entry};

/// The key that stands in a dropped payload. No entry can be appended with it.
pub const DROPPED_KEY: &str = "evenkeel_dropped_payload";
/// Most payloads that one call drops, in one transaction.
pub const DROP_ENTRIES_MAX: u32 = 10_000;
/// Smaller payloads, in bytes, are never dropped: what replaces them is hardly smaller.
pub const DROP_BYTES_MIN: u64 = 256;

const BEFORE_HASH: &[u8] = br#"{"evenkeel_dropped_payload":{"sha256":""#;
const BEFORE_BYTES: &[u8] = br#"","bytes":"#;
const AFTER: &[u8] = b"}}";

/// What is left of a dropped payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedPayload {
    /// SHA-256 of the payload's bytes: what the entry's hash was made from.
    pub sha256: Hash,
    /// How many bytes it had. The entry's hash does not cover this figure; the drop's record covers the sum.
    pub bytes: u64,
}

impl DroppedPayload {
    /// Reads the one spelling; anything else is `None`.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(BEFORE_HASH)?;
        let (hash, rest) = rest.split_at_checked(64)?;
        let digits = rest.strip_prefix(BEFORE_BYTES)?.strip_suffix(AFTER)?;
        let bytes: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (bytes.to_string().as_bytes() == digits).then_some(Self {
            sha256: Hash::from_hex(hash)?,
            bytes,
        })
    }

    /// The text that replaces the payload.
    pub(crate) fn text(&self) -> String {
        format!(
            r#"{{"{DROPPED_KEY}":{{"sha256":"{}","bytes":{}}}}}"#,
            self.sha256, self.bytes
        )
    }
}

/// Which payloads to drop: all conditions have to hold. The ledger's own entries are left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropSelection {
    /// From this sequence on. Default 1.
    pub first_sequence: u64,
    /// Up to this sequence, itself included. Default the newest entry.
    pub last_sequence: u64,
    /// Only entries whose timestamp is earlier than this one, spelled as in the log. Default any.
    pub before: Option<String>,
    /// Only payloads of so many bytes or more, at least [`DROP_BYTES_MIN`], which is the default.
    pub bytes_min: u64,
}

impl Default for DropSelection {
    fn default() -> Self {
        Self {
            first_sequence: 1,
            last_sequence: u64::MAX,
            before: None,
            bytes_min: DROP_BYTES_MIN,
        }
    }
}

impl DropSelection {
    pub(crate) fn validate(&self, reason: &str) -> Result<(), LedgerError> {
        if let Some(before) = &self.before {
            entry::check_timestamp("before", before)?;
        }
        if self.bytes_min < DROP_BYTES_MIN {
            let problem = format!(
                "is {}, at least {DROP_BYTES_MIN} bytes are dropped",
                self.bytes_min
            );
            return Err(LedgerError::invalid("bytes_min", problem));
        }
        if self.first_sequence > self.last_sequence {
            return Err(LedgerError::invalid(
                "first_sequence",
                "is after the last one; exchange them",
            ));
        }
        check_reason(reason)
    }
}

/// A reason that somebody can read later.
pub(crate) fn check_reason(reason: &str) -> Result<(), LedgerError> {
    if reason.is_empty() || reason.len() > entry::FIELD_BYTES_MAX {
        let problem = format!(
            "has {} bytes, 1 to {} say why",
            reason.len(),
            entry::FIELD_BYTES_MAX
        );
        return Err(LedgerError::invalid("reason", problem));
    }
    Ok(())
}

/// Payload of the entry that records a drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) before: Option<String>,
    pub(crate) bytes_min: u64,
    /// How many payloads were dropped.
    pub(crate) entries: u64,
    /// Their bytes together.
    pub(crate) bytes: u64,
    pub(crate) reason: String,
}

impl Record {
    /// Whether a payload is among those that this record dropped, or would have.
    pub(crate) fn covers(&self, sequence: u64, timestamp: &[u8], bytes: u64) -> bool {
        (self.first_sequence..=self.last_sequence).contains(&sequence)
            && bytes >= self.bytes_min
            && self
                .before
                .as_ref()
                .is_none_or(|before| timestamp < before.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_payload_has_one_spelling() {
        let dropped = DroppedPayload {
            sha256: Hash::of(b"x"),
            bytes: 1000,
        };
        let text = dropped.text();
        assert_eq!(DroppedPayload::parse(text.as_bytes()), Some(dropped));
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        for wrong in [
            text.replace("1000", "01000"),
            text.replace("1000", "+1000"),
            text.replace("1000", ""),
            text.replace("1000", "99999999999999999999"),
            text.replace("\":{", "\": {"),
            text.replace("bytes", "size"),
            text.to_uppercase(),
            format!("{text} "),
            text[..60].to_owned(),
            String::new(),
        ] {
            assert_eq!(DroppedPayload::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_selection_is_checked() {
        let good = DropSelection::default();
        good.validate("old").unwrap();
        assert!(good.validate("").is_err());
        assert!(good.validate(&"x".repeat(2000)).is_err());
        assert!(
            DropSelection {
                bytes_min: 10,
                ..good.clone()
            }
            .validate("old")
            .is_err()
        );
        assert!(
            DropSelection {
                first_sequence: 3,
                last_sequence: 2,
                ..good.clone()
            }
            .validate("old")
            .is_err()
        );
        assert!(
            DropSelection {
                before: Some("yesterday".to_owned()),
                ..good
            }
            .validate("old")
            .is_err()
        );
    }

    #[test]
    fn a_record_covers_what_it_describes() {
        let record = Record {
            first_sequence: 5,
            last_sequence: 9,
            before: Some("2026-01-31T12:00:00.000Z".to_owned()),
            bytes_min: 300,
            entries: 1,
            bytes: 400,
            reason: "old".to_owned(),
        };
        let early = b"2026-01-31T11:59:59.999Z";
        assert!(record.covers(5, early, 300) && record.covers(9, early, 4000));
        assert!(!record.covers(4, early, 300) && !record.covers(10, early, 300));
        assert!(!record.covers(5, early, 299));
        assert!(!record.covers(5, b"2026-01-31T12:00:00.000Z", 300));
    }
}
