//! Prints what a ledger states and proves, and spoiled versions of it, each with the verdict of this crate, as JSON:
//! material for other implementations. `docs/interop/interop.py` runs it and compares their verdicts with these.

use std::error::Error;
use std::sync::Arc;

use evenkeel_ledger::tlog::proof::{consistency, inclusion, verify_consistency, verify_inclusion};
use evenkeel_ledger::tlog::{KeyName, SignedNote, Signer, VerifierKey};
use evenkeel_ledger::{Hash, Ledger, NewEntry, Options, Reader};
use serde_json::{Value, json};

/// More than 256, so that proofs come from stored nodes too.
const ENTRIES: usize = 299;
/// Sizes of the log that are proved from; with the entry that names the key it has 300.
const SIZES: [u64; 13] = [1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 256, 257, 300];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ledger.db");
    let signer = signer("interop.invalid/log", 1)?;
    let key = signer.verifier().clone();
    let options = Options {
        signer: Some(Arc::new(signer)),
        // The same material each time.
        clock: || jiff::Timestamp::UNIX_EPOCH,
        ..Options::default()
    };
    let ledger = Ledger::open_with(&path, &options)?;
    for n in 0..ENTRIES {
        ledger.append_blocking(entry(n))?;
    }
    ledger.close()?;
    let reader = Reader::open(&path)?;
    let material = json!({
        "key": key.to_string(),
        "leaves": leaves(&reader)?,
        "roots": (1..=300).map(|size| Ok(reader.root_at(size)?.to_string())).collect::<Result<Vec<_>, Box<dyn Error>>>()?,
        "inclusion": inclusions(&reader)?,
        "consistency": consistencies(&reader)?,
        "notes": notes(&reader, &key)?,
    });
    println!("{material}");
    Ok(())
}

fn signer(name: &str, seed: u8) -> Result<Signer, Box<dyn Error>> {
    Ok(Signer::from_seed(KeyName::new(name)?, [seed; 32]))
}

fn entry(n: usize) -> NewEntry {
    NewEntry {
        timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
        actor: "evenkeel".to_owned(),
        action: "check".to_owned(),
        resource: format!("service:{n}"),
        subsystem: "\u{e9}\u{2192}".to_owned(),
        payload: format!("{{\"n\": {n}}}"),
        result: "success".to_owned(),
    }
}

/// The canonical leaves, as the bundles carry them.
fn leaves(reader: &Reader) -> Result<Vec<String>, Box<dyn Error>> {
    let last = reader.head()?.sequence;
    (1..=last)
        .map(|sequence| {
            let bundle = reader.prove(sequence, None)?;
            Ok(hex::encode(
                bundle.extra.ok_or("a bundle without its leaf")?,
            ))
        })
        .collect()
}

fn all_hex(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash::from_bytes(bytes)
}

/// A list of hashes spoiled in every way that keeps it a list of hashes.
fn spoiled(hashes: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..hashes.len() {
        let mut one = hashes.to_vec();
        one[at] = flipped(&one[at], 37 * at + 3);
        all.push(one);
        let mut one = hashes.to_vec();
        one.remove(at);
        all.push(one);
        let mut one = hashes.to_vec();
        one.insert(at, hashes[at]);
        all.push(one);
        if at > 0 {
            let mut one = hashes.to_vec();
            one.swap(at - 1, at);
            all.push(one);
        }
    }
    let mut one = hashes.to_vec();
    one.push(Hash::ZERO);
    all.push(one);
    all
}

fn inclusions(reader: &Reader) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut cases = Vec::new();
    for size in SIZES {
        let root = reader.root_at(size)?;
        let places = [
            0,
            1,
            2,
            size / 3,
            size / 2,
            size.saturating_sub(2),
            size - 1,
        ];
        for index in places.into_iter().filter(|index| *index < size) {
            let leaf = reader
                .get(index + 1)?
                .ok_or("an entry is missing")?
                .entry_hash;
            let hashes = inclusion(&reader.nodes(), index, size)?;
            let mut case = |index: u64,
                            size: u64,
                            leaf: &Hash,
                            hashes: &[Hash],
                            root: &Hash,
                            spoiled: bool| {
                let verdict = verify_inclusion(leaf, index, size, hashes, root).is_ok();
                cases.push(json!({
                    "index": index, "size": size, "leaf": leaf.to_string(), "root": root.to_string(),
                    "hashes": all_hex(hashes), "spoiled": spoiled, "accepted": verdict,
                }));
            };
            case(index, size, &leaf, &hashes, &root, false);
            for other in spoiled(&hashes) {
                case(index, size, &leaf, &other, &root, true);
            }
            case(index, size, &flipped(&leaf, 9), &hashes, &root, true);
            case(index, size, &leaf, &hashes, &flipped(&root, 250), true);
            if size > 1 {
                case((index + 1) % size, size, &leaf, &hashes, &root, true);
            }
            case(index + size, size, &leaf, &hashes, &root, true);
        }
    }
    Ok(cases)
}

fn consistencies(reader: &Reader) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut cases = Vec::new();
    for new in SIZES {
        for old in SIZES.into_iter().filter(|old| *old <= new) {
            let roots = (reader.root_at(old)?, reader.root_at(new)?);
            let hashes = consistency(&reader.nodes(), old, new)?;
            let mut case = |hashes: &[Hash], old_root: &Hash, new_root: &Hash, spoiled: bool| {
                let verdict = verify_consistency(old, new, hashes, old_root, new_root).is_ok();
                cases.push(json!({
                    "old": old, "new": new, "old_root": old_root.to_string(), "new_root": new_root.to_string(),
                    "hashes": all_hex(hashes), "spoiled": spoiled, "accepted": verdict,
                }));
            };
            case(&hashes, &roots.0, &roots.1, false);
            // Without hashes nothing but equal roots is shown.
            for other in spoiled(&hashes) {
                case(&other, &roots.0, &roots.1, true);
            }
            case(&hashes, &flipped(&roots.0, 77), &roots.1, true);
            case(&hashes, &roots.0, &flipped(&roots.1, 78), true);
        }
    }
    Ok(cases)
}

fn notes(reader: &Reader, key: &VerifierKey) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut cases = Vec::new();
    let other = signer("interop.invalid/log", 2)?;
    let witness = signer("witness.invalid", 3)?;
    let mut case = |note: &[u8], key: &VerifierKey, spoiled: bool| {
        let verdict = SignedNote::parse(note).is_ok_and(|note| {
            note.verify(std::slice::from_ref(key))
                .is_ok_and(|verified| verified.is_by(key))
        });
        cases.push(json!({
            "note": hex::encode(note), "key": key.to_string(), "spoiled": spoiled, "accepted": verdict,
        }));
    };
    for size in SIZES {
        let Some(signed) = reader.checkpoint_at(size)? else {
            return Err(format!("nothing is signed at {size}").into());
        };
        let note = signed.to_string();
        case(note.as_bytes(), key, false);
        // One more signature, by a key that nobody asked about.
        let mut more = signed.clone();
        more.add(witness.sign(signed.text()))?;
        case(more.to_string().as_bytes(), key, false);
        case(more.to_string().as_bytes(), witness.verifier(), false);
        // The same name with another key.
        case(note.as_bytes(), other.verifier(), true);
        let forged = SignedNote::new(signed.text(), vec![other.sign(signed.text())])?;
        case(forged.to_string().as_bytes(), key, true);
        // Every byte changed, every byte left out.
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            case(&bytes, key, true);
            let mut bytes = note.clone().into_bytes();
            bytes.remove(at);
            case(&bytes, key, true);
        }
        case(note.trim_end().as_bytes(), key, true);
        case(format!("{note}\n").as_bytes(), key, true);
        case(note.replace('\n', "\r\n").as_bytes(), key, true);
        case(format!(" {note}").as_bytes(), key, true);
    }
    Ok(cases)
}
