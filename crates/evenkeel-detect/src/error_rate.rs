//! The error rate: failures counted over a sliding window, source by source.
//!
//! A source is one series of counts (the target's 5xx share, its error log, its audited entries) or all probes of one
//! service. Sources are judged apart, because a busy healthy one would hide a small sick one. A source is beyond its
//! limit when it has the minimum number of events and errors *and* the Wilson lower bound of its share (90 %
//! one-sided by default) exceeds the limit: 6 of 100 may be chance at 5 %, 12 of 100 is not; what may be chance
//! neither raises nor clears. Probes of a slow
//! interval would never be enough, so their window stretches, ten times at most, to hold the minimum number.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_core::anomaly::format_measure;
use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::limits::{COUNT_ENTRIES_MAX, SERIES_MAX, WINDOW_STRETCH_MAX};
use crate::slot::{Evaluation, Finding, Seen, concerns};
use crate::stats::wilson_lower;
use crate::verdict::MeasureNow;

/// The series of the anomalies that this monitor raises.
pub const SERIES: &str = "error_rate";

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Timestamp,
    errors: u64,
    total: u64,
}

#[derive(Clone, Debug, Default)]
struct Source {
    /// Of probes only.
    service: Option<String>,
    probes: bool,
    entries: VecDeque<Entry>,
    fresh: bool,
    /// Errors and events since the last check.
    news: (u64, u64),
}

impl Source {
    fn sums(&self) -> (u64, u64) {
        self.entries.iter().fold((0, 0), |(errors, total), e| {
            (
                u64::saturating_add(errors, e.errors),
                u64::saturating_add(total, e.total),
            )
        })
    }

    fn push(&mut self, entry: Entry) {
        self.fresh |= entry.total > 0;
        self.news.0 = self.news.0.saturating_add(entry.errors);
        self.news.1 = self.news.1.saturating_add(entry.total);
        self.entries.push_back(entry);
        if self.entries.len() > COUNT_ENTRIES_MAX {
            let merged = self
                .entries
                .make_contiguous()
                .chunks(2)
                .filter_map(|pair| {
                    let at = pair.last()?.at;
                    Some(pair.iter().fold(
                        Entry {
                            at,
                            errors: 0,
                            total: 0,
                        },
                        |sum, e| Entry {
                            at,
                            errors: sum.errors.saturating_add(e.errors),
                            total: sum.total.saturating_add(e.total),
                        },
                    ))
                })
                .collect();
            self.entries = merged;
        }
    }

    fn prune(&mut self, now: Timestamp, config: &DetectConfig) {
        let window = config.error_window_ms;
        let keep = if self.probes {
            config.error_min_events
        } else {
            0
        };
        while let Some(first) = self.entries.front() {
            let age = now.millis_since(first.at);
            let spare = self.entries.len() as u64 > keep;
            if age > window && (spare || age > window.saturating_mul(WINDOW_STRETCH_MAX)) {
                self.entries.pop_front();
            } else {
                break;
            }
        }
    }

    fn enough(&self, config: &DetectConfig) -> bool {
        self.sums().1 >= config.error_min_events.max(1)
    }
}

/// The monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorRate {
    sources: BTreeMap<String, Source>,
}

impl ErrorRate {
    pub(crate) fn counts(&mut self, series: &str, at: Timestamp, errors: u64, total: u64) {
        let source = format!("counts/{series}");
        self.push(source, None, false, Entry { at, errors, total });
    }

    pub(crate) fn probe(&mut self, service: Option<&str>, at: Timestamp, ok: bool) {
        let source = format!("probes/{}", service.unwrap_or(""));
        let entry = Entry {
            at,
            errors: u64::from(!ok),
            total: 1,
        };
        self.push(source, service, true, entry);
    }

    fn push(&mut self, name: String, service: Option<&str>, probes: bool, entry: Entry) {
        if self.sources.len() >= SERIES_MAX && !self.sources.contains_key(&name) {
            return;
        }
        let source = self.sources.entry(name).or_insert_with(|| Source {
            service: service.map(str::to_owned),
            probes,
            ..Source::default()
        });
        source.push(entry);
    }

    /// Forgets all windows, or those that can concern `service`: its own probes and every count.
    pub(crate) fn reset(&mut self, service: Option<&str>) {
        self.sources
            .retain(|_, s| !concerns(s.service.as_deref(), service));
    }

    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        config: &DetectConfig,
        limit: f64,
        culprit: Option<&str>,
    ) -> Evaluation {
        for source in self.sources.values_mut() {
            source.prune(now, config);
        }
        self.sources.retain(|_, s| !s.entries.is_empty());
        let evaluation = Evaluation::combine(
            self.sources
                .iter()
                .map(|(name, source)| (name.as_str(), judge(name, source, config, limit))),
            culprit,
        );
        for source in self.sources.values_mut() {
            source.fresh = false;
            source.news = (0, 0);
        }
        evaluation
    }

    /// An error came since the last check.
    pub(crate) fn fresh_errors(&self) -> bool {
        self.sources.values().any(|s| s.news.0 > 0)
    }

    pub(crate) fn measure(&self, config: &DetectConfig) -> Option<MeasureNow> {
        let worst = self
            .sources
            .values()
            .filter(|s| s.enough(config))
            .map(Source::sums)
            .max_by(|a, b| share(*a).total_cmp(&share(*b)));
        let (sums, enough) = match worst {
            Some(sums) => (sums, true),
            None => (
                self.sources.values().fold((0, 0), |(errors, total), s| {
                    let (e, t) = s.sums();
                    (
                        u64::saturating_add(errors, e),
                        u64::saturating_add(total, t),
                    )
                }),
                false,
            ),
        };
        (sums.1 > 0).then(|| MeasureNow {
            value: share(sums),
            unit: "ratio",
            samples: sums.1,
            enough,
        })
    }
}

fn share((errors, total): (u64, u64)) -> f64 {
    if total == 0 {
        0.0
    } else {
        errors as f64 / total as f64
    }
}

fn judge(name: &str, source: &Source, config: &DetectConfig, limit: f64) -> Evaluation {
    let (errors, total) = source.sums();
    let rate = share((errors, total));
    let lower = wilson_lower(errors, total, config.error_confidence_z);
    let beyond = total >= config.error_min_events
        && errors >= config.error_min_errors
        && rate > limit
        && lower > limit;
    if beyond {
        let since = source
            .entries
            .iter()
            .find(|e| e.errors > 0)
            .map_or_else(Timestamp::default, |e| e.at);
        let finding = Finding {
            current: rate,
            threshold: limit,
            unit: "ratio",
            details: format!(
                "Error rate {} exceeds threshold {}: {errors} of {total} in {}",
                format_measure(rate, "ratio"),
                format_measure(limit, "ratio"),
                place(name, source),
            ),
            service: source.service.clone(),
            source: name.to_owned(),
            since,
            context: json!({ "source": name, "errors": errors, "total": total, "at_least": lower }),
        };
        Evaluation {
            // The few errors that there always are do not make a burst of minutes ago a new one.
            seen: if share(source.news) > limit {
                Seen::Bad
            } else {
                Seen::BadStill
            },
            finding: Some(finding),
        }
    } else if rate > limit {
        Evaluation::UNSURE
    } else if source.fresh && total > 0 {
        Evaluation::GOOD
    } else {
        Evaluation::UNKNOWN
    }
}

fn place(name: &str, source: &Source) -> String {
    match (&source.service, source.probes) {
        (Some(service), _) => format!("probes of {service}"),
        (None, true) => "probes".to_owned(),
        (None, false) => name.trim_start_matches("counts/").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn seen(errors: u64, total: u64) -> Seen {
        let mut monitor = ErrorRate::default();
        monitor.counts("http", at(1), errors, total);
        monitor
            .evaluate(at(2), &DetectConfig::default(), 0.05, None)
            .seen
    }

    #[test]
    fn counts_are_tested_as_counts() {
        for (errors, total, expected) in [
            (0, 0, Seen::Unknown),
            (0, 1000, Seen::Good),
            (2, 2, Seen::Unsure),   // fewer than three errors
            (9, 9, Seen::Unsure),   // fewer than ten events
            (5, 100, Seen::Good),   // exactly at the limit
            (50, 1000, Seen::Good), // exactly at the limit, many
            (6, 100, Seen::Unsure), // may be chance
            (12, 100, Seen::Bad),
            (4, 40, Seen::Bad),
            (3, 10, Seen::Bad),
            (650, 10_000, Seen::Bad),
        ] {
            assert_eq!(seen(errors, total), expected, "{errors} of {total}");
        }
    }

    #[test]
    fn a_busy_healthy_source_does_not_hide_a_sick_one() {
        let mut monitor = ErrorRate::default();
        monitor.counts("http", at(1), 0, 100_000);
        monitor.counts("audit", at(1), 10, 20);
        let config = DetectConfig::default();
        let evaluation = monitor.evaluate(at(2), &config, 0.05, None);
        assert_eq!(evaluation.finding.unwrap().source, "counts/audit");
        assert!((monitor.measure(&config).unwrap().value - 0.5).abs() < 1e-12);
    }

    #[test]
    fn old_errors_leave_the_window_and_old_trouble_is_not_fresh() {
        let (mut monitor, config) = (ErrorRate::default(), DetectConfig::default());
        monitor.counts("http", at(1), 50, 100);
        assert_eq!(monitor.evaluate(at(2), &config, 0.05, None).seen, Seen::Bad);
        assert_eq!(
            monitor.evaluate(at(62), &config, 0.05, None).seen,
            Seen::BadStill
        );
        assert_eq!(
            monitor.evaluate(at(400), &config, 0.05, None).seen,
            Seen::Unknown
        );
        assert_eq!(monitor.measure(&config), None);
    }

    /// SAFETY 2: half a minute of errors, as when a dependency is restarted, is one burst and not several.
    #[test]
    fn a_burst_stays_one_while_usual_errors_follow() {
        let (mut monitor, config) = (ErrorRate::default(), DetectConfig::default());
        let seen: Vec<Seen> = [300, 4, 5, 3, 4]
            .into_iter()
            .zip(0..)
            .map(|(errors, minute)| {
                monitor.counts("http", at(minute * 60), errors, 1000);
                monitor.evaluate(at(minute * 60), &config, 0.05, None).seen
            })
            .collect();
        assert_eq!(seen[0], Seen::Bad);
        assert!(seen[1..].iter().all(|s| *s == Seen::BadStill), "{seen:?}");
    }

    #[test]
    fn a_health_endpoint_that_answers_errors_is_noticed_at_one_probe_a_minute() {
        let (mut monitor, config) = (ErrorRate::default(), DetectConfig::default());
        let bad_checks = (0..20)
            .filter(|i| {
                monitor.probe(Some("api"), at(i * 60), *i < 10);
                monitor.evaluate(at(i * 60), &config, 0.05, None).seen == Seen::Bad
            })
            .count();
        assert_eq!(bad_checks, 8, "from the third error on");
    }

    #[test]
    fn merging_neighbours_keeps_the_counts() {
        let (mut monitor, config) = (ErrorRate::default(), DetectConfig::default());
        for i in 0..5000 {
            monitor.counts("http", Timestamp::from_millis(i * 10), 1, 4);
        }
        assert!(
            monitor
                .sources
                .values()
                .all(|s| s.entries.len() <= COUNT_ENTRIES_MAX)
        );
        let now = monitor.measure(&config).unwrap();
        assert_eq!((now.samples, now.value), (20_000, 0.25));
    }
}
