//! The proving ground of the healing core: a virtual clock, a small world with faults, and checkers that know only
//! the ledger and the world.
//!
//! [`run`] takes the very [`evenkeel_core::healer::Healer`] that ships through a seeded run: snapshots that fail,
//! steps that lie, rollbacks that break off, advisors without answers, clocks that step back, and deaths of the
//! healer at every boundary between an event, its record and its effect. [`check()`] then judges the trace.
//! The same seed and configuration give the same trace.
//!
//! Reading order: chance ([`rng`], [`odds`]), the world ([`world`]), the driver, what it leaves behind ([`trace`]),
//! the checkers ([`check`](mod@check)), and drivers that are wrong on purpose ([`bug`]).
//!
//! **Invariant:** the checkers use no type of the core but [`evenkeel_core::Timestamp`].

pub mod bug;
pub mod check;
mod drive;
pub mod odds;
pub mod rng;
pub mod trace;
pub mod world;

pub use bug::Bug;
pub use check::{Report, Violation, check};
pub use trace::Trace;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Anomalies that are found in one run, one after the other.
    pub anomalies: u32,
    /// An anomaly that comes back within this time after its fix means that the fix did not last, in milliseconds.
    pub recurrence_window_ms: i64,
    /// A bug to plant.
    pub bug: Option<Bug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            anomalies: 3,
            recurrence_window_ms: 3_600_000,
            bug: None,
        }
    }
}

/// Runs one seed.
///
/// # Panics
/// When the healer refuses an event that answers the effect it asked for: its table has a hole.
pub fn run(seed: u64, config: Config) -> Trace {
    drive::Driver::new(seed, config)
        .run(seed)
        .unwrap_or_else(|e| panic!("seed {seed} with {config:?}: the healer refused an event: {e}"))
}

/// A healer, whole, for comparing.
fn json(healer: &evenkeel_core::healer::Healer) -> String {
    serde_json::to_string(healer).expect("a healer is plain data with text keys")
}
