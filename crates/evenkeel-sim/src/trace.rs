//! What one run left behind: the ledger as it was written and, between its entries, what really happened in the
//! world. This is all the checkers may see.

use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde_json::Value;

use crate::fault::{BenignKind, FaultKind, TelemetryKind};
use crate::scenario::Scenario;

/// An entry of the virtual ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its time, as written.
    pub at: Timestamp,
    /// When it became durable, in milliseconds since the run began, whatever any clock says.
    pub elapsed: i64,
    /// Its action, as written.
    pub action: &'static str,
    /// Its result, as written.
    pub result: &'static str,
    /// Its payload, as the bytes that replay reads.
    pub text: String,
    /// The same payload, parsed for the checkers.
    pub payload: Value,
}

impl Entry {
    /// The name of the cycle event in it; empty for other entries.
    pub fn event(&self) -> &str {
        self.payload["event"].as_str().unwrap_or("")
    }

    /// The cycle it belongs to; empty for other entries.
    pub fn workflow(&self) -> &str {
        self.payload["workflow_id"].as_str().unwrap_or("")
    }
}

/// Where the healer was when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Before a record was durable: the event is lost.
    BeforeRecord,
    /// The ledger refused the record (a full disk): the healer stops rather than go on without it.
    RecordRefused,
    /// After a record, before the effect it announces.
    BeforeEffect,
    /// After an effect, before its result was recorded.
    AfterEffect,
    /// It was stopped in an orderly way, with the cycle parked.
    Stopped,
    /// Killed from outside, whatever it was at.
    Killed,
}

/// How much of a step really happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing.
    Nothing,
    /// A part.
    Half,
    /// All of it.
    Whole,
}

/// Something that really happened, whatever the healer believes.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A complete snapshot exists.
    SnapshotMade {
        /// Its id.
        id: String,
    },
    /// A step was carried out.
    StepRan {
        /// Index of the step in its plan.
        step: usize,
        /// What was carried out.
        action: &'static str,
        /// It changes something.
        changes: bool,
        /// Running it twice does no more than running it once.
        repeatable: bool,
        /// How much of it happened.
        extent: Extent,
        /// The services that it interrupts.
        interrupts: Vec<String>,
        /// The services that were down when it began.
        down: Vec<String>,
    },
    /// The signal was read again.
    Looked {
        /// It was normal, and that could be concluded.
        normal: bool,
    },
    /// The signal was watched for the settle window.
    Watched {
        /// It stayed normal.
        normal: bool,
    },
    /// Somebody begins to take changes back.
    RollbackBegan,
    /// Changes were taken back.
    RolledBack {
        /// The target is as it was when the attempt's snapshot was made (keys that others changed set aside).
        complete: bool,
        /// What the one who did it said.
        said_ok: bool,
    },
    /// People were alerted, or it was tried.
    Alerted {
        /// At least one channel took it.
        delivered: bool,
    },
    /// Somebody else changed the target.
    Meddled {
        /// The key.
        key: String,
    },
    /// The wall clock was set.
    ClockSet {
        /// By so many milliseconds; negative is back.
        by_ms: i64,
    },
    /// The cause of a fault began.
    FaultBegan {
        /// Its index in the scenario.
        fault: usize,
        /// What it is.
        kind: FaultKind,
        /// The service that it strikes.
        service: &'static str,
    },
    /// The cause of a fault is gone.
    FaultEnded {
        /// Its index in the scenario.
        fault: usize,
    },
    /// Something that is no fault.
    Benign {
        /// What.
        kind: BenignKind,
        /// Where.
        service: &'static str,
    },
    /// Measurements of a service are at fault from here on.
    TelemetryBegan {
        /// How.
        kind: TelemetryKind,
    },
    /// They are right again.
    TelemetryEnded {
        /// How they were not.
        kind: TelemetryKind,
    },
    /// The ledger's disk takes nothing from here on.
    DiskFull,
    /// It does again.
    DiskFree,
    /// The file `PAUSE` came or went.
    PauseFile {
        /// It is there now.
        there: bool,
    },
    /// A person answered a request for approval, and it counted.
    Answered {
        /// The request.
        id: String,
        /// They said yes to what was asked.
        yes: bool,
    },
    /// A person's answer did not count.
    AnswerRefused {
        /// The request.
        id: String,
    },
    /// What had to wait was looked at again, and is still there.
    StillThere {
        /// What and where.
        key: String,
    },
    /// What is to become of an anomaly is about to be decided.
    Deciding {
        /// Services that are down, though nothing that they need is.
        roots_down: usize,
    },
    /// The ledger refused a record.
    LedgerRefused,
    /// The detectors found something that may be acted on.
    Raised {
        /// What and where, as they name it.
        key: String,
    },
    /// The detectors noted something that is never acted on.
    Noted {
        /// What kind.
        kind: String,
    },
    /// The healer died.
    Died {
        /// Where.
        boundary: Boundary,
    },
    /// The healer was built again from the ledger.
    Rebuilt {
        /// Failed attempts by anomaly type, as it knows them now.
        attempts: BTreeMap<String, u32>,
        /// All it knew before and all it knows now, as JSON, when that is not the same.
        differs: Option<(String, String)>,
    },
    /// The run is over, and the target was compared with how it was before.
    LeftAs {
        /// Nothing is different.
        as_before: bool,
    },
    /// The driver stopped after its own bound of turns: a cycle did not end.
    GaveUp,
}

/// One line of a trace.
#[derive(Clone, Debug)]
pub enum Item {
    /// A ledger entry became durable.
    Entry(Entry),
    /// Something happened in the world.
    World {
        /// When, in milliseconds since the run began, whatever any clock says.
        at: i64,
        /// The cycle it happened for; empty between cycles.
        workflow: String,
        /// What.
        fact: Fact,
    },
}

/// The limits of one run, as the driver was configured; what the ledger says of them is compared with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failed attempts before an advisor is asked.
    pub max_attempts: u32,
    /// Advisors that may be asked.
    pub advisors: u32,
    /// Settle window, in milliseconds.
    pub settle_ms: u64,
    /// Recurrence window, in milliseconds.
    pub recurrence_window_ms: i64,
    /// `shadow`, `approve` or `auto`.
    pub mode: &'static str,
    /// Heals an hour and a day, in all and for one service.
    pub heals: [u32; 4],
    /// Interruptions of one service an hour.
    pub interruptions: u32,
    /// Failed cycles in a row after which nothing is done until a person says so.
    pub breaker_cycles: u32,
    /// How many roots of trouble are more than a healer should touch.
    pub storm_services: u32,
    /// Cycles for one anomaly within a day after which it flaps.
    pub flaps: u32,
    /// How long an anomaly must be away before it is a new one, in milliseconds.
    pub quiet_ms: i64,
    /// Longest time until the last step of an attempt begins, in milliseconds.
    pub attempt_ms: i64,
    /// Least instances up, most percent down, most down.
    pub capacity: [u32; 3],
    /// Minutes of the day, UTC, between which nothing is done.
    pub maintenance: Option<(i64, i64)>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What was run.
    pub scenario: Scenario,
    /// Its limits.
    pub limits: Limits,
    /// What happened, in order.
    pub items: Vec<Item>,
    /// Why the ledger could not be replayed, if that happened.
    pub unreadable: Option<String>,
    /// Checks of the watchdog.
    pub checks: u64,
}

impl Trace {
    /// Cycles that were opened.
    pub fn cycles(&self) -> u64 {
        let opened = |item: &&Item| matches!(item, Item::Entry(e) if e.event() == "opened");
        self.items.iter().filter(opened).count() as u64
    }
}
