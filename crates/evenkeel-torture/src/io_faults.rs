//! Failing calls: one workload, and every single call to the disk that it makes failing once, or from then on. Nothing
//! acknowledged may be lost, the writer has to say that it failed and take nothing more, and a reopened ledger goes
//! on. After each of them the power may go, too.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use rusqlite::ffi;

use crate::check::{Expected, Place, judge};
use crate::disk::Disk;
use crate::power_loss::choices;
use crate::random::Random;
use crate::recorder::{Call, Fault, Op, Plant, Recorder};
use crate::workload::{Plan, Step, drive};

/// How each call fails: SQLite's result code, and whether half of a write is left behind.
const WAYS: [(Call, c_int, bool); 10] = [
    (Call::Open, ffi::SQLITE_CANTOPEN, false),
    (Call::Open, ffi::SQLITE_IOERR, false),
    (Call::Read, ffi::SQLITE_IOERR_READ, false),
    (Call::Write, ffi::SQLITE_IOERR_WRITE, false),
    (Call::Write, ffi::SQLITE_IOERR_WRITE, true),
    (Call::Write, ffi::SQLITE_FULL, false),
    (Call::Write, ffi::SQLITE_FULL, true),
    (Call::Sync, ffi::SQLITE_IOERR_FSYNC, false),
    (Call::Truncate, ffi::SQLITE_IOERR_TRUNCATE, false),
    (Call::Delete, ffi::SQLITE_IOERR_DELETE, false),
];

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Seed of the power losses that follow.
    pub seed: u64,
    /// One of so many calls is made to fail; 1 for every one.
    pub every: u64,
    /// Whether to tell progress on standard error.
    pub progress: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Workloads in which a call failed.
    pub runs: u64,
    /// For each kind of call: runs that the ledger or its opening ended with an error, and runs that went on, because
    /// SQLite got by or because it was not the ledger's own call that failed.
    pub ended: BTreeMap<String, (u64, u64)>,
    /// Power losses after a failure, each of them checked.
    pub power_losses: u64,
    /// What was lost or wrong.
    pub losses: Vec<Loss>,
}

/// A failure that the ledger did not survive.
#[derive(Debug)]
pub struct Loss {
    /// What failed.
    pub fault: Fault,
    /// What is lost or wrong.
    pub problem: String,
    /// The files.
    pub kept_in: PathBuf,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  after {:?}\n  state in {}",
            self.problem,
            self.fault,
            self.kept_in.display()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} workloads with a failing call (", self.runs)?;
        for (at, (call, (ended, passed))) in self.ended.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{call}: {ended} ended, {passed} got by")?;
        }
        write!(
            f,
            "), {} power losses after them; {} losses",
            self.power_losses,
            self.losses.len()
        )
    }
}

/// A workload with everything in it.
fn plan() -> Plan {
    Plan(vec![
        Step::One(30),
        Step::Batch(3),
        Step::Checkpoint("PASSIVE"),
        Step::Together(3),
        Step::One(9000),
        Step::Reopen,
        Step::One(30),
        Step::Checkpoint("TRUNCATE"),
        Step::One(30),
        Step::Reopen,
        Step::Batch(2),
    ])
}

/// How often the workload makes each call when none fails.
fn calls() -> anyhow::Result<BTreeMap<usize, u64>> {
    let place = Place::new().context("making a directory to record in")?;
    let recorder = Recorder::start(place.path(), Plant::default());
    let driven = drive(place.path(), &recorder, &plan(), true);
    recorder.stop();
    if let Some(error) = driven.failure {
        anyhow::bail!("the workload fails without a fault: {error}");
    }
    Ok(Call::ALL
        .iter()
        .enumerate()
        .map(|(at, call)| (at, recorder.calls(*call)))
        .collect())
}

/// Makes the calls fail, one workload for each. An error is about the surroundings; losses are in the summary.
pub fn run(settings: Settings) -> anyhow::Result<Summary> {
    let calls = calls()?;
    let mut summary = Summary::default();
    for (call, code, halfway) in WAYS {
        let at = Call::ALL.iter().position(|one| *one == call);
        let made = at.and_then(|at| calls.get(&at)).copied().unwrap_or(0);
        for lasting in [false, true] {
            for nth in
                (1..=made).filter(|nth| nth % settings.every == settings.seed % settings.every)
            {
                let fault = Fault {
                    call,
                    nth,
                    lasting,
                    code,
                    halfway,
                };
                one(fault, settings.seed, &mut summary)?;
            }
        }
        if settings.progress {
            eprintln!("{call:?} with code {code}: {summary}");
        }
    }
    Ok(summary)
}

fn one(fault: Fault, seed: u64, summary: &mut Summary) -> anyhow::Result<()> {
    let place = Place::new().context("making a directory to record in")?;
    let plant = Plant {
        fault: Some(fault),
        ..Plant::default()
    };
    let recorder = Recorder::start(place.path(), plant);
    let driven = drive(place.path(), &recorder, &plan(), true);
    let ops = recorder.stop();
    let Some(fired) = recorder.fired() else {
        // Groups form by chance, so a run may make a call or two less than the one that was counted.
        return Ok(());
    };
    summary.runs += 1;
    let (ended, passed) = summary
        .ended
        .entry(format!("{:?}", fault.call))
        .or_default();
    *(if driven.failure.is_some() {
        ended
    } else {
        passed
    }) += 1;
    let expected = Expected::of(&driven);
    let judged = match driven.faults.first() {
        Some(fault) => Err(fault.clone()),
        None => judge(place.path(), &expected, expected.said_at(usize::MAX), true),
    };
    if let Err(problem) = judged {
        summary.losses.push(Loss {
            fault,
            problem,
            kept_in: place.keep(),
        });
        return Ok(());
    }
    // And the power goes: right after the failure, some time later, or at the end.
    let mut random = Random::new(seed, fault.nth);
    let between = fired + random.index(ops.len().saturating_sub(fired));
    let mut moments = vec![fired, (fired + 1).min(ops.len()), between, ops.len()];
    moments.sort_unstable();
    moments.dedup();
    for moment in moments {
        power_loss(fault, &ops, moment, &expected, &mut random, summary)?;
    }
    Ok(())
}

fn power_loss(
    fault: Fault,
    ops: &[Op],
    moment: usize,
    expected: &Expected,
    random: &mut Random,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut disk = Disk::default();
    for (position, op) in ops[..moment].iter().enumerate() {
        disk.apply(position, op);
    }
    let said = expected.said_at(moment);
    let place = Place::new().context("making a directory for states")?;
    for choice in choices(disk.uncertain(), 2, random) {
        let contents = disk.after_power_loss(choice);
        place.fill(&contents).context("writing a state")?;
        summary.power_losses += 1;
        if let Err(problem) = judge(place.path(), expected, said, false) {
            place.fill(&contents).context("writing a state")?;
            let problem = format!(
                "after a power loss before operation {moment} that kept {choice:?}: {problem}"
            );
            summary.losses.push(Loss {
                fault,
                problem,
                kept_in: place.keep(),
            });
            return Ok(());
        }
    }
    Ok(())
}
