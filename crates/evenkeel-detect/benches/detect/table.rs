//! The one table that is printed.

use std::fmt;

/// Rows of Markdown, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<[String; 3]>,
    notes: Vec<String>,
}

impl Table {
    /// What was measured, how much it is, and what is to be reached; empty where nothing is.
    pub(crate) fn row(&mut self, what: &str, measured: String, reach: &str) {
        self.rows
            .push([what.to_owned(), measured, reach.to_owned()]);
    }

    /// A sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | reach |")?;
        writeln!(f, "|---|---|---|")?;
        for [what, measured, reach] in &self.rows {
            writeln!(f, "| {what} | {measured} | {reach} |")?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}
