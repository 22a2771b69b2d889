//! What is no evidence: samples that cannot be true, came twice, late, out of order, from the future, or not at all.
//!
//! The gate drops and counts them before any monitor sees them (SAFETY 11). Most of it raises one `telemetry_missing`
//! of low severity, which is noted and never acted on; what came twice or out of order is only counted, because
//! redelivery is harmless.

use std::collections::BTreeMap;

use evenkeel_core::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::config::DetectConfig;
use crate::limits::{
    FUTURE_TOLERANCE_MS, LATE_FLOOR_MS, NAMES_IN_DETAILS_MAX, REASON_MAX, SERIES_FORGET_MS,
    SERIES_MAX, STALE_FLOOR_MS,
};
use crate::sample::{Sample, SampleValue};
use crate::slot::{Evaluation, Finding};

/// The series of the anomalies that this monitor raises.
pub const SERIES: &str = "telemetry";

/// Why a sample was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Not a number, or infinite.
    NotFinite,
    /// Below zero.
    Negative,
    /// Beyond anything possible.
    Absurd,
    /// It contradicts itself: more errors than events, an error of an answer that was good.
    Inconsistent,
    /// Not newer than the last sample of its series.
    NotNewer,
    /// From later than now.
    Future,
    /// It came too late.
    Late,
    /// Measured before the window was reset.
    BeforeReset,
    /// There are too many series.
    TooManySeries,
    /// Too many samples since the last check.
    Overflow,
    /// The clock jumped between two checks.
    ClockJump,
}

impl DropReason {
    fn harmless(self) -> bool {
        matches!(self, Self::NotNewer | Self::BeforeReset)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::NotFinite => "not a number",
            Self::Negative => "negative",
            Self::Absurd => "beyond anything possible",
            Self::Inconsistent => "contradicting themselves",
            Self::NotNewer => "not newer than the last",
            Self::Future => "from the future",
            Self::Late => "too late",
            Self::BeforeReset => "from before the reset",
            Self::TooManySeries => "of too many series",
            Self::Overflow => "too many between two checks",
            Self::ClockJump => "around a clock jump",
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Series {
    /// Newest sample that was let through; unknown after a clock jump.
    last: Option<Timestamp>,
    /// When it was last heard of or expected anew, by the clock of the checks.
    heard: Timestamp,
    /// Usual gap between samples, in milliseconds.
    gap_ms: Option<f64>,
    /// Reported missing in a row, and why the last time.
    missing: u32,
    reason: String,
}

/// The gate and what it noticed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telemetry {
    series: BTreeMap<String, Series>,
    dropped: BTreeMap<DropReason, u64>,
    /// Dropped since the last check, without the harmless.
    fresh: BTreeMap<DropReason, u64>,
    jump_ms: Option<i64>,
    not_before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Telemetry {
    pub(crate) fn drop_one(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    fn drop_many(&mut self, reason: DropReason, n: u64) {
        if n == 0 {
            return;
        }
        let add = |map: &mut BTreeMap<DropReason, u64>| {
            let count = map.entry(reason).or_insert(0);
            *count = count.saturating_add(n);
        };
        add(&mut self.dropped);
        if !reason.harmless() {
            add(&mut self.fresh);
        }
    }

    /// Samples dropped so far, by reason.
    pub(crate) fn dropped(&self) -> &BTreeMap<DropReason, u64> {
        &self.dropped
    }

    /// From now on samples measured before `at` count for nothing.
    pub(crate) fn not_before(&mut self, at: Timestamp) {
        self.not_before = Some(at);
    }

    /// The clock jumped: whatever waited is dropped, and no series' time is known.
    pub(crate) fn jumped(&mut self, by_ms: i64, waiting: usize, now: Timestamp) {
        self.drop_many(DropReason::ClockJump, waiting as u64);
        self.jump_ms = Some(by_ms);
        self.not_before = None;
        for series in self.series.values_mut() {
            series.last = None;
            series.heard = now;
        }
    }

    /// Lets a sample through, or drops and counts it.
    pub(crate) fn admit(&mut self, sample: &Sample, now: Timestamp, config: &DetectConfig) -> bool {
        match self.judge(sample, now, config) {
            Ok(()) => true,
            Err(reason) => {
                self.drop_one(reason);
                false
            }
        }
    }

    fn judge(
        &mut self,
        sample: &Sample,
        now: Timestamp,
        config: &DetectConfig,
    ) -> Result<(), DropReason> {
        let age = now.millis_since(sample.at);
        if age < -FUTURE_TOLERANCE_MS {
            return Err(DropReason::Future);
        }
        if age > config.interval_ms.saturating_mul(5).max(LATE_FLOOR_MS) {
            return Err(DropReason::Late);
        }
        let name = sample.series.as_str();
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(name) {
            return Err(DropReason::TooManySeries);
        }
        let series = self
            .series
            .entry(name.to_owned())
            .or_insert_with(|| Series {
                heard: now,
                ..Series::default()
            });
        if series.last.is_some_and(|last| sample.at <= last) {
            return Err(DropReason::NotNewer);
        }
        if let SampleValue::Missing { reason } = &sample.value {
            series.missing = series.missing.saturating_add(1);
            series.reason = reason
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(REASON_MAX)
                .collect();
            series.last = Some(sample.at);
            return Ok(());
        }
        if let Some(defect) = sample.defect() {
            return Err(defect);
        }
        if let Some(last) = series.last {
            let gap = sample.at.millis_since(last) as f64;
            series.gap_ms = Some(series.gap_ms.map_or(gap, |usual| 0.8 * usual + 0.2 * gap));
        }
        series.last = Some(sample.at);
        series.heard = now;
        series.missing = 0;
        series.reason.clear();
        if self.not_before.is_some_and(|start| sample.at < start) {
            return Err(DropReason::BeforeReset);
        }
        Ok(())
    }

    pub(crate) fn evaluate(&mut self, now: Timestamp, config: &DetectConfig) -> Evaluation {
        self.series.retain(|_, s| {
            now.millis_since(s.heard) <= SERIES_FORGET_MS.max(stale_after_ms(s, config))
        });
        let missing: Vec<(String, String)> = self
            .series
            .iter()
            .filter_map(|(name, s)| {
                let silent = now.millis_since(s.heard);
                if s.missing >= config.missing_in_a_row {
                    Some((name.clone(), s.reason.clone()))
                } else if silent > stale_after_ms(s, config) {
                    Some((name.clone(), format!("no sample for {} s", silent / 1000)))
                } else {
                    None
                }
            })
            .collect();
        let fresh = std::mem::take(&mut self.fresh);
        let jump = self.jump_ms.take();
        if missing.is_empty() && fresh.is_empty() && jump.is_none() {
            self.since = None;
            return Evaluation::GOOD;
        }
        let bad: u64 = fresh.values().fold(0, |sum, n| sum.saturating_add(*n));
        let since = *self.since.get_or_insert(now);
        Evaluation::bad(Finding {
            current: bad.saturating_add(missing.len() as u64) as f64,
            threshold: 0.0,
            unit: "count",
            details: details(&missing, &fresh, jump),
            service: None,
            source: SERIES.to_owned(),
            since,
            context: json!({
                "missing": missing.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                "dropped": fresh,
                "clock_jump_ms": jump,
            }),
        })
    }
}

/// Three of its usual gaps, or of the interval where that is longer.
fn stale_after_ms(series: &Series, config: &DetectConfig) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and gaps are far below the end of the range"
    )]
    let gap = series.gap_ms.unwrap_or(0.0) as i64;
    gap.max(config.interval_ms)
        .saturating_mul(3)
        .max(STALE_FLOOR_MS)
}

fn details(
    missing: &[(String, String)],
    fresh: &BTreeMap<DropReason, u64>,
    jump: Option<i64>,
) -> String {
    let mut parts = Vec::new();
    if let Some(ms) = jump {
        let way = if ms < 0 { "back" } else { "forward" };
        parts.push(format!(
            "the clock jumped {way} by {} s, or nothing was checked meanwhile",
            ms.saturating_abs() / 1000
        ));
    }
    for (reason, n) in fresh {
        parts.push(format!("{n} samples dropped: {}", reason.in_words()));
    }
    for (name, reason) in missing.iter().take(NAMES_IN_DETAILS_MAX) {
        parts.push(format!("{name} is missing: {reason}"));
    }
    if missing.len() > NAMES_IN_DETAILS_MAX {
        parts.push(format!(
            "{} more are missing",
            missing.len() - NAMES_IN_DETAILS_MAX
        ));
    }
    format!("Telemetry is not to be relied on: {}", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SeriesId;
    use crate::slot::Seen;

    fn counts(series: &str, ms: i64) -> Sample {
        Sample {
            at: Timestamp::from_millis(ms),
            series: SeriesId::new(series).unwrap(),
            value: SampleValue::Counts {
                errors: 0,
                total: 1,
            },
        }
    }

    fn now(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn what_came_twice_is_only_counted() {
        let (mut gate, config) = (Telemetry::default(), DetectConfig::default());
        assert!(gate.admit(&counts("a", 10), now(10), &config));
        assert!(!gate.admit(&counts("a", 10), now(11), &config));
        assert!(!gate.admit(&counts("a", 5), now(11), &config));
        assert_eq!(gate.dropped().get(&DropReason::NotNewer), Some(&2));
        assert_eq!(gate.evaluate(now(11), &config).seen, Seen::Good);
    }

    #[test]
    fn late_and_future_samples_are_noted() {
        let (mut gate, config) = (Telemetry::default(), DetectConfig::default());
        assert!(!gate.admit(&counts("a", 900_000), now(1000), &config));
        assert!(!gate.admit(&counts("a", 1), now(900_000), &config));
        let finding = gate.evaluate(now(900_000), &config).finding.unwrap();
        assert!(
            finding.details.contains("from the future"),
            "{}",
            finding.details
        );
        assert!(finding.details.contains("too late"), "{}", finding.details);
    }

    #[test]
    fn a_series_that_falls_silent_is_noted_and_later_no_longer_expected() {
        let (mut gate, config) = (Telemetry::default(), DetectConfig::default());
        assert!(gate.admit(&counts("a", 0), now(0), &config));
        assert_eq!(gate.evaluate(now(180_000), &config).seen, Seen::Good);
        let stale = gate.evaluate(now(180_001), &config);
        assert!(
            stale
                .finding
                .unwrap()
                .details
                .contains("a is missing: no sample for 180 s")
        );
        assert_eq!(
            gate.evaluate(now(SERIES_FORGET_MS + 1), &config).seen,
            Seen::Good
        );
    }

    #[test]
    fn one_missing_sample_is_not_yet_worth_a_note() {
        let (mut gate, config) = (Telemetry::default(), DetectConfig::default());
        let missing = |ms| Sample {
            value: SampleValue::Missing {
                reason: "scrape failed".into(),
            },
            ..counts("a", ms)
        };
        assert!(gate.admit(&missing(1), now(1), &config));
        assert_eq!(gate.evaluate(now(1), &config).seen, Seen::Good);
        assert!(gate.admit(&missing(2), now(2), &config));
        assert_eq!(gate.evaluate(now(2), &config).seen, Seen::Bad);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let (mut gate, config) = (Telemetry::default(), DetectConfig::default());
        for i in 0..1000 {
            gate.admit(&counts(&format!("s{i}"), 1), now(1), &config);
        }
        assert_eq!(gate.series.len(), SERIES_MAX);
        assert_eq!(
            gate.dropped().get(&DropReason::TooManySeries),
            Some(&(1000 - SERIES_MAX as u64))
        );
    }
}
