//! The immutable log of Evenkeel: append, read, prove, verify. A transparency log in one file.
//!
//! One SQLite file holds the table `immutable_log`. It is the write-ahead log of the healer: what is not
//! committed here does not happen. People read it with the plain `sqlite3` shell, so the table, its columns
//! and the view `playbook_runs` are interfaces.
//!
//! With a signing key ([`Options::signer`]) each commit also writes a checkpoint, C2SP's signed statement of the
//! log's size and Merkle root. Handed to others, it is what a cut tail or a rewritten log is noticed by.
//!
//! | table | what | written |
//! |---|---|---|
//! | `immutable_log` | the entries | with each commit |
//! | `ledger_checkpoint` | the signed note over the log as that commit left it | in the same transaction |
//! | `ledger_cosignature` | what witnesses signed about those | when they answer |
//! | `ledger_node` | roots of complete subtrees of 256, 65,536, ... entries | in the transaction that completes them |
//!
//! ```no_run
//! # async fn example() -> Result<(), evenkeel_ledger::LedgerError> {
//! use evenkeel_ledger::{Ledger, NewEntry, Query, Reader};
//!
//! let path = std::path::Path::new("evenkeel.db");
//! let ledger = Ledger::open(path)?;
//! let entry = ledger
//!     .append(NewEntry {
//!         timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
//!         actor: "evenkeel".to_owned(),
//!         action: "start_healing_cycle".to_owned(),
//!         resource: "service:api".to_owned(),
//!         subsystem: "healing".to_owned(),
//!         payload: r#"{"workflow_id":"w-1"}"#.to_owned(),
//!         result: "started".to_owned(),
//!     })
//!     .await?;
//! let newest = Reader::open(path)?.query(&Query::new().newest_first().limit(1))?;
//! assert_eq!(newest[0].entry_hash, entry.entry_hash);
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! - **Acknowledged means durable.** [`Ledger::append`] returns an entry only after `COMMIT` with
//!   `synchronous=FULL`, and after looking that the file is still the one at its path. An error means *not
//!   acknowledged*: after a failed commit the entry may or may not be found when the file is opened again,
//!   but never half of it.
//! - **One writer thread**, one order. `sequence` starts at 1 and has no holes; it is the order of the log.
//!   Timestamps are what the caller's clock said and may step back.
//! - **A storage error is final.** After a full disk, an I/O error, a read-only or a corrupt file the writer
//!   is poisoned: every later append is refused and says why. Nothing is retried; open again, which checks.
//! - **Each entry seals the one before.** `entry_hash` is the RFC 6962 leaf hash of the canonical leaf
//!   ([`leaf`]), which contains `previous_hash`. Payload bytes are hashed as stored; JSON is never
//!   serialised again to check it.
//! - **Triggers stop accidents, proofs catch attackers.** UPDATE, DELETE and an INSERT that is not the next
//!   entry are refused by triggers; [`verify`](verify()) re-hashes everything and compares the schema too.
//!   They bind every connection but the writer's own while it appends: it does the same itself, and compares its head
//!   with the file's once a group, inside the transaction.
//!   Nothing in the file can show a tail cut off with its checkpoints, a rewrite by somebody who has the key, or an
//!   old copy put back: for that [`VerifyOptions::against`] takes checkpoints held elsewhere, and
//!   [`Report::not_anchored`] says for which entries there is none. [`tlog`] has the formats and proofs.
//! - **What is signed is whole.** A checkpoint covers every entry before it, is committed with them, and is signed by
//!   the key that the log's own entries trust at that size. A key follows another only by an entry that both signed
//!   ([`own::ROTATE_KEY`]). A stretch that is not signed begins with an entry that says so ([`own::STOP_SIGNING`]).
//! - **The key is never in the file**, and the crate makes none: it has no randomness.
//! - **A dropped payload leaves its hash and a record.** [`Ledger::drop_payloads`] is the one change there is; the
//!   table allows it only while the entry that records it is the newest. Chain, tree and proofs hold without the
//!   payload.
//! - **Nodes are derived.** `ledger_node` makes opening and proving cheap; the entries decide, verification compares.
//! - The file belongs to the ledger alone: any table, index, trigger or view that is not its own is reported.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | payload | [`PAYLOAD_BYTES_MAX`] (1 MiB), nested at most [`PAYLOAD_DEPTH_MAX`] deep |
//! | any other field | [`FIELD_BYTES_MAX`] (1 KiB) |
//! | entries in one [`Ledger::append_all`] | [`BATCH_ENTRIES_MAX`], together [`BATCH_BYTES_MAX`] |
//! | waiting for the writer | [`QUEUE_BYTES_MAX`] of entries; then `append` waits |
//! | one commit | [`GROUP_ENTRIES_MAX`] entries or [`GROUP_BYTES_MAX`], or one batch |
//! | payloads dropped by one [`Ledger::drop_payloads`] | [`DROP_ENTRIES_MAX`], each of [`DROP_BYTES_MIN`] or more |
//! | cosignatures kept for one checkpoint | [`COSIGNATURES_MAX`] |
//! | rows read for one node of the tree | 128; for opening 255 a level |
//! | threads of [`verify_with`] | [`VERIFY_THREADS_MAX`], each with some pieces of 1024 entries at a time |
//! | entries from one [`Reader::query`] | [`QUERY_LIMIT_MAX`] |
//! | waiting for another process's lock | [`Options::busy_timeout`], 5 s |

mod check;
mod connect;
mod damage;
mod dropped;
mod entry;
mod error;
pub mod export;
mod files;
mod keys;
pub mod leaf;
mod ledger;
pub mod merkle;
mod nodes;
pub mod own;
mod prove;
mod query;
mod reader;
pub mod schema;
mod signed;
mod stats;
pub mod tlog;
mod verify;
pub mod witness;
mod writer;

pub use damage::{Damage, DamageKind};
pub use dropped::{DROP_BYTES_MIN, DROP_ENTRIES_MAX, DROPPED_KEY, DropSelection, DroppedPayload};
pub use entry::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, Entry, FIELD_BYTES_MAX, NewEntry, PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX, format_timestamp,
};
pub use error::LedgerError;
pub use keys::KeyHistory;
pub use leaf::Hash;
pub use ledger::{Dropped, Head, Ledger, Options, QUEUE_BYTES_MAX};
pub use prove::{CosignedBy, SqliteNodes};
pub use query::{Order, QUERY_LIMIT_MAX, Query};
pub use reader::Reader;
pub use signed::{COSIGNATURES_MAX, SignedCheckpoint};
pub use stats::{Counts, ERROR_RESULTS, Exclude};
pub use verify::{
    Anchor, DAMAGE_LISTED_MAX, Report, VERIFY_THREADS_MAX, VerifyOptions, verify, verify_with,
};
pub use writer::{GROUP_BYTES_MAX, GROUP_ENTRIES_MAX};
