//! The edge: everything that touches the world on Evenkeel's behalf.
//!
//! Adapters only. Nothing here decides what is to be done: a caller hands in what the core decided, and gets back
//! what happened. In reading order: the target as configured, the processes that make it up, what is read from it,
//! what is done to it, how its database is put to the test, how it is brought back, whom one asks or calls, and how the ledger is anchored off the host.

pub mod action;
pub mod advisor;
pub mod alert;
pub mod anchor;
pub mod collect;
pub mod config_edit;
pub mod guidance;
pub mod launcher;
pub mod ledger_key;
pub mod lock_holder;
pub mod ping;
pub mod process;
pub mod service_manager;
pub mod snapshot;
pub mod sql_pool;
pub mod target;
pub mod witness;

mod fresh_file;
mod outside;
mod plain;
mod web;
