//! A transaction of the writer while it is made: entries appended, nodes of the tree that they complete, and at its
//! end the checkpoint over all of it. What it changed counts only after COMMIT.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, ErrorCode, ffi, params};

use super::{COMMITTING, Failure, guards, opening, storage_failure};
use crate::check::to_i64;
use crate::ledger::Head;
use crate::merkle::Frontier;
use crate::nodes::Node;
use crate::signed::{self, Own, SignedCheckpoint};
use crate::tlog::{Checkpoint, Signer};
use crate::{DamageKind, Hash, LedgerError, NewEntry, own};

const INSERT: &str = "INSERT INTO immutable_log (sequence, timestamp, actor, action, resource, subsystem, payload, result, entry_hash, previous_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const INSERT_CHECKPOINT: &str = "INSERT INTO ledger_checkpoint (tree_size, note) VALUES (?1, ?2)";

/// Who signs, and what the log says about it.
#[derive(Debug, Clone)]
pub(super) struct Signing {
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) own: Own,
}

impl Signing {
    /// The key to sign the next checkpoint with.
    fn active(&self) -> Option<&Signer> {
        self.signer.as_deref().filter(|_| !self.own.stopped)
    }
}

/// What makes an entry part of the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) previous: Hash,
}

pub(super) struct Draft<'a> {
    pub(super) conn: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) head: Head,
    pub(super) tree: Frontier,
    pub(super) signing: Signing,
    clock: fn() -> jiff::Timestamp,
    /// Kept from the first entry on.
    insert: Option<CachedStatement<'a>>,
    /// Entries appended here.
    appended: u64,
    scratch: Vec<u8>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        path: &'a Path,
        head: Head,
        tree: Frontier,
        signing: Signing,
        clock: fn() -> jiff::Timestamp,
    ) -> Self {
        Self {
            conn,
            path,
            head,
            tree,
            signing,
            clock,
            insert: None,
            appended: 0,
            scratch: Vec::new(),
        }
    }

    /// What counts after COMMIT.
    pub(super) fn into_parts(self) -> (Head, Frontier, Signing) {
        (self.head, self.tree, self.signing)
    }

    /// Another process committed: its entries have to continue the chain from the head that was known here, under
    /// the same schema and by the same key.
    pub(super) fn adopt(&mut self) -> Result<(), Failure> {
        let (conn, path) = (self.conn, self.path);
        self.head = opening::follow(conn, path, self.head)?;
        let (own, tree) = opening::check_tree(conn, path, self.head)
            .map_err(|error| opening::failure(path, error))?;
        if let Some(signer) = &self.signing.signer {
            opening::check_key(path, &own, signer).map_err(Failure::Fatal)?;
        }
        self.tree = tree;
        self.signing.own = own;
        Ok(())
    }

    /// Appends one entry of the request `at` its place in the group.
    pub(super) fn append(
        &mut self,
        at: usize,
        entry: &NewEntry,
        payload_hash: Hash,
    ) -> Result<Seal, Failure> {
        if self.appended == 0 {
            self.meet(guards::is_head(self.conn, self.head))?;
        }
        let sequence = self.head.sequence + 1;
        let leaf = entry.leaf(sequence, self.head.hash, payload_hash);
        let seal = Seal {
            sequence,
            hash: leaf.hash_in(&mut self.scratch),
            previous: self.head.hash,
        };
        self.insert(entry, &seal)
            .map_err(|error| self.insert_failure(at, &error))?;
        let mut nodes = Vec::new();
        self.tree
            .push_subtree(0, seal.hash, |height, position, hash| {
                nodes.extend(Node::of(height, position, hash));
            });
        for node in nodes {
            self.meet(guards::node_is_next(self.conn, &node))?;
            node.insert(self.conn)
                .map_err(|error| storage_failure(self.path, &error))?;
        }
        self.head = Head {
            sequence,
            hash: seal.hash,
        };
        self.appended += 1;
        Ok(seal)
    }

    /// Whether a row was refused for what is in it, for its place in the chain, or for a fault of the storage.
    fn insert_failure(&self, at: usize, error: &rusqlite::Error) -> Failure {
        let as_told = LedgerError::sqlite(self.path, COMMITTING, error);
        // The index on workflow_id reads each payload: what is no JSON ends there.
        let no_json = error.sqlite_error_code() == Some(ErrorCode::Unknown)
            && error.to_string().contains("malformed JSON");
        match error.sqlite_extended_error_code() {
            Some(
                ffi::SQLITE_CONSTRAINT_TRIGGER
                | ffi::SQLITE_CONSTRAINT_ROWID
                | ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            ) => Failure::Fatal(as_told),
            _ if no_json || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Failure::Refused(at, as_told)
            }
            _ => storage_failure(self.path, error),
        }
    }

    /// What the file should be like before it is written to; if it is not, the writer ends.
    fn meet(&self, met: rusqlite::Result<Result<(), (u64, DamageKind)>>) -> Result<(), Failure> {
        match met {
            Ok(Ok(())) => Ok(()),
            Ok(Err((sequence, kind))) => Err(Failure::Fatal(LedgerError::DoesNotVerify {
                path: self.path.to_owned(),
                sequence: Some(sequence),
                kind,
            })),
            Err(error) => Err(storage_failure(self.path, &error)),
        }
    }

    fn insert(&mut self, entry: &NewEntry, seal: &Seal) -> rusqlite::Result<()> {
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => none.insert(self.conn.prepare_cached(INSERT)?),
        };
        insert.execute(params![
            to_i64(seal.sequence),
            entry.timestamp,
            entry.actor,
            entry.action,
            entry.resource,
            entry.subsystem,
            entry.payload,
            entry.result,
            seal.hash.to_hex().as_str(),
            seal.previous.to_hex().as_str(),
        ])?;
        Ok(())
    }

    /// Appends an entry of the ledger about itself.
    pub(super) fn append_own(
        &mut self,
        action: &str,
        payload: &impl serde::Serialize,
        result: &str,
    ) -> Result<crate::Entry, Failure> {
        let entry = own::entry(action, payload, result, (self.clock)())
            .map_err(|error| Failure::Refused(0, error))?;
        let seal = self.append(0, &entry, Hash::of(entry.payload.as_bytes()))?;
        Ok(crate::Entry::sealed(
            entry,
            seal.sequence,
            seal.hash,
            seal.previous,
        ))
    }

    /// A log that was signed up to here, and is now appended to without its key, says so itself.
    pub(super) fn record_missing_key(&mut self) -> Result<(), Failure> {
        if self.signing.signer.is_some() || self.signing.own.keys.current().is_none() {
            return Ok(());
        }
        let newest =
            signed::newest_size(self.conn).map_err(|error| storage_failure(self.path, &error))?;
        if newest == Some(self.head.sequence) {
            let reason = own::Reason {
                reason: "the ledger was opened without its signing key",
            };
            self.append_own(own::STOP_SIGNING, &reason, own::WITHOUT_KEY)?;
        }
        Ok(())
    }

    /// Signs the log as it is with what was appended here, and as the file now has it. Nothing appended, or nobody to
    /// sign, is `None`.
    pub(super) fn sign(&self) -> Result<Option<SignedCheckpoint>, Failure> {
        if self.appended > 0 {
            self.meet(guards::is_head(self.conn, self.head))?;
        }
        let Some(signer) = self.signing.active().filter(|_| self.appended > 0) else {
            return Ok(None);
        };
        let (tree_size, root) = (self.head.sequence, self.tree.root());
        self.meet(guards::checkpoint_is_next(self.conn, tree_size))?;
        let note = Checkpoint::new(signer.name(), tree_size, root)
            .sign(signer)
            .map_err(|error| {
                Failure::Fatal(LedgerError::invalid("signing key", error.to_string()))
            })?;
        let insert = self.conn.prepare_cached(INSERT_CHECKPOINT);
        insert
            .and_then(|mut insert| insert.execute(params![to_i64(tree_size), note.to_string()]))
            .map_err(|error| storage_failure(self.path, &error))?;
        Ok(Some(SignedCheckpoint {
            tree_size,
            root,
            note,
        }))
    }
}
