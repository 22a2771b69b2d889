//! A run as a person reads it: one line for each thing that happened, with its day and time.

use std::fmt;

use crate::fault::DAY_MS;
use crate::trace::{Item, Trace};

/// `day 3 04:05:06.789`.
pub fn moment(elapsed_ms: i64) -> String {
    let (day, ms) = (elapsed_ms.div_euclid(DAY_MS), elapsed_ms.rem_euclid(DAY_MS));
    let (s, ms) = (ms / 1000, ms % 1000);
    format!(
        "day {day} {:02}:{:02}:{:02}.{ms:03}",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.scenario;
        writeln!(
            f,
            "seed {}: {} days, {} services",
            s.seed,
            s.days,
            s.services.len()
        )?;
        writeln!(f, "limits: {:?}", self.limits)?;
        writeln!(f, "odds: {:?}", s.odds)?;
        for fault in &s.faults {
            writeln!(f, "fault: {fault:?}")?;
        }
        for benign in &s.benign {
            writeln!(f, "no fault: {benign:?}")?;
        }
        for telemetry in &s.telemetry {
            writeln!(f, "measurements: {telemetry:?}")?;
        }
        for (at, event) in &s.host {
            writeln!(f, "Evenkeel: {event:?} at {at}")?;
        }
        for (i, item) in self.items.iter().enumerate() {
            match item {
                Item::Entry(e) => {
                    let event = if e.event().is_empty() {
                        e.action
                    } else {
                        e.event()
                    };
                    writeln!(
                        f,
                        "{i:5} {} ledger [{}] {event} {}: {}",
                        moment(e.elapsed),
                        e.workflow(),
                        e.result,
                        e.text
                    )?;
                }
                Item::World { at, workflow, fact } => {
                    writeln!(f, "{i:5} {} world  [{workflow}] {fact:?}", moment(*at))?;
                }
            }
        }
        match &self.unreadable {
            Some(e) => writeln!(f, "the ledger cannot be replayed: {e}"),
            None => Ok(()),
        }
    }
}
