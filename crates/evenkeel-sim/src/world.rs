//! The world: services with causes in their state, a clock of its own, and everything that happens by itself. It
//! decides nothing for the healer; what is done to it comes in through [`World::answer`].
//!
//! Time goes from one happening to the next; between two of them everything follows from formulas
//! ([`service::Service::seen`]), so that quiet weeks cost nothing.

mod advisor;
mod causes;
mod effects;
mod guards;
mod happen;
mod person;
pub mod plans;
mod prepare;
pub mod script;
pub mod service;
pub mod target;
pub mod telemetry;
pub mod verify;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use evenkeel_core::Timestamp;
use evenkeel_core::cycle::Cycle;
use evenkeel_core::order::Order;

use crate::fault::TelemetryKind;
use crate::odds::Odds;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::{Fact, Item};
use causes::Cause;
use happen::Happening;
use script::Script;
use service::{InForce, Life, Service, Strain};
use target::{Ground, Target};

/// The wall clock when a run begins, in milliseconds since 1970.
pub const EPOCH_MS: i64 = 1_800_000_000_000;
/// Most deaths of the healer at boundaries in one run, so that every run ends.
pub const DEATHS_MAX: u32 = 14;
/// Most orderly stops of the healer in one run.
pub const PARKS_MAX: u32 = 5;

/// What the supervisor of the services notices by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A process ended.
    Ended(usize),
    /// A process is ready.
    Ready(usize),
}

/// What happens to Evenkeel, as far as it has to do something about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHealer {
    /// It is killed, and gone for so many milliseconds.
    Killed(i64),
    /// A person wants a playbook run on a service.
    HandRun(usize),
    /// A person orders something.
    Order(Order),
    /// A person answers a request for approval.
    Answer {
        /// The request.
        id: String,
        /// What the person says they saw; nothing for a no.
        binds: Option<String>,
    },
}

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    scenario: Rc<Scenario>,
    /// Chance, for whoever acts.
    pub rng: Rng,
    /// Chance, for measurements: apart, so that more of them change nothing else.
    pub noise: Rng,
    /// How unkind it is.
    pub odds: Odds,
    /// Milliseconds since the run began, as nobody in it can know.
    now: i64,
    /// How far the wall clock has been set away from that.
    clock_off: i64,
    /// The services, in the scenario's order.
    pub services: Vec<Service>,
    /// Settings, and what commands leave behind.
    pub ground: Ground,
    causes: Vec<Cause>,
    /// For each of the scenario's benign things whether it goes on.
    jobs: Vec<bool>,
    queue: BinaryHeap<Reverse<(i64, u32, Happening)>>,
    /// What happened, entries and facts.
    pub items: Vec<Item>,
    /// What the supervisor noticed and nobody has asked for yet.
    pub signals: Vec<Signal>,
    /// What happened to Evenkeel and was not yet done.
    pub to_healer: Vec<ToHealer>,
    /// The file `PAUSE` is there.
    pub pause_file: bool,
    /// Requests for approval that a person will answer.
    asked: Vec<(String, Option<String>)>,
    /// The ledger's disk takes nothing.
    pub disk_full: bool,
    /// How measurements of each service are at fault.
    pub telemetry: Vec<Option<TelemetryKind>>,
    /// When anything changed last.
    pub changed: i64,
    /// What goes wrong on purpose.
    pub script: Script,
    snapshots: BTreeMap<String, Target>,
    deaths: u32,
    parks: u32,
    serial: u32,
}

impl World {
    /// The world at the beginning of a scenario.
    pub fn new(scenario: Rc<Scenario>) -> Self {
        let ground = Ground::new();
        let in_force = in_force(&ground);
        let services = scenario
            .services
            .iter()
            .enumerate()
            .map(|(i, spec)| Service {
                life: Life::Up,
                process: 1 + i as u64,
                started: 0,
                in_force,
                strain: Strain {
                    errors: spec.error_share,
                    ..Strain::NONE
                },
                leaked_mb: 0.0,
                leaked_at: 0,
                size: 1.0,
                touched: 0,
                counted: (0.0, 0.0),
                counted_at: 0,
            })
            .collect::<Vec<_>>();
        let mut world = Self {
            rng: Rng::new(scenario.seed ^ 0x5eed),
            noise: Rng::new(scenario.seed ^ 0x0015e),
            odds: scenario.odds,
            now: 0,
            clock_off: 0,
            telemetry: vec![None; services.len()],
            services,
            ground,
            causes: vec![Cause::default(); scenario.faults.len()],
            jobs: vec![false; scenario.benign.len()],
            queue: BinaryHeap::new(),
            items: Vec::new(),
            signals: Vec::new(),
            to_healer: Vec::new(),
            pause_file: false,
            asked: Vec::new(),
            disk_full: false,
            changed: 0,
            script: Script::default(),
            snapshots: BTreeMap::new(),
            deaths: 0,
            parks: 0,
            serial: 0,
            scenario,
        };
        world.plan_ahead();
        world
    }

    /// The scenario it plays.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Milliseconds since the run began.
    pub fn elapsed(&self) -> i64 {
        self.now
    }

    /// What the wall clock of Evenkeel's host says.
    pub fn wall(&self) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS + self.now + self.clock_off)
    }

    /// Writes a fact down.
    pub fn note(&mut self, workflow: &str, fact: Fact) {
        self.items.push(Item::World {
            at: self.now,
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

    /// Lets time pass while somebody acts; now and then the clock is set back or somebody else changes the target.
    pub fn pass(&mut self, millis: i64, workflow: &str) {
        self.advance_to(self.now.saturating_add(millis.max(0)));
        if self.rng.chance(self.odds.clock_back) {
            let by_ms = -self.rng.pick([1_000, 60_000, 7_200_000]);
            self.set_clock(by_ms, workflow);
        }
        if self.rng.chance(self.odds.meddles) {
            self.meddle(workflow);
        }
    }

    /// A number that was not given out before.
    pub fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// Whether the target is as it was when the snapshot of the attempt under way was made.
    pub fn is_as_before(&self, cycle: &Cycle) -> bool {
        // What did nothing has nothing to take back, whatever others did while it was held.
        if !cycle.has_acted() {
            return true;
        }
        cycle
            .run()
            .and_then(|r| self.snapshots.get(&r.snapshot.as_ref()?.id))
            .is_some_and(|before| self.ground.same_as(before))
    }

    /// The index of a service by its name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.scenario.services.iter().position(|s| s.name == name)
    }

    fn set_clock(&mut self, by_ms: i64, workflow: &str) {
        self.clock_off += by_ms;
        self.note(workflow, Fact::ClockSet { by_ms });
    }

    fn meddle(&mut self, workflow: &str) {
        let key = self.ground.meddle(&mut self.rng);
        self.note(workflow, Fact::Meddled { key });
    }
}

/// What a process would read that starts now.
fn in_force(ground: &Ground) -> InForce {
    InForce {
        workers: ground.number("workers"),
        pool: ground.number("db_pool_size"),
        rate_limit: ground.number("rate_limit"),
        cache: ground.number("cache_max_entries"),
        upstream_timeout_ms: ground.number("upstream_timeout_ms"),
    }
}
