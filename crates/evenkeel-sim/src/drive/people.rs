//! People and limits: orders, answers to requests for approval, what waits for them, and the limits of a run as plain
//! numbers for the judges.

use evenkeel_core::event::{Event, Trigger};
use evenkeel_core::healer::{Admission, Due, HealerEvent, ReplayError};
use evenkeel_core::order::{Order, Ordered};
use evenkeel_core::{Anomaly, record};

use super::Driver;
use crate::bug::Bug;
use crate::scenario::Scenario;
use crate::trace::{Boundary, Fact, Limits};
use crate::world::ToHealer;

impl Driver {
    /// What happens to Evenkeel between cycles.
    pub(super) fn serve_host(&mut self) -> Result<(), ReplayError> {
        while !self.world.to_healer.is_empty() {
            match self.world.to_healer.remove(0) {
                ToHealer::Killed(gone_ms) => {
                    self.restart(Boundary::Killed, gone_ms)?;
                    self.heal()?;
                    self.post_boot()?;
                }
                ToHealer::HandRun(service) => self.hand_run(service)?,
                other => self.hear(other)?,
            }
        }
        Ok(())
    }

    /// Hears people while an effect is carried out, or after; whatever else there is stays.
    pub(super) fn hear_people(&mut self) -> Result<(), ReplayError> {
        let is_word = |w: &ToHealer| matches!(w, ToHealer::Order(_) | ToHealer::Answer { .. });
        while let Some(at) = self.world.to_healer.iter().position(is_word) {
            let word = self.world.to_healer.remove(at);
            self.hear(word)?;
        }
        Ok(())
    }

    fn hear(&mut self, word: ToHealer) -> Result<(), ReplayError> {
        // A word that cannot be written down is refused, and whoever gave it knows.
        if self.world.disk_full {
            return Ok(());
        }
        let now = self.world.wall();
        match word {
            ToHealer::Order(order) => {
                if self.scenario.bug == Some(Bug::DeafToPause)
                    && matches!(order, Order::Pause { .. })
                {
                    self.append(record::of_order(&ordered(now, order)));
                    return Ok(());
                }
                let ordered = ordered(now, order);
                self.append(record::of_order(&ordered));
                self.healer.apply(&HealerEvent::Ordered(ordered))
            }
            ToHealer::Answer { id, binds } => {
                let by = "somebody";
                let answer = match &binds {
                    Some(binds) => self.healer.approve(now, &id, binds, by),
                    None => self.healer.deny(&id, by, "not now"),
                };
                match answer {
                    Err(_) => self.world.note("", Fact::AnswerRefused { id }),
                    Ok((workflow, event)) => {
                        let yes = binds.is_some();
                        self.world.note(&workflow, Fact::Answered { id, yes });
                        self.submit(&workflow, event)?;
                    }
                }
                Ok(())
            }
            ToHealer::Killed(_) | ToHealer::HandRun(_) => Ok(()),
        }
    }

    /// Ends what nobody approved in time, and goes on with what has waited and may go on.
    pub(super) fn go_on(&mut self) -> Result<(), ReplayError> {
        if self.world.disk_full {
            return Ok(());
        }
        while let Some((workflow, event)) = self.healer.expired(self.world.wall()) {
            self.submit(&workflow, event)?;
        }
        if self.due() != Due::Nothing {
            self.heal()?;
        }
        Ok(())
    }

    /// Looks again at what could not be acted on when it was found: only at what is still there (SAFETY 14).
    pub(super) fn retry_deferred(&mut self) -> Result<(), ReplayError> {
        let keys: Vec<String> = self.deferred.keys().cloned().collect();
        for key in keys {
            let Some((anomaly, trigger)) = self.deferred.get(&key).cloned() else {
                continue;
            };
            let others = self.present(&key);
            let wall = self.world.wall();
            let (policy, facts) = (&self.scenario.policy, self.facts());
            let admission = self
                .healer
                .admit(wall, &anomaly, trigger, &others, policy, &facts);
            if !matches!(admission, Admission::Open { .. }) {
                continue;
            }
            self.deferred.remove(&key);
            if self.world.measure(&anomaly).normal {
                self.gone(&key, true)?;
                continue;
            }
            self.world.note("", Fact::StillThere { key });
            if self.admit(&anomaly, trigger, None)? {
                self.heal()?;
            }
        }
        Ok(())
    }

    /// The anomalies that are there now, as far as is known, but for this one.
    pub(super) fn present(&self, but: &str) -> Vec<Anomaly> {
        let mut all = self.unhealed.clone();
        all.extend(self.watchdog.active().map(|a| (a.key(), a.clone())));
        all.remove(but);
        all.into_values().collect()
    }

    /// An anomaly is not there any more.
    pub(super) fn gone(&mut self, key: &str, verified: bool) -> Result<(), ReplayError> {
        self.unhealed.remove(key);
        self.deferred.remove(key);
        self.cleared(key, verified)
    }

    /// Puts an anomaly off.
    pub(super) fn defer(&mut self, anomaly: &Anomaly, trigger: Trigger) {
        self.deferred
            .insert(anomaly.key(), (anomaly.clone(), trigger));
    }

    /// Fills in what only the holder of the policy knows.
    pub(super) fn with_mode(&self, event: Event) -> Event {
        let mode_of = |playbook: &str| self.healer.mode_of(playbook, &self.scenario.policy);
        match event {
            Event::PlaybookSelected {
                plan, passed_over, ..
            } => Event::PlaybookSelected {
                mode: mode_of(&plan.playbook),
                plan,
                passed_over,
            },
            Event::Advised { advice, .. } => Event::Advised {
                mode: mode_of(&advice.plan.playbook),
                advice,
            },
            other => other,
        }
    }
}

fn ordered(at: evenkeel_core::Timestamp, order: Order) -> Ordered {
    Ordered {
        at,
        by: "somebody".to_owned(),
        order,
    }
}

/// The limits of a run as plain numbers.
pub(super) fn limits(scenario: &Scenario) -> Limits {
    let (rules, policy) = (scenario.rules, &scenario.policy);
    let l = &policy.limits;
    let seconds = |s: u64| i64::try_from(s.saturating_mul(1000)).unwrap_or(i64::MAX);
    Limits {
        max_attempts: rules.max_attempts,
        advisors: rules.advisors,
        settle_ms: rules.settle_ms,
        recurrence_window_ms: policy.recurrence_window_ms,
        mode: policy.mode.as_str(),
        heals: [
            l.heals_per_hour,
            l.heals_per_day,
            l.heals_per_service_hour,
            l.heals_per_service_day,
        ],
        interruptions: l.restarts_per_service_hour,
        breaker_cycles: l.breaker_cycles,
        storm_services: l.storm_services,
        flaps: l.flaps,
        quiet_ms: seconds(l.quiet_s),
        attempt_ms: seconds(l.attempt_timeout_s),
        capacity: [l.min_up, l.max_down_percent, l.max_down],
        maintenance: (!policy.maintenance.is_empty()).then_some((60, 270)),
    }
}
