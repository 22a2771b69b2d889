//! Evenkeel: self-healing for services, with proof. The product's library face.
//!
//! `evenkeel` the program is a thin command line over this. To guard a program from inside itself, see
//! [`Guard`](guard::Guard): one spawned call.
//!
//! In reading order: the configuration ([`config`]), where files lie ([`layout`]), the workflow ([`orchestrator`]) with
//! its healing loop ([`healing`]) and its watchdog ([`watch`]), and what all of them tell ([`ui`], [`log`], [`journal`]).

pub mod access;
mod alarm;
mod anchoring;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod collectors;
pub mod config;
pub mod control;
#[cfg(feature = "demo")]
pub mod demo;
mod dependencies;
pub mod guard;
pub mod healing;
pub mod journal;
pub mod layout;
mod learned;
pub mod load;
pub mod log;
pub mod metrics;
pub mod mind;
pub mod orchestrator;
pub mod overview;
pub mod playbooks;
mod pulse;
mod readings;
mod record;
pub mod secrets;
mod signing;
pub mod state;
pub mod stop;
pub mod token;
pub mod ui;
pub mod watch;

/// The README's Rust is compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
