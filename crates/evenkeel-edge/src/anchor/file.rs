//! Checkpoints appended to a file, one after the other:
//!
//! ```text
//! <tab>checkpoint
//! <the signed note, many lines>
//! <tab>end
//! ```
//!
//! A note has no tabs, so no note can look like two. A record without its end (the power failed) is passed over.
//! The file is named `.1` when it is full, in the place of the one named so before.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_ledger::tlog::SignedNote;
use evenkeel_ledger::tlog::note::NOTE_BYTES_MAX;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::AnchorError;

const BEGIN: &str = "\tcheckpoint\n";
const END: &str = "\tend\n";

/// The size from which on a file is set aside, unless told otherwise, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// The smallest such size that may be told, in bytes: a few of the longest notes.
const FILE_BYTES_MIN: u64 = 4 * NOTE_BYTES_MAX as u64;
/// How long one call waits for the file system.
const LIMIT: Duration = Duration::from_secs(5);

/// A file that checkpoints are appended to, each durable before the call returns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileAnchor {
    path: PathBuf,
    bytes_max: u64,
    limit: Duration,
    /// One call at a time; a call that hangs keeps the others from piling up behind it.
    turn: Arc<Mutex<()>>,
}

impl FileAnchor {
    /// Appends to `path`, which is made when it is missing; its directory is not: that may be a mount that is gone.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bytes_max: FILE_BYTES_MAX,
            limit: LIMIT,
            turn: Arc::new(Mutex::new(())),
        }
    }

    /// The size from which on the file is set aside as `.1`, 8 MiB otherwise and at least 256 KiB.
    #[must_use]
    pub fn with_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max.max(FILE_BYTES_MIN);
        self
    }

    /// How long a call waits for the file system; 5 s otherwise.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a checkpoint and waits until it is on disk.
    ///
    /// # Errors
    /// [`AnchorError::File`], [`AnchorError::Hangs`].
    pub async fn put(&self, note: &SignedNote) -> Result<(), AnchorError> {
        let record = format!("{BEGIN}{note}{END}");
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        self.run("appending to it", move || {
            append(&path, record.as_bytes(), bytes_max)
        })
        .await
    }

    /// The last checkpoint that was appended whole, not verified; `None` where there is none.
    ///
    /// # Errors
    /// [`AnchorError::File`] where the file is there and cannot be read, or its directory is not there;
    /// [`AnchorError::Hangs`].
    pub async fn last(&self) -> Result<Option<SignedNote>, AnchorError> {
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        self.run("reading it back", move || {
            if let Some(note) = last_in(&path, bytes_max)? {
                return Ok(Some(note));
            }
            if let Some(note) = last_in(&set_aside(&path), bytes_max)? {
                return Ok(Some(note));
            }
            // A mount that is gone must not look like one on which nothing was put yet.
            parent(&path).read_dir().map(|_| None)
        })
        .await
    }

    /// Runs on a thread that nobody waits for longer than the limit, not even at the end of the program: a dead network
    /// file system would hold any other one for ever.
    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        what: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, AnchorError> {
        let path = self.path.display().to_string();
        let failed = |error: io::Error| AnchorError::File {
            path: path.clone(),
            doing,
            reason: error.to_string(),
        };
        let answered = async {
            let turn: OwnedMutexGuard<()> = Arc::clone(&self.turn).lock_owned().await;
            let (done, result) = oneshot::channel();
            std::thread::Builder::new()
                .name("anchor-file".into())
                .spawn(move || {
                    let result = what();
                    drop(turn);
                    let _ = done.send(result);
                })?;
            result
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
        };
        match tokio::time::timeout(self.limit, answered).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(AnchorError::Hangs {
                path: path.clone(),
                limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

fn append(path: &Path, record: &[u8], bytes_max: u64) -> io::Result<()> {
    let mut file = open(path)?;
    let mut before = file.metadata()?.len();
    if before > 0 && before + record.len() as u64 > bytes_max {
        std::fs::rename(path, set_aside(path))?;
        file = open(path)?;
        before = file.metadata()?.len();
    }
    let mut bytes = Vec::with_capacity(record.len() + 1);
    if before > 0 && !ends_a_line(&mut file)? {
        // Somebody's half line; ours begins on its own.
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(record);
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a record would be passed over anyway; this keeps a full disk from collecting them.
        let _ = file.set_len(before);
    } else if before == 0 {
        sync_dir(parent(path))?;
    }
    written
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "same shape as where a directory can be synchronised"
)]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// The last whole record in the last `bytes_max` bytes of a file; `None` where there is no file or no record.
fn last_in(path: &Path, bytes_max: u64) -> io::Result<Option<SignedNote>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(last_record(&String::from_utf8_lossy(&bytes)))
}

/// The last record that is whole and is a note. The text may begin and end anywhere.
fn last_record(text: &str) -> Option<SignedNote> {
    let mut rest = text;
    // Each turn takes at least one beginning off the end.
    while let Some(at) = rest.rfind(BEGIN) {
        let begins_line = at == 0 || rest[..at].ends_with('\n');
        let record = &rest[at + BEGIN.len()..];
        let note = record
            .find(END)
            .and_then(|end| SignedNote::parse(&record.as_bytes()[..end]).ok());
        if begins_line && let Some(note) = note {
            return Some(note);
        }
        rest = &rest[..at];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_ledger::Hash;
    use evenkeel_ledger::tlog::{Checkpoint, KeyName, Signer};
    use proptest::prelude::*;

    fn note(size: u64) -> SignedNote {
        let signer = Signer::from_seed(KeyName::new("example.com/log").unwrap(), [1; 32]);
        Checkpoint::new("example.com/log", size, Hash::of(&size.to_be_bytes()))
            .sign(&signer)
            .unwrap()
    }

    fn record(size: u64) -> String {
        format!("{BEGIN}{}{END}", note(size))
    }

    proptest! {
        #[test]
        fn a_torn_end_leaves_the_record_before(cut in 0_usize..400, junk in "[a-z\\t\\n]{0,40}") {
            let whole = record(2);
            let cut = whole.floor_char_boundary(cut.min(whole.len() - 1));
            let torn = format!("{junk}\n{}{}", record(1), &whole[..cut]);
            prop_assert_eq!(last_record(&torn), Some(note(1)));
            let mended = format!("{torn}\n{}", record(3));
            prop_assert_eq!(last_record(&mended), Some(note(3)));
        }

        #[test]
        fn no_text_panics(text in "(\\PC|\\t|\\n|\tcheckpoint\n|\tend\n){0,60}") {
            let _ = last_record(&text);
        }
    }

    #[tokio::test]
    async fn one_that_hangs_does_not_hold_its_caller() {
        let dir = tempfile::tempdir().unwrap();
        let anchor =
            FileAnchor::new(dir.path().join("anchor")).with_limit(Duration::from_millis(50));
        let held = Arc::clone(&anchor.turn).lock_owned().await;
        let error = anchor.put(&note(1)).await.unwrap_err();
        assert!(matches!(error, AnchorError::Hangs { limit_ms: 50, .. }));
        drop(held);
        anchor.put(&note(1)).await.unwrap();
    }
}
