//! Two runs of load beside each other: better, worse or the same, and how sure that is.
//!
//! A percentage of two noisy numbers says nothing: two runs of the same thing always differ. The requests of one run
//! are not independent either: they share queues, caches and the second in which something else ran. So what is compared
//! is the *seconds* of the two runs: each has its throughput and its percentiles, and Mann and Whitney's test with
//! Hodges and Lehmann's shift ([`samples`](evenkeel_detect::samples)) says whether those of the new run lie elsewhere.
//! Seconds that follow each other resemble each other too; how much is measured, and the intervals widen by it. Failures
//! are counted in their seconds ([`shares`](evenkeel_detect::shares)), so that one burst is not fifty proofs.
//!
//! What a typical second does not show is a rare stall; where the whole runs differ widely and the typical seconds do
//! not, a note says so.

mod text;

use evenkeel_detect::samples::{SAMPLE_MIN, Shift, inflation, shift};
use evenkeel_detect::shares::share_change;
use serde::{Deserialize, Serialize};

use super::report::{Point, Report};

/// Confidence of each interval. There are five figures, so that all of them together hold with 95 %.
pub const CONFIDENCE: f64 = 0.99;
/// Smallest difference of throughput and latency that matters, as a share of the old: what moves less from one run of
/// the same thing to the next cannot be told from it.
pub const SMALLEST_SHARE: f64 = 0.02;
/// Smallest difference of latency that matters, in milliseconds: less is the host's scheduler and the network.
pub const SMALLEST_MS: f64 = 0.05;
/// Smallest difference of the share of errors that matters: 1 in 1,000.
pub const SMALLEST_ERRORS: f64 = 0.001;
/// As a share of the old: an interval that reaches farther to either side does not show that nothing changed.
pub const WIDEST_SHARE: f64 = 0.1;
/// In milliseconds, likewise, where the share is less.
pub const WIDEST_MS: f64 = 0.25;
/// Likewise for the share of errors.
pub const WIDEST_ERRORS: f64 = 0.01;
/// Part of a whole interval below which a shorter one, at the end of a run, is left out.
const WHOLE_PART: f64 = 0.9;
/// Most intervals of a run that are looked at when some are missing.
const INTERVALS_MAX: usize = 20_000;
/// By what factor whole runs may differ before a note says that typical seconds do not show it.
const STALL_TIMES: f64 = 2.0;

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Better than before, beyond chance and by enough to matter.
    Better,
    /// Worse than before, beyond chance and by enough to matter.
    Worse,
    /// No difference that matters was seen, and a large one is ruled out.
    Same,
    /// Too short or too noisy to say.
    Unclear,
}

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Answered requests a second.
    Throughput,
    /// Median of the latency, in milliseconds.
    LatencyP50,
    /// 95th percentile of the latency, in milliseconds.
    LatencyP95,
    /// 99th percentile of the latency, in milliseconds.
    LatencyP99,
    /// Failed requests over all, 0 to 1.
    Errors,
}

/// Two runs beside each other. Serialises to JSON; shows itself as a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Worse when one figure is worse; else better when one is better; else the same when all are but those that are
    /// left out.
    pub finding: Finding,
    /// One for each of the five.
    pub changes: Vec<Change>,
    /// Of each interval, 0 to 1.
    pub confidence: f64,
    /// What speaks against comparing the two at all, in words.
    pub warnings: Vec<String>,
}

/// How one figure changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub figure: Figure,
    /// Of the whole old run.
    pub old: f64,
    /// Of the whole new run.
    pub new: f64,
    /// Of the old run's median second; nothing where too little was measured.
    pub old_second: Option<f64>,
    /// Of the new run's median second.
    pub new_second: Option<f64>,
    /// By how much the seconds of the new run are larger, with its interval; nothing where too little was measured.
    pub by: Option<Estimate>,
    /// Two-sided probability of so clear a difference by chance.
    pub p_value: Option<f64>,
    /// By how much it must differ to matter, in its unit.
    pub smallest: f64,
    /// What came of it.
    pub finding: Finding,
    /// The load is too low for this percentile of a second, so nothing is expected of it.
    pub left_out: bool,
    /// Why nothing can be said.
    pub why: Option<String>,
    /// What else there is to say.
    pub note: Option<String>,
}

/// A difference, in the unit of its figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub by: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// The three in percent of the old run's median second; nothing where that is 0, and for errors.
    pub percent: Option<[f64; 3]>,
}

/// Compares two runs, each by its seconds.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let invalid = [("old", old), ("new", new)]
        .into_iter()
        .find_map(|(which, r)| {
            let why = r.invalid.as_ref()?;
            Some(format!("the {which} run is invalid: {why}"))
        });
    let mut changes = vec![
        of_seconds(Figure::Throughput, old, new),
        of_seconds(Figure::LatencyP50, old, new),
        of_seconds(Figure::LatencyP95, old, new),
        of_seconds(Figure::LatencyP99, old, new),
        of_errors(old, new),
    ];
    let mut warnings = differences(old, new);
    if let Some(why) = invalid {
        for change in &mut changes {
            change.finding = Finding::Unclear;
            change.why = Some("of an invalid run nothing is concluded".to_owned());
        }
        warnings.insert(0, why);
    }
    Comparison {
        finding: overall(&changes),
        changes,
        confidence: CONFIDENCE,
        warnings,
    }
}

fn overall(changes: &[Change]) -> Finding {
    let any = |f| changes.iter().any(|c| c.finding == f);
    let mut expected = changes.iter().filter(|c| !c.left_out);
    if any(Finding::Worse) {
        Finding::Worse
    } else if any(Finding::Better) {
        Finding::Better
    } else if expected.all(|c| c.finding == Finding::Same) {
        Finding::Same
    } else {
        Finding::Unclear
    }
}

impl Figure {
    /// Whether more of it is better.
    fn more_is_better(self) -> bool {
        self == Self::Throughput
    }

    fn of_point(self, point: &Point) -> f64 {
        match self {
            Self::Throughput => point.throughput_rps,
            Self::LatencyP50 => point.latency_ms.p50,
            Self::LatencyP95 => point.latency_ms.p95,
            Self::LatencyP99 => point.latency_ms.p99,
            Self::Errors => point.errors as f64 / point.requests.max(1) as f64,
        }
    }

    fn of_run(self, report: &Report) -> f64 {
        match self {
            Self::Throughput => report.throughput_rps,
            Self::LatencyP50 => report.latency_ms.p50,
            Self::LatencyP95 => report.latency_ms.p95,
            Self::LatencyP99 => report.latency_ms.p99,
            Self::Errors => report.error_share,
        }
    }

    /// Requests that an interval needs for the figure to be more than its largest value.
    fn requests_min(self) -> u64 {
        match self {
            Self::Throughput | Self::Errors => 0,
            Self::LatencyP50 => 10,
            Self::LatencyP95 => 20,
            Self::LatencyP99 => 100,
        }
    }

    /// By how much it must differ to matter, and how far an interval may reach that still says "the same".
    fn margins(self, old: f64) -> (f64, f64) {
        match self {
            Self::Throughput => (SMALLEST_SHARE * old, WIDEST_SHARE * old),
            Self::Errors => (SMALLEST_ERRORS, WIDEST_ERRORS),
            _ => (
                (SMALLEST_SHARE * old).max(SMALLEST_MS),
                (WIDEST_SHARE * old).max(WIDEST_MS),
            ),
        }
    }

    fn find(self, by: &Estimate, p_value: f64, (smallest, widest): (f64, f64)) -> Finding {
        if p_value < 1.0 - CONFIDENCE && by.by.abs() >= smallest && by.low * by.high > 0.0 {
            if (by.by > 0.0) == self.more_is_better() {
                Finding::Better
            } else {
                Finding::Worse
            }
        } else if by.low >= -widest && by.high <= widest {
            Finding::Same
        } else {
            Finding::Unclear
        }
    }
}

/// The intervals of a run that are of its usual length.
fn whole(series: &[Point]) -> Vec<&Point> {
    let mut lengths: Vec<f64> = series.iter().map(|p| p.length_s).collect();
    lengths.sort_by(f64::total_cmp);
    let usual = lengths.get(lengths.len() / 2).copied().unwrap_or(0.0);
    let near = |p: &&Point| p.length_s >= WHOLE_PART * usual && p.length_s * WHOLE_PART <= usual;
    series.iter().filter(near).collect()
}

/// The value of each interval in order. One in which nothing ended is not in the series: it has no latency, and no
/// throughput.
fn values(figure: Figure, points: &[&Point]) -> Vec<f64> {
    let mut all = Vec::with_capacity(points.len());
    let mut end = None;
    for point in points {
        if let Some(end) = end
            && figure == Figure::Throughput
            && point.length_s > 0.0
        {
            let mut missing = (point.at_s - end) / point.length_s;
            while missing > 0.5 && all.len() < INTERVALS_MAX {
                all.push(0.0);
                missing -= 1.0;
            }
        }
        end = Some(point.at_s + point.length_s);
        all.push(figure.of_point(point));
    }
    all
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

fn of_seconds(figure: Figure, old: &Report, new: &Report) -> Change {
    let (old_points, new_points) = (whole(&old.series), whole(&new.series));
    let requests = |points: &[&Point]| {
        median(points.iter().map(|p| p.requests as f64).collect()).unwrap_or(0.0)
    };
    let fewest = requests(&old_points).min(requests(&new_points));
    let (old_values, new_values) = (values(figure, &old_points), values(figure, &new_points));
    let old_second = median(old_values.clone());
    let new_second = median(new_values.clone());
    let margins = figure.margins(old_second.unwrap_or(0.0));
    let mut change = Change {
        figure,
        old: figure.of_run(old),
        new: figure.of_run(new),
        old_second,
        new_second,
        by: None,
        p_value: None,
        smallest: margins.0,
        finding: Finding::Unclear,
        left_out: false,
        why: None,
        note: None,
    };
    judge(&mut change, &old_values, &new_values, fewest, margins);
    let (least, most) = (change.old.min(change.new), change.old.max(change.new));
    let said = matches!(change.finding, Finding::Better | Finding::Worse);
    if !said && most > STALL_TIMES * least && most - least > 1.0 {
        let (old, new) = change.whole_texts();
        change.note = Some(format!(
            "it is {old} in the whole old run and {new} in the new one, and their seconds do not say so: look for stalls"
        ));
    }
    change
}

/// What the seconds of the two runs say; `fewest`: requests in a median second of the run that has fewer.
fn judge(change: &mut Change, old: &[f64], new: &[f64], fewest: f64, margins: (f64, f64)) {
    let figure = change.figure;
    let (m, n) = (old.len(), new.len());
    if m < SAMPLE_MIN || n < SAMPLE_MIN {
        change.why = Some(format!(
            "too short to say: {m} whole seconds in the old run and {n} in the new one, {SAMPLE_MIN} are needed"
        ));
        return;
    }
    if fewest < figure.requests_min() as f64 {
        let least = figure.requests_min();
        change.left_out = true;
        change.why = Some(format!(
            "too few requests to say: {fewest:.0} in a second, {least} are needed"
        ));
        return;
    }
    let larger = inflation(&[old, new]);
    let Some(found) = shift(old, new, CONFIDENCE, larger) else {
        return;
    };
    let by = estimate(&found, change.old_second.unwrap_or(0.0));
    change.finding = figure.find(&by, found.p_value, margins);
    change.by = Some(by);
    change.p_value = Some(found.p_value);
    if change.finding == Finding::Unclear {
        change.why =
            Some("too noisy to say: make longer runs, on a host that does nothing else".to_owned());
    }
    if !found.confident {
        change.note = Some(format!(
            "its seconds follow each other so closely that {} are worth {:.1}; the interval spans all of their differences, \
             and better or worse cannot be said of so few: make longer runs",
            m.min(n),
            m.min(n) as f64 / larger
        ));
    }
}

fn estimate(found: &Shift, old: f64) -> Estimate {
    let percent = (old > 0.0).then(|| [found.by, found.low, found.high].map(|v| v / old * 100.0));
    Estimate {
        by: found.by,
        low: found.low,
        high: found.high,
        percent,
    }
}

fn of_errors(old: &Report, new: &Report) -> Change {
    let windows = |r: &Report| -> Vec<(u64, u64)> {
        r.series.iter().map(|p| (p.errors, p.requests)).collect()
    };
    let margins = Figure::Errors.margins(0.0);
    let mut change = Change {
        figure: Figure::Errors,
        old: old.error_share,
        new: new.error_share,
        old_second: None,
        new_second: None,
        by: None,
        p_value: None,
        smallest: margins.0,
        finding: Finding::Unclear,
        left_out: false,
        why: None,
        note: None,
    };
    let Some(found) = share_change(&windows(old), &windows(new), CONFIDENCE) else {
        change.why = Some("too few requests to say".to_owned());
        return change;
    };
    let by = Estimate {
        by: found.by,
        low: found.low,
        high: found.high,
        percent: None,
    };
    change.finding = Figure::Errors.find(&by, found.p_value, margins);
    change.by = Some(by);
    change.p_value = Some(found.p_value);
    if change.finding == Finding::Unclear {
        change.why = Some("too few requests, or failures in too few bursts, to say".to_owned());
    }
    change
}

/// In what the two runs were not asked the same, or did not come to their end.
fn differences(old: &Report, new: &Report) -> Vec<String> {
    let (a, b) = (&old.run, &new.run);
    let mut all = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            all.push(format!(
                "{what} differs: {old} in the old run, {new} in the new one"
            ));
        }
    };
    differ("the address", a.url.clone(), b.url.clone());
    if a.load != b.load {
        differ("the load", a.words.clone(), b.words.clone());
    }
    for (what, old, new) in [
        (
            "the number of connections",
            u64::from(a.connections),
            u64::from(b.connections),
        ),
        (
            "the number of streams",
            u64::from(a.streams),
            u64::from(b.streams),
        ),
        (
            "the number of threads",
            u64::from(a.threads),
            u64::from(b.threads),
        ),
        ("the warm-up in ms", a.warm_up_ms, b.warm_up_ms),
        (
            "the limit for a request in ms",
            a.request_timeout_ms,
            b.request_timeout_ms,
        ),
    ] {
        differ(what, old.to_string(), new.to_string());
    }
    differ("the protocol", a.protocol.clone(), b.protocol.clone());
    differ("keep-alive", on(a.keep_alive), on(b.keep_alive));
    let names = |r: &Report| {
        let names: Vec<&str> = r.per_request.iter().map(|p| p.name.as_str()).collect();
        names.join(", ")
    };
    differ("the list of requests", names(old), names(new));
    differ(
        "the version of Evenkeel",
        old.evenkeel.clone(),
        new.evenkeel.clone(),
    );
    let length = |r: &Report| whole(&r.series).first().map_or(0.0, |p| p.length_s);
    if (length(old) - length(new)).abs() > 0.5 {
        all.push(format!(
            "an interval of the series is {:.0} s in the old run and {:.0} s in the new one: make both equally long",
            length(old),
            length(new)
        ));
    }
    for (which, r) in [("old", old), ("new", new)] {
        if r.cancelled || r.gave_up || r.too_many_errors.is_some() {
            all.push(format!("the {which} run was ended early"));
        }
    }
    all
}

fn on(yes: bool) -> String {
    if yes { "on" } else { "off" }.to_owned()
}

#[cfg(test)]
mod tests;
