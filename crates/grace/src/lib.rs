//! Grace, a small real assistant backend: the reference service that Evenkeel guards in its demo,
//! tests and benchmarks.
//!
//! It depends on no Evenkeel crate and knows nothing of being guarded. Its faults have causes that
//! live in its settings file or in other processes (a session cache without a bound, a pool too
//! small for the load, a limiter set too low, a lock held by another program, a slow upstream);
//! there is no switch that fakes one.
//!
//! The public face is small: [`GraceArgs`] to put into a command line, [`run`] to become the
//! chosen process, and [`Settings`] to write the file that people and playbooks edit.

mod api;
mod audit;
mod cli;
mod collector;
mod db;
mod error;
mod hold_lock;
mod http;
mod ids;
mod log;
mod mesh;
mod metrics;
mod model;
mod process;
mod settings;
mod upstream;

pub use cli::{CollectorArgs, GraceArgs, HoldLockArgs, Role, UpstreamArgs, run};
pub use error::GraceError;
pub use settings::{
    Audit, Chat, Database, Governance, Limits, Log, Metrics, Server, Sessions, Settings,
    default_settings,
};
