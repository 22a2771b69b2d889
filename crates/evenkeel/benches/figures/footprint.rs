//! What the product itself takes: memory, processor, time of its tests, disk.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use evenkeel_edge::process::procinfo;
use serde_json::Value;

use crate::guarded::Guarded;
use crate::machine::now_ms;
use crate::services::{EVENKEEL, Guarding, Kind};
use crate::table::{Samples, Table};

/// How long it is watched while it watches, and in how many parts.
const WATCHED: (Duration, usize) = (Duration::from_secs(72), 6);
/// Left alone after boot before that begins.
const SETTLE: Duration = Duration::from_secs(5);
/// Runs of the eight tests.
const SUITES: usize = 7;

/// Memory and processor time while it watches one target every second.
pub(crate) fn watching(table: &mut Table) -> anyhow::Result<()> {
    for (kind, stress) in [(Kind::HttpServer, false), (Kind::Grace, true)] {
        let how = Guarding {
            stress,
            ..Guarding::default()
        };
        let guarded = Guarded::start(kind, how)?;
        std::thread::sleep(SETTLE);
        let (mut memory, mut share) = (Samples::default(), Samples::default());
        let (time, parts) = WATCHED;
        for _ in 0..parts {
            let (at, used) = (now_ms(), processor_ms(guarded.pid())?);
            std::thread::sleep(time / u32::try_from(parts)?);
            let took = now_ms() - at;
            share.push((processor_ms(guarded.pid())? - used) / took * 100.0);
            memory.push(status_mb(guarded.pid(), "VmRSS:")?);
        }
        let peak = status_mb(guarded.pid(), "VmHWM:")?;
        let anonymous = status_mb(guarded.pid(), "RssAnon:")?;
        let after = if stress {
            ", after its eight tests"
        } else {
            ""
        };
        let label = format!("{}{after}", kind.label());
        table.row(
            format!("resident memory, watching {label}"),
            "MB",
            Some(20.0),
            memory,
        );
        table.row(
            format!("processor, watching {label}"),
            "% of a core",
            Some(0.5),
            share,
        );
        table.note(format!(
            "watching {label}: {anonymous:.1} MB of the resident memory are its own, the rest is the program file; \
             the most ever resident was {peak:.1} MB"
        ));
    }
    Ok(())
}

/// Processor time of all threads so far, in milliseconds (in steps of 10).
fn processor_ms(pid: u32) -> anyhow::Result<f64> {
    procinfo::identify(pid)
        .and_then(|p| procinfo::cpu_ms(&p))
        .map(|ms| ms as f64)
        .context("evenkeel's processor time")
}

fn status_mb(pid: u32, key: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb: f64 = status
        .lines()
        .find_map(|l| l.strip_prefix(key)?.trim().strip_suffix(" kB"))
        .context("/proc/PID/status")?
        .trim()
        .parse()?;
    Ok(kb * 1_024.0 / 1e6)
}

/// The eight tests against a healthy Grace.
pub(crate) fn suite(table: &mut Table) -> anyhow::Result<()> {
    let guarded = Guarded::start(Kind::Grace, Guarding::default())?;
    let (mut wall, mut tests) = (Samples::default(), Samples::default());
    for _ in 0..SUITES {
        let begun = now_ms();
        let output = Command::new(EVENKEEL)
            .args(["--json", "--config"])
            .arg(guarded.config_file())
            .arg("--data-dir")
            .arg(guarded.data_dir())
            .arg("stress")
            .current_dir(guarded.dir())
            .output()?;
        let took = now_ms() - begun;
        let suite: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        if suite["tests_passed"] != 8 {
            bail!("not all eight passed: {}", suite["results"]);
        }
        wall.push(took / 1_000.0);
        tests.push(suite["duration_ms"].as_f64().context("duration_ms")? / 1_000.0);
    }
    table.row(
        "`evenkeel stress` against a healthy Grace",
        "s",
        Some(5.0),
        wall,
    );
    table.row("the eight tests in it", "s", Some(5.0), tests);
    Ok(())
}

/// The program file.
pub(crate) fn size(table: &mut Table) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(EVENKEEL)?.len();
    table.row(
        "release binary",
        "MB",
        Some(25.0),
        Samples(vec![bytes as f64 / 1e6]),
    );
    table.note(
        "a clean release build is measured apart: `CARGO_TARGET_DIR=$(mktemp -d) cargo build --release --timings`, \
         with nothing else running",
    );
    Ok(())
}
