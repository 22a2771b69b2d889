//! `evenkeel-sim`: campaigns of seeded runs from the command line.
//!
//! The library knows no clock, no thread and no terminal; what there is of them stands here.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_sim::campaign::{Tally, run_one};
use evenkeel_sim::{Config, Mix, Report, Scenario, check, run_scenario, shrink};

const USAGE: &str = "\
Runs the healing core of Evenkeel through simulated trouble, and judges what it did.

evenkeel-sim --seeds N [--days D] [--from SEED] [--jobs N] [--mix MIX] [--every-check] [--first]
evenkeel-sim --seed N [--days D] [--mix MIX] [--every-check] [--trace]

  --seeds N      so many runs, each from a seed of its own
  --from SEED    the first of them (0)
  --days D       days of the world in each (7)
  --jobs N       so many at once (1)
  --mix MIX      campaign: everything; ordinary: the same at a fault a month; calm: no fault;
                 telemetry: only measurements are at fault; permanent: one fault that stays or
                 comes and goes (campaign)
  --first        stop at the first run that violates a property, and do not look for a shorter one
  --every-check  leave no check of the watchdog out, however quiet it is
  --seed N       one run
  --trace        print it

Exit code: 0 no property was violated, 1 one was, 2 wrong arguments.";

/// Seeds that a thread takes at a time.
const CHUNK: u64 = 16;

struct Arguments {
    config: Config,
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    jobs: usize,
    trace: bool,
    first: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        config: Config::default(),
        seed: None,
        seeds: 1000,
        from: 0,
        jobs: 1,
        trace: false,
        first: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || {
            let value = given.next().unwrap_or_default();
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} {value}: a whole number was expected"))
        };
        match name.as_str() {
            "--seeds" => found.seeds = number()?,
            "--from" => found.from = number()?,
            "--seed" => found.seed = Some(number()?),
            "--jobs" => found.jobs = usize::try_from(number()?).unwrap_or(1).clamp(1, 256),
            "--days" => {
                found.config.days = u32::try_from(number()?)
                    .ok()
                    .filter(|d| (1..=3660).contains(d))
                    .ok_or("--days: 1 to 3660 was expected")?;
            }
            "--mix" => {
                found.config.mix = match given.next().unwrap_or_default().as_str() {
                    "campaign" => Mix::Campaign,
                    "ordinary" => Mix::Ordinary,
                    "calm" => Mix::Calm,
                    "telemetry" => Mix::Telemetry,
                    "permanent" => Mix::Permanent,
                    other => {
                        return Err(format!(
                            "--mix {other}: campaign, ordinary, calm, telemetry or permanent was expected"
                        ));
                    }
                };
            }
            "--every-check" => found.config.every_check = true,
            "--first" => found.first = true,
            "--trace" => found.trace = true,
            "--help" | "-h" => return Err(String::new()),
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(found)
}

fn main() -> std::process::ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            if wrong.is_empty() {
                say(&format!("{USAGE}\n"));
                return 0.into();
            }
            complain(&format!("{wrong}\n\n{USAGE}\n"));
            return 2.into();
        }
    };
    let good = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    u8::from(!good).into()
}

/// One run; whether nothing was violated.
fn one(seed: u64, arguments: &Arguments) -> bool {
    let scenario = Scenario::draw(seed, &arguments.config);
    let trace = run_scenario(&scenario);
    let violations = check(&trace);
    if arguments.trace {
        say(&trace.to_string());
    }
    let mut tally = Tally::default();
    tally.add(&trace, &violations);
    say(&table(&tally, 0.0));
    if !violations.is_empty() {
        explain(&scenario, !arguments.trace);
    }
    violations.is_empty()
}

/// A campaign; whether nothing was violated.
fn many(arguments: &Arguments) -> bool {
    let watch = stopwatch();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let first_failure: Mutex<Option<Scenario>> = Mutex::new(None);
    let progress = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let begin = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if begin >= arguments.seeds {
                        break;
                    }
                    for n in begin..(begin + CHUNK).min(arguments.seeds) {
                        let seed = arguments.from.wrapping_add(n);
                        if let Some((scenario, _)) = run_one(seed, &arguments.config, &mut tally)
                            && let Ok(mut first) = first_failure.lock()
                            && first.as_ref().is_none_or(|f| f.seed > seed)
                        {
                            *first = Some(scenario);
                            if arguments.first {
                                next.store(arguments.seeds, Ordering::Relaxed);
                            }
                        }
                    }
                    if progress && begin.is_multiple_of(CHUNK * 64) {
                        complain(&format!("\r{begin} of {} seeds ", arguments.seeds));
                    }
                }
                if let Ok(mut total) = total.lock() {
                    total.join(tally);
                }
            });
        }
    });
    if progress {
        complain("\r");
    }
    let total = total.into_inner().unwrap_or_default();
    say(&table(&total, watch()));
    let failure = first_failure.into_inner().ok().flatten();
    if let Some(scenario) = failure.filter(|_| !arguments.first) {
        explain(&scenario, true);
    }
    total.broken.is_empty()
}

/// Prints the shortest run that breaks the same property.
fn explain(scenario: &Scenario, with_trace: bool) {
    let Some((small, violations)) = shrink(scenario) else {
        return;
    };
    say(&format!(
        "\nseed {} breaks a property; the smallest scenario that was found has {} of {} happenings and {} of {} days:\n",
        scenario.seed,
        small.size(),
        scenario.size(),
        small.days,
        scenario.days
    ));
    let trace = run_scenario(&small);
    if with_trace {
        let report = Report {
            trace: &trace,
            violations: &violations,
        };
        say(&report.to_string());
    } else {
        for v in &violations {
            say(&format!(
                "item {} [{}]: {} (SAFETY {})\n",
                v.item, v.workflow, v.rule, v.safety
            ));
        }
    }
}

fn table(tally: &Tally, seconds: f64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<26} {value:>14}");
    };
    let violations: u64 = tally.broken.values().map(|(_, n)| n).sum();
    line("seeds", tally.seeds.to_string());
    line("cycles", tally.cycles.to_string());
    for (end, n) in &tally.ends {
        line(&format!("  {end}"), n.to_string());
    }
    line("steps carried out", tally.steps.to_string());
    line("deaths of the healer", tally.deaths.to_string());
    line("checks of the watchdog", tally.checks.to_string());
    line("service-days", tally.service_days.to_string());
    line("violations", violations.to_string());
    for (rule, (seed, n)) in &tally.broken {
        line(&format!("  {rule} (seed {seed})"), n.to_string());
    }
    if seconds > 0.0 {
        line("seconds", format!("{seconds:.1}"));
        line(
            "cycles per second",
            format!("{:.0}", tally.cycles as f64 / seconds),
        );
        line(
            "service-days per second",
            format!("{:.0}", tally.service_days as f64 / seconds),
        );
    }
    text
}

/// Seconds since it was made.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a campaign says how long it took; nothing in a run depends on it"
)]
fn stopwatch() -> impl Fn() -> f64 {
    let begun = std::time::Instant::now();
    move || begun.elapsed().as_secs_f64()
}

fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
