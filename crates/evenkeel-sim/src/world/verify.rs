//! Measuring again: what a re-test finds out about the signal of an anomaly. It asks the services, never the actor.

use evenkeel_core::Anomaly;
use evenkeel_core::anomaly::AnomalyType;

use super::World;
use super::service::{DEADLINE_MS, Life, Reach};

/// Requests that a re-test sends.
const REQUESTS: f64 = 200.0;

/// What a re-test measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// What was measured: `error_rate`, `latency_p95`, `memory_growth` or `readiness`.
    pub metric: &'static str,
    /// The measure.
    pub value: f64,
    /// It is within its limit.
    pub normal: bool,
}

impl World {
    /// Measures the signal of an anomaly.
    pub fn measure(&mut self, anomaly: &Anomaly) -> Reading {
        let services = self.concerned(anomaly);
        match anomaly.kind.as_str() {
            AnomalyType::ERROR_RATE_SPIKE | AnomalyType::HEALTH_ENDPOINT_FAILURE => {
                let value = services
                    .iter()
                    .map(|s| self.sampled_errors(*s))
                    .fold(0.0, f64::max);
                reading("error_rate", value, value <= 0.05)
            }
            AnomalyType::LATENCY_SPIKE => {
                let value = services.iter().map(|s| self.p95(*s)).fold(0.0, f64::max);
                reading("latency_p95", value, value <= 2000.0)
            }
            AnomalyType::MEMORY_GROWTH => {
                let up = self.ready(&services);
                let value = services
                    .iter()
                    .map(|s| self.services[*s].strain.leak)
                    .fold(0.0, f64::max);
                reading("memory_growth", value, up && value <= 100.0)
            }
            _ => {
                let up = self.ready(&services);
                reading("readiness", f64::from(u8::from(!up)), up)
            }
        }
    }

    /// The services that an anomaly speaks of: the one that it names, in itself or in its context, else all.
    fn concerned(&self, anomaly: &Anomaly) -> Vec<usize> {
        let source = anomaly.context["source"].as_str().unwrap_or("");
        let named = anomaly
            .service
            .as_deref()
            .or_else(|| source.split_once('/').map(|(_, name)| name))
            .and_then(|name| self.index(name));
        match named {
            Some(s) => vec![s],
            None => (0..self.services.len()).collect(),
        }
    }

    fn ready(&self, services: &[usize]) -> bool {
        services.iter().all(|s| {
            let service = &self.services[*s];
            service.life == Life::Up && !service.strain.hung
        })
    }

    fn sampled_errors(&mut self, s: usize) -> f64 {
        let seen = self.services[s].seen(&self.scenario.services[s], self.now);
        if seen.reach != Reach::Answers {
            return 1.0;
        }
        self.failures(seen.errors, REQUESTS) / REQUESTS
    }

    /// How many of `requests` fail when `share` of them does, with the chance that is in it.
    pub(super) fn failures(&mut self, share: f64, requests: f64) -> f64 {
        let mean = share * requests;
        let spread = (mean * (1.0 - share)).max(0.0).sqrt();
        (mean + self.noise.bell() * spread)
            .round()
            .clamp(0.0, requests)
    }

    /// What a service counted since this was asked last, or within a minute where that was long ago: requests, at
    /// least one, and failed ones.
    pub(super) fn read_counters(&mut self, s: usize) -> (f64, f64) {
        let (spec, service) = (&self.scenario.services[s], &mut self.services[s]);
        service.count(spec, self.now);
        let (total, failed) = std::mem::take(&mut service.counted);
        let minute = spec.load * 60.0;
        let kept = (minute * 2.0 / total.max(1.0)).min(1.0);
        ((total * kept).max(1.0), failed * kept)
    }

    fn p95(&mut self, s: usize) -> f64 {
        let seen = self.services[s].seen(&self.scenario.services[s], self.now);
        if seen.reach != Reach::Answers {
            return DEADLINE_MS;
        }
        seen.latency_ms * (1.3 + 0.05 * self.noise.bell())
    }

    /// Whether a service may have anything to show: where nothing has happened for a while and nothing is wrong, its
    /// measures are those of the last time.
    pub fn is_worth_a_look(&self, s: usize) -> bool {
        const SETTLED_MS: i64 = 15 * crate::fault::MINUTE_MS;
        let (service, spec) = (&self.services[s], &self.scenario.services[s]);
        self.scenario.watch.every_service
            || self.telemetry[s].is_some()
            || self.now - service.touched < SETTLED_MS
            || service.life != Life::Up
            || !service.strain.is_calm(spec)
    }

    /// Services that do not run.
    pub fn down(&self) -> impl Iterator<Item = &'static str> {
        self.services
            .iter()
            .zip(&self.scenario.services)
            .filter(|(service, _)| service.life == Life::Down)
            .map(|(_, spec)| spec.name)
    }

    /// Whether any service is in a state that its users feel: for deciding where to look, and for judges.
    pub fn worst(&self) -> Trouble {
        let mut worst = Trouble::None;
        for (service, spec) in self.services.iter().zip(&self.scenario.services) {
            let seen = service.seen(spec, self.now);
            let trouble = if seen.reach != Reach::Answers {
                Trouble::Unserved
            } else if seen.errors > 0.15 {
                Trouble::Errors
            } else if seen.errors > 0.04 || seen.latency_ms > 1200.0 || service.strain.leak > 50.0 {
                Trouble::Slight
            } else {
                Trouble::None
            };
            worst = worst.max(trouble);
        }
        worst
    }
}

/// How bad it is, for the users of the worst service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// All is well.
    None,
    /// Something may become worth acting on.
    Slight,
    /// Many requests fail.
    Errors,
    /// Nobody answers.
    Unserved,
}

fn reading(metric: &'static str, value: f64, normal: bool) -> Reading {
    Reading {
        metric,
        value,
        normal,
    }
}
