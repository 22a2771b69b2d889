//! What the writer believes of a file: when it opens it, and when another process wrote to it. Schema, the newest
//! entries, the right edge of the tree, the newest checkpoint and the keys; the whole log only `verify` reads.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};

use super::draft::Signing;
use super::{Failure, Writer, data_version, guards, storage_failure};
use crate::check::{self, Chain, to_i64, to_u64};
use crate::files::{self, Identity};
use crate::ledger::{Head, Options};
use crate::merkle::Frontier;
use crate::nodes::NodeError;
use crate::signed::{self, Own};
use crate::tlog::Signer;
use crate::{DamageKind, Hash, LedgerError, connect, keys, nodes, own, schema};

/// Entries whose hashes are checked when a ledger is opened.
const TAIL_ENTRIES: i64 = 64;

const OPENING: &str = "opening it";
const CHECKING: &str = "checking its newest entries";

impl Writer {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, LedgerError> {
        let conn = connect::writer(path, options)?;
        let fail = |error| LedgerError::sqlite(path, OPENING, &error);
        if is_incomplete(&conn).map_err(fail)? {
            // A file that does not verify is not touched.
            check_tail(&conn, path)?;
            complete(&conn).map_err(|error| node_error(path, error))?;
        }
        // Before the tail is read: what another process commits in between is looked at with the first commit.
        let data_version = data_version(&conn).map_err(fail)?;
        // Log, tree and checkpoints of one moment.
        conn.execute_batch("BEGIN").map_err(fail)?;
        let head = check_tail(&conn, path)?;
        let (own, tree) = check_tree(&conn, path, head)?;
        if let Some(signer) = &options.signer {
            check_key(path, &own, signer)?;
        }
        let newest = signed::newest(&conn).map_err(fail)?;
        conn.execute_batch("COMMIT").map_err(fail)?;
        let io = |error| LedgerError::io(path, OPENING, &error);
        // SQLite resolves links once, so does this: later the same names are looked at.
        let path = fs::canonicalize(path).map_err(io)?;
        let database = Identity::of(&path).map_err(io)?;
        // The reads above made SQLite open, and if need be create, the write-ahead log.
        let wal_path = files::wal_path(&path);
        let wal = Identity::of(&wal_path).map_err(io)?;
        let mut writer = Self {
            conn,
            path,
            head,
            tree,
            signing: Signing {
                signer: options.signer.clone(),
                own,
            },
            clock: options.clock,
            newest: newest.map(Arc::new),
            data_version,
            database,
            wal_path,
            wal,
            pages_since_copy: 0,
        };
        writer.introduce_key()?;
        guards::switch(&writer.conn, false)
            .map_err(|error| LedgerError::sqlite(&writer.path, OPENING, &error))?;
        Ok(writer)
    }

    /// The first key that a log gets is its own entry, and the first that is signed.
    fn introduce_key(&mut self) -> Result<(), LedgerError> {
        let Some(signer) = self.signing.signer.clone() else {
            return Ok(());
        };
        if self.signing.own.keys.current().is_some() {
            return Ok(());
        }
        let result = self.transact(0, |draft| {
            // Another process may have been faster.
            if draft.signing.own.keys.current().is_none() {
                let entry = draft.append_own(own::TRUST_KEY, &keys::trust(&signer), "success")?;
                let accepted = draft.signing.own.keys.accept(&entry);
                accepted.map_err(|kind| {
                    Failure::Refused(0, LedgerError::invalid("key", kind.to_string()))
                })?;
            }
            Ok(())
        });
        result.map_err(|failure| match failure {
            Failure::Refused(_, error) | Failure::Busy(error) | Failure::Fatal(error) => error,
        })
    }
}

/// Whether the file has an older format, or fewer nodes than its log is due.
fn is_incomplete(conn: &Connection) -> rusqlite::Result<bool> {
    if !schema::has_log(conn)? {
        return Ok(false);
    }
    Ok(schema::version(conn)? < schema::VERSION
        || nodes::are_kept(conn)? && nodes::count(conn, 1)? < nodes::due(last_sequence(conn)?, 1))
}

/// Brings an older format up to this one, and the nodes of the tree up to the log.
fn complete(conn: &Connection) -> Result<(), NodeError> {
    let transaction = rusqlite::Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    // Another process may have been faster, and may have appended since.
    if schema::version(&transaction)? < schema::VERSION {
        schema::upgrade_from_1(&transaction)?;
        tracing::info!(
            version = schema::VERSION,
            "ledger brought to this format version"
        );
    }
    nodes::fill(&transaction, last_sequence(&transaction)?)?;
    transaction.commit()?;
    Ok(())
}

fn last_sequence(conn: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> =
        conn.query_row("SELECT max(sequence) FROM immutable_log", [], |row| {
            row.get(0)
        })?;
    Ok(last.map_or(0, to_u64))
}

/// The right edge of the tree, and what the log says of itself, both as far as the newest checkpoint agrees.
pub(super) fn check_tree(
    conn: &Connection,
    path: &Path,
    head: Head,
) -> Result<(Own, Frontier), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, CHECKING, &error);
    let damaged = |sequence, kind| does_not_verify(path, sequence, kind);
    let size = head.sequence;
    if let Some(kind) = nodes::surplus(conn, size).map_err(fail)? {
        return Err(damaged(Some(size + 1), kind));
    }
    let (own, damage) = signed::own(conn, size).map_err(fail)?;
    if let Some(damage) = damage {
        return Err(damaged(damage.sequence, damage.kind));
    }
    let tree = nodes::frontier(conn, size).map_err(|error| node_error(path, error))?;
    let newest = signed::newest_row(conn).map_err(fail)?;
    let Some((tree_size, note)) = newest else {
        return match own.keys.periods().first() {
            Some((sequence, _)) => Err(damaged(Some(*sequence), DamageKind::CheckpointMissing)),
            None => Ok((own, tree)),
        };
    };
    if tree_size > size {
        let by = "a checkpoint in the file".to_owned();
        let kind = DamageKind::TailCut {
            expected: tree_size,
            found: size,
            by,
        };
        return Err(damaged(Some(size + 1), kind));
    }
    let checkpoint = signed::check(tree_size, &note, &own.keys)
        .map_err(|kind| damaged(Some(tree_size), kind))?;
    let root = if tree_size == size {
        tree.root()
    } else {
        nodes::frontier(conn, tree_size)
            .map_err(|error| node_error(path, error))?
            .root()
    };
    if root != checkpoint.root {
        let by = "a checkpoint in the file".to_owned();
        return Err(damaged(
            Some(1),
            DamageKind::RootDiffers {
                tree_size,
                first: 1,
                by,
            },
        ));
    }
    if tree_size < size && !own.stops.contains(&(tree_size + 1)) {
        return Err(damaged(Some(tree_size + 1), DamageKind::UnsignedTail));
    }
    Ok((own, tree))
}

/// The key given has to be the one that signs the log now, or the log has none yet.
pub(super) fn check_key(path: &Path, own: &Own, signer: &Signer) -> Result<(), LedgerError> {
    match own.keys.current() {
        Some(trusted) if trusted != signer.verifier() => Err(LedgerError::WrongKey {
            path: path.to_owned(),
            trusted: keys::name(trusted),
            given: keys::name(signer.verifier()),
        }),
        _ => Ok(()),
    }
}

/// Another process committed. Returns the head that its entries lead to from the one that was known.
pub(super) fn follow(conn: &Connection, path: &Path, known: Head) -> Result<Head, Failure> {
    let fail = |error: rusqlite::Error| storage_failure(path, &error);
    check_schema(conn, path).map_err(Failure::Fatal)?;
    let head = check_rows(conn, path, known, Chain::after(known.sequence, known.hash))
        .map_err(Failure::Fatal)?;
    if known.sequence > 0 {
        let there: Option<String> = conn
            .query_row(
                "SELECT max(entry_hash) FROM immutable_log WHERE sequence = ?1",
                [to_i64(known.sequence)],
                |row| row.get(0),
            )
            .map_err(fail)?;
        if there != Some(known.hash.to_string()) {
            let kind = DamageKind::BrokenLink;
            return Err(Failure::Fatal(does_not_verify(
                path,
                Some(known.sequence),
                kind,
            )));
        }
    }
    // Whoever wrote them may have known nothing of nodes.
    nodes::fill(conn, head.sequence).map_err(|error| failure(path, node_error(path, error)))?;
    Ok(head)
}

/// A lock that another process holds is no reason to end.
pub(super) fn failure(_path: &Path, error: LedgerError) -> Failure {
    match error {
        busy @ LedgerError::Busy { .. } => Failure::Busy(busy),
        fatal => Failure::Fatal(fatal),
    }
}

/// The schema, and the newest entries re-hashed. Returns the head.
fn check_tail(conn: &Connection, path: &Path) -> Result<Head, LedgerError> {
    check_schema(conn, path)?;
    let last = last_sequence(conn).map_err(|error| LedgerError::sqlite(path, CHECKING, &error))?;
    let last = to_i64(last);
    let empty = Head {
        sequence: 0,
        hash: Hash::ZERO,
    };
    if last <= TAIL_ENTRIES {
        return check_rows(conn, path, empty, Chain::from_start());
    }
    let before = Head {
        sequence: to_u64(last - TAIL_ENTRIES),
        hash: Hash::ZERO,
    };
    check_rows(
        conn,
        path,
        before,
        Chain::from_middle(last - TAIL_ENTRIES + 1),
    )
}

fn check_schema(conn: &Connection, path: &Path) -> Result<(), LedgerError> {
    let fail = |error| LedgerError::sqlite(path, "checking its schema", &error);
    match schema::faults(conn).map_err(fail)?.into_iter().next() {
        None => Ok(()),
        Some(damage) => Err(does_not_verify(path, None, damage.kind)),
    }
}

/// Re-hashes all rows after `known`. Returns the last of them, or `known`.
fn check_rows(
    conn: &Connection,
    path: &Path,
    known: Head,
    mut chain: Chain,
) -> Result<Head, LedgerError> {
    let fail = |error| LedgerError::sqlite(path, CHECKING, &error);
    let sql = format!(
        "SELECT {} FROM immutable_log NOT INDEXED WHERE sequence > ?1 ORDER BY sequence",
        check::COLUMNS
    );
    let mut statement = conn.prepare_cached(&sql).map_err(fail)?;
    let mut rows = statement.query([to_i64(known.sequence)]).map_err(fail)?;
    let mut head = known;
    while let Some(row) = rows.next().map_err(fail)? {
        let checked = chain.check(row, conn).map_err(fail)?;
        if let Some(damage) = checked.damage {
            return Err(does_not_verify(path, damage.sequence, damage.kind));
        }
        head = Head {
            sequence: to_u64(checked.sequence),
            hash: checked.hash,
        };
    }
    Ok(head)
}

fn node_error(path: &Path, error: NodeError) -> LedgerError {
    match error {
        NodeError::Sqlite(error) => LedgerError::sqlite(path, CHECKING, &error),
        NodeError::Missing { level: 0, position } => {
            let kind = DamageKind::Malformed {
                column: "entry_hash",
            };
            does_not_verify(path, Some(position + 1), kind)
        }
        NodeError::Missing { level, position } => {
            does_not_verify(path, None, DamageKind::NodeDiffers { level, position })
        }
    }
}

fn does_not_verify(path: &Path, sequence: Option<u64>, kind: crate::DamageKind) -> LedgerError {
    LedgerError::DoesNotVerify {
        path: path.to_owned(),
        sequence,
        kind,
    }
}
