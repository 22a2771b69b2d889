//! The watchdog's brain: samples go in, verdicts come out.
//!
//! Nothing here reads a clock, a file, a socket or a process. Collectors hand in what they measured and when,
//! the daemon says what time it is at each check, and the same code runs live, in the simulator and in replay.
//!
//! In reading order: what is measured ([`sample`]), with which limits ([`thresholds`]) and habits ([`config`]);
//! the monitors, one a file ([`error_rate`], [`latency`], [`memory`], [`failure_rate`], [`liveness`], [`drift`]); any
//! number of further series ([`follow`]), each judged by itself ([`level`], [`ensemble`]) and how rare that is ([`tail`]); what they may stand on ([`counts`],
//! [`leak`]) and how many alarms are granted ([`budget`]); what a log says again and again ([`template`]);
//! what is no evidence at all ([`telemetry`]); what healthy looked like ([`baseline`]); before and after ([`compare`]), and how two samples lie to each other ([`samples`], [`shares`]); and who puts it together
//! ([`watchdog`]), with one anomaly for as long as it lasts ([`verdict`]).
//!
//! **Invariant:** what is missing, late, twice there, out of order, not a number or from a clock that jumped is
//! never evidence for an anomaly that may be acted on. It is dropped, counted, and noted as `telemetry_missing`.
//!
//! **Invariant:** all state is bounded; each bound is a constant in [`limits`].

pub mod baseline;
pub mod budget;
pub mod compare;
pub mod config;
pub mod counts;
#[cfg(test)]
mod draws;
pub mod drift;
pub mod ensemble;
pub mod error_rate;
pub mod failure_rate;
pub mod follow;
pub mod latency;
pub mod leak;
pub mod level;
pub mod limits;
pub mod liveness;
pub mod memory;
pub mod sample;
pub mod samples;
pub mod shares;
mod slot;
mod stats;
pub mod tail;
pub mod telemetry;
pub mod template;
pub mod thresholds;
pub mod verdict;
pub mod watchdog;

pub use baseline::{Baseline, BaselineError};
pub use config::{DetectConfig, InvalidConfig};
pub use follow::{Follow, FollowConfig};
pub use sample::{ProbeError, Sample, SampleValue, SeriesId};
pub use stats::{SlopeInterval, theil_sen_interval};
pub use template::{TemplateId, TemplateMiner};
pub use thresholds::{InvalidThreshold, Thresholds};
pub use verdict::{MeasureNow, Measures, Verdict};
pub use watchdog::{Scope, Watchdog};
