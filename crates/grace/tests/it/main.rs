//! Grace's faults and their cures, each against the real program over loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod audit;
mod database;
mod events;
mod limits;
mod memory;
mod process;
mod service;
mod support;
mod upstream;
