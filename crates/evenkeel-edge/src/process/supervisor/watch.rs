//! Noticing: that a process ended, at once; that it stopped answering, by asking it regularly.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use evenkeel_core::Timestamp;

use super::{Inner, Phase, Run, Slot, Supervisor};
use crate::collect::probe::now;
use crate::process::control::ExitWatch;
use crate::process::event::{Exit, ServiceEvent};
use crate::process::procinfo::{self, ProcessId, ProcessState};
use crate::process::ready::Check;

/// How to notice that a service hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responsiveness {
    /// Time from one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub deadline: Duration,
    /// How many questions in a row must go unanswered, at least 1.
    pub failures: u32,
}

/// Questions in a row that one process did not answer.
struct Silence {
    process: ProcessId,
    failures: u32,
    since: Timestamp,
    told: bool,
}

impl Inner {
    /// Waits for the run's end in the background.
    pub(super) fn watch_exit(self: &Arc<Self>, slot: &Slot, run: Arc<Run>, mut watch: ExitWatch) {
        let inner = Arc::downgrade(self);
        let name = slot.name().to_owned();
        let sweeping = Arc::clone(&slot.sweeping);
        let task = tokio::spawn(async move {
            let exit = watch.exited().await;
            // Taken before anybody can learn of the exit: a start waits for it.
            let _sweeping = sweeping.lock_owned().await;
            let Some(inner) = inner.upgrade() else {
                return;
            };
            let Some(slot) = inner.slots.get(&name) else {
                return;
            };
            inner.ended(slot, &run, exit);
            // Until the process is reaped, the number of its group cannot mean anybody else.
            let left = tokio::task::spawn_blocking(move || run.members()).await;
            watch.reap();
            if let Ok(left) = left {
                let mut leftovers = slot
                    .leftovers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                leftovers.extend(left);
            }
        });
        let mut watcher = slot.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before has seen its process end and is only looking for what is left: it ends by itself.
        *watcher = Some(task.abort_handle());
    }

    fn ended(&self, slot: &Slot, run: &Arc<Run>, exit: Exit) {
        let asked = run.asked.load(Ordering::Relaxed);
        let at = now();
        slot.phase.send_if_modified(|phase| {
            let is_current = matches!(phase, Phase::Running(r) if Arc::ptr_eq(r, run));
            if is_current {
                *phase = Phase::Ended {
                    process: run.process.clone(),
                    exit,
                    asked,
                    at,
                };
            }
            is_current
        });
        self.tell(ServiceEvent::Exited {
            name: slot.name().to_owned(),
            process: run.process.clone(),
            exit,
            expected: asked,
            at,
        });
    }
}

impl Supervisor {
    /// Asks every running service regularly whether it answers, and looks for services that one attaches to and
    /// that are not there. Ends when the future is dropped.
    ///
    /// A service that was ready and does not answer `failures` times in a row, or that was stopped by a signal, is
    /// told once as [`ServiceEvent::StoppedResponding`]. While an operation on it goes on it is left alone.
    pub async fn watch_responsiveness(&self, how: Responsiveness) {
        let mut silences: BTreeMap<String, Silence> = BTreeMap::new();
        let mut ticks = tokio::time::interval(how.interval.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers = self.inner.slots.values().map(|slot| self.ask(slot, how));
            for (slot, answer) in self
                .inner
                .slots
                .values()
                .zip(futures_util::future::join_all(answers).await)
            {
                match answer {
                    Some((run, answer)) => {
                        self.inner.heard(slot, &run, answer, how, &mut silences);
                    }
                    None => {
                        silences.remove(slot.name());
                    }
                }
            }
        }
    }

    /// One question; `None` when there is nobody to ask, or when somebody is at work on the service.
    async fn ask(
        &self,
        slot: &Slot,
        how: Responsiveness,
    ) -> Option<(Arc<Run>, Result<(), String>)> {
        {
            let _free = slot.operation.try_lock().ok()?;
            self.inner.try_attach(slot);
        }
        let run = slot.run()?;
        let check = Check::of(&slot.spec, &self.inner.target).ok()?;
        let answer = if procinfo::state(&run.process) == Some(ProcessState::Stopped) {
            Err("its process is stopped".to_owned())
        } else {
            check.attempt(&self.inner.prober, how.deadline).await
        };
        let _still_free = slot.operation.try_lock().ok()?;
        Some((run, answer))
    }
}

impl Inner {
    fn heard(
        &self,
        slot: &Slot,
        run: &Run,
        answer: Result<(), String>,
        how: Responsiveness,
        silences: &mut BTreeMap<String, Silence>,
    ) {
        let name = slot.name().to_owned();
        let known = silences.remove(&name).filter(|s| s.process == run.process);
        let error = match answer {
            Ok(()) => {
                self.ready(slot, run);
                if known.is_some_and(|s| s.told) {
                    self.tell(ServiceEvent::RespondsAgain {
                        name,
                        process: run.process.clone(),
                        at: now(),
                    });
                }
                return;
            }
            Err(error) => error,
        };
        if !run.ready.load(Ordering::Relaxed) {
            return; // still starting: that is the business of whoever started it
        }
        let mut silence = known.unwrap_or_else(|| Silence {
            process: run.process.clone(),
            failures: 0,
            since: now(),
            told: false,
        });
        silence.failures = silence.failures.saturating_add(1);
        if !silence.told && silence.failures >= how.failures.max(1) {
            silence.told = true;
            self.tell(ServiceEvent::StoppedResponding {
                name: name.clone(),
                process: run.process.clone(),
                process_state: procinfo::state(&run.process),
                failures: silence.failures,
                since: silence.since,
                error,
                at: now(),
            });
        }
        silences.insert(name, silence);
    }
}
