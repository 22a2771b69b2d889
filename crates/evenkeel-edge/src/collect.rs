//! What is read from the target: does it answer, how much memory it uses, what it logs, what its counters say.
//!
//! Reads only. Whatever comes back is bounded in size and time, and anything that is missing is said to be missing:
//! it is never a zero.

pub mod probe;

pub use probe::{ProbeError, ProbeResult, Prober};
