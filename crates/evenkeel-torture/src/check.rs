//! Judges what a crash left: opens it with the shipped ledger, which recovers, and looks for everything that was
//! acknowledged.

use std::path::{Path, PathBuf};

use evenkeel_ledger::merkle::Frontier;
use evenkeel_ledger::tlog::SignedNote;
use evenkeel_ledger::{Ledger, VerifyOptions, verify_with};

use crate::disk::Contents;
use crate::workload::{self, Acknowledged, Driven, FILE_NAME, Published, SIGNED, entry};

/// What may be expected of a file.
#[derive(Debug)]
pub struct Expected {
    /// The Merkle tree over the first n entries that ever were acknowledged, for each n from 0.
    trees: Vec<Frontier>,
    /// First and last sequence of each batch.
    batches: Vec<(u64, u64)>,
    /// Entries beyond those whose hashes are known: accepted and not acknowledged.
    more_max: u64,
    acknowledged: Vec<Acknowledged>,
    signed: bool,
    published: Vec<Published>,
}

/// What had been said to others when a power loss or an end came.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// This many entries were acknowledged.
    pub acknowledged: u64,
    /// The newest checkpoint that was handed out.
    pub checkpoint: Option<&'a SignedNote>,
}

/// What was found in a file where nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Entries.
    pub entries: u64,
    /// How many of them had not been acknowledged yet.
    pub unacknowledged: u64,
}

impl Kept {
    /// Whether it has entries that nobody was told of, after some that somebody was.
    pub fn is_ahead(&self) -> bool {
        self.unacknowledged > 0 && self.unacknowledged < self.entries
    }
}

impl Expected {
    /// Of a recording that was driven to some end.
    pub fn of(driven: &Driven) -> Self {
        let mut trees = vec![Frontier::new()];
        for one in &driven.acknowledged {
            let mut next = trees.last().cloned().unwrap_or_default();
            next.push(one.hash);
            trees.push(next);
        }
        Self {
            trees,
            batches: driven.batches.clone(),
            // A log whose opening failed may have its first entry, the ledger's own, or gets it now.
            more_max: driven.refused + u64::from(driven.signed && driven.acknowledged.is_empty()),
            acknowledged: driven.acknowledged.clone(),
            signed: driven.signed,
            published: driven.published.clone(),
        }
    }

    /// What was said before the operation at this position of the recording.
    pub fn said_at(&self, position: usize) -> Said<'_> {
        let acknowledged = self
            .acknowledged
            .iter()
            .filter(|one| one.position <= position);
        let mut published = self.published.iter().filter(|one| one.position <= position);
        Said {
            acknowledged: acknowledged.map(|one| one.sequence).max().unwrap_or(0),
            checkpoint: published.next_back().map(|one| &one.note),
        }
    }

    /// How many entries have known hashes.
    fn known(&self) -> u64 {
        self.trees.len() as u64 - 1
    }

    fn tree(&self, entries: u64) -> Frontier {
        usize::try_from(entries)
            .ok()
            .and_then(|at| self.trees.get(at))
            .cloned()
            .unwrap_or_default()
    }
}

/// Opens the ledger in a directory and checks it; what was said has to hold. An error says what is lost or wrong. With `as_found` it is also verified before the ledger opens it, as a person would who only looks.
pub fn judge(
    directory: &Path,
    expected: &Expected,
    said: Said<'_>,
    as_found: bool,
) -> Result<Kept, String> {
    let path = directory.join(FILE_NAME);
    let acknowledged = said.acknowledged;
    let mut options = VerifyOptions {
        threads: 1,
        against: said.checkpoint.into_iter().cloned().collect(),
        ..VerifyOptions::default()
    };
    // Before anything was acknowledged the making of the file may have been cut off: nobody relies on it then, and
    // whoever only looks cannot finish it.
    if as_found && acknowledged > 0 {
        match verify_with(&path, &options, |_, _| {}) {
            Ok(report) if report.is_sound() && report.entries >= acknowledged => {}
            Ok(report) => {
                return Err(format!(
                    "as found, of {acknowledged} entries {} verify: {:?}",
                    report.entries, report.damage
                ));
            }
            Err(error) => return Err(format!("as found, it cannot be verified: {error}")),
        }
    }
    let open = Ledger::open_with(&path, &workload::options(expected.signed));
    let ledger = open.map_err(|error| format!("it does not open: {error}"))?;
    let entries = ledger.head().sequence;
    let known = expected.known();
    if entries < acknowledged {
        return Err(format!(
            "{acknowledged} entries were acknowledged and {entries} are there"
        ));
    }
    if entries > known + expected.more_max {
        return Err(format!(
            "{entries} entries are there, more than were appended"
        ));
    }
    if let Some((first, last)) = expected
        .batches
        .iter()
        .find(|(first, last)| (*first..*last).contains(&entries))
    {
        return Err(format!(
            "entries {first} to {last} belong together, and {entries} are there"
        ));
    }
    // The tree over what has to be there, then what is there beyond it, and what is appended now.
    let mut tree = expected.tree(entries.min(known));
    if entries > known {
        let reader = ledger.reader().map_err(|error| error.to_string())?;
        for sequence in known + 1..=entries {
            match reader.get(sequence) {
                Ok(Some(entry)) => tree.push(entry.entry_hash),
                Ok(None) => return Err(format!("entry {sequence} is missing")),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    let appended = ledger
        .append_blocking(entry(1_000_000, 10))
        .map_err(|error| format!("nothing can be appended: {error}"))?;
    tree.push(appended.entry_hash);
    ledger
        .close()
        .map_err(|error| format!("it does not close: {error}"))?;
    if expected.signed {
        options.log_key = SIGNED
            .signer
            .as_ref()
            .map(|signer| signer.verifier().clone());
    }
    let report = verify_with(&path, &options, |_, _| {})
        .map_err(|error| format!("it cannot be verified: {error}"))?;
    if !report.is_sound() {
        return Err(format!("it does not verify: {:?}", report.damage));
    }
    if (report.entries, appended.sequence) != (entries + 1, entries + 1) {
        return Err(format!(
            "after {entries} entries came entry {}, and {} verify",
            appended.sequence, report.entries
        ));
    }
    if report.merkle_root != tree.root() {
        return Err("the entries are not those that were acknowledged".to_owned());
    }
    if expected.signed && report.newest_checkpoint != Some(report.entries) {
        return Err(format!(
            "the newest of {} entries is not signed, the newest checkpoint is of {:?}",
            report.entries, report.newest_checkpoint
        ));
    }
    Ok(Kept {
        entries,
        unacknowledged: entries - acknowledged,
    })
}

/// A directory that takes one state after another.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    /// A new one, in memory where the system has a file system for that.
    pub fn new() -> std::io::Result<Self> {
        let directory = new_directory()?;
        let path = directory.path().canonicalize()?;
        Ok(Self { directory, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces everything in it.
    pub fn fill(&self, contents: &Contents) -> std::io::Result<()> {
        for file in std::fs::read_dir(&self.path)? {
            std::fs::remove_file(file?.path())?;
        }
        for (name, content) in contents {
            std::fs::write(self.path.join(name), content)?;
        }
        Ok(())
    }

    /// Leaves it behind for whoever looks into a failure.
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }
}

/// An empty directory for files that nobody needs after a crash of the machine.
pub fn new_directory() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new()
        .prefix("evenkeel-torture-")
        .to_owned();
    if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    }
}
