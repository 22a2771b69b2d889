//! The product's figures, measured: `cargo bench -p evenkeel --bench figures`, printed as a table.
//!
//! The real program guards real processes here, and real faults are put into them. Each figure is taken several times;
//! the table gives the smallest, the median and the largest. The machine is as it is, so its load is printed too, and
//! what can be is set in relation to something measured in the same minute. Nothing here is a test: no run fails
//! because a machine is slow.
//!
//! Names of figures after `--` measure only these.

#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod footprint;
#[cfg(target_os = "linux")]
mod guarded;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod services;
#[cfg(target_os = "linux")]
mod table;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the figures are read from /proc: they can be measured on Linux only");
}

/// What can be measured, in the order of the table.
#[cfg(target_os = "linux")]
const FIGURES: [&str; 7] = [
    "crash",
    "heal",
    "hang",
    "footprint",
    "suite",
    "size",
    "disk",
];

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use std::io::Write as _;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(services::STAMP_AND_EXEC) => return services::stamp_and_exec(&arguments[1..]),
        Some(services::PLAIN_SERVICE) => return services::plain_service(&arguments[1..]),
        _ => {}
    }
    // `cargo bench` says so; `cargo test --benches` does not, and timing is no test.
    if !arguments.iter().any(|a| a == "--bench") {
        println!("nothing measured: run `cargo bench -p evenkeel --bench figures`");
        return Ok(());
    }
    let wanted: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--bench")
        .collect();
    if let Some(unknown) = wanted.iter().find(|w| !FIGURES.contains(w)) {
        anyhow::bail!(
            "there is no figure `{unknown}`; figures: {}",
            FIGURES.join(", ")
        );
    }
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.contains(name);
    let before = machine::Load::now();
    let mut table = table::Table::default();
    for name in FIGURES.iter().filter(|n| is_wanted(n)) {
        eprintln!("{name} ... (load {})", machine::Load::now());
        let measured = match *name {
            "crash" => faults::crash(&mut table),
            "heal" => faults::heal(&mut table),
            "hang" => faults::hang(&mut table),
            "footprint" => footprint::watching(&mut table),
            "suite" => footprint::suite(&mut table),
            "size" => footprint::size(&mut table),
            _ => disk::append(&mut table),
        };
        if let Err(e) = measured {
            table.note(format!("{name} could not be measured: {e:#}"));
        }
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", machine::describe(&before))?;
    write!(out, "\n{table}")?;
    Ok(())
}
