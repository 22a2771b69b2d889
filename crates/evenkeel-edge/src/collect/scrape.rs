//! Requests, failures and latency from the target's page of metrics: what one needs of it, and no more.
//!
//! Counters mean something only as differences of two scrapes. A counter that went back has begun anew (the service
//! was restarted): it counts from zero, and the difference says so. What is missing is `None`, never zero.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::buckets::{self, Bucket};
use super::exposition::{Entry, Exposition, Format, Sample};
use super::probe::now;

/// Most series that are kept of one page.
const SERIES_LEN_MAX: usize = 20_000;

/// Which metrics to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrapeNames {
    /// Counter of requests with a label `status` or `code`.
    pub requests: String,
    /// Histogram of response times in seconds, without its `_bucket`.
    pub latency: String,
}

impl Default for ScrapeNames {
    fn default() -> Self {
        Self {
            requests: "http_requests_total".to_owned(),
            latency: "http_request_duration_seconds".to_owned(),
        }
    }
}

/// One page, reduced to what is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// When it was read.
    pub at: Timestamp,
    /// Requests by labels: whether they failed, and how many.
    requests: BTreeMap<String, (bool, f64)>,
    /// Cumulative buckets by labels (without `le`), each by its upper bound as ordered bits.
    latency: BTreeMap<String, BTreeMap<Bound, f64>>,
    /// Lines that are not understood, and values looked for that are NaN, infinite, negative, without their bound, or of
    /// more series than are kept.
    pub ignored: u64,
}

/// The upper bound of a bucket; infinity is the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}
impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What happened between two scrapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeDelta {
    /// Time between them, in milliseconds; negative when the clock was set back.
    pub interval_ms: i64,
    /// Requests; `None` when the counter is missing from either page.
    pub requests: Option<f64>,
    /// Those of them with a status of 500 to 599.
    pub errors_5xx: Option<f64>,
    /// Some counter began anew: the figures are what was counted since, not the whole interval.
    pub reset: bool,
    /// Requests in each bucket by its upper bound in seconds, not cumulative.
    buckets: BTreeMap<Bound, f64>,
}

impl Scrape {
    /// Reads a page. Any bytes are a page: what is not understood is ignored, and counted.
    pub fn parse(page: &[u8], format: Format, names: &ScrapeNames) -> Self {
        let mut scrape = Self {
            at: now(),
            requests: BTreeMap::new(),
            latency: BTreeMap::new(),
            ignored: 0,
        };
        let buckets = format!("{}_bucket", names.latency);
        let mut series_len = 0;
        let mut lines = Exposition::new(page, format);
        for entry in lines.by_ref() {
            let Entry::Sample(sample) = entry else {
                continue;
            };
            let name = sample.name.unescape();
            let is_requests = name == names.requests;
            if !is_requests && name != buckets {
                continue;
            }
            let put = match is_requests {
                _ if series_len == SERIES_LEN_MAX => None,
                _ if !(sample.value.is_finite() && sample.value >= 0.0) => None,
                true => scrape.put_requests(&sample),
                false => scrape.put_bucket(&sample),
            };
            match put {
                Some(()) => series_len += 1,
                None => scrape.ignored += 1,
            }
        }
        scrape.ignored += lines.faults().count;
        scrape
    }

    fn put_requests(&mut self, sample: &Sample<'_>) -> Option<()> {
        let status = ["status", "code", "status_code"]
            .iter()
            .find_map(|name| sample.labels.get(name))
            .unwrap_or_default();
        let has_failed = status.len() == 3 && status.starts_with('5');
        let key = sample.labels.canonical("", &[]).ok()?;
        self.requests.insert(key, (has_failed, sample.value));
        Some(())
    }

    fn put_bucket(&mut self, sample: &Sample<'_>) -> Option<()> {
        let bound: f64 = sample.labels.get("le")?.parse().ok()?;
        if bound.is_nan() || bound <= 0.0 {
            return None;
        }
        let key = sample.labels.canonical("", &["le"]).ok()?;
        let series = self.latency.entry(key).or_default();
        series.insert(Bound(bound), sample.value);
        Some(())
    }

    /// Whether the requests were on the page at all.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether the latencies were on the page at all.
    pub fn has_latency(&self) -> bool {
        !self.latency.is_empty()
    }

    /// What happened since `earlier`. A series that was not there then has counted from zero; one that is gone
    /// counts as a restart.
    pub fn since(&self, earlier: &Self) -> ScrapeDelta {
        let mut delta = ScrapeDelta {
            interval_ms: self.at.millis_since(earlier.at),
            ..ScrapeDelta::default()
        };
        if self.has_requests() && earlier.has_requests() {
            let (mut all, mut failed) = (0.0, 0.0);
            for (labels, (has_failed, value)) in &self.requests {
                let before = earlier.requests.get(labels).map_or(0.0, |(_, v)| *v);
                let more = delta.more(before, *value);
                all += more;
                failed += if *has_failed { more } else { 0.0 };
            }
            delta.reset |= earlier
                .requests
                .keys()
                .any(|k| !self.requests.contains_key(k));
            delta.requests = Some(all);
            delta.errors_5xx = Some(failed);
        }
        let none = BTreeMap::new();
        for (labels, buckets) in &self.latency {
            if !earlier.has_latency() {
                break;
            }
            let before = earlier.latency.get(labels).unwrap_or(&none);
            // Each series by itself, since they need not have the same bounds.
            let was_reset = buckets
                .iter()
                .any(|(bound, value)| before.get(bound).is_some_and(|b| b > value));
            delta.reset |= was_reset;
            let mut below = 0.0;
            for (bound, value) in buckets {
                let before = if was_reset {
                    0.0
                } else {
                    before.get(bound).copied().unwrap_or(0.0)
                };
                let up_to = (value - before).max(below);
                *delta.buckets.entry(*bound).or_default() += up_to - below;
                below = up_to;
            }
        }
        delta
    }
}

impl ScrapeDelta {
    fn more(&mut self, before: f64, value: f64) -> f64 {
        if value < before {
            self.reset = true;
            value
        } else {
            value - before
        }
    }

    /// Share of the requests that failed; `None` when it is not known or there were none.
    pub fn error_rate(&self) -> Option<f64> {
        match (self.requests, self.errors_5xx) {
            (Some(requests), Some(errors)) if requests > 0.0 => Some(errors / requests),
            _ => None,
        }
    }

    /// How many response times were counted.
    pub fn latency_count(&self) -> f64 {
        self.buckets.values().sum()
    }

    /// The response time that `q` (0 to 1) of the requests did not exceed, in milliseconds: linear inside its
    /// bucket, as Prometheus has it; the largest finite bound when it lies above that. `None` when none were
    /// counted or no bound is finite.
    pub fn latency_quantile_ms(&self, q: f64) -> Option<f64> {
        let buckets: Vec<Bucket> = self.buckets.iter().map(|(b, n)| (b.0, *n)).collect();
        buckets::quantile(&buckets, q).map(|seconds| seconds * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scrape(page: &str) -> Scrape {
        Scrape::parse(page.as_bytes(), Format::Prometheus, &ScrapeNames::default())
    }

    fn near(value: Option<f64>, expected: f64) {
        let value = value.expect("there is a value");
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn requests_and_failures_are_differences() {
        let before = scrape(
            "# TYPE http_requests_total counter\n\
             http_requests_total{method=\"GET\",status=\"200\"} 100\n\
             http_requests_total{method=\"GET\",status=\"503\"} 5 1700000000000\n\
             http_requests_total_other 7\n",
        );
        let after = scrape(
            "http_requests_total{status=\"200\", method=\"GET\",} 190\n\
             http_requests_total{method=\"GET\",status=\"503\"} 1.4e1\n\
             http_requests_total{method=\"a \\\"b\\\" }\",code=\"500\"} 1\r\n",
        );
        let delta = after.since(&before);
        near(delta.requests, 100.0);
        near(delta.errors_5xx, 10.0);
        near(delta.error_rate(), 0.1);
        assert!(!delta.reset);
        assert_eq!(after.ignored, 0);
    }

    /// SAFETY 11
    #[test]
    fn a_counter_that_began_anew_is_counted_and_said() {
        let before = scrape("http_requests_total{status=\"200\"} 1000\n");
        let after = scrape("http_requests_total{status=\"200\"} 10\n");
        let delta = after.since(&before);
        near(delta.requests, 10.0);
        assert!(delta.reset);
        let gone = scrape("http_requests_total{status=\"404\"} 10\n").since(&before);
        assert!(gone.reset, "a series that is gone was lost with a restart");
    }

    /// SAFETY 11
    #[test]
    fn what_is_missing_or_no_number_is_no_zero() {
        let empty = scrape("");
        let some = scrape("http_requests_total 5\n");
        for delta in [some.since(&empty), empty.since(&some)] {
            assert_eq!((delta.requests, delta.error_rate()), (None, None));
            assert_eq!(delta.latency_quantile_ms(0.95), None);
        }
        let wrong = scrape(
            "http_requests_total NaN\nhttp_requests_total +Inf\nhttp_requests_total -1\n\
             http_requests_total\nhttp_requests_total{x=\"1 3\nhttp_request_duration_seconds_bucket 3\n",
        );
        assert!(!wrong.has_requests() && !wrong.has_latency());
        assert_eq!(wrong.ignored, 6);
        assert_eq!(some.since(&some).error_rate(), None, "no requests, no rate");
    }

    #[test]
    fn quantiles_come_from_merged_buckets() {
        let page = |a: [u32; 3], b: [u32; 2]| {
            scrape(&format!(
                "http_request_duration_seconds_bucket{{path=\"/a\",le=\"0.1\"}} {}\n\
                 http_request_duration_seconds_bucket{{path=\"/a\",le=\"0.5\"}} {}\n\
                 http_request_duration_seconds_bucket{{path=\"/a\",le=\"+Inf\"}} {}\n\
                 http_request_duration_seconds_bucket{{path=\"/b\",le=\"0.1\"}} {}\n\
                 http_request_duration_seconds_bucket{{path=\"/b\",le=\"+Inf\"}} {}\n\
                 http_request_duration_seconds_sum 12\n",
                a[0], a[1], a[2], b[0], b[1]
            ))
        };
        let delta = page([50, 90, 100], [40, 40]).since(&page([10, 20, 20], [10, 10]));
        // In the buckets: 40 + 30 up to 0.1 s, 30 up to 0.5 s, 10 above.
        near(Some(delta.latency_count()), 110.0);
        near(delta.latency_quantile_ms(0.5), 55.0 / 70.0 * 100.0);
        near(delta.latency_quantile_ms(0.9), 100.0 + 29.0 / 30.0 * 400.0);
        near(delta.latency_quantile_ms(1.0), 500.0);
        let restarted = page([1, 1, 1], [50, 50]).since(&page([10, 20, 20], [10, 10]));
        assert!(restarted.reset);
        near(Some(restarted.latency_count()), 41.0);
    }

    proptest! {
        /// SAFETY 11
        #[test]
        fn any_bytes_are_a_page(a in prop::collection::vec(any::<u8>(), 0..500), b in ".{0,200}") {
            let names = ScrapeNames::default();
            let (a, b) = (
                Scrape::parse(&a, Format::Prometheus, &names),
                Scrape::parse(b.as_bytes(), Format::OpenMetrics, &names),
            );
            prop_assert!(b.since(&a).error_rate().is_none_or(|r| (0.0..=1.0).contains(&r)));
        }

        #[test]
        fn any_samples_give_sane_figures(
            lines in prop::collection::vec(
                ("(http_requests_total|http_request_duration_seconds_bucket)", "[a-z\"\\\\{}=,]{0,6}",
                 "(0.1|2|\\+Inf|-1|NaN|x)", "(200|500|5xx)", "(1e300|17|0|NaN|-3|1e999)"),
                0..20,
            ),
            cut in 0..20_usize,
        ) {
            let text = |lines: &[(String, String, String, String, String)]| -> Scrape {
                let lines: Vec<String> = lines
                    .iter()
                    .map(|(name, x, le, status, v)| format!("{name}{{x=\"{x}\",le=\"{le}\",status=\"{status}\"}} {v}"))
                    .collect();
                scrape(&lines.join("\n"))
            };
            let (a, b) = (text(&lines[..cut.min(lines.len())]), text(&lines));
            for delta in [b.since(&a), a.since(&b)] {
                prop_assert!(delta.error_rate().is_none_or(|r| (0.0..=1.0).contains(&r)));
                prop_assert!(delta.latency_count() >= 0.0);
                for q in [0.0, 0.5, 0.95, 1.0] {
                    let value = delta.latency_quantile_ms(q);
                    prop_assert!(value.is_none_or(|v| v.is_finite() && v >= 0.0), "{value:?}");
                }
            }
        }
    }
}
