//! Large files in pieces: a snapshot of a large database stores only the pages that no earlier one has, compressed.
//!
//! A file is cut into units (4 KiB, a database's usual page; 64 KiB when the file is larger than 4 GiB). Units are known
//! by their BLAKE3 and lie in segments (`.blocks/` below the snapshots); a manifest says which units make the file.
//! Segments are written once and never changed; one goes when no manifest names it any more, so that a kill at any
//! moment leaves at most a segment too many.
//!
//! A unit that lies in a segment of which this file would use less than a quarter is stored again: otherwise single
//! pages that never change would keep old segments for ever.

mod manifest;
mod segment;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;

pub(super) use manifest::{MANIFEST_LEN_MAX, Manifest};
use manifest::Run;
use segment::{FRAME_UNITS, SEGMENT_UNITS_MAX, Segment, UnitHash, Writer, damaged};

use crate::config_edit::sync_dir;

/// Files above this have large units, in bytes.
const SMALL_UNITS_UP_TO: u64 = 4 * 1024 * 1024 * 1024;
const UNIT_SMALL: usize = 4 * 1024;
const UNIT_LARGE: usize = 64 * 1024;
/// Most threads that hash and compress.
const WORKERS_MAX: usize = 4;
/// New units for which a further thread is worth its segment.
const UNITS_PER_WORKER_MIN: usize = 2_048;
/// Units read at once for hashing.
const READ_UNITS: usize = 256;
/// The part of a segment that a file has to use to share it: one in this many units.
const SHARED_PART: usize = 4;
/// Marks a place among the new units.
const NEW: u32 = u32::MAX;

/// The segments below the snapshots' directory.
pub(super) struct Blocks {
    dir: PathBuf,
}

/// A file that has been cut up; its new segments still lie where they were written.
pub(super) struct Cut {
    pub(super) manifest: Manifest,
    /// Bytes of the new segments.
    pub(super) stored: u64,
    fresh: Vec<(PathBuf, String)>,
}

impl Blocks {
    pub(super) fn new(snapshots: &Path) -> Self {
        Self {
            dir: snapshots.join(".blocks"),
        }
    }

    /// Held while segments are shared or taken away: no other process may do either meanwhile. Ends with the file, and
    /// with the process.
    pub(super) fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// Cuts a file up and writes what is new of it as segments into `staging`.
    pub(super) fn cut(&self, content: &Path, staging: &Path) -> io::Result<Cut> {
        let size = fs::metadata(content)?.len();
        let unit = if size > SMALL_UNITS_UP_TO {
            UNIT_LARGE
        } else {
            UNIT_SMALL
        };
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS_MAX));
        let hashes = hash_units(content, size, unit, workers)?;
        let mut root = blake3::Hasher::new();
        for hash in &hashes {
            root.update(hash);
        }
        let known = self.known(unit)?;
        let (mut places, fresh_units) = plan(&hashes, &known);
        let mut segments: Vec<String> = known.names;
        let (fresh, parts) = write_new(content, staging, unit, &hashes, &fresh_units, workers)?;
        let base = segments.len();
        segments.extend(fresh.iter().map(|(_, w)| w.name.clone()));
        // The n-th new unit lies in the part that begins last at or before n.
        for place in &mut places {
            if place.0 == NEW {
                let part = parts.partition_point(|start| *start <= place.1) - 1;
                *place = (narrow(base + part)?, place.1 - parts[part]);
            }
        }
        let stored = fresh.iter().map(|(_, w)| w.bytes).sum();
        Ok(Cut {
            manifest: manifest_of(size, unit, root.finalize().to_hex().to_string(), &segments, &places)?,
            stored,
            fresh: fresh.into_iter().map(|(p, w)| (p, w.name)).collect(),
        })
    }

    /// Gives new segments their place. Before the snapshot that needs them has its name.
    pub(super) fn publish(&self, cut: &Cut) -> io::Result<()> {
        for (path, name) in &cut.fresh {
            fs::rename(path, self.dir.join(name))?;
        }
        sync_dir(&self.dir)
    }

    /// Hands over the whole file, piece by piece, every piece checked.
    pub(super) fn read(
        &self,
        manifest: &Manifest,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut segments = manifest
            .segments
            .iter()
            .map(|name| Segment::open(&self.dir, name))
            .collect::<io::Result<Vec<_>>>()?;
        if segments.iter().any(|s| s.unit != manifest.unit) {
            return Err(damaged("a segment has units of another length"));
        }
        let mut root = blake3::Hasher::new();
        let mut left = manifest.size;
        for run in &manifest.runs {
            let segment = &mut segments[run.segment as usize];
            for n in 0..run.units {
                let (bytes, hash) = segment.unit(run.first.saturating_add(n))?;
                root.update(&hash);
                let len = left.min(bytes.len() as u64);
                take(&bytes[..usize::try_from(len).unwrap_or(bytes.len())])?;
                left -= len;
            }
        }
        if root.finalize().to_hex().as_str() == manifest.blake3 {
            Ok(())
        } else {
            Err(damaged("its units are not those it was made of"))
        }
    }

    /// Bytes of a segment; 0 when it is not there.
    pub(super) fn bytes_of(&self, segment: &str) -> u64 {
        fs::metadata(self.dir.join(segment)).map_or(0, |m| m.len())
    }

    /// Removes every segment that is not in `needed`. Returns the bytes freed. To be called under the lock.
    pub(super) fn collect(&self, needed: &BTreeSet<String>) -> io::Result<u64> {
        let mut freed = 0;
        for name in self.names()? {
            if !needed.contains(&name) {
                freed += self.bytes_of(&name);
                fs::remove_file(self.dir.join(&name))?;
            }
        }
        Ok(freed)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| segment::is_name(n))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Where every stored unit of this length lies. A segment that cannot be read shares nothing.
    fn known(&self, unit: usize) -> io::Result<Known> {
        let mut known = Known::default();
        for name in self.names()? {
            let Ok(segment) = Segment::open(&self.dir, &name) else {
                continue;
            };
            if segment.unit != unit {
                continue;
            }
            let number = narrow(known.names.len())?;
            for (n, hash) in segment.hashes.iter().enumerate() {
                known.places.entry(*hash).or_insert((number, narrow(n)?));
            }
            known.units.push(segment.hashes.len());
            known.names.push(name);
        }
        Ok(known)
    }
}

/// A unit's segment and its number there; or [`NEW`] and its number among the new ones.
type Place = (u32, u32);

#[derive(Default)]
struct Known {
    names: Vec<String>,
    /// Units of each segment.
    units: Vec<usize>,
    places: HashMap<UnitHash, Place>,
}

/// Where each unit of the file comes from, and which of them are new (each once).
fn plan(hashes: &[UnitHash], known: &Known) -> (Vec<Place>, Vec<usize>) {
    let mut used = vec![0usize; known.names.len()];
    let mut counted = vec![None; hashes.len()];
    let mut seen: HashMap<UnitHash, u32> = HashMap::new();
    for (i, hash) in hashes.iter().enumerate() {
        if let Some(place) = known.places.get(hash) {
            used[place.0 as usize] += 1;
            counted[i] = Some(*place);
        }
    }
    let worth: Vec<bool> = used
        .iter()
        .zip(&known.units)
        .map(|(used, units)| used * SHARED_PART >= *units)
        .collect();
    let mut fresh = Vec::new();
    let places = counted
        .into_iter()
        .enumerate()
        .map(|(i, place)| match place {
            Some(place) if worth[place.0 as usize] => place,
            _ => {
                let n = *seen.entry(hashes[i]).or_insert_with(|| {
                    fresh.push(i);
                    u32::try_from(fresh.len() - 1).unwrap_or(NEW)
                });
                (NEW, n)
            }
        })
        .collect();
    (places, fresh)
}

/// Hashes all units, the last one padded with zeros, on several threads.
fn hash_units(content: &Path, size: u64, unit: usize, workers: usize) -> io::Result<Vec<UnitHash>> {
    let units = usize::try_from(size.div_ceil(unit as u64)).map_err(damaged)?;
    if units >= NEW as usize {
        return Err(damaged("too large to be cut up"));
    }
    let mut hashes = vec![UnitHash::default(); units];
    let part = units.div_ceil(workers).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = hashes
            .chunks_mut(part)
            .enumerate()
            .map(|(i, mine)| {
                scope.spawn(move || -> io::Result<()> {
                    let mut file = File::open(content)?;
                    file.seek(SeekFrom::Start(i as u64 * part as u64 * unit as u64))?;
                    let mut raw = vec![0; unit * READ_UNITS];
                    for some in mine.chunks_mut(READ_UNITS) {
                        let raw = &mut raw[..some.len() * unit];
                        fill(&mut file, raw)?;
                        for (hash, bytes) in some.iter_mut().zip(raw.chunks_exact(unit)) {
                            *hash = *blake3::hash(bytes).as_bytes();
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(join)
    })?;
    Ok(hashes)
}

type Fresh = (PathBuf, segment::Written);

/// Writes the new units as segments, on several threads. Returns them with the number of each one's first unit.
fn write_new(
    content: &Path,
    staging: &Path,
    unit: usize,
    hashes: &[UnitHash],
    fresh: &[usize],
    workers: usize,
) -> io::Result<(Vec<Fresh>, Vec<u32>)> {
    let workers = workers.min(fresh.len() / UNITS_PER_WORKER_MIN).max(1);
    let part = fresh.len().div_ceil(workers).clamp(1, SEGMENT_UNITS_MAX);
    let parts: Vec<&[usize]> = fresh.chunks(part).collect();
    let mut out = Vec::new();
    // As many at a time as there are workers; more than one round only for files above some hundred MiB.
    for (round, some) in parts.chunks(workers).enumerate() {
        let written: io::Result<Vec<Fresh>> = thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .enumerate()
                .map(|(i, units)| {
                    let path = staging.join(format!(".segment-{}", round * workers + i));
                    scope.spawn(move || write_segment(content, path, unit, hashes, units))
                })
                .collect();
            threads.into_iter().map(join).collect()
        });
        out.extend(written?);
    }
    let starts = (0..parts.len()).map(|i| narrow(i * part)).collect::<io::Result<_>>()?;
    Ok((out, starts))
}

fn write_segment(
    content: &Path,
    path: PathBuf,
    unit: usize,
    hashes: &[UnitHash],
    units: &[usize],
) -> io::Result<Fresh> {
    let mut file = File::open(content)?;
    let mut writer = Writer::create(&path, unit)?;
    let mut raw = vec![0; unit * FRAME_UNITS];
    let mut at = None;
    for frame in units.chunks(FRAME_UNITS) {
        let raw = &mut raw[..frame.len() * unit];
        let mut filled = 0;
        // Neighbours are read together.
        for run in frame.chunk_by(|a, b| a + 1 == *b) {
            if at != Some(run[0]) {
                file.seek(SeekFrom::Start(run[0] as u64 * unit as u64))?;
            }
            let end = filled + run.len() * unit;
            fill(&mut file, &mut raw[filled..end])?;
            filled = end;
            at = Some(run[0] + run.len());
        }
        let frame: Vec<UnitHash> = frame.iter().map(|i| hashes[*i]).collect();
        writer.frame(raw, &frame)?;
    }
    Ok((path, writer.finish()?))
}

fn manifest_of(
    size: u64,
    unit: usize,
    blake3: String,
    segments: &[String],
    places: &[Place],
) -> io::Result<Manifest> {
    // Only the segments that are used, in the order of their use.
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let mut names = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    for (segment, unit) in places {
        let next = narrow(names.len())?;
        let segment = *numbers.entry(*segment).or_insert_with(|| {
            names.push(segments[*segment as usize].clone());
            next
        });
        match runs.last_mut() {
            Some(run) if run.segment == segment && run.first + run.units == *unit => run.units += 1,
            _ => runs.push(Run {
                segment,
                first: *unit,
                units: 1,
            }),
        }
    }
    Ok(Manifest {
        size,
        unit,
        blake3,
        segments: names,
        runs,
    })
}

/// Reads as much as there is and makes the rest zeros.
fn fill(file: &mut File, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read(&mut out[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    out[done..].fill(0);
    Ok(())
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

fn narrow(n: usize) -> io::Result<u32> {
    u32::try_from(n).map_err(|_| damaged("too many units"))
}
