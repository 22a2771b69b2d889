//! People: who order something and take it back, answer late, twice, wrongly or not at all, and come to see after an
//! alert.

use evenkeel_core::approval::ApprovalRequest;
use evenkeel_core::order::Order;

use super::happen::Happening;
use super::{ToHealer, World};
use crate::fault::{HOUR_MS, MINUTE_MS, PersonSays};
use crate::trace::Fact;

/// Something that a person does later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Resume,
    ResumeService(usize),
    RemoveFile,
    ModeAsConfigured,
    /// Puts in order what was left, and lets the healer go on.
    PutInOrder,
    /// Answers the request of this number.
    Answer(usize),
}

impl World {
    pub(super) fn order(&mut self, says: PersonSays, for_ms: i64) {
        let why = "because".to_owned();
        let (order, task) = match says {
            PersonSays::Pause => {
                let service = None;
                (Order::Pause { service, why }, Task::Resume)
            }
            PersonSays::PauseFile => {
                self.pause_file = true;
                self.note("", Fact::PauseFile { there: true });
                self.at(self.elapsed() + for_ms, Happening::Person(Task::RemoveFile));
                return;
            }
            PersonSays::Lock(s) => {
                let service = Some(self.scenario.services[s].name.to_owned());
                (Order::Pause { service, why }, Task::ResumeService(s))
            }
            PersonSays::SilenceErrors => {
                let silence = Order::Silence {
                    what: "error_rate_spike".to_owned(),
                    until: self.wall().plus_millis(for_ms),
                    why,
                };
                self.to_healer.push(ToHealer::Order(silence));
                return;
            }
            PersonSays::Shadow => {
                let mode = Some(evenkeel_core::Mode::Shadow);
                let playbook = None;
                (Order::SetMode { mode, playbook }, Task::ModeAsConfigured)
            }
        };
        self.to_healer.push(ToHealer::Order(order));
        self.at(self.elapsed() + for_ms, Happening::Person(task));
    }

    pub(super) fn person(&mut self, task: Task) {
        let why = "looked at it".to_owned();
        let order = match task {
            Task::Resume => Order::Resume { service: None },
            Task::ResumeService(s) => Order::Resume {
                service: Some(self.scenario.services[s].name.to_owned()),
            },
            Task::RemoveFile => {
                self.pause_file = false;
                self.note("", Fact::PauseFile { there: false });
                return;
            }
            Task::ModeAsConfigured => Order::SetMode {
                mode: None,
                playbook: None,
            },
            Task::PutInOrder => {
                let unstick = Order::Unstick { why: why.clone() };
                self.to_healer.push(ToHealer::Order(unstick));
                Order::ResetBreaker { why }
            }
            Task::Answer(n) => {
                let (id, binds) = self.asked[n].clone();
                self.to_healer.push(ToHealer::Answer { id, binds });
                return;
            }
        };
        self.to_healer.push(ToHealer::Order(order));
    }

    /// Somebody was alerted: perhaps they come.
    pub(super) fn call(&mut self) {
        if self.rng.chance(self.odds.person_comes) {
            let after = self.rng.between(10 * MINUTE_MS, 12 * HOUR_MS);
            self.at(self.elapsed() + after, Happening::Person(Task::PutInOrder));
        }
    }

    /// A person is asked whether a plan may run; they will answer in their own way.
    pub fn ask(&mut self, request: &ApprovalRequest) {
        let right = Some(request.binds.clone());
        let wrong = Some(format!("0{}", &request.binds[1..]));
        let soon = self.rng.between(MINUTE_MS, 3 * HOUR_MS);
        let late = self.rng.between(5 * HOUR_MS, 30 * HOUR_MS);
        let answers: Vec<(Option<String>, i64)> = match self.rng.below(8) {
            0..=2 => vec![(right, soon)],
            3 => vec![(right.clone(), soon), (right, soon + MINUTE_MS)],
            4 => vec![(wrong, soon)],
            5 => vec![(right, late)],
            6 => vec![(None, soon)],
            _ => Vec::new(),
        };
        for (binds, after) in answers {
            self.asked.push((request.id.clone(), binds));
            let task = Task::Answer(self.asked.len() - 1);
            self.at(self.elapsed() + after, Happening::Person(task));
        }
    }
}
