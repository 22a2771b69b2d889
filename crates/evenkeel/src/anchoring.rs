//! Taking the ledger's checkpoints off the host: witnesses cosign them, anchors keep them.
//!
//! A host that is in somebody else's hands can rewrite its ledger to the end; what others have seen it cannot. While
//! there are new entries a round goes out at least every `[ledger.witness] interval_ms`, and one before each step that
//! changes something. A witness that has seen another log than this one ends all healing: nothing is signed any more,
//! nothing is done, and a person is called (SAFETY 21).

mod rounds;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_edge::anchor::Anchor;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config::{LedgerSection, Unreachable};
use crate::stop::Stopper;

pub(crate) use rounds::Parts;
pub(crate) use start::{Elsewhere, look_elsewhere};

/// How long the last round may take when Evenkeel ends.
const LAST_ROUND: Duration = Duration::from_secs(2);

/// What is known of those elsewhere.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct State {
    /// So many entries are cosigned by a quorum.
    pub(crate) anchored: u64,
    /// Names of the witnesses; the other places are anchors.
    pub(crate) witnesses: Vec<String>,
    /// By name of the witness or place of the anchor.
    pub(crate) places: BTreeMap<String, Place>,
    /// Why nothing is signed or done any more.
    pub(crate) suspect: Option<String>,
    /// Rounds that have ended.
    pub(crate) rounds: u64,
}

/// One witness or anchor.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Place {
    /// It has seen so many entries.
    pub(crate) tree_size: u64,
    /// Why the last try failed.
    pub(crate) error: Option<String>,
}

/// Why a step that changes something may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAnchored(String);

/// The way to what others have seen.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    state: watch::Receiver<State>,
    wake: Arc<Notify>,
    policy: Policy,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    witnesses: usize,
    quorum: usize,
    unreachable: Unreachable,
    wait: Duration,
    timeout: Duration,
}

impl Policy {
    fn of(section: &LedgerSection) -> Self {
        let witness = &section.witness;
        Self {
            witnesses: witness.servers.len(),
            quorum: witness.quorum,
            unreachable: witness.unreachable,
            wait: Duration::from_millis(witness.wait_ms),
            timeout: Duration::from_millis(witness.timeout_ms),
        }
    }
}

impl Gate {
    /// Before a step that changes something: the first `size` entries have to be cosigned by a quorum. What happens
    /// when they are not is the configuration's to say. `Ok(Some(gap))`: go on, and record the gap.
    pub(crate) async fn before_change(&self, size: u64) -> Result<Option<String>, NotAnchored> {
        let mut state = self.state.clone();
        let now = state.borrow().clone();
        if let Some(reason) = now.suspect {
            return Err(NotAnchored(reason));
        }
        if self.policy.witnesses == 0 || now.anchored >= size {
            return Ok(None);
        }
        self.wake.notify_one();
        // To act is the order: nobody waits for those who did not answer in the last round.
        if self.policy.unreachable == Unreachable::Act && !self.can_reach_quorum(&now) {
            return Ok(Some(self.gap(&now, size)));
        }
        // The round that is under way may have begun before the last entry; the one after it has not.
        let enough = now.rounds + 2;
        let waits = self.policy.unreachable == Unreachable::Wait;
        let reached = |s: &State| s.anchored >= size || s.suspect.is_some();
        let limit = if waits {
            self.policy.wait
        } else {
            self.policy.timeout * 3
        };
        let waiting = state.wait_for(|s| reached(s) || (!waits && s.rounds >= enough));
        // Whatever ended the waiting, the state tells.
        let _ = tokio::time::timeout(limit, waiting).await;
        let now = self.state.borrow().clone();
        if let Some(reason) = now.suspect {
            return Err(NotAnchored(reason));
        }
        if now.anchored >= size {
            return Ok(None);
        }
        let gap = self.gap(&now, size);
        match self.policy.unreachable {
            Unreachable::Act => Ok(Some(gap)),
            Unreachable::Wait => Err(NotAnchored(format!(
                "{gap}; waited {} s for it, so nothing was changed ([ledger.witness] unreachable = \"wait\")",
                self.policy.wait.as_secs()
            ))),
            Unreachable::Alert => Err(NotAnchored(format!(
                "{gap}; nothing is changed without it ([ledger.witness] unreachable = \"alert\")"
            ))),
        }
    }

    /// Whether enough witnesses answered when they were asked last, or were not asked yet.
    fn can_reach_quorum(&self, state: &State) -> bool {
        let out_of_reach = state
            .witnesses
            .iter()
            .filter(|name| state.places.get(*name).is_some_and(|p| p.error.is_some()))
            .count();
        self.policy.witnesses - out_of_reach.min(self.policy.witnesses) >= self.policy.quorum
    }

    fn gap(&self, state: &State, size: u64) -> String {
        let why: Vec<String> = state
            .places
            .iter()
            .filter_map(|(name, place)| Some(format!("{name}: {}", place.error.as_ref()?)))
            .collect();
        format!(
            "entries {} to {size} are not cosigned by {} of {} witnesses{}{}",
            state.anchored + 1,
            self.policy.quorum,
            self.policy.witnesses,
            if why.is_empty() { "" } else { "; " },
            why.join("; ")
        )
    }
}

/// The rounds, in the background.
pub(crate) struct Anchoring {
    gate: Gate,
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Anchoring {
    /// What asks before it changes something.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Ends it, after a last round for what was written since.
    pub(crate) async fn end(self) {
        self.stopper.stop();
        let _ = tokio::time::timeout(LAST_ROUND, self.task).await;
    }
}

/// What people call the anchors, in their order. An address may be a secret.
fn places(anchors: &[Anchor]) -> Vec<String> {
    let place = |(at, anchor): (usize, &Anchor)| match anchor {
        Anchor::File(file) => file.path().display().to_string(),
        Anchor::Post(_) => format!("[[ledger.anchors]] {}", at + 1),
    };
    anchors.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(unreachable: Unreachable, witnesses: usize) -> (watch::Sender<State>, Gate) {
        let (sender, state) = watch::channel(State::default());
        let policy = Policy {
            witnesses,
            quorum: 1,
            unreachable,
            wait: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        };
        let wake = Arc::new(Notify::new());
        (
            sender,
            Gate {
                state,
                wake,
                policy,
            },
        )
    }

    /// A round that ended and reached nobody.
    fn in_vain(state: &mut State) {
        state.rounds += 1;
        let error = Some("connection refused".to_owned());
        state.places.insert(
            "w1".to_owned(),
            Place {
                tree_size: 0,
                error,
            },
        );
    }

    /// SAFETY 21: what is cosigned may be acted on; what is not is a matter of policy, and never silent.
    #[tokio::test(start_paused = true)]
    async fn what_is_done_without_a_quorum_is_what_the_configuration_says() {
        for (unreachable, acts) in [
            (Unreachable::Act, true),
            (Unreachable::Wait, false),
            (Unreachable::Alert, false),
        ] {
            let (sender, gate) = gate(unreachable, 1);
            let asked = tokio::spawn({
                let gate = gate.clone();
                async move { gate.before_change(7).await }
            });
            gate.wake.notified().await;
            sender.send_modify(in_vain);
            sender.send_modify(in_vain);
            let answer = asked.await.unwrap();
            match (acts, answer) {
                (true, Ok(Some(gap))) => {
                    assert!(
                        gap.contains("entries 1 to 7") && gap.contains("refused"),
                        "{gap}"
                    );
                }
                (false, Err(refused)) => {
                    assert!(refused.to_string().contains("entries 1 to 7"), "{refused}");
                }
                other => panic!("{unreachable:?}: {other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_opens_the_gate_and_a_fork_closes_it_for_good() {
        let (sender, gate) = gate(Unreachable::Wait, 1);
        let asked = tokio::spawn({
            let gate = gate.clone();
            async move { gate.before_change(7).await }
        });
        gate.wake.notified().await;
        sender.send_modify(|s| s.anchored = 7);
        assert_eq!(asked.await.unwrap(), Ok(None));
        sender.send_modify(|s| s.suspect = Some("w1 has seen another log".to_owned()));
        assert!(gate.before_change(7).await.is_err());
    }

    /// A witness that is down already does not slow a heal down.
    #[tokio::test]
    async fn who_is_known_to_be_down_is_not_waited_for_when_the_order_is_to_act() {
        let (sender, gate) = gate(Unreachable::Act, 1);
        sender.send_modify(|state| {
            state.witnesses = vec!["w1".to_owned()];
            in_vain(state);
        });
        let answer = gate.before_change(7);
        let answer = tokio::time::timeout(Duration::ZERO, answer).await;
        assert!(matches!(answer, Ok(Ok(Some(_)))), "{answer:?}");
    }

    #[tokio::test]
    async fn without_witnesses_nobody_is_waited_for() {
        let (_sender, gate) = gate(Unreachable::Alert, 0);
        assert_eq!(gate.before_change(7).await, Ok(None));
    }
}
