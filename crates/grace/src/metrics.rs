//! Counters and histograms, and their text in Prometheus exposition format 0.0.4.
//! Labels are bounded: routes are the router's own patterns, methods and codes are known words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Content type of [`Page::finish`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Histogram {
    /// Observations in each bucket (not cumulative); the last is everything above.
    buckets: [u64; BUCKETS.len() + 1],
    sum_seconds: f64,
}

#[derive(Debug, Default)]
struct Requests {
    counts: BTreeMap<(String, &'static str, u16), u64>,
    latency: BTreeMap<String, Histogram>,
    errors: BTreeMap<&'static str, u64>,
}

/// What is counted for every request, and the counters that stand alone.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<Requests>,
    /// Requests turned away by the rate limit.
    pub(crate) rate_limited: Counter,
    /// Requests turned away because no worker got free.
    pub(crate) workers_exhausted: Counter,
    /// Chats the model server did not answer in time.
    pub(crate) upstream_timeouts: Counter,
    /// Chats the model server answered with an error, or not at all.
    pub(crate) upstream_errors: Counter,
    /// Decisions answered from memory.
    pub(crate) decisions_cached: Counter,
    /// Decisions evaluated against the database.
    pub(crate) decisions_evaluated: Counter,
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn observe(
        &self,
        route: &str,
        method: &'static str,
        status: u16,
        code: Option<&'static str>,
        took: Duration,
    ) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests
            .counts
            .entry((route.to_owned(), method, status))
            .or_default() += 1;
        let histogram = requests.latency.entry(route.to_owned()).or_default();
        histogram.buckets[bucket] += 1;
        histogram.sum_seconds += seconds;
        if let Some(code) = code {
            *requests.errors.entry(code).or_default() += 1;
        }
    }

    /// Writes the request families.
    pub(crate) fn render(&self, page: &mut Page) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "grace_http_requests_total";
        page.family(
            name,
            "counter",
            "Requests answered, by route, method and status.",
        );
        for ((route, method, status), n) in &requests.counts {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            page.sample(name, &labels, *n);
        }
        let name = "grace_errors_total";
        page.family(name, "counter", "Requests answered with an error, by code.");
        for (code, n) in &requests.errors {
            page.sample(name, &format!("code=\"{code}\""), *n);
        }
        let name = "grace_http_request_duration_seconds";
        page.family(name, "histogram", "Time to answer, by route.");
        for (route, histogram) in &requests.latency {
            let mut total = 0;
            for (index, n) in histogram.buckets.iter().enumerate() {
                total += n;
                let bound = BUCKETS
                    .get(index)
                    .map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                let labels = format!("route=\"{route}\",le=\"{bound}\"");
                page.sample(&format!("{name}_bucket"), &labels, total);
            }
            let labels = format!("route=\"{route}\"");
            page.sample(&format!("{name}_sum"), &labels, histogram.sum_seconds);
            page.sample(&format!("{name}_count"), &labels, total);
        }
        drop(requests);
        page.counter(
            "grace_rate_limited_total",
            "Requests turned away by the rate limit.",
            self.rate_limited.get(),
        );
        page.counter(
            "grace_workers_exhausted_total",
            "Requests turned away because no worker got free.",
            self.workers_exhausted.get(),
        );
        page.counter(
            "grace_chat_upstream_timeouts_total",
            "Chats the model server did not answer in time.",
            self.upstream_timeouts.get(),
        );
        page.counter(
            "grace_chat_upstream_errors_total",
            "Chats the model server failed.",
            self.upstream_errors.get(),
        );
        page.counter(
            "grace_governance_cache_hits_total",
            "Decisions answered from memory.",
            self.decisions_cached.get(),
        );
        page.counter(
            "grace_governance_cache_misses_total",
            "Decisions evaluated against the database.",
            self.decisions_evaluated.get(),
        );
    }
}

/// A text in exposition format, family by family.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Begins a family: its help and its type.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample; `labels` without braces, empty for none.
    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }

    /// A family with one sample that only grows.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    /// A family with one sample that goes up and down.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// One sample of an exposition text.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a str,
    pub(crate) value: f64,
}

impl Sample<'_> {
    /// The value of a label, unescaped values only (Grace writes no others).
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.split(',').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name == key).then(|| value.trim_matches('"'))
        })
    }
}

/// Reads an exposition text; `None` when a line is not a sample or a comment.
pub(crate) fn parse(text: &str) -> Option<Vec<Sample<'_>>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (head, value) = line.rsplit_once(' ')?;
            let value = value.parse().ok()?;
            let (name, labels) = match head.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}')?),
                None => (head, ""),
            };
            Some(Sample {
                name,
                labels,
                value,
            })
        })
        .collect()
}

/// The quantile `q` (0 to 1) of all routes' latency in seconds, as the upper bound of the bucket
/// it falls into; `None` without observations. Buckets are merged, quantiles are never averaged.
pub(crate) fn latency_quantile(samples: &[Sample<'_>], q: f64) -> Option<f64> {
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for sample in samples {
        if sample.name != "grace_http_request_duration_seconds_bucket" {
            continue;
        }
        let bound: f64 = match sample.label("le")? {
            "+Inf" => f64::INFINITY,
            bound => bound.parse().ok()?,
        };
        match merged.iter_mut().find(|(b, _)| b.total_cmp(&bound).is_eq()) {
            Some((_, n)) => *n += sample.value,
            None => merged.push((bound, sample.value)),
        }
    }
    merged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = merged.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let largest = BUCKETS[BUCKETS.len() - 1];
    merged
        .iter()
        .find(|(_, n)| *n >= q * total)
        .map(|(bound, _)| bound.min(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_parses_and_buckets_are_cumulative() {
        let metrics = Metrics::default();
        for ms in [1, 3, 40, 20_000] {
            let took = Duration::from_millis(ms);
            metrics.observe("/health", "GET", 200, None, took);
        }
        metrics.observe("/docs", "GET", 429, Some("rate_limit"), Duration::ZERO);
        let mut page = Page::default();
        metrics.render(&mut page);
        let text = page.finish();
        let samples = parse(&text).unwrap();
        let health: Vec<f64> = samples
            .iter()
            .filter(|s| s.name.ends_with("_bucket") && s.label("route") == Some("/health"))
            .map(|s| s.value)
            .collect();
        assert_eq!(health.len(), BUCKETS.len() + 1);
        assert!(health.is_sorted());
        assert_eq!(health.last(), Some(&4.0));
        assert!(samples.contains(&Sample {
            name: "grace_errors_total",
            labels: "code=\"rate_limit\"",
            value: 1.0
        }));
        assert_eq!(latency_quantile(&samples, 0.5), Some(0.005));
        assert_eq!(latency_quantile(&samples, 1.0), Some(10.0));
    }

    #[test]
    fn rubbish_is_not_metrics() {
        assert!(parse("<html> not metrics").is_none());
        assert_eq!(latency_quantile(&parse("a 1\n").unwrap(), 0.5), None);
    }
}
