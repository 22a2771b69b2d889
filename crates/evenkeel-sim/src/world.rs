//! A small world with faults: it answers each effect with an event, sometimes truthfully, and keeps a truth of its
//! own that the healer never sees.
//!
//! It may use the core's types to speak with the healer; it decides nothing for it.

pub mod plans;
pub mod target;

use evenkeel_core::cycle::{Cycle, Rules};
use evenkeel_core::event::{Advice, AlertRef, Event, SnapshotRef, Trigger, Verification};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{Prepared, RollbackOutcome, StepOutcome};
use evenkeel_core::{Anomaly, AnomalyType, Effect, Severity, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::odds::Odds;
use crate::rng::Rng;
use crate::trace::{Extent, Fact, Item};
use target::Target;

/// Most deaths of the healer in one run, so that every run ends.
pub const DEATHS_MAX: u32 = 14;
/// Most orderly stops of the healer in one run.
pub const PARKS_MAX: u32 = 5;

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// How unkind it is.
    pub odds: Odds,
    /// The wall clock, which may be set back.
    pub now: Timestamp,
    /// What is healed.
    pub target: Target,
    /// What happened, entries and facts.
    pub items: Vec<Item>,
    snapshots: BTreeMap<String, Target>,
    deaths: u32,
    parks: u32,
    serial: u32,
}

impl World {
    /// A world from a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let odds = Odds::draw(&mut rng);
        Self {
            rng,
            odds,
            now: Timestamp::from_millis(1_800_000_000_000),
            target: Target::new(),
            items: Vec::new(),
            snapshots: BTreeMap::new(),
            deaths: 0,
            parks: 0,
            serial: 0,
        }
    }

    /// The rules of this run's cycles.
    pub fn rules(&mut self) -> Rules {
        Rules {
            max_attempts: self.rng.pick([1, 2, 3, 3]),
            settle_ms: self.rng.pick([0, 30_000]),
            retry_wait_ms: 5_000,
            advisors: self.rng.pick([0, 1, 2]),
            mode: evenkeel_core::Mode::Auto,
            retry_wait_max_ms: 0,
            breaker_cycles: u32::MAX,
        }
    }

    /// Writes a fact down.
    pub fn note(&mut self, workflow: &str, fact: Fact) {
        self.items.push(Item::World {
            workflow: workflow.to_owned(),
            fact,
        });
    }

    /// Whether the healer dies here.
    pub fn dies(&mut self) -> bool {
        let dies = self.deaths < DEATHS_MAX && self.rng.chance(self.odds.dies);
        self.deaths += u32::from(dies);
        dies
    }

    /// Whether the healer is stopped here.
    pub fn parks(&mut self) -> bool {
        let parks = self.parks < PARKS_MAX && self.rng.chance(self.odds.parks);
        self.parks += u32::from(parks);
        parks
    }

    /// Lets time pass; now and then somebody sets the clock back or changes the target.
    pub fn pass(&mut self, millis: i64, workflow: &str) {
        self.now = self.now.plus_millis(millis);
        if self.rng.chance(self.odds.clock_back) {
            let by_ms = self.rng.pick([1_000, 60_000, 7_200_000]);
            self.now = self.now.plus_millis(-by_ms);
            self.note(workflow, Fact::ClockSetBack { by_ms });
        }
        if self.rng.chance(self.odds.meddles) {
            let key = self.target.meddle(&mut self.rng);
            self.note(workflow, Fact::Meddled { key });
        }
    }

    /// A number that was not given out before.
    pub fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// An anomaly somewhere; few kinds, so that they come back.
    pub fn anomaly(&mut self) -> (Anomaly, Trigger) {
        let kind = self
            .rng
            .pick([AnomalyType::ERROR_RATE_SPIKE, AnomalyType::MEMORY_GROWTH]);
        let test = self.rng.pick(["Health Endpoint Load", "Concurrent API"]);
        let trigger = self
            .rng
            .pick([Trigger::Watchdog, Trigger::Watchdog, Trigger::PostBoot]);
        let anomaly = Anomaly {
            kind: AnomalyType::known(kind),
            severity: Severity::High,
            current: 0.25,
            threshold: 0.05,
            details: String::new(),
            unit: "ratio".to_owned(),
            baseline: None,
            test: Some(test.to_owned()),
            series: None,
            service: None,
            since: self.now,
            score: Some(5.0),
            context: Value::Null,
        };
        (anomaly, trigger)
    }

    /// Carries an effect out and says what came of it. `Close` and `ConcludeRun` need nobody.
    pub fn answer(&mut self, cycle: &Cycle, effect: &Effect) -> Event {
        let id = cycle.workflow_id.as_str();
        self.pass(100, id);
        match effect {
            Effect::TakeSnapshot => self.take_snapshot(id),
            Effect::SelectPlaybook => self.select(),
            Effect::PrepareStep { step } => self.prepare(cycle, *step),
            Effect::RunStep { step } => self.run_step(cycle, *step),
            Effect::Verify => self.verify(id),
            Effect::Settle { for_ms } => {
                self.pass(i64::try_from(*for_ms).unwrap_or(i64::MAX), id);
                let normal = !self.rng.chance(self.odds.settle_breaks);
                self.note(id, Fact::Watched { normal });
                Event::Settled {
                    stayed_normal: normal,
                    details: String::new(),
                }
            }
            Effect::RollBack => self.roll_back(cycle),
            Effect::ConcludeRun => Event::RunConcluded,
            Effect::WaitRetry { for_ms } => {
                self.pass(i64::try_from(*for_ms).unwrap_or(i64::MAX), id);
                Event::RetryDue {
                    still_there: !self.rng.chance(self.odds.goes_away),
                    details: String::new(),
                }
            }
            // Nobody is there to be asked.
            Effect::RequestApproval => Event::Refused {
                reason: "it needs a person's approval".to_owned(),
            },
            Effect::Recheck => Event::Rechecked {
                still_there: !self.rng.chance(self.odds.goes_away),
                details: String::new(),
            },
            Effect::Advise { advisor } => self.advise(*advisor),
            Effect::Alert => self.alert(id),
            Effect::Close { outcome } => Event::Closed { outcome: *outcome },
        }
    }

    fn take_snapshot(&mut self, workflow: &str) -> Event {
        if self.rng.chance(self.odds.snapshot_fails) {
            return Event::SnapshotFailed {
                error: "no space left on device".to_owned(),
            };
        }
        let id = format!("pre_heal_{}", self.serial());
        self.target.forget_meddling();
        self.snapshots.insert(id.clone(), self.target.clone());
        self.note(workflow, Fact::SnapshotMade { id: id.clone() });
        Event::SnapshotTaken {
            guards: Vec::new(),
            snapshot: SnapshotRef {
                dir: format!("storage/snapshots/{id}"),
                id,
                bytes: 4096,
                files: 2,
            },
        }
    }

    fn select(&mut self) -> Event {
        if self.rng.chance(self.odds.no_playbook) {
            return Event::NoPlaybook {
                reason: "no playbook applies".to_owned(),
            };
        }
        Event::PlaybookSelected {
            plan: Box::new(plans::draw(&mut self.rng, &self.odds, ChosenBy::Mapping)),
            passed_over: Vec::new(),
            mode: evenkeel_core::Mode::Auto,
        }
    }

    fn prepare(&mut self, cycle: &Cycle, step: usize) -> Event {
        let Some(planned) = cycle.run().and_then(|r| r.plan.steps.get(step)) else {
            return Event::StepRefused {
                step,
                error: "the plan has no such step".to_owned(),
            };
        };
        if self.rng.chance(self.odds.skipped) {
            return Event::StepSkipped {
                step,
                reason: "its condition does not hold".to_owned(),
            };
        }
        if self.rng.chance(self.odds.refused) {
            return Event::StepRefused {
                step,
                error: "an argument is out of bounds".to_owned(),
            };
        }
        let (action, undo) = self.target.prepare(&planned.action);
        Event::StepPrepared {
            step,
            prepared: Box::new(Prepared {
                summary: action.name().to_owned(),
                action,
                undo,
            }),
        }
    }

    /// Runs a step; also called by drivers that are wrong on purpose.
    pub fn run_step(&mut self, cycle: &Cycle, step: usize) -> Event {
        let prepared = cycle
            .run()
            .and_then(|r| r.steps.iter().find(|s| s.step == step))
            .and_then(|s| s.prepared.as_ref());
        let Some(prepared) = prepared else {
            return Event::StepFinished {
                step,
                outcome: said(false, "nothing was prepared"),
            };
        };
        let fails = self.rng.chance(self.odds.step_fails);
        let differs = self.rng.chance(self.odds.step_half);
        let (extent, ok, message) = match (fails, differs) {
            (false, false) => (Extent::Whole, true, "done"),
            (false, true) => (Extent::Half, true, "done, it says"),
            (true, false) => (Extent::Nothing, false, "timed out"),
            (true, true) => (
                self.rng.pick([Extent::Half, Extent::Whole]),
                false,
                "timed out",
            ),
        };
        self.target.act(&prepared.action, extent);
        self.note(
            &cycle.workflow_id,
            Fact::StepRan {
                step,
                action: prepared.action.name(),
                repeatable: target::repeatable(&prepared.action),
                extent,
            },
        );
        if !ok {
            self.pass(30_000, &cycle.workflow_id);
        }
        Event::StepFinished {
            step,
            outcome: said(ok, message),
        }
    }

    fn verify(&mut self, workflow: &str) -> Event {
        let passed = self.rng.chance(self.odds.passes);
        let inconclusive = self.rng.chance(self.odds.inconclusive);
        self.note(
            workflow,
            Fact::Looked {
                normal: passed && !inconclusive,
            },
        );
        Event::Verified {
            verification: Box::new(Verification {
                guards: Vec::new(),
                passed,
                verification_method: "stress_test_rerun".to_owned(),
                subject: "Health Endpoint Load".to_owned(),
                metric: "error_rate".to_owned(),
                before: Some(0.25),
                after: (!inconclusive).then_some(if passed { 0.0 } else { 0.25 }),
                improvement: String::new(),
                inconclusive,
                details: String::new(),
                duration_ms: 900,
                context: Value::Null,
            }),
        }
    }

    fn roll_back(&mut self, cycle: &Cycle) -> Event {
        let ops = cycle
            .run()
            .map(evenkeel_core::cycle::Run::undo_ops)
            .unwrap_or_default();
        // A rollback that breaks off does a part, none, or all of it, and then says that it failed.
        let breaks = self.rng.chance(self.odds.rollback_fails);
        let from = if breaks {
            let n = u32::try_from(ops.len()).unwrap_or(0);
            self.rng.below(n + 1) as usize
        } else {
            0
        };
        let errors = self.target.take_back(&ops[from..]);
        let ok = errors.is_empty() && !breaks;
        let complete = self.is_as_before(cycle);
        self.note(
            &cycle.workflow_id,
            Fact::RolledBack {
                complete,
                said_ok: ok,
            },
        );
        Event::RolledBack {
            outcome: RollbackOutcome {
                guards: Vec::new(),
                ok,
                restored: Vec::new(),
                errors: if ok || !errors.is_empty() {
                    errors
                } else {
                    vec!["the disk is full".to_owned()]
                },
            },
        }
    }

    /// Whether the target is as it was when the snapshot of the attempt under way was made.
    pub fn is_as_before(&self, cycle: &Cycle) -> bool {
        cycle
            .run()
            .and_then(|r| self.snapshots.get(&r.snapshot.as_ref()?.id))
            .is_some_and(|before| self.target.same_as(before))
    }

    fn advise(&mut self, advisor: u32) -> Event {
        let name = format!("advisor_{advisor}");
        if !self.rng.chance(self.odds.advice_good) {
            let reason = self.rng.pick([
                "no answer within its time",
                "`rm -rf /` is not a known playbook",
                "the answer is not JSON",
            ]);
            return Event::AdviceFailed {
                advisor: name,
                reason: reason.to_owned(),
            };
        }
        let plan = plans::draw(&mut self.rng, &self.odds, ChosenBy::Advisor);
        Event::Advised {
            advice: Box::new(Advice {
                advisor: name,
                suggested_action: plan.playbook.clone(),
                confidence: 0.5,
                reasoning: String::new(),
                recommended_config: BTreeMap::from([("size".to_owned(), json!(3))]),
                plan,
                guidance_file: None,
            }),
            mode: evenkeel_core::Mode::Auto,
        }
    }

    fn alert(&mut self, workflow: &str) -> Event {
        let delivered = !self.rng.chance(self.odds.alert_lost);
        self.note(workflow, Fact::Alerted { delivered });
        let channel = vec!["mail".to_owned()];
        Event::Alerted {
            alert: if delivered {
                AlertRef {
                    delivered: channel,
                    ..AlertRef::default()
                }
            } else {
                AlertRef {
                    failed: channel,
                    ..AlertRef::default()
                }
            },
        }
    }
}

fn said(ok: bool, message: &str) -> StepOutcome {
    StepOutcome {
        ok,
        message: message.to_owned(),
        findings: Value::Null,
        duration_ms: 10,
    }
}
