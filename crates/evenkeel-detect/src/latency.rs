//! Response times: the 95th percentile of the probes of each service, and of each scraped histogram.
//!
//! Quantiles are never averaged: every source is judged by its own, and the worst speaks. A probe that timed out
//! counts at its deadline, at least; one that was refused or cut has no response time. With five probes the p95 is
//! the slowest one, and one slow answer is no spike, so a spike also needs several above the limit. The window
//! stretches, ten times at most, to hold the minimum number of probes.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::limits::{LATENCIES_MAX, SERIES_MAX, SERVICES_MAX, WINDOW_STRETCH_MAX};
use crate::slot::{Evaluation, Finding, Seen, concerns};
use crate::stats::p95;
use crate::verdict::MeasureNow;

/// The series of the anomalies that this monitor raises.
pub const SERIES: &str = "latency_p95";

#[derive(Clone, Debug, Default)]
struct Probes {
    service: Option<String>,
    latencies: VecDeque<(Timestamp, f64)>,
    /// Slowest since the last check.
    fresh: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Scraped {
    at: Timestamp,
    p95_ms: f64,
    n: u64,
    fresh: bool,
}

/// The monitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    probes: BTreeMap<String, Probes>,
    scraped: BTreeMap<String, Scraped>,
}

impl Latency {
    pub(crate) fn probe(&mut self, service: Option<&str>, at: Timestamp, latency_ms: f64) {
        let name = format!("probes/{}", service.unwrap_or(""));
        if self.probes.len() >= SERVICES_MAX && !self.probes.contains_key(&name) {
            return;
        }
        let probes = self.probes.entry(name).or_insert_with(|| Probes {
            service: service.map(str::to_owned),
            ..Probes::default()
        });
        probes.latencies.push_back((at, latency_ms));
        if probes.latencies.len() > LATENCIES_MAX {
            probes.latencies.pop_front();
        }
        probes.fresh = Some(probes.fresh.map_or(latency_ms, |f| f.max(latency_ms)));
    }

    pub(crate) fn scraped(&mut self, series: &str, at: Timestamp, p95_ms: f64, n: u64, min_n: u64) {
        let name = format!("scraped/{series}");
        // A histogram with too few requests says nothing; the one before it is believed until it is too old.
        if n < min_n.max(1)
            || (self.scraped.len() >= SERIES_MAX && !self.scraped.contains_key(&name))
        {
            return;
        }
        self.scraped.insert(
            name,
            Scraped {
                at,
                p95_ms,
                n,
                fresh: true,
            },
        );
    }

    /// Forgets all windows, or those that can concern `service`: its own probes and every histogram.
    pub(crate) fn reset(&mut self, service: Option<&str>) {
        self.scraped.clear();
        self.probes
            .retain(|_, p| !concerns(p.service.as_deref(), service));
    }

    pub(crate) fn evaluate(
        &mut self,
        now: Timestamp,
        config: &DetectConfig,
        limit: f64,
        culprit: Option<&str>,
    ) -> Evaluation {
        self.prune(now, config);
        let probes = self
            .probes
            .iter()
            .map(|(n, p)| (n.as_str(), judge_probes(n, p, config, limit)));
        let scraped = self
            .scraped
            .iter()
            .map(|(n, s)| (n.as_str(), judge_scraped(n, *s, limit)));
        let evaluation = Evaluation::combine(probes.chain(scraped), culprit);
        for probes in self.probes.values_mut() {
            probes.fresh = None;
        }
        for scraped in self.scraped.values_mut() {
            scraped.fresh = false;
        }
        evaluation
    }

    fn prune(&mut self, now: Timestamp, config: &DetectConfig) {
        let window = config.latency_window_ms;
        let longest = window.saturating_mul(WINDOW_STRETCH_MAX);
        for probes in self.probes.values_mut() {
            while let Some((at, _)) = probes.latencies.front() {
                let age = now.millis_since(*at);
                let spare = probes.latencies.len() > config.latency_min_samples;
                if age > window && (spare || age > longest) {
                    probes.latencies.pop_front();
                } else {
                    break;
                }
            }
        }
        self.probes.retain(|_, p| !p.latencies.is_empty());
        self.scraped.retain(|_, s| {
            now.millis_since(s.at) <= window.max(config.interval_ms.saturating_mul(2))
        });
    }

    pub(crate) fn measure(&self, config: &DetectConfig) -> Option<MeasureNow> {
        let probes = self
            .probes
            .values()
            .filter(|p| p.latencies.len() >= config.latency_min_samples)
            .filter_map(|p| Some((p95(values(p))?, p.latencies.len() as u64)));
        let scraped = self.scraped.values().map(|s| (s.p95_ms, s.n));
        let worst = probes.chain(scraped).max_by(|a, b| a.0.total_cmp(&b.0));
        let enough = worst.is_some();
        let (value, samples) = worst.or_else(|| {
            let all: Vec<f64> = self.probes.values().flat_map(values).collect();
            let n = all.len() as u64;
            Some((p95(all)?, n))
        })?;
        Some(MeasureNow {
            value,
            unit: "ms",
            samples,
            enough,
        })
    }
}

fn values(probes: &Probes) -> Vec<f64> {
    probes.latencies.iter().map(|(_, ms)| *ms).collect()
}

fn judge_probes(name: &str, probes: &Probes, config: &DetectConfig, limit: f64) -> Evaluation {
    let all = values(probes);
    let n = all.len();
    let slow = all.iter().filter(|ms| **ms > limit).count();
    let value = p95(all).unwrap_or(0.0);
    if n >= config.latency_min_samples && slow >= config.latency_min_slow && value > limit {
        let since = probes
            .latencies
            .iter()
            .find(|(_, ms)| *ms > limit)
            .map_or_else(Timestamp::default, |(at, _)| *at);
        let of = probes
            .service
            .as_ref()
            .map_or_else(String::new, |s| format!(" of {s}"));
        let finding = Finding {
            current: value,
            threshold: limit,
            unit: "ms",
            details: format!(
                "p95 response time {value:.0} ms exceeds threshold {limit:.0} ms: {slow} of {n} probes{of} were slower"
            ),
            service: probes.service.clone(),
            source: name.to_owned(),
            since,
            context: json!({ "source": name, "slow": slow, "samples": n }),
        };
        let fresh_slow = probes.fresh.is_some_and(|ms| ms > limit);
        Evaluation {
            seen: if fresh_slow {
                Seen::Bad
            } else {
                Seen::BadStill
            },
            finding: Some(finding),
        }
    } else if value > limit {
        Evaluation::UNSURE
    } else if probes.fresh.is_some() {
        Evaluation::GOOD
    } else {
        Evaluation::UNKNOWN
    }
}

fn judge_scraped(name: &str, scraped: Scraped, limit: f64) -> Evaluation {
    let Scraped {
        at,
        p95_ms,
        n,
        fresh,
    } = scraped;
    if p95_ms > limit {
        let series = name.trim_start_matches("scraped/");
        let finding = Finding {
            current: p95_ms,
            threshold: limit,
            unit: "ms",
            details: format!(
                "p95 response time {p95_ms:.0} ms exceeds threshold {limit:.0} ms: {n} requests in {series}"
            ),
            service: None,
            source: name.to_owned(),
            since: at,
            context: json!({ "source": name, "samples": n }),
        };
        Evaluation {
            seen: if fresh { Seen::Bad } else { Seen::BadStill },
            finding: Some(finding),
        }
    } else if fresh {
        Evaluation::GOOD
    } else {
        Evaluation::UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn seen(latencies: &[f64]) -> Seen {
        let mut monitor = Latency::default();
        for (i, ms) in (0..).zip(latencies) {
            monitor.probe(None, at(i), *ms);
        }
        monitor
            .evaluate(at(20), &DetectConfig::default(), 2000.0, None)
            .seen
    }

    #[test]
    fn a_spike_needs_enough_samples_and_more_than_one_slow_answer() {
        for (latencies, expected) in [
            (&[][..], Seen::Unknown),
            (&[9000.0; 4], Seen::Unsure),
            (&[9000.0, 10.0, 10.0, 10.0, 10.0], Seen::Unsure),
            (&[2000.0; 8], Seen::Good), // exactly at the limit
            (&[2000.1; 8], Seen::Bad),
            (&[10.0, 10.0, 9000.0, 9000.0, 9000.0], Seen::Bad),
        ] {
            assert_eq!(seen(latencies), expected, "{latencies:?}");
        }
    }

    #[test]
    fn one_probe_a_minute_is_enough_and_an_hour_old_one_is_gone() {
        let (mut monitor, config) = (Latency::default(), DetectConfig::default());
        for i in 0..5 {
            monitor.probe(None, at(i * 60), 3000.0);
        }
        assert_eq!(
            monitor.evaluate(at(240), &config, 2000.0, None).seen,
            Seen::Bad
        );
        assert!(monitor.measure(&config).unwrap().enough);
        assert_eq!(
            monitor.evaluate(at(3600), &config, 2000.0, None).seen,
            Seen::Unknown
        );
        assert_eq!(monitor.measure(&config), None);
    }

    #[test]
    fn scraped_quantiles_are_judged_apart_and_need_their_own_number() {
        let (mut monitor, config) = (Latency::default(), DetectConfig::default());
        for i in 0..10 {
            monitor.probe(None, at(i), 10.0);
        }
        monitor.scraped("h", at(10), 9000.0, 19, config.scraped_min_n);
        assert_eq!(
            monitor.evaluate(at(11), &config, 2000.0, None).seen,
            Seen::Good
        );
        monitor.scraped("h", at(12), 9000.0, 20, config.scraped_min_n);
        assert_eq!(
            monitor.evaluate(at(13), &config, 2000.0, None).seen,
            Seen::Bad
        );
        assert_eq!(
            monitor.evaluate(at(14), &config, 2000.0, None).seen,
            Seen::BadStill
        );
        assert!((monitor.measure(&config).unwrap().value - 9000.0).abs() < 1e-9);
    }
}
