//! `evenkeel witness`: on another host, cosigns what only grows (C2SP `tlog-witness`).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use evenkeel_core::Timestamp;
use evenkeel_edge::ledger_key::KeySource;
use evenkeel_edge::witness::{ServerOptions, WitnessServer};
use evenkeel_ledger::tlog::{Cosigner, VerifierKey};
use evenkeel_ledger::witness::WitnessStore;
use serde_json::json;

use super::run::runtime;
use super::table::{print, table};
use super::{Exit, Failure, Global};
use crate::clock;
use crate::stop;

/// `evenkeel witness`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WitnessArgs {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<WitnessCommand>,
}

/// What `evenkeel witness` alone takes.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on; requests need no token, they are signed by the log
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7331")]
    listen: SocketAddr,
    /// A log that is cosigned, by its public key from `ledger key show`; remembered; may be repeated
    #[arg(long, value_name = "KEY")]
    log: Vec<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where a witness keeps what it knows.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Directory with the witness's key and what it has cosigned
    #[arg(
        long,
        value_name = "DIR",
        default_value = "evenkeel-witness",
        env = "EVENKEEL_WITNESS_DIR"
    )]
    dir: PathBuf,
}

/// `evenkeel witness ...`.
#[derive(Debug, Subcommand)]
enum WitnessCommand {
    /// This witness's public key, for `[[ledger.witness.servers]]`; made on first use
    Key {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Know one more log, or one more key of a log that is known
    AddLog {
        /// The public key, from `ledger key show`
        key: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// The logs that are known, and how far each has been cosigned
    Logs {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// What is kept against a log: requests that it signed and that contradict what was cosigned
    Evidence {
        /// The log, as `witness logs` prints it
        origin: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

pub(super) fn witness(global: &Global, args: &WitnessArgs) -> Result<Exit, Failure> {
    match &args.command {
        None => serve(global, &args.serve),
        Some(WitnessCommand::Key { place }) => {
            let cosigner = cosigner(&place.dir)?;
            tell(global, &json!({"key": cosigner.verifier()}), || {
                cosigner.verifier().to_string()
            });
            Ok(Exit::Healthy)
        }
        Some(WitnessCommand::AddLog { key, place }) => {
            let (_, store) = open(&place.dir)?;
            let (origin, new) = add_log(&store, key)?;
            tell(global, &json!({"origin": origin, "new": new}), || {
                format!(
                    "{origin}: {}",
                    if new {
                        "this key is trusted from now on"
                    } else {
                        "this key was known already"
                    }
                )
            });
            Ok(Exit::Healthy)
        }
        Some(WitnessCommand::Logs { place }) => logs(global, &place.dir),
        Some(WitnessCommand::Evidence { origin, place }) => evidence(global, &place.dir, origin),
    }
}

fn now_unix() -> u64 {
    u64::try_from(clock::now().as_millis() / 1000).unwrap_or(0)
}

fn cosigner(dir: &Path) -> Result<Cosigner, Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|e| Failure::target(format!("{} cannot be made: {e}", dir.display())))?;
    let source = KeySource::File(dir.join("witness.key"));
    runtime()?
        .block_on(source.cosigner_or_new())
        .map(|found| found.key)
        .map_err(|e| Failure::target(e.to_string()))
}

fn open(dir: &Path) -> Result<(Cosigner, WitnessStore), Failure> {
    let cosigner = cosigner(dir)?;
    let own = [cosigner.verifier().clone()];
    let store = WitnessStore::open(&dir.join("witness.db"), &own)
        .map_err(|e| Failure::target(e.to_string()))?;
    Ok((cosigner, store))
}

fn add_log(store: &WitnessStore, key: &str) -> Result<(String, bool), Failure> {
    let key: VerifierKey = key
        .parse()
        .map_err(|e| Failure::usage(format!("`{key}` is no public key of a log: {e}")))?;
    let new = store
        .add_log(&key, None, now_unix())
        .map_err(|e| Failure::usage(e.to_string()))?;
    Ok((key.name().to_owned(), new))
}

fn serve(global: &Global, args: &ServeArgs) -> Result<Exit, Failure> {
    let (cosigner, store) = open(&args.place.dir)?;
    for key in &args.log {
        add_log(&store, key)?;
    }
    let logs = store.logs().map_err(|e| Failure::target(e.to_string()))?;
    let key = cosigner.verifier().clone();
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|e| {
            Failure::target(format!("{} cannot be listened on: {e}; choose another with --listen", args.listen))
        })?;
        let address = listener.local_addr()?;
        let (stopper, stop) = stop::pair();
        stop::on_signals(stopper);
        tell(
            global,
            &json!({"event": "witness_started", "listen": address.to_string(), "key": key, "logs": logs.len()}),
            || {
                let mut text = format!(
                    "Witness on http://{address}, store {}\nKey for [[ledger.witness.servers]]: {key}",
                    args.place.dir.display()
                );
                for log in &logs {
                    let size = log.size.unwrap_or(0);
                    let _ = write!(text, "\n  cosigns {} ({size} entries so far)", log.origin);
                }
                if logs.is_empty() {
                    text.push_str("\n  It knows no log yet: give --log KEY, with the key that `evenkeel ledger key show` prints there");
                }
                text
            },
        );
        let server = WitnessServer::new(
            Arc::new(store),
            Arc::new(cosigner),
            now_unix,
            ServerOptions::default(),
        );
        server.serve(listener, async move { stop.requested().await }).await;
        Ok(Exit::Healthy)
    })
}

fn logs(global: &Global, dir: &Path) -> Result<Exit, Failure> {
    let (_, store) = open(dir)?;
    let logs = store.logs().map_err(|e| Failure::target(e.to_string()))?;
    if global.json {
        let all: Vec<_> = logs
            .iter()
            .map(|log| json!({"origin": log.origin, "keys": log.keys, "added": time(log.added_unix), "tree_size": log.size, "evidence": log.evidence}))
            .collect();
        print(&json!(all).to_string());
        return Ok(Exit::Healthy);
    }
    if logs.is_empty() {
        print("No log is known yet: evenkeel witness add-log KEY");
        return Ok(Exit::Healthy);
    }
    let mut t = table([
        "log",
        "entries cosigned",
        "keys",
        "kept against it",
        "known since",
    ]);
    for log in &logs {
        t.add_row([
            log.origin.clone(),
            log.size
                .map_or_else(|| "none yet".to_owned(), |size| size.to_string()),
            log.keys.len().to_string(),
            log.evidence.to_string(),
            time(log.added_unix),
        ]);
    }
    print(&t.to_string());
    Ok(Exit::Healthy)
}

fn evidence(global: &Global, dir: &Path, origin: &str) -> Result<Exit, Failure> {
    let (_, store) = open(dir)?;
    let failed = |e: evenkeel_ledger::witness::StoreError| Failure::target(e.to_string());
    let known = store.logs().map_err(failed)?;
    let Some(log) = known.iter().find(|log| log.origin == origin) else {
        return Err(Failure::usage(format!(
            "{origin} is not known here; see `evenkeel witness logs`"
        )));
    };
    let all = store.evidence(origin).map_err(failed)?;
    let fork = all.iter().any(|e| e.proves_fork(&log.keys));
    if global.json {
        let all: Vec<_> = all
            .iter()
            .map(|e| {
                json!({
                    "kind": e.kind.name(), "seen": time(e.seen_unix), "proves_fork": e.proves_fork(&log.keys),
                    "request": e.request.to_string(), "known": e.known.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        print(&json!(all).to_string());
    } else if all.is_empty() {
        print(&format!("Nothing is kept against {origin}."));
    } else {
        for e in &all {
            print(&format!(
                "== {} at {}{}",
                e.kind.name(),
                time(e.seen_unix),
                if e.proves_fork(&log.keys) {
                    ": the log signed two histories"
                } else {
                    ""
                }
            ));
            print(&e.request.to_string());
            if let Some(known) = &e.known {
                print(&format!("-- what was cosigned before\n{known}"));
            }
        }
    }
    Ok(if fork {
        Exit::LedgerDamaged
    } else {
        Exit::Healthy
    })
}

fn time(unix: u64) -> String {
    let ms = i64::try_from(unix).unwrap_or(i64::MAX).saturating_mul(1000);
    Timestamp::from_millis(ms).to_string()
}

fn tell(global: &Global, json: &serde_json::Value, text: impl FnOnce() -> String) {
    if global.json {
        print(&json.to_string());
    } else {
        print(&text());
    }
}
