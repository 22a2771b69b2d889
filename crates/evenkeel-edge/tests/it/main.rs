//! Integration tests of the edge: real files, processes, databases and sockets.

mod act_config;
mod act_executor;
mod act_lock;
mod act_snapshot;
