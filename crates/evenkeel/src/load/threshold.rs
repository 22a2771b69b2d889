//! Limits that a run must keep, such as `p95 < 300ms`: how they are written, and whether they were kept.
//!
//! They are judged on the document that is saved, so that whoever reads it comes to the same verdict.

use evenkeel_stress::words::time;

use super::report::{Percentiles, Report, Verdict};
use super::values;

/// A limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    figure: Figure,
    below: bool,
    or_equal: bool,
    /// In milliseconds, percent, or requests a second.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Latency(Which),
    Service(Which),
    Errors,
    Throughput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    P50,
    P75,
    P90,
    P95,
    P99,
    P999,
    P9999,
    Max,
    Mean,
}

const WHICH: [(&str, Which); 10] = [
    ("p50", Which::P50),
    ("median", Which::P50),
    ("p75", Which::P75),
    ("p90", Which::P90),
    ("p95", Which::P95),
    ("p99", Which::P99),
    ("p99.9", Which::P999),
    ("p99.99", Which::P9999),
    ("max", Which::Max),
    ("mean", Which::Mean),
];

const RIGHT: &str = "write 'p95 < 300ms', 'service.p99 < 1s', 'errors < 1%' or 'throughput > 100/s'; figures are p50, p75, p90, p95, p99, p99.9, p99.99, max, mean, errors and throughput";

/// Reads a limit.
pub(super) fn parse(text: &str) -> Result<Threshold, String> {
    let wrong = || format!("`{text}` is no threshold; {RIGHT}");
    let at = text.find(['<', '>']).ok_or_else(wrong)?;
    let below = text[at..].starts_with('<');
    let or_equal = text[at + 1..].starts_with('=');
    let name = text[..at].trim().to_ascii_lowercase();
    let value = text[at + 1 + usize::from(or_equal)..].trim();
    let figure = figure(&name).ok_or_else(wrong)?;
    let limit = match figure {
        Figure::Latency(_) | Figure::Service(_) => {
            let limit =
                time(value).map_err(|e| format!("{e}; a threshold is written as 'p95 < 300ms'"))?;
            limit.as_secs_f64() * 1000.0
        }
        Figure::Errors => {
            values::percent(value)
                .ok_or_else(|| format!("`{text}`: write the share as in 'errors < 1%'"))?
                * 100.0
        }
        Figure::Throughput => {
            let number = value
                .strip_suffix("/s")
                .or_else(|| value.strip_suffix("rps"))
                .unwrap_or(value);
            number
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n >= 0.0)
                .ok_or_else(|| format!("`{text}`: write the rate as in 'throughput > 100/s'"))?
        }
    };
    // The other way round it would fail whenever the target is good.
    if below == (figure == Figure::Throughput) {
        let turned = if below { '>' } else { '<' };
        return Err(format!("`{text}` would ask for a bad target; use {turned}"));
    }
    Ok(Threshold {
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        figure,
        below,
        or_equal,
        limit,
    })
}

fn figure(name: &str) -> Option<Figure> {
    let which = |name: &str| {
        WHICH
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, which)| *which)
    };
    match name {
        "errors" => Some(Figure::Errors),
        "throughput" | "rps" => Some(Figure::Throughput),
        _ => match name.split_once('.') {
            Some(("service", name)) => which(name).map(Figure::Service),
            Some(("latency", name)) => which(name).map(Figure::Latency),
            _ => which(name).map(Figure::Latency),
        },
    }
}

impl Threshold {
    /// Whether a run kept it. Where nothing was measured it was not kept.
    pub(super) fn judge(&self, report: &Report) -> Verdict {
        let (measured, unit) = match self.figure {
            Figure::Latency(which) => (latency(which, &report.latency_ms, report), "ms"),
            Figure::Service(which) => (latency(which, &report.service_ms, report), "ms"),
            Figure::Errors => {
                // A request that never left because the target was too slow is no good one.
                let failed = report.failed + report.unsent;
                let all = report.requests + report.unsent;
                ((all > 0).then(|| failed as f64 / all as f64 * 100.0), "%")
            }
            Figure::Throughput => ((report.requests > 0).then_some(report.throughput_rps), "/s"),
        };
        let kept = |measured: f64| {
            let strictly = if self.below {
                measured < self.limit
            } else {
                measured > self.limit
            };
            strictly || (self.or_equal && measured.total_cmp(&self.limit).is_eq())
        };
        Verdict {
            text: self.text.clone(),
            measured,
            limit: self.limit,
            unit: unit.to_owned(),
            passed: measured.is_some_and(kept),
        }
    }
}

fn latency(which: Which, p: &Percentiles, report: &Report) -> Option<f64> {
    let measured = !report.latency_histogram.us.is_empty();
    measured.then_some(match which {
        Which::P50 => p.p50,
        Which::P75 => p.p75,
        Which::P90 => p.p90,
        Which::P95 => p.p95,
        Which::P99 => p.p99,
        Which::P999 => p.p99_9,
        Which::P9999 => p.p99_99,
        Which::Max => p.max,
        Which::Mean => p.mean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::example;

    fn kept(text: &str, report: &Report) -> bool {
        parse(text).unwrap().judge(report).passed
    }

    #[test]
    fn limits_are_judged_by_what_was_measured() {
        let mut report = example();
        report.requests = 1_000;
        report.failed = 10;
        report.throughput_rps = 200.0;
        report.latency_ms.p95 = 300.0;
        report.latency_ms.p99_9 = 800.0;
        report.service_ms.p95 = 20.0;
        for good in [
            "p95 <= 300ms",
            "p95<301ms",
            "P99.9 < 1s",
            "service.p95 < 21ms",
            "latency.p95 < 0.4s",
            "errors <= 1%",
            "errors < 1.1%",
            "throughput > 199/s",
            "rps >= 200",
            "throughput > 100 rps",
        ] {
            assert!(kept(good, &report), "{good}");
        }
        for missed in [
            "p95 < 300ms",
            "p99.9 < 800ms",
            "service.p95 < 20ms",
            "errors < 1%",
            "throughput > 200/s",
        ] {
            assert!(!kept(missed, &report), "{missed}");
        }
        report.unsent = 1_000;
        let verdict = parse("errors < 50%").unwrap().judge(&report);
        assert!(!verdict.passed && verdict.measured == Some(50.5));
    }

    #[test]
    fn where_nothing_was_measured_nothing_was_kept() {
        let mut report = example();
        report.requests = 0;
        report.unsent = 0;
        report.latency_histogram.us.clear();
        for text in ["p95 < 1h", "errors <= 100%", "throughput >= 0"] {
            assert!(!kept(text, &report), "{text}");
        }
    }

    #[test]
    fn what_is_no_threshold_is_told_with_what_would_be_one() {
        for bad in [
            "",
            "p95",
            "p95 < 300",
            "p95 = 3ms",
            "p96 < 3ms",
            "x.p95 < 3ms",
            "errors < 1",
            "errors < x%",
            "throughput > x",
            "p95 < -1ms",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (turned, sign) in [
            ("p95 > 300ms", '<'),
            ("errors > 1%", '<'),
            ("throughput < 5/s", '>'),
        ] {
            assert!(parse(turned).unwrap_err().ends_with(sign), "{turned}");
        }
    }
}
