//! The adapters against the world: real processes, real HTTP on loopback, real files.

#[cfg(unix)]
mod advisor_amp;
mod advisor_http;
mod advisor_mcp;
mod alerts;
mod guidance_store;
