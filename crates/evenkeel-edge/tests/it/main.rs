//! Integration tests of the edge: real files, processes, databases and sockets.

mod act_config;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod supervise_attach;
#[cfg(target_os = "linux")]
mod supervise_world;
