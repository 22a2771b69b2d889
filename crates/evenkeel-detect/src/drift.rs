//! Drift: a measure left its healthy value without crossing a fixed limit. A note, never acted on.
//!
//! A measure has drifted when it is several times its healthy value *and* more than that by an amount a user could
//! notice, and stays so. The healthy value comes from the baseline; where that has none, the mean of the first quiet
//! checks is learned once and then kept, so nothing that creeps up becomes normal by itself.

use evenkeel_core::anomaly::format_measure;
use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::slot::{Evaluation, Finding, Seen};

/// Anomalies of this monitor have the series `drift/` and one of these.
pub const SERIES_PREFIX: &str = "drift/";

/// The measures that may drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    ErrorRate,
    Latency,
    Memory,
}

impl Signal {
    pub(crate) const ALL: [Self; 3] = [Self::ErrorRate, Self::Latency, Self::Memory];

    /// The series of its anomalies.
    pub(crate) fn series(self) -> &'static str {
        match self {
            Self::ErrorRate => "drift/error_rate",
            Self::Latency => "drift/latency_p95",
            Self::Memory => "drift/memory",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::ErrorRate => "ratio",
            Self::Latency => "ms",
            Self::Memory => "MB",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::ErrorRate => "Error rate",
            Self::Latency => "p95 response time",
            Self::Memory => "Memory",
        }
    }

    fn least(self, config: &DetectConfig) -> f64 {
        match self {
            Self::ErrorRate => config.drift_error_share,
            Self::Latency => config.drift_latency_ms,
            Self::Memory => config.drift_memory_mb,
        }
    }
}

/// What one signal is compared with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reference {
    given: Option<f64>,
    sum: f64,
    checks: u32,
    since: Option<Timestamp>,
}

impl Reference {
    pub(crate) fn given(value: Option<f64>) -> Self {
        Self {
            given: value.filter(|v| v.is_finite()),
            ..Self::default()
        }
    }

    /// The healthy value, where one is known.
    pub(crate) fn value(&self, config: &DetectConfig) -> Option<f64> {
        self.given.or_else(|| {
            let learned = self.checks >= config.drift_learn_checks.max(1);
            learned.then(|| self.sum / f64::from(self.checks))
        })
    }

    /// Learns from a quiet check, as long as nothing is known yet.
    pub(crate) fn learn(&mut self, value: f64, config: &DetectConfig) {
        if self.value(config).is_none() && value.is_finite() {
            self.sum += value;
            self.checks += 1;
        }
    }

    /// `limit` is the fixed limit of the signal, beyond which this is somebody else's business; `fresh` that something
    /// new speaks for drift, and not only what is left in a window of an incident that is over.
    pub(crate) fn evaluate(
        &mut self,
        signal: Signal,
        value: Option<f64>,
        limit: Option<f64>,
        fresh: bool,
        now: Timestamp,
        config: &DetectConfig,
    ) -> Evaluation {
        let (Some(value), Some(healthy)) = (value, self.value(config)) else {
            return Evaluation::UNKNOWN;
        };
        if limit.is_some_and(|limit| value > limit) {
            return Evaluation::OVER;
        }
        let bound = (healthy * config.drift_factor).max(healthy + signal.least(config));
        if value <= bound {
            self.since = None;
            return Evaluation::GOOD;
        }
        let (unit, what) = (signal.unit(), signal.in_words());
        let finding = Finding {
            current: value,
            threshold: bound,
            unit,
            details: format!(
                "{what} is {}, healthy is {}; no fixed threshold is crossed",
                plain(value, unit),
                plain(healthy, unit),
            ),
            service: None,
            source: signal.series().to_owned(),
            since: *self.since.get_or_insert(now),
            context: json!({ "learned": self.given.is_none() }),
        };
        Evaluation {
            seen: if fresh { Seen::Bad } else { Seen::BadStill },
            finding: Some(finding),
        }
    }
}

/// A level and not a difference: without the sign that growth is written with.
fn plain(value: f64, unit: &str) -> String {
    format_measure(value, unit)
        .trim_start_matches('+')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(healthy: f64, value: f64) -> Seen {
        Reference::given(Some(healthy))
            .evaluate(
                Signal::Latency,
                Some(value),
                Some(2000.0),
                true,
                Timestamp::default(),
                &DetectConfig::default(),
            )
            .seen
    }

    #[test]
    fn both_the_factor_and_the_amount_are_needed() {
        for (healthy, value, expected) in [
            (10.0, 30.0, Seen::Good),     // three times, but 20 ms
            (1000.0, 1500.0, Seen::Good), // 500 ms, but one and a half times
            (100.0, 200.0, Seen::Good),   // exactly at the bound
            (100.0, 400.0, Seen::Bad),
            (100.0, 2001.0, Seen::Over), // beyond the fixed limit
        ] {
            assert_eq!(seen(healthy, value), expected, "{healthy} -> {value}");
        }
    }

    #[test]
    fn a_healthy_value_is_learned_once() {
        let (mut reference, config) = (Reference::default(), DetectConfig::default());
        for _ in 0..config.drift_learn_checks {
            assert_eq!(reference.value(&config), None);
            reference.learn(50.0, &config);
        }
        reference.learn(5000.0, &config);
        assert_eq!(reference.value(&config), Some(50.0));
    }
}
