//! What a disk may hold after a power loss. Pure: recorded operations in, contents of files out.
//!
//! Durable is what the last completed sync of a file covered, and the names that a sync of the directory covered.
//! Everything after that is uncertain: each write, truncation, creation and deletion may have reached the disk or not,
//! in any combination, and a write may be torn: of its 512-byte sectors some are there and some are not.

use std::collections::BTreeMap;

use crate::random::Random;
use crate::recorder::{FileId, Op};

/// Bytes that a disk writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// The names of a directory and what their files hold.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// A disk after some operations.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// Names that are durable.
    names: BTreeMap<String, FileId>,
    /// Creations and deletions that are not, with their positions.
    names_uncertain: Vec<(usize, Name)>,
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    later: Vec<Later>,
}

/// A change to a file after the content that is durable.
#[derive(Debug)]
struct Later {
    position: usize,
    change: Change,
    /// A later sync covered it, but something before it stays in doubt, so it cannot be merged yet.
    certain: bool,
    /// A sync of it failed: no later sync makes it certain.
    doubtful: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Truncate(u64),
}

#[derive(Debug)]
enum Name {
    Create(String, FileId),
    Delete(String),
}

/// Which of the uncertain operations reached the disk. They are counted in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// None of them.
    None,
    /// All of them.
    All,
    /// The first so many.
    First(usize),
    /// The first so many, and the next one torn.
    Torn(usize, u64),
    /// All but this one.
    Without(usize),
    /// This one alone.
    Only(usize),
    /// Each one by a throw of dice: kept, lost or torn.
    Random(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn(u64),
}

impl Disk {
    /// Carries out one recorded operation, which stood at `position` in the recording.
    pub fn apply(&mut self, position: usize, op: &Op) {
        let later = |change| Later {
            position,
            change,
            certain: false,
            doubtful: false,
        };
        match op {
            Op::Found {
                name,
                file,
                content,
            } => {
                self.file(*file).durable.clone_from(content);
                self.names.insert(name.clone(), *file);
            }
            Op::Create { name, file } => {
                self.file(*file);
                self.names_uncertain
                    .push((position, Name::Create(name.clone(), *file)));
            }
            Op::Delete { name, synced } => {
                self.names_uncertain
                    .push((position, Name::Delete(name.clone())));
                if *synced {
                    self.sync_names();
                }
            }
            Op::Write { file, offset, data } => {
                let change = Change::Write {
                    offset: *offset,
                    data: data.clone(),
                };
                self.file(*file).later.push(later(change));
            }
            Op::Truncate { file, size } => {
                self.file(*file).later.push(later(Change::Truncate(*size)));
            }
            Op::Sync { file, directory } => {
                self.file(*file).sync();
                if *directory {
                    self.sync_names();
                }
            }
            Op::SyncFailed { file } => {
                for later in &mut self.file(*file).later {
                    later.doubtful |= !later.certain;
                }
            }
        }
    }

    /// How many operations are uncertain now.
    pub fn uncertain(&self) -> usize {
        let changes = self.files.iter().flat_map(|file| &file.later);
        changes.filter(|later| !later.certain).count() + self.names_uncertain.len()
    }

    /// What a directory holds if the power goes now and `choice` tells what had reached the disk.
    pub fn after_power_loss(&self, choice: Choice) -> Contents {
        let fates = self.fates(choice);
        let fate_of = |position: usize| {
            fates
                .binary_search_by_key(&position, |(at, _)| *at)
                .map_or(Fate::Kept, |found| fates[found].1)
        };
        let mut names = self.names.clone();
        for (position, name) in &self.names_uncertain {
            if fate_of(*position) == Fate::Lost {
                continue;
            }
            match name {
                Name::Create(name, file) => names.insert(name.clone(), *file),
                Name::Delete(name) => names.remove(name),
            };
        }
        names
            .into_iter()
            .map(|(name, file)| {
                let file = &self.files[file];
                let mut content = file.durable.clone();
                for later in &file.later {
                    later.change.make(&mut content, fate_of(later.position));
                }
                (name, content)
            })
            .collect()
    }

    /// The fates of all uncertain operations, in order of their positions.
    fn fates(&self, choice: Choice) -> Vec<(usize, Fate)> {
        let changes = self.files.iter().flat_map(|file| &file.later);
        let mut positions: Vec<usize> = changes
            .filter(|later| !later.certain)
            .map(|later| later.position)
            .chain(self.names_uncertain.iter().map(|(position, _)| *position))
            .collect();
        positions.sort_unstable();
        let kept_if = |kept| if kept { Fate::Kept } else { Fate::Lost };
        let mut random = Random::new(
            match choice {
                Choice::Random(seed) => seed,
                _ => 0,
            },
            1,
        );
        // From almost nothing to almost everything survives.
        let (kept, torn) = (random.below(100), random.below(40));
        positions
            .into_iter()
            .enumerate()
            .map(|(at, position)| {
                let fate = match choice {
                    Choice::None => Fate::Lost,
                    Choice::All => Fate::Kept,
                    Choice::Torn(n, seed) if at == n => Fate::Torn(seed),
                    Choice::First(n) | Choice::Torn(n, _) => kept_if(at < n),
                    Choice::Without(n) => kept_if(at != n),
                    Choice::Only(n) => kept_if(at == n),
                    Choice::Random(_) if random.percent(torn) => Fate::Torn(random.next()),
                    Choice::Random(_) => kept_if(random.percent(kept)),
                };
                (position, fate)
            })
            .collect()
    }

    fn file(&mut self, file: FileId) -> &mut File {
        if self.files.len() <= file {
            self.files.resize_with(file + 1, File::default);
        }
        &mut self.files[file]
    }

    fn sync_names(&mut self) {
        for (_, name) in self.names_uncertain.drain(..) {
            match name {
                Name::Create(name, file) => self.names.insert(name, file),
                Name::Delete(name) => self.names.remove(&name),
            };
        }
    }
}

impl File {
    fn sync(&mut self) {
        for later in &mut self.later {
            later.certain |= !later.doubtful;
        }
        if self.later.iter().all(|later| later.certain) {
            for later in self.later.drain(..) {
                later.change.make(&mut self.durable, Fate::Kept);
            }
        }
    }
}

impl Change {
    fn make(&self, content: &mut Vec<u8>, fate: Fate) {
        match (self, fate) {
            (_, Fate::Lost) => {}
            // A size is in one sector of the file system: there or not.
            (Self::Truncate(size), _) => {
                let size = usize::try_from(*size).expect("files in memory are small");
                content.resize(size, 0);
            }
            (Self::Write { offset, data }, Fate::Kept) => put(content, *offset, data),
            (Self::Write { offset, data }, Fate::Torn(seed)) => tear(content, *offset, data, seed),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("files in memory are small");
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

/// Writes some of the sectors. In half of the cases the file has its new size all the same, filled with zeros.
fn tear(content: &mut Vec<u8>, offset: u64, data: &[u8], seed: u64) {
    let mut random = Random::new(seed, 2);
    let whole_size = random.percent(50);
    let in_order = random.percent(50);
    let end = offset + data.len() as u64;
    let sectors = end.div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
    let cut = offset / SECTOR_BYTES + random.below(sectors);
    let mut at = offset;
    while at < end {
        let sector = at / SECTOR_BYTES;
        let next = ((sector + 1) * SECTOR_BYTES).min(end);
        let kept = if in_order {
            sector < cut
        } else {
            random.percent(50)
        };
        if kept {
            let range = |at: u64| usize::try_from(at - offset).expect("within the write");
            put(content, at, &data[range(at)..range(next)]);
        }
        at = next;
    }
    let end = usize::try_from(end).expect("files in memory are small");
    if whole_size && content.len() < end {
        content.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: FileId, offset: u64, byte: u8, bytes: usize) -> Op {
        Op::Write {
            file,
            offset,
            data: vec![byte; bytes],
        }
    }

    fn disk(ops: &[Op]) -> Disk {
        let mut disk = Disk::default();
        for (position, op) in ops.iter().enumerate() {
            disk.apply(position, op);
        }
        disk
    }

    fn found() -> Op {
        Op::Found {
            name: "a".to_owned(),
            file: 0,
            content: vec![b'0'; 4],
        }
    }

    fn sync(file: FileId) -> Op {
        Op::Sync {
            file,
            directory: false,
        }
    }

    fn a(disk: &Disk, choice: Choice) -> String {
        String::from_utf8(disk.after_power_loss(choice)["a"].clone()).unwrap()
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let ops = [
            found(),
            write(0, 0, b'1', 1),
            sync(0),
            write(0, 1, b'2', 1),
            write(0, 2, b'3', 1),
        ];
        let disk = disk(&ops);
        assert_eq!(disk.uncertain(), 2);
        let expected = [
            (Choice::None, "1000"),
            (Choice::All, "1230"),
            (Choice::First(1), "1200"),
            (Choice::Without(0), "1030"),
            (Choice::Only(0), "1200"),
        ];
        for (choice, content) in expected {
            assert_eq!(a(&disk, choice), content, "{choice:?}");
        }
    }

    #[test]
    fn a_torn_write_has_old_and_new_sectors_and_no_others() {
        let ops = [
            Op::Found {
                name: "a".to_owned(),
                file: 0,
                content: vec![b'0'; 2048],
            },
            // Not at the border of a sector.
            write(0, 24, b'1', 1500),
        ];
        let disk = disk(&ops);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let content = a(&disk, Choice::Torn(0, seed));
            let pieces = [0..24, 24..512, 512..1024, 1024..1524, 1524..2048];
            let pieces = pieces.map(|piece| {
                let bytes: std::collections::BTreeSet<u8> = content[piece].bytes().collect();
                assert_eq!(bytes.len(), 1, "half a sector");
                char::from(*bytes.first().unwrap())
            });
            assert_eq!((pieces[0], pieces[4]), ('0', '0'));
            seen.insert(pieces);
        }
        assert!(seen.len() >= 7, "{seen:?}");
    }

    #[test]
    fn names_are_durable_with_their_directory_only() {
        let ops = [
            found(),
            Op::Create {
                name: "b".to_owned(),
                file: 1,
            },
            write(1, 0, b'x', 2),
            sync(1),
            Op::Delete {
                name: "a".to_owned(),
                synced: false,
            },
        ];
        let mut disk = disk(&ops);
        let names = |disk: &Disk, choice| -> Vec<String> {
            disk.after_power_loss(choice).into_keys().collect()
        };
        assert_eq!(names(&disk, Choice::None), ["a"]);
        assert_eq!(names(&disk, Choice::First(1)), ["a", "b"]);
        assert_eq!(names(&disk, Choice::All), ["b"]);
        let synced = Op::Sync {
            file: 1,
            directory: true,
        };
        disk.apply(5, &synced);
        assert_eq!(names(&disk, Choice::None), ["b"]);
        assert_eq!(disk.uncertain(), 0);
    }

    /// A failed sync is not made good by the next one that succeeds.
    #[test]
    fn after_a_failed_sync_its_writes_stay_in_doubt() {
        let ops = [
            found(),
            write(0, 0, b'1', 1),
            Op::SyncFailed { file: 0 },
            write(0, 1, b'2', 1),
            sync(0),
        ];
        let disk = disk(&ops);
        assert_eq!(a(&disk, Choice::None), "0200");
        assert_eq!(a(&disk, Choice::All), "1200");
    }
}
