//! What a log signed and cannot be reconciled with what it signed before. Kept so that others can judge: nobody has
//! to trust the witness.

use rusqlite::{Connection, params};

use super::error::RowError;
use super::rows::Recorded;
use super::{EVIDENCE_BYTES_MAX, EVIDENCE_MAX};
use crate::Hash;
use crate::tlog::proof::empty_root;
use crate::tlog::{AddCheckpoint, Checkpoint, SignedNote, Verified, VerifierKey};

/// What is wrong with what the log signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceKind {
    /// Two roots for one size. Proves a fork; see [`Evidence::proves_fork`].
    OtherRoot,
    /// A larger log, sent with a proof that does not show that the known one is its beginning. Whoever sent it may
    /// have spoiled the proof: if the log can give a good one, nothing is wrong.
    BadProof,
}

impl EvidenceKind {
    /// As in the column `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherRoot => "other_root",
            Self::BadProof => "bad_proof",
        }
    }
}

/// One signed request that could not be reconciled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What is wrong.
    pub kind: EvidenceKind,
    /// When it was seen, by the witness's clock, seconds since 1970.
    pub seen_unix: u64,
    /// The request, with those signatures only that are by keys of the log.
    pub request: AddCheckpoint,
    /// The checkpoint that was known then, signed by the log and cosigned by the witness; `None` where there was none.
    pub known: Option<SignedNote>,
}

impl Evidence {
    /// Whether this alone shows, to somebody who trusts only these keys of the log, that the log signed two histories:
    /// two roots for one size, or a root of the empty log that is not its root.
    pub fn proves_fork(&self, log_keys: &[VerifierKey]) -> bool {
        let Some(signed) = verified(&self.request.checkpoint, log_keys) else {
            return false;
        };
        if signed.size == 0 && signed.root != empty_root() {
            return true;
        }
        let known = self
            .known
            .as_ref()
            .and_then(|note| verified(note, log_keys));
        known.is_some_and(|known| {
            (&known.origin, known.size) == (&signed.origin, signed.size)
                && known.root != signed.root
        })
    }
}

fn verified(note: &SignedNote, keys: &[VerifierKey]) -> Option<Checkpoint> {
    note.verify(keys).ok()?;
    Checkpoint::parse(note.text()).ok()
}

/// The note with the verified signatures only: what anybody can hang on a note is not kept.
pub(super) fn trimmed(note: &SignedNote, verified: &Verified) -> SignedNote {
    let lines = note.signatures().iter().filter(|line| {
        verified
            .signatures()
            .iter()
            .any(|by| (by.key.name(), by.key.id()) == (line.name(), line.id()))
    });
    // Of a verified note at least one line is left, so this never fails; the whole note is no worse.
    SignedNote::new(note.text(), lines.cloned().collect()).unwrap_or_else(|_| note.clone())
}

/// Keeps a request, unless it is kept already or there is no room. Returns whether it was added.
pub(super) fn keep(
    conn: &Connection,
    kind: EvidenceKind,
    request: &AddCheckpoint,
    known: Option<&Recorded>,
    now_unix: i64,
) -> Result<bool, RowError> {
    let origin = request.origin();
    let hash = Hash::of(request.checkpoint.text().as_bytes()).to_string();
    let is_kept: bool = conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM fork_evidence WHERE origin = ?1 AND kind = ?2 AND text_hash = ?3)",
        )?
        .query_row(params![origin, kind.name(), hash], |row| row.get(0))?;
    if is_kept {
        return Ok(false);
    }
    let request_text = request.to_string();
    let known_text = match known {
        Some(recorded) => Some(recorded.whole()?.to_string()),
        None => None,
    };
    let bytes = request_text.len() + known_text.as_ref().map_or(0, String::len);
    let (rows, stored): (i64, i64) = conn.query_row(
        "SELECT count(*), coalesce(sum(octet_length(request) + coalesce(octet_length(known), 0)), 0)
           FROM fork_evidence WHERE origin = ?1 AND kind = ?2",
        params![origin, kind.name()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let count = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    if count(rows) >= EVIDENCE_MAX || count(stored).saturating_add(bytes) > EVIDENCE_BYTES_MAX {
        tracing::warn!(
            origin,
            kind = kind.name(),
            "no room for more evidence of this log, it was not kept"
        );
        return Ok(false);
    }
    conn.execute(
        "INSERT INTO fork_evidence (origin, kind, text_hash, seen_unix, request, known)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            origin,
            kind.name(),
            hash,
            now_unix,
            request_text,
            known_text
        ],
    )?;
    Ok(true)
}

/// What is kept of a log, oldest first.
pub(super) fn list(conn: &Connection, origin: &str) -> Result<Vec<Evidence>, RowError> {
    let mut statement = conn.prepare(
        "SELECT kind, seen_unix, request, known FROM fork_evidence WHERE origin = ?1 ORDER BY id",
    )?;
    let rows: Vec<(String, i64, String, Option<String>)> = statement
        .query_map([origin], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let wrong = |error: &dyn std::fmt::Display| {
        RowError::Stored(format!("evidence about {origin}: {error}"))
    };
    rows.into_iter()
        .map(|(kind, seen, request, known)| {
            Ok(Evidence {
                kind: match kind.as_str() {
                    "other_root" => EvidenceKind::OtherRoot,
                    _ => EvidenceKind::BadProof,
                },
                seen_unix: u64::try_from(seen).unwrap_or(0),
                request: AddCheckpoint::parse(request.as_bytes()).map_err(|error| wrong(&error))?,
                known: known
                    .map(|note| SignedNote::parse(note.as_bytes()))
                    .transpose()
                    .map_err(|error| wrong(&error))?,
            })
        })
        .collect()
}
