//! The rounds: the newest checkpoint to every witness and anchor that has not seen it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// Longest pause between two tries of one who cannot be reached.
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
    /// Who failed how often in a row, and from when on is asked again.
    retry: BTreeMap<String, (u32, Instant)>,
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
            retry: BTreeMap::new(),
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
        let mut waited_for = false;
        loop {
            self.round(waited_for).await;
            if self.state.borrow().suspect.is_some() {
                return;
            }
            // One round an interval, unless somebody waits at the gate.
            waited_for = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                () = self.wake.notified() => true,
                () = self.stop.requested() => break,
            };
            if waited_for || !self.retry.is_empty() {
                continue;
            }
            tokio::select! {
                changed = checkpoints.changed() => if changed.is_err() { break },
                () = self.wake.notified() => waited_for = true,
                () = self.stop.requested() => break,
            }
        }
        // What was written since the last round.
        self.round(true).await;
    }

    /// Whether a place is asked in this round. Who cannot be reached is asked less and less often, and keeps nobody else
    /// waiting.
    fn is_due(&self, name: &str) -> bool {
        self.retry
            .get(name)
            .is_none_or(|(_, at)| Instant::now() >= *at)
    }

    /// Hands the newest checkpoint to those who have not seen it: the witnesses first, all of them if somebody waits.
    async fn round(&mut self, waited_for: bool) {
        let Some(checkpoint) = self.ledger.checkpoint() else {
            return;
        };
        let size = checkpoint.tree_size;
        let seen = self.state.borrow().clone();
        let behind = |name: &str| seen.places.get(name).is_none_or(|p| p.tree_size < size);
        let asked = self
            .parts
            .witnesses
            .iter()
            .filter(|w| behind(w.name()) && (waited_for || self.is_due(w.name())))
            .map(|w| {
                let old = seen.places.get(w.name()).map_or(0, |p| p.tree_size);
                let answer = self.cosign(w, &checkpoint, old);
                async move { (w.name().to_owned(), answer.await) }
            });
        let cosigned = join_all(asked).await;
        let mut suspect = None;
        for (name, answer) in cosigned {
            let taken = match answer {
                Ok(line) => {
                    let kept = self.ledger.add_cosignatures(size, vec![line]).await;
                    kept.map(drop).map_err(|e| e.to_string())
                }
                Err(error) => {
                    if error.is_alarm() {
                        suspect.get_or_insert(format!(
                            "the witness {name} has seen another log than this one: {error}"
                        ));
                    }
                    Err(error.to_string())
                }
            };
            self.note(&name, size, taken).await;
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
        // After the gate was told: an anchor may be slow.
        for (at, name) in places(&self.parts.anchors).into_iter().enumerate() {
            if behind(&name) && self.is_due(&name) {
                let put = self.parts.anchors[at].put(&checkpoint.note).await;
                self.note(&name, size, put.map_err(|e| e.to_string())).await;
            }
        }
    }

    /// Notes what came of asking a place, and when it is asked again.
    async fn note(&mut self, name: &str, size: u64, taken: Result<(), String>) {
        match taken {
            Ok(()) => {
                self.retry.remove(name);
                self.seen(name, size).await;
            }
            Err(why) => {
                let (failures, at) = self
                    .retry
                    .entry(name.to_owned())
                    .or_insert((0, Instant::now()));
                let pause = self.interval * (1 << (*failures).min(5));
                *at = Instant::now() + pause.min(PAUSE_MAX.max(self.interval));
                *failures = failures.saturating_add(1);
                self.failed(name, &why).await;
            }
        }
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
            .about_itself(
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
