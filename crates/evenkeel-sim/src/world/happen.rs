//! What happens by itself: the queue of things to come, and each when its time has come.

use std::cmp::Reverse;

use super::person::Task;
use super::service::Life;
use super::{Signal, ToHealer, World, in_force};
use crate::fault::{BenignKind, FaultKind, HostEvent};
use crate::trace::Fact;

/// Something to come. Indexes are those of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    FaultBegins(usize),
    FaultEnds(usize),
    FlapOn(usize),
    FlapOff(usize),
    /// A fault strikes the process that was started after its last strike.
    StrikesAgain(usize, u64),
    /// The process of a service is ready, or has failed to come up, after its start.
    Started(usize, u64, bool),
    OutOfMemory(usize, u64),
    BenignBegins(usize),
    BenignEnds(usize),
    TelemetryBegins(usize),
    TelemetryEnds(usize),
    Host(usize),
    DiskFree,
    /// Nothing; somebody should look, as at a slow leak.
    Look,
    /// A person does something that was put off.
    Person(Task),
}

impl World {
    /// Puts everything that the scenario has into the queue.
    pub(super) fn plan_ahead(&mut self) {
        let scenario = std::rc::Rc::clone(&self.scenario);
        for (i, f) in scenario.faults.iter().enumerate() {
            self.at(f.at, Happening::FaultBegins(i));
        }
        for (i, b) in scenario.benign.iter().enumerate() {
            self.at(b.at, Happening::BenignBegins(i));
        }
        for (i, t) in scenario.telemetry.iter().enumerate() {
            self.at(t.at, Happening::TelemetryBegins(i));
            self.at(t.at + t.lasts, Happening::TelemetryEnds(i));
        }
        for (i, (at, _)) in scenario.host.iter().enumerate() {
            self.at(*at, Happening::Host(i));
        }
    }

    pub(super) fn at(&mut self, when: i64, what: Happening) {
        let serial = self.serial();
        self.queue.push(Reverse((when, serial, what)));
    }

    /// When something happens next.
    pub fn next_happening(&self) -> Option<i64> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Lets time pass to `then`, with all that happens until then.
    pub fn advance_to(&mut self, then: i64) {
        while let Some(Reverse((at, _, what))) = self.queue.peek().copied() {
            if at > then {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            self.count();
            self.happen(what);
        }
        self.now = self.now.max(then);
    }

    /// Brings the counters of all services up to now, before something changes what they count.
    fn count(&mut self) {
        for (service, spec) in self.services.iter_mut().zip(&self.scenario.services) {
            service.count(spec, self.now);
        }
    }

    fn happen(&mut self, what: Happening) {
        let scenario = std::rc::Rc::clone(&self.scenario);
        match what {
            Happening::FaultBegins(i) => {
                let f = scenario.faults[i];
                let service = scenario.services[f.service].name;
                self.note(
                    "",
                    Fact::FaultBegan {
                        fault: i,
                        kind: f.kind,
                        service,
                    },
                );
                self.causes[i].there = true;
                if let Some(ms) = f.lasts {
                    self.at(self.now + ms, Happening::FaultEnds(i));
                }
                if let Some((on, _)) = f.flaps {
                    self.at(self.now + on, Happening::FlapOff(i));
                }
                if f.kind == FaultKind::SlowLeak {
                    self.at(self.now + 24 * crate::fault::HOUR_MS, Happening::Look);
                }
                self.strike(i);
            }
            Happening::FaultEnds(i) => self.end_fault(i),
            Happening::FlapOn(i) if self.causes[i].there => {
                self.causes[i].paused = false;
                let (on, _) = scenario.faults[i].flaps.unwrap_or_default();
                self.at(self.now + on, Happening::FlapOff(i));
                self.strike(i);
            }
            Happening::FlapOff(i) if self.causes[i].there => {
                self.causes[i].paused = true;
                let (_, off) = scenario.faults[i].flaps.unwrap_or_default();
                self.at(self.now + off, Happening::FlapOn(i));
                self.recover(i);
            }
            Happening::StrikesAgain(i, process) => {
                let s = scenario.faults[i].service;
                if self.causes[i].active() && self.services[s].process == process {
                    self.strike(i);
                }
            }
            Happening::Started(s, process, fails) => {
                let fails = fails || self.broken_start(s);
                let service = &mut self.services[s];
                if service.process == process && matches!(service.life, Life::Starting(_)) {
                    service.life = if fails { Life::Down } else { Life::Up };
                    service.touched = self.now;
                    let signal = if fails {
                        Signal::Ended(s)
                    } else {
                        Signal::Ready(s)
                    };
                    self.signals.push(signal);
                }
            }
            Happening::OutOfMemory(s, process) => {
                if self.services[s].process == process && self.services[s].life == Life::Up {
                    self.end_process(s);
                }
            }
            Happening::BenignBegins(i) => self.begin_benign(i),
            Happening::BenignEnds(i) => self.jobs[i] = false,
            Happening::TelemetryBegins(i) => {
                let t = scenario.telemetry[i];
                self.telemetry[t.service] = Some(t.kind);
                self.note("", Fact::TelemetryBegan { kind: t.kind });
            }
            Happening::TelemetryEnds(i) => {
                let t = scenario.telemetry[i];
                self.telemetry[t.service] = None;
                self.note("", Fact::TelemetryEnded { kind: t.kind });
            }
            Happening::Host(i) => self.host(scenario.host[i].1),
            Happening::DiskFree => {
                self.disk_full = false;
                self.note("", Fact::DiskFree);
            }
            Happening::Person(task) => self.person(task),
            Happening::Look => {
                if self.causes.iter().any(|c| c.there) {
                    self.at(self.now + 24 * crate::fault::HOUR_MS, Happening::Look);
                }
            }
            Happening::FlapOn(_) | Happening::FlapOff(_) => return,
        }
        self.refresh();
    }

    fn host(&mut self, event: HostEvent) {
        match event {
            HostEvent::Killed { gone_ms } => self.to_healer.push(ToHealer::Killed(gone_ms)),
            HostEvent::HandRun { service } => self.to_healer.push(ToHealer::HandRun(service)),
            HostEvent::DiskFull { for_ms } => {
                self.disk_full = true;
                self.note("", Fact::DiskFull);
                self.at(self.now + for_ms, Happening::DiskFree);
            }
            HostEvent::ClockSet { by_ms } => self.set_clock(by_ms, ""),
            HostEvent::Meddling => self.meddle(""),
            HostEvent::Order(says, for_ms) => self.order(says, for_ms),
        }
    }

    fn begin_benign(&mut self, i: usize) {
        let b = self.scenario.benign[i];
        let service = self.scenario.services[b.service].name;
        self.note(
            "",
            Fact::Benign {
                kind: b.kind,
                service,
            },
        );
        if let Some(every) = b.every {
            self.at(self.now + every, Happening::BenignBegins(i));
        }
        match b.kind {
            BenignKind::Deploy | BenignKind::PersonRestarts => {
                if b.kind == BenignKind::Deploy {
                    let percent = self.noise.between(95, 105);
                    self.services[b.service].size = percent as f64 / 100.0;
                }
                // A person knows: the supervisor is told that this end is expected.
                self.start_process(b.service, b.lasts);
            }
            BenignKind::Cron | BenignKind::Visitors => {
                self.jobs[i] = true;
                self.at(self.now + b.lasts, Happening::BenignEnds(i));
            }
        }
    }

    /// A process ends, unasked.
    pub(super) fn end_process(&mut self, s: usize) {
        let service = &mut self.services[s];
        if service.life != Life::Down {
            service.life = Life::Down;
            self.signals.push(Signal::Ended(s));
        }
    }

    /// A new process in the place of whatever was there, ready after so many milliseconds.
    pub(super) fn start_process(&mut self, s: usize, ready_after_ms: i64) {
        self.start(s, ready_after_ms, false);
    }

    /// The same by Evenkeel: it may fail.
    pub(super) fn try_to_start(&mut self, s: usize) {
        let fails = self.rng.chance(self.odds.start_fails);
        let ms = self.scenario.services[s].start_ms;
        self.start(s, ms, fails);
    }

    fn start(&mut self, s: usize, ready_after_ms: i64, fails: bool) {
        self.count();
        let now = self.now;
        let read = in_force(&self.ground);
        let service = &mut self.services[s];
        service.process += 1000;
        service.started = now;
        service.in_force = read;
        service.leaked_mb = 0.0;
        service.leaked_at = now;
        service.life = Life::Starting(now + ready_after_ms);
        let process = service.process;
        self.ground.target.held.remove(&s);
        self.at(now + ready_after_ms, Happening::Started(s, process, fails));
        self.restarted(s, process);
        self.refresh();
    }

    pub(super) fn strike_again_later(&mut self, fault: usize, process: u64, after_ms: i64) {
        self.at(self.now + after_ms, Happening::StrikesAgain(fault, process));
    }

    /// Works out anew what is wrong with each service, and when memory will end.
    pub(super) fn refresh(&mut self) {
        self.changed = self.now;
        let before: Vec<f64> = self.services.iter().map(|s| s.strain.leak).collect();
        self.strain();
        for (s, leak) in before.into_iter().enumerate() {
            let service = &self.services[s];
            if (service.strain.leak - leak).abs() > f64::EPSILON || service.leaked_at == self.now {
                let spec = &self.scenario.services[s];
                if let Some(at) = service.out_of_memory_at(spec, self.now) {
                    let process = service.process;
                    self.at(at, Happening::OutOfMemory(s, process));
                }
            }
        }
    }
}
