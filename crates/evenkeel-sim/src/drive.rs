//! Runs the healer as the product does: an event is applied, its record becomes durable, and only then is the effect
//! that it leads to carried out. When the healer dies, everything it held in memory is thrown away and folded again
//! from the ledger.
//!
//! The ledger here is the list of [`Entry`] in the world's trace; only their bytes are read back.

use evenkeel_core::cycle::{Cycle, Phase, Rules};
use evenkeel_core::event::{Event, Stamped, Trigger};
use evenkeel_core::healer::{Admission, Healer, HealerEvent, ReplayError};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::record::{self, Record};
use evenkeel_core::{Anomaly, AnomalyType, Effect, Facts, Mode, Policy};

use crate::bug::Bug;
use crate::trace::{Boundary, Entry, Fact, Item, Limits, Trace};
use crate::world::{World, plans};
use crate::{Config, json};

/// Most turns in one cycle before the driver gives up; far above what [`crate::check`] allows.
const TURNS_MAX: u32 = 1_500;
/// Most deaths in a row without any progress.
const RESTARTS_MAX: u32 = 64;

/// What became of an event.
#[derive(PartialEq, Eq)]
enum Fate {
    Durable,
    /// The healer died and was built again; the event may be lost.
    Died,
}

/// A healer in a world.
pub(crate) struct Driver {
    config: Config,
    rules: Rules,
    limits: Limits,
    world: World,
    healer: Healer,
    /// The fold over the first `folded` items of the trace. Built from the ledger's bytes alone, and kept so that a
    /// replay need not begin at the beginning each time.
    fold: Healer,
    folded: usize,
    unreadable: Option<String>,
}

impl Driver {
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        let mut world = World::new(seed);
        let rules = world.rules();
        Self {
            config,
            rules,
            limits: Limits {
                max_attempts: rules.max_attempts,
                advisors: rules.advisors,
                settle_ms: rules.settle_ms,
                recurrence_window_ms: config.recurrence_window_ms,
            },
            world,
            healer: Healer::default(),
            fold: Healer::default(),
            folded: 0,
            unreadable: None,
        }
    }

    /// One run: some anomalies, one after the other.
    pub(crate) fn run(mut self, seed: u64) -> Result<Trace, ReplayError> {
        let mut last: Option<Anomaly> = None;
        for _ in 0..self.config.anomalies {
            let (mut anomaly, trigger) = self.world.anomaly();
            let healed = |h: &Healer, a: &Anomaly| {
                h.last
                    .get(&a.key())
                    .is_some_and(|past| past.outcome.healed())
            };
            // A fix that does not last: the same anomaly again, soon.
            let recurs = self.world.rng.chance(self.world.odds.recurs);
            if let Some(before) = last.take().filter(|a| recurs && healed(&self.healer, a)) {
                anomaly = before;
            } else {
                self.between()?;
            }
            anomaly.since = self.world.now;
            if self.admit(&anomaly, trigger)? {
                self.heal()?;
            }
            if self.gave_up() {
                break;
            }
            last = Some(anomaly);
        }
        self.rebuild("");
        Ok(Trace {
            seed,
            config: self.config,
            limits: self.limits,
            items: self.world.items,
            unreadable: self.unreadable,
        })
    }

    /// Time passes; some of what was handed over goes away by itself, seen by the watchdog or by a passed test.
    fn between(&mut self) -> Result<(), ReplayError> {
        let pause = self.world.rng.pick([1, 10, 5_000]) * 60_000;
        self.world.pass(pause, "");
        let keys: Vec<String> = self.healer.last.keys().cloned().collect();
        for key in keys {
            if self.world.rng.chance(300) {
                let verified = self.world.rng.chance(300);
                let at = self.world.now;
                self.append(&record::of_cleared(&key, verified, at));
                self.healer
                    .apply(&HealerEvent::AnomalyCleared { key, verified, at })?;
            }
        }
        Ok(())
    }

    /// Asks the healer what is to become of an anomaly; whether a cycle is open afterwards.
    fn admit(&mut self, anomaly: &Anomaly, trigger: Trigger) -> Result<bool, ReplayError> {
        for _ in 0..RESTARTS_MAX {
            let policy = Policy {
                mode: Mode::Auto,
                recurrence_window_ms: self.config.recurrence_window_ms,
                limits: evenkeel_core::policy::Limits {
                    // These runs are about one cycle at a time; what is quiet for long is forgotten on purpose.
                    quiet_s: u64::MAX,
                    ..evenkeel_core::policy::Limits::default()
                },
                ..Policy::default()
            };
            let facts = Facts::default();
            let admission =
                self.healer
                    .admit(self.world.now, anomaly, trigger, &[], &policy, &facts);
            let Admission::Open {
                mut prior_attempts,
                mut recurrence_of,
                refusal,
            } = admission
            else {
                return Ok(self.healer.open.is_some());
            };
            let mut rules = self.rules;
            match self.config.bug {
                Some(Bug::ForgetRecurrence) => {
                    prior_attempts -= u32::from(recurrence_of.is_some());
                    recurrence_of = None;
                }
                Some(Bug::WidenRules) => rules.max_attempts += 2,
                _ => {}
            }
            let by_hand = self.world.rng.chance(60);
            let mut anomaly = anomaly.clone();
            let plan = by_hand.then(|| {
                anomaly.kind = AnomalyType::known(AnomalyType::MANUAL_REQUEST);
                let odds = self.world.odds;
                Box::new(plans::draw(&mut self.world.rng, &odds, ChosenBy::Operator))
            });
            let (prior_attempts, recurrence_of) = if by_hand {
                (0, None)
            } else {
                (prior_attempts, recurrence_of)
            };
            let id = format!("wf_{}", self.world.serial());
            let event = Event::Opened {
                anomaly: Box::new(anomaly),
                trigger: if by_hand { Trigger::Operator } else { trigger },
                rules,
                prior_attempts,
                recurrence_of,
                plan,
                refusal,
            };
            // Lost with the healer: the watchdog sees the anomaly again.
            if self.submit(&id, event)? == Fate::Durable || self.healer.open.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs the open cycle to its end.
    fn heal(&mut self) -> Result<(), ReplayError> {
        for _ in 0..TURNS_MAX {
            let Some(cycle) = self.healer.open.clone() else {
                return Ok(());
            };
            let id = cycle.workflow_id.as_str();
            let Some(effect) = cycle.effect() else {
                let after_crash = false;
                self.submit(id, Event::Resumed { after_crash })?;
                continue;
            };
            if self.world.dies() {
                self.restart(Boundary::BeforeEffect)?;
                continue;
            }
            if self.world.parks() {
                self.park(&cycle, &effect)?;
                continue;
            }
            let event = self.carry_out(&cycle, &effect);
            if self.world.dies() {
                self.restart(Boundary::AfterEffect)?;
                continue;
            }
            if let Some(event) = event {
                self.submit(id, event)?;
            }
        }
        let id = self.healer.open.as_ref().map(|c| c.workflow_id.clone());
        self.world.note(&id.unwrap_or_default(), Fact::GaveUp);
        Ok(())
    }

    fn gave_up(&self) -> bool {
        matches!(
            self.world.items.last(),
            Some(Item::World {
                fact: Fact::GaveUp,
                ..
            })
        )
    }

    /// An orderly stop: a step under way is cut off and its result dropped.
    fn park(&mut self, cycle: &Cycle, effect: &Effect) -> Result<(), ReplayError> {
        let interrupted = effect.acts() && self.world.rng.chance(500);
        if interrupted {
            let _cut_off = self.world.answer(cycle, effect);
        }
        let id = &cycle.workflow_id;
        if self.submit(id, Event::Parked { interrupted })? == Fate::Durable {
            self.restart(Boundary::Stopped)?;
        }
        Ok(())
    }

    /// Carries an effect out, rightly or with the planted bug.
    fn carry_out(&mut self, cycle: &Cycle, effect: &Effect) -> Option<Event> {
        let bug = self.config.bug;
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
                    alert: evenkeel_core::event::AlertRef::default(),
                });
            }
            (Some(Bug::NeverClose), Effect::Close { .. }) => return None,
            _ => {}
        }
        let event = self.world.answer(cycle, effect);
        Some(match (bug, event) {
            (Some(Bug::ActWithoutSnapshot), Event::SnapshotFailed { .. }) => invented_snapshot(),
            (Some(Bug::HideFailedRollback), Event::RolledBack { .. }) => rolled_back(),
            (Some(Bug::BelieveInconclusive), Event::Verified { mut verification }) => {
                verification.passed |= verification.inconclusive;
                verification.inconclusive = false;
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

    /// Applies an event and makes its record durable; only then does it count.
    fn submit(&mut self, id: &str, event: Event) -> Result<Fate, ReplayError> {
        let stamped = Stamped {
            workflow_id: id.to_owned(),
            at: self.world.now,
            event,
        };
        let after = match &self.healer.open {
            Some(open) => {
                let mut after = open.clone();
                after.apply(stamped.at, &stamped.event)?;
                after
            }
            None => Cycle::open(id, stamped.at, &stamped.event)?,
        };
        if self.world.dies() {
            let boundary = self
                .world
                .rng
                .pick([Boundary::BeforeRecord, Boundary::RecordRefused]);
            self.restart(boundary)?;
            return Ok(Fate::Died);
        }
        let prepared = matches!(stamped.event, Event::StepPrepared { .. });
        if let (Some(Bug::ActBeforeRecord), Phase::Executing { step }) =
            (self.config.bug, &after.phase)
        {
            self.world.run_step(&after, *step);
        }
        if !(prepared && self.config.bug == Some(Bug::ForgetIntent)) {
            let record = record::of_event(&after, &stamped);
            self.append(&record);
            let closed = matches!(stamped.event, Event::Closed { .. });
            if closed && self.config.bug == Some(Bug::CloseTwice) {
                self.append(&record);
            }
        }
        self.healer.apply(&HealerEvent::Cycle(stamped))?;
        self.rerun_wrongly(&after);
        Ok(Fate::Durable)
    }

    fn append(&mut self, record: &Record) {
        let text = record.payload.to_string();
        self.world.items.push(Item::Entry(Entry {
            at: record.at,
            action: record.action,
            result: record.result,
            payload: record.payload.clone(),
            text,
        }));
    }

    /// Throws the healer away and builds it again from the ledger.
    fn restart(&mut self, boundary: Boundary) -> Result<(), ReplayError> {
        let workflow = self.healer.open.as_ref().map(|c| c.workflow_id.clone());
        let id = workflow.unwrap_or_default();
        self.world.note(&id, Fact::Died { boundary });
        self.rebuild(&id);
        self.world.pass(2_000, &id);
        let Some(open) = &self.healer.open else {
            return Ok(());
        };
        let after_crash = !open.parked;
        if let (Some(Bug::RerunBlindly), Phase::Executing { step }) = (self.config.bug, &open.phase)
        {
            let (cycle, step) = (open.clone(), *step);
            let event = self.world.run_step(&cycle, step);
            if !cycle.parked {
                self.submit(&id, event)?;
                return Ok(());
            }
        }
        self.submit(&id, Event::Resumed { after_crash })?;
        Ok(())
    }

    /// Puts a healer in place that knows only what the ledger says, and writes down how it differs.
    fn rebuild(&mut self, id: &str) {
        if let Err(e) = self.replay() {
            // The trace shows it, and the run goes on with the healer that should have been lost.
            self.unreadable.get_or_insert(e);
            return;
        }
        let mut healer = self.fold.clone();
        if self.config.bug == Some(Bug::LoseAttempts) {
            healer.healing_attempts.clear();
        }
        let differs = (healer != self.healer).then(|| (json(&self.healer), json(&healer)));
        let attempts = healer
            .healing_attempts
            .iter()
            .map(|(kind, n)| (kind.as_str().to_owned(), *n))
            .collect();
        self.healer = healer;
        self.world.note(id, Fact::Rebuilt { attempts, differs });
    }

    /// Folds what was added to the ledger. The bytes are all that is read.
    fn replay(&mut self) -> Result<(), String> {
        for item in &self.world.items[self.folded..] {
            if let Item::Entry(entry) = item {
                let read = record::read_back(entry.action, entry.at, &entry.text);
                if let Some(event) = read.map_err(|e| e.to_string())? {
                    self.fold.apply(&event).map_err(|e| e.to_string())?;
                }
            }
            self.folded += 1;
        }
        Ok(())
    }

    /// With the planted bug: a step of unknown outcome is run again because the re-test after it failed.
    fn rerun_wrongly(&mut self, after: &Cycle) {
        let probed = self.config.bug == Some(Bug::RerunNonIdempotent)
            && after.phase == Phase::RollingBack
            && after.crashes > 0;
        let unknown = after.run().and_then(|r| {
            r.steps
                .iter()
                .find(|s| s.prepared.is_some() && s.outcome.is_none())
        });
        if let Some(step) = unknown.filter(|_| probed).map(|s| s.step) {
            self.world.run_step(after, step);
        }
    }
}

fn invented_snapshot() -> Event {
    Event::SnapshotTaken {
        guards: Vec::new(),
        snapshot: evenkeel_core::event::SnapshotRef {
            id: "pre_heal_invented".to_owned(),
            dir: String::new(),
            bytes: 0,
            files: 0,
        },
    }
}

fn rolled_back() -> Event {
    Event::RolledBack {
        outcome: evenkeel_core::playbook::RollbackOutcome {
            ok: true,
            ..evenkeel_core::playbook::RollbackOutcome::default()
        },
    }
}
