//! `evenkeel ledger checkpoint|prove|check-proof|consistency`.

use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_ledger::leaf::Leaf;
use evenkeel_ledger::tlog::{Checkpoint, ProofBundle, proof};
use evenkeel_ledger::{Hash, Reader};
use serde_json::json;

use super::super::table::print;
use super::{Exit, Failure, Global, against, configured_witnesses, file_of, keys};

/// `evenkeel ledger prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The entry
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    sequence: u64,
    /// By the checkpoint of exactly this many entries; the newest when absent
    #[arg(long, value_name = "ENTRIES")]
    size: Option<u64>,
    /// Where the bundle goes; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Another ledger file, such as a copy
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `evenkeel ledger check-proof`.
#[derive(Debug, Args)]
pub struct CheckProofArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    proof: PathBuf,
    /// The log's public key at the time, from `ledger key show`; may be repeated
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
    /// A witness that must have seen it; may be repeated
    #[arg(long, value_name = "KEY")]
    witness_key: Vec<String>,
    /// How many of the witnesses; all that are named when absent
    #[arg(long)]
    quorum: Option<usize>,
    /// A file with exactly the entry's payload, to be compared with what was logged
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
}

/// Most bytes of a payload that is compared: what the ledger takes.
const PAYLOAD_BYTES_MAX: u64 = evenkeel_ledger::PAYLOAD_BYTES_MAX as u64;

pub(super) fn checkpoint(
    global: &Global,
    size: Option<u64>,
    file: Option<&Path>,
) -> Result<Exit, Failure> {
    let reader = Reader::open(file_of(global, file)?)?;
    let found = match size {
        Some(size) => reader.checkpoint_at(size)?,
        None => reader.checkpoint()?,
    };
    let note = found.ok_or_else(|| {
        Failure::target(match size {
            Some(size) => format!("no checkpoint of exactly {size} entries was signed"),
            None => "nothing in this ledger was ever signed: [ledger] sign, and start Evenkeel"
                .to_owned(),
        })
    })?;
    if global.json {
        let checkpoint =
            Checkpoint::parse(note.text()).map_err(|e| Failure::ledger_damaged(e.to_string()))?;
        print(
            &json!({
                "origin": checkpoint.origin, "tree_size": checkpoint.size, "root": checkpoint.root,
                "signatures": note.signatures().iter().map(|s| json!({"name": s.name(), "id": format!("{:08x}", s.id())})).collect::<Vec<_>>(),
                "note": note.to_string(),
            })
            .to_string(),
        );
    } else {
        // The note as it is, to the byte: it is what is copied elsewhere.
        print(note.to_string().trim_end_matches('\n'));
    }
    Ok(Exit::Healthy)
}

pub(super) fn prove(global: &Global, args: &ProveArgs) -> Result<Exit, Failure> {
    let reader = Reader::open(file_of(global, args.file.as_deref())?)?;
    let bundle = reader.prove(args.sequence, args.size)?;
    let text = bundle.to_string();
    if args.out.as_os_str() == "-" {
        print(text.trim_end_matches('\n'));
        return Ok(Exit::Healthy);
    }
    crate::layout::write_atomic(&args.out, text.as_bytes())
        .map_err(|e| Failure::target(format!("{} cannot be written: {e}", args.out.display())))?;
    if global.json {
        print(&json!({"sequence": args.sequence, "file": args.out.display().to_string(), "bytes": text.len()}).to_string());
    } else {
        print(&format!(
            "Entry {} is proved by {} ({} bytes); check it with: evenkeel ledger check-proof {} --key KEY",
            args.sequence,
            args.out.display(),
            text.len(),
            args.out.display()
        ));
    }
    Ok(Exit::Healthy)
}

pub(super) fn check_proof(global: &Global, args: &CheckProofArgs) -> Result<Exit, Failure> {
    let log_keys = keys(&args.key)?;
    let mut witness_keys = keys(&args.witness_key)?;
    let quorum = args.quorum.unwrap_or(witness_keys.len());
    if witness_keys.is_empty() {
        witness_keys = configured_witnesses(global);
    }
    if quorum > witness_keys.len() {
        return Err(Failure::usage(format!(
            "a quorum of {quorum} needs as many --witness-key"
        )));
    }
    let shown = args.proof.display();
    let bytes = against::read_bounded(
        &args.proof,
        evenkeel_ledger::tlog::bundle::BUNDLE_BYTES_MAX as u64,
    )?;
    let refused = |why: String| Failure::ledger_damaged(format!("{shown} proves nothing: {why}"));
    let bundle = ProofBundle::parse(&bytes).map_err(|e| refused(e.to_string()))?;
    // What the bundle says it is about counts only through its hash.
    let leaf_bytes = bundle
        .extra
        .as_deref()
        .ok_or_else(|| refused("it does not carry the entry".to_owned()))?;
    let leaf = Leaf::decode(leaf_bytes)
        .ok_or_else(|| refused("what it carries is no entry".to_owned()))?;
    let verified = bundle
        .verify(&leaf.hash(), &log_keys, &witness_keys, quorum)
        .map_err(|e| refused(e.to_string()))?;
    if leaf.sequence != bundle.index + 1 {
        return Err(refused(format!(
            "it carries entry {} at the place of entry {}",
            leaf.sequence,
            bundle.index + 1
        )));
    }
    if !log_keys
        .iter()
        .any(|key| key.name() == verified.checkpoint.origin)
    {
        return Err(refused(format!(
            "its log is {}, another one",
            verified.checkpoint.origin
        )));
    }
    if let Some(file) = &args.payload {
        let payload = against::read_bounded(file, PAYLOAD_BYTES_MAX)?;
        if Hash::of(&payload) != leaf.payload_hash {
            return Err(refused(format!(
                "{} is not the payload that was logged",
                file.display()
            )));
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let witnesses: Vec<String> = verified
        .witnesses
        .iter()
        .map(|w| w.key.name().to_owned())
        .collect();
    if global.json {
        print(
            &json!({
                "proved": true, "origin": verified.checkpoint.origin, "tree_size": verified.checkpoint.size,
                "witnesses": witnesses, "sequence": leaf.sequence, "timestamp": text(leaf.timestamp),
                "actor": text(leaf.actor), "action": text(leaf.action), "resource": text(leaf.resource),
                "subsystem": text(leaf.subsystem), "result": text(leaf.result),
                "payload_sha256": leaf.payload_hash, "payload_compared": args.payload.is_some(),
            })
            .to_string(),
        );
        return Ok(Exit::Healthy);
    }
    print(&format!(
        "Proved: entry {} of {} entries of {}",
        leaf.sequence, verified.checkpoint.size, verified.checkpoint.origin
    ));
    print(&format!(
        "  {} {} {} {} {} {}",
        text(leaf.timestamp),
        text(leaf.actor),
        text(leaf.action),
        text(leaf.result),
        text(leaf.subsystem),
        text(leaf.resource)
    ));
    print(&format!(
        "  payload SHA-256 {}{}",
        leaf.payload_hash,
        if args.payload.is_some() {
            ", as in the file"
        } else {
            ""
        }
    ));
    print(&if witnesses.is_empty() {
        "  Seen by no witness that is known here: the log alone says so.".to_owned()
    } else {
        format!("  Seen by {}", witnesses.join(", "))
    });
    Ok(Exit::Healthy)
}

pub(super) fn consistency(
    global: &Global,
    old: &str,
    file: Option<&Path>,
) -> Result<Exit, Failure> {
    let reader = Reader::open(file_of(global, file)?)?;
    let keys = reader.keys()?;
    let old = against::checkpoint(old, || keys.origin().map(str::to_owned))?;
    let known: Vec<_> = keys.periods().iter().map(|(_, key)| key.clone()).collect();
    let refused =
        |why: String| Failure::ledger_damaged(format!("the log has not merely grown since: {why}"));
    let then = Checkpoint::parse(old.text())
        .map_err(|e| Failure::usage(format!("the old checkpoint: {e}")))?;
    old.verify(&known).map_err(|e| {
        refused(format!(
            "the old checkpoint is not by a key of this log ({e})"
        ))
    })?;
    if keys.origin() != Some(then.origin.as_str()) {
        return Err(refused(format!(
            "the old checkpoint is of {}, another log",
            then.origin
        )));
    }
    let newest = reader
        .checkpoint()?
        .ok_or_else(|| Failure::target("nothing in this ledger was ever signed"))?;
    let now =
        Checkpoint::parse(newest.text()).map_err(|e| Failure::ledger_damaged(e.to_string()))?;
    if now.size < then.size {
        return Err(refused(format!(
            "it had {} entries, and has {} now",
            then.size, now.size
        )));
    }
    let hashes = reader.consistency(then.size, now.size)?;
    // By the verifier, not by the prover: what is printed is what somebody else would find.
    proof::verify_consistency(then.size, now.size, &hashes, &then.root, &now.root)
        .map_err(|e| refused(e.to_string()))?;
    if global.json {
        print(
            &json!({"consistent": true, "old_size": then.size, "new_size": now.size, "proof": hashes, "checkpoint": newest.to_string()})
                .to_string(),
        );
        return Ok(Exit::Healthy);
    }
    print(&format!(
        "Consistent: the first {} of {} entries are those of the old checkpoint",
        then.size, now.size
    ));
    for hash in &hashes {
        print(&format!("  {hash}"));
    }
    Ok(Exit::Healthy)
}
