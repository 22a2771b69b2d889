//! `evenkeel-torture`: see the library. Exit 0 when nothing is lost, 1 when something is, 2 when it could not be run.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evenkeel_torture::recorder::Plant;
#[cfg(target_os = "linux")]
use evenkeel_torture::rollback;
use evenkeel_torture::{io_faults, kill, power_loss};

/// Power losses, failing disks and kills for the ledger and the rollback.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check what disks may hold after a power loss.
    PowerLoss {
        /// Distinct states to check.
        #[arg(long, default_value_t = 100_000)]
        states: u64,
        /// Same seed, same workloads and choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only this recording of the seed, all of its states.
        #[arg(long)]
        recording: Option<u64>,
        /// A bug on purpose: syncs are not made. It has to be found.
        #[arg(long)]
        drop_syncs: bool,
        /// Another: entries count as acknowledged before the sync. It has to be found.
        #[arg(long)]
        tell_early: bool,
    },
    /// Make every call to the disk fail in turn.
    IoFaults {
        /// Seed of the power losses after each failure.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Kill processes that append.
    Kill {
        /// Kills.
        #[arg(long, default_value_t = 10_000)]
        rounds: u64,
        /// Same seed, same moments, as far as a clock can repeat them.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A bug on purpose: acknowledged before it is written. It has to be found.
        #[arg(long)]
        tell_early: bool,
    },
    /// The process that is killed.
    #[command(hide = true)]
    KillChild {
        path: PathBuf,
        round: u64,
        #[arg(long)]
        tell_early: bool,
    },
    /// Kill a rollback at every system call that it makes.
    #[cfg(target_os = "linux")]
    Rollback {
        /// Kill at every this manyth call only.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        every: u64,
        /// A bug on purpose: the next start recovers nothing. It has to be found.
        #[arg(long)]
        skip_recovery: bool,
    },
    /// The process that is killed.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    RollbackChild { directory: PathBuf, act: String },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("evenkeel-torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // Each waits for its ledger's writer thread half of the time.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) * 2;
    match command {
        Command::PowerLoss {
            states,
            seed,
            recording,
            drop_syncs,
            tell_early,
        } => {
            let plant = Plant {
                drop_syncs,
                ..Plant::default()
            };
            let summary = power_loss::run(power_loss::Settings {
                states,
                seed,
                recording,
                plant,
                tell_early,
                threads,
                progress: true,
            })?;
            Ok(tell(
                &format!("power loss, seed {seed}"),
                &summary,
                &summary.losses,
            ))
        }
        Command::IoFaults { seed } => {
            let summary = io_faults::run(io_faults::Settings {
                seed,
                every: 1,
                progress: true,
            })?;
            Ok(tell(
                &format!("I/O faults, seed {seed}"),
                &summary,
                &summary.losses,
            ))
        }
        Command::Kill {
            rounds,
            seed,
            tell_early,
        } => {
            let summary = kill::run(&kill::Settings {
                rounds,
                seed,
                threads,
                program: std::env::current_exe()?,
                tell_early,
                progress: true,
            })?;
            Ok(tell(
                &format!("kill -9, seed {seed}"),
                &summary,
                &summary.losses,
            ))
        }
        Command::KillChild {
            path,
            round,
            tell_early,
        } => {
            kill::child(&path, round, tell_early)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(target_os = "linux")]
        Command::Rollback {
            every,
            skip_recovery,
        } => {
            let summary = rollback::run(&rollback::Settings {
                every,
                first: 1,
                threads,
                program: std::env::current_exe()?,
                skip_recovery,
                progress: true,
            })?;
            Ok(tell("rollback", &summary, &summary.losses))
        }
        #[cfg(target_os = "linux")]
        Command::RollbackChild { directory, act } => {
            rollback::child(&directory, &act)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn tell(what: &str, summary: &impl Display, losses: &[impl Display]) -> ExitCode {
    for loss in losses {
        println!("LOST: {loss}");
    }
    println!("{what}: {summary}");
    if losses.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
