//! Which key signs the log, from which entry on: read from the log's own entries. The first key is stated
//! ([`own::TRUST_KEY`]), each later one by an entry that the old key and the new one signed ([`own::ROTATE_KEY`]).
//! Whoever verifies pins the first key, and the entries lead to the others. Pure.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::tlog::{Algorithm, KeyError, NoteError, SignedNote, Signer, VerifierKey};
use crate::{DamageKind, Entry, Hash, own};

/// First line of what both keys sign when one follows the other. No checkpoint begins so: it is not an origin.
const ROTATION: &str = "evenkeel-ledger-key-rotation-v1";

/// Payload of [`own::TRUST_KEY`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    origin: String,
    key: String,
}

/// Payload of [`own::ROTATE_KEY`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    origin: String,
    old_key: String,
    new_key: String,
    /// The statement, with the signatures of both keys.
    note: String,
}

/// The payload that names the log and its first key.
pub(crate) fn trust(signer: &Signer) -> impl Serialize + use<> {
    Trust {
        origin: signer.name().to_owned(),
        key: signer.verifier().to_string(),
    }
}

/// The payload that makes `new` the key after `old`, as the entry at this place of the log.
pub(crate) fn rotation(
    old: &Signer,
    new: &Signer,
    sequence: u64,
    previous_hash: Hash,
) -> Result<impl Serialize + use<>, NoteError> {
    let text = statement(
        old.name(),
        old.verifier(),
        new.verifier(),
        sequence,
        previous_hash,
    );
    let signatures = vec![old.sign(&text), new.sign(&text)];
    Ok(Rotation {
        origin: old.name().to_owned(),
        old_key: old.verifier().to_string(),
        new_key: new.verifier().to_string(),
        note: SignedNote::new(text, signatures)?.to_string(),
    })
}

/// What both keys sign. It binds the place in the log, so it serves no other log and no other time.
fn statement(
    origin: &str,
    old: &VerifierKey,
    new: &VerifierKey,
    sequence: u64,
    previous_hash: Hash,
) -> String {
    format!("{ROTATION}\n{origin}\n{old}\n{new}\n{sequence}\n{previous_hash}\n")
}

/// The keys of a log over time. Empty for a log that is not signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyHistory {
    origin: String,
    /// From which entry on, and which key.
    periods: Vec<(u64, VerifierKey)>,
}

impl KeyHistory {
    /// The name of the log, `None` if it has no key.
    pub fn origin(&self) -> Option<&str> {
        self.current().map(|_| self.origin.as_str())
    }

    /// The key that signs now.
    pub fn current(&self) -> Option<&VerifierKey> {
        self.periods.last().map(|(_, key)| key)
    }

    /// The first key: the one to pin.
    pub fn first(&self) -> Option<&VerifierKey> {
        self.periods.first().map(|(_, key)| key)
    }

    /// The key that signs a checkpoint of the first `size` entries.
    pub fn at(&self, size: u64) -> Option<&VerifierKey> {
        let later = self.periods.partition_point(|(from, _)| *from <= size);
        Some(&self.periods[later.checked_sub(1)?].1)
    }

    /// All keys, each with the entry that brought it.
    pub fn periods(&self) -> &[(u64, VerifierKey)] {
        &self.periods
    }

    /// Goes on with the next of the ledger's own entries. One that is no good leaves the keys as they were.
    pub(crate) fn accept(&mut self, entry: &Entry) -> Result<(), DamageKind> {
        match entry.action.as_str() {
            own::TRUST_KEY => self.accept_first(entry),
            own::ROTATE_KEY => self.accept_next(entry),
            _ => Ok(()),
        }
    }

    fn accept_first(&mut self, entry: &Entry) -> Result<(), DamageKind> {
        if let Some(key) = self.current() {
            return Err(substituted(format!("{} was trusted already", name(key))));
        }
        let trust: Trust = payload(entry)?;
        let key = log_key(&trust.key, &trust.origin)?;
        self.origin = trust.origin;
        self.periods.push((entry.sequence, key));
        Ok(())
    }

    fn accept_next(&mut self, entry: &Entry) -> Result<(), DamageKind> {
        let rotation: Rotation = payload(entry)?;
        let Some(old) = self.current() else {
            return Err(substituted("there was no key before this one".to_owned()));
        };
        if rotation.old_key != old.to_string() {
            return Err(substituted(format!(
                "it does not follow {}, the key before it",
                name(old)
            )));
        }
        let new = log_key(&rotation.new_key, &self.origin)?;
        let expected = statement(&self.origin, old, &new, entry.sequence, entry.previous_hash);
        let note =
            SignedNote::from_str(&rotation.note).map_err(|error| substituted(error.to_string()))?;
        if note.text() != expected || rotation.origin != self.origin {
            return Err(substituted(
                "its statement is about another log, key or place".to_owned(),
            ));
        }
        match note.verify(&[old.clone(), new.clone()]) {
            Ok(verified) if verified.is_by(old) && verified.is_by(&new) => {}
            Ok(_) => return Err(substituted("one of the two keys did not sign".to_owned())),
            Err(error) => return Err(substituted(error.to_string())),
        }
        self.periods.push((entry.sequence, new));
        Ok(())
    }
}

/// Name and id of a key, for people.
pub(crate) fn name(key: &VerifierKey) -> String {
    format!("{}+{:08x}", key.name(), key.id())
}

fn payload<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Result<T, DamageKind> {
    serde_json::from_str(&entry.payload).map_err(|error| substituted(error.to_string()))
}

/// A key that may sign a log: of its name, and by an algorithm that is good enough.
fn log_key(text: &str, origin: &str) -> Result<VerifierKey, DamageKind> {
    let key: VerifierKey = text.parse().map_err(|error: KeyError| match error {
        KeyError::UnknownAlgorithm { .. } => DamageKind::Algorithm {
            detail: error.to_string(),
        },
        error => substituted(error.to_string()),
    })?;
    if key.algorithm() != Algorithm::Ed25519 {
        let detail = format!("{} is a witness's key, not a log's", name(&key));
        return Err(DamageKind::Algorithm { detail });
    }
    if key.name() != origin {
        return Err(substituted(format!(
            "{} does not have the log's name",
            name(&key)
        )));
    }
    Ok(key)
}

fn substituted(detail: String) -> DamageKind {
    DamageKind::KeySubstituted { detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::KeyName;

    fn signer(name: &str, seed: u8) -> Signer {
        Signer::from_seed(KeyName::new(name).unwrap(), [seed; 32])
    }

    fn entry(sequence: u64, action: &str, payload: &impl Serialize) -> Entry {
        let new = own::entry(action, payload, "success", jiff::Timestamp::UNIX_EPOCH).unwrap();
        Entry::sealed(new, sequence, Hash::of(b"own"), Hash::of(b"previous"))
    }

    fn started() -> KeyHistory {
        let mut history = KeyHistory::default();
        assert_eq!(history.origin(), None);
        history
            .accept(&entry(3, own::TRUST_KEY, &trust(&signer("log", 1))))
            .unwrap();
        history
    }

    #[test]
    fn each_size_has_the_key_of_its_time() {
        let (old, new) = (signer("log", 1), signer("log", 2));
        let mut history = started();
        let payload = rotation(&old, &new, 9, Hash::of(b"previous")).unwrap();
        history
            .accept(&entry(9, own::ROTATE_KEY, &payload))
            .unwrap();
        assert_eq!(history.origin(), Some("log"));
        assert_eq!(history.at(2), None);
        assert_eq!(history.at(3), Some(old.verifier()));
        assert_eq!(history.at(8), Some(old.verifier()));
        assert_eq!(history.at(9), Some(new.verifier()));
        assert_eq!(
            (history.first(), history.current()),
            (Some(old.verifier()), Some(new.verifier()))
        );
    }

    /// SAFETY 21: swapped key, weaker algorithm
    #[test]
    fn no_key_comes_in_without_the_one_before_it() {
        let (old, new, thief) = (signer("log", 1), signer("log", 2), signer("log", 3));
        let previous = Hash::of(b"previous");
        let refused = |entry: &Entry| {
            let mut history = started();
            let damage = history.accept(entry).unwrap_err();
            assert_eq!(history, started());
            damage
        };
        // Another first key.
        refused(&entry(4, own::TRUST_KEY, &trust(&thief)));
        // Signed by somebody else than the key before.
        refused(&entry(
            9,
            own::ROTATE_KEY,
            &rotation(&thief, &new, 9, previous).unwrap(),
        ));
        // True, but elsewhere in the log.
        refused(&entry(
            10,
            own::ROTATE_KEY,
            &rotation(&old, &new, 9, previous).unwrap(),
        ));
        refused(&entry(
            9,
            own::ROTATE_KEY,
            &rotation(&old, &new, 9, Hash::ZERO).unwrap(),
        ));
        // For another log.
        refused(&entry(
            9,
            own::ROTATE_KEY,
            &rotation(&old, &signer("other", 2), 9, previous).unwrap(),
        ));
        // Signed by one of the two only, by the other one only, or by one twice.
        let text = statement("log", old.verifier(), new.verifier(), 9, previous);
        for lines in [
            vec![old.sign(&text)],
            vec![new.sign(&text)],
            vec![old.sign(&text), old.sign(&text)],
        ] {
            let half = Rotation {
                origin: "log".to_owned(),
                old_key: old.verifier().to_string(),
                new_key: new.verifier().to_string(),
                note: SignedNote::new(text.clone(), lines).unwrap().to_string(),
            };
            refused(&entry(9, own::ROTATE_KEY, &half));
        }
        // A witness's key, and one of an algorithm that is not known here.
        let witness = VerifierKey::new(
            KeyName::new("log").unwrap(),
            Algorithm::CosignatureV1,
            new.verifier().public(),
        )
        .unwrap();
        for key in [witness.to_string(), "log+00000000+BgAA".to_owned()] {
            let mut history = KeyHistory::default();
            let payload = Trust {
                origin: "log".to_owned(),
                key,
            };
            assert!(history.accept(&entry(1, own::TRUST_KEY, &payload)).is_err());
            assert_eq!(history.current(), None);
        }
    }
}
