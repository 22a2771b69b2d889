//! Faults as causes in the world's state: what each does to which service, and what ends it.

use super::World;
use super::service::{Life, Strain};
use crate::fault::{BenignKind, Fault, FaultKind};
use crate::trace::Fact;

/// The cause of one fault of the scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause {
    /// It has begun and has not ended.
    pub(super) there: bool,
    /// It comes and goes, and is gone just now.
    pub(super) paused: bool,
    /// The process that it struck.
    process: Option<u64>,
    /// Whoever held the lock is gone.
    unlocked: bool,
    /// Restarts since it began that made it worse.
    worse: u32,
}

impl Cause {
    pub(super) fn active(&self) -> bool {
        self.there && !self.paused
    }
}

impl World {
    /// The fault strikes: what happens once, at that moment.
    pub(super) fn strike(&mut self, i: usize) {
        let f = self.scenario.faults[i];
        let process = self.services[f.service].process;
        self.causes[i].unlocked = false;
        match f.kind {
            FaultKind::Crash | FaultKind::BrokenStart => self.end_process(f.service),
            FaultKind::Hang => self.causes[i].process = Some(process),
            _ => {}
        }
    }

    /// A fault that comes and goes has gone for now: what a supervisor or a person would have put right by then is.
    pub(super) fn recover(&mut self, i: usize) {
        let f = self.scenario.faults[i];
        let held = self.ground.target.held.contains(&f.service);
        match f.kind {
            FaultKind::Crash | FaultKind::BrokenStart
                if self.services[f.service].life == Life::Down && !held =>
            {
                let ms = self.scenario.services[f.service].start_ms;
                self.start_process(f.service, ms);
            }
            FaultKind::Hang => self.causes[i].process = None,
            _ => {}
        }
    }

    pub(super) fn end_fault(&mut self, i: usize) {
        self.causes[i].there = false;
        self.recover(i);
        self.note("", Fact::FaultEnded { fault: i });
    }

    /// A service has a new process: what was bound to the old one is over, and some of it comes back.
    pub(super) fn restarted(&mut self, s: usize, process: u64) {
        for i in 0..self.causes.len() {
            let f = self.scenario.faults[i];
            if f.service != s || !self.causes[i].active() {
                continue;
            }
            match f.kind {
                FaultKind::Crash | FaultKind::Hang => {
                    self.causes[i].process = None;
                    if let Some(after) = f.returns {
                        self.strike_again_later(i, process, after);
                    } else if f.flaps.is_none() {
                        // The cause went with the process.
                        self.causes[i].there = false;
                        self.note("", Fact::FaultEnded { fault: i });
                    }
                }
                FaultKind::HurtByRestart => self.causes[i].worse += 1,
                _ => {}
            }
        }
    }

    /// Whether a start of the service fails for a cause.
    pub(super) fn broken_start(&self, s: usize) -> bool {
        self.faults_there()
            .any(|(_, f)| f.kind == FaultKind::BrokenStart && f.service == s)
    }

    /// The program that holds the database locked is stopped; whether there was one.
    pub(super) fn unlock(&mut self) -> bool {
        let mut found = false;
        for i in 0..self.causes.len() {
            if self.scenario.faults[i].kind == FaultKind::Lock
                && self.causes[i].active()
                && !self.causes[i].unlocked
            {
                found = true;
                self.causes[i].unlocked = true;
                if self.scenario.faults[i].flaps.is_none() {
                    self.causes[i].there = false;
                    self.note("", Fact::FaultEnded { fault: i });
                }
            }
        }
        if found {
            self.refresh();
        }
        found
    }

    fn faults_there(&self) -> impl Iterator<Item = (&Cause, &Fault)> {
        self.causes
            .iter()
            .zip(&self.scenario.faults)
            .filter(|(c, _)| c.active())
    }

    /// Works out what is wrong with each service from the causes that are there.
    pub(super) fn strain(&mut self) {
        let scenario = std::rc::Rc::clone(&self.scenario);
        let now = self.now;
        for s in 0..self.services.len() {
            let spec = &scenario.services[s];
            let service = &self.services[s];
            let mut strain = Strain {
                errors: spec.error_share,
                ..Strain::NONE
            };
            for (cause, f) in self.faults_there() {
                self.add(&mut strain, s, *cause, f);
            }
            for (i, b) in scenario.benign.iter().enumerate() {
                if self.jobs[i] && b.service == s {
                    match b.kind {
                        BenignKind::Cron => {
                            strain.load *= 1.2;
                            strain.extra_mb += spec.memory_mb * 0.3;
                        }
                        _ => strain.load *= 1.3,
                    }
                }
            }
            // What it needs and does not get.
            for need in &spec.needs {
                let needed = &self.services[*need];
                if needed.life != Life::Up || needed.strain.hung {
                    strain.fail(0.6);
                    strain.delay_ms += 100.0;
                } else if needed.strain.errors > 0.2 {
                    strain.fail(needed.strain.errors * 0.3);
                }
            }
            let leaked = service.leaked(now);
            let service = &mut self.services[s];
            if service.strain != strain || service.started == now || service.life != Life::Up {
                service.touched = now;
            }
            service.leaked_mb = leaked;
            service.leaked_at = now;
            service.strain = strain;
        }
    }

    fn add(&self, strain: &mut Strain, s: usize, cause: Cause, f: &Fault) {
        let own = f.service == s;
        let service = &self.services[s];
        let in_force = service.in_force;
        let share = f64::from(f.strength) / 1000.0;
        match f.kind {
            FaultKind::Hang => strain.hung |= cause.process == Some(service.process),
            FaultKind::Leak if own && in_force.cache > 100 => strain.leak += 1200.0 * share,
            FaultKind::SlowLeak if own => strain.leak += 10.0 * share,
            FaultKind::Lock if !cause.unlocked => {
                strain.fail(share);
                strain.locked = true;
            }
            FaultKind::Pool if own => {
                let wanted = 8.0 + 12.0 * share;
                let missing = 1.0 - in_force.pool.max(1) as f64 / wanted;
                if missing > 0.0 {
                    strain.fail(missing * 1.5);
                    strain.no_connection = true;
                }
            }
            FaultKind::BadDeploy | FaultKind::Incurable if own => strain.fail(share),
            FaultKind::Upstream if own || self.scenario.services[s].needs.contains(&f.service) => {
                strain.fail(share);
            }
            FaultKind::SlowUpstream if own => {
                let slow = 3000.0 + 1500.0 * share;
                strain.delay_ms += slow.min(in_force.upstream_timeout_ms.max(1) as f64);
            }
            FaultKind::Overload if own => strain.load *= 2.0 + 8.0 * share,
            FaultKind::HurtByRestart if own => {
                strain.fail(share * 0.3);
                strain.fail(0.15 * f64::from(cause.worse));
            }
            _ => {}
        }
    }
}
