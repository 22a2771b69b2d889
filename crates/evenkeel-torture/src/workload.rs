//! A seeded sequence of appends against the real ledger in a recorded directory, with the position in the recording
//! at which each of them was acknowledged.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::{fmt, path::Path};

use evenkeel_ledger::tlog::{KeyName, SignedNote, Signer};
use evenkeel_ledger::{Entry, Hash, Ledger, LedgerError, NewEntry, Options};
use rusqlite::Connection;

use crate::random::Random;
use crate::recorder::Recorder;

/// The ledger's name in each directory.
pub const FILE_NAME: &str = "ledger.db";

/// Options of a ledger that signs a checkpoint with each commit, by a key and a clock that are always the same.
pub static SIGNED: LazyLock<Options> = LazyLock::new(|| {
    let name = KeyName::new("torture.invalid/log").expect("a good name");
    Options {
        signer: Some(Arc::new(Signer::from_seed(name, [7; 32]))),
        clock: || jiff::Timestamp::UNIX_EPOCH,
        ..Options::default()
    }
});

/// How a ledger is opened: with a signer or without.
pub fn options(signed: bool) -> Options {
    if signed {
        SIGNED.clone()
    } else {
        Options::default()
    }
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One entry with a payload of about this many bytes.
    One(usize),
    /// So many entries that belong together.
    Batch(usize),
    /// So many entries at once, for one commit or more.
    Together(usize),
    /// Close and open again.
    Reopen,
    /// Another connection copies the write-ahead log into the database, as an administrator's shell may do.
    Checkpoint(&'static str),
}

/// What is to be done, and the most that may be expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Step>);

impl Plan {
    /// A short one: all kinds of steps in any order.
    pub fn short(random: &mut Random) -> Self {
        let steps = 4 + random.below(10);
        Self((0..steps).map(|_| step(random)).collect())
    }

    /// One that lasts until the ledger itself copies its write-ahead log and starts it anew.
    pub fn long(random: &mut Random) -> Self {
        // The ledger counts 8 pages for a commit and one for each 2 KiB, and copies after 1000.
        let mut steps = vec![Step::One(60_000); 27];
        steps.extend((0..6).map(|_| step(random)));
        Self(steps)
    }
}

fn step(random: &mut Random) -> Step {
    match random.below(12) {
        0..4 => Step::One(30),
        4 => Step::One(random.index(20_000)),
        5 | 6 => Step::Batch(2 + random.index(3)),
        7 | 8 => Step::Together(2 + random.index(3)),
        9 => Step::Reopen,
        10 => Step::Checkpoint("PASSIVE"),
        _ => Step::Checkpoint(if random.percent(50) {
            "RESTART"
        } else {
            "TRUNCATE"
        }),
    }
}

/// One entry that the ledger said is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// How many operations were recorded when it said so.
    pub position: usize,
    /// Which entry.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// A checkpoint that the ledger handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// How many operations were recorded by then, at most.
    pub position: usize,
    /// The signed note.
    pub note: SignedNote,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Driven {
    /// Whether the ledger had a signer.
    pub signed: bool,
    /// Checkpoints, in the order of their sizes.
    pub published: Vec<Published>,
    /// Entries in the order of their sequences, the ledger's own among them: durable once it is open.
    pub acknowledged: Vec<Acknowledged>,
    /// First and last sequence of each acknowledged batch.
    pub batches: Vec<(u64, u64)>,
    /// Entries that were refused, so that they may be there or not.
    pub refused: u64,
    /// How opening, appending or closing failed, if it did: the plan ends there.
    pub failure: Option<LedgerError>,
    /// What the ledger did that it must not do.
    pub faults: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Carries out a plan in the recorder's directory. Ends at the first failure, after looking that the ledger says so
/// and takes nothing more.
pub fn drive(directory: &Path, recorder: &Arc<Recorder>, plan: &Plan, signed: bool) -> Driven {
    let path = directory.join(FILE_NAME);
    let mut driven = Driven {
        signed,
        ..Driven::default()
    };
    let mut number = 0;
    let Some(mut ledger) = open(&path, recorder, &mut driven) else {
        return driven;
    };
    for step in &plan.0 {
        let requests: Vec<Vec<NewEntry>> = match *step {
            Step::One(bytes) => vec![entries(&mut number, 1, bytes)],
            Step::Batch(n) => vec![entries(&mut number, n, 40)],
            Step::Together(n) => (0..n).map(|_| entries(&mut number, 1, 40)).collect(),
            Step::Reopen => {
                // What fails in closing after the last commit is no loss; the next opening recovers.
                if let Err(error) = ledger.close() {
                    driven.failure = Some(error);
                    return driven;
                }
                let Some(opened) = open(&path, recorder, &mut driven) else {
                    return driven;
                };
                ledger = opened;
                continue;
            }
            Step::Checkpoint(mode) => {
                // It may fail, as the shell's may: nothing depends on it.
                let _ = checkpoint(&path, mode);
                continue;
            }
        };
        if !append(&ledger, recorder, requests, &mut driven) {
            look_that_it_is_poisoned(&ledger, &mut driven);
            break;
        }
    }
    if let Err(error) = ledger.close() {
        driven.failure.get_or_insert(error);
    }
    driven.acknowledged.sort_by_key(|one| one.sequence);
    driven
}

/// Opens the ledger; what it appended about itself then is durable.
fn open(path: &Path, recorder: &Recorder, driven: &mut Driven) -> Option<Ledger> {
    match Ledger::open_with(path, &options(driven.signed)) {
        Ok(ledger) => {
            let head = ledger.head();
            let last = driven.acknowledged.iter().map(|one| one.sequence).max();
            if head.sequence == last.unwrap_or(0) + 1 {
                driven.acknowledged.push(Acknowledged {
                    position: recorder.position(),
                    sequence: head.sequence,
                    hash: head.hash,
                });
            }
            Some(ledger)
        }
        Err(error) => {
            driven.failure = Some(error);
            None
        }
    }
}

fn checkpoint(path: &Path, mode: &str) -> rusqlite::Result<()> {
    let conn = Connection::open(path)?;
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

/// Returns whether all was acknowledged.
fn append(
    ledger: &Ledger,
    recorder: &Arc<Recorder>,
    requests: Vec<Vec<NewEntry>>,
    driven: &mut Driven,
) -> bool {
    let sizes: Vec<usize> = requests.iter().map(Vec::len).collect();
    let failed_before = recorder.fired().is_some();
    let futures = requests
        .into_iter()
        .map(|entries| ledger.append_all(entries))
        .collect();
    let mut all = true;
    for ((position, answer), size) in complete(recorder, futures).into_iter().zip(sizes) {
        match answer {
            Ok(entries) => {
                if !failed_before && recorder.fired().is_some_and(|fired| fired < position) {
                    driven.faults.push(
                        "an entry was acknowledged though a call failed in its commit".to_owned(),
                    );
                }
                if let (true, Some(first), Some(last)) = (size > 1, entries.first(), entries.last())
                {
                    driven.batches.push((first.sequence, last.sequence));
                }
                let acknowledged = entries.iter().map(|entry: &Entry| Acknowledged {
                    position,
                    sequence: entry.sequence,
                    hash: entry.entry_hash,
                });
                driven.acknowledged.extend(acknowledged);
            }
            Err(error) => {
                all = false;
                driven.refused += size as u64;
                driven.failure.get_or_insert(error);
            }
        }
    }
    publish(ledger, driven);
    all
}

/// Takes the checkpoint that the ledger shows now. It must not be ahead of what was acknowledged.
fn publish(ledger: &Ledger, driven: &mut Driven) {
    let newest = driven.acknowledged.iter().max_by_key(|one| one.sequence);
    let (Some(newest), Some(checkpoint)) = (newest, ledger.checkpoint()) else {
        if driven.signed {
            driven
                .faults
                .push("a ledger with a signer shows no checkpoint".to_owned());
        }
        return;
    };
    if checkpoint.tree_size > newest.sequence {
        driven.faults.push(format!(
            "a checkpoint of {} entries is shown, {} are acknowledged",
            checkpoint.tree_size, newest.sequence
        ));
    }
    driven.published.push(Published {
        position: newest.position,
        note: checkpoint.note.clone(),
    });
}

/// After a storage error nobody guesses: the writer says what ended it, and refuses everything.
fn look_that_it_is_poisoned(ledger: &Ledger, driven: &mut Driven) {
    if matches!(driven.failure, Some(LedgerError::Busy { .. })) {
        return;
    }
    if ledger.failure().is_none() {
        driven
            .faults
            .push("an append failed, and the ledger does not say that it has failed".to_owned());
    }
    match ledger.append_blocking(entry(0, 10)) {
        Err(LedgerError::Poisoned { .. }) => {}
        Err(other) => driven
            .faults
            .push(format!("after a failure an append is refused by: {other}")),
        Ok(entry) => driven.faults.push(format!(
            "after a failure entry {} was acknowledged",
            entry.sequence
        )),
    }
}

fn entries(number: &mut u64, n: usize, bytes: usize) -> Vec<NewEntry> {
    (0..n)
        .map(|_| {
            *number += 1;
            entry(*number, bytes)
        })
        .collect()
}

/// An entry that can be told from others, with a payload of about so many bytes.
pub fn entry(number: u64, bytes: usize) -> NewEntry {
    NewEntry {
        timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
        actor: "torture".to_owned(),
        action: "append".to_owned(),
        resource: format!("entry:{number}"),
        subsystem: "ledger".to_owned(),
        payload: format!(
            r#"{{"workflow_id":"w-{number}","text":"{}"}}"#,
            "x".repeat(bytes)
        ),
        result: "success".to_owned(),
    }
}

/// Notes where the recording stood when the writer answered: it calls this from its own thread, between the commit
/// and whatever it does next, so the position is exact.
struct Mark {
    recorder: Arc<Recorder>,
    position: Mutex<Option<usize>>,
    thread: Thread,
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        let position = self.recorder.position();
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
        self.thread.unpark();
    }
}

/// Runs futures of the ledger to their ends on this thread. With each output comes the position of its answer.
fn complete<F: Future>(recorder: &Arc<Recorder>, futures: Vec<F>) -> Vec<(usize, F::Output)> {
    struct Running<F: Future> {
        future: Pin<Box<F>>,
        mark: Arc<Mark>,
        output: Option<(usize, F::Output)>,
    }
    let mut all: Vec<Running<F>> = futures
        .into_iter()
        .map(|future| Running {
            future: Box::pin(future),
            mark: Arc::new(Mark {
                recorder: Arc::clone(recorder),
                position: Mutex::new(None),
                thread: thread::current(),
            }),
            output: None,
        })
        .collect();
    // Bounded by the writer thread, which answers or drops each request.
    loop {
        for one in all.iter_mut().filter(|one| one.output.is_none()) {
            let waker = Waker::from(Arc::clone(&one.mark));
            if let Poll::Ready(output) = one.future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                let marked = *one
                    .mark
                    .position
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                one.output = Some((marked.unwrap_or_else(|| recorder.position()), output));
            }
        }
        if all.iter().all(|one| one.output.is_some()) {
            return all.into_iter().filter_map(|one| one.output).collect();
        }
        thread::park();
    }
}
