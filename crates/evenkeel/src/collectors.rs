//! Further samples of the target at each check: its log files and its own metrics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::Timestamp;
use evenkeel_detect::{Sample, SampleValue};
use evenkeel_edge::collect::exposition::{Format, PAGE_LEN_MAX};
use evenkeel_edge::collect::log_follow::{FollowFrom, LogFollower};
use evenkeel_edge::collect::probe::PageRequest;
use evenkeel_edge::collect::probe::Prober;
use evenkeel_edge::collect::reading::Reading;
use evenkeel_edge::collect::scrape::{Scrape, ScrapeNames};
use evenkeel_edge::collect::scraper::ScrapeTarget;
use evenkeel_edge::collect::{LogEntry, LogTemplates, ResourceCollector, SqlCollector};
use evenkeel_edge::process::Supervisor;

use crate::clock;
use crate::config::Config;
use crate::metrics::Metrics as Pages;
use crate::watch::sample;

/// Most log lines taken at one check.
const LINES_MAX: usize = 10_000;

/// Follows what the configuration names.
pub struct Collectors {
    logs: Option<LogFollower>,
    templates: LogTemplates,
    resources: Option<ResourceCollector>,
    sql: Option<SqlCollector>,
    /// Services of which a page has just said another version; nothing for a page that belongs to none.
    deployed: Vec<Option<Arc<str>>>,
    metrics: Option<Metrics>,
    pages: Option<Pages>,
    readings: VecDeque<Reading>,
    /// Why each page could not be read the last time, if it could not.
    heard_of: BTreeMap<Arc<str>, Option<String>>,
}

/// The target's own metrics, scraped when `[watchdog.scrape]` names them.
struct Metrics {
    url: String,
    names: ScrapeNames,
    last: Option<Scrape>,
}

impl Collectors {
    /// Follows logs, and reads pages of metrics, from now on.
    pub fn new(config: &Config, pages: Vec<ScrapeTarget>, prober: &Prober) -> Self {
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
            templates: LogTemplates::new("all", None, None),
            resources: Some(ResourceCollector::default()),
            sql: (!config.watchdog.sql.is_empty())
                .then(|| SqlCollector::new(config.watchdog.sql.iter().cloned())),
            deployed: Vec::new(),
            metrics,
            pages: Pages::start(pages, prober.clone()),
            readings: VecDeque::new(),
            heard_of: BTreeMap::new(),
        }
    }

    /// What was read up to the last [`Self::collect`]; each reading is handed out once, and forgotten with the next
    /// `collect`.
    pub fn readings(&mut self) -> VecDeque<Reading> {
        std::mem::take(&mut self.readings)
    }

    /// Services of which a page said another version since the last call; `None` for a page that belongs to none.
    pub fn deployed(&mut self) -> Vec<Option<Arc<str>>> {
        std::mem::take(&mut self.deployed)
    }

    /// What was written and counted since the last call.
    pub async fn collect(
        &mut self,
        supervisor: &Supervisor,
        prober: &Prober,
        deadline: Duration,
    ) -> Vec<Sample> {
        self.readings.clear();
        let mut samples = self.logs();
        if let Some(metrics) = &mut self.metrics {
            samples.extend(metrics.samples(prober, deadline).await);
        }
        if let Some(pages) = &self.pages {
            let gathered = pages.take();
            for report in gathered.reports.into_values() {
                if report.told.iter().any(|series| is_version(series)) {
                    self.deployed.push(report.service.clone());
                }
                let reason = report.missing.map(|missing| missing.reason);
                self.heard_of.insert(report.target, reason);
            }
            self.readings = gathered.readings;
            samples.extend(pages_sample(pages.is_running(), &self.heard_of));
        }
        samples.extend(self.files(supervisor.clone()).await);
        samples
    }

    /// Lines that came, as samples and as templates.
    fn logs(&mut self) -> Vec<Sample> {
        let Some(logs) = &mut self.logs else {
            return Vec::new();
        };
        let (entries, problems) = logs.poll(LINES_MAX);
        let now = clock::now();
        let new = self.templates.take(now, &entries);
        for error in &new.errors {
            tracing::warn!(
                subsystem = "watchdog",
                event_type = "new_error",
                template = %error.template,
                line = error.line,
                "an error that was not logged before"
            );
        }
        let collected = match problems.first() {
            Some(problem) => self.templates.unread(now, problem),
            None => self.templates.close(now),
        };
        self.readings.extend(collected.readings);
        log_samples(now, &entries, problems.first().map(String::as_str))
    }

    /// What processes use and what databases say: read on another thread, since files and queries may take their time.
    async fn files(&mut self, supervisor: Supervisor) -> Vec<Sample> {
        let (mut resources, mut sql) = (self.resources.take(), self.sql.take());
        let now = clock::now();
        let read = tokio::task::spawn_blocking(move || {
            let used = resources.as_mut().map(|r| r.collect(&supervisor, now));
            let asked = sql.as_mut().map(|s| s.collect(now));
            (resources, sql, used, asked)
        });
        let Ok((resources, sql, used, asked)) = read.await else {
            return missing("resources", "reading them ended in a panic; see the log")
                .into_iter()
                .collect();
        };
        (self.resources, self.sql) = (resources, sql);
        self.readings
            .extend(used.map(|c| c.readings).unwrap_or_default());
        let Some(asked) = asked else {
            return Vec::new();
        };
        self.readings.extend(asked.readings);
        match asked.missing.first() {
            Some(m) => missing("sql", &format!("{}: {}", m.series, m.reason)),
            None => heard("sql"),
        }
        .into_iter()
        .collect()
    }
}

/// A series of information that names a version, such as `app_build_info{version="2.1"}`.
fn is_version(series: &str) -> bool {
    ["version=", "revision=", "commit="]
        .iter()
        .any(|label| series.contains(label))
}

/// Whether the pages of metrics can be read: all of them in one sample, however many there are.
fn pages_sample(is_running: bool, pages: &BTreeMap<Arc<str>, Option<String>>) -> Option<Sample> {
    if !is_running {
        return missing("metrics_pages", "nothing reads them any more");
    }
    let failed = || {
        pages
            .iter()
            .filter_map(|(name, reason)| Some((name, reason.as_ref()?)))
    };
    match failed().next() {
        Some((name, reason)) => {
            let text = format!("{} of {}, {name}: {reason}", failed().count(), pages.len());
            missing("metrics_pages", &text)
        }
        None => heard("metrics_pages"),
    }
}

fn log_samples(now: Timestamp, entries: &[LogEntry], problem: Option<&str>) -> Vec<Sample> {
    let errors = entries.iter().filter(|e| e.is_error()).count() as u64;
    let total = entries.len() as u64;
    let mut samples: Vec<Sample> = sample(now, "error_log", SampleValue::Counts { errors, total })
        .into_iter()
        .collect();
    samples.extend(match problem {
        Some(problem) => missing("log_files", problem),
        None => heard("log_files"),
    });
    samples
}

impl Metrics {
    async fn samples(&mut self, prober: &Prober, deadline: Duration) -> Vec<Sample> {
        let page = prober
            .page(&PageRequest {
                url: &self.url,
                deadline,
                len_max: PAGE_LEN_MAX,
                accept: None,
                token: None,
            })
            .await;
        if !page.result.ok {
            self.last = None;
            return missing(
                "metrics",
                page.result.detail.as_deref().unwrap_or("no answer"),
            )
            .into_iter()
            .collect();
        }
        let scrape = Scrape::parse(
            &page.body,
            Format::of_content_type(&page.content_type),
            &self.names,
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SAFETY 11
    #[test]
    fn pages_that_cannot_be_read_are_told_in_one_sample() {
        let mut pages = BTreeMap::from([(Arc::from("a"), None), (Arc::from("b"), None)]);
        let value = |pages: &_, is_running| pages_sample(is_running, pages).unwrap().value;
        assert!(matches!(
            value(&pages, true),
            SampleValue::Counts { total: 0, .. }
        ));
        pages.insert(Arc::from("b"), Some("status 500".to_owned()));
        let missing = |reason: &str| SampleValue::Missing {
            reason: reason.to_owned(),
        };
        assert_eq!(value(&pages, true), missing("1 of 2, b: status 500"));
        assert_eq!(value(&pages, false), missing("nothing reads them any more"));
    }
}
