//! The proving ground of the healing core: a virtual clock, a world of services with faults, and checkers that know
//! only the ledger and the world.
//!
//! [`run`] takes the very [`evenkeel_core::healer::Healer`] and [`evenkeel_detect::Watchdog`] that ship through years
//! of trouble in moments: services that crash, hang, leak and lock, snapshots that fail, steps that lie, rollbacks
//! that break off, advisors that are wrong or hostile, measurements that are late or none, disks that fill, clocks
//! that step, and deaths of the healer at every boundary between an event, its record and its effect. [`check()`]
//! then judges the trace. The same seed and configuration give the same trace.
//!
//! Reading order: what is run ([`scenario`], [`fault`], [`odds`], [`rng`]), the world ([`world`]), the driver, what it
//! leaves behind ([`trace`], [`transcript`]), the checkers ([`check`](mod@check)), drivers that are wrong on purpose
//! ([`bug`]), making a failure smaller ([`shrink`](mod@shrink)), and one playbook put through everything
//! ([`rehearsal`]).
//!
//! **Invariant:** the checkers use no type of the core but [`evenkeel_core::Timestamp`].

pub mod bug;
pub mod campaign;
pub mod check;
mod drive;
pub mod fault;
pub mod library;
pub mod odds;
pub mod rehearsal;
pub mod rng;
pub mod scenario;
pub mod shrink;
pub mod trace;
pub mod transcript;
pub mod world;

pub use bug::Bug;
pub use check::{Report, Violation, check};
pub use scenario::{Config, Mix, Scenario};
pub use shrink::shrink;
pub use trace::Trace;

/// Runs one seed.
///
/// # Panics
/// When the healer refuses an event that answers the effect it asked for: its table has a hole.
pub fn run(seed: u64, config: &Config) -> Trace {
    run_scenario(&Scenario::draw(seed, config))
}

/// Runs one scenario.
///
/// # Panics
/// As [`run`].
pub fn run_scenario(scenario: &Scenario) -> Trace {
    drive::Driver::new(scenario).run().unwrap_or_else(|e| {
        panic!(
            "seed {}: the healer refused an event: {e}\n{scenario:?}",
            scenario.seed
        )
    })
}

/// A healer, whole, for comparing.
fn json(healer: &evenkeel_core::healer::Healer) -> String {
    serde_json::to_string(healer).expect("a healer is plain data with text keys")
}
