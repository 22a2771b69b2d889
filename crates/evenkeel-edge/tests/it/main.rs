//! Integration tests: one binary, one module for each subject.

mod probes;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod supervise_attach;
#[cfg(target_os = "linux")]
mod supervise_world;
