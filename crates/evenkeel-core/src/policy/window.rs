//! Recurring maintenance windows: times of the week in which nothing is done.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::DAY_MS;
use crate::time::Timestamp;

const MINUTE_MS: i64 = 60_000;
/// Minutes of a day.
const DAY_MIN: i64 = 1_440;
/// Most windows in a configuration.
pub const WINDOWS_MAX: usize = 64;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of day, as `HH:MM`, 00:00 to 23:59.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(i64);

/// A distance from UTC, as `+HH:MM` or `-HH:MM`, at most 14 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UtcOffset(i64);

/// A recurring window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// What it is for, in a person's words.
    pub name: String,
    /// Days on which it begins; every day when empty.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: TimeOfDay,
    /// When it ends; a time that is not after `from` is on the next day.
    pub to: TimeOfDay,
    /// Distance of these times from UTC.
    #[serde(default)]
    pub utc_offset: UtcOffset,
}

impl Window {
    /// Whether `at` lies in it. The end does not.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.ends_after(at).is_some()
    }

    /// When the window that `at` lies in ends.
    pub fn ends_after(&self, at: Timestamp) -> Option<Timestamp> {
        let local = at.as_millis().saturating_add(self.utc_offset.0 * MINUTE_MS);
        let today = local.div_euclid(DAY_MS);
        let mut length = self.to.0 - self.from.0;
        if length <= 0 {
            length += DAY_MIN;
        }
        // It may have begun yesterday.
        [today, today - 1].into_iter().find_map(|day| {
            let begins = day * DAY_MS + self.from.0 * MINUTE_MS;
            let ends = begins + length * MINUTE_MS;
            let on = self.days.is_empty() || self.days.contains(&weekday(day));
            (on && (begins..ends).contains(&local)).then(|| at.plus_millis(ends - local))
        })
    }
}

/// The day of the week of a day since 1970-01-01, which was a Thursday.
fn weekday(day: i64) -> Day {
    const DAYS: [Day; 7] = [
        Day::Thu,
        Day::Fri,
        Day::Sat,
        Day::Sun,
        Day::Mon,
        Day::Tue,
        Day::Wed,
    ];
    DAYS[usize::try_from(day.rem_euclid(7)).unwrap_or(0)]
}

/// `HH:MM` in minutes.
fn minutes(text: &str, hours_max: i64) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |t: &str| -> Option<i64> {
        (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= hours_max && minutes < 60).then_some(hours * 60 + minutes)
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", self.0.abs() / 60, self.0.abs() % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for UtcOffset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        minutes(&text, 23).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no time of day; write HH:MM, such as 02:30"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for UtcOffset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = match text.split_at_checked(1) {
            Some(("+", rest)) => minutes(rest, 14),
            Some(("-", rest)) => minutes(rest, 14).map(|m| -m),
            _ => None,
        };
        parsed.map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no distance from UTC; write +HH:MM or -HH:MM"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn window(value: Value) -> Window {
        serde_json::from_value(value).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
        // 2026-01-31 was a Saturday.
        let w = window(json!({"name": "backup", "days": ["sat"], "from": "23:00", "to": "01:00"}));
        let table = [
            ("2026-01-31T22:59:59.999Z", false),
            ("2026-01-31T23:00:00Z", true),
            ("2026-02-01T00:59:59Z", true),
            ("2026-02-01T01:00:00Z", false),
            ("2026-01-31T00:30:00Z", false),
            ("2026-02-01T23:30:00Z", false),
        ];
        for (time, inside) in table {
            assert_eq!(w.contains(at(time)), inside, "{time}");
        }
        assert_eq!(
            w.ends_after(at("2026-01-31T23:30:00Z")),
            Some(at("2026-02-01T01:00:00Z"))
        );
    }

    #[test]
    fn times_are_those_of_the_offset() {
        let w =
            window(json!({"name": "x", "from": "02:00", "to": "03:00", "utc_offset": "+05:30"}));
        assert!(w.contains(at("2026-01-30T20:45:00Z")));
        assert!(!w.contains(at("2026-01-31T02:30:00Z")));
        // From a time to the same time is a whole day.
        let whole = window(json!({"name": "x", "days": ["sun"], "from": "00:00", "to": "00:00"}));
        assert!(
            whole.contains(at("2026-02-01T12:00:00Z"))
                && !whole.contains(at("2026-01-31T12:00:00Z"))
        );
    }

    #[test]
    fn nonsense_is_told() {
        for (key, value) in [
            ("from", "24:00"),
            ("from", "2:00"),
            ("to", "02:60"),
            ("utc_offset", "5"),
            ("utc_offset", ""),
        ] {
            let mut w = json!({"name": "x", "from": "02:00", "to": "03:00"});
            w[key] = json!(value);
            let e = serde_json::from_value::<Window>(w).unwrap_err().to_string();
            assert!(e.contains(value), "{e}");
        }
    }
}
