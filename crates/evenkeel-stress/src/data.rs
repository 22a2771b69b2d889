//! Rows of data for requests that differ: `${column}` in a path, a header value or a body.

use std::fmt;

use crate::target::PlanError;
use crate::text::bounded;

/// Most bytes of a file of rows.
pub const DATA_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most columns.
const COLUMNS_MAX: usize = 100;

/// Rows of a table. What is in them may be secret: it is sent, and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// Reads CSV (RFC 4180) with the columns' names in its first line; at least one row, at most [`DATA_BYTES_MAX`]
    /// bytes.
    pub fn from_csv(text: &str) -> Result<Self, PlanError> {
        if text.len() > DATA_BYTES_MAX {
            return Err(PlanError::BadData(format!(
                "it is larger than {} MiB",
                DATA_BYTES_MAX / 1024 / 1024
            )));
        }
        // The reader's own messages would show what is in the rows; the line is enough.
        let bad = |e: &csv::Error| {
            let line = e.position().map_or(1, csv::Position::line);
            PlanError::BadData(format!("line {line} is not as the first one"))
        };
        let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let columns: Vec<String> = reader
            .headers()
            .map_err(|e| bad(&e))?
            .iter()
            .map(|c| c.trim().to_owned())
            .collect();
        if columns.len() > COLUMNS_MAX {
            return Err(PlanError::BadData(format!(
                "it has more than {COLUMNS_MAX} columns"
            )));
        }
        for (i, column) in columns.iter().enumerate() {
            if column.is_empty() || columns[..i].contains(column) {
                return Err(PlanError::BadData(format!(
                    "its first line must name each column once; column {} is `{}`",
                    i + 1,
                    bounded(column, 40)
                )));
            }
        }
        let rows = reader
            .records()
            .map(|record| {
                record
                    .map(|r| r.iter().map(str::to_owned).collect())
                    .map_err(|e| bad(&e))
            })
            .collect::<Result<Vec<Vec<String>>, _>>()?;
        if rows.is_empty() {
            return Err(PlanError::BadData(
                "it has no row after the line with the columns' names".to_owned(),
            ));
        }
        Ok(Self { columns, rows })
    }

    /// The place of a column.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The row for the `n`th request; after the last comes the first again.
    pub(crate) fn row(&self, n: u64) -> &[String] {
        let place = n % self.rows.len() as u64;
        &self.rows[usize::try_from(place).unwrap_or(0)]
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {:?}", self.rows.len(), self.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_turn() {
        let rows = Rows::from_csv("id, name\n1,\"a,b\"\n2,c\n").unwrap();
        assert_eq!(rows.columns(), ["id", "name"]);
        assert_eq!(rows.row(0), ["1", "a,b"]);
        assert_eq!(rows.row(3), ["2", "c"]);
    }

    #[test]
    fn what_is_wrong_is_named_and_what_is_in_rows_is_not() {
        for (bad, word) in [
            ("id\n", "no row"),
            ("", "no row"),
            ("a,a\n1,2\n", "once"),
            ("a,\n1,2\n", "once"),
            ("id,secret\n1,hunter22,3\n", "line 2"),
        ] {
            let error = Rows::from_csv(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad:?}: {error}");
            assert!(!error.contains("hunter22"), "{error}");
        }
        assert!(!format!("{:?}", Rows::from_csv("a\nhunter22\n").unwrap()).contains("hunter22"));
    }
}
