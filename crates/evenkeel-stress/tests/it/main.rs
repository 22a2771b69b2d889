//! The engine and the tests against real servers on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test, as the tests themselves do"
)]

mod counts;
mod declared;
mod engine;
mod hostile;
mod memory;
mod mesh;
mod oracle;
mod raw;
mod server;
mod suite;
mod versions;
