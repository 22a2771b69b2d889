//! The watchdog's part: checks, what the supervisor notices, and what becomes of what is found.

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::event::Trigger;
use evenkeel_core::healer::{NOTE_ONLY, ReplayError};
use evenkeel_detect::{Sample, SampleValue, SeriesId, Verdict};
use serde_json::Value;

use super::Driver;
use crate::trace::Fact;
use crate::world::Signal;
use crate::world::service::Life;

/// Whether it is of a kind that may be acted on.
pub(super) fn may_be_acted_on(anomaly: &Anomaly) -> bool {
    !NOTE_ONLY.contains(&anomaly.kind.as_str())
}

impl Driver {
    /// A regular check.
    pub(super) fn check(&mut self) -> Result<(), ReplayError> {
        let verdicts = self.look();
        self.take(verdicts)
    }

    /// A check while a cycle is open: it is made, and what it says is forgotten.
    pub(super) fn resting_check(&mut self) {
        let check = self
            .world
            .elapsed()
            .div_euclid(self.scenario.watch.interval_ms);
        if self.checked < check {
            self.checked = check;
            self.tell_signals();
            self.look();
        }
    }

    fn look(&mut self) -> Vec<Verdict> {
        self.checks += 1;
        self.collectors.collect(&mut self.world, &mut self.watchdog);
        self.watchdog.check(self.world.wall())
    }

    /// Hands over what the supervisor noticed since; liveness is judged at once.
    pub(super) fn supervisor(&mut self) -> Result<(), ReplayError> {
        if self.world.signals.is_empty() {
            return Ok(());
        }
        self.tell_signals();
        let verdicts = self.watchdog.check_liveness(self.world.wall());
        self.take(verdicts)
    }

    fn tell_signals(&mut self) {
        let at = self.world.wall();
        for signal in std::mem::take(&mut self.world.signals) {
            let (s, up) = match signal {
                Signal::Ended(s) => (s, false),
                Signal::Ready(s) => (s, true),
            };
            let service = self.scenario.services[s].name.to_owned();
            let series = SeriesId::new(format!("supervisor/{service}")).expect("a short name");
            let value = if up {
                SampleValue::ServiceUp { service }
            } else {
                let detail = "its process ended with exit status 1".to_owned();
                SampleValue::ServiceDown { service, detail }
            };
            self.watchdog.observe(&Sample { at, series, value });
        }
    }

    fn take(&mut self, verdicts: Vec<Verdict>) -> Result<(), ReplayError> {
        let found = self.world.elapsed();
        let mut raised = Vec::new();
        for verdict in verdicts {
            match verdict {
                Verdict::Raised(anomaly) if may_be_acted_on(&anomaly) => {
                    let key = anomaly.key();
                    self.world.note("", Fact::Raised { key });
                    raised.push(anomaly);
                }
                Verdict::Raised(anomaly) => {
                    let kind = anomaly.kind.as_str().to_owned();
                    self.world.note("", Fact::Noted { kind });
                }
                Verdict::Cleared { key, .. } => {
                    self.news = found;
                    self.gone(&key, false)?;
                }
                Verdict::Continues { .. } | Verdict::Suppressed { .. } => {}
            }
        }
        self.heal_all(raised, Trigger::Watchdog, found)
    }

    /// Heals what was found, the worst first.
    fn heal_all(
        &mut self,
        mut anomalies: Vec<Anomaly>,
        trigger: Trigger,
        found: i64,
    ) -> Result<(), ReplayError> {
        anomalies.sort_by_key(|a| std::cmp::Reverse(a.severity));
        let all = anomalies.clone();
        let topology = &self.scenario.policy.topology;
        anomalies.sort_by_key(|a| topology.root_of(a, &all).is_some());
        let starts = self.starts;
        for anomaly in anomalies {
            // What was found before a death went with it.
            if self.starts != starts {
                break;
            }
            self.news = self.world.elapsed();
            // It was found before the last fix: perhaps it is gone.
            if self.cycle_end >= found && self.world.measure(&anomaly).normal {
                self.gone(&anomaly.key(), true)?;
                continue;
            }
            // A person was alerted about it since this start: once is enough.
            let last = self.healer.last.get(&anomaly.key());
            let alerted = last.is_some_and(|p| !p.outcome.healed() && p.closed_at >= self.started);
            let trigger = if alerted { Trigger::Watchdog } else { trigger };
            if self.admit(&anomaly, trigger, None)? {
                self.heal()?;
            }
        }
        self.retry_deferred()
    }

    /// The tests after a start.
    pub(super) fn post_boot(&mut self) -> Result<(), ReplayError> {
        // The gate before them: what is starting is waited for.
        const GATE_MS: i64 = 60_000;
        let starting = |life| match life {
            Life::Starting(at) => Some(at),
            Life::Up | Life::Down => None,
        };
        let ready = self
            .world
            .services
            .iter()
            .filter_map(|s| starting(s.life))
            .max();
        if let Some(at) = ready {
            let wait = (at - self.world.elapsed()).min(GATE_MS);
            self.world.pass(wait, "");
        }
        let found = self.world.elapsed();
        let mut failed = Vec::new();
        for (test, kind) in [
            ("Health Endpoint Load", AnomalyType::HEALTH_ENDPOINT_FAILURE),
            ("Concurrent API Requests", AnomalyType::ERROR_RATE_SPIKE),
        ] {
            let primary = self.scenario.services[0].name.to_owned();
            let mut anomaly = anomaly(kind, Severity::High, self.world.wall());
            anomaly.test = Some(test.to_owned());
            anomaly.service = Some(primary);
            let reading = self.world.measure(&anomaly);
            anomaly.current = reading.value;
            if reading.normal {
                self.gone(&anomaly.key(), true)?;
            } else {
                let key = anomaly.key();
                self.world.note("", Fact::Raised { key });
                failed.push(anomaly);
            }
        }
        self.heal_all(failed, Trigger::PostBoot, found)
    }
}

/// An anomaly without a place.
pub(super) fn anomaly(
    kind: &'static str,
    severity: Severity,
    since: evenkeel_core::Timestamp,
) -> Anomaly {
    Anomaly {
        kind: AnomalyType::known(kind),
        severity,
        current: 0.0,
        threshold: 0.05,
        details: String::new(),
        unit: "ratio".to_owned(),
        baseline: None,
        test: None,
        series: None,
        service: None,
        since,
        score: None,
        context: Value::Null,
    }
}
