//! Series from SQL: a question that a SQLite database answers with a number, or with up to fifty labelled numbers.
//!
//! The database is somebody else's: it is opened for reading, nothing but a `SELECT` of what is in it is let through,
//! a lock is waited for half a second, a statement may take two seconds, and closing leaves its write-ahead log alone.
//! Series: `sql/NAME`, or `sql/NAME/LABEL`; gauges. Only SQLite is asked; PostgreSQL is not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::Timestamp;
use rusqlite::ErrorCode;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use serde::Deserialize;

use super::collected::{Collected, Collecting};
use super::reading::ReadingKind;
use crate::process::procinfo::truncate;
use crate::snapshot::sqlite::open_foreign;

/// Most questions to databases that a configuration may have.
pub const SQL_SERIES_MAX: usize = 64;
/// Most rows that a query for series may give.
pub const SQL_ROWS_MAX: usize = 50;
/// Longest query for series, in bytes.
pub const QUERY_LEN_MAX: usize = 4096;
/// Longest name of a series from SQL, and longest label, in bytes.
pub const SQL_NAME_LEN_MAX: usize = 64;
/// How long a query for series waits for a lock.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// How long a query may take after that.
const QUERY_TIME_MAX: Duration = Duration::from_secs(2);
/// Instructions of SQLite's machine between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 2_000;
/// Largest text or row that a query may handle, in bytes.
const VALUE_LEN_MAX: i32 = 16 * 1024 * 1024;
/// Longest reason that is told of a query that failed, in bytes.
const REASON_LEN_MAX: usize = 300;

const ONLY_SELECT: &str = "only a SELECT of what is in the database may be asked";

/// One question, asked again and again: `[[watchdog.sql]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlQuery {
    /// Names the series: 1 to 64 of a-z, 0-9, `_` and `-`.
    pub name: String,
    /// The SQLite file.
    pub database: PathBuf,
    /// One `SELECT` that gives one row with one number, or up to 50 rows of a label and a number.
    pub query: String,
    /// Time from one look to the next, in seconds: 1 to 86 400.
    #[serde(default = "minute")]
    pub every_s: u64,
    /// The service that the figures tell of.
    #[serde(default)]
    pub service: Option<String>,
}

fn minute() -> u64 {
    60
}

impl SqlQuery {
    /// The key that is wrong and why, if one is.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let may_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !(1..=SQL_NAME_LEN_MAX).contains(&self.name.len()) || !self.name.chars().all(may_name) {
            let what = "cannot name a series: use 1 to 64 of a-z, 0-9, _ and -";
            return Err(("name", format!("`{}` {what}", self.name)));
        }
        if self.query.trim().is_empty() || self.query.len() > QUERY_LEN_MAX {
            let what = format!("give one SELECT of at most {QUERY_LEN_MAX} bytes");
            return Err(("query", what));
        }
        if !(1..=86_400).contains(&self.every_s) {
            return Err((
                "every_s",
                format!("{} is not from 1 to 86400", self.every_s),
            ));
        }
        Ok(())
    }
}

/// Asks the questions that are due.
#[derive(Debug)]
pub struct SqlCollector {
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    query: SqlQuery,
    service: Option<Arc<str>>,
    last: Option<Timestamp>,
    /// Labels of the last answer.
    labels: BTreeSet<String>,
}

impl SqlCollector {
    /// Asks these, with the paths of their databases resolved; of more than [`SQL_SERIES_MAX`] the first.
    pub fn new(queries: impl IntoIterator<Item = SqlQuery>) -> Self {
        let asked = queries.into_iter().take(SQL_SERIES_MAX).map(|query| Asked {
            service: query.service.as_deref().map(Arc::from),
            query,
            last: None,
            labels: BTreeSet::new(),
        });
        Self {
            asked: asked.collect(),
        }
    }

    /// The answers to what is due at `at`; nothing for what is not. Blocks, at most for two and a half seconds for
    /// each question.
    pub fn collect(&mut self, at: Timestamp) -> Collected {
        let mut all = Collected::default();
        for asked in &mut self.asked {
            let every_ms = i64::try_from(asked.query.every_s.saturating_mul(1000));
            let every_ms = every_ms.unwrap_or(i64::MAX);
            let is_due = asked
                .last
                .is_none_or(|last| !(0..every_ms).contains(&at.millis_since(last)));
            if is_due {
                asked.last = Some(at);
                all.extend(asked.ask(at));
            }
        }
        all
    }
}

/// What a query gave.
#[derive(Debug, PartialEq)]
enum Answer {
    One(f64),
    Labelled(Vec<(String, Result<f64, String>)>),
}

impl Asked {
    fn ask(&mut self, at: Timestamp) -> Collected {
        let mut out = Collecting::new("sql".to_owned(), self.service.clone(), at);
        let name = &self.query.name;
        let mut now = BTreeSet::new();
        match answer(&self.query) {
            Ok(Answer::One(value)) => out.put(name, ReadingKind::Gauge, value),
            Ok(Answer::Labelled(rows)) => {
                for (label, value) in rows {
                    out.figure(&format!("{name}/{label}"), ReadingKind::Gauge, value);
                    now.insert(label);
                }
                for label in self.labels.difference(&now) {
                    let reason = "the query gives no such label any more";
                    out.missing(&format!("{name}/{label}"), reason);
                }
            }
            Err(reason) if self.labels.is_empty() => out.missing(name, reason),
            Err(reason) => {
                out.missing(&format!("{name}/*"), reason);
                return out.collected; // it is asked for the same labels again
            }
        }
        self.labels = now;
        out.collected
    }
}

fn answer(asked: &SqlQuery) -> Result<Answer, String> {
    if !asked.database.is_file() {
        return Err(format!("there is no database {}", asked.database.display()));
    }
    rows(asked).unwrap_or_else(|e| {
        let reason = match e.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                format!("the query took longer than {} s", QUERY_TIME_MAX.as_secs())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "the database is locked".to_owned()
            }
            Some(ErrorCode::AuthorizationForStatementDenied) => ONLY_SELECT.to_owned(),
            _ if matches!(e, rusqlite::Error::MultipleStatement) => {
                "more than one statement may not be asked".to_owned()
            }
            _ => e.to_string(),
        };
        let mut reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        truncate(&mut reason, REASON_LEN_MAX);
        Err(reason)
    })
}

/// The outer error is SQLite's, the inner one that of the answer's form.
fn rows(asked: &SqlQuery) -> rusqlite::Result<Result<Answer, String>> {
    let mut conn = open_foreign(&asked.database, false)?;
    conn.busy_timeout(LOCK_WAIT)?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_LEN_MAX)?;
    conn.authorizer(Some(may))?;
    let deadline = Instant::now() + LOCK_WAIT + QUERY_TIME_MAX;
    let is_late = move || Instant::now() >= deadline;
    conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(is_late))?;
    let mut statement = conn.prepare(&asked.query)?;
    let columns = statement.column_count();
    if columns == 0 {
        return Ok(Err(ONLY_SELECT.to_owned())); // VACUUM, which the authorizer is not asked about
    }
    if columns > 2 {
        return Ok(Err(format!(
            "the query gives {columns} columns, not one or two"
        )));
    }
    let mut rows = statement.query([])?;
    let mut found: Vec<(String, Result<f64, String>)> = Vec::new();
    while let Some(row) = rows.next()? {
        if columns == 1 {
            let value = number(row.get_ref(0)?);
            return Ok(match rows.next()? {
                Some(_) => Err("the query gives more than one row of one number".to_owned()),
                None => value.map(Answer::One),
            });
        }
        if found.len() == SQL_ROWS_MAX {
            return Ok(Err(format!(
                "the query gives more than {SQL_ROWS_MAX} rows"
            )));
        }
        let label = match label(row.get_ref(0)?) {
            Ok(label) => label,
            Err(reason) => return Ok(Err(reason)),
        };
        if found.iter().any(|(other, _)| *other == label) {
            return Ok(Err(format!("the query gives the label `{label}` twice")));
        }
        found.push((label, number(row.get_ref(1)?)));
    }
    Ok(if columns == 1 {
        Err("the query gives no row".to_owned())
    } else {
        Ok(Answer::Labelled(found))
    })
}

/// Reading what is in the database, and nothing else: no other file, no pragma, no change.
fn may(asked: AuthContext<'_>) -> Authorization {
    match asked.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name } if function_name != "load_extension" => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn number(value: ValueRef<'_>) -> Result<f64, String> {
    match value {
        ValueRef::Integer(n) => Ok(n as f64),
        ValueRef::Real(n) => Ok(n),
        ValueRef::Null => Err("the query gives NULL".to_owned()),
        ValueRef::Text(_) | ValueRef::Blob(_) => {
            Err("the query gives something else than a number".to_owned())
        }
    }
}

fn label(value: ValueRef<'_>) -> Result<String, String> {
    let text = match value {
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => {
            return Err(
                "the query gives a label that is neither a text nor a whole number".to_owned(),
            );
        }
    };
    if text.is_empty() || text.len() > SQL_NAME_LEN_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "the query gives a label that is empty, longer than {SQL_NAME_LEN_MAX} bytes or not printable"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
