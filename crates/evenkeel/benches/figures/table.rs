//! Several measurements of one thing, and the table of all.

use std::fmt;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The one in the middle; of an even number, the mean of the two.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }
}

struct Row {
    what: String,
    unit: &'static str,
    reach: Option<f64>,
    samples: Samples,
}

/// The table, in Markdown.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// A figure; `reach` is the most that it should be.
    pub(crate) fn row(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        reach: Option<f64>,
        samples: Samples,
    ) {
        let what = what.into();
        eprintln!("  {what}: {:.2} {unit}", samples.median());
        self.rows.push(Row {
            what,
            unit,
            reach,
            samples,
        });
    }

    /// Something that belongs below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("  {note}");
        self.notes.push(note);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | unit | reach | min | median | max | n | |")?;
        writeln!(f, "|---|---|---:|---:|---:|---:|---:|---|")?;
        for row in &self.rows {
            let sorted = row.samples.sorted();
            let (min, max) = (
                sorted.first().copied().unwrap_or(f64::NAN),
                sorted.last().copied().unwrap_or(f64::NAN),
            );
            let median = row.samples.median();
            let verdict = match row.reach {
                None => "",
                Some(reach) if max <= reach => "reached",
                Some(reach) if median <= reach => "reached by the median",
                Some(_) => "**missed**",
            };
            let reach = row.reach.map_or(String::new(), number);
            writeln!(
                f,
                "| {} | {} | {reach} | {} | {} | {} | {} | {verdict} |",
                row.what,
                row.unit,
                number(min),
                number(median),
                number(max),
                sorted.len(),
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
