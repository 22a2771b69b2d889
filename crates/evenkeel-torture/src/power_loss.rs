//! Power losses: recordings of seeded workloads, and for each moment of each recording a choice of what the disk may
//! hold then. Every state is opened by the shipped ledger and judged.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use std::{fmt, thread};

use anyhow::Context as _;

use crate::check::{Expected, Place, judge};
use crate::disk::{Choice, Contents, Disk};
use crate::random::Random;
use crate::recorder::{Op, Plant, Recorder};
use crate::workload::{Driven, Plan, drive};

/// Losses after which a run gives up.
const LOSSES_MAX: usize = 5;
/// One recording of so many is long enough for the ledger's own copying of its write-ahead log.
const LONG_EVERY: u64 = 12;

/// One recording of so many is of a ledger without a signer.
const UNSIGNED_EVERY: u64 = 4;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Distinct states to check.
    pub states: u64,
    /// Same seed, same workloads and choices.
    pub seed: u64,
    /// Only this recording, to look at a loss again.
    pub recording: Option<u64>,
    /// A bug of the disk made on purpose.
    pub plant: Plant,
    /// A bug of the ledger made on purpose: each acknowledgement counts as given before the last sync it waited for.
    pub tell_early: bool,
    /// Threads that check.
    pub threads: usize,
    /// Whether to tell progress on standard error.
    pub progress: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Workloads recorded.
    pub recordings: u64,
    /// Moments at which the power went.
    pub moments: u64,
    /// States worked out.
    pub states: u64,
    /// Of these, distinct ones, each of them checked.
    pub distinct: u64,
    /// Checked states with entries that had not been acknowledged yet, the first of a log aside.
    pub ahead: u64,
    /// The most operations that were uncertain at one moment.
    pub uncertain_max: usize,
    /// What was lost or wrong.
    pub losses: Vec<Loss>,
}

/// A state that the ledger did not survive.
#[derive(Debug)]
pub struct Loss {
    /// Seed of the run.
    pub seed: u64,
    /// Which recording of that seed.
    pub recording: u64,
    /// What was being done.
    pub plan: Plan,
    /// How many operations had been made when the power went.
    pub position: usize,
    /// What the disk kept of those that were uncertain.
    pub choice: Choice,
    /// What is lost or wrong.
    pub problem: String,
    /// The files of that state.
    pub kept_in: PathBuf,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            recording,
            plan,
            position,
            choice,
            problem,
            kept_in,
        } = self;
        write!(
            f,
            "{problem}\n  seed {seed}, recording {recording}, power lost before operation {position}, kept {choice:?}\n  \
             plan {plan}\n  state in {}\n  again: evenkeel-torture power-loss --seed {seed} --recording {recording}",
            kept_in.display()
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} distinct states of {} worked out, at {} moments of {} recordings; up to {} uncertain operations at once; \
             {} states had entries beyond the acknowledged ones; {} losses",
            self.distinct,
            self.states,
            self.moments,
            self.recordings,
            self.uncertain_max,
            self.ahead,
            self.losses.len()
        )
    }
}

/// A workload and what became of its files.
#[derive(Debug)]
pub struct Recording {
    /// What was done.
    pub plan: Plan,
    /// What was recorded.
    pub ops: Vec<Op>,
    /// What was acknowledged, and when.
    pub driven: Driven,
    /// From which position on the power may go.
    from: usize,
    /// At how many moments in a hundred it does.
    moments_percent: u64,
    /// States chosen by dice at each moment.
    dice: u64,
}

/// Records workload number `number` of a seed.
pub fn record(seed: u64, number: u64, plant: Plant) -> anyhow::Result<Recording> {
    let mut random = Random::new(seed, number);
    let long = number % LONG_EVERY == LONG_EVERY - 1;
    let plan = if long {
        Plan::long(&mut random)
    } else {
        Plan::short(&mut random)
    };
    let place = Place::new().context("making a directory to record in")?;
    let recorder = Recorder::start(place.path(), plant);
    let driven = drive(
        place.path(),
        &recorder,
        &plan,
        !number.is_multiple_of(UNSIGNED_EVERY),
    );
    let ops = recorder.stop();
    if let Some(error) = &driven.failure {
        anyhow::bail!("recording {number} of seed {seed} failed: {error}");
    }
    if let Some(fault) = driven.faults.first() {
        anyhow::bail!("recording {number} of seed {seed}: {fault}");
    }
    // The start of a long one is like a short one, and its states are many and large.
    let from = driven.acknowledged.iter().filter(|_| long).nth(26);
    Ok(Recording {
        from: from.map_or(0, |one| one.position),
        moments_percent: if long { 12 } else { 100 },
        dice: if long { 1 } else { 7 },
        plan,
        ops,
        driven,
    })
}

impl Recording {
    /// Moves each acknowledgement before the last sync that came before it.
    fn tell_early(&mut self) {
        for one in &mut self.driven.acknowledged {
            let before = &self.ops[..one.position];
            let sync = before.iter().rposition(|op| matches!(op, Op::Sync { .. }));
            one.position = sync.unwrap_or(0);
        }
    }
}

/// The run as its threads see it.
struct Run {
    settings: Settings,
    next: AtomicU64,
    stop: AtomicBool,
    seen: Mutex<HashSet<u64>>,
    summary: Mutex<Summary>,
    began: Instant,
}

/// Checks as many distinct states as wanted. An error is about the surroundings; losses are in the summary.
pub fn run(settings: Settings) -> anyhow::Result<Summary> {
    let run = Run {
        settings,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        seen: Mutex::default(),
        summary: Mutex::default(),
        began: Instant::now(),
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..settings.threads.max(1))
            .map(|_| scope.spawn(|| run.work()))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread panicked"))
        })
    })?;
    Ok(run
        .summary
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

impl Run {
    fn work(&self) -> anyhow::Result<()> {
        let result = self.recordings();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn recordings(&self) -> anyhow::Result<()> {
        // Ends when the states are enough: every recording has some that no other has.
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let number = match self.settings.recording {
                Some(_) if number > 0 => return Ok(()),
                Some(only) => only,
                None => number,
            };
            let mut recording = record(self.settings.seed, number, self.settings.plant)?;
            if self.settings.tell_early {
                recording.tell_early();
            }
            self.explore(number, &recording)?;
            let mut summary = self.summary();
            summary.recordings += 1;
            if self.settings.progress {
                let rate = summary.distinct as f64 / self.began.elapsed().as_secs_f64();
                eprintln!("{summary}; {rate:.0} states/s");
            }
        }
        Ok(())
    }

    fn explore(&self, number: u64, recording: &Recording) -> anyhow::Result<()> {
        let expected = Expected::of(&recording.driven);
        let mut place = Place::new().context("making a directory for states")?;
        let mut random = Random::new(self.settings.seed, !number);
        let mut disk = Disk::default();
        for position in 0..=recording.ops.len() {
            if position >= recording.from && random.percent(recording.moments_percent) {
                let said = expected.said_at(position);
                let uncertain = disk.uncertain();
                {
                    let mut summary = self.summary();
                    summary.moments += 1;
                    summary.uncertain_max = summary.uncertain_max.max(uncertain);
                }
                for choice in choices(uncertain, recording.dice, &mut random) {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let contents = disk.after_power_loss(choice);
                    if !self.is_new(&contents, said.acknowledged) {
                        continue;
                    }
                    place.fill(&contents).context("writing a state")?;
                    match judge(place.path(), &expected, said, random.percent(10)) {
                        Ok(kept) => self.summary().ahead += u64::from(kept.is_ahead()),
                        Err(problem) => {
                            // As it was before anything opened it.
                            place.fill(&contents).context("writing a state")?;
                            let fresh = Place::new().context("making a directory for states")?;
                            let kept_in = std::mem::replace(&mut place, fresh).keep();
                            self.lost(Loss {
                                seed: self.settings.seed,
                                recording: number,
                                plan: recording.plan.clone(),
                                position,
                                choice,
                                problem,
                                kept_in,
                            });
                        }
                    }
                }
            }
            if let Some(op) = recording.ops.get(position) {
                disk.apply(position, op);
            }
        }
        Ok(())
    }

    /// Counts a state. The same content is another state when more was acknowledged before it.
    fn is_new(&self, contents: &Contents, acknowledged: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        acknowledged.hash(&mut hasher);
        contents.hash(&mut hasher);
        let new = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hasher.finish());
        let mut summary = self.summary();
        summary.states += 1;
        summary.distinct += u64::from(new);
        if self.settings.recording.is_none() && summary.distinct >= self.settings.states {
            self.stop.store(true, Ordering::Relaxed);
        }
        new
    }

    fn lost(&self, loss: Loss) {
        if self.settings.progress {
            eprintln!("LOST: {loss}");
        }
        let mut summary = self.summary();
        summary.losses.push(loss);
        if summary.losses.len() >= LOSSES_MAX {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn summary(&self) -> std::sync::MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is tried at a moment with so many uncertain operations. Prefixes of them were tried, as everything that there
/// was, at the moments before.
pub fn choices(uncertain: usize, dice: u64, random: &mut Random) -> Vec<Choice> {
    let mut choices = vec![Choice::None];
    let Some(last) = uncertain.checked_sub(1) else {
        return choices;
    };
    choices.extend([
        Choice::All,
        Choice::Torn(last, random.next()),
        Choice::Torn(last, random.next()),
        Choice::Without(random.index(uncertain)),
        Choice::Only(random.index(uncertain)),
        Choice::Torn(random.index(uncertain), random.next()),
    ]);
    choices.extend((0..dice).map(|_| Choice::Random(random.next())));
    choices
}
