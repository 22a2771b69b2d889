//! `evenkeel load`: load on an address, measured, for people and for programs.
//!
//! In reading order: what can be asked ([`args`], with how it is written in `values` and `threshold`), which requests
//! that makes (`requests`), the plan of it (`plan`), what is refused (`safety`) and what this host must have room for
//! (`sockets`); what is shown while it runs (`live`); what a run leaves ([`report`]), cleaned of secrets (`hide`), for
//! people (`summary`, with figures as `shape` writes them), as tables (`tables`) and as a page ([`html`], with plots made by
//! [`plot`] and figures as `figures` writes them); and how it lies to an older one ([`mod@compare`]).
//!
//! Needs no configuration and no data directory, and writes nothing but the files that were asked for. Nothing here
//! grows with the number of requests.

pub mod args;
pub mod compare;
#[cfg(test)]
mod example;
mod figures;
mod hide;
pub mod html;
mod live;
mod plan;
pub mod plot;
pub mod report;
mod requests;
mod safety;
mod shape;
mod sockets;
mod summary;
mod tables;
mod threshold;
mod values;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use evenkeel_stress::{Cancel, EngineError, Live, Load, Plan, Until, addresses, run_observed};

use args::LoadArgs;
use compare::{Comparison, compare};
use report::Report;

/// Most bytes of a saved run.
const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A run that was made.
#[derive(Clone, Debug)]
pub struct Done {
    /// What it measured.
    pub report: Report,
    /// How it lies to the run of `--compare`.
    pub comparison: Option<Comparison>,
}

/// A run that could not be made, or not be written down.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What was asked cannot be done as it is written, or is refused.
    #[error("{0}")]
    Usage(String),
    /// This host or the way to the target is not fit for it.
    #[error("{0}")]
    Host(String),
    /// A file that was asked for cannot be written.
    #[error("{file} cannot be written: {reason}; name another file")]
    Unwritable {
        /// Which.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// A bug.
    #[error("{0}")]
    Internal(String),
}

/// Makes the load and gives what came of it, after all files that were asked for are written.
///
/// `config` is only looked at when the address is not on this host: whether it is the configured target's.
/// Switching `cancel` on ends the run with what was measured so far.
pub async fn run(args: &LoadArgs, config: &Path, cancel: &Cancel) -> Result<Done, LoadError> {
    let plan::Prepared {
        mut plan,
        asked,
        hidden,
    } = plan::prepare(args).map_err(LoadError::Usage)?;
    if !args.yes_really {
        safety::ceilings(&plan).map_err(LoadError::Usage)?;
        let addresses = addresses(&plan.base, plan.limits.connect);
        let addresses = addresses.await.map_err(of_engine)?;
        safety::target(&plan.base, &addresses, config)?;
        // A name may mean another host by the time the load begins.
        plan.transport.addresses = Some(addresses);
    }
    sockets::make_room(connections(&plan)).map_err(LoadError::Host)?;
    let old = args.compare.as_deref().map(read).transpose()?;
    let files = [&args.save, &args.csv, &args.series, &args.html];
    for file in files.into_iter().flatten() {
        // An hour of load is not to end with a file that cannot be written.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .map_err(|e| unwritable(file, &e))?;
    }
    let mut view = live::View::new(&asked, args.quiet);
    let started_at = crate::clock::now();
    let mut show = |live: &Live| view.show(live);
    let outcome = run_observed(&plan, cancel, Some(&mut show)).await;
    view.end();
    let outcome = outcome.map_err(of_engine)?;
    let mut report = Report::new(asked, started_at, &outcome);
    report.judge(args.thresholds.iter().map(|t| t.judge(&report)).collect());
    hidden.clean(&mut report);
    let comparison = old.map(|old| compare(&old, &report));
    write(args, &report, comparison.as_ref())?;
    Ok(Done { report, comparison })
}

fn of_engine(error: EngineError) -> LoadError {
    match error {
        EngineError::Plan(e) => LoadError::Usage(e.to_string()),
        EngineError::Resolve { .. } | EngineError::Start(_) => LoadError::Host(error.to_string()),
        EngineError::Lost => LoadError::Internal(error.to_string()),
    }
}

/// A run that was saved before.
fn read(file: &Path) -> Result<Report, LoadError> {
    let unusable = |reason: &dyn std::fmt::Display| {
        LoadError::Usage(format!(
            "--compare {}: {reason}; name a file that `evenkeel load --save FILE` wrote",
            file.display()
        ))
    };
    let mut text = String::new();
    File::open(file)
        .and_then(|f| f.take(SAVED_BYTES_MAX).read_to_string(&mut text))
        .map_err(|e| unusable(&e))?;
    Report::read(&text).map_err(|e| unusable(&e))
}

/// What came of a run, for people; several lines.
pub fn summary(report: &Report, colour: bool) -> String {
    summary::text(report, colour)
}

/// Connections that are really opened at once: no more than there are requests.
fn connections(plan: &Plan) -> u64 {
    let connections = u64::from(plan.load.connections());
    match plan.load {
        Load::Closed {
            until: Until::Requests(n),
            ..
        } if plan.warm_up.is_zero() => connections.min(n),
        _ => connections,
    }
}

fn write(args: &LoadArgs, report: &Report, compared: Option<&Comparison>) -> Result<(), LoadError> {
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(report, compared)).map_err(|e| unwritable(file, &e))?;
    }
    if let Some(file) = &args.save {
        let write = || {
            let mut out = BufWriter::new(File::create(file)?);
            serde_json::to_writer(&mut out, report)?;
            writeln!(out)?;
            out.flush()
        };
        write().map_err(|e| unwritable(file, &e))?;
    }
    if let Some(file) = &args.csv {
        let out = File::create(file).map_err(|e| unwritable(file, &e))?;
        tables::figures(report, out).map_err(|e| unwritable(file, &e))?;
    }
    if let Some(file) = &args.series {
        let out = File::create(file).map_err(|e| unwritable(file, &e))?;
        tables::series(report, out).map_err(|e| unwritable(file, &e))?;
    }
    Ok(())
}

fn unwritable(file: &Path, reason: &dyn std::fmt::Display) -> LoadError {
    LoadError::Unwritable {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}
