//! The one place that reads the time of day.

use evenkeel_core::Timestamp;

/// Now.
pub fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
