//! What happened to the files of one directory, in order: every write, truncation, sync, creation and deletion.
//! Also the place where a call is made to fail. Safe code; `vfs.rs` asks it before a call and tells it afterwards.

use std::collections::HashMap;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file as the disk knows it. A name that is deleted and created again is another file.
pub type FileId = usize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file that was there, whole and durable, before recording began.
    Found {
        /// Its name in the directory.
        name: String,
        /// The number it gets.
        file: FileId,
        /// What it held.
        content: Vec<u8>,
    },
    /// A new, empty file.
    Create {
        /// Its name in the directory.
        name: String,
        /// The number it gets.
        file: FileId,
    },
    /// A name taken out of the directory.
    Delete {
        /// The name.
        name: String,
        /// Whether the directory was synced then.
        synced: bool,
    },
    /// Bytes written.
    Write {
        /// To what.
        file: FileId,
        /// From where on.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A file cut to a size.
    Truncate {
        /// Which.
        file: FileId,
        /// Bytes that stay.
        size: u64,
    },
    /// A sync that succeeded: what came before is durable.
    Sync {
        /// Of what.
        file: FileId,
        /// Whether the directory was synced with it; SQLite does that once for a new log or journal.
        directory: bool,
    },
    /// A sync that failed. What was to be synced may be gone even if a later sync succeeds: the operating system
    /// reports a failed page once and calls it clean.
    SyncFailed {
        /// Of what.
        file: FileId,
    },
}

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening or creating a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing.
    Sync,
    /// Cutting a file.
    Truncate,
    /// Deleting a file.
    Delete,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Truncate,
        Self::Delete,
    ];
}

/// Which call fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The kind of call.
    pub call: Call,
    /// Which of its kind, from 1.
    pub nth: u64,
    /// Whether all later calls of the kind fail too, as on a disk that stays full.
    pub lasting: bool,
    /// SQLite's extended result code.
    pub code: c_int,
    /// Whether a failing write leaves half of its bytes behind.
    pub halfway: bool,
}

/// How recording deviates from the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plant {
    /// Syncs are answered with success and not made: a disk, or a program, that acknowledges too early. There to
    /// show that the checks notice.
    pub drop_syncs: bool,
    /// A call that fails.
    pub fault: Option<Fault>,
}

/// What is to be done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Carry it out.
    Pass,
    /// Answer with success without carrying it out.
    Skip,
    /// Answer with this code without carrying it out.
    Fail(c_int),
    /// Write this many bytes, then answer with this code.
    Half(usize, c_int),
}

/// The recorder of one directory, from [`Recorder::start`] until it is stopped.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ops: Vec<Op>,
    names: HashMap<String, FileId>,
    files: Vec<NewFile>,
    plant: Plant,
    calls: HashMap<Call, u64>,
    fired: Option<usize>,
}

/// Whether SQLite's next sync of a file syncs its directory too.
#[derive(Debug, Clone, Copy)]
struct NewFile {
    directory_due: bool,
}

static ACTIVE: Mutex<Vec<Arc<Recorder>>> = Mutex::new(Vec::new());

/// The recorder of a file's directory, if it has one.
pub(crate) fn recorder_of(path: &Path) -> Option<Arc<Recorder>> {
    let directory = path.parent()?;
    lock(&ACTIVE)
        .iter()
        .find(|recorder| recorder.directory == directory)
        .cloned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Begins to record what SQLite does in a directory (an absolute path without links). Files of other
    /// directories are left alone, so several recordings may run at once.
    pub fn start(directory: &Path, plant: Plant) -> Arc<Self> {
        crate::vfs::install();
        let inner = Inner {
            plant,
            ..Inner::default()
        };
        let recorder = Arc::new(Self {
            directory: directory.to_owned(),
            inner: Mutex::new(inner),
        });
        lock(&ACTIVE).push(Arc::clone(&recorder));
        recorder
    }

    /// Ends recording: files opened from now on are not recorded. Returns what was.
    pub fn stop(&self) -> Vec<Op> {
        lock(&ACTIVE).retain(|other| !std::ptr::eq(&raw const **other, self));
        std::mem::take(&mut lock(&self.inner).ops)
    }

    /// How many operations are recorded so far.
    pub fn position(&self) -> usize {
        lock(&self.inner).ops.len()
    }

    /// How often each call was made so far.
    pub fn calls(&self, call: Call) -> u64 {
        lock(&self.inner).calls.get(&call).copied().unwrap_or(0)
    }

    /// The position at which the fault struck for the first time.
    pub fn fired(&self) -> Option<usize> {
        lock(&self.inner).fired
    }

    /// Counts a call that is about to be made and says what becomes of it.
    pub(crate) fn ask(&self, call: Call, bytes: usize) -> Verdict {
        let mut inner = lock(&self.inner);
        let calls = inner.calls.entry(call).or_default();
        *calls += 1;
        let calls = *calls;
        if let Some(fault) = inner.plant.fault
            && fault.call == call
            && (calls == fault.nth || (fault.lasting && calls > fault.nth))
        {
            let position = inner.ops.len();
            inner.fired.get_or_insert(position);
            return if fault.halfway {
                Verdict::Half(bytes / 2, fault.code)
            } else {
                Verdict::Fail(fault.code)
            };
        }
        if call == Call::Sync && inner.plant.drop_syncs {
            return Verdict::Skip;
        }
        Verdict::Pass
    }

    /// What the file holds, if it exists and is not known yet. Only then: reading a file behind SQLite's back
    /// would drop the locks that this process holds on it.
    pub(crate) fn content_if_unknown(&self, path: &Path) -> Option<Vec<u8>> {
        if lock(&self.inner).names.contains_key(&name_of(path)) {
            return None;
        }
        std::fs::read(path).ok()
    }

    /// A file was opened. `content` is what it held, if it was there and not known.
    pub(crate) fn opened(
        &self,
        path: &Path,
        content: Option<Vec<u8>>,
        sync_directory: bool,
    ) -> FileId {
        let name = name_of(path);
        let mut inner = lock(&self.inner);
        if let Some(known) = inner.names.get(&name) {
            return *known;
        }
        let file = inner.files.len();
        inner.files.push(NewFile {
            directory_due: content.is_none() && sync_directory,
        });
        inner.names.insert(name.clone(), file);
        inner.ops.push(match content {
            Some(content) => Op::Found {
                name,
                file,
                content,
            },
            None => Op::Create { name, file },
        });
        file
    }

    pub(crate) fn deleted(&self, path: &Path, synced: bool) {
        let name = name_of(path);
        let mut inner = lock(&self.inner);
        if inner.names.remove(&name).is_some() {
            inner.ops.push(Op::Delete { name, synced });
        }
    }

    pub(crate) fn wrote(&self, file: FileId, offset: u64, data: &[u8]) {
        let data = data.to_vec();
        lock(&self.inner).ops.push(Op::Write { file, offset, data });
    }

    pub(crate) fn truncated(&self, file: FileId, size: u64) {
        lock(&self.inner).ops.push(Op::Truncate { file, size });
    }

    pub(crate) fn synced(&self, file: FileId, success: bool) {
        let mut inner = lock(&self.inner);
        if success {
            let directory = std::mem::take(&mut inner.files[file].directory_due);
            inner.ops.push(Op::Sync { file, directory });
        } else {
            inner.ops.push(Op::SyncFailed { file });
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
