//! A checkpoint from elsewhere: from a file, from an anchor's file, from an address, from a witness.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use evenkeel_edge::anchor::FileAnchor;
use evenkeel_edge::witness::fetch_checkpoint;
use evenkeel_ledger::tlog::SignedNote;

use super::super::run::runtime;
use super::Failure;

/// How long an address may take to answer.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// Largest file with checkpoints that is read: an anchor's, of which the newest one counts.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The checkpoint that `from` names. `origin` tells which log a witness is asked for.
pub(super) fn checkpoint(
    from: &str,
    origin: impl Fn() -> Option<String>,
) -> Result<SignedNote, Failure> {
    if from.starts_with("http://") || from.starts_with("https://") {
        let origin = origin();
        return runtime()?
            .block_on(fetch_checkpoint(from, origin.as_deref(), FETCH_LIMIT))
            .map_err(|e| Failure::target(format!("no checkpoint from {from}: {e}")));
    }
    let bytes = read_bounded(Path::new(from), FILE_BYTES_MAX)?;
    if let Ok(note) = SignedNote::parse(&bytes) {
        return Ok(note);
    }
    // An anchor's file: the last one that was appended whole.
    runtime()?
        .block_on(FileAnchor::new(from).last())
        .map_err(|e| Failure::usage(e.to_string()))?
        .ok_or_else(|| Failure::usage(format!("{from} holds no checkpoint")))
}

/// A file of at most so many bytes.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|e| Failure::usage(format!("{shown} cannot be read: {e}")))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::usage(format!(
            "{shown} has more than {bytes_max} bytes"
        )));
    }
    Ok(bytes)
}
