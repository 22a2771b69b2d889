//! Further samples of the target at each check: its log files and its own metrics.

use std::time::Duration;

use evenkeel_detect::{Sample, SampleValue};
use evenkeel_edge::collect::log_follow::{FollowFrom, LogFollower};
use evenkeel_edge::collect::probe::Prober;
use evenkeel_edge::collect::scrape::{PAGE_LEN_MAX, Scrape, ScrapeNames};

use crate::clock;
use crate::config::Config;
use crate::watch::sample;

/// Most log lines taken at one check.
const LINES_MAX: usize = 10_000;

/// Follows what the configuration names.
pub struct Collectors {
    logs: Option<LogFollower>,
    metrics: Option<Metrics>,
}

/// The target's own metrics, scraped when `[watchdog.scrape]` names them.
struct Metrics {
    url: String,
    names: ScrapeNames,
    last: Option<Scrape>,
}

impl Collectors {
    /// Follows logs from now on.
    pub fn new(config: &Config) -> Self {
        let logs = &config.resolved.logs;
        let metrics = config.watchdog.scrape.clone().and_then(|names| {
            let path = &config.target.endpoints.metrics.as_ref()?.path;
            Some(Metrics {
                url: config.resolved.url(path)?,
                names,
                last: None,
            })
        });
        Self {
            logs: (!logs.is_empty())
                .then(|| LogFollower::new(logs.iter().cloned(), FollowFrom::End)),
            metrics,
        }
    }

    /// What was written and counted since the last call.
    pub async fn collect(&mut self, prober: &Prober, deadline: Duration) -> Vec<Sample> {
        let mut samples = self.logs.as_mut().map_or_else(Vec::new, log_samples);
        if let Some(metrics) = &mut self.metrics {
            samples.extend(metrics.samples(prober, deadline).await);
        }
        samples
    }
}

fn log_samples(logs: &mut LogFollower) -> Vec<Sample> {
    let (entries, problems) = logs.poll(LINES_MAX);
    let now = clock::now();
    let errors = entries.iter().filter(|e| e.is_error()).count() as u64;
    let total = entries.len() as u64;
    let mut samples: Vec<Sample> = sample(now, "error_log", SampleValue::Counts { errors, total })
        .into_iter()
        .collect();
    samples.extend(match problems.first() {
        Some(problem) => missing("log_files", problem),
        None => heard("log_files"),
    });
    samples
}

impl Metrics {
    async fn samples(&mut self, prober: &Prober, deadline: Duration) -> Vec<Sample> {
        let (result, page) = prober.fetch(&self.url, deadline, PAGE_LEN_MAX).await;
        if !result.ok {
            self.last = None;
            return missing("metrics", result.detail.as_deref().unwrap_or("no answer"))
                .into_iter()
                .collect();
        }
        let scrape = Scrape::parse(&page, &self.names);
        let Some(earlier) = self.last.replace(scrape) else {
            return Vec::new();
        };
        let Some(now) = &self.last else {
            return Vec::new();
        };
        let delta = now.since(&earlier);
        let mut samples = Vec::from_iter(heard("metrics"));
        if let (Some(total), Some(errors)) = (delta.requests, delta.errors_5xx) {
            let value = SampleValue::Counts {
                errors: whole(errors),
                total: whole(total),
            };
            samples.extend(sample(now.at, "target_5xx", value));
        }
        if let Some(p95_ms) = delta.latency_quantile_ms(0.95) {
            let n = whole(delta.latency_count());
            samples.extend(sample(
                now.at,
                "target_latency",
                SampleValue::LatencyQuantile { p95_ms, n },
            ));
        }
        samples
    }
}

/// A count that a counter kept as a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and a negative count is none"
)]
fn whole(count: f64) -> u64 {
    count.max(0.0) as u64
}

/// That a source answers, where [`missing`] may have said that it does not: it says nothing about the target.
fn heard(series: &str) -> Option<Sample> {
    let nothing = SampleValue::Counts {
        errors: 0,
        total: 0,
    };
    sample(clock::now(), series, nothing)
}

fn missing(series: &str, reason: &str) -> Option<Sample> {
    let reason = reason.to_owned();
    sample(clock::now(), series, SampleValue::Missing { reason })
}
