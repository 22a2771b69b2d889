//! `evenkeel ledger verify`: what holds, who elsewhere stands for it, and what that leaves open.

use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_ledger::{Report, VerifyOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::table::print;
use super::{Exit, Failure, Global, against, configured_witnesses, file_of, keys};
use crate::ui::Style;

/// `evenkeel ledger verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Another ledger file, such as a copy
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A checkpoint from elsewhere: a file (also an anchor's), or an address (also a witness's); may be repeated
    #[arg(long, value_name = "FILE|URL")]
    against: Vec<String>,
    /// The log's first public key, as `ledger key show` printed it when the log was new
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A witness whose cosignatures count, besides those of the configuration; may be repeated
    #[arg(long, value_name = "KEY")]
    witness_key: Vec<String>,
    /// How many threads hash; as many as the machine has when absent
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,
}

pub(super) fn verify(global: &Global, args: &VerifyArgs) -> Result<Exit, Failure> {
    let path = file_of(global, args.file.as_deref())?;
    let mut options = VerifyOptions {
        log_key: keys(args.key.as_slice())?.pop(),
        witnesses: keys(&args.witness_key)?,
        ..VerifyOptions::default()
    };
    options.witnesses.extend(configured_witnesses(global));
    if let Some(threads) = args.threads {
        options.threads = usize::from(threads);
    }
    let origin = || {
        let reader = evenkeel_ledger::Reader::open(&path).ok()?;
        Some(reader.keys().ok()?.origin()?.to_owned())
    };
    for from in &args.against {
        options.against.push(against::checkpoint(from, origin)?);
    }
    let bar = matches!(Style::detect(global.json), Style::Terminal { .. }).then(|| {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("verifying {wide_bar} {pos}/{len} entries {eta}")
        {
            bar.set_style(style);
        }
        bar
    });
    let report = evenkeel_ledger::verify_with(&path, &options, |done, total| {
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
    let mut lines = Vec::new();
    if report.is_sound() {
        lines.push(format!(
            "Ledger verifies: {} entries, head {}",
            report.entries,
            short(&report.head.to_string()),
        ));
    } else {
        lines.push(format!(
            "Ledger DOES NOT VERIFY: {} ({} damaged, first bad sequence: {})",
            path.display(),
            report.damage_count,
            report
                .first_bad_sequence()
                .map_or_else(|| "none, the schema is".to_owned(), |s| s.to_string()),
        ));
        lines.extend(report.damage.iter().take(20).map(|d| format!("  {d}")));
        let more = report.damage_count.saturating_sub(20);
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
    }
    if let (Some(origin), Some(key)) = (&report.origin, &report.log_key) {
        lines.push(format!(
            "  Log {origin}, key id {:08x}, {} checkpoints{}",
            key.id(),
            report.checkpoints,
            match report.unsigned {
                0 => String::new(),
                n => format!(", the last {n} entries unsigned"),
            }
        ));
    }
    if report.signing_stopped {
        lines.push(
            "  Signing was stopped, and nobody has resumed it: look for stop_ledger_signing"
                .to_owned(),
        );
    }
    if report.payloads_dropped > 0 {
        lines.push(format!(
            "  {} payloads were dropped on record and have left their hashes",
            report.payloads_dropped
        ));
    }
    for anchor in &report.anchored {
        lines.push(format!(
            "  Anchored up to entry {} by {}{}",
            anchor.tree_size,
            anchor.by,
            anchor
                .time
                .and_then(|t| i64::try_from(t).ok())
                .map_or_else(String::new, |t| format!(
                    " at {}",
                    evenkeel_core::Timestamp::from_millis(t.saturating_mul(1000))
                )),
        ));
    }
    lines.push(format!("  {}", protection(report)));
    lines.join("\n")
}

/// What is left open, in one line.
fn protection(report: &Report) -> String {
    match (report.anchored.is_empty(), report.not_anchored) {
        (true, _) => "Not protected against this host's administrator: no checkpoint is kept elsewhere, so a cut tail \
                      or a whole rewrite would not be noticed."
            .to_owned(),
        (false, None) => "Every entry is anchored elsewhere.".to_owned(),
        (false, Some((first, last))) => format!(
            "Entries {first} to {last} are not anchored: whoever has this host may have changed them."
        ),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
