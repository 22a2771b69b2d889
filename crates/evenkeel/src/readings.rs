//! From what collectors read to what the detectors follow: which kind of series a figure is, and in which unit.

use evenkeel_detect::follow::{Kind, Point};
use evenkeel_edge::collect::reading::{Reading, ReadingKind};

/// Words in the name of a share that say that it counts failures.
const FAILURES: [&str; 3] = ["error", "fail", "5xx"];

/// The point that a reading is; nothing for what only ever grows and so has no usual level: its rate is followed.
pub(crate) fn point(reading: &Reading) -> Option<Point<'_>> {
    let name = base(&reading.series);
    let (kind, factor, n) = match reading.kind {
        ReadingKind::Rate => (Kind::Rate, 1.0, None),
        ReadingKind::Gauge if is_memory(&reading.series, name) => (Kind::Memory, 1.0, None),
        ReadingKind::Quantile { n } if name.ends_with("_seconds") => {
            (Kind::Latency, 1000.0, Some(n))
        }
        ReadingKind::Quantile { n }
            if ["_milliseconds", "_ms"]
                .iter()
                .any(|unit| name.ends_with(unit)) =>
        {
            (Kind::Latency, 1.0, Some(n))
        }
        ReadingKind::Quantile { n } => (Kind::Gauge, 1.0, Some(n)),
        ReadingKind::Share { n } if FAILURES.iter().any(|word| name.contains(word)) => {
            (Kind::Errors, 1.0, Some(n))
        }
        ReadingKind::Gauge | ReadingKind::Share { .. } => (Kind::Gauge, 1.0, None),
        ReadingKind::Total => return None,
    };
    Some(Point {
        series: &reading.series,
        service: reading.service.as_deref(),
        kind,
        at: reading.at,
        value: reading.value * factor,
        n,
        silent: false,
    })
}

/// The name without its labels, and without a quantile's.
fn base(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// Memory of a process, which must not grow for ever; the size of anything else is a gauge.
fn is_memory(series: &str, name: &str) -> bool {
    name.ends_with("/process_resident_memory_bytes")
        || series
            .strip_prefix("process/")
            .is_some_and(|s| s.ends_with("/rss_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::Timestamp;

    #[test]
    fn names_and_kinds_say_what_a_series_shows() {
        use ReadingKind::{Gauge, Quantile, Rate, Share, Total};
        for (series, kind, expected) in [
            ("http_requests_total{code=\"200\"}", Rate, Some(Kind::Rate)),
            ("queue_depth", Gauge, Some(Kind::Gauge)),
            ("process/api/rss_bytes", Gauge, Some(Kind::Memory)),
            ("process/api/pss_bytes", Gauge, Some(Kind::Gauge)),
            (
                "app/process_resident_memory_bytes",
                Gauge,
                Some(Kind::Memory),
            ),
            (
                "request_duration_seconds{q=\"0.95\"}",
                Quantile { n: 9 },
                Some(Kind::Latency),
            ),
            (
                "batch_rows{q=\"0.95\"}",
                Quantile { n: 9 },
                Some(Kind::Gauge),
            ),
            ("log/api/error_share", Share { n: 9 }, Some(Kind::Errors)),
            (
                "process/api/open_files_share",
                Share { n: 9 },
                Some(Kind::Gauge),
            ),
            ("process/api/cpu_seconds", Total, None),
        ] {
            let reading = Reading {
                series: series.into(),
                service: None,
                at: Timestamp::from_millis(1),
                value: 0.5,
                kind,
            };
            assert_eq!(point(&reading).map(|p| p.kind), expected, "{series}");
        }
    }
}
