//! Begins windows anew: what was measured before a fix must not speak for or against it.

use evenkeel_core::time::Timestamp;

use super::Watchdog;
use crate::slot::{Slot, concerns};
use crate::{error_rate, failure_rate, latency, liveness, memory};

/// What [`Watchdog::reset_series`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every window.
    Everything,
    /// The windows behind one series of anomalies, such as `error_rate` or `liveness/api`.
    Series(&'a str),
    /// Every window that can hold samples of one service: its probes and processes, and what has no service.
    Service(&'a str),
}

impl Watchdog {
    /// Begins windows anew, after a restart or before a verification: samples measured before `now` count no more,
    /// those that wait included. Anomalies that rested on them are forgotten without being called over; their keys
    /// are returned, and if the evidence comes back they are raised again. What the supervisor said stands.
    pub fn reset_series(&mut self, scope: Scope<'_>, now: Timestamp) -> Vec<String> {
        let (errors, latency, memory, failures) = match scope {
            Scope::Everything => (true, true, true, true),
            Scope::Service(_) => (true, true, true, false),
            Scope::Series(series) => (
                series == error_rate::SERIES,
                series == latency::SERIES,
                series == memory::SERIES,
                series == failure_rate::SERIES,
            ),
        };
        let service = match scope {
            Scope::Service(service) => Some(service),
            Scope::Everything | Scope::Series(_) => None,
        };
        let mut forgotten = Vec::new();
        if errors {
            self.errors.reset(service);
            forgotten.extend(forget(&mut self.error_slot, service));
        }
        if latency {
            self.latency.reset(service);
            forgotten.extend(forget(&mut self.latency_slot, service));
        }
        if memory {
            self.memory.reset(service);
            forgotten.extend(forget(&mut self.memory_slot, service));
        }
        if failures {
            self.failures.reset();
            forgotten.extend(forget(&mut self.failure_slot, service));
        }
        let every = scope == Scope::Everything;
        for (name, (down, hung)) in &mut self.liveness_slots {
            let series = format!("{}{name}", liveness::SERIES_PREFIX);
            if every || scope == Scope::Service(name) || scope == Scope::Series(&series) {
                self.liveness.reset(Some(name));
                forgotten.extend(down.forget());
                forgotten.extend(hung.forget());
            }
        }
        if every {
            for slot in &mut self.drift_slots {
                forgotten.extend(slot.forget());
            }
            forgotten.extend(self.follow.reset());
            forgotten.extend(self.leaks.forget());
        }
        self.telemetry.not_before(now);
        forgotten
    }
}

/// Forgets a slot unless its anomaly stands in another service.
fn forget(slot: &mut Slot, service: Option<&str>) -> Option<String> {
    let elsewhere = slot
        .active()
        .is_some_and(|a| !concerns(a.service.as_deref(), service));
    if elsewhere { None } else { slot.forget() }
}
