//! The engine and the tests against real servers on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test, as the tests themselves do"
)]

mod declared;
mod engine;
mod memory;
mod mesh;
mod server;
mod suite;
