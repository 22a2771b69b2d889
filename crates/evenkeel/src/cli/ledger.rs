//! `evenkeel ledger ...`: the log that nobody can quietly edit, for people and for those who do not trust us.

mod against;
mod export;
mod key;
mod prove;
mod tail;
mod verify;

use std::path::PathBuf;

use clap::Subcommand;
use evenkeel_ledger::Reader;
use evenkeel_ledger::tlog::VerifierKey;

use super::{Exit, Failure, Global};
use crate::config::{Environment, Profile};
use crate::layout::Layout;

#[cfg(feature = "demo")]
pub(crate) use verify::describe;

/// `evenkeel ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Re-hash every entry; check chain, tree, checkpoints, keys and schema; say who stands for how much
    Verify(verify::VerifyArgs),
    /// The newest entries
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        lines: u32,
        /// Go on as entries are written
        #[arg(long, short)]
        follow: bool,
    },
    /// The newest signed checkpoint, with its cosignatures: copy it to another machine
    Checkpoint {
        /// That of exactly this many entries
        #[arg(long, value_name = "ENTRIES")]
        size: Option<u64>,
        /// Another ledger file, such as a copy
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Prove that an entry is in the log: a bundle that checks offline
    Prove(prove::ProveArgs),
    /// Check a bundle that `prove` wrote; needs no ledger
    CheckProof(prove::CheckProofArgs),
    /// Prove that the log has only grown since a checkpoint
    Consistency {
        /// The old checkpoint: a file or an address, as for `verify --against`
        #[arg(value_name = "FILE|URL")]
        old: String,
        /// Another ledger file, such as a copy
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write the log out, for others to verify
    Export(export::ExportArgs),
    /// The key that signs checkpoints
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Drop old payloads and keep their hashes; Evenkeel must not be running
    DropPayloads(key::DropArgs),
}

/// Runs one of them.
pub(super) fn ledger(global: &Global, command: LedgerCommand) -> Result<Exit, Failure> {
    match command {
        LedgerCommand::Verify(args) => verify::verify(global, &args),
        LedgerCommand::Tail { lines, follow } => tail::tail(global, lines, follow),
        LedgerCommand::Checkpoint { size, file } => {
            prove::checkpoint(global, size, file.as_deref())
        }
        LedgerCommand::Prove(args) => prove::prove(global, &args),
        LedgerCommand::CheckProof(args) => prove::check_proof(global, &args),
        LedgerCommand::Consistency { old, file } => {
            prove::consistency(global, &old, file.as_deref())
        }
        LedgerCommand::Export(args) => export::export(global, &args),
        LedgerCommand::Key(command) => key::key(global, &command),
        LedgerCommand::DropPayloads(args) => key::drop_payloads(global, &args),
    }
}

/// The ledger's file: the one named, or the data directory's.
fn file_of(global: &Global, named: Option<&std::path::Path>) -> Result<PathBuf, Failure> {
    let path = match named {
        Some(file) => file.to_path_buf(),
        None => Layout::existing(&global.data_dir, Profile::Service).ledger(),
    };
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::target(match named {
        Some(file) => format!("there is no ledger at {}", file.display()),
        None => format!(
            "there is no ledger in {}: nothing has run there yet (name another with --data-dir)",
            global.data_dir.display()
        ),
    }))
}

/// Opens the ledger of the data directory for reading.
pub(super) fn reader(global: &Global) -> Result<(Layout, Reader), Failure> {
    let path = file_of(global, None)?;
    let layout = Layout::existing(&global.data_dir, Profile::Service);
    Ok((layout, Reader::open(&path)?))
}

/// The witnesses of the configuration, where there is one that can be read. A ledger is also verified without.
pub(super) fn configured_witnesses(global: &Global) -> Vec<VerifierKey> {
    let dir = global.config.parent().map(std::path::Path::to_path_buf);
    let environment = Environment::read(&dir.unwrap_or_default());
    crate::config::load(&global.config, &environment)
        .map(|config| config.ledger.witness.keys())
        .unwrap_or_default()
}

/// Keys from the command line.
fn keys(texts: &[String]) -> Result<Vec<VerifierKey>, Failure> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|e| Failure::usage(format!("`{text}` is no public key: {e}")))
        })
        .collect()
}
