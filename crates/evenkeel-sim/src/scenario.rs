//! A whole run before it begins: the services, everything that will happen to them, and how unkind the world is.
//!
//! A scenario is data. It is drawn from a seed, and a failing one is made smaller by leaving things out of it
//! ([`crate::shrink()`]); what is left out does not change what the rest does by itself.

mod draw;

use evenkeel_core::Policy;
use evenkeel_core::cycle::Rules;

use crate::Bug;
use crate::fault::{Benign, DAY_MS, Fault, HostEvent, TelemetryFault};
use crate::odds::Odds;

/// Names of services; a target has at most so many.
pub const NAMES: [&str; 24] = [
    "api", "auth", "search", "mail", "cart", "media", "billing", "feed", "chat", "index", "export",
    "audit", "geo", "price", "stock", "notify", "login", "image", "report", "score", "tax", "ship",
    "invoice", "backup",
];

/// A service as it was set up.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: &'static str,
    /// Requests per second on an average day.
    pub load: f64,
    /// How much more there are at the peak of a day, as a share of the average; 0 to 0.5.
    pub swing: f64,
    /// When that peak is, as a share of a day.
    pub peak: f64,
    /// How much more there are each day, as a share of the first day's.
    pub growth: f64,
    /// Requests per second that one worker can answer.
    pub per_worker: f64,
    /// Time of an answer when nobody waits, in milliseconds.
    pub latency_ms: f64,
    /// Resident memory after a start, in MB.
    pub memory_mb: f64,
    /// Time from start to ready, in milliseconds.
    pub start_ms: i64,
    /// Share of requests that fail when nothing is wrong.
    pub error_share: f64,
    /// Indexes of services that it needs; each smaller than its own.
    pub needs: Vec<usize>,
    /// The index of the service that it is one of several instances of; its own where it is the only one.
    pub instance_of: usize,
}

/// Limits of the watchdog's habits in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Time between two checks, in milliseconds.
    pub interval_ms: i64,
    /// Nothing is left out: a check at each interval, whatever there is to see.
    pub every_check: bool,
    /// Every service is measured at each check, and not only those to which something has happened.
    pub every_service: bool,
}

/// What a run is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// How long it is, in days.
    pub days: u32,
    /// The target.
    pub services: Vec<ServiceSpec>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What is no fault.
    pub benign: Vec<Benign>,
    /// What happens to measurements.
    pub telemetry: Vec<TelemetryFault>,
    /// What happens to Evenkeel: when, in milliseconds since the run began, and what.
    pub host: Vec<(i64, HostEvent)>,
    /// How unkind the world is.
    pub odds: Odds,
    /// How much a cycle may do.
    pub rules: Rules,
    /// What it may do at all.
    pub policy: Policy,
    /// How it is watched.
    pub watch: Watch,
    /// A bug to plant.
    pub bug: Option<Bug>,
}

/// What kind of runs are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// Everything there is, mixed anew for each seed.
    #[default]
    Campaign,
    /// The same at the pace of ordinary months: about one fault in thirty days.
    Ordinary,
    /// No fault at all: noise, deploys, jobs, people, growth.
    Calm,
    /// Only the measurements are at fault.
    Telemetry,
    /// One fault that stays, or comes and goes, until the end, in a world that is otherwise kind.
    Permanent,
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long each run is, in days of the world; 1 to 3660.
    pub days: u32,
    /// What kind.
    pub mix: Mix,
    /// A check at each interval, however quiet it is.
    pub every_check: bool,
    /// A bug to plant.
    pub bug: Option<Bug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            days: 7,
            mix: Mix::Campaign,
            every_check: false,
            bug: None,
        }
    }
}

impl Scenario {
    /// Draws a scenario: the same seed and configuration give the same one.
    pub fn draw(seed: u64, config: &Config) -> Self {
        draw::scenario(seed, *config)
    }

    /// Its end, in milliseconds since it began.
    pub fn end(&self) -> i64 {
        i64::from(self.days) * DAY_MS
    }

    /// Days of services in it.
    pub fn service_days(&self) -> u64 {
        u64::from(self.days) * self.services.len() as u64
    }

    /// How many things happen in it: what shrinking makes smaller.
    pub fn size(&self) -> usize {
        self.faults.len() + self.benign.len() + self.telemetry.len() + self.host.len()
    }
}
