//! How well trouble is detected, and how often it is where there is none: one table, from scratch.
//!
//! `cargo bench -p evenkeel-detect --bench detect -- [--data DIR] [--series-months N] [--first-agent N] [FIGURE]...`;
//! figures are named in [`FIGURES`], and all are measured when none is named. `--first-agent` is the first seed of the
//! false alarms, so that a long run can be made in parts. What needs labelled series takes them from `--data` or
//! `EVENKEEL_BENCH_DATA`, and says so when they are not there. All else is made by seeded generators: the same
//! arguments give the same table. Nothing here is a test: no run fails because a figure is bad.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark reads files and times itself; the library does neither"
)]

mod detector;
mod false_alarms;
mod hindsight;
mod labelled;
mod leaks;
mod memory;
mod noise;
mod random;
mod score;
mod sets;
mod shifts;
mod speed;
mod table;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What can be measured, in the order of the table.
const FIGURES: [&str; 6] = ["nab", "cloud", "false-alarms", "leaks", "shifts", "speed"];

struct Arguments {
    data: Option<PathBuf>,
    series_months: u64,
    first_agent: u64,
    figures: Vec<String>,
}

fn arguments(given: Vec<String>) -> Result<Arguments, String> {
    let mut found = Arguments {
        data: std::env::var_os("EVENKEEL_BENCH_DATA").map(PathBuf::from),
        series_months: 300,
        first_agent: 0,
        figures: Vec::new(),
    };
    let mut given = given.into_iter();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--bench" => {}
            "--data" => found.data = Some(given.next().ok_or("--data DIR")?.into()),
            "--series-months" => {
                let n = given.next().and_then(|n| n.parse().ok());
                found.series_months = n.ok_or("--series-months N")?;
            }
            "--first-agent" => {
                let n = given.next().and_then(|n| n.parse().ok());
                found.first_agent = n.ok_or("--first-agent N")?;
            }
            figure if FIGURES.contains(&figure) => found.figures.push(argument),
            unknown => {
                return Err(format!(
                    "there is no figure `{unknown}`; figures: {}",
                    FIGURES.join(", ")
                ));
            }
        }
    }
    Ok(found)
}

fn main() -> Result<(), String> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --benches` does not, and figures are no test.
    if !given.iter().any(|a| a == "--bench") {
        println!("nothing measured: run `cargo bench -p evenkeel-detect --bench detect`");
        return Ok(());
    }
    let arguments = arguments(given)?;
    let data = arguments.data.as_deref();
    let mut table = table::Table::default();
    for name in FIGURES {
        if !arguments.figures.is_empty() && !arguments.figures.iter().any(|f| f == name) {
            continue;
        }
        eprintln!("{name} ...");
        let measured = match name {
            "nab" => labelled::nab(data, &mut table),
            "cloud" => labelled::cloud(data, &mut table),
            "shifts" => shifts::shifts(data, &mut table),
            made => {
                match made {
                    "false-alarms" => {
                        let Arguments {
                            series_months,
                            first_agent,
                            ..
                        } = arguments;
                        false_alarms::false_alarms(first_agent, series_months, &mut table);
                    }
                    "leaks" => leaks::leaks(arguments.series_months, &mut table),
                    _ => speed::speed(&mut table),
                }
                Ok(())
            }
        };
        if let Err(error) = measured {
            table.note(format!("{name} could not be measured: {error}"));
        }
    }
    print!("{table}");
    Ok(())
}

/// `run` of 0 to `n - 1` on every core, in the order of the numbers.
fn parallel<T: Send>(n: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut found: Vec<(u64, T)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= n {
                    return done;
                }
                done.push((seed, run(seed)));
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().expect("no thread panics"))
            .collect()
    });
    found.sort_by_key(|(seed, _)| *seed);
    found.into_iter().map(|(_, t)| t).collect()
}
