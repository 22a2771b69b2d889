//! The rounds: the newest checkpoint to every witness and anchor that has not seen it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_edge::anchor::Anchor;
use evenkeel_edge::witness::{WitnessClient, WitnessError};
use evenkeel_ledger::tlog::SignatureLine;
use evenkeel_ledger::{Ledger, Reader, SignedCheckpoint};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::{Anchoring, Gate, Policy, State, places};
use crate::alarm::Alarm;
use crate::config::LedgerSection;
use crate::journal::Journal;
use crate::stop::{self, Stop};
use crate::ui::Ui;

/// Longest pause between two tries while nobody can be reached.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the rounds work with.
pub(crate) struct Parts {
    pub(crate) journal: Journal,
    pub(crate) alarm: Alarm,
    pub(crate) ui: Ui,
    pub(crate) witnesses: Vec<WitnessClient>,
    pub(crate) anchors: Vec<Anchor>,
}

struct Rounds {
    parts: Parts,
    ledger: Ledger,
    reader: Option<Arc<Mutex<Reader>>>,
    quorum: usize,
    interval: Duration,
    state: watch::Sender<State>,
    wake: Arc<Notify>,
    stop: Stop,
}

impl Anchoring {
    /// Begins. Nothing is done where nobody elsewhere is configured, and nothing is signed.
    pub(crate) fn begin(section: &LedgerSection, parts: Parts) -> Self {
        let (stopper, stop) = stop::pair();
        let (state, seen) = watch::channel(State {
            witnesses: parts
                .witnesses
                .iter()
                .map(|w| w.name().to_owned())
                .collect(),
            ..State::default()
        });
        let wake = Arc::new(Notify::new());
        let gate = Gate {
            state: seen,
            wake: Arc::clone(&wake),
            policy: Policy::of(section),
        };
        let ledger = parts.journal.ledger().clone();
        let rounds = Rounds {
            reader: ledger.reader().ok().map(|r| Arc::new(Mutex::new(r))),
            ledger,
            quorum: section.witness.quorum,
            interval: Duration::from_millis(section.witness.interval_ms),
            state,
            wake,
            stop,
            parts,
        };
        let idle = rounds.parts.witnesses.is_empty() && rounds.parts.anchors.is_empty();
        let task = tokio::spawn(async move {
            if !idle {
                rounds.run().await;
            }
        });
        Self {
            gate,
            stopper,
            task,
        }
    }
}

impl Rounds {
    async fn run(mut self) {
        let mut checkpoints = self.ledger.checkpoints();
        let mut failures = 0u32;
        loop {
            let reached = self.round().await;
            failures = if reached {
                0
            } else {
                failures.saturating_add(1)
            };
            if self.state.borrow().suspect.is_some() {
                return;
            }
            // Those who cannot be reached are asked less and less often; whoever waits at the gate is not kept.
            let pause = (self.interval * (1 << failures.min(5))).min(PAUSE_MAX.max(self.interval));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => continue,
                () = self.stop.requested() => break,
            }
            if reached {
                tokio::select! {
                    changed = checkpoints.changed() => if changed.is_err() { break },
                    () = self.wake.notified() => {}
                    () = self.stop.requested() => break,
                }
            }
        }
        // What was written since the last round.
        self.round().await;
    }

    /// Hands the newest checkpoint to all who have not seen it. Whether all of them have now.
    async fn round(&mut self) -> bool {
        let Some(checkpoint) = self.ledger.checkpoint() else {
            return true;
        };
        let size = checkpoint.tree_size;
        let seen = self.state.borrow().clone();
        let behind = |name: &str| seen.places.get(name).is_none_or(|p| p.tree_size < size);
        let asked = self
            .parts
            .witnesses
            .iter()
            .filter(|w| behind(w.name()))
            .map(|w| {
                let old = seen.places.get(w.name()).map_or(0, |p| p.tree_size);
                let answer = self.cosign(w, &checkpoint, old);
                async move { (w.name().to_owned(), answer.await) }
            });
        let cosigned = join_all(asked).await;
        let mut all = true;
        let mut suspect = None;
        for (name, answer) in cosigned {
            match answer {
                Ok(line) => match self.ledger.add_cosignatures(size, vec![line]).await {
                    Ok(_) => self.seen(&name, size).await,
                    Err(error) => {
                        all = false;
                        self.failed(&name, &error.to_string()).await;
                    }
                },
                Err(error) => {
                    all = false;
                    if error.is_alarm() {
                        suspect.get_or_insert(format!(
                            "the witness {name} has seen another log than this one: {error}"
                        ));
                    }
                    self.failed(&name, &error.to_string()).await;
                }
            }
        }
        for (name, anchor) in places(&self.parts.anchors)
            .into_iter()
            .zip(&self.parts.anchors)
        {
            if !behind(&name) {
                continue;
            }
            match anchor.put(&checkpoint.note).await {
                Ok(()) => self.seen(&name, size).await,
                Err(error) => {
                    all = false;
                    self.failed(&name, &error.to_string()).await;
                }
            }
        }
        if let Some(reason) = suspect {
            self.suspect(reason).await;
        }
        let quorum = self.quorum;
        self.state.send_modify(|state| {
            let mut sizes: Vec<u64> = state
                .witnesses
                .iter()
                .map(|name| state.places.get(name).map_or(0, |p| p.tree_size))
                .collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            state.anchored = sizes.get(quorum.saturating_sub(1)).copied().unwrap_or(0);
            state.rounds += 1;
        });
        all
    }

    async fn cosign(
        &self,
        witness: &WitnessClient,
        checkpoint: &SignedCheckpoint,
        old: u64,
    ) -> Result<SignatureLine, WitnessError> {
        let reader = self.reader.clone();
        let size = checkpoint.tree_size;
        witness
            .cosign(&checkpoint.note, old, move |from| {
                let reader = reader.as_ref().ok_or("the ledger cannot be read")?;
                let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                reader.consistency(from, size).map_err(|e| e.to_string())
            })
            .await
    }

    /// It has seen this much. Said when it could not be reached before.
    async fn seen(&self, name: &str, size: u64) {
        let mut back = false;
        self.state.send_modify(|state| {
            let place = state.places.entry(name.to_owned()).or_default();
            place.tree_size = size;
            back = place.error.take().is_some();
        });
        if back {
            self.parts.ui.note(format!(
                "{name} can be reached again; it has seen {size} entries"
            ));
            self.record(
                "anchor_reachable",
                name,
                &json!({"tree_size": size}),
                "success",
            )
            .await;
        }
    }

    /// It could not be reached. Said and recorded once, not at every try.
    async fn failed(&self, name: &str, why: &str) {
        let mut first = false;
        self.state.send_modify(|state| {
            let place = state.places.entry(name.to_owned()).or_default();
            first = place.error.is_none();
            place.error = Some(why.to_owned());
        });
        if first {
            self.parts.ui.warn(format!(
                "{name} does not take the ledger's checkpoint: {why}"
            ));
            self.record("anchor_unreachable", name, &json!({"error": why}), "failed")
                .await;
        }
    }

    /// Nothing is signed or done any more.
    async fn suspect(&self, reason: String) {
        self.state
            .send_modify(|state| state.suspect = Some(reason.clone()));
        // The entry is for whoever looks later; that it may be written into a suspect log is known.
        if let Err(error) = self
            .ledger
            .stop_signing(reason.chars().take(500).collect())
            .await
        {
            self.parts.ui.warn(error.to_string());
        }
        self.parts
            .alarm
            .about_ledger(
                "ledger_not_as_witnessed",
                &reason,
                &[
                    "nothing is signed and nothing is healed any more",
                    "keep a copy of the ledger as evidence",
                    "evenkeel ledger verify --against WITNESS",
                ],
            )
            .await;
    }

    async fn record(&self, action: &str, name: &str, payload: &serde_json::Value, result: &str) {
        let noted = self
            .parts
            .journal
            .note("evenkeel", "evenkeel", action, name, payload, result)
            .await;
        if let Err(error) = noted {
            self.parts.ui.warn(error.to_string());
        }
    }
}
