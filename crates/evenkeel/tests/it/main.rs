//! Integration tests of the product: the real binary, real processes, real SQLite, real HTTP on loopback.
//!
//! Each test has a directory of its own; whatever still works in it when the test ends is killed, also after a panic.
//! Waits poll a condition with a deadline. They look at processes through `/proc`, so they run on Linux.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "in a test an unwrap is an assertion, in its helpers too"
)]

mod audit;
mod bad_input;
mod crash;
#[cfg(feature = "demo")]
mod demo;
mod detection;
mod explain;
mod fenced;
mod guards;
mod interrupt;
mod load;
mod orders;
mod output;
mod outside;
mod secrets;
#[cfg(feature = "demo")]
mod spec_lines;
mod support;
mod watched;
mod witness;
