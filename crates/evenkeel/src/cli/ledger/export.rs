//! `evenkeel ledger export`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use clap::Args;
use evenkeel_ledger::Reader;
use serde_json::json;

use super::super::table::print;
use super::{Exit, Failure, Global, file_of};

/// `evenkeel ledger export`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["jsonl", "tiles"])]
pub struct ExportArgs {
    /// One JSON object a line, for `docs/verify_export.py` and your own programs; `-` is standard output
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Tiles and entry bundles (C2SP tlog-tiles) in a new directory, for any web server
    #[arg(long, value_name = "DIR")]
    tiles: Option<PathBuf>,
    /// Another ledger file, such as a copy
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn export(global: &Global, args: &ExportArgs) -> Result<Exit, Failure> {
    let reader = Reader::open(file_of(global, args.file.as_deref())?)?;
    let (to, entries) = match (&args.jsonl, &args.tiles) {
        (Some(file), _) if file.as_os_str() == "-" => {
            let out = BufWriter::new(std::io::stdout().lock());
            evenkeel_ledger::export::jsonl(&reader, out, |_, _| {})?;
            return Ok(Exit::Healthy);
        }
        (Some(file), _) => {
            let mut out = BufWriter::new(File::create(file)?);
            let entries = evenkeel_ledger::export::jsonl(&reader, &mut out, |_, _| {})?;
            out.flush()?;
            out.get_ref().sync_all()?;
            (file, entries)
        }
        (None, Some(dir)) => (
            dir,
            evenkeel_ledger::export::tiles(&reader, dir, |_, _| {})?,
        ),
        (None, None) => return Err(Failure::usage("give --jsonl or --tiles")),
    };
    if global.json {
        print(&json!({"entries": entries, "to": to.display().to_string()}).to_string());
    } else {
        print(&format!(
            "{entries} entries, up to the newest checkpoint -> {}",
            to.display()
        ));
    }
    Ok(Exit::Healthy)
}
