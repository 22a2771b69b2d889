//! `evenkeel detect`: the detector of single series over CSV files, as it runs on live ones.
//!
//! Each file is one series with a time and a value a row, read once and in order: nothing is known of its length, its
//! range or what comes later. A result file stands under the same relative path, with a row for every row.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_detect::ensemble::Ensemble;
use serde_json::json;

use super::table::{print, table};
use super::{Exit, Failure, Global};

/// Most files that are taken.
const FILES_MAX: usize = 100_000;

/// Arguments of `evenkeel detect`.
#[derive(Debug, Clone, Args)]
pub struct DetectArgs {
    /// A CSV file, or a directory with CSV files in it, however deep: columns `timestamp` and `value` (or the first two)
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Directory for the results: the same relative paths, columns `timestamp,value,anomaly_score`
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Add the columns `tail,expected,low,high,evidence`: how likely such a value is, and what is usual
    #[arg(long)]
    pub details: bool,
}

#[derive(Default)]
struct Sum {
    file: String,
    rows: u64,
    unread: u64,
    highest: f64,
    highest_at: String,
}

pub(super) fn detect(global: &Global, args: &DetectArgs) -> Result<Exit, Failure> {
    let (root, files) = files(&args.data)?;
    let began = Instant::now();
    let mut busy = Duration::ZERO;
    let mut sums = Vec::with_capacity(files.len());
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap_or(file);
        let out = args.out.join(relative);
        if out == *file {
            return Err(Failure::usage(format!(
                "the results would overwrite {}: name another directory with --out",
                file.display()
            )));
        }
        sums.push(one(file, relative, &out, args.details, &mut busy)?);
    }
    let rows: u64 = sums.iter().map(|s| s.rows).sum();
    let per_second = rows as f64 / busy.as_secs_f64().max(1e-9);
    if global.json {
        let files: Vec<_> = sums
            .iter()
            .map(|s| {
                json!({
                    "file": s.file, "rows": s.rows, "not_a_number": s.unread,
                    "highest_score": s.highest, "highest_at": s.highest_at,
                })
            })
            .collect();
        print(
            &json!({
                "files": files, "rows": rows, "points_per_second": per_second.round(),
                "took_ms": began.elapsed().as_millis(),
            })
            .to_string(),
        );
        return Ok(Exit::Healthy);
    }
    let mut t = table(["file", "rows", "not a number", "highest score", "at"]);
    for s in &sums {
        t.add_row([
            s.file.clone(),
            s.rows.to_string(),
            s.unread.to_string(),
            format!("{:.3}", s.highest),
            s.highest_at.clone(),
        ]);
    }
    print(&t.to_string());
    print(&format!(
        "{} series, {rows} points in {:.2} s ({:.2} million a second in the detector); results in {}",
        sums.len(),
        began.elapsed().as_secs_f64(),
        per_second / 1e6,
        args.out.display()
    ));
    Ok(Exit::Healthy)
}

/// The directory that relative paths start from, and every CSV file in it, sorted.
fn files(data: &Path) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let cannot =
        |path: &Path, e: &std::io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let meta = std::fs::metadata(data).map_err(|e| cannot(data, &e))?;
    if meta.is_file() {
        let root = data.parent().unwrap_or(Path::new("")).to_owned();
        return Ok((root, vec![data.to_owned()]));
    }
    let mut found = Vec::new();
    let mut open = vec![data.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| cannot(&dir, &e))? {
            let entry = entry.map_err(|e| cannot(&dir, &e))?;
            let kind = entry.file_type().map_err(|e| cannot(&dir, &e))?;
            let path = entry.path();
            // Links are not followed: a loop of them would have no end.
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "csv") {
                found.push(path);
            }
            if found.len() > FILES_MAX {
                return Err(Failure::usage(format!(
                    "more than {FILES_MAX} CSV files in {}",
                    data.display()
                )));
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "there is no CSV file in {}",
            data.display()
        )));
    }
    found.sort();
    Ok((data.to_owned(), found))
}

fn one(
    file: &Path,
    relative: &Path,
    out: &Path,
    details: bool,
    busy: &mut Duration,
) -> Result<Sum, Failure> {
    let wrong = |e: String| Failure::usage(format!("{}: {e}", file.display()));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(file)
        .map_err(|e| wrong(e.to_string()))?;
    let heads = reader.headers().map_err(|e| wrong(e.to_string()))?;
    let place = |name: &str, otherwise: usize| {
        heads
            .iter()
            .position(|h| h.trim().eq_ignore_ascii_case(name))
            .unwrap_or(otherwise)
    };
    let (time_at, value_at) = (place("timestamp", 0), place("value", 1));
    if let Some(dir) = out.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut writer = std::io::BufWriter::new(std::fs::File::create(out)?);
    writeln!(
        writer,
        "timestamp,value,anomaly_score{}",
        if details {
            ",tail,expected,low,high,evidence"
        } else {
            ""
        }
    )?;
    let mut sum = Sum {
        file: relative.display().to_string(),
        ..Sum::default()
    };
    let mut ensemble = Ensemble::new();
    let mut record = csv::StringRecord::new();
    let mut points: Vec<(String, String, i64, f64)> = Vec::new();
    loop {
        points.clear();
        while points.len() < 4096
            && reader
                .read_record(&mut record)
                .map_err(|e| wrong(e.to_string()))?
        {
            let time = record.get(time_at).unwrap_or("").trim();
            let text = record.get(value_at).unwrap_or("").trim();
            let line = record.position().map_or(0, csv::Position::line);
            let at = millis(time).ok_or_else(|| {
                wrong(format!(
                    "line {line}: `{time}` is no time; write it as 2026-11-24 13:05:00, as RFC 3339, or as Unix seconds"
                ))
            })?;
            let value = number(text);
            points.push((time.to_owned(), text.replace(',', ""), at, value));
        }
        if points.is_empty() {
            break;
        }
        let began = Instant::now();
        let scores: Vec<_> = points
            .iter()
            .map(|(_, _, at, value)| ensemble.push(*at, *value))
            .collect();
        *busy += began.elapsed();
        for ((time, text, _, value), score) in points.iter().zip(scores) {
            sum.rows += 1;
            sum.unread += u64::from(!value.is_finite());
            if score.anomaly > sum.highest {
                sum.highest = score.anomaly;
                sum.highest_at.clone_from(time);
            }
            write!(writer, "{time},{text},{}", score.anomaly)?;
            if details {
                write!(
                    writer,
                    ",{:e},{},{},{},{:?}",
                    score.tail, score.expected, score.low, score.high, score.evidence
                )?;
            }
            writeln!(writer)?;
        }
    }
    writer.flush()?;
    Ok(sum)
}

/// A number as spreadsheets write it; not a number where it is none.
fn number(text: &str) -> f64 {
    let plain: String = text.chars().filter(|c| *c != ',').collect();
    plain.parse().unwrap_or(f64::NAN)
}

/// Milliseconds since 1970 of a time: RFC 3339, `2026-11-24 13:05:00` (taken for UTC), or Unix seconds.
fn millis(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        let utc = jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?;
        return Some(utc.as_millisecond());
    }
    let seconds: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "its range is checked")]
    (seconds.abs() < 1e11).then_some((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_sets_write_them() {
        let expected = Some(1_396_310_400_000);
        for text in [
            "2014-04-01 00:00:00",
            "2014-04-01T00:00:00Z",
            "2014-04-01T02:00:00+02:00",
            "1396310400",
            "1396310400.0",
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        for text in ["", "yesterday", "1e300", "NaN"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_spreadsheets_write_them() {
        assert_eq!(number("1,234.5").to_bits(), 1234.5_f64.to_bits());
        assert!(number("n/a").is_nan());
    }
}
