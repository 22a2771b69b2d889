//! Points in time as the core sees them: handed in, never read from a clock.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC.
///
/// Written as RFC 3339 with milliseconds and `Z` wherever people or programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 time such as 2026-01-31T12:00:00.000Z: {reason}")]
pub struct ParseTimestampError {
    text: String,
    reason: String,
}

impl Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment moved by `millis`; stays at the end of the range instead of overflowing.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; negative when the clock was set back between.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `YYYYMMDD_HHMMSS`, UTC: the form used in file and directory names.
    pub fn compact(self) -> String {
        self.utc().strftime("%Y%m%d_%H%M%S").to_string()
    }

    /// `HH:MM:SS`, UTC: the form used on the terminal.
    pub fn clock(self) -> String {
        self.utc().strftime("%H:%M:%S").to_string()
    }

    /// Reads an RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, ParseTimestampError> {
        text.parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_millisecond()))
            .map_err(|e| ParseTimestampError {
                text: text.chars().take(64).collect(),
                reason: e.to_string(),
            })
    }

    fn utc(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.utc().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let t = Timestamp::from_millis(1_762_715_115_042);
        assert_eq!(t.to_string(), "2025-11-09T19:05:15.042Z");
        assert_eq!(t.compact(), "20251109_190515");
        assert_eq!(t.clock(), "19:05:15");
        assert_eq!(Timestamp::parse(&t.to_string()).unwrap(), t);
    }

    #[test]
    fn refuses_what_is_no_time() {
        assert!(Timestamp::parse("yesterday").is_err());
        assert!(serde_json::from_str::<Timestamp>("\"2025-13-01T00:00:00Z\"").is_err());
    }

    #[test]
    fn a_clock_set_back_gives_a_negative_distance() {
        let a = Timestamp::from_millis(10);
        assert_eq!(Timestamp::from_millis(4).millis_since(a), -6);
    }
}
