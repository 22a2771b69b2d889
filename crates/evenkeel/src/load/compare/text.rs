//! A comparison as people read it.

use std::fmt;

use super::{Change, Comparison, Figure, Finding};
use crate::load::figures::{number, signed};

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "the same",
            Self::Unclear => "unclear",
        })
    }
}

impl Figure {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::LatencyP50 => "p50",
            Self::LatencyP95 => "p95",
            Self::LatencyP99 => "p99",
            Self::Errors => "errors",
        }
    }

    /// Its unit, and by what its values are multiplied to be in it.
    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Throughput => ("/s", 1.0),
            Self::Errors => ("%", 100.0),
            _ => ("ms", 1.0),
        }
    }
}

impl Change {
    /// The old value, of its median second where there is one, with its unit.
    pub fn old_text(&self) -> String {
        self.value(self.old_second.unwrap_or(self.old))
    }

    /// The new value, likewise.
    pub fn new_text(&self) -> String {
        self.value(self.new_second.unwrap_or(self.new))
    }

    /// The old and the new value of the whole runs, with their units.
    pub fn whole_texts(&self) -> (String, String) {
        (self.value(self.old), self.value(self.new))
    }

    fn value(&self, value: f64) -> String {
        let (unit, times) = self.figure.unit();
        format!("{} {unit}", number(value * times))
    }

    /// The change with its interval: `+1.20 ms (+0.900 to +1.50)`; empty where there is none.
    pub fn change_text(&self) -> String {
        let Some(by) = &self.by else {
            return String::new();
        };
        let (unit, times) = self.figure.unit();
        // Differences of percents are points.
        let unit = if self.figure == Figure::Errors {
            "points"
        } else {
            unit
        };
        let [value, low, high] = [by.by, by.low, by.high].map(|v| signed(v * times));
        format!("{value} {unit} ({low} to {high})")
    }

    /// The same in percent of the old; empty where there is none.
    pub fn percent_text(&self) -> String {
        let Some([value, low, high]) = self.by.as_ref().and_then(|by| by.percent) else {
            return String::new();
        };
        let [value, low, high] = [value, low, high].map(|v| {
            if v.abs() < 1000.0 {
                format!("{v:+.1}")
            } else {
                signed(v)
            }
        });
        format!("{value} % ({low} to {high})")
    }

    /// The probability by chance: `0.03`, `< 0.0001`; empty where there is none.
    pub fn p_text(&self) -> String {
        match self.p_value {
            None => String::new(),
            Some(p) if p < 0.0001 => "< 0.0001".to_owned(),
            Some(p) => format!("{p:.4}"),
        }
    }
}

impl Comparison {
    /// Why nothing can be said of some figures, and what else there is to say of others: a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
        for change in &self.changes {
            for said in change.why.iter().chain(&change.note) {
                match all.iter_mut().find(|(text, _)| text == said) {
                    Some((_, names)) => names.push(change.figure.name()),
                    None => all.push((said, vec![change.figure.name()])),
                }
            }
        }
        all.into_iter()
            .map(|(said, names)| format!("{}: {said}", names.join(", ")))
            .collect()
    }

    /// What the table shows, in a sentence.
    pub fn legend(&self) -> String {
        format!(
            "Median seconds of the two runs, and by how much the new ones are off, with {:.0} % intervals; \
             p: the probability of so clear a difference by chance.",
            self.confidence * 100.0
        )
    }
}

/// As a table of plain text.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(f, "new run against old: {}", self.finding)?;
        let heads = ["", "old", "new", "change", "in %", "p", "finding"].map(str::to_owned);
        let mut rows = vec![heads];
        for change in &self.changes {
            rows.push([
                change.figure.name().to_owned(),
                change.old_text(),
                change.new_text(),
                change.change_text(),
                change.percent_text(),
                change.p_text(),
                change.finding.to_string(),
            ]);
        }
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let mut line = String::from(" ");
            for (i, (width, cell)) in widths.iter().zip(row).enumerate() {
                // Numbers to the right, words to the left.
                let padded = if i == 0 || i == 6 {
                    format!(" {cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
                line.push_str(&padded);
                if i == 5 {
                    line.push(' ');
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for remark in self.remarks() {
            writeln!(f, "{remark}")?;
        }
        write!(f, "{}", self.legend())
    }
}
