//! `evenkeel load`: load on an address, measured, for people and for programs.
//!
//! In reading order: what a run leaves ([`report`]). Needs no configuration and no data directory, and writes nothing
//! but the files that were asked for.

pub mod compare;
#[cfg(test)]
mod example;
pub(crate) mod figures;
pub mod html;
pub mod plot;
pub mod report;
