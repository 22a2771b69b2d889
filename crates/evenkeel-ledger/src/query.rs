//! What to read: filters, order and limit, and the SQL they become. Values are always bound, never spliced in.

use rusqlite::types::Value;

use crate::check::{COLUMNS, to_i64};
use crate::{LedgerError, entry};

/// Most entries that one query returns.
pub const QUERY_LIMIT_MAX: u32 = 10_000;

/// In which direction along the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// From the first entry on.
    #[default]
    OldestFirst,
    /// From the newest entry back.
    NewestFirst,
}

/// Filters over the log; all of them have to hold. The default is everything, oldest first, up to
/// [`QUERY_LIMIT_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    equal: Vec<(&'static str, String)>,
    payload: Vec<(String, String)>,
    since: Option<String>,
    until: Option<String>,
    after: Option<u64>,
    before: Option<u64>,
    order: Order,
    limit: u32,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            equal: Vec::new(),
            payload: Vec::new(),
            since: None,
            until: None,
            after: None,
            before: None,
            order: Order::OldestFirst,
            limit: QUERY_LIMIT_MAX,
        }
    }
}

impl Query {
    /// Everything, oldest first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only entries with this `action`.
    #[must_use]
    pub fn action(self, action: impl Into<String>) -> Self {
        self.equal("action", action)
    }

    /// Only entries of this `subsystem`.
    #[must_use]
    pub fn subsystem(self, subsystem: impl Into<String>) -> Self {
        self.equal("subsystem", subsystem)
    }

    /// Only entries with this `result`.
    #[must_use]
    pub fn result(self, result: impl Into<String>) -> Self {
        self.equal("result", result)
    }

    /// Only entries of this `actor`.
    #[must_use]
    pub fn actor(self, actor: impl Into<String>) -> Self {
        self.equal("actor", actor)
    }

    /// Only entries about this `resource`.
    #[must_use]
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.equal("resource", resource)
    }

    /// Only entries whose timestamp is this one or later, spelled as in the log.
    #[must_use]
    pub fn since(self, timestamp: impl Into<String>) -> Self {
        Self {
            since: Some(timestamp.into()),
            ..self
        }
    }

    /// Only entries whose timestamp is earlier than this one, spelled as in the log.
    #[must_use]
    pub fn until(self, timestamp: impl Into<String>) -> Self {
        Self {
            until: Some(timestamp.into()),
            ..self
        }
    }

    /// Only entries after this sequence.
    #[must_use]
    pub fn after(self, sequence: u64) -> Self {
        Self {
            after: Some(sequence),
            ..self
        }
    }

    /// Only entries before this sequence.
    #[must_use]
    pub fn before(self, sequence: u64) -> Self {
        Self {
            before: Some(sequence),
            ..self
        }
    }

    /// Only entries whose payload is an object that has this string at its top-level key. A key is made of
    /// letters, digits, `_` and `-`. `workflow_id` is indexed, other keys are searched.
    #[must_use]
    pub fn payload(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.payload.push((key.into(), value.into()));
        self
    }

    /// Newest entries first.
    #[must_use]
    pub fn newest_first(self) -> Self {
        self.order(Order::NewestFirst)
    }

    /// In this order.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// At most this many entries, never more than [`QUERY_LIMIT_MAX`].
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self {
            limit: limit.min(QUERY_LIMIT_MAX),
            ..self
        }
    }

    fn equal(mut self, column: &'static str, value: impl Into<String>) -> Self {
        self.equal.push((column, value.into()));
        self
    }

    pub(crate) fn after_sequence(&self) -> u64 {
        self.after.unwrap_or(0)
    }

    /// The statement for the entries.
    pub(crate) fn select(&self) -> Result<Sql, LedgerError> {
        self.select_limited(i64::from(self.limit))
    }

    /// The statement for one chunk of a scan from the oldest entry on.
    pub(crate) fn select_chunk(
        &self,
        after: u64,
        last: u64,
        limit: i64,
    ) -> Result<Sql, LedgerError> {
        let mut chunk = Self {
            order: Order::OldestFirst,
            after: Some(after),
            ..self.clone()
        };
        let end = last.saturating_add(1);
        chunk.before = Some(self.before.map_or(end, |before| before.min(end)));
        chunk.select_limited(limit)
    }

    /// The statement for their number.
    pub(crate) fn count(&self) -> Result<Sql, LedgerError> {
        let mut sql = Sql {
            text: "SELECT count(*) FROM immutable_log".to_owned(),
            values: Vec::new(),
        };
        self.filter(&mut sql)?;
        Ok(sql)
    }

    fn select_limited(&self, limit: i64) -> Result<Sql, LedgerError> {
        let mut sql = Sql {
            text: format!("SELECT {COLUMNS} FROM immutable_log"),
            values: Vec::new(),
        };
        self.filter(&mut sql)?;
        sql.text.push_str(match self.order {
            Order::OldestFirst => " ORDER BY sequence LIMIT ",
            Order::NewestFirst => " ORDER BY sequence DESC LIMIT ",
        });
        sql.bind(Value::Integer(limit));
        Ok(sql)
    }

    fn filter(&self, sql: &mut Sql) -> Result<(), LedgerError> {
        for (column, value) in &self.equal {
            sql.and(&format!("{column} = "), Value::Text(value.clone()));
        }
        for (key, value) in &self.payload {
            // The text of the path has to stand in the statement for the index on workflow_id to serve.
            let path = payload_path(key)?;
            sql.and(
                &format!("json_extract(payload, '{path}') = "),
                Value::Text(value.clone()),
            );
        }
        if let Some(since) = &self.since {
            entry::check_timestamp("since", since)?;
            sql.and("timestamp >= ", Value::Text(since.clone()));
        }
        if let Some(until) = &self.until {
            entry::check_timestamp("until", until)?;
            sql.and("timestamp < ", Value::Text(until.clone()));
        }
        if let Some(after) = self.after {
            sql.and("sequence > ", Value::Integer(to_i64(after)));
        }
        if let Some(before) = self.before {
            sql.and("sequence < ", Value::Integer(to_i64(before)));
        }
        Ok(())
    }
}

/// A statement and what is bound to it.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
}

impl Sql {
    fn and(&mut self, condition: &str, value: Value) {
        self.text.push_str(if self.values.is_empty() {
            " WHERE "
        } else {
            " AND "
        });
        self.text.push_str(condition);
        self.bind(value);
    }

    fn bind(&mut self, value: Value) {
        self.values.push(value);
        self.text.push('?');
        self.text.push_str(&self.values.len().to_string());
    }
}

fn payload_path(key: &str) -> Result<String, LedgerError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.is_empty() || key.len() > 64 || !key.bytes().all(plain) {
        let problem = "is not 1 to 64 ASCII letters, digits, '_' or '-'";
        return Err(LedgerError::invalid("payload key", problem));
    }
    Ok(if key.contains('-') {
        format!("$.\"{key}\"")
    } else {
        format!("$.{key}")
    })
}
