//! The command.

use std::process::ExitCode;

use clap::Parser as _;
use evenkeel::cli::{Cli, dispatch};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are answers; everything else is a usage error: 2.
            let code = if e.use_stderr() { 2 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            eprintln!("evenkeel: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
