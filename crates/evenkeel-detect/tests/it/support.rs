//! Samples in few words.

use evenkeel_core::time::Timestamp;
use evenkeel_detect::{
    DetectConfig, ProbeError, Sample, SampleValue, SeriesId, Thresholds, Verdict, Watchdog,
};

pub(crate) const SECOND: i64 = 1_000;
/// Far enough from the epoch that nothing saturates by accident.
pub(crate) const START: i64 = 1_762_715_000_000;

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(START.saturating_add(ms))
}

pub(crate) fn sample(series: &str, ms: i64, value: SampleValue) -> Sample {
    Sample {
        at: at(ms),
        series: SeriesId::new(series).expect("a short name"),
        value,
    }
}

pub(crate) fn probe(ms: i64, latency_ms: f64, error: Option<ProbeError>) -> Sample {
    let value = SampleValue::Probe {
        service: Some("api".into()),
        endpoint: "GET /health".into(),
        ok: error.is_none(),
        latency_ms,
        error,
    };
    sample("probe/api", ms, value)
}

pub(crate) fn counts(ms: i64, errors: u64, total: u64) -> Sample {
    sample("http", ms, SampleValue::Counts { errors, total })
}

pub(crate) fn memory(ms: i64, process: u64, mb: u64) -> Sample {
    let value = SampleValue::Memory {
        service: Some("api".into()),
        process,
        rss_bytes: mb * 1_048_576,
    };
    sample("rss/api", ms, value)
}

pub(crate) fn runs(ms: i64, failed: u64, total: u64) -> Sample {
    sample("playbooks", ms, SampleValue::PlaybookRuns { failed, total })
}

pub(crate) fn down(ms: i64) -> Sample {
    let value = SampleValue::ServiceDown {
        service: "api".into(),
        detail: "killed by signal 9".into(),
    };
    sample("supervisor/api", ms, value)
}

pub(crate) fn up(ms: i64) -> Sample {
    sample(
        "supervisor/api",
        ms,
        SampleValue::ServiceUp {
            service: "api".into(),
        },
    )
}

/// Checks once a second; memory is judged after five.
pub(crate) fn config() -> DetectConfig {
    DetectConfig {
        interval_ms: SECOND,
        memory_min_span_ms: 5 * SECOND,
        memory_warmup_ms: 0,
        ..DetectConfig::default()
    }
}

pub(crate) fn watchdog() -> Watchdog {
    Watchdog::new(config(), Thresholds::default(), None)
}

/// `+key` raised, `-key` cleared, `~key` suppressed; what continues is left out.
pub(crate) fn told(verdicts: Vec<Verdict>) -> Vec<String> {
    verdicts
        .into_iter()
        .filter_map(|verdict| match verdict {
            Verdict::Raised(anomaly) => Some(format!("+{}", anomaly.key())),
            Verdict::Cleared { key, .. } => Some(format!("-{key}")),
            Verdict::Suppressed { key, .. } => Some(format!("~{key}")),
            Verdict::Continues { .. } => None,
        })
        .collect()
}

/// One check a second: the samples of each second, and what was told with the second it was told in.
pub(crate) fn story(
    watchdog: &mut Watchdog,
    seconds: std::ops::Range<i64>,
    samples: impl Fn(i64) -> Vec<Sample>,
) -> Vec<(i64, String)> {
    seconds
        .flat_map(|s| {
            for sample in samples(s) {
                watchdog.observe(&sample);
            }
            told(watchdog.check(at(s * SECOND)))
                .into_iter()
                .map(move |line| (s, line))
        })
        .collect()
}
