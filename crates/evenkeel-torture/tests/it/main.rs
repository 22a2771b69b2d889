//! A sample of each torture, small enough for the test command, and the proof that each can fail: with a bug on
//! purpose it finds a loss. `just torture` runs them at length.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

mod io_faults;
mod kill;
mod power_loss;
#[cfg(target_os = "linux")]
mod rollback;
