//! What a witness's rows hold, read back with all checks that need no key of its own. To be called inside a
//! transaction.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::RowError;
use super::{KEYS_PER_LOG_MAX, KnownLog, LOGS_MAX, Latest, StoreError};
use crate::tlog::{Checkpoint, Known, SignatureLine, SignedNote, VerifierKey};

/// The row of a log's latest checkpoint.
pub(super) struct Recorded {
    pub(super) checkpoint: Checkpoint,
    /// The note with the log's signatures.
    pub(super) note: SignedNote,
    /// The witness's own line on it.
    pub(super) cosignature: SignatureLine,
    /// The time that the line states.
    pub(super) cosigned_unix: u64,
}

impl Recorded {
    pub(super) fn known(&self) -> Known {
        let (size, root) = (self.checkpoint.size, self.checkpoint.root);
        Known { size, root }
    }

    /// The note with both signatures.
    pub(super) fn whole(&self) -> Result<SignedNote, RowError> {
        let mut note = self.note.clone();
        note.add(self.cosignature.clone())
            .map_err(|error| stored(&self.checkpoint.origin, &error))?;
        Ok(note)
    }

    pub(super) fn latest(&self) -> Result<Latest, RowError> {
        Ok(Latest {
            note: self.whole()?,
            checkpoint: self.checkpoint.clone(),
            cosigned_unix: self.cosigned_unix,
        })
    }
}

fn stored(origin: &str, error: &dyn std::fmt::Display) -> RowError {
    RowError::Stored(format!("the latest checkpoint of {origin}: {error}"))
}

/// The keys of a log, in the order in which they were added; `None` where the log is not known.
pub(super) fn keys(conn: &Connection, origin: &str) -> Result<Option<Vec<VerifierKey>>, RowError> {
    let mut statement =
        conn.prepare_cached("SELECT vkey FROM logs WHERE origin = ?1 ORDER BY rowid")?;
    let texts: Vec<String> = statement
        .query_map([origin], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let keys = texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<VerifierKey>, _>>()
        .map_err(|error| RowError::key(origin, &error))?;
    Ok((!keys.is_empty()).then_some(keys))
}

/// The latest checkpoint of a log, if there is one. The columns must say what the note says.
pub(super) fn latest(conn: &Connection, origin: &str) -> Result<Option<Recorded>, RowError> {
    let row: Option<(String, String, String, String, i64)> = conn
        .prepare_cached(
            "SELECT size, root, note, cosignature, cosigned_unix FROM latest WHERE origin = ?1",
        )?
        .query_row([origin], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .optional()?;
    let Some((size, root, note, cosignature, cosigned_unix)) = row else {
        return Ok(None);
    };
    let note = SignedNote::parse(note.as_bytes()).map_err(|error| stored(origin, &error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| stored(origin, &error))?;
    let cosignature: SignatureLine = cosignature
        .parse()
        .map_err(|error| stored(origin, &error))?;
    let says = (checkpoint.size.to_string(), checkpoint.root.to_string());
    if checkpoint.origin != origin || says != (size, root) {
        return Err(stored(origin, &"its columns and its note differ"));
    }
    let cosigned_unix =
        u64::try_from(cosigned_unix).map_err(|_| stored(origin, &"its time is negative"))?;
    Ok(Some(Recorded {
        checkpoint,
        note,
        cosignature,
        cosigned_unix,
    }))
}

/// Puts a checkpoint in the place of the one before.
pub(super) fn record(conn: &Connection, recorded: &Recorded) -> Result<(), RowError> {
    let checkpoint = &recorded.checkpoint;
    conn.prepare_cached(
        "INSERT INTO latest (origin, size, root, note, cosignature, cosigned_unix)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note,
           cosignature = excluded.cosignature, cosigned_unix = excluded.cosigned_unix",
    )?
    .execute(params![
        checkpoint.origin,
        checkpoint.size.to_string(),
        checkpoint.root.to_string(),
        recorded.note.to_string(),
        recorded.cosignature.to_string(),
        i64::try_from(recorded.cosigned_unix).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

/// Adds a key of a log. Returns whether it is new.
pub(super) fn add_key(
    conn: &Connection,
    origin: &str,
    key: &VerifierKey,
    now_unix: i64,
) -> Result<bool, RowError> {
    let have = keys(conn, origin)?.unwrap_or_default();
    if have.contains(key) {
        return Ok(false);
    }
    if have.len() >= KEYS_PER_LOG_MAX {
        let (what, max) = ("keys of that log", KEYS_PER_LOG_MAX);
        return Err(RowError::Refused(StoreError::TooMany { what, max }));
    }
    if have.is_empty() {
        let logs: i64 = conn.query_row("SELECT count(DISTINCT origin) FROM logs", [], |row| {
            row.get(0)
        })?;
        if usize::try_from(logs).unwrap_or(usize::MAX) >= LOGS_MAX {
            let (what, max) = ("logs", LOGS_MAX);
            return Err(RowError::Refused(StoreError::TooMany { what, max }));
        }
    }
    conn.execute(
        "INSERT INTO logs (origin, vkey, added_unix) VALUES (?1, ?2, ?3)",
        params![origin, key.to_string(), now_unix],
    )?;
    Ok(true)
}

/// All logs that are known, by origin.
pub(super) fn logs(conn: &Connection) -> Result<Vec<KnownLog>, RowError> {
    let mut statement =
        conn.prepare("SELECT origin, min(added_unix) FROM logs GROUP BY origin ORDER BY origin")?;
    let rows: Vec<(String, i64)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut logs = Vec::with_capacity(rows.len());
    for (origin, added) in rows {
        let forks: i64 = conn.query_row(
            "SELECT count(*) FROM fork_evidence WHERE origin = ?1",
            [&origin],
            |row| row.get(0),
        )?;
        logs.push(KnownLog {
            keys: keys(conn, &origin)?.unwrap_or_default(),
            size: latest(conn, &origin)?.map(|recorded| recorded.checkpoint.size),
            added_unix: u64::try_from(added).unwrap_or(0),
            evidence: u64::try_from(forks).unwrap_or(0),
            origin,
        });
    }
    Ok(logs)
}

/// That each latest checkpoint is of a log that is known, signed by it, and cosigned by one of these keys.
pub(super) fn check(conn: &Connection, own_keys: &[VerifierKey]) -> Result<(), RowError> {
    let mut statement = conn.prepare("SELECT origin FROM latest ORDER BY origin")?;
    let origins: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for origin in origins {
        let Some(recorded) = latest(conn, &origin)? else {
            continue;
        };
        let log_keys =
            keys(conn, &origin)?.ok_or_else(|| stored(&origin, &"no key of that log is known"))?;
        recorded
            .note
            .verify(&log_keys)
            .map_err(|error| stored(&origin, &error))?;
        let text = recorded.note.text();
        let own = SignedNote::new(text, vec![recorded.cosignature.clone()])
            .and_then(|note| note.verify(own_keys))
            .map_err(|error| {
                let error = format!(
                    "its cosignature by {}: {error}",
                    recorded.cosignature.name()
                );
                stored(&origin, &error)
            })?;
        if own
            .signatures()
            .iter()
            .any(|by| by.time != Some(recorded.cosigned_unix))
        {
            return Err(stored(&origin, &"its time is not that of its cosignature"));
        }
    }
    Ok(())
}
