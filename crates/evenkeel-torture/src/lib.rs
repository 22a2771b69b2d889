//! Power losses, failing disks and kills for the ledger and for the rollback: a tool for whoever changes them. Nothing depends on it and
//! nobody ships it.
//!
//! - [`power_loss`] records what SQLite writes and syncs while the shipped ledger appends, works out what a disk may
//!   hold when the power goes at any moment, and opens each of these states with the shipped ledger.
//! - [`io_faults`] makes every single call to the disk fail in turn.
//! - [`kill`] kills a process under load, again and again.
//! - [`rollback`] kills a restore at every system call that it makes.
//!
//! Each of the first three must find every acknowledged entry, whole batches only, a chain that verifies, and a ledger that goes on;
//! the last one a target that is wholly old or wholly new.
//! Each can be given a bug on purpose, and must find it.
//!
//! What is believed of the disk: a completed sync is kept, a 512-byte sector is written whole or not at all, and a
//! write does not harm its neighbours. What is not believed: any order among writes between two syncs.
//!
//! Unsafe code is in `vfs.rs` alone.

pub mod check;
pub mod disk;
pub mod io_faults;
pub mod kill;
pub mod power_loss;
pub mod random;
pub mod recorder;
#[cfg(target_os = "linux")]
pub mod rollback;
#[cfg(target_os = "linux")]
mod trace;
#[expect(
    unsafe_code,
    reason = "SQLite takes a file system as a table of C functions, and rusqlite wraps no such thing"
)]
mod vfs;
pub mod workload;
