//! What options are written as: times, rates, pauses, headers, checks. Each says what is wrong and what would be right.

use std::fmt;
use std::time::Duration;

use evenkeel_stress::words::time;
use evenkeel_stress::{JsonCheck, StatusSet, Think};
use serde_json::Value;

/// Reads `20ms`, or `10ms..50ms` for a pause drawn evenly between two bounds.
pub(super) fn think(text: &str) -> Result<Think, String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (time(min)?, time(max)?),
        None => (time(text)?, time(text)?),
    };
    if min > max {
        return Err(format!("`{text}`: the shorter pause comes first"));
    }
    Ok(Think { min, max })
}

/// A header. Its value may be a credential: it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Reads `Name: value`. What is wrong is told without the text: it may hold a credential.
pub(super) fn header(text: &str) -> Result<Header, String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok(Header {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
        }),
        _ => Err("a header is written as 'Name: value'".to_owned()),
    }
}

/// Reads `/pointer` or `/pointer=value`; the value is JSON, or else a text.
pub(super) fn json_check(text: &str) -> Result<JsonCheck, String> {
    let (pointer, value) = match text.split_once('=') {
        Some((pointer, value)) => (pointer, Some(value)),
        None => (text, None),
    };
    if !(pointer.is_empty() || pointer.starts_with('/')) {
        return Err(format!(
            "`{pointer}` is no JSON pointer; write /items/0/id, or /status=ok to expect a value"
        ));
    }
    Ok(JsonCheck {
        pointer: pointer.to_owned(),
        equals: value
            .map(|v| serde_json::from_str(v).unwrap_or_else(|_| Value::String(v.to_owned()))),
    })
}

/// Reads a status such as `200`, `2xx` or `200-299`.
pub(super) fn status(text: &str) -> Result<StatusSet, String> {
    StatusSet::parse(text).map_err(|e| e.to_string())
}

/// Share of failed requests that ends a run, 0 to 1; nothing for never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopAt(pub(super) Option<f64>);

/// Reads `50%` or `off`.
pub(super) fn stop_at(text: &str) -> Result<StopAt, String> {
    if text.trim() == "off" {
        return Ok(StopAt(None));
    }
    percent(text)
        .filter(|share| (0.0..=1.0).contains(share))
        .map(|share| StopAt(Some(share)))
        .ok_or_else(|| format!("`{text}` is no share; write 50%, or off"))
}

/// A share written as `5%`, 0 to 1.
pub(super) fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number / 100.0)
}

/// A time in words: `500 ms`, `10 s`, `2 min`, `1 h 30 min`.
pub(super) fn in_words(time: Duration) -> String {
    let ms = super::report::whole_ms(time);
    if ms == 0 && !time.is_zero() {
        return format!("{} µs", time.as_micros());
    }
    if !ms.is_multiple_of(1000) {
        return if ms < 1000 {
            format!("{ms} ms")
        } else {
            format!("{:.1} s", time.as_secs_f64())
        };
    }
    let seconds = ms / 1000;
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let words: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n} {unit}"))
        .collect();
    if words.is_empty() {
        "0 s".to_owned()
    } else {
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_words() {
        for (ms, words) in [
            (1, "1 ms"),
            (1_500, "1.5 s"),
            (90_000, "1 min 30 s"),
            (3_600_000, "1 h"),
            (0, "0 s"),
        ] {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }

    #[test]
    fn pauses_shares_and_checks() {
        let ms = Duration::from_millis;
        assert_eq!(
            think("10ms..50ms").unwrap(),
            Think {
                min: ms(10),
                max: ms(50)
            }
        );
        assert_eq!(think("20ms").unwrap().min, ms(20));
        assert!(think("50ms..10ms").is_err());
        assert_eq!(stop_at("off").unwrap(), StopAt(None));
        assert_eq!(stop_at("50%").unwrap(), StopAt(Some(0.5)));
        for bad in ["50", "101%", "-1%", "NaN%", ""] {
            assert!(stop_at(bad).is_err(), "{bad}");
        }
        let check = json_check("/status=ok").unwrap();
        assert_eq!(check.equals, Some(Value::String("ok".to_owned())));
        assert_eq!(json_check("/n=7").unwrap().equals, Some(Value::from(7)));
        assert_eq!(json_check("/n=\"7\"").unwrap().equals, Some("7".into()));
        assert_eq!(json_check("/n").unwrap().equals, None);
        assert!(json_check("status").is_err());
    }

    #[test]
    fn a_headers_value_is_shown_nowhere() {
        let header_of = header("Authorization: Bearer hunter22:x").unwrap();
        assert_eq!(header_of.value, "Bearer hunter22:x");
        assert!(!format!("{header_of:?}").contains("hunter22"));
        for bad in ["Bearer hunter22", ": hunter22"] {
            assert!(!header(bad).unwrap_err().contains("hunter22"));
        }
    }
}
