//! Reading the log: a connection that cannot write, on a live ledger or on a copy. Returns entries as stored and
//! does not check their hashes; that is what `verify` is for.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::check::{CHUNK_ENTRIES, to_entry, to_u64};
use crate::query::{QUERY_LIMIT_MAX, Query};
use crate::{Entry, Hash, Head, LedgerError, connect};

const READING: &str = "reading it";

/// A read-only view of a ledger. Blocking; each call sees everything that was acknowledged before it.
///
/// Works without the right to write. Where SQLite cannot make the files it needs beside a live database, and no
/// `-wal` lies there, the file is read as immutable: it then shows the entries of the time of opening.
#[derive(Debug)]
pub struct Reader {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
}

impl Reader {
    /// Opens a ledger for reading. The file has to exist and to be a ledger of a known format version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let path = path.as_ref().to_owned();
        Ok(Self {
            conn: connect::reader(&path)?,
            path,
        })
    }

    /// The entries that match, in the query's order.
    pub fn query(&self, query: &Query) -> Result<Vec<Entry>, LedgerError> {
        let sql = query.select()?;
        let mut entries = Vec::new();
        let _: ControlFlow<()> = self.rows(&sql, |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// The newest `n` entries, oldest of them first; at most [`QUERY_LIMIT_MAX`].
    pub fn tail(&self, n: u32) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = self.query(&Query::new().newest_first().limit(n.min(QUERY_LIMIT_MAX)))?;
        entries.reverse();
        Ok(entries)
    }

    /// The entry at one sequence.
    pub fn get(&self, sequence: u64) -> Result<Option<Entry>, LedgerError> {
        let Some(before) = sequence.checked_sub(1) else {
            return Ok(None);
        };
        let found = self.query(&Query::new().after(before).limit(1))?.pop();
        Ok(found.filter(|entry| entry.sequence == sequence))
    }

    /// The newest entry's sequence and hash; 0 and zeros for an empty log.
    pub fn head(&self) -> Result<Head, LedgerError> {
        let newest = self.query(&Query::new().newest_first().limit(1))?.pop();
        Ok(newest.map_or(
            Head {
                sequence: 0,
                hash: Hash::ZERO,
            },
            |entry| Head {
                sequence: entry.sequence,
                hash: entry.entry_hash,
            },
        ))
    }

    /// How many entries match; the query's limit and order do not count.
    pub fn count(&self, query: &Query) -> Result<u64, LedgerError> {
        let sql = query.count()?;
        let count = self.statement(&sql.text, |statement| {
            statement.query_row(params_from_iter(&sql.values), |row| row.get(0))
        })?;
        Ok(to_u64(count))
    }

    /// Gives each matching entry to `each`, in sequence order, until it breaks or the log's present end is
    /// reached. Memory stays that of one entry; the query's order and limit do not count. Returns what `each`
    /// broke with.
    pub fn for_each<B>(
        &self,
        query: &Query,
        mut each: impl FnMut(Entry) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, LedgerError> {
        let last = self.last_sequence()?;
        let mut after = query.after_sequence();
        // Ends: each chunk that is full moves `after` on, and `last` stands.
        loop {
            let mut read = 0;
            let sql = query.select_chunk(after, last, CHUNK_ENTRIES)?;
            let flow = self.rows(&sql, |entry| {
                read += 1;
                after = entry.sequence;
                each(entry)
            })?;
            if flow.is_break() || read < CHUNK_ENTRIES {
                return Ok(flow);
            }
        }
    }

    pub(crate) fn last_sequence(&self) -> Result<u64, LedgerError> {
        let last: Option<Option<i64>> = self
            .statement("SELECT max(sequence) FROM immutable_log", |statement| {
                statement.query_row([], |row| row.get(0)).optional()
            })?;
        Ok(last.flatten().map_or(0, to_u64))
    }

    fn rows<B>(
        &self,
        sql: &crate::query::Sql,
        mut each: impl FnMut(Entry) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, LedgerError> {
        self.statement(&sql.text, |statement| {
            let mut rows = statement.query(params_from_iter(&sql.values))?;
            while let Some(row) = rows.next()? {
                let flow = each(to_entry(row)?);
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    pub(crate) fn statement<T>(
        &self,
        sql: &str,
        run: impl FnOnce(&mut rusqlite::Statement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| run(&mut statement))
            .map_err(|error| LedgerError::sqlite(&self.path, READING, &error))
    }
}
