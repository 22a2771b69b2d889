//! Integration tests of the edge: real files, processes, databases and sockets.

mod act_config;
mod act_executor;
mod act_lock;
mod act_snapshot;
mod act_world;
#[cfg(unix)]
mod advisor_amp;
mod advisor_http;
mod advisor_mcp;
mod alerts;
mod anchors;
mod guidance_store;
mod ledger_keys;
mod probes;
#[cfg(target_os = "linux")]
mod resources;
mod scrapes;
mod sql_pools;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod supervise_attach;
#[cfg(target_os = "linux")]
mod supervise_world;
mod witness_http;
