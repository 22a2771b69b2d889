//! Runs the watchdog and the healer as the product does: an event is applied, its record becomes durable, and only
//! then is the effect that it leads to carried out. When the healer dies, everything it held in memory is thrown away
//! and folded again from the ledger.
//!
//! Time goes by check where something is wrong or has just changed, and from one happening of the world to the next
//! where nothing is. The watchdog takes such a leap for what it is, a time without checks, and begins its windows
//! anew.

mod heal;
mod ledger;
mod people;
mod watch;

use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel_core::event::Trigger;
use evenkeel_core::healer::{Due, Healer, ReplayError};
use evenkeel_core::{Anomaly, Facts, Timestamp};
use evenkeel_detect::{DetectConfig, Thresholds, Watchdog};

use crate::fault::MINUTE_MS;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::telemetry::Collectors;
use crate::world::verify::Trouble;
use crate::world::{EPOCH_MS, World};

/// After a change somebody looks for so long, in milliseconds.
const LOOK_MS: i64 = 5 * MINUTE_MS;
/// While something is wrong and nothing changes somebody looks for so long, in milliseconds: what was not found by then
/// is too slight to be found at all.
const LOOK_AT_TROUBLE_MS: i64 = 25 * MINUTE_MS;
/// The same after a cycle: what is still wrong has been handed over, or is found by then.
const LOOK_AFTER_CYCLE_MS: i64 = 8 * MINUTE_MS;

/// How often what waits is looked at where nothing else is to be seen, in milliseconds.
const WAIT_MS: i64 = 10 * MINUTE_MS;

/// A healer in a world.
pub(crate) struct Driver {
    scenario: Rc<Scenario>,
    world: World,
    watchdog: Watchdog,
    collectors: Collectors,
    healer: Healer,
    /// The fold over the first `folded` items of the trace. Built from the ledger's bytes alone, and kept so that a
    /// replay need not begin at the beginning each time.
    fold: Healer,
    folded: usize,
    unreadable: Option<String>,
    /// The newest check, in intervals since the run began.
    checked: i64,
    checks: u64,
    /// When the watchdog or the healer last had something to say.
    news: i64,
    /// When the last cycle ended.
    cycle_end: i64,
    gave_up: bool,
    /// How often it was started again.
    starts: u32,
    /// When it was started last, by the wall clock.
    started: Timestamp,
    /// What was found and may not be acted on yet, by key.
    deferred: BTreeMap<String, (Anomaly, Trigger)>,
    /// What was found and is not healed, as far as is known, by key.
    unhealed: BTreeMap<String, Anomaly>,
}

impl Driver {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let scenario = Rc::new(scenario.clone());
        let world = World::new(Rc::clone(&scenario));
        Self {
            watchdog: watchdog(&scenario),
            collectors: Collectors::new(&scenario),
            world,
            healer: Healer::default(),
            fold: Healer::default(),
            folded: 0,
            unreadable: None,
            checked: 0,
            checks: 0,
            news: 0,
            cycle_end: -1,
            gave_up: false,
            starts: 0,
            started: Timestamp::from_millis(EPOCH_MS),
            deferred: BTreeMap::new(),
            unhealed: BTreeMap::new(),
            scenario,
        }
    }

    /// One run, to its end.
    pub(crate) fn run(mut self) -> Result<Trace, ReplayError> {
        let end = self.scenario.end();
        let interval = self.scenario.watch.interval_ms;
        while self.world.elapsed() < end && !self.gave_up {
            self.serve_host()?;
            let now = self.world.elapsed();
            if now >= end {
                break;
            }
            let next = self.world.next_happening().unwrap_or(end).clamp(now, end);
            self.go_on()?;
            if !self.looking() {
                // What waits for a person or for a time is looked at now and then.
                let then = if self.waits() {
                    next.min(now + WAIT_MS)
                } else {
                    next
                };
                self.world.advance_to(then);
                self.supervisor()?;
                self.retry_deferred()?;
                continue;
            }
            let check = now.div_euclid(interval) + 1;
            self.world.advance_to(next.min(check * interval).min(end));
            self.supervisor()?;
            if self.world.elapsed() >= check * interval && self.checked < check {
                self.checked = check;
                self.check()?;
            }
        }
        Ok(self.end())
    }

    /// What it leaves behind; the ledger is folded once more.
    fn end(mut self) -> Trace {
        self.rebuild("");
        let limits = people::limits(&self.scenario);
        Trace {
            limits,
            items: self.world.items,
            unreadable: self.unreadable,
            checks: self.checks,
            scenario: Rc::unwrap_or_clone(self.scenario),
        }
    }

    /// Whether a check may see something that the last one did not.
    fn looking(&self) -> bool {
        if self.scenario.watch.every_check {
            return true;
        }
        let quiet = self.world.elapsed() - self.world.changed.max(self.news);
        if quiet < LOOK_MS {
            return true;
        }
        let trouble = self.world.worst() > Trouble::None
            || self.world.telemetry.iter().any(Option::is_some)
            || self.watchdog.active().any(watch::may_be_acted_on);
        let met = self.news > 0 && self.news >= self.world.changed;
        let patience = if met {
            LOOK_AFTER_CYCLE_MS
        } else {
            LOOK_AT_TROUBLE_MS
        };
        trouble && quiet < patience
    }

    /// Whether something waits for a person, or for a time.
    fn waits(&self) -> bool {
        !self.deferred.is_empty() || self.healer.cycles().next().is_some()
    }

    /// What decisions have to know of the present world.
    fn facts(&self) -> Facts {
        Facts {
            pause_file: self.world.pause_file,
            down: self.world.down().map(str::to_owned).collect(),
            no_room: self.world.disk_full.then(|| "the disk is full".to_owned()),
        }
    }

    /// What is due for the open cycle now.
    fn due(&self) -> Due {
        self.healer
            .due(self.world.wall(), &self.scenario.policy, &self.facts())
    }
}

/// A watchdog that has seen nothing yet.
fn watchdog(scenario: &Scenario) -> Watchdog {
    let config = DetectConfig {
        interval_ms: scenario.watch.interval_ms,
        ..DetectConfig::default()
    };
    Watchdog::new(config, Thresholds::default(), None)
}
