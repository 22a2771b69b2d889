//! Entries that the ledger writes about itself: keys, the end of signing, dropped payloads. They are entries like any
//! other, hashed and signed with the rest; only the ledger may write them.

use rusqlite::types::Value;
use serde::Serialize;

use crate::entry::check_timestamp;
use crate::{Entry, LedgerError, NewEntry, format_timestamp};

/// `action` of the entry that names the log and the first key that signs it.
pub const TRUST_KEY: &str = "trust_ledger_key";
/// `action` of the entry after which another key signs the log.
pub const ROTATE_KEY: &str = "rotate_ledger_key";
/// `action` of the entry that says which payloads are dropped, and why.
pub const DROP_PAYLOADS: &str = "drop_payloads";
/// `action` of the first entry of a stretch that is not signed, and says why.
pub const STOP_SIGNING: &str = "stop_ledger_signing";
/// `action` of the entry with which signing begins again.
pub const RESUME_SIGNING: &str = "resume_ledger_signing";

/// All of them. No caller may append one, and their payloads are never dropped.
pub const ACTIONS: [&str; 5] = [
    TRUST_KEY,
    ROTATE_KEY,
    DROP_PAYLOADS,
    STOP_SIGNING,
    RESUME_SIGNING,
];

/// Who writes them.
pub(crate) const ACTOR: &str = "ledger";

/// `result` of a stop that lasts until the key is there again.
pub(crate) const WITHOUT_KEY: &str = "without_key";
/// `result` of a stop that lasts until somebody resumes signing.
pub(crate) const STOPPED: &str = "stopped";

/// Why signing stopped or began again.
#[derive(Debug, Serialize)]
pub(crate) struct Reason<'a> {
    pub(crate) reason: &'a str,
}

/// An entry of the ledger about itself.
pub(crate) fn entry(
    action: &str,
    payload: &impl Serialize,
    result: &str,
    now: jiff::Timestamp,
) -> Result<NewEntry, LedgerError> {
    let payload = serde_json::to_string(payload)
        .map_err(|error| LedgerError::invalid("payload", error.to_string()))?;
    let timestamp = format_timestamp(now);
    check_timestamp("timestamp", &timestamp)?;
    Ok(NewEntry {
        timestamp,
        actor: ACTOR.to_owned(),
        action: action.to_owned(),
        resource: "ledger".to_owned(),
        subsystem: "ledger".to_owned(),
        payload,
        result: result.to_owned(),
    })
}

/// Whether an action is the ledger's own, as bytes of a column.
pub(crate) fn is_own(action: &[u8]) -> bool {
    ACTIONS.iter().any(|own| own.as_bytes() == action)
}

/// The ledger's own entries in order, up to a sequence, by the index on `action`.
pub(crate) fn entries(conn: &rusqlite::Connection, last: u64) -> rusqlite::Result<Vec<Entry>> {
    // The plus keeps SQLite from walking along the whole table, which is in the order wanted.
    let sql = format!(
        "SELECT {} FROM immutable_log WHERE action IN (?1, ?2, ?3, ?4, ?5) AND +sequence <= ?6 ORDER BY +sequence",
        crate::check::COLUMNS
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let values = ACTIONS.map(str::to_owned).map(Value::Text).into_iter();
    let values = values.chain([Value::Integer(crate::check::to_i64(last))]);
    let rows = statement.query_map(rusqlite::params_from_iter(values), crate::check::to_entry)?;
    rows.collect()
}
