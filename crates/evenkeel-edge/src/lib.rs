//! The edge: everything that touches the world on Evenkeel's behalf.
//!
//! Adapters only. Nothing here decides what is to be done: a caller hands in what the core decided, and gets back
//! what happened. In reading order: the target as configured, the processes that make it up, what is read from it,
//! what is done to it, how it is brought back, and whom one asks or calls.

pub mod action;
pub mod advisor;
pub mod alert;
pub mod collect;
pub mod config_edit;
pub mod guidance;
pub mod lock_holder;
pub mod process;
pub mod snapshot;
pub mod target;

mod fresh_file;
mod outside;
mod plain;
mod web;
