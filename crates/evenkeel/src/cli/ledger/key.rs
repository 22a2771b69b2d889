//! `evenkeel ledger key ...` and `evenkeel ledger drop-payloads`: what changes the ledger by a person's order.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use evenkeel_edge::ledger_key::{self, KeySource};
use evenkeel_ledger::tlog::{KeyName, Signer, VerifierKey};
use evenkeel_ledger::{DROP_BYTES_MIN, DropSelection, Ledger, Options};
use serde_json::json;

use super::super::SpanMillis;
use super::super::check::configuration;
use super::super::run::runtime;
use super::super::table::print;
use super::{Exit, Failure, Global, reader};
use crate::clock;
use crate::layout::{DataDirLock, Layout};
use crate::signing;

/// `evenkeel ledger key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// The log's public keys: pin the first one elsewhere
    Show,
    /// Sign with a new key from now on; both keys sign the change. Evenkeel must not be running
    Rotate {
        /// Take this key (`PRIVATE+KEY+...`) instead of a random one; needed where the key is no file
        #[arg(long, value_name = "FILE")]
        new: Option<PathBuf>,
    },
    /// Sign again after signing was stopped; a person's decision, and recorded
    Resume {
        /// Why that is right
        #[arg(long)]
        why: String,
    },
}

/// `evenkeel ledger drop-payloads`.
#[derive(Debug, Args)]
pub struct DropArgs {
    /// Entries older than this: `30d`, `12w`
    #[arg(long, value_name = "SPAN", value_parser = super::super::parse_span)]
    older_than: SpanMillis,
    /// Only payloads of so many bytes or more
    #[arg(long, default_value_t = DROP_BYTES_MIN, value_parser = clap::value_parser!(u64).range(DROP_BYTES_MIN..))]
    bytes_min: u64,
    /// Why, for the record
    #[arg(long)]
    why: String,
}

pub(super) fn key(global: &Global, command: &KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Show => show(global),
        KeyCommand::Rotate { new } => rotate(global, new.as_deref()),
        KeyCommand::Resume { why } => {
            let (ledger, _, _lock) = open(global)?;
            let entry = ledger.wait(ledger.resume_signing(why.clone()))?;
            ledger.close()?;
            tell(
                global,
                &json!({"resumed": true, "sequence": entry.sequence}),
                || format!("Signing goes on, by entry {}", entry.sequence),
            );
            Ok(Exit::Healthy)
        }
    }
}

fn show(global: &Global) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    let keys = reader.keys()?;
    let (Some(origin), Some(current)) = (keys.origin(), keys.current()) else {
        return Err(Failure::target(
            "this ledger has no key yet: [ledger] sign, and start Evenkeel",
        ));
    };
    if global.json {
        let periods: Vec<_> = keys
            .periods()
            .iter()
            .map(|(from, key)| json!({"from_entry": from, "key": key}))
            .collect();
        print(&json!({"origin": origin, "key": current, "keys": periods}).to_string());
        return Ok(Exit::Healthy);
    }
    print(&format!("Log {origin}"));
    for (from, key) in keys.periods() {
        print(&format!("  from entry {from}: {key}"));
    }
    print(
        "Keep the first one elsewhere, and verify with --key: a log with another first key is another log.",
    );
    Ok(Exit::Healthy)
}

fn rotate(global: &Global, new: Option<&std::path::Path>) -> Result<Exit, Failure> {
    let (config, environment, _) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    let _lock = layout.lock()?;
    let runtime = runtime()?;
    let old = runtime
        .block_on(signing::signer(&config, &environment, &layout))
        .map_err(Failure::target)?
        .ok_or_else(|| Failure::usage("[ledger] sign is false: there is no key to exchange"))?;
    let in_file = config.ledger.key_env.is_none() && config.ledger.key_command.is_empty();
    let file = signing::key_file(&config, &layout);
    let next = signing::next_key_file(&file);
    let signer = match new {
        Some(new) => runtime
            .block_on(KeySource::File(new.to_path_buf()).signer())
            .map_err(|e| Failure::usage(e.to_string()))?,
        None if in_file => {
            let name = KeyName::new(old.name()).map_err(|e| Failure::internal(e.to_string()))?;
            ledger_key::new_signer(name).map_err(|e| Failure::target(e.to_string()))?
        }
        None => {
            return Err(Failure::usage(
                "the key comes from the environment or a program: put the new one into a file, name it with --new, \
                 and put it in the old one's place afterwards",
            ));
        }
    };
    if in_file {
        ledger_key::write(&next, &signer).map_err(|e| Failure::target(e.to_string()))?;
    }
    let new_key: VerifierKey = signer.verifier().clone();
    let options = Options {
        signer: Some(Arc::clone(&old)),
        ..Options::default()
    };
    let ledger = Ledger::open_with(layout.ledger(), &options)?;
    let entry = ledger.wait(ledger.rotate_key(Arc::<Signer>::new(signer)))?;
    ledger.close()?;
    if in_file {
        std::fs::rename(&next, &file).map_err(|e| {
            Failure::target(format!(
                "the ledger trusts the new key, which still lies in {}: {e}; the next start puts it in its place",
                next.display()
            ))
        })?;
    }
    tell(
        global,
        &json!({"sequence": entry.sequence, "old_key": old.verifier(), "key": new_key}),
        || {
            format!(
                "Entry {}: {new_key} signs from now on{}",
                entry.sequence,
                if in_file {
                    ""
                } else {
                    "; put it in the old one's place before the next start"
                }
            )
        },
    );
    print_unless_json(
        global,
        "Tell the witnesses: `evenkeel witness add-log KEY` there takes it beside the old one.",
    );
    Ok(Exit::Healthy)
}

pub(super) fn drop_payloads(global: &Global, args: &DropArgs) -> Result<Exit, Failure> {
    let (ledger, _, _lock) = open(global)?;
    let selection = DropSelection {
        before: Some(clock::now().plus_millis(-args.older_than.0).to_string()),
        bytes_min: args.bytes_min,
        // The healer's memory is folded from these.
        except_subsystem: Some(evenkeel_core::record::SUBSYSTEM.to_owned()),
        ..DropSelection::default()
    };
    let (mut entries, mut bytes) = (0, 0);
    // Ends: each call that is not the last drops at least one, and what is dropped is not found again.
    loop {
        let dropped = ledger.wait(ledger.drop_payloads(selection.clone(), args.why.clone()))?;
        entries += dropped.entries;
        bytes += dropped.bytes;
        if dropped.finished {
            break;
        }
    }
    ledger.close()?;
    tell(global, &json!({"dropped": entries, "bytes": bytes}), || {
        format!(
            "Dropped {entries} payloads, {bytes} bytes; their hashes stay, and the log verifies as before"
        )
    });
    Ok(Exit::Healthy)
}

/// The ledger for writing, with its key. The data directory is locked: a running Evenkeel keeps its own.
fn open(global: &Global) -> Result<(Ledger, Layout, DataDirLock), Failure> {
    let (config, environment, _) = configuration(global)?;
    let layout = Layout::new(&global.data_dir, config.profile);
    if !layout.ledger().exists() {
        return Err(Failure::target(format!(
            "there is no ledger in {}",
            layout.root().display()
        )));
    }
    let lock = layout.lock()?;
    let options = Options {
        signer: runtime()?
            .block_on(signing::signer(&config, &environment, &layout))
            .map_err(Failure::target)?,
        ..Options::default()
    };
    let ledger = Ledger::open_with(layout.ledger(), &options)?;
    Ok((ledger, layout, lock))
}

fn tell(global: &Global, json: &serde_json::Value, text: impl FnOnce() -> String) {
    if global.json {
        print(&json.to_string());
    } else {
        print(&text());
    }
}

fn print_unless_json(global: &Global, text: &str) {
    if !global.json {
        print(text);
    }
}
