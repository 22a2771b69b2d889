//! The `grace` program: parses its arguments and hands over to the library.
//! It may not hold any behaviour of its own.

use std::process::ExitCode;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    name = "grace",
    version,
    about = "Grace, a small real assistant backend"
)]
struct Cli {
    #[command(flatten)]
    grace: grace::GraceArgs,
}

fn main() -> ExitCode {
    match grace::run(Cli::parse().grace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grace: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
