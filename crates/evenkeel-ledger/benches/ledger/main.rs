//! How fast the ledger is, set against what the same disk and the same core do in the same minute: `just bench-ledger`.
//!
//! Absolute figures mean nothing on a machine that others use too, so all but the proof's are ratios of two things
//! that were measured in turns. Each is taken several times; the table gives the smallest, the median and the largest,
//! and the machine's load. Nothing here is a test: no run fails because a machine is slow.
//!
//! Names of figures after `--` measure only these. The files lie in the system's temporary directory (`TMPDIR`), which
//! has to be on a disk: in memory a sync costs nothing, and the ratios to it say nothing.

mod append;
mod disk;
mod entries;
mod machine;
mod proof;
mod table;
mod verify;

/// What can be measured, in the order of the table.
const FIGURES: [&str; 5] = ["single", "groups", "bare", "verify", "proof"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test --benches` does not, and timing is no test.
    if !arguments.iter().any(|a| a == "--bench") {
        println!("nothing measured: run `cargo bench -p evenkeel-ledger --bench ledger`");
        return Ok(());
    }
    let wanted: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--bench")
        .collect();
    if let Some(unknown) = wanted.iter().find(|w| !FIGURES.contains(w)) {
        return Err(format!(
            "there is no figure `{unknown}`; figures: {}",
            FIGURES.join(", ")
        )
        .into());
    }
    let before = machine::load();
    let mut table = table::Table::default();
    for name in FIGURES {
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        eprintln!("{name} ... (load {})", machine::load());
        let measured = match name {
            "single" => append::single(&mut table),
            "groups" => append::groups(&mut table),
            "bare" => append::bare(&mut table),
            "verify" => verify::verify(&mut table),
            _ => proof::proof(&mut table),
        };
        if let Err(error) = measured {
            table.note(format!("{name} could not be measured: {error}"));
        }
    }
    print!("{}\n{table}", machine::describe(&before));
    Ok(())
}
