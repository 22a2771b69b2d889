//! What the writer does besides appending: change the key, stop and resume signing, drop payloads, keep the
//! cosignatures of witnesses. Each is one transaction, and each but the last is recorded by an entry in it.

use std::sync::Arc;

use rusqlite::params;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::draft::Draft;
use super::{Failure, Writer, guards, storage_failure};
use crate::check::{to_i64, to_u64};
use crate::dropped::{DROP_ENTRIES_MAX, DroppedPayload, Record};
use crate::ledger::{Dropped, State, lock};
use crate::tlog::{SignatureLine, Signer};
use crate::{DropSelection, Entry, Hash, LedgerError, format_timestamp, keys, own, signed};

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// One such request.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) work: Work,
    /// The place in the queue, given back when the request is done.
    pub(crate) _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Work {
    Rotate(Arc<Signer>, Reply<Entry>),
    Stop(String, Reply<Entry>),
    Resume(String, Reply<Entry>),
    Drop(DropSelection, String, Reply<Dropped>),
    Cosign(u64, Vec<SignatureLine>, Reply<usize>),
}

impl Writer {
    pub(super) fn control(&mut self, control: Control, state: &State) {
        match control.work {
            Work::Rotate(new, reply) => {
                self.run_control(state, reply, |draft| rotate(draft, &new));
            }
            Work::Stop(reason, reply) => {
                self.run_control(state, reply, |draft| stop(draft, &reason));
            }
            Work::Resume(reason, reply) => {
                self.run_control(state, reply, |draft| resume(draft, &reason));
            }
            Work::Drop(selection, reason, reply) => {
                let dropped = self.run_control(state, reply, |draft| {
                    drop_payloads(draft, &selection, reason)
                });
                if dropped && let Err(error) = self.scrub() {
                    self.poison(state, error);
                }
            }
            Work::Cosign(size, lines, reply) => {
                let now = format_timestamp((self.clock)());
                self.run_control(state, reply, |draft| cosign(draft, size, &lines, &now));
            }
        }
    }

    /// Returns whether it was done.
    fn run_control<T>(
        &mut self,
        state: &State,
        reply: Reply<T>,
        work: impl FnOnce(&mut Draft<'_>) -> Result<T, Failure>,
    ) -> bool {
        if let Some(cause) = lock(&state.poison).clone() {
            let _ = reply.send(Err(LedgerError::Poisoned { cause }));
            return false;
        }
        let result = match self.transact_guarded(work) {
            Ok(done) => {
                self.publish(state);
                Ok(done)
            }
            Err(Failure::Refused(_, error) | Failure::Busy(error)) => Err(error),
            Err(Failure::Fatal(error)) => {
                self.poison(state, error.clone());
                Err(error)
            }
        };
        let done = result.is_ok();
        // Nobody waits any more: it is done all the same.
        let _ = reply.send(result);
        done
    }

    /// As [`Writer::transact`], under the triggers and checks of the file.
    pub(super) fn transact_guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Draft<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        guards::switch(&self.conn, true).map_err(|error| storage_failure(&self.path, &error))?;
        let result = self.transact(0, work);
        // With them on the writer is slower, and no less right.
        if let Err(error) = guards::switch(&self.conn, false) {
            tracing::warn!(path = %self.path.display(), %error, "the ledger goes on with triggers and checks");
        }
        result
    }

    /// Copies the pages without the dropped payloads over those with them, and starts the write-ahead log anew.
    fn scrub(&self) -> Result<(), LedgerError> {
        let (busy, pages) = self.copy_wal("PRAGMA wal_checkpoint(TRUNCATE)")?;
        if busy {
            tracing::warn!(
                pages,
                "a reader keeps dropped payloads in the ledger's write-ahead log"
            );
        }
        Ok(())
    }
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Failure {
    Failure::Refused(0, LedgerError::invalid(field, problem))
}

fn rotate(draft: &mut Draft<'_>, new: &Arc<Signer>) -> Result<Entry, Failure> {
    let Some(old) = draft.signing.signer.clone() else {
        return Err(invalid(
            "key",
            "cannot follow one that is not here; open the ledger with the key it has now",
        ));
    };
    if draft.signing.own.stopped {
        return Err(invalid(
            "key",
            "cannot be changed while signing is stopped; find out why, then resume it",
        ));
    }
    if new.name() != old.name() {
        let problem = format!(
            "is named {}, the log is {}; make one of that name",
            new.name(),
            old.name()
        );
        return Err(invalid("key", problem));
    }
    if new.verifier() == old.verifier() {
        return Err(invalid(
            "key",
            "is the one that signs already; make a new one",
        ));
    }
    let payload = keys::rotation(&old, new, draft.head.sequence + 1, draft.head.hash)
        .map_err(|error| invalid("key", error.to_string()))?;
    let entry = draft.append_own(own::ROTATE_KEY, &payload, "success")?;
    // As whoever reads the log will see it.
    let keys = &mut draft.signing.own.keys;
    keys.accept(&entry)
        .map_err(|kind| invalid("key", kind.to_string()))?;
    draft.signing.signer = Some(Arc::clone(new));
    Ok(entry)
}

fn stop(draft: &mut Draft<'_>, reason: &str) -> Result<Entry, Failure> {
    draft.signing.own.stopped = true;
    draft.append_own(own::STOP_SIGNING, &own::Reason { reason }, own::STOPPED)
}

fn resume(draft: &mut Draft<'_>, reason: &str) -> Result<Entry, Failure> {
    if draft.signing.signer.is_none() {
        return Err(invalid(
            "key",
            "is not here; open the ledger with it to resume signing",
        ));
    }
    draft.signing.own.stopped = false;
    draft.append_own(own::RESUME_SIGNING, &own::Reason { reason }, "success")
}

/// The record first, then the payloads: the table lets them go only while their record is the newest entry.
fn drop_payloads(
    draft: &mut Draft<'_>,
    selection: &DropSelection,
    reason: String,
) -> Result<Dropped, Failure> {
    let path = draft.path;
    let fail = |error: rusqlite::Error| storage_failure(path, &error);
    draft.record_missing_key()?;
    let last_sequence = selection.last_sequence.min(draft.head.sequence);
    let found = candidates(draft.conn, selection, last_sequence).map_err(fail)?;
    let whole = u32::try_from(found.len()).is_ok_and(|found| found < DROP_ENTRIES_MAX);
    let Some((newest, _)) = found.last() else {
        return Ok(Dropped {
            entry: None,
            entries: 0,
            bytes: 0,
            finished: true,
        });
    };
    let record = Record {
        first_sequence: selection.first_sequence,
        last_sequence: if whole { last_sequence } else { *newest },
        before: selection.before.clone(),
        bytes_min: selection.bytes_min,
        except_subsystem: selection.except_subsystem.clone(),
        entries: found.len() as u64,
        bytes: found.iter().map(|(_, bytes)| bytes).sum(),
        reason,
    };
    let entry = draft.append_own(own::DROP_PAYLOADS, &record, "success")?;
    replace(draft.conn, &found).map_err(fail)?;
    let (entries, bytes) = (record.entries, record.bytes);
    Ok(Dropped {
        entry: Some(entry),
        entries,
        bytes,
        finished: whole,
    })
}

/// Sequence and size of the payloads to drop, in order.
fn candidates(
    conn: &rusqlite::Connection,
    selection: &DropSelection,
    last: u64,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    let mut select = conn.prepare_cached(
        "SELECT sequence, octet_length(payload) FROM immutable_log NOT INDEXED
          WHERE sequence BETWEEN ?1 AND ?2 AND (?3 IS NULL OR timestamp < ?3) AND octet_length(payload) >= ?4
            AND substr(payload, 1, 39) <> '{\"evenkeel_dropped_payload\":{\"sha256\":\"'
            AND action NOT IN ('trust_ledger_key', 'rotate_ledger_key', 'drop_payloads', 'stop_ledger_signing',
              'resume_ledger_signing')
            AND (?6 IS NULL OR subsystem <> ?6)
          ORDER BY sequence LIMIT ?5",
    )?;
    let values = params![
        to_i64(selection.first_sequence),
        to_i64(last),
        selection.before,
        to_i64(selection.bytes_min),
        DROP_ENTRIES_MAX,
        selection.except_subsystem,
    ];
    let rows = select.query_map(values, |row| Ok((to_u64(row.get(0)?), to_u64(row.get(1)?))))?;
    rows.collect()
}

fn replace(conn: &rusqlite::Connection, found: &[(u64, u64)]) -> rusqlite::Result<()> {
    let mut select =
        conn.prepare_cached("SELECT payload FROM immutable_log WHERE sequence = ?1")?;
    let mut update =
        conn.prepare_cached("UPDATE immutable_log SET payload = ?2 WHERE sequence = ?1")?;
    for (sequence, bytes) in found {
        let sequence = to_i64(*sequence);
        let sha256 = select.query_row([sequence], |row| {
            Ok(Hash::of(row.get_ref(0)?.as_str()?.as_bytes()))
        })?;
        let dropped = DroppedPayload {
            sha256,
            bytes: *bytes,
        };
        update.execute(params![sequence, dropped.text()])?;
    }
    Ok(())
}

fn cosign(
    draft: &mut Draft<'_>,
    tree_size: u64,
    lines: &[SignatureLine],
    now: &str,
) -> Result<usize, Failure> {
    let path = draft.path;
    let fail = |error: rusqlite::Error| storage_failure(path, &error);
    if signed::at(draft.conn, tree_size).map_err(fail)?.is_none() {
        return Err(invalid(
            "tree_size",
            format!("is {tree_size}, and this ledger has no checkpoint of it"),
        ));
    }
    let have = signed::cosignatures(draft.conn, tree_size).map_err(fail)?;
    let mut new: Vec<(&str, String)> = Vec::new();
    for line in lines {
        let text = line.to_string();
        if !have.contains(&text) && !new.iter().any(|(_, other)| *other == text) {
            new.push((line.name(), text));
        }
    }
    if have.len() + new.len() > signed::COSIGNATURES_MAX {
        let problem = format!(
            "are more than {}, with those that are there",
            signed::COSIGNATURES_MAX
        );
        return Err(invalid("cosignatures", problem));
    }
    let sql =
        "INSERT INTO ledger_cosignature (tree_size, name, line, received) VALUES (?1, ?2, ?3, ?4)";
    let mut insert = draft.conn.prepare_cached(sql).map_err(fail)?;
    for (name, line) in &new {
        insert
            .execute(params![to_i64(tree_size), name, line, now])
            .map_err(fail)?;
    }
    Ok(new.len())
}
