//! The two counts that the watchdog's monitors need: errors over entries, failed over all playbook runs. Counts
//! only; thresholds and minimum numbers are the detector's.

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::check::to_u64;
use crate::{LedgerError, Reader, entry, schema};

/// The values of `result` that count as an error, in any case of letters.
///
/// `denied`, `rejected`, `skipped` or `blocked` are decisions that worked as they should, and are no errors.
pub const ERROR_RESULTS: [&str; 4] = ["error", "failed", "failure", "timeout"];

/// k of n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that failed.
    pub failed: u64,
    /// All of them.
    pub total: u64,
}

/// Whose entries do not count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exclude<'a> {
    /// Actors, compared exactly: Evenkeel's own.
    pub actors: &'a [&'a str],
    /// Subsystems, compared exactly.
    pub subsystems: &'a [&'a str],
}

impl Reader {
    /// Entries since a time that have one of [`ERROR_RESULTS`], and all entries since then, leaving out those
    /// of the excluded actors and subsystems. `since` is inclusive and spelled as in the log.
    pub fn error_share(&self, since: &str, exclude: Exclude<'_>) -> Result<Counts, LedgerError> {
        entry::check_timestamp("since", since)?;
        let values = vec![Value::Text(since.to_owned())];
        let sql = format!("{} WHERE timestamp >= ?1", select());
        self.counts_without(sql, values, exclude)
    }

    /// As [`Reader::error_share`], by place instead of time: the entries after sequence `after`, up to and with `until`.
    /// Read so in parts each entry is counted exactly once, however late it was committed after its timestamp.
    pub fn error_share_between(
        &self,
        after: u64,
        until: u64,
        exclude: Exclude<'_>,
    ) -> Result<Counts, LedgerError> {
        let place = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let values = vec![place(after), place(until)];
        let sql = format!("{} WHERE sequence > ?1 AND sequence <= ?2", select());
        self.counts_without(sql, values, exclude)
    }

    fn counts_without(
        &self,
        mut sql: String,
        mut values: Vec<Value>,
        exclude: Exclude<'_>,
    ) -> Result<Counts, LedgerError> {
        for (column, names) in [("actor", exclude.actors), ("subsystem", exclude.subsystems)] {
            for name in names {
                values.push(Value::Text((*name).to_owned()));
                sql = format!("{sql} AND {column} <> ?{}", values.len());
            }
        }
        self.counts(&sql, &values)
    }

    /// Playbook runs that were completed since a time: those with one of [`ERROR_RESULTS`], and all.
    pub fn playbook_run_counts(&self, since: &str, except: &str) -> Result<Counts, LedgerError> {
        // The plus keeps SQLite from walking through all runs there ever were: the window is the small set.
        let sql = format!(
            "{} WHERE timestamp >= ?1 AND +action = ?2 AND +resource <> ?3",
            select()
        );
        entry::check_timestamp("since", since)?;
        let values = [since, schema::PLAYBOOK_RUN, except].map(|text| Value::Text(text.to_owned()));
        self.counts(&sql, &values)
    }

    fn counts(&self, sql: &str, values: &[Value]) -> Result<Counts, LedgerError> {
        self.statement(sql, |statement| {
            statement.query_row(params_from_iter(values), |row| {
                Ok(Counts {
                    failed: to_u64(row.get(0)?),
                    total: to_u64(row.get(1)?),
                })
            })
        })
    }
}

fn select() -> String {
    let errors = ERROR_RESULTS.map(|result| format!("'{result}'")).join(", ");
    format!(
        "SELECT count(*) FILTER (WHERE lower(result) IN ({errors})), count(*) FROM immutable_log"
    )
}
