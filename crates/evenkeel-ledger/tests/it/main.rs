//! The ledger against real files, real processes and the plain `sqlite3` shell.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod append;
mod damage;
mod durability;
mod guards;
mod open;
mod read;
mod shell;
mod storage;
mod support;
mod witness;
