//! Large databases in snapshots: kept as blocks, compressed, and each only once while it does not change.
//!
//! SQLite's backup keeps the place of every page, so a block is compared with the block at the same place in the snapshot
//! before. What changed goes into a *pack* of its own below `storage/blocks`, written once and never changed; a manifest
//! beside the other files of the snapshot says which run of blocks lies in which pack. A pack goes when no manifest names
//! it any more.
//!
//! A pack: a magic text, the blocks (LZ4, or as they are where that is smaller), an index (for each block the first 16
//! bytes of its SHA-256, its offset, its length), and a footer with the number of blocks and the place of the index.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{SnapshotError, io_at};
use crate::config_edit::sync_dir;

/// Bytes of a block: SQLite's usual page.
pub(super) const BLOCK: usize = 4096;
/// Version of manifests and packs that this code writes and reads.
const FORMAT_VERSION: u32 = 1;
/// Largest manifest that is read, in bytes.
pub(super) const MANIFEST_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Most packs that one manifest may name.
pub(super) const PACKS_MAX: usize = 1_000;
/// A pack that no manifest names is left alone for so long: another process may be about to name it.
const ORPHAN_AGE: Duration = Duration::from_hours(1);

const MAGIC: &[u8; 8] = b"EVKPACK1";
/// Of the index: hash, offset, length.
const ENTRY: usize = 16 + 8 + 4;
/// Of the footer: blocks, place of the index, magic.
const FOOTER: usize = 8 + 8 + 8;
/// In a length: the block is kept as it is.
const RAW: u32 = 1 << 31;

type Hash = [u8; 16];

/// What makes a database of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format_version: u32,
    /// Bytes of the database.
    size: u64,
    /// Names of the packs.
    packs: Vec<String>,
    /// Runs: which of the packs, its first block, how many.
    runs: Vec<(u32, u64, u64)>,
}

/// What keeping a database came to.
pub(super) struct Kept {
    pub(super) manifest: Manifest,
    /// SHA-256 of the whole database, hex.
    pub(super) sha256: String,
    /// Bytes that were written for it.
    pub(super) stored: u64,
}

/// The packs below `storage/blocks`.
pub(super) struct BlockStore {
    dir: PathBuf,
}

/// A pack with its index.
struct Pack {
    file: File,
    path: PathBuf,
    index: Vec<(Hash, u64, u32)>,
}

fn damaged(path: &Path, reason: &str) -> SnapshotError {
    SnapshotError::Damaged {
        id: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn hash_of(block: &[u8]) -> Hash {
    let full = Sha256::digest(block);
    let mut hash = [0; 16];
    hash.copy_from_slice(&full[..16]);
    hash
}

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Self, SnapshotError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|f| f.take(MANIFEST_LEN_MAX + 1).read_to_end(&mut bytes))
            .map_err(io_at(path, "it cannot be read"))?;
        if bytes.len() as u64 > MANIFEST_LEN_MAX {
            return Err(damaged(path, "it is too large"));
        }
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e.to_string()))?;
        if manifest.format_version > FORMAT_VERSION {
            return Err(SnapshotError::TooNew {
                what: path.display().to_string(),
                found: manifest.format_version,
            });
        }
        let good_name = |name: &String| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        let blocks: u64 = manifest
            .runs
            .iter()
            .map(|r| r.2)
            .fold(0, u64::saturating_add);
        let fits = manifest.packs.len() <= PACKS_MAX
            && manifest.packs.iter().all(good_name)
            && manifest
                .runs
                .iter()
                .all(|r| (r.0 as usize) < manifest.packs.len())
            && blocks == manifest.size.div_ceil(BLOCK as u64);
        if fits {
            Ok(manifest)
        } else {
            Err(damaged(path, "its parts do not fit together"))
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn push(&mut self, pack: u32, block: u64) {
        match self.runs.last_mut() {
            Some((p, first, count)) if *p == pack && *first + *count == block => *count += 1,
            _ => self.runs.push((pack, block, 1)),
        }
    }
}

impl BlockStore {
    pub(super) fn new(storage: &Path) -> Self {
        Self {
            dir: storage.join("blocks"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pack"))
    }

    /// Keeps a copy of a database that nobody writes to. What `base` has at the same place is not written again. The pack
    /// gets this name, and is there, whole and synced, when this returns.
    pub(super) fn keep(
        &self,
        copy: &Path,
        base: Option<&Manifest>,
        name: &str,
    ) -> Result<Kept, SnapshotError> {
        fs::create_dir_all(&self.dir).map_err(io_at(&self.dir, "it cannot be made"))?;
        let mut packs = base.map(|b| b.packs.clone()).unwrap_or_default();
        let known = match base {
            // What cannot be read any more is not built on: then everything is written anew.
            Some(base) if packs.len() < PACKS_MAX => self.hashes(base).unwrap_or_default(),
            _ => Vec::new(),
        };
        if known.is_empty() {
            packs.clear();
        }
        // As if they had just been made: whoever sweeps meanwhile leaves them alone.
        for name in &packs {
            let touched = File::options().append(true).open(self.path(name));
            let _ = touched.and_then(|f| f.set_modified(std::time::SystemTime::now()));
        }
        let size = fs::metadata(copy)
            .map_err(io_at(copy, "it cannot be read"))?
            .len();
        let own = u32::try_from(packs.len()).unwrap_or(u32::MAX);
        packs.push(name.to_owned());
        let mut manifest = Manifest {
            format_version: FORMAT_VERSION,
            size,
            packs,
            runs: Vec::new(),
        };
        let mut input = BufReader::with_capacity(
            1 << 20,
            File::open(copy).map_err(io_at(copy, "it cannot be read"))?,
        );
        let temp = tempfile::Builder::new()
            .prefix(".making-")
            .tempfile_in(&self.dir)
            .map_err(io_at(&self.dir, "no file can be made in it"))?;
        let mut out = PackWriter::new(BufWriter::with_capacity(1 << 20, temp));
        let write_failed = |e: std::io::Error| io_at(&self.dir, "a pack cannot be written")(e);
        out.begin().map_err(write_failed)?;
        let mut whole = Sha256::new();
        let mut block = [0u8; BLOCK];
        for place in 0..usize::try_from(size.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX) {
            let left = size - (place * BLOCK) as u64;
            let len = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            input
                .read_exact(&mut block[..len])
                .map_err(io_at(copy, "it cannot be read"))?;
            whole.update(&block[..len]);
            let hash = hash_of(&block[..len]);
            match known.get(place) {
                Some((h, pack, at)) if *h == hash => manifest.push(*pack, *at),
                _ => {
                    let at = out.add(hash, &block[..len]).map_err(write_failed)?;
                    manifest.push(own, at);
                }
            }
        }
        let (temp, stored) = out.finish().map_err(write_failed)?;
        let path = self.path(name);
        temp.persist(&path)
            .map_err(|e| io_at(&path, "it cannot be given its name")(e.error))?;
        sync_dir(&self.dir).map_err(io_at(&self.dir, "it cannot be synced"))?;
        // Only those that are used, so that the others can go.
        manifest.forget_unused();
        Ok(Kept {
            manifest,
            sha256: hex::encode(whole.finalize()),
            stored,
        })
    }

    /// Of each block of a manifest, in order: its hash and where it lies.
    fn hashes(&self, manifest: &Manifest) -> Result<Vec<(Hash, u32, u64)>, SnapshotError> {
        let packs = self.open_all(manifest)?;
        let mut out = Vec::new();
        for (pack, first, count) in &manifest.runs {
            for at in *first..first.saturating_add(*count) {
                let (hash, ..) = packs[*pack as usize].entry(at)?;
                out.push((hash, *pack, at));
            }
        }
        Ok(out)
    }

    fn open_all(&self, manifest: &Manifest) -> Result<Vec<Pack>, SnapshotError> {
        manifest
            .packs
            .iter()
            .map(|name| Pack::open(&self.path(name)))
            .collect()
    }

    /// Puts a database together again, each block checked; gives SHA-256 (hex) and size of the whole.
    pub(super) fn extract(
        &self,
        manifest: &Manifest,
        to: &mut File,
    ) -> Result<(String, u64), SnapshotError> {
        let mut packs = self.open_all(manifest)?;
        let mut out = BufWriter::with_capacity(1 << 20, to);
        let (mut whole, mut size) = (Sha256::new(), 0u64);
        for (pack, first, count) in &manifest.runs {
            let pack = &mut packs[*pack as usize];
            for at in *first..first.saturating_add(*count) {
                let block = pack.block(at)?;
                whole.update(&block);
                size += block.len() as u64;
                out.write_all(&block)
                    .map_err(io_at(&self.dir, "a database cannot be put together"))?;
            }
        }
        out.flush()
            .map_err(io_at(&self.dir, "a database cannot be put together"))?;
        if size == manifest.size {
            Ok((hex::encode(whole.finalize()), size))
        } else {
            Err(damaged(
                &self.dir,
                "a manifest and its packs do not fit together",
            ))
        }
    }

    /// Removes the packs that none of these manifests names. May be interrupted anywhere.
    pub(super) fn sweep(&self, manifests: &[PathBuf]) {
        let mut named = BTreeSet::new();
        for path in manifests {
            match Manifest::read(path) {
                Ok(manifest) => named.extend(manifest.packs),
                // One that cannot be read may name any of them.
                Err(_) => return,
            }
        }
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_named = name
                .strip_suffix(".pack")
                .is_some_and(|n| named.contains(n));
            let is_old = entry
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ORPHAN_AGE));
            if !is_named && is_old {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Manifest {
    fn forget_unused(&mut self) {
        let used: BTreeSet<u32> = self.runs.iter().map(|r| r.0).collect();
        let kept: Vec<u32> = used.into_iter().collect();
        self.packs = kept
            .iter()
            .map(|i| self.packs[*i as usize].clone())
            .collect();
        for run in &mut self.runs {
            let new = kept.binary_search(&run.0).unwrap_or(0);
            run.0 = u32::try_from(new).unwrap_or(u32::MAX);
        }
    }
}

struct PackWriter {
    out: BufWriter<tempfile::NamedTempFile>,
    at: u64,
    index: Vec<(Hash, u64, u32)>,
}

impl PackWriter {
    fn new(out: BufWriter<tempfile::NamedTempFile>) -> Self {
        Self {
            out,
            at: 0,
            index: Vec::new(),
        }
    }

    fn begin(&mut self) -> std::io::Result<()> {
        self.put(MAGIC)
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn add(&mut self, hash: Hash, block: &[u8]) -> std::io::Result<u64> {
        let small = lz4_flex::block::compress(block);
        let (bytes, flag) = if small.len() < block.len() {
            (small.as_slice(), 0)
        } else {
            (block, RAW)
        };
        let len = u32::try_from(bytes.len()).unwrap_or(0) | flag;
        self.index.push((hash, self.at, len));
        self.put(bytes)?;
        Ok(self.index.len() as u64 - 1)
    }

    fn finish(mut self) -> std::io::Result<(tempfile::NamedTempFile, u64)> {
        let place = self.at;
        for (hash, offset, len) in std::mem::take(&mut self.index) {
            self.put(&hash)?;
            self.put(&offset.to_le_bytes())?;
            self.put(&len.to_le_bytes())?;
        }
        let blocks = (self.at - place) / ENTRY as u64;
        self.put(&blocks.to_le_bytes())?;
        self.put(&place.to_le_bytes())?;
        self.put(MAGIC)?;
        let stored = self.at;
        let temp = self
            .out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        temp.as_file().sync_all()?;
        Ok((temp, stored))
    }
}

impl Pack {
    fn open(path: &Path) -> Result<Self, SnapshotError> {
        let mut file = File::open(path).map_err(io_at(path, "it cannot be read"))?;
        let read = |e: std::io::Error| io_at(path, "it cannot be read")(e);
        let size = file.metadata().map_err(read)?.len();
        if size < (MAGIC.len() + FOOTER) as u64 {
            return Err(damaged(path, "it is too short"));
        }
        let mut footer = [0u8; FOOTER];
        file.seek(SeekFrom::Start(size - FOOTER as u64))
            .map_err(read)?;
        file.read_exact(&mut footer).map_err(read)?;
        let number = |from: usize| {
            let mut eight = [0u8; 8];
            eight.copy_from_slice(&footer[from..from + 8]);
            u64::from_le_bytes(eight)
        };
        let (blocks, place) = (number(0), number(8));
        let index_len = blocks.checked_mul(ENTRY as u64);
        let ends = index_len.and_then(|len| place.checked_add(len));
        if &footer[16..] != MAGIC || ends != Some(size - FOOTER as u64) {
            return Err(damaged(path, "it is no pack, or it was cut"));
        }
        file.seek(SeekFrom::Start(place)).map_err(read)?;
        let mut bytes = vec![0u8; usize::try_from(index_len.unwrap_or(0)).unwrap_or(0)];
        file.read_exact(&mut bytes).map_err(read)?;
        let index = bytes
            .chunks_exact(ENTRY)
            .map(|e| {
                let (mut hash, mut offset, mut len) = ([0; 16], [0; 8], [0; 4]);
                hash.copy_from_slice(&e[..16]);
                offset.copy_from_slice(&e[16..24]);
                len.copy_from_slice(&e[24..28]);
                (hash, u64::from_le_bytes(offset), u32::from_le_bytes(len))
            })
            .collect();
        Ok(Self {
            file,
            path: path.to_owned(),
            index,
        })
    }

    fn entry(&self, at: u64) -> Result<(Hash, u64, u32), SnapshotError> {
        usize::try_from(at)
            .ok()
            .and_then(|at| self.index.get(at).copied())
            .ok_or_else(|| damaged(&self.path, "it has no such block"))
    }

    fn block(&mut self, at: u64) -> Result<Vec<u8>, SnapshotError> {
        let (hash, offset, len) = self.entry(at)?;
        let stored = (len & !RAW) as usize;
        if stored > 2 * BLOCK {
            return Err(damaged(&self.path, "a block is too long"));
        }
        let mut bytes = vec![0u8; stored];
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(io_at(&self.path, "it cannot be read"))?;
        let block = if len & RAW == 0 {
            lz4_flex::block::decompress(&bytes, BLOCK)
                .map_err(|e| damaged(&self.path, &format!("a block cannot be unpacked: {e}")))?
        } else {
            bytes
        };
        if hash_of(&block) == hash {
            Ok(block)
        } else {
            Err(damaged(&self.path, "a block is not what it was"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, BlockStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = BlockStore::new(dir.path());
        (dir, store)
    }

    fn pages(n: usize, change: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for i in 0..n {
            let word = if change.contains(&i) {
                "changed"
            } else {
                "page"
            };
            let mut page = format!("{word} {i} ").repeat(800).into_bytes();
            page.truncate(BLOCK);
            bytes.extend(page);
        }
        // The end need not fill a block.
        bytes.extend(b"tail");
        bytes
    }

    fn kept(
        store: &BlockStore,
        dir: &Path,
        bytes: &[u8],
        base: Option<&Manifest>,
        name: &str,
    ) -> Kept {
        let copy = dir.join(format!("{name}.db"));
        fs::write(&copy, bytes).unwrap();
        store.keep(&copy, base, name).unwrap()
    }

    fn extracted(store: &BlockStore, manifest: &Manifest) -> Result<Vec<u8>, SnapshotError> {
        let mut file = tempfile::tempfile().unwrap();
        store.extract(manifest, &mut file)?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn what_did_not_change_is_kept_once() {
        let (dir, store) = store();
        let (first, second) = (pages(1000, &[]), pages(1000, &[3, 500]));
        let a = kept(&store, dir.path(), &first, None, "a");
        let b = kept(&store, dir.path(), &second, Some(&a.manifest), "b");
        assert!(a.stored < first.len() as u64 / 4, "{}", a.stored);
        assert!(b.stored <= (2 * BLOCK) as u64 * 12 / 10, "{}", b.stored);
        assert_eq!(extracted(&store, &a.manifest).unwrap(), first);
        assert_eq!(extracted(&store, &b.manifest).unwrap(), second);
        // A database that became shorter, and one that nothing compresses.
        let c = kept(
            &store,
            dir.path(),
            &first[..BLOCK * 2],
            Some(&b.manifest),
            "c",
        );
        assert_eq!(extracted(&store, &c.manifest).unwrap(), &first[..BLOCK * 2]);
    }

    #[test]
    fn a_pack_that_is_gone_or_damaged_is_not_built_on() {
        let (dir, store) = store();
        let bytes = pages(50, &[]);
        let a = kept(&store, dir.path(), &bytes, None, "a");
        fs::write(store.path("a"), "nonsense").unwrap();
        let b = kept(&store, dir.path(), &bytes, Some(&a.manifest), "b");
        fs::remove_file(store.path("a")).unwrap();
        assert_eq!(extracted(&store, &b.manifest).unwrap(), bytes);
        let c = kept(&store, dir.path(), &bytes, Some(&a.manifest), "c");
        assert_eq!(extracted(&store, &c.manifest).unwrap(), bytes);
    }

    #[test]
    fn damage_is_found_in_every_part() {
        let (dir, store) = store();
        let a = kept(&store, dir.path(), &pages(20, &[]), None, "a");
        let path = store.path("a");
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let same = extracted(&store, &a.manifest).is_ok_and(|b| b == pages(20, &[]));
            // The first eight bytes say nothing that the footer does not say.
            assert!(!same || at < 8, "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(extracted(&store, &a.manifest).is_err());
    }

    #[test]
    fn a_manifest_that_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        for text in [
            "{}",
            "nonsense",
            r#"{"format_version":1,"size":4096,"packs":["a"],"runs":[[1,0,1]]}"#,
            r#"{"format_version":1,"size":4096,"packs":["../a"],"runs":[[0,0,1]]}"#,
            r#"{"format_version":1,"size":4096,"packs":["a"],"runs":[[0,0,2]]}"#,
            r#"{"format_version":1,"size":0,"packs":["a"],"runs":[[0,0,18446744073709551615],[0,0,2]]}"#,
            r#"{"format_version":2,"size":4096,"packs":["a"],"runs":[[0,0,1]]}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(Manifest::read(&path).is_err(), "{text}");
        }
    }

    #[test]
    fn only_old_packs_that_nobody_names_go() {
        let (dir, store) = store();
        let a = kept(&store, dir.path(), &pages(3, &[]), None, "a");
        kept(&store, dir.path(), &pages(4, &[1]), None, "b");
        kept(&store, dir.path(), &pages(5, &[1]), None, "new");
        let manifest = dir.path().join("m");
        fs::write(&manifest, a.manifest.to_bytes()).unwrap();
        let long_ago = std::time::SystemTime::now() - ORPHAN_AGE * 2;
        for name in ["a", "b"] {
            let file = File::options().write(true).open(store.path(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        store.sweep(std::slice::from_ref(&manifest));
        let there = |name: &str| store.path(name).exists();
        assert_eq!((there("a"), there("b"), there("new")), (true, false, true));
    }
}
