//! The edge: everything that touches the world on Evenkeel's behalf.
//!
//! Adapters only. Nothing here decides what is to be done: a caller hands in what the core decided, and gets back
//! what happened. In reading order: the target as configured, the processes that make it up, what is read from it,
//! what is done to it, how it is brought back, and whom one asks or calls.

pub mod action;
pub mod config_edit;
pub mod lock_holder;
pub mod snapshot;
pub mod target;
