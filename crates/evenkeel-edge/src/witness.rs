//! Witnesses over HTTP (C2SP `tlog-witness`): [`client`] asks one to cosign a checkpoint, [`server`] is one. What a
//! witness decides and remembers is the ledger's module `witness`.

pub mod client;
pub mod server;

pub use client::{WitnessClient, WitnessError, fetch_checkpoint};
pub use server::{ServerOptions, WitnessServer};
