//! The ledger here is the list of entries in the world's trace; only their bytes are read back.

use evenkeel_core::cycle::{Cycle, Phase};
use evenkeel_core::event::{Event, Stamped};
use evenkeel_core::healer::{HealerEvent, ReplayError};
use evenkeel_core::record::{self, Record};

use super::{Driver, watchdog};
use crate::bug::Bug;
use crate::json;
use crate::trace::{Boundary, Entry, Fact, Item};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is on record.
    Durable,
    /// The healer died and was built again; the event may be lost.
    Died,
}

impl Driver {
    /// Applies an event and makes its record durable; only then does it count.
    pub(super) fn submit(&mut self, id: &str, event: Event) -> Result<Fate, ReplayError> {
        let stamped = Stamped {
            workflow_id: id.to_owned(),
            at: self.world.wall(),
            event,
        };
        let after = match self.healer.cycles().find(|c| c.workflow_id == id) {
            Some(known) => {
                let mut after = known.clone();
                after.apply(stamped.at, &stamped.event)?;
                after
            }
            None => Cycle::open(id, stamped.at, &stamped.event)?,
        };
        if self.world.disk_full {
            return self.refused(id);
        }
        if self.world.dies() {
            if self.world.rng.chance(500) {
                return self.refused(id);
            }
            self.restart(Boundary::BeforeRecord, 2_000)?;
            return Ok(Fate::Died);
        }
        let prepared = matches!(stamped.event, Event::StepPrepared { .. });
        if let (Some(Bug::ActBeforeRecord), Phase::Executing { step }) =
            (self.scenario.bug, &after.phase)
        {
            self.world.run_step(&after, *step);
        }
        if !(prepared && self.scenario.bug == Some(Bug::ForgetIntent)) {
            let record = record::of_event(&after, &stamped);
            let closed = matches!(stamped.event, Event::Closed { .. });
            let twice =
                (closed && self.scenario.bug == Some(Bug::CloseTwice)).then(|| record.clone());
            self.append(record);
            if let Some(record) = twice {
                self.append(record);
            }
        }
        if let Event::Closed { outcome } = &stamped.event
            && outcome.healed()
        {
            self.unhealed.remove(&after.anomaly.key());
        }
        self.healer.apply(&HealerEvent::Cycle(stamped))?;
        self.rerun_wrongly(&after);
        if let Some(n) = self.world.script.dies_after {
            self.world.script.dies_after = n.checked_sub(1).filter(|n| *n > 0);
            if n == 1 {
                self.restart(Boundary::BeforeEffect, 2_000)?;
            }
        }
        Ok(Fate::Durable)
    }

    /// The ledger takes no entry: nothing is done any more, and people are told all the same (SAFETY 7, 20).
    fn refused(&mut self, id: &str) -> Result<Fate, ReplayError> {
        self.world.note(id, Fact::LedgerRefused);
        if self.scenario.bug != Some(Bug::NoAlertWithoutLedger) {
            let delivered = !self.world.rng.chance(self.world.odds.alert_lost);
            self.world.note(id, Fact::Alerted { delivered });
        }
        self.restart(Boundary::RecordRefused, 2_000)?;
        Ok(Fate::Died)
    }

    pub(super) fn append(&mut self, record: Record) {
        let text = record.payload.to_string();
        self.world.items.push(Item::Entry(Entry {
            at: record.at,
            elapsed: self.world.elapsed(),
            action: record.action,
            result: record.result,
            payload: record.payload,
            text,
        }));
    }

    /// Notes that an anomaly is gone, where that changes what is remembered.
    pub(super) fn cleared(&mut self, key: &str, verified: bool) -> Result<(), ReplayError> {
        if !self.healer.ended_without_fix(key) {
            return Ok(());
        }
        if self.world.disk_full {
            self.refused("")?;
            return Ok(());
        }
        let at = self.world.wall();
        self.append(record::of_cleared(key, verified, at));
        self.healer.apply(&HealerEvent::AnomalyCleared {
            key: key.to_owned(),
            verified,
            at,
        })
    }

    /// Throws the healer away and builds it again from the ledger; it is gone for a while, and for as long as there
    /// is no room for a record.
    pub(super) fn restart(&mut self, boundary: Boundary, gone_ms: i64) -> Result<(), ReplayError> {
        let workflow = self.healer.open.as_ref().map(|c| c.workflow_id.clone());
        let id = workflow.unwrap_or_default();
        self.world.note(&id, Fact::Died { boundary });
        self.rebuild(&id);
        self.watchdog = watchdog(&self.scenario);
        self.starts += 1;
        self.deferred.clear();
        self.unhealed.clear();
        self.world.pass(gone_ms, &id);
        while self.world.disk_full {
            let Some(next) = self.world.next_happening() else {
                break;
            };
            self.world.advance_to(next);
        }
        self.news = self.world.elapsed();
        self.started = self.world.wall();
        let Some(open) = &self.healer.open else {
            return Ok(());
        };
        let after_crash = !open.parked;
        if let (Some(Bug::RerunBlindly), Phase::Executing { step }) =
            (self.scenario.bug, &open.phase)
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
    pub(super) fn rebuild(&mut self, id: &str) {
        if let Err(e) = self.replay() {
            // The trace shows it, and the run goes on with the healer that should have been lost.
            self.unreadable.get_or_insert(e);
            return;
        }
        let mut healer = self.fold.clone();
        if self.scenario.bug == Some(Bug::LoseAttempts) {
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
        let probed = self.scenario.bug == Some(Bug::RerunNonIdempotent)
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
