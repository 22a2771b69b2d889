//! The entries of one call of append, shared by the thread that gave them and the writer's. No database.
//!
//! Hashing a payload takes about as long as a fifth of writing it: the caller does it while the writer writes the
//! entries before. Whoever needs a hash first makes it, so neither depends on the other going on.

use std::sync::{Arc, OnceLock};

use super::draft::Seal;
use crate::{Entry, Hash, NewEntry};

#[derive(Debug)]
pub(crate) struct Batch {
    entries: Vec<NewEntry>,
    payload_hashes: Vec<OnceLock<Hash>>,
}

impl Batch {
    pub(crate) fn new(entries: Vec<NewEntry>) -> Arc<Self> {
        let payload_hashes = entries.iter().map(|_| OnceLock::new()).collect();
        Arc::new(Self {
            entries,
            payload_hashes,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries, each with SHA-256 of its payload.
    pub(crate) fn hashed(&self) -> impl Iterator<Item = (&NewEntry, Hash)> {
        let hashes = self.payload_hashes.iter();
        self.entries.iter().zip(hashes).map(|(entry, hash)| {
            let hash = hash.get_or_init(|| Hash::of(entry.payload.as_bytes()));
            (entry, *hash)
        })
    }

    /// The entries of the log that these became.
    pub(crate) fn sealed(self: Arc<Self>, seals: Vec<Seal>) -> Vec<Entry> {
        // The writer answers after it gave up its share, so nothing is copied.
        let entries = Self::into_entries(self);
        let sealed = entries.into_iter().zip(seals);
        sealed
            .map(|(new, seal)| Entry::sealed(new, seal.sequence, seal.hash, seal.previous))
            .collect()
    }

    fn into_entries(shared: Arc<Self>) -> Vec<NewEntry> {
        match Arc::try_unwrap(shared) {
            Ok(batch) => batch.entries,
            Err(shared) => shared.entries.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &str) -> NewEntry {
        NewEntry {
            timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
            actor: "a".to_owned(),
            action: "b".to_owned(),
            resource: String::new(),
            subsystem: String::new(),
            payload: payload.to_owned(),
            result: String::new(),
        }
    }

    /// Both threads at once: each gets every hash, and they are the payloads'.
    #[test]
    fn both_sides_see_the_same_hashes() {
        let payloads: Vec<String> = (0..1000).map(|n| format!("[{n}]")).collect();
        let batch = Batch::new(payloads.iter().map(|payload| entry(payload)).collect());
        let expected: Vec<Hash> = payloads.iter().map(|p| Hash::of(p.as_bytes())).collect();
        let hashes = || -> Vec<Hash> { batch.hashed().map(|(_, hash)| hash).collect() };
        std::thread::scope(|scope| {
            let other = scope.spawn(hashes);
            assert_eq!(hashes(), expected);
            assert_eq!(other.join().unwrap(), expected);
        });
    }

    #[test]
    fn a_share_that_is_still_held_costs_a_copy_and_nothing_else() {
        let seal = |sequence| Seal {
            sequence,
            hash: Hash::of(b"x"),
            previous: Hash::ZERO,
        };
        let batch = Batch::new(vec![entry("1"), entry("2")]);
        let held = Arc::clone(&batch);
        let sealed = batch.sealed(vec![seal(7), seal(8)]);
        let alone = held.sealed(vec![seal(7), seal(8)]);
        assert_eq!(sealed, alone);
        assert_eq!((sealed[1].sequence, sealed[1].payload.as_str()), (8, "2"));
    }
}
