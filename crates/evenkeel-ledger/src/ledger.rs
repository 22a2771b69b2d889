//! The handle: open, append, close. It validates and hashes payloads in the caller's thread, and hands entries to
//! the writer thread; it never touches the database itself.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::entry::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::signed::SignedCheckpoint;
use crate::tlog::{SignatureLine, Signer};
use crate::writer::{Append, Batch, Control, Request, Work, Writer};
use crate::{DropSelection, Entry, Hash, LedgerError, NewEntry, Reader, dropped};

/// Entries that may wait for the writer, in bytes together: 32 MiB. Then appending waits for room.
pub const QUEUE_BYTES_MAX: usize = QUEUE_UNITS << 10;

/// The queue is accounted in units of 1 KiB, so that it also bounds the number of small entries.
const QUEUE_UNITS: usize = 32 << 10;

/// How to open a ledger.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a commit waits for another process's lock before it is refused as busy. Default 5 s.
    pub busy_timeout: Duration,
    /// Largest size of the database file in bytes, rounded down to whole pages; default no limit. An append
    /// beyond it fails as [`LedgerError::Full`] and ends the writer, just as a full disk does.
    pub size_bytes_max: Option<u64>,
    /// The key that signs a checkpoint with each commit; its name is the log's origin, for good. Default none: then
    /// nothing is signed, and a log that was signed before says so in an entry of its own.
    pub signer: Option<Arc<Signer>>,
    /// The clock for entries that the ledger writes about itself. Default the system's.
    pub clock: fn() -> jiff::Timestamp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            size_bytes_max: None,
            signer: None,
            clock: jiff::Timestamp::now,
        }
    }
}

/// What a call of [`Ledger::drop_payloads`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The entry that records it; `None` if there was nothing to drop.
    pub entry: Option<Entry>,
    /// How many payloads were dropped.
    pub entries: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// Whether that was all; if not, call again.
    pub finished: bool,
}

/// The newest entry that is known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its sequence; 0 for an empty log.
    pub sequence: u64,
    /// Its `entry_hash`; zeros for an empty log.
    pub hash: Hash,
}

/// A handle on the one writer of a ledger. Clones are cheap and share it; the last one that is dropped waits
/// until all that was accepted is written, and closes the file.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    room: Arc<Semaphore>,
    sender: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

/// What the writer thread tells its handles.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) head: Mutex<Head>,
    pub(crate) poison: Mutex<Option<Arc<LedgerError>>>,
    pub(crate) checkpoint: watch::Sender<Option<Arc<SignedCheckpoint>>>,
}

impl Ledger {
    /// Opens the ledger, or creates it (mode 0600) in a directory that exists, with the default [`Options`].
    ///
    /// Checks the schema, re-hashes the newest entries, and compares the tree with the newest checkpoint, so that
    /// appending continues the true chain; a file that fails this is [`LedgerError::DoesNotVerify`] and is not
    /// touched. A ledger of an older format version is brought up to this one, in one transaction.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        Self::open_with(path, &Options::default())
    }

    /// As [`Ledger::open`] with options. A signer on a log that has no key yet becomes its key, by an entry that is
    /// appended at once; one that is not the key the log trusts now is [`LedgerError::WrongKey`].
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self, LedgerError> {
        let path = path.as_ref().to_owned();
        let writer = Writer::open(&path, options)?;
        let state = Arc::new(State {
            head: Mutex::new(writer.head()),
            poison: Mutex::new(None),
            checkpoint: watch::Sender::new(writer.newest()),
        });
        let (sender, receiver) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || writer.run(&receiver, &theirs))
            .map_err(|error| LedgerError::io(&path, "starting its writer thread", &error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                room: Arc::new(Semaphore::new(QUEUE_UNITS)),
                sender: Mutex::new(Some(sender)),
                thread: Mutex::new(Some(thread)),
                state,
            }),
        })
    }

    /// Appends one entry; ready when it is durable.
    ///
    /// Nothing happens before the first poll. A future that is dropped before it is ready leaves open whether
    /// the entry is written. One that was polled has to be polled on or dropped: it may hold a place in the
    /// queue that others wait for. Works on any executor.
    #[expect(
        clippy::missing_panics_doc,
        reason = "one entry comes back for one entry"
    )]
    pub fn append(
        &self,
        entry: NewEntry,
    ) -> impl Future<Output = Result<Entry, LedgerError>> + Send + use<> {
        let batch = self.append_all(vec![entry]);
        async move { Ok(batch.await?.pop().expect("one entry for one entry")) }
    }

    /// Appends several entries with consecutive sequences, in one transaction: all of them or none.
    ///
    /// At most [`BATCH_ENTRIES_MAX`] entries and [`BATCH_BYTES_MAX`]; none at all is no write.
    pub fn append_all(
        &self,
        entries: Vec<NewEntry>,
    ) -> impl Future<Output = Result<Vec<Entry>, LedgerError>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.append_all(entries).await }
    }

    /// As [`Ledger::append`] for code that is not async: blocks this thread until the entry is durable.
    pub fn append_blocking(&self, entry: NewEntry) -> Result<Entry, LedgerError> {
        block_on(self.append(entry))
    }

    /// As [`Ledger::append_all`] for code that is not async.
    pub fn append_all_blocking(&self, entries: Vec<NewEntry>) -> Result<Vec<Entry>, LedgerError> {
        block_on(self.append_all(entries))
    }

    /// Waits for one of this ledger's own futures in code that is not async: blocks this thread until it is ready.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }

    /// The newest checkpoint that is durable, signed by the log alone; `None` if nothing was ever signed. It is of the
    /// whole log unless signing stopped.
    pub fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        self.shared.state.checkpoint.borrow().clone()
    }

    /// As [`Ledger::checkpoint`], for somebody who waits for the next: a witness's client.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<SignedCheckpoint>>> {
        self.shared.state.checkpoint.subscribe()
    }

    /// Keeps cosignatures of witnesses on the checkpoint of `tree_size` entries. Those that are there already are
    /// passed over; returns how many were new. They are kept as given: verify them before, with the witness's key.
    ///
    /// At most [`COSIGNATURES_MAX`](crate::COSIGNATURES_MAX) are kept for each checkpoint.
    pub fn add_cosignatures(
        &self,
        tree_size: u64,
        lines: Vec<SignatureLine>,
    ) -> impl Future<Output = Result<usize, LedgerError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.control(Ok(()), Work::Cosign(tree_size, lines, reply), answer)
    }

    /// Makes `new` the key that signs from now on: an entry that both keys signed, and a checkpoint by the new one.
    /// It must have the log's name. Keep the old key until this is durable, and tell those who pinned it.
    pub fn rotate_key(
        &self,
        new: Arc<Signer>,
    ) -> impl Future<Output = Result<Entry, LedgerError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.control(Ok(()), Work::Rotate(new, reply), answer)
    }

    /// Signs nothing from now on, also after a restart, until [`Ledger::resume_signing`]: for a log that is behind
    /// what its witness has seen. Appending goes on. Returns the entry that records it.
    pub fn stop_signing(
        &self,
        reason: String,
    ) -> impl Future<Output = Result<Entry, LedgerError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let valid = dropped::check_reason(&reason);
        self.control(valid, Work::Stop(reason, reply), answer)
    }

    /// Signs again, everything since the last checkpoint included. A person's decision.
    pub fn resume_signing(
        &self,
        reason: String,
    ) -> impl Future<Output = Result<Entry, LedgerError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let valid = dropped::check_reason(&reason);
        self.control(valid, Work::Resume(reason, reply), answer)
    }

    /// Replaces payloads by their hashes, and records before that which and why. At most
    /// [`DROP_ENTRIES_MAX`](crate::DROP_ENTRIES_MAX) in one call, see [`Dropped::finished`]. Appending waits
    /// meanwhile. The payloads are overwritten in the file; backups and copies still have them.
    pub fn drop_payloads(
        &self,
        selection: DropSelection,
        reason: String,
    ) -> impl Future<Output = Result<Dropped, LedgerError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let valid = selection.validate(&reason);
        self.control(valid, Work::Drop(selection, reason, reply), answer)
    }

    fn control<T: Send>(
        &self,
        valid: Result<(), LedgerError>,
        work: Work,
        answer: oneshot::Receiver<Result<T, LedgerError>>,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send + use<T> {
        let shared = Arc::clone(&self.shared);
        async move {
            valid?;
            let room = shared.reserve(1).await?;
            shared.send(Request::Control(Control { work, _room: room }))?;
            answer.await.unwrap_or_else(|_| Err(shared.closed()))
        }
    }

    /// The newest entry that this writer knows to be durable.
    pub fn head(&self) -> Head {
        *lock(&self.shared.state.head)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The failure that ended this writer, if one did.
    pub fn failure(&self) -> Option<LedgerError> {
        lock(&self.shared.state.poison).as_deref().cloned()
    }

    /// A read-only connection to the same file.
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::open(&self.shared.path)
    }

    /// Writes what was accepted, closes the file and waits for that; blocks for as long as the disk takes.
    /// Later appends through any clone are [`LedgerError::Closed`]. Returns the failure that had ended the
    /// writer, if one did. Closing twice is fine.
    pub fn close(&self) -> Result<(), LedgerError> {
        self.shared.close();
        self.failure().map_or(Ok(()), Err)
    }
}

impl Shared {
    async fn append_all(&self, entries: Vec<NewEntry>) -> Result<Vec<Entry>, LedgerError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = check_batch(&entries)?;
        let room = self.reserve(bytes).await?;
        let (reply, answer) = oneshot::channel();
        let batch = Batch::new(entries);
        self.send(Request::Append(Append {
            batch: Arc::clone(&batch),
            bytes,
            reply,
            _room: room,
        }))?;
        // Ahead of the writer, which otherwise does it itself.
        batch.hashed().for_each(drop);
        let seals = answer.await.unwrap_or_else(|_| Err(self.closed()))?;
        Ok(batch.sealed(seals))
    }

    /// Sent under the lock and without waiting: the queue is bounded by the room, and no sender stays in a future
    /// that might never be polled again, so closing always ends.
    fn send(&self, request: Request) -> Result<(), LedgerError> {
        lock(&self.sender)
            .as_ref()
            .ok_or_else(|| self.closed())?
            .send(request)
            .map_err(|_| self.closed())
    }

    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LedgerError> {
        let units = u32::try_from(bytes / 1024 + 1).expect("a batch is smaller than the queue");
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        room.map_err(|_| self.closed())
    }

    fn closed(&self) -> LedgerError {
        match &*lock(&self.state.poison) {
            Some(cause) => LedgerError::Poisoned {
                cause: Arc::clone(cause),
            },
            None => LedgerError::Closed {
                path: self.path.clone(),
            },
        }
    }

    fn close(&self) {
        self.room.close();
        drop(lock(&self.sender).take());
        // Held while joining: a second caller returns only when the file is closed.
        let mut thread = lock(&self.thread);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the ledger's writer thread panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

fn check_batch(entries: &[NewEntry]) -> Result<usize, LedgerError> {
    if entries.len() > BATCH_ENTRIES_MAX {
        let problem = format!(
            "has {} entries, at most {BATCH_ENTRIES_MAX} are atomic",
            entries.len()
        );
        return Err(LedgerError::invalid("batch", problem));
    }
    let mut bytes = 0;
    for entry in entries {
        entry.validate()?;
        bytes += entry.size();
    }
    if bytes > BATCH_BYTES_MAX {
        let problem = format!("has {bytes} bytes, at most {BATCH_BYTES_MAX} are atomic");
        return Err(LedgerError::invalid("batch", problem));
    }
    Ok(bytes)
}

/// A panic elsewhere leaves these plain values whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one future on this thread. tokio's own blocking calls panic inside a runtime; this one merely blocks.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    // Bounded by the writer thread, which answers or drops each request.
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::Seal;

    fn entry(payload: &str) -> NewEntry {
        NewEntry {
            timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
            actor: "evenkeel".to_owned(),
            action: "check".to_owned(),
            resource: String::new(),
            subsystem: String::new(),
            payload: payload.to_owned(),
            result: String::new(),
        }
    }

    /// Puts a batch into the queue past the checks that would refuse it.
    fn smuggle(
        ledger: &Ledger,
        payloads: &[&str],
    ) -> oneshot::Receiver<Result<Vec<Seal>, LedgerError>> {
        let (reply, answer) = oneshot::channel();
        let room = block_on(ledger.shared.reserve(1)).unwrap();
        let entries: Vec<NewEntry> = payloads.iter().map(|payload| entry(payload)).collect();
        let request = Request::Append(Append {
            batch: Batch::new(entries),
            bytes: 1,
            reply,
            _room: room,
        });
        lock(&ledger.shared.sender)
            .as_ref()
            .unwrap()
            .send(request)
            .unwrap();
        answer
    }

    /// Should the checks before the queue ever let something pass that the table refuses, the others in its
    /// group must not pay for it.
    #[test]
    fn a_batch_that_the_table_refuses_is_refused_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("x.db")).unwrap();
        // The lock keeps the writer busy until the rest waits as one group.
        let other = rusqlite::Connection::open(ledger.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let batches: [&[&str]; 4] = [&["1"], &["2", "3"], &["4", "{"], &["5"]];
        let answers: Vec<_> = batches
            .iter()
            .map(|batch| smuggle(&ledger, batch))
            .collect();
        other.execute_batch("ROLLBACK").unwrap();
        let sequences: Vec<Result<Vec<u64>, LedgerError>> = answers
            .into_iter()
            .map(|answer| {
                block_on(answer)
                    .unwrap()
                    .map(|all| all.iter().map(|one| one.sequence).collect())
            })
            .collect();
        match &sequences[..] {
            [Ok(a), Ok(b), Err(LedgerError::Sqlite { .. }), Ok(c)] => {
                assert_eq!((&a[..], &b[..], &c[..]), (&[1][..], &[2, 3][..], &[4][..]));
            }
            other => panic!("{other:?}"),
        }
        assert!(ledger.failure().is_none());
        ledger.close().unwrap();
        assert!(crate::verify(ledger.path(), |_, _| {}).unwrap().is_sound());
    }

    /// The queue is bounded: with the writer held up, a caller waits instead of piling up entries.
    #[tokio::test]
    async fn a_full_queue_makes_callers_wait() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("x.db")).unwrap();
        let all = u32::try_from(QUEUE_UNITS).unwrap();
        let room = Arc::clone(&ledger.shared.room)
            .acquire_many_owned(all)
            .await
            .unwrap();
        let mut waiting = pin!(ledger.append(entry("1")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(ledger.head().sequence, 0);
        drop(room);
        assert_eq!(waiting.await.unwrap().sequence, 1);

        // Closing does not wait for those who wait; they are told.
        let _room = Arc::clone(&ledger.shared.room)
            .acquire_many_owned(all)
            .await
            .unwrap();
        let mut waiting = pin!(ledger.append(entry("2")));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        ledger.close().unwrap();
        assert!(matches!(waiting.await, Err(LedgerError::Closed { .. })));
    }
}
