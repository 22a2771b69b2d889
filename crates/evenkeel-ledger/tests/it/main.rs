//! The ledger against real files, real processes and the plain `sqlite3` shell.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod append;
mod damage;
mod dropped;
mod durability;
mod format_page;
mod guards;
mod open;
mod prove;
mod read;
mod shell;
mod signed;
mod storage;
mod support;
mod tlog_notes;
mod tlog_trees;
mod upgrade;
mod whole;
mod witness;
