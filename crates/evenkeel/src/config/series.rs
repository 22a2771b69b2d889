//! `[watchdog.series]`: how series are followed.

use evenkeel_detect::{DetectConfig, FollowConfig};
use serde::Deserialize;

use super::Config;

/// `[watchdog.series]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeriesSection {
    /// Most series that are followed: 0 to 200 000; one takes about 3 KiB.
    pub series_max: usize,
    /// Alarms a month that chance alone may raise and that are strong enough to act on: above 0, at most 1 000.
    pub heal_alarms_per_month: f64,
    /// Alarms a month that chance alone may raise as notes: above 0, at most 1 000.
    pub notify_alarms_per_month: f64,
    /// How long a new level stays without other trouble until it is usual, in seconds: 60 to 31 days.
    pub adopt_after_s: u64,
    /// How long after a deploy nothing of a series is judged, in seconds: 0 to 7 days.
    pub deploy_window_s: u64,
}

impl Default for SeriesSection {
    fn default() -> Self {
        let follow = FollowConfig::default();
        Self {
            series_max: follow.series_max,
            heal_alarms_per_month: follow.heal_alarms_per_month,
            notify_alarms_per_month: follow.notify_alarms_per_month,
            adopt_after_s: follow.adopt_after_ms.unsigned_abs() / 1000,
            deploy_window_s: follow.deploy_window_ms.unsigned_abs() / 1000,
        }
    }
}

impl SeriesSection {
    /// The key and the mistake, if there is one.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let whole = |key, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err((key, format!("{value} is not from {low} to {high}")))
            }
        };
        whole("series_max", self.series_max as u64, 0, 200_000)?;
        whole("adopt_after_s", self.adopt_after_s, 60, 31 * 86_400)?;
        whole("deploy_window_s", self.deploy_window_s, 0, 7 * 86_400)?;
        for (key, value) in [
            ("heal_alarms_per_month", self.heal_alarms_per_month),
            ("notify_alarms_per_month", self.notify_alarms_per_month),
        ] {
            if !(value > 0.0 && value <= 1000.0) {
                return Err((key, format!("{value} is not above 0 and at most 1000")));
            }
        }
        if self.heal_alarms_per_month > self.notify_alarms_per_month {
            return Err((
                "heal_alarms_per_month",
                format!(
                    "{} is more than notify_alarms_per_month, {}: what is acted on is noted too",
                    self.heal_alarms_per_month, self.notify_alarms_per_month
                ),
            ));
        }
        Ok(())
    }
}

impl From<SeriesSection> for FollowConfig {
    fn from(s: SeriesSection) -> Self {
        let ms = |s: u64| {
            i64::try_from(s)
                .unwrap_or(i64::MAX / 1000)
                .saturating_mul(1000)
        };
        Self {
            series_max: s.series_max,
            heal_alarms_per_month: s.heal_alarms_per_month,
            notify_alarms_per_month: s.notify_alarms_per_month,
            adopt_after_ms: ms(s.adopt_after_s),
            deploy_window_ms: ms(s.deploy_window_s),
            ..Self::default()
        }
    }
}

impl Config {
    /// The detectors' habits, with what `[watchdog]` says itself.
    pub(crate) fn detectors(&self) -> DetectConfig {
        let mut detect = self.watchdog.detect.clone();
        detect.interval_ms = i64::try_from(self.watchdog.interval_ms).unwrap_or(i64::MAX);
        detect.probe_deadline_ms = self.watchdog.probe_timeout_ms as f64;
        detect
    }
}
