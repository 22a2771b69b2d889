//! Writing the log out for those who do not trust this machine or this program: JSON lines that a short script
//! verifies, and static tiles (C2SP `tlog-tiles`) that any web server can serve. Both end at the newest checkpoint, so
//! that everything in them is signed. Memory stays that of one entry, or of one tile.

use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use crate::tlog::tile::{self, Content, Tile};
use crate::tlog::{Checkpoint, SignedNote};
use crate::{Entry, LedgerError, Query, Reader};

/// Names the form of the first line of [`jsonl`].
pub const FORMAT: &str = "evenkeel-ledger-export-v1";

/// Why a log could not be written out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Where it should go took no more.
    #[error("the export could not be written: {0}")]
    Write(#[from] io::Error),
    /// Nothing was ever signed: there is nothing that others could verify.
    #[error("nothing in this ledger was ever signed, so nothing of it can be verified by others")]
    Unsigned,
    /// The directory holds something already.
    #[error("{0} is not empty; name a new directory")]
    NotEmpty(String),
    /// An entry or checkpoint is not what it should be: the ledger does not verify.
    #[error("the ledger cannot be exported, since it does not verify: {0}")]
    Damaged(String),
}

#[derive(Serialize)]
struct Header<'a> {
    format: &'a str,
    origin: &'a str,
    keys: Vec<Period>,
}

#[derive(Serialize)]
struct Period {
    from_entry: u64,
    key: String,
}

#[derive(Serialize)]
struct Footer {
    checkpoint: String,
}

/// One JSON object a line: the log's name and keys, each entry with the columns' names and its payload as the text that
/// is stored, and the newest checkpoint with its cosignatures. `progress` hears (entries written, in all). Returns how
/// many entries there are. `out` is not flushed.
pub fn jsonl(
    reader: &Reader,
    mut out: impl Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, ExportError> {
    let (note, size) = newest(reader)?;
    let keys = reader.keys()?;
    let header = Header {
        format: FORMAT,
        origin: keys.origin().unwrap_or_default(),
        keys: keys
            .periods()
            .iter()
            .map(|(from_entry, key)| Period {
                from_entry: *from_entry,
                key: key.to_string(),
            })
            .collect(),
    };
    line(&mut out, &header)?;
    let mut written = 0;
    each(reader, size, |entry| {
        line(&mut out, &entry)?;
        written += 1;
        progress(written, size);
        Ok(())
    })?;
    line(
        &mut out,
        &Footer {
            checkpoint: note.to_string(),
        },
    )?;
    Ok(size)
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// The log as static files in a new or empty directory: `checkpoint`, `tile/<level>/...` with the hashes, and
/// `tile/entries/...` with the canonical leaves. Each file is on disk when this returns. `progress` hears (entries
/// written, in all). Returns how many entries there are.
pub fn tiles(
    reader: &Reader,
    dir: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, ExportError> {
    let (note, size) = newest(reader)?;
    fs::create_dir_all(dir)?;
    if fs::read_dir(dir)?.next().is_some() {
        return Err(ExportError::NotEmpty(dir.display().to_string()));
    }
    for tile in Tile::of_log(size) {
        let Content::Hashes(level) = tile.content() else {
            continue;
        };
        let hashes = reader.tile_hashes(u32::from(level), tile.index(), tile.width())?;
        let bytes =
            tile::encode_hashes(&hashes).map_err(|e| ExportError::Damaged(e.to_string()))?;
        write(dir, &tile.to_string(), &bytes)?;
    }
    let mut bundles = Tile::entries_of_log(size);
    let mut bundle = bundles.next();
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    let mut written = 0;
    each(reader, size, |entry| {
        leaves.push(entry.leaf_bytes());
        written += 1;
        if let Some(tile) = &bundle
            && leaves.len() == usize::from(tile.width())
        {
            let bytes =
                tile::encode_entries(&leaves).map_err(|e| ExportError::Damaged(e.to_string()))?;
            write(dir, &tile.to_string(), &bytes)?;
            leaves.clear();
            bundle = bundles.next();
            progress(written, size);
        }
        Ok(())
    })?;
    // Last, as whoever finds it looks for the rest.
    write(dir, "checkpoint", note.to_string().as_bytes())?;
    Ok(size)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
    let path = dir.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::File::create_new(&path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// The newest checkpoint, and how many entries it is about.
fn newest(reader: &Reader) -> Result<(SignedNote, u64), ExportError> {
    let note = reader.checkpoint()?.ok_or(ExportError::Unsigned)?;
    let checkpoint =
        Checkpoint::parse(note.text()).map_err(|e| ExportError::Damaged(e.to_string()))?;
    Ok((note, checkpoint.size))
}

/// The first `size` entries, none missing.
fn each(
    reader: &Reader,
    size: u64,
    mut with: impl FnMut(Entry) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut next = 1;
    let flow = reader.for_each(&Query::new(), |entry| {
        if entry.sequence > size {
            return ControlFlow::Break(Ok(()));
        }
        if entry.sequence != next {
            return ControlFlow::Break(Err(ExportError::Damaged(format!(
                "entry {next} is missing"
            ))));
        }
        next += 1;
        match with(entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    })?;
    if let ControlFlow::Break(Err(error)) = flow {
        return Err(error);
    }
    if next != size + 1 {
        return Err(ExportError::Damaged(format!("entry {next} is missing")));
    }
    Ok(())
}
