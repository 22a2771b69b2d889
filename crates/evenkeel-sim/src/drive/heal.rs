//! The healer's part: what is to become of an anomaly, and the open cycle carried to its end.

use std::collections::BTreeMap;

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::cycle::Cycle;
use evenkeel_core::event::{AlertRef, Event, SnapshotRef, Trigger};
use evenkeel_core::healer::{Admission, Due, ReplayError, Wait};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{Action, Plan, RollbackOutcome};
use evenkeel_core::{Effect, Mode};
use evenkeel_detect::Scope;

use super::Driver;
use super::ledger::Fate;
use super::watch::anomaly;
use crate::bug::Bug;
use crate::library;
use crate::trace::{Boundary, Fact, Trace};
use crate::world::script::Script;
use crate::world::{ToHealer, plans};

/// Most turns in one cycle before the driver gives up; far above what [`crate::check`] allows.
const TURNS_MAX: u32 = 1_500;
/// Most deaths in a row without any progress.
const RESTARTS_MAX: u32 = 64;

impl Driver {
    /// Asks the healer what is to become of an anomaly; whether a cycle is open afterwards.
    pub(super) fn admit(
        &mut self,
        anomaly: &Anomaly,
        trigger: Trigger,
        plan: Option<&Plan>,
    ) -> Result<bool, ReplayError> {
        for _ in 0..RESTARTS_MAX {
            let facts = self.facts();
            let others = self.present(&anomaly.key());
            let (wall, policy) = (self.world.wall(), &self.scenario.policy);
            let admission = self
                .healer
                .admit(wall, anomaly, trigger, &others, policy, &facts);
            let (mut prior_attempts, mut recurrence_of, refusal) = match admission {
                Admission::Open {
                    prior_attempts,
                    recurrence_of,
                    refusal,
                } => (prior_attempts, recurrence_of, refusal),
                Admission::Later(Wait::Paused { .. }) => {
                    // Whoever paused it knows; that something happens meanwhile is an alert of its own.
                    let known = self.deferred.contains_key(&anomaly.key());
                    self.defer(anomaly, trigger);
                    if !known {
                        self.world.note("", Fact::Alerted { delivered: true });
                    }
                    return Ok(false);
                }
                Admission::Later(_) | Admission::Busy if trigger != Trigger::Operator => {
                    self.defer(anomaly, trigger);
                    return Ok(false);
                }
                _ => return Ok(false),
            };
            let mut rules = self.scenario.rules;
            rules.mode = self.healer.mode(policy);
            match self.scenario.bug {
                Some(Bug::ForgetRecurrence) => {
                    prior_attempts -= u32::from(recurrence_of.is_some());
                    recurrence_of = None;
                }
                Some(Bug::WidenRules) => rules.max_attempts += 2,
                _ => {}
            }
            let roots_down = self.roots_down();
            self.world.note("", Fact::Deciding { roots_down });
            let id = format!("wf_{}", self.world.serial());
            let event = Event::Opened {
                anomaly: Box::new(anomaly.clone()),
                trigger,
                rules,
                prior_attempts,
                recurrence_of,
                plan: plan.cloned().map(Box::new),
                refusal,
            };
            self.unhealed.insert(anomaly.key(), anomaly.clone());
            if self.submit(&id, event)? == Fate::Durable || self.healer.open.is_some() {
                return Ok(true);
            }
            // Lost with the healer. The watchdog that was started with the new one sees the anomaly again, if it is
            // still there; a person who asked asks again.
            if plan.is_none() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Services that are down, though nothing that they need is.
    fn roots_down(&self) -> usize {
        let down: Vec<&str> = self.world.down().collect();
        let is_down = |s: usize| down.contains(&self.scenario.services[s].name);
        let mut below = vec![false; self.scenario.services.len()];
        let mut roots = 0;
        for (s, spec) in self.scenario.services.iter().enumerate() {
            // What it needs comes before it.
            below[s] = spec.needs.iter().any(|n| is_down(*n) || below[*n]);
            roots += usize::from(is_down(s) && !below[s]);
        }
        roots
    }

    /// A person has a playbook run.
    pub(super) fn hand_run(&mut self, service: usize) -> Result<(), ReplayError> {
        let odds = self.world.odds;
        let plan = if self.world.rng.chance(500) {
            plans::draw(
                &mut self.world.rng,
                &odds,
                &self.scenario,
                ChosenBy::Operator,
            )
        } else {
            let count = u32::try_from(library::playbooks().len()).unwrap_or(1);
            let any = &library::playbooks()[self.world.rng.below(count) as usize];
            match Plan::new(any, &BTreeMap::new(), ChosenBy::Operator) {
                Ok(plan) => plan,
                Err(_) => return Ok(()),
            }
        };
        let wall = self.world.wall();
        let mut asked = anomaly(AnomalyType::MANUAL_REQUEST, Severity::Low, wall);
        asked.series = Some(format!("playbook/{}", plan.playbook));
        asked.service = Some(self.scenario.services[service].name.to_owned());
        if self.admit(&asked, Trigger::Operator, Some(&plan))? {
            self.heal()?;
        }
        Ok(())
    }

    /// One plan of a person's, with one thing going wrong; the target is compared with how it was before.
    ///
    /// # Panics
    /// When the healer refuses an event that answers the effect it asked for: its table has a hole.
    pub(crate) fn rehearse(mut self, plan: &Plan, script: Script) -> Trace {
        for step in &plan.steps {
            if let Action::SetTunable(a) = &step.action {
                self.world.ground.have(&a.name);
            }
        }
        self.world.script = script;
        let before = self.world.ground.target.clone();
        let wall = self.world.wall();
        let mut asked = anomaly(AnomalyType::MANUAL_REQUEST, Severity::Low, wall);
        asked.series = Some(format!("playbook/{}", plan.playbook));
        let went = self
            .admit(&asked, Trigger::Operator, Some(plan))
            .and_then(|_| self.heal());
        let as_before = self.world.ground.same_as(&before);
        self.world.note("", Fact::LeftAs { as_before });
        if let Err(e) = went {
            panic!("{} with {script:?}: {e}", plan.playbook);
        }
        self.end()
    }

    /// Runs the open cycle to its end, while the detectors rest.
    pub(super) fn heal(&mut self) -> Result<(), ReplayError> {
        if self.healer.open.is_none() {
            return Ok(());
        }
        self.watchdog.freeze();
        let result = self.heal_resting();
        let now = self.world.wall();
        self.watchdog.reset_series(Scope::Everything, now);
        self.watchdog.unfreeze();
        self.cycle_end = self.world.elapsed();
        self.news = self.cycle_end;
        result
    }

    fn heal_resting(&mut self) -> Result<(), ReplayError> {
        for _ in 0..TURNS_MAX {
            self.hear_people()?;
            let Some(cycle) = self.healer.open.clone() else {
                return Ok(());
            };
            let id = cycle.workflow_id.as_str();
            if cycle.parked {
                let after_crash = false;
                self.submit(id, Event::Resumed { after_crash })?;
                continue;
            }
            let effect = match self.due() {
                Due::Nothing => return Ok(()),
                Due::Event(event) => {
                    self.submit(id, event)?;
                    continue;
                }
                Due::Effect(effect) => effect,
            };
            if self.world.dies() {
                self.restart(Boundary::BeforeEffect, 2_000)?;
                continue;
            }
            if self.world.parks() {
                self.park(&cycle, &effect)?;
                continue;
            }
            let event = self.carry_out(&cycle, &effect);
            self.resting_check();
            if let Some(gone_ms) = self.killed() {
                self.restart(Boundary::Killed, gone_ms)?;
                continue;
            }
            let lost =
                matches!(effect, Effect::RunStep { step } if self.world.script.loses == Some(step));
            if lost || self.world.dies() {
                self.world.script.loses = None;
                self.restart(Boundary::AfterEffect, 2_000)?;
                continue;
            }
            if let Some(event) = event {
                self.submit(id, event)?;
            }
        }
        let id = self.healer.open.as_ref().map(|c| c.workflow_id.clone());
        self.world.note(&id.unwrap_or_default(), Fact::GaveUp);
        self.gave_up = true;
        Ok(())
    }

    /// Whether it was killed while the effect was carried out.
    fn killed(&mut self) -> Option<i64> {
        let killed = |what: &ToHealer| matches!(what, ToHealer::Killed(_));
        let at = self.world.to_healer.iter().position(killed)?;
        match self.world.to_healer.remove(at) {
            ToHealer::Killed(gone_ms) => Some(gone_ms),
            _ => None,
        }
    }

    /// An orderly stop: a step under way is cut off and its result dropped.
    fn park(&mut self, cycle: &Cycle, effect: &Effect) -> Result<(), ReplayError> {
        let interrupted = effect.acts() && self.world.rng.chance(500);
        if interrupted {
            let _cut_off = self.world.answer(cycle, effect);
        }
        let id = &cycle.workflow_id;
        if self.submit(id, Event::Parked { interrupted })? == Fate::Durable {
            self.restart(Boundary::Stopped, 2_000)?;
        }
        Ok(())
    }

    /// Carries an effect out, rightly or with the planted bug.
    fn carry_out(&mut self, cycle: &Cycle, effect: &Effect) -> Option<Event> {
        let bug = self.scenario.bug;
        match (bug, effect) {
            (Some(Bug::SkipSnapshot), Effect::TakeSnapshot) => return Some(invented_snapshot()),
            (Some(Bug::DropRollback), Effect::RollBack) => {
                let fact = Fact::RolledBack {
                    complete: self.world.is_as_before(cycle),
                    said_ok: true,
                };
                self.world.note(&cycle.workflow_id, fact);
                return Some(rolled_back());
            }
            (Some(Bug::ForgetFirstUndo), Effect::RollBack) => {
                let mut short = cycle.clone();
                for step in short.runs.iter_mut().flat_map(|r| &mut r.steps) {
                    step.undo = step
                        .prepared
                        .as_ref()
                        .map(|p| p.undo.clone())
                        .unwrap_or_default();
                }
                return Some(self.world.answer(&short, effect));
            }
            (Some(Bug::NoAlert), Effect::Alert) => {
                return Some(Event::Alerted {
                    alert: AlertRef::default(),
                });
            }
            (Some(Bug::NeverClose), Effect::Close { .. }) => return None,
            _ => {}
        }
        if *effect == Effect::RequestApproval {
            return Some(self.request(cycle));
        }
        let event = self.world.answer(cycle, effect);
        let event = self.with_mode(event);
        Some(match (bug, event) {
            (Some(Bug::ActWithoutSnapshot), Event::SnapshotFailed { .. }) => invented_snapshot(),
            (Some(Bug::HideFailedRollback), Event::RolledBack { .. }) => rolled_back(),
            (Some(Bug::BelieveInconclusive), Event::Verified { mut verification }) => {
                if verification.inconclusive {
                    verification.passed = true;
                    verification.inconclusive = false;
                }
                Event::Verified { verification }
            }
            (Some(Bug::IgnoreTier), Event::PlaybookSelected { mut plan, .. }) => {
                // Written down as somebody's order, which nobody gave.
                plan.chosen_by = ChosenBy::Operator;
                Event::PlaybookSelected {
                    plan,
                    passed_over: Vec::new(),
                    mode: Mode::Auto,
                }
            }
            (_, event) => event,
        })
    }
}

impl Driver {
    /// Asks a person whether the plan may run.
    fn request(&mut self, cycle: &Cycle) -> Event {
        let wall = self.world.wall();
        match cycle.approval_request(wall, &self.scenario.policy) {
            None => Event::Refused {
                reason: "there is no plan to ask about".to_owned(),
            },
            Some(request) => {
                self.world.ask(&request);
                Event::ApprovalRequested {
                    request,
                    notified: AlertRef::default(),
                }
            }
        }
    }
}

fn invented_snapshot() -> Event {
    Event::SnapshotTaken {
        guards: Vec::new(),
        snapshot: SnapshotRef {
            id: "pre_heal_invented".to_owned(),
            dir: String::new(),
            bytes: 0,
            files: 0,
        },
    }
}

fn rolled_back() -> Event {
    Event::RolledBack {
        outcome: RollbackOutcome {
            ok: true,
            ..RollbackOutcome::default()
        },
    }
}
