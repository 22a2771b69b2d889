//! Attacks on who signs: keys exchanged, weaker or unknown algorithms, checkpoints and cosignatures forged or moved.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_ledger::tlog::{Checkpoint, Cosigner, KeyName, SignedNote, Signer};
use evenkeel_ledger::{Hash, own};
use sha2::{Digest as _, Sha256};

use crate::contents::{ACTION, Contents, ENTRY_HASH, PAYLOAD, Row, rotation};
use crate::honest::{WITNESS, key_entries, signer};
use crate::rng::Rng;
use crate::{Class, First, Made};

fn thief(rng: &mut Rng) -> Arc<Signer> {
    signer(rng.bytes())
}

pub(crate) const SUBSTITUTED: Class = Class {
    name: "substituted key",
    fits: |world| !world.contents.checkpoints.is_empty(),
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let mine = thief(rng);
        let trust = *key_entries(&contents).first().unwrap();
        if rng.once_in(2) {
            // From the first key on: all is signed anew, by keys of the attacker's own.
            let mut keys = vec![Arc::clone(&mine)];
            keys.extend(world.keys[1..].iter().map(|_| thief(rng)));
            let row = contents.row(trust);
            row.texts[PAYLOAD] = row.texts[PAYLOAD].replace(
                &world.keys[0].verifier().to_string(),
                &mine.verifier().to_string(),
            );
            contents.resign(trust, &keys);
            contents.cosignatures.clear();
            contents.write(&world.contents, path);
            return Made::only_elsewhere(First::Within(trust));
        }
        // By a rotation at the end that the log's key did not sign; the log goes on with the attacker's.
        let at = contents.size() + 1;
        let head = contents.rows.last().unwrap().texts[ENTRY_HASH].clone();
        let last = world.keys.last().unwrap();
        let other = thief(rng);
        let mut payload = rotation(&other, &mine, at, &head);
        match rng.below(3) {
            // It says that the old key is the log's, which did not sign.
            0 => {
                payload =
                    payload.replace(&other.verifier().to_string(), &last.verifier().to_string());
            }
            // Or says in the signature, too, that it is by the log's key.
            1 => {
                let (name, id) = (last.name(), last.verifier().id());
                let text = format!(
                    "evenkeel-ledger-key-rotation-v1\n{name}\n{}\n{}\n{at}\n{head}\n",
                    last.verifier(),
                    mine.verifier()
                );
                let forged = line(name, id, &rng.bytes::<64>());
                let note = format!("{text}\n{forged}\n{}\n", mine.sign(&text));
                payload =
                    serde_json::json!({"origin": name, "old_key": last.verifier().to_string(),
                    "new_key": mine.verifier().to_string(), "note": note})
                    .to_string();
            }
            _ => {}
        }
        let mut row: Row = contents.row(trust).clone();
        row.sequence = at;
        own::ROTATE_KEY.clone_into(&mut row.texts[ACTION]);
        row.texts[PAYLOAD] = payload;
        contents.rows.push(row);
        contents.rehash(at);
        let root = root(&contents, at);
        let note = Checkpoint::new(mine.name(), u64::try_from(at).unwrap(), root).sign(&mine);
        contents.checkpoints.insert(at, note.unwrap().to_string());
        contents.write(&world.contents, path);
        Made::told(First::At(at))
    },
};

fn root(contents: &Contents, size: i64) -> Hash {
    let mut tree = evenkeel_ledger::merkle::Frontier::new();
    let rows = contents.rows.iter().filter(|row| row.sequence <= size);
    rows.for_each(|row| tree.push(row.hash()));
    tree.root()
}

/// A signature line, whatever it holds.
fn line(name: &str, id: u32, signature: &[u8]) -> String {
    let bytes = [&id.to_be_bytes()[..], signature].concat();
    format!("\u{2014} {name} {}", STANDARD.encode(bytes))
}

/// A key's text, whatever it holds.
fn vkey(name: &str, algorithm: u8, public: &[u8]) -> (String, u32) {
    let mut sha = Sha256::new_with_prefix(name);
    sha.update([b'\n', algorithm]);
    sha.update(public);
    let hash = sha.finalize();
    let id = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let bytes = [&[algorithm][..], public].concat();
    (format!("{name}+{id:08x}+{}", STANDARD.encode(bytes)), id)
}

/// A point of order 1, by its encoding: by the equation alone one signature fits every text.
fn weak_point() -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = 1;
    point
}

pub(crate) const ALGORITHM: Class = Class {
    name: "weaker or unknown algorithm",
    fits: |_| true,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let key = &world.keys[0];
        let name = key.name();
        let trust = *key_entries(&contents).first().unwrap();
        let sizes: Vec<i64> = contents.checkpoints.keys().copied().collect();
        let size = *rng.pick(&sizes);
        let text = contents.checkpoints[&size]
            .split_once("\n\n")
            .unwrap()
            .0
            .to_owned()
            + "\n";
        let first = if rng.once_in(3) {
            // A checkpoint is signed by the log's own secret, by another algorithm than the log's.
            let algorithm = *rng.pick(&[0x02, 0x04, 0x06]);
            let (_, id) = vkey(name, algorithm, key.verifier().public());
            let signed = key.sign(&text);
            let note = format!("{text}\n{}\n", line(name, id, signed.signature()));
            contents.checkpoints.insert(size, note);
            First::At(size)
        } else {
            // The log trusts a key of another algorithm, or one for which anybody can sign; everything is signed with it.
            let (algorithm, public) = if rng.once_in(2) {
                let algorithm = *rng.pick(&[0x00, 0x02, 0x03, 0x04, 0x05, 0x06, 0xff]);
                (algorithm, *key.verifier().public())
            } else {
                (0x01, weak_point())
            };
            let (weak, id) = vkey(name, algorithm, &public);
            let row = contents.row(trust);
            row.texts[PAYLOAD] = row.texts[PAYLOAD].replace(&key.verifier().to_string(), &weak);
            contents.resign(trust, &world.keys);
            for note in contents.checkpoints.values_mut() {
                let text = note.split_once("\n\n").unwrap().0.to_owned();
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&weak_point());
                *note = format!("{text}\n\n{}\n", line(name, id, &signature));
            }
            First::Within(trust)
        };
        contents.write(&world.contents, path);
        Made::told(first)
    },
};

pub(crate) const CHECKPOINT: Class = Class {
    name: "checkpoint forged or moved",
    fits: |world| world.contents.checkpoints.len() > 2,
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let sizes: Vec<i64> = contents.checkpoints.keys().copied().collect();
        let size = *rng.pick(&sizes);
        let note = contents.checkpoints[&size].clone();
        let (text, lines) = note.split_once("\n\n").unwrap();
        let first = match rng.below(5) {
            // Another statement under the old signature.
            0 => {
                let other = text.replacen(&size.to_string(), &(size + 1).to_string(), 1);
                let changed = if other == text {
                    format!("x{text}")
                } else {
                    other
                };
                contents
                    .checkpoints
                    .insert(size, format!("{changed}\n\n{lines}"));
                size
            }
            // The right statement by somebody else, under the log's name.
            1 => {
                let text = format!("{text}\n");
                let mine = thief(rng).sign(&text);
                let note = SignedNote::new(text, vec![mine]).unwrap();
                contents.checkpoints.insert(size, note.to_string());
                size
            }
            // One of the log's own, in another place.
            2 => {
                let other = loop {
                    let other = *rng.pick(&sizes);
                    if other != size {
                        break other;
                    }
                };
                let moved = contents.checkpoints[&other].clone();
                contents.checkpoints.insert(size, moved);
                size
            }
            // One about entries that are not there.
            3 => {
                let far = contents.size() + rng.within(1, 1000);
                contents.checkpoints.insert(far, note.clone());
                contents.size() + 1
            }
            // One bit of the signature.
            _ => {
                let line: evenkeel_ledger::tlog::SignatureLine = lines.trim_end().parse().unwrap();
                let mut signature = line.signature().to_vec();
                let at = rng.below(64);
                signature[at] ^= 1 << rng.below(8);
                let forged = self::line(line.name(), line.id(), &signature);
                contents
                    .checkpoints
                    .insert(size, format!("{text}\n\n{forged}\n"));
                size
            }
        };
        contents.write(&world.contents, path);
        Made::told(First::At(first))
    },
};

pub(crate) const COSIGNATURE: Class = Class {
    name: "cosignature forged or moved",
    fits: |world| !world.contents.cosignatures.is_empty(),
    attack: |rng, world, path| {
        let mut contents = world.contents.clone();
        let place = rng.below(contents.cosignatures.len());
        let (size, _, old, received) = contents.cosignatures[place].clone();
        let parsed: evenkeel_ledger::tlog::SignatureLine = old.parse().unwrap();
        let text = contents.checkpoints[&size]
            .split_once("\n\n")
            .unwrap()
            .0
            .to_owned()
            + "\n";
        let mut signature = parsed.signature().to_vec();
        let own = |signature: &[u8]| line(WITNESS, world.witness.id(), signature);
        let (at, name, forged) = match rng.below(6) {
            // One bit: of the time, or of the signature.
            0 => {
                let at = rng.below(72);
                signature[at] ^= 1 << rng.below(8);
                (size, WITNESS, own(&signature))
            }
            // By another key that says it is the witness.
            1 => {
                let name = KeyName::new(WITNESS).unwrap();
                let mine = Cosigner::from_seed(name, rng.bytes()).cosign(&text, 1_769_860_800);
                (size, WITNESS, own(mine.signature()))
            }
            // A plain signature, without a time.
            2 => (size, WITNESS, own(&signature[8..])),
            // The witness's own, on a checkpoint that it did not sign.
            3 => {
                let sizes = contents.checkpoints.keys();
                let others: Vec<i64> = sizes.copied().filter(|other| *other != size).collect();
                (*rng.pick(&others), WITNESS, old.clone())
            }
            // On a checkpoint that there is not.
            4 => {
                let none = (1..=contents.size() + 1)
                    .find(|size| !contents.checkpoints.contains_key(size))
                    .unwrap();
                (none, WITNESS, old.clone())
            }
            // Under another's name.
            _ => (size, "witness.example/two", old.clone()),
        };
        let row = (at, name.to_owned(), forged, received);
        if rng.once_in(2) {
            contents.cosignatures[place] = row;
        } else {
            contents
                .cosignatures
                .retain(|other| (other.0, &other.2) != (row.0, &row.2));
            contents.cosignatures.push(row);
        }
        contents.write(&world.contents, path);
        let first = at.min(contents.size() + 1);
        Made::told(First::At(first))
    },
};
