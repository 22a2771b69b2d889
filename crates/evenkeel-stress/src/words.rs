//! Times and rates as people write them, on a command line as in a file.

use std::time::Duration;

/// Longest time that is taken: seven days.
const TIME_MAX: Duration = Duration::from_hours(168);

/// Reads `500ms`, `1.5s`, `2m`, `1h` or `2d`: at most seven days.
///
/// # Errors
///
/// What is wrong with it, and what would be right.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write a number and ms, s, m, h or d, such as 30s");
    let text_trimmed = text.trim();
    let unit_at = text_trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let (number, unit) = text_trimmed.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|t| *t <= TIME_MAX)
        .ok_or_else(|| format!("`{text}` is more than seven days"))
}

/// Requests a second, and how they change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Requests a second at the start.
    pub from: f64,
    /// The same at the end of the ramp, and after it.
    pub to: f64,
    /// How long the ramp takes; nothing for a constant rate, or for a ramp as long as the run.
    pub over: Option<Duration>,
}

impl Pace {
    /// Whether it changes.
    pub fn is_ramp(&self) -> bool {
        self.from.to_bits() != self.to.to_bits()
    }
}

/// Reads `1000`, `100..2000`, or `100..2000 over 60s`: requests a second.
///
/// # Errors
///
/// What is wrong with it, and what would be right.
pub fn pace(text: &str) -> Result<Pace, String> {
    let wrong = || {
        format!(
            "`{text}` is no rate; write requests a second such as 1000, or '100..2000 over 60s' for a ramp"
        )
    };
    let number = |t: &str| {
        let t = t.trim();
        let t = t.strip_suffix("/s").unwrap_or(t).trim();
        t.parse::<f64>()
            .ok()
            .filter(|r| r.is_finite() && *r >= 0.0)
            .ok_or_else(wrong)
    };
    let (rates, over) = match text.split_once("over") {
        Some((rates, over)) => (rates, Some(time(over)?)),
        None => (text, None),
    };
    match rates.split_once("..") {
        Some((from, to)) => Ok(Pace {
            from: number(from)?,
            to: number(to)?,
            over,
        }),
        None if over.is_some() => Err(wrong()),
        None => {
            let rate = number(rates)?;
            Ok(Pace {
                from: rate,
                to: rate,
                over: None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms) in [
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            (" 3 s", 3_000),
            ("0s", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "", "5", "s", "5x", "-1s", "1.2.3s", "8d", "1e3s", "NaNs", "..s",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates() {
        let constant = pace("1000").unwrap();
        assert!(!constant.is_ramp() && constant.to.total_cmp(&1000.0).is_eq());
        assert_eq!(pace("1000/s").unwrap(), constant);
        let ramp = pace("100..2000 over 60s").unwrap();
        assert_eq!(
            ramp,
            Pace {
                from: 100.0,
                to: 2000.0,
                over: Some(Duration::from_mins(1))
            }
        );
        assert_eq!(pace("0..50").unwrap().over, None);
        for bad in [
            "",
            "x",
            "-1",
            "inf",
            "NaN",
            "100 over 10s",
            "1..2 over",
            "1..2 over x",
            "1..2..3",
        ] {
            assert!(pace(bad).is_err(), "{bad}");
        }
    }
}
