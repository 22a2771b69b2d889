//! At start: what others have seen of this ledger, before anything is written into it.
//!
//! A ledger that is shorter than what a witness cosigned was cut, or an old copy was put back. One that is gone while
//! its key is still there was deleted. Neither is signed, appended to or acted on.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use evenkeel_edge::anchor::Anchor;
use evenkeel_edge::witness::{WitnessClient, WitnessError};
use evenkeel_ledger::Reader;
use evenkeel_ledger::tlog::{Checkpoint, SignedNote, VerifierKey};
use futures_util::future::join_all;

use super::places;

/// What those elsewhere have seen of the log.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Their checkpoints: the ledger has to contain what they state.
    pub(crate) checkpoints: Vec<SignedNote>,
    /// Who could not be asked, and why.
    pub(crate) unreachable: Vec<String>,
}

/// The ledger is not what others have seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger {path} is behind what others have seen of it: {here} entries are here, {by} has seen {there}; \
     an old copy was put back, or its end was cut off: nothing is signed and nothing is done with it"
)]
pub(crate) struct Suspect {
    path: String,
    here: u64,
    by: String,
    there: u64,
}

/// Asks all of them. `key` is the log's; a ledger that is there knows its earlier ones too.
pub(crate) async fn look_elsewhere(
    path: &Path,
    key: &VerifierKey,
    witnesses: &[WitnessClient],
    anchors: &[Anchor],
) -> Result<Elsewhere, Suspect> {
    let origin = key.name();
    let here = Here::read(path, key);
    let mut found = Elsewhere::default();
    let mut seen: Vec<(String, SignedNote)> = Vec::new();
    let asked = witnesses
        .iter()
        .map(|witness| async { (witness.name().to_owned(), here.ask(witness, origin).await) });
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(Some(note)) => seen.push((name, note)),
            Ok(None) => {}
            Err(WitnessError::Behind { witness_size, .. }) => {
                return Err(here.suspect(path, name, witness_size));
            }
            Err(error) => found.unreachable.push(format!("{name}: {error}")),
        }
    }
    for (place, anchor) in places(anchors).into_iter().zip(anchors) {
        match anchor.last().await {
            Ok(Some(note)) => seen.push((place, note)),
            Ok(None) => {}
            Err(error) => found.unreachable.push(format!("{place}: {error}")),
        }
    }
    for (name, note) in seen {
        let Ok(checkpoint) = Checkpoint::parse(note.text()) else {
            continue;
        };
        // Another log's checkpoint, such as in a file that several write to, says nothing about this one.
        if checkpoint.origin != origin {
            continue;
        }
        if checkpoint.size > here.entries {
            return Err(here.suspect(path, name, checkpoint.size));
        }
        found.checkpoints.push(note);
    }
    Ok(found)
}

/// What lies here, as far as it can be read; a ledger that is gone has no entries.
struct Here {
    entries: u64,
    keys: Vec<VerifierKey>,
    reader: Option<Mutex<Reader>>,
    checkpoint: Option<SignedNote>,
}

impl Here {
    fn read(path: &Path, key: &VerifierKey) -> Self {
        let mut here = Self {
            entries: 0,
            keys: vec![key.clone()],
            reader: None,
            checkpoint: None,
        };
        // Why it cannot be read is told when it is opened.
        let Ok(reader) = Reader::open(path) else {
            return here;
        };
        here.entries = reader.head().map_or(0, |head| head.sequence);
        if let Ok(keys) = reader.keys() {
            let known = keys.periods().iter().map(|(_, key)| key.clone());
            here.keys.extend(known.filter(|known| known != key));
        }
        here.checkpoint = reader.checkpoint().ok().flatten();
        here.reader = Some(Mutex::new(reader));
        here
    }

    /// The newest that a witness has seen; nothing where it has seen none.
    async fn ask(
        &self,
        witness: &WitnessClient,
        origin: &str,
    ) -> Result<Option<SignedNote>, WitnessError> {
        match witness.latest(origin, &self.keys).await {
            Ok(latest) => return Ok(Some(latest.note)),
            Err(WitnessError::Unknown) => {}
            Err(error) => return Err(error),
        }
        // It has seen nothing, or does not tell such things: then our last checkpoint shows where it stands.
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(None);
        };
        let Ok(Checkpoint { size, .. }) = Checkpoint::parse(checkpoint.text()) else {
            return Ok(None);
        };
        let grown = |from: u64| {
            let reader = self.reader.as_ref().ok_or("the ledger cannot be read")?;
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.consistency(from, size).map_err(|e| e.to_string())
        };
        match witness.cosign(checkpoint, size, grown).await {
            // Cosigned: there is nothing that it has seen and we have not.
            Ok(_) | Err(WitnessError::Raced { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn suspect(&self, path: &Path, by: String, there: u64) -> Suspect {
        Suspect {
            path: path.display().to_string(),
            here: self.entries,
            by,
            there,
        }
    }
}
