//! Faults put into a guarded service: how soon they are noticed, acted on, and healed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evenkeel_ledger::{Query, Reader};
use rustix::process::Signal;

use crate::guarded::{Guarded, PATIENCE};
use crate::machine::now_ms;
use crate::services::{Guarding, Kind, Service};
use crate::table::{Samples, Table};

/// Crashes of a service whose notice is timed.
const CRASHES: usize = 15;
/// Crashes of each service whose heal is timed.
const HEALS: usize = 7;
/// Hangs for each interval.
const HANGS: usize = 6;

/// The times of one crash, in milliseconds since the kill.
struct Crash {
    noticed: f64,
    restarted: f64,
    verified: f64,
}

/// Kills the guarded service, and reads what follows.
fn one_crash(guarded: &Guarded) -> anyhow::Result<Crash> {
    let starts = guarded.starts().len();
    guarded.forget();
    let killed = guarded.signal(Signal::KILL)?;
    let noticed = guarded
        .wait_for("the crash to be noticed", |l| {
            l.is("anomaly_detected") && l.value["anomaly"]["type"] == "target_down"
        })?
        .at_ms;
    // Said when the entry `verify_healing` is durable.
    let verified = guarded.wait_for("the heal to be verified", |l| {
        l.is("step_finished") && l.value["n"] == 4
    })?;
    if verified.value["mark"] != "pass" {
        bail!("the heal was not verified: {}", verified.value);
    }
    let finished = guarded.wait_for("the end of the cycle", |l| l.is("healing_finished"))?;
    if finished.value["success"] != true {
        bail!("not healed: {}", finished.value);
    }
    let restarted = *guarded.starts().get(starts).context("no new process")?;
    Ok(Crash {
        noticed: noticed - killed,
        restarted: restarted - killed,
        verified: verified.at_ms - killed,
    })
}

/// Lets the guarded service run on for a while, so that a fault does not always meet the same moment of the watch.
fn run_on(guarded: &Guarded, n: usize) -> anyhow::Result<()> {
    guarded.forget();
    guarded.wait_for("a check that finds nothing", |l| l.is("watchdog_quiet"))?;
    std::thread::sleep(Duration::from_millis(37 * (n as u64 + 1) % 900));
    Ok(())
}

/// A crash: noticed, and the restart issued.
pub(crate) fn crash(table: &mut Table) -> anyhow::Result<()> {
    for kind in [Kind::Plain, Kind::Grace] {
        let (mut noticed, mut restarted) = (Samples::default(), Samples::default());
        let guarded = Guarded::start(kind, Guarding::default())?;
        for n in 0..CRASHES {
            run_on(&guarded, n)?;
            let crash = one_crash(&guarded)?;
            noticed.push(crash.noticed);
            restarted.push(crash.restarted);
        }
        let label = kind.label();
        table.row(
            format!("crash noticed ({label})"),
            "ms",
            Some(20.0),
            noticed,
        );
        table.row(
            format!("restart issued ({label})"),
            "ms",
            Some(50.0),
            restarted,
        );
        breakdown(&guarded, label, table)?;
    }
    Ok(())
}

/// Where the time of a cycle goes, by the times of its entries.
fn breakdown(guarded: &Guarded, label: &str, table: &mut Table) -> anyhow::Result<()> {
    const STEPS: [(&str, &str); 7] = [
        ("anomaly_detected", "start_healing_cycle"),
        ("start_healing_cycle", "take_snapshot"),
        ("take_snapshot", "select_playbook"),
        ("select_playbook", "start_step"),
        ("start_step", "finish_step"),
        ("finish_step", "verify_healing"),
        ("verify_healing", "complete_healing_cycle"),
    ];
    let entries = Reader::open(guarded.ledger())?.query(&Query::new().limit(5_000))?;
    let at = |e: &evenkeel_ledger::Entry| {
        let t: Option<jiff::Timestamp> = e.timestamp.parse().ok();
        t.map_or(f64::NAN, |t| t.as_millisecond() as f64)
    };
    let mut parts = Vec::new();
    for (from, to) in STEPS {
        let mut took = Samples::default();
        let mut begun = None;
        for entry in &entries {
            if entry.action == from {
                begun = Some(at(entry));
            } else if entry.action == to
                && let Some(begun) = begun.take()
            {
                took.push(at(entry) - begun);
            }
        }
        parts.push(format!("{to} {:.0}", took.median()));
    }
    table.note(format!(
        "steps of a cycle after anomaly_detected ({label}), medians in ms by the entries' times: {}",
        parts.join(", ")
    ));
    Ok(())
}

/// A verified heal, over the service's own start.
pub(crate) fn heal(table: &mut Table) -> anyhow::Result<()> {
    for kind in [Kind::Grace, Kind::HttpServer, Kind::Preparing] {
        let label = kind.label();
        let (mut own, mut healed, mut share) =
            (Samples::default(), Samples::default(), Samples::default());
        let guarded = Guarded::start(kind, Guarding::default())?;
        let alone = Alone::set_up(kind)?;
        // The first start makes what later ones find: it is not one of them.
        alone.start_once()?;
        for n in 0..HEALS {
            let started = alone.start_once()?;
            run_on(&guarded, n)?;
            let crash = one_crash(&guarded)?;
            own.push(started);
            healed.push(crash.verified);
            share.push(crash.verified / started);
        }
        table.row(format!("own start ({label})"), "ms", None, own);
        table.row(
            format!("kill to verified heal ({label})"),
            "ms",
            None,
            healed,
        );
        table.row(
            format!("verified heal / own start ({label})"),
            "x",
            Some(1.5),
            share,
        );
    }
    Ok(())
}

/// The same service, started by nobody but this benchmark.
struct Alone {
    service: Service,
    dir: tempfile::TempDir,
}

impl Alone {
    fn set_up(kind: Kind) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let service = Service::set_up(kind, dir.path(), Guarding::default())?;
        Ok(Self { service, dir })
    }

    /// From spawn to ready, in milliseconds.
    fn start_once(&self) -> anyhow::Result<f64> {
        let (program, arguments) = self.service.command.split_first().context("a command")?;
        let begun = now_ms();
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let patience = Instant::now();
        let mut ready = false;
        while !ready && patience.elapsed() < PATIENCE {
            ready = self.service.is_ready();
            if !ready {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let took = now_ms() - begun;
        child.kill()?;
        child.wait()?;
        if !ready {
            bail!("{} does not get ready", self.service.name);
        }
        Ok(took)
    }
}

/// A hang, by SIGSTOP, at moments spread over the interval.
pub(crate) fn hang(table: &mut Table) -> anyhow::Result<()> {
    for (interval_ms, probe_timeout_ms) in [(1_000u64, 400), (200, 80)] {
        let how = Guarding {
            interval_ms,
            probe_timeout_ms,
            stress: false,
        };
        let guarded = Guarded::start(Kind::Plain, how)?;
        let (mut took, mut intervals) = (Samples::default(), Samples::default());
        for n in 0..HANGS {
            guarded.forget();
            guarded.wait_for("a check that finds nothing", |l| l.is("watchdog_quiet"))?;
            let phase = (2 * n + 1) as f64 / (2 * HANGS) as f64;
            std::thread::sleep(Duration::from_millis(interval_ms).mul_f64(phase));
            let stopped = guarded.signal(Signal::STOP)?;
            let noticed = guarded.wait_for("the hang to be noticed", |l| {
                l.is("anomaly_detected") && l.value["anomaly"]["type"] == "target_hung"
            })?;
            took.push(noticed.at_ms - stopped);
            intervals.push((noticed.at_ms - stopped) / interval_ms as f64);
            guarded.wait_for("the heal", |l| l.is("healing_finished"))?;
        }
        table.row(
            format!("hang noticed, interval {interval_ms} ms"),
            "ms",
            None,
            took,
        );
        table.row(
            format!("hang noticed, in intervals of {interval_ms} ms"),
            "x",
            Some(2.0),
            intervals,
        );
    }
    Ok(())
}
