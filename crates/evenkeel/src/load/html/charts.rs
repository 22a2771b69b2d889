//! The plots of a run's page.

use crate::load::plot::{Axis, Colour, Plot, Shape};
use crate::load::report::{Buckets, Pacing, Point, Report};

/// Bars of the histogram at most.
const BARS_MAX: f64 = 72.0;
/// A bar is at least so much wider than its left end, so that none falls between two buckets.
const BAR_RATIO_MIN: f64 = 1.04;
/// How many times the smallest the largest latency must be for a logarithmic axis.
const LOG_FROM: f64 = 40.0;

/// The last interval of a run is not drawn when it is shorter than this part of the first.
const REST_PART: f64 = 0.25;

/// Percentiles, and the histogram.
pub(super) fn latency(out: &mut String, report: &Report) {
    let total = report.latency_histogram.count();
    if total == 0 {
        out.push_str("<p>No request was answered, so there is no latency.</p>\n");
        return;
    }
    let latency = quantiles(&report.latency_histogram);
    let service = quantiles(&report.service_histogram);
    let values = latency.iter().chain(&service).map(|(_, ms)| *ms);
    let y = Axis::fitting(values, LOG_FROM);
    let mut plot = Plot::new(
        "Latency by percentile, ms",
        "share of requests that took no longer",
        Axis::nines(total),
        y,
    );
    if service.is_empty() {
        plot = plot.with(Shape::Line(latency), Colour::Blue, "latency");
    } else {
        plot = plot
            .with(
                Shape::Dashed(service),
                Colour::Orange,
                "from the actual send",
            )
            .with(
                Shape::Line(latency),
                Colour::Blue,
                "from the intended start",
            );
    }
    out.push_str(&plot.inline());
    out.push_str(&histogram(report).inline());
    out.push('\n');
}

/// The share of requests up to each bucket, with its latency in milliseconds: as a staircase's upper corners.
fn quantiles(buckets: &Buckets) -> Vec<(f64, f64)> {
    let total = buckets.count() as f64;
    let mut before = 0;
    let mut points = Vec::with_capacity(buckets.us.len() * 2);
    for (us, n) in &buckets.us {
        let ms = *us as f64 / 1000.0;
        points.push((before as f64 / total, ms));
        before += n;
        // The last bucket is drawn to where the axis ends.
        points.push(((before as f64 / total).min(1.0 - 1.0 / total.max(10.0)), ms));
    }
    points
}

fn histogram(report: &Report) -> Plot {
    let buckets = &report.latency_histogram;
    let total = buckets.count() as f64;
    let low = buckets.us.first().map_or(1.0, |(us, _)| *us as f64);
    let high = buckets.us.last().map_or(1.0, |(us, _)| *us as f64);
    let ratio = (high / low).powf(1.0 / BARS_MAX).max(BAR_RATIO_MIN);
    let mut shares = std::collections::BTreeMap::new();
    for (us, n) in &buckets.us {
        // Whole and small: at most the number of bars.
        let bar = ((*us as f64 / low).ln() / ratio.ln()).floor();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the number of bars"
        )]
        let slot = shares.entry(bar as i64).or_insert(0.0);
        *slot += *n as f64 / total * 100.0;
    }
    let edge = |bar: i64| low * ratio.powf(bar as f64) / 1000.0;
    let most = shares.values().copied().fold(0.0, f64::max);
    let bars: Vec<_> = shares
        .into_iter()
        .map(|(bar, share)| (edge(bar), edge(bar + 1), share))
        .collect();
    let ends = bars.iter().flat_map(|(from, to, _)| [*from, *to]);
    let x = Axis::log(ends);
    let mut plot = Plot::new(
        "Latency histogram, % of requests",
        "latency, ms",
        x,
        Axis::from_zero(most),
    )
    .with(Shape::Bars(bars), Colour::Blue, "");
    let p = &report.latency_ms;
    for (value, name) in [(p.p50, "p50"), (p.p95, "p95"), (p.p99, "p99")] {
        plot = plot.with(Shape::Mark(value, name.to_owned()), Colour::Grey, "");
    }
    plot
}

/// Throughput, latency and errors over time.
pub(super) fn course(out: &mut String, report: &Report) {
    let Some(last) = report.series.last() else {
        out.push_str("<p>Nothing ended, so there is no course.</p>\n");
        return;
    };
    let end = last.at_s + last.length_s;
    out.push_str(&throughput(report, end).inline());
    out.push_str(&percentiles(report, end).inline());
    if report.failed > 0 {
        out.push_str(&failures(report, end).inline());
    }
    out.push('\n');
}

/// A staircase of a value of each interval; `between`: what it is where nothing ended.
fn steps(series: &[Point], between: f64, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut points = Vec::with_capacity(series.len() * 2);
    let mut end = 0.0;
    // What is left over at the end of a run says nothing by itself.
    let usual = series.first().map_or(0.0, |p| p.length_s);
    let whole = match series {
        [rest @ .., last] if last.length_s < usual * REST_PART => rest,
        all => all,
    };
    for point in whole {
        if point.at_s > end + 1e-6 {
            points.push((end, between));
            points.push((point.at_s, between));
        }
        end = point.at_s + point.length_s;
        points.push((point.at_s, value(point)));
        points.push((end, value(point)));
    }
    points
}

fn throughput(report: &Report, end: f64) -> Plot {
    let done = steps(&report.series, 0.0, |p| p.throughput_rps);
    let mut planned = Vec::new();
    if let Pacing::Open {
        rate_from,
        rate_to,
        ramp_ms,
        duration_ms,
        ..
    } = &report.run.load
    {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        // The ramp begins with the warm-up, the plot after it.
        let warm_up = seconds(report.run.warm_up_ms);
        let over = seconds(*ramp_ms);
        let at = |t: f64| {
            let t = t + warm_up;
            if t >= over {
                *rate_to
            } else {
                rate_from + (rate_to - rate_from) * t / over
            }
        };
        let knee = (over - warm_up).max(0.0);
        let until = seconds(*duration_ms).min(end);
        planned = vec![
            (0.0, at(0.0)),
            (knee.min(until), at(knee.min(until))),
            (until, at(until)),
        ];
    }
    let most = done
        .iter()
        .chain(&planned)
        .map(|(_, y)| *y)
        .fold(0.0, f64::max);
    let mut plot = Plot::new(
        "Answered requests a second",
        "time in the run",
        Axis::seconds(end),
        Axis::from_zero(most),
    );
    if !planned.is_empty() {
        plot = plot.with(Shape::Dashed(planned), Colour::Grey, "planned");
    }
    plot.with(Shape::Line(done), Colour::Blue, "answered")
}

fn percentiles(report: &Report, end: f64) -> Plot {
    let all = |f: fn(&Point) -> f64| {
        steps(&report.series, f64::NAN, move |p| {
            if p.requests > 0 { f(p) } else { f64::NAN }
        })
    };
    let lines = [
        (all(|p| p.latency_ms.p99), Colour::Violet, "p99"),
        (all(|p| p.latency_ms.p95), Colour::Orange, "p95"),
        (all(|p| p.latency_ms.p50), Colour::Blue, "p50"),
    ];
    let service = report.is_open().then(|| all(|p| p.service_ms.p99));
    let values = lines
        .iter()
        .map(|(points, _, _)| points)
        .chain(service.as_ref());
    let y = Axis::fitting(values.flatten().map(|(_, ms)| *ms), LOG_FROM);
    let mut plot = Plot::new(
        "Latency by time, ms",
        "time in the run",
        Axis::seconds(end),
        y,
    );
    if let Some(service) = service {
        plot = plot.with(
            Shape::Dashed(service),
            Colour::Grey,
            "p99 from the actual send",
        );
    }
    for (points, colour, name) in lines {
        plot = plot.with(Shape::Line(points), colour, name);
    }
    plot
}

fn failures(report: &Report, end: f64) -> Plot {
    let rate = |p: &Point| p.errors as f64 / p.length_s.max(1e-3);
    let bars: Vec<_> = report
        .series
        .iter()
        .map(|p| (p.at_s, p.at_s + p.length_s, rate(p)))
        .collect();
    let most = bars.iter().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
    Plot::new(
        "Failed requests a second",
        "time in the run",
        Axis::seconds(end),
        Axis::from_zero(most),
    )
    .with(Shape::Bars(bars), Colour::Red, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::example::report;

    #[test]
    fn the_percentile_curve_goes_through_the_percentiles() {
        let buckets = Buckets {
            digits: 3,
            us: vec![(1_000, 90), (2_000, 9), (50_000, 1)],
        };
        let curve = quantiles(&buckets);
        assert_eq!(
            curve,
            [
                (0.0, 1.0),
                (0.9, 1.0),
                (0.9, 2.0),
                (0.99, 2.0),
                (0.99, 50.0),
                (0.99, 50.0)
            ]
        );
    }

    #[test]
    fn a_gap_is_a_second_without_throughput_and_no_latency() {
        let mut report = report(10, 5.0, 1);
        report.series.remove(4);
        let done = steps(&report.series, 0.0, |p| p.throughput_rps);
        assert_eq!(done.iter().filter(|(_, y)| *y == 0.0).count(), 2);
        assert_eq!(
            percentiles(&report, 10.0).inline().matches("<path").count(),
            8,
            "each line in two pieces"
        );
    }

    #[test]
    fn all_requests_are_in_the_histogram() {
        let report = report(10, 5.0, 1);
        let svg = histogram(&report).inline();
        assert!(svg.matches("<rect").count() > 20);
        let ends: u64 = report.latency_histogram.count();
        assert_eq!(ends, 20_000);
    }
}
