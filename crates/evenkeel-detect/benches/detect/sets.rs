//! The labelled series: NAB's, and Microsoft's Cloud Monitoring Dataset.
//!
//! They are not part of the sources. Where they lie is said by `--data DIR` or `EVENKEEL_BENCH_DATA`: a directory with
//! `nab/` (the files of <https://github.com/numenta/NAB>, `data/` and `labels/combined_windows.json` side by side) and
//! `cloud/` (series of <https://github.com/microsoft/cloud-monitoring-dataset>, as CSV with a label for each row).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::score::label_windows;

type Result<T> = std::result::Result<T, String>;

/// A series, and where somebody found it anomalous.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    pub(crate) name: String,
    pub(crate) times_ms: Vec<i64>,
    /// NaN where there is no number.
    pub(crate) values: Vec<f64>,
    /// First and last index of each window.
    pub(crate) windows: Vec<(usize, usize)>,
}

/// NAB's series, in the order of their names.
pub(crate) fn nab(data: &Path) -> Result<Vec<Labelled>> {
    let root = data.join("nab");
    let labels = read(&root.join("combined_windows.json"))?;
    let labels: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&labels).map_err(|e| format!("combined_windows.json: {e}"))?;
    let mut all = Vec::new();
    for (name, spans) in labels {
        let table = table(&root.join(&name))?;
        let mut windows = Vec::new();
        for (from, to) in spans {
            let (from, to) = (time_ms(&from)?, time_ms(&to)?);
            let within = |t: &i64| (from..=to).contains(t);
            let first = table.times_ms.iter().position(within);
            let last = table.times_ms.iter().rposition(within);
            windows.extend(first.zip(last));
        }
        all.push(Labelled {
            name,
            windows,
            times_ms: table.times_ms,
            values: table.values,
        });
    }
    Ok(all)
}

/// The cloud's series, in the order of their paths.
pub(crate) fn cloud(data: &Path) -> Result<Vec<Labelled>> {
    let root = data.join("cloud");
    let mut paths = Vec::new();
    for family in entries(&root)? {
        if family.is_dir() {
            paths.extend(entries(&family)?);
        }
    }
    paths.retain(|p| p.extension().is_some_and(|e| e == "csv"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let table = table(&path)?;
        let name = path.strip_prefix(&root).unwrap_or(&path);
        all.push(Labelled {
            name: name.display().to_string(),
            windows: label_windows(&table.labels),
            times_ms: table.times_ms,
            values: table.values,
        });
    }
    Ok(all)
}

#[derive(Debug, Default)]
struct Table {
    times_ms: Vec<i64>,
    values: Vec<f64>,
    labels: Vec<bool>,
}

fn table(path: &Path) -> Result<Table> {
    let mut found = Table::default();
    for (i, line) in read(path)?.lines().enumerate().skip(1) {
        let fields = fields(line);
        let here = |what: String| format!("{}, line {}: {what}", path.display(), i + 1);
        let [time, value, rest @ ..] = fields.as_slice() else {
            return Err(here("a time and a value are needed".to_owned()));
        };
        found.times_ms.push(time_ms(time).map_err(here)?);
        found
            .values
            .push(value.replace(',', "").parse().unwrap_or(f64::NAN));
        let label = rest.first().and_then(|l| l.parse::<f64>().ok());
        found.labels.push(label.is_some_and(|l| l >= 1.0));
    }
    if found.values.is_empty() {
        return Err(format!("{}: no rows", path.display()));
    }
    Ok(found)
}

/// The fields of a row; quotes hold a comma together.
fn fields(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut quoted = false;
    for c in line.trim_end().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(String::new()),
            _ => found.last_mut().into_iter().for_each(|f| f.push(c)),
        }
    }
    found
}

/// Milliseconds since 1970 of `YYYY-MM-DD hh:mm:ss`, with a `T` for the blank and anything after the seconds: all
/// series are in one time zone.
fn time_ms(text: &str) -> Result<i64> {
    let part = |from: usize, to: usize| text.get(from..to).and_then(|p| p.parse::<i64>().ok());
    let parts = (|| {
        let date = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
        Some((date, part(11, 13)?, part(14, 16)?, part(17, 19)?))
    })();
    let ((year, month, day), hour, minute, second) =
        parts.ok_or_else(|| format!("`{text}` is no time"))?;
    // Days since 1970 of a Gregorian date, years beginning in March (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(all.flatten().map(|e| e.path()).collect())
}
