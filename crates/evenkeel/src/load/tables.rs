//! A run as CSV: its figures, and its course.

use std::io::Write;

use evenkeel_core::measure::LatencySummary;

use super::report::{Percentiles, Report};

/// A row for the run, and one for each of several requests.
pub(super) fn figures(report: &Report, out: impl Write) -> Result<(), csv::Error> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        "name",
        "requests",
        "errors",
        "throughput_rps",
        "p50_ms",
        "p75_ms",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "p99.9_ms",
        "p99.99_ms",
        "max_ms",
        "mean_ms",
        "service_p50_ms",
        "service_p99_ms",
        "service_max_ms",
    ])?;
    let s = &report.service_ms;
    let mut all = vec![
        report.run.url.clone(),
        report.requests.to_string(),
        report.failed.to_string(),
        report.throughput_rps.to_string(),
    ];
    all.extend(percentiles(&report.latency_ms));
    all.extend([s.p50, s.p99, s.max].map(|v| v.to_string()));
    csv.write_record(all)?;
    for one in &report.per_request {
        let errors: u64 = one.errors.values().sum();
        let mut row = vec![
            one.name.clone(),
            one.requests.to_string(),
            errors.to_string(),
            String::new(),
        ];
        row.extend(percentiles(&one.latency_ms));
        // It is kept for the run as a whole only.
        row.extend(std::iter::repeat_n(String::new(), 3));
        csv.write_record(row)?;
    }
    csv.flush()?;
    Ok(())
}

fn percentiles(p: &Percentiles) -> impl Iterator<Item = String> + use<> {
    [
        p.p50, p.p75, p.p90, p.p95, p.p99, p.p99_9, p.p99_99, p.max, p.mean,
    ]
    .into_iter()
    .map(|v| v.to_string())
}

/// A row for each interval.
pub(super) fn series(report: &Report, out: impl Write) -> Result<(), csv::Error> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        "at_s",
        "length_s",
        "requests",
        "answered",
        "errors",
        "throughput_rps",
        "p50_ms",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "max_ms",
        "mean_ms",
        "service_p50_ms",
        "service_p90_ms",
        "service_p95_ms",
        "service_p99_ms",
        "service_max_ms",
        "service_mean_ms",
    ])?;
    let summary = |l: &LatencySummary| [l.p50, l.p90, l.p95, l.p99, l.max, l.mean];
    for point in &report.series {
        let mut row = vec![
            point.at_s.to_string(),
            point.length_s.to_string(),
            point.requests.to_string(),
            point.answered.to_string(),
            point.errors.to_string(),
            point.throughput_rps.to_string(),
        ];
        let both = [summary(&point.latency_ms), summary(&point.service_ms)];
        row.extend(both.into_iter().flatten().map(|v| v.to_string()));
        csv.write_record(row)?;
    }
    csv.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::example;

    #[test]
    fn every_row_has_every_column() {
        let report = example();
        let (mut of_run, mut of_course) = (Vec::new(), Vec::new());
        figures(&report, &mut of_run).unwrap();
        series(&report, &mut of_course).unwrap();
        for (out, rows) in [(&of_run, 3), (&of_course, 2)] {
            // The reader refuses rows of another length than the first.
            let read: Vec<csv::StringRecord> = csv::Reader::from_reader(out.as_slice())
                .records()
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(read.len(), rows);
        }
        let text = String::from_utf8(of_run).unwrap();
        assert!(
            text.contains("http://127.0.0.1:8080/api,200,3,99.5,1.2,"),
            "{text}"
        );
    }
}
