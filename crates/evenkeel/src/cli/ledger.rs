//! `evenkeel ledger verify|tail`.

use std::path::Path;
use std::time::Duration;

use evenkeel_ledger::{Query, Reader, Report};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::table::print;
use super::{Exit, Failure, Global};
use crate::layout::Layout;
use crate::ui::Style;

/// Opens the ledger of the data directory for reading.
pub(super) fn reader(global: &Global) -> Result<(Layout, Reader), Failure> {
    let layout = Layout::existing(&global.data_dir, crate::config::Profile::Service);
    let path = layout.ledger();
    if !path.exists() {
        return Err(Failure::target(format!(
            "there is no ledger in {}: nothing has run there yet (name another with --data-dir)",
            layout.root().display()
        )));
    }
    let reader = Reader::open(&path)?;
    Ok((layout, reader))
}

pub(super) fn verify(global: &Global, file: Option<&Path>) -> Result<Exit, Failure> {
    let path = match file {
        Some(file) => file.to_path_buf(),
        None => Layout::existing(&global.data_dir, crate::config::Profile::Service).ledger(),
    };
    let bar = matches!(Style::detect(global.json), Style::Terminal { .. }).then(|| {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("verifying {wide_bar} {pos}/{len} entries {eta}")
        {
            bar.set_style(style);
        }
        bar
    });
    let report = evenkeel_ledger::verify(&path, |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report?;
    if global.json {
        print(&json!({"file": path.display().to_string(), "sound": report.is_sound(), "report": report}).to_string());
    } else {
        print(&describe(&path, &report));
    }
    Ok(if report.is_sound() {
        Exit::Healthy
    } else {
        Exit::LedgerDamaged
    })
}

/// The report for a person, with what it leaves open.
pub(crate) fn describe(path: &Path, report: &Report) -> String {
    if report.is_sound() {
        return format!(
            "Ledger verifies: {} entries, head {}\n  \
             Not protected against this host's administrator: no checkpoint is kept elsewhere, so a cut tail or a \
             whole rewrite would not be noticed.",
            report.entries,
            short(&report.head.to_string()),
        );
    }
    let mut text = format!(
        "Ledger DOES NOT VERIFY: {} ({} damaged, first bad sequence: {})",
        path.display(),
        report.damage_count,
        report
            .first_bad_sequence()
            .map_or_else(|| "none, the schema is".to_owned(), |s| s.to_string()),
    );
    for damage in report.damage.iter().take(20) {
        text.push_str("\n  ");
        text.push_str(&damage.to_string());
    }
    text
}

fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

pub(super) fn tail(global: &Global, lines: u32, follow: bool) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    let mut last = 0;
    for entry in reader.tail(lines)? {
        last = entry.sequence;
        show(global, &entry);
    }
    if !follow {
        return Ok(Exit::Healthy);
    }
    loop {
        std::thread::sleep(Duration::from_millis(250));
        for entry in reader.query(&Query::new().after(last).limit(1000))? {
            last = entry.sequence;
            show(global, &entry);
        }
    }
}

fn show(global: &Global, entry: &evenkeel_ledger::Entry) {
    if global.json {
        let mut value = serde_json::to_value(entry).unwrap_or(Value::Null);
        // For programs the payload is JSON, not JSON inside a text.
        value["payload"] = entry.payload_json().unwrap_or(Value::Null);
        print(&value.to_string());
    } else {
        print(&format!(
            "{:>6} {} {:<24} {:<10} {:<12} {}",
            entry.sequence,
            entry.timestamp,
            entry.action,
            entry.result,
            entry.subsystem,
            entry.resource
        ));
    }
}
