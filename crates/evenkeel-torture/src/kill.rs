//! `kill -9` under load: a child process appends from several threads and tells each acknowledgement; its parent kills
//! it at some moment, opens the file and looks for all that was told. Most rounds go on with the file of the one before.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{ops::ControlFlow, thread};

use anyhow::Context as _;
use evenkeel_ledger::leaf::Leaf;
use evenkeel_ledger::{Hash, Ledger, NewEntry, Query, Reader, VerifyOptions, verify_with};

use crate::check::new_directory;
use crate::random::Random;
use crate::workload::{FILE_NAME, SIGNED, entry};

/// The subcommand by which the program starts itself as the process that is killed.
pub const CHILD: &str = "kill-child";

/// A file with more entries than this is not gone on with: reading all of it takes too long.
const ENTRIES_MAX: usize = 2500;
/// Entries of one batch of the child.
const BATCH: u64 = 3;
/// Appends of each of the child's threads, should nobody kill it.
const APPENDS_MAX: u64 = 100_000;
/// The latest moment of a kill, after the start of the process.
const KILL_US_MAX: u64 = 16_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kills.
    pub rounds: u64,
    /// Same seed, same moments to kill at, as far as a clock can repeat them.
    pub seed: u64,
    /// Processes killed side by side.
    pub threads: usize,
    /// The program that takes [`CHILD`], a path and a number of its own as arguments.
    pub program: PathBuf,
    /// A bug made on purpose: the child tells before it appends.
    pub tell_early: bool,
    /// Whether to tell progress on standard error.
    pub progress: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Kills.
    pub rounds: u64,
    /// Of these, on a file that had been through one before.
    pub again: u64,
    /// Kills before the first acknowledgement: in the opening, or before.
    pub early: u64,
    /// Acknowledged entries, all of them looked for.
    pub acknowledged: u64,
    /// Entries found that nobody had been told of.
    pub untold: u64,
    /// What was lost or wrong.
    pub losses: Vec<Loss>,
}

/// A kill that the ledger did not survive.
#[derive(Debug)]
pub struct Loss {
    /// Seed of the run.
    pub seed: u64,
    /// Which round.
    pub round: u64,
    /// What is lost or wrong.
    pub problem: String,
    /// The files.
    pub kept_in: PathBuf,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  seed {}, round {}\n  state in {}",
            self.problem,
            self.seed,
            self.round,
            self.kept_in.display()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills ({} on a file killed before, {} before the first acknowledgement), {} acknowledged entries all \
             looked for, {} found that nobody was told of; {} losses",
            self.rounds,
            self.again,
            self.early,
            self.acknowledged,
            self.untold,
            self.losses.len()
        )
    }
}

/// Kills. An error is about the surroundings; losses are in the summary.
pub fn run(settings: &Settings) -> anyhow::Result<Summary> {
    let summary = Mutex::new(Summary::default());
    let next = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..settings.threads.max(1))
            .map(|_| scope.spawn(|| rounds(settings, &next, &summary, began)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })?;
    Ok(summary.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A file that is killed again and again, and all that is known to be in it.
struct Victim {
    directory: tempfile::TempDir,
    hashes: Vec<Hash>,
    kills: u64,
}

impl Victim {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            directory: new_directory().context("making a directory")?,
            hashes: Vec::new(),
            kills: 0,
        })
    }
}

fn rounds(
    settings: &Settings,
    next: &AtomicU64,
    summary: &Mutex<Summary>,
    began: Instant,
) -> anyhow::Result<()> {
    let mut victim = Victim::new()?;
    loop {
        let round = next.fetch_add(1, Ordering::Relaxed);
        if round >= settings.rounds {
            return Ok(());
        }
        let mut random = Random::new(settings.seed, round);
        if victim.hashes.len() > ENTRIES_MAX || random.percent(15) {
            victim = Victim::new()?;
        }
        let path = victim.directory.path().join(FILE_NAME);
        let told = kill_one(settings, &path, round, &mut random)?;
        let before = victim.hashes.len();
        let problem = look(&path, &mut victim.hashes, &told).err();
        let found = victim.hashes.len() - before;
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.rounds += 1;
        summary.again += u64::from(victim.kills > 0);
        summary.early += u64::from(told.is_empty());
        summary.acknowledged += told.len() as u64;
        summary.untold += found.saturating_sub(told.len()) as u64;
        victim.kills += 1;
        if let Some(problem) = problem {
            let kept_in = std::mem::replace(&mut victim, Victim::new()?)
                .directory
                .keep();
            summary.losses.push(Loss {
                seed: settings.seed,
                round,
                problem,
                kept_in,
            });
        }
        if settings.progress && summary.rounds.is_multiple_of(250) {
            let rate = summary.rounds as f64 / began.elapsed().as_secs_f64();
            eprintln!("{}; {rate:.0} kills/s", *summary);
        }
    }
}

/// Starts a child and kills it. Returns what it told: sequences and hashes.
fn kill_one(
    settings: &Settings,
    path: &Path,
    round: u64,
    random: &mut Random,
) -> anyhow::Result<Vec<(u64, Hash)>> {
    let mut command = Command::new(&settings.program);
    command.arg(CHILD).arg(path).arg(round.to_string());
    if settings.tell_early {
        command.arg("--tell-early");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", settings.program.display()))?;
    let output = child.stdout.take().context("the child has no output")?;
    let told = if random.percent(30) {
        // In the midst of things, however fast the machine is.
        let lines = 1 + random.below(120);
        read(output, Some((&mut child, lines)))
    } else {
        let after = Duration::from_micros(random.below(KILL_US_MAX));
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(output, None));
            thread::sleep(after);
            let killed = child.kill();
            let told = reader
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"));
            killed.context("killing the child")?;
            told
        })
    };
    let status = child.wait().context("waiting for the child")?;
    anyhow::ensure!(was_killed(status), "the child ended by itself: {status}");
    told
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

/// Elsewhere a killed process has no more than a code.
#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    !status.success()
}

/// Reads until the child is dead; kills it after some lines.
fn read(
    output: ChildStdout,
    mut kill: Option<(&mut Child, u64)>,
) -> anyhow::Result<Vec<(u64, Hash)>> {
    let mut output = BufReader::new(output);
    let (mut told, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        output
            .read_until(b'\n', &mut line)
            .context("reading from the child")?;
        // Without its end a line was cut off by the kill.
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(told);
        };
        let (sequence, hash) = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.split_once(' '))
            .and_then(|(sequence, hash)| {
                Some((sequence.parse().ok()?, Hash::from_hex(hash.as_bytes())?))
            })
            .with_context(|| format!("the child told {:?}", String::from_utf8_lossy(text)))?;
        told.push((sequence, hash));
        if let Some((child, lines)) = &mut kill
            && told.len() as u64 == *lines
        {
            child.kill().context("killing the child")?;
        }
    }
}

/// Opens what the kill left. `known` is what was there before, and afterwards what is there now.
fn look(path: &Path, known: &mut Vec<Hash>, told: &[(u64, Hash)]) -> Result<(), String> {
    // A process that was killed before it made the file leaves none; the ledger is made now.
    let ledger =
        Ledger::open_with(path, &SIGNED).map_err(|error| format!("it does not open: {error}"))?;
    let head = ledger.head();
    ledger
        .close()
        .map_err(|error| format!("it does not close: {error}"))?;
    let options = VerifyOptions {
        log_key: SIGNED
            .signer
            .as_ref()
            .map(|signer| signer.verifier().clone()),
        threads: 1,
        ..VerifyOptions::default()
    };
    let report = verify_with(path, &options, |_, _| {})
        .map_err(|error| format!("it cannot be verified: {error}"))?;
    if !report.is_sound() {
        return Err(format!("it does not verify: {:?}", report.damage));
    }
    let reader = Reader::open(path).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut batch_left = 0;
    let mut problem = None;
    let read = reader.for_each(&Query::new(), |entry| {
        // The entries of a batch are numbered backwards to 0, so what follows one is known.
        let number = entry
            .action
            .strip_prefix("batch:")
            .map(|left| left.parse::<u64>().ok());
        let wanted = if batch_left > 0 {
            Some(Some(batch_left - 1))
        } else {
            None
        };
        let fits = match number {
            None => batch_left == 0,
            Some(left) => wanted.unwrap_or(Some(BATCH - 1)) == left,
        };
        if !fits {
            problem = Some(format!("a batch is cut at entry {}", entry.sequence));
            return ControlFlow::Break(());
        }
        batch_left = number.flatten().unwrap_or(0);
        found.push(entry.entry_hash);
        ControlFlow::Continue(())
    });
    let _: ControlFlow<()> = read.map_err(|error| error.to_string())?;
    if batch_left > 0 {
        problem.get_or_insert("the last batch is cut".to_owned());
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    if found.len() as u64 != head.sequence || report.entries != head.sequence {
        return Err(format!(
            "the head is entry {}, {} are read and {} verify",
            head.sequence,
            found.len(),
            report.entries
        ));
    }
    if let Some(at) = known.iter().zip(&found).position(|(was, is)| was != is) {
        return Err(format!("entry {} is another one than before", at + 1));
    }
    if found.len() < known.len() {
        return Err(format!(
            "{} entries were there, now {}",
            known.len(),
            found.len()
        ));
    }
    for (sequence, hash) in told {
        let at = usize::try_from(*sequence)
            .expect("a small number")
            .checked_sub(1);
        if at.and_then(|at| found.get(at)) != Some(hash) {
            return Err(format!(
                "entry {sequence} was acknowledged and is lost; {} are there",
                found.len()
            ));
        }
    }
    *known = found;
    Ok(())
}

/// What the child does until it is killed: appends from four threads and tells each acknowledgement by a line.
pub fn child(path: &Path, round: u64, tell_early: bool) -> anyhow::Result<()> {
    let ledger = Ledger::open_with(path, &SIGNED)?;
    let stop = AtomicBool::new(false);
    let threads = if tell_early { 1 } else { 4 };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (ledger, stop) = (&ledger, &stop);
                scope.spawn(move || append_until_killed(ledger, stop, round, thread, tell_early))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })
}

fn append_until_killed(
    ledger: &Ledger,
    stop: &AtomicBool,
    round: u64,
    thread: u64,
    tell_early: bool,
) -> anyhow::Result<()> {
    let mut random = Random::new(round, thread);
    for number in 0..APPENDS_MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Now and then a large one, so that the log is copied into the database.
        let bytes = if random.percent(3) {
            100_000
        } else {
            random.index(600)
        };
        let one = entry(number, bytes);
        if tell_early {
            tell_before(ledger, &one)?;
            ledger.append_blocking(one)?;
            continue;
        }
        let result = if thread == 0 {
            let batch = (0..BATCH).rev().map(|left| NewEntry {
                action: format!("batch:{left}"),
                ..entry(number, 20)
            });
            ledger.append_all_blocking(batch.collect())
        } else {
            ledger.append_blocking(one).map(|entry| vec![entry])
        };
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        for entry in result? {
            tell(entry.sequence, entry.entry_hash)?;
        }
    }
    Ok(())
}

/// One write for a line, so that a kill cuts it off or lets it pass whole.
fn tell(sequence: u64, hash: Hash) -> anyhow::Result<()> {
    let line = format!("{sequence} {hash}\n");
    Ok(std::io::stdout().lock().write_all(line.as_bytes())?)
}

/// The bug on purpose.
fn tell_before(ledger: &Ledger, entry: &NewEntry) -> anyhow::Result<()> {
    let head = ledger.head();
    let leaf = Leaf {
        previous_hash: head.hash,
        sequence: head.sequence + 1,
        timestamp: entry.timestamp.as_bytes(),
        actor: entry.actor.as_bytes(),
        action: entry.action.as_bytes(),
        resource: entry.resource.as_bytes(),
        subsystem: entry.subsystem.as_bytes(),
        result: entry.result.as_bytes(),
        payload_hash: Hash::of(entry.payload.as_bytes()),
    };
    tell(head.sequence + 1, leaf.hash())
}
