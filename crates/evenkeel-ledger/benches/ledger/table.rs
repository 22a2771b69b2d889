//! Several measurements of each thing, and the table of all.

use std::fmt;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach {
    AtLeast(f64),
    AtMost(f64),
    /// It is there to understand another one.
    Nothing,
}

struct Row {
    what: String,
    reach: Reach,
    sorted: Vec<f64>,
}

/// The table, in Markdown.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn row(&mut self, what: impl Into<String>, reach: Reach, mut samples: Vec<f64>) {
        let what = what.into();
        samples.sort_by(f64::total_cmp);
        eprintln!("  {what}: {}", number(median(&samples)));
        self.rows.push(Row {
            what,
            reach,
            sorted: samples,
        });
    }

    /// Something that belongs below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("  {note}");
        self.notes.push(note);
    }
}

/// The one in the middle; of an even number, the mean of the two.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else {
            return "not measured";
        };
        let (worst, good): (f64, fn(f64, f64) -> bool) = match self.reach {
            Reach::Nothing => return "",
            Reach::AtLeast(_) => (*first, |is, reach| is >= reach),
            Reach::AtMost(_) => (*last, |is, reach| is <= reach),
        };
        let (Reach::AtLeast(reach) | Reach::AtMost(reach)) = self.reach else {
            return "";
        };
        if good(worst, reach) {
            "reached"
        } else if good(median(&self.sorted), reach) {
            "reached by the median"
        } else {
            "**missed**"
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | reach | min | median | max | n | |")?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---|")?;
        for row in &self.rows {
            let reach = match row.reach {
                Reach::AtLeast(reach) => format!(">= {}", number(reach)),
                Reach::AtMost(reach) => format!("<= {}", number(reach)),
                Reach::Nothing => String::new(),
            };
            let at = |value: Option<&f64>| number(value.copied().unwrap_or(f64::NAN));
            writeln!(
                f,
                "| {} | {reach} | {} | {} | {} | {} | {} |",
                row.what,
                at(row.sorted.first()),
                number(median(&row.sorted)),
                at(row.sorted.last()),
                row.sorted.len(),
                row.verdict(),
            )?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "-".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
