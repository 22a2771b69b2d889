//! What is to become of an anomaly: heal it, look again later, leave it alone, or only call a person.

use super::{Healer, NOTE_ONLY, PastCycle};
use crate::anomaly::Anomaly;
use crate::cycle::Cycle;
use crate::event::Trigger;
use crate::outcome::{Outcome, Refusal, RefusalKind};
use crate::policy::limits::millis;
use crate::policy::{Facts, Mode, Policy};
use crate::time::Timestamp;

/// What is to become of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Open a cycle.
    Open {
        /// Failed attempts so far.
        prior_attempts: u32,
        /// The cycle whose fix did not last.
        recurrence_of: Option<String>,
        /// Nothing may be done about it: the cycle only alerts.
        refusal: Option<Refusal>,
    },
    /// Its cycle is open, or waits for an approval.
    AlreadyOpen,
    /// Another cycle is open: look again when that is over.
    Busy,
    /// A person was alerted about it and it has not been gone for long enough since; they were told once.
    HandedOver {
        /// The cycle that ended so.
        workflow_id: String,
    },
    /// This kind is noted and never acted on, or the figures are none.
    NoteOnly,
    /// Not now: look again later, whether it is still there.
    Later(Wait),
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A person paused everything, or locked the service.
    Paused {
        /// Who, and why.
        reason: String,
    },
    /// A maintenance window.
    Maintenance {
        /// Its name.
        name: String,
        /// When it ends.
        until: Timestamp,
    },
    /// A person silenced it.
    Silenced {
        /// Until when.
        until: Timestamp,
    },
    /// The cool-down after a fix that did not last.
    CoolingDown {
        /// When it ends.
        until: Timestamp,
    },
    /// Another anomaly explains it: that one is healed first.
    Explained {
        /// Its key.
        by: String,
    },
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paused { reason } => write!(f, "paused: {reason}"),
            Self::Maintenance { name, until } => write!(f, "maintenance `{name}` until {until}"),
            Self::Silenced { until } => write!(f, "silenced until {until}"),
            Self::CoolingDown { until } => write!(f, "cooling down until {until}"),
            Self::Explained { by } => write!(f, "explained by {by}, which is healed first"),
        }
    }
}

impl Healer {
    /// What is to become of an anomaly that was found at `now`. Changes nothing.
    ///
    /// `others` are the other anomalies that are there now: one of them may explain this one.
    pub fn admit(
        &self,
        now: Timestamp,
        anomaly: &Anomaly,
        trigger: Trigger,
        others: &[Anomaly],
        policy: &Policy,
        facts: &Facts,
    ) -> Admission {
        // SAFETY 11: what was not measured is no reason to act.
        let measured = anomaly.current.is_finite() && anomaly.threshold.is_finite();
        if !measured || NOTE_ONLY.contains(&anomaly.kind.as_str()) {
            return Admission::NoteOnly;
        }
        let key = anomaly.key();
        if self.cycles().any(|c| c.anomaly.key() == key) {
            return Admission::AlreadyOpen;
        }
        let in_the_middle = self.cycles().find(|c| c.is_held_in_the_middle());
        if self.open.as_ref().is_some_and(|c| c.held.is_none()) {
            return Admission::Busy;
        }
        let service = policy.topology.service_of(anomaly);
        if let Some(wait) = self.hands_off(now, service, policy, facts, trigger) {
            return Admission::Later(wait);
        }
        let prior_attempts = self
            .healing_attempts
            .get(&anomaly.kind)
            .copied()
            .unwrap_or(0);
        if trigger == Trigger::Operator {
            // A person's order is bound by pauses and by what is stuck, and by nothing that protects from automata.
            let refusal = self
                .stuck
                .as_ref()
                .map(|id| stuck(id))
                .or_else(|| in_the_middle.map(|c| held(&c.workflow_id)));
            return Admission::Open {
                prior_attempts,
                recurrence_of: None,
                refusal,
            };
        }
        if let Some(until) = self.silenced(now, anomaly) {
            return Admission::Later(Wait::Silenced { until });
        }
        if let Some(cause) = policy.topology.root_of(anomaly, others) {
            return Admission::Later(Wait::Explained { by: cause.key() });
        }
        self.by_history(
            now,
            anomaly,
            trigger,
            service,
            prior_attempts,
            policy,
            facts,
        )
    }

    /// Every cycle that is not over.
    pub fn cycles(&self) -> impl Iterator<Item = &Cycle> {
        self.open.iter().chain(&self.awaiting)
    }

    #[expect(clippy::too_many_arguments, reason = "one half of `admit`")]
    fn by_history(
        &self,
        now: Timestamp,
        anomaly: &Anomaly,
        trigger: Trigger,
        service: Option<&str>,
        attempts: u32,
        policy: &Policy,
        facts: &Facts,
    ) -> Admission {
        let limits = &policy.limits;
        let past = self.last.get(&anomaly.key());
        let mut prior_attempts = attempts;
        let mut recurrence_of = None;
        match past {
            Some(past) if past.outcome.healed() => {
                let since = now.millis_since(past.closed_at);
                // A clock that was set back must not make a recurrence look like something new.
                if since < policy.recurrence_window_ms && past.outcome != Outcome::Cleared {
                    // SAFETY 3, 4: what a fix made forgotten counts again when it did not last, else an anomaly that
                    // always comes back would be fixed for ever.
                    prior_attempts = attempts.max(past.failed_attempts).saturating_add(1);
                    recurrence_of = Some(past.workflow_id.clone());
                    let wait = limits.cooldown_ms(policy.retry_wait_ms, prior_attempts);
                    let until = past
                        .closed_at
                        .plus_millis(i64::try_from(wait).unwrap_or(i64::MAX));
                    if now < until && now >= past.closed_at {
                        return Admission::Later(Wait::CoolingDown { until });
                    }
                }
            }
            // What held it back is over: it was only worked out, or a person has put in order what stood in the way.
            Some(past) if past.outcome == Outcome::Shadow && self.mode(policy) != Mode::Shadow => {}
            Some(past) if past.refused.is_some_and(|kind| self.is_over(kind, facts)) => {}
            // A person who starts Evenkeel again wants it looked at again; the watchdog alone does not ask twice.
            Some(past) if trigger == Trigger::Watchdog => {
                let gone_for = past.cleared_at.map(|at| now.millis_since(at));
                if gone_for.is_none_or(|ms| ms < millis(limits.quiet_s)) {
                    return Admission::HandedOver {
                        workflow_id: past.workflow_id.clone(),
                    };
                }
                // It has been away for so long that it is a new one; unless others of its type have used attempts since.
                let kind = anomaly.kind.as_str();
                let of_its_type = self
                    .last
                    .iter()
                    .filter(|(k, _)| k.split('/').next() == Some(kind));
                let mut unfixed = of_its_type.filter(|(_, p)| !p.outcome.healed());
                let long_gone = |p: &PastCycle| {
                    p.cleared_at
                        .is_some_and(|at| now.millis_since(at) >= millis(limits.quiet_s))
                };
                if unfixed.all(|(_, p)| long_gone(p)) {
                    prior_attempts = 0;
                }
            }
            _ => {}
        }
        let refusal = self.refusal(now, past, service, policy, facts);
        Admission::Open {
            prior_attempts,
            recurrence_of: recurrence_of.filter(|_| refusal.is_none()),
            refusal,
        }
    }

    /// Whether a person has ended what a refusal was for. A budget that fills up again by itself is no such end: the
    /// person who was called decides.
    fn is_over(&self, kind: RefusalKind, facts: &Facts) -> bool {
        match kind {
            RefusalKind::NoRoom => facts.no_room.is_none(),
            RefusalKind::Held => !self.cycles().any(Cycle::is_held_in_the_middle),
            RefusalKind::Breaker | RefusalKind::Storm | RefusalKind::Stuck => {
                self.breaker.open.is_none() && self.stuck.is_none()
            }
            RefusalKind::Budget | RefusalKind::Flapping | RefusalKind::Outside => false,
        }
    }

    /// The limit that leaves nothing but to call a person. In shadow mode nothing is spent, so nothing is used up.
    fn refusal(
        &self,
        now: Timestamp,
        past: Option<&PastCycle>,
        service: Option<&str>,
        policy: &Policy,
        facts: &Facts,
    ) -> Option<Refusal> {
        let refuse = |kind, reason: String| Some(Refusal { kind, reason });
        if let Some(id) = &self.stuck {
            return Some(stuck(id));
        }
        if let Some(cycle) = self.cycles().find(|c| c.is_held_in_the_middle()) {
            return Some(held(&cycle.workflow_id));
        }
        if let Some(name) = service.filter(|s| policy.topology.is_outside(s)) {
            return refuse(
                RefusalKind::Outside,
                format!("{name} is a dependency outside the target: a person has to look after it"),
            );
        }
        if let Some(open) = &self.breaker.open {
            return refuse(
                RefusalKind::Breaker,
                format!(
                    "the breaker is open since {} ({}); nothing is healed until a person says: evenkeel breaker reset",
                    open.at, open.why
                ),
            );
        }
        let limits = &policy.limits;
        let roots = facts.down.iter().filter(|name| {
            let below = policy.topology.stands_on(name);
            !below.iter().any(|b| facts.down.contains(*b))
        });
        let (roots, services) = (roots.count(), policy.topology.nodes.len());
        if roots >= limits.storm_services as usize && 2 * roots > services {
            return refuse(
                RefusalKind::Storm,
                format!("{roots} services are down at once: more than a healer should touch"),
            );
        }
        let flaps = past.map_or(0, |p| p.openings_within(now, millis(limits.flap_window_s)));
        if flaps >= limits.flaps {
            return refuse(
                RefusalKind::Flapping,
                format!(
                    "it has come back {flaps} times within {} h: it flaps, and healing it again would not end that",
                    limits.flap_window_s / 3_600
                ),
            );
        }
        // SAFETY 8: no snapshot, no step. In shadow mode none is taken.
        if let Some(why) = facts
            .no_room
            .as_ref()
            .filter(|_| self.mode(policy) != Mode::Shadow)
        {
            return refuse(RefusalKind::NoRoom, why.clone());
        }
        let used_up = self.spent.used_up(now, limits, &policy.topology, service)?;
        refuse(RefusalKind::Budget, used_up)
    }
}

fn held(id: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Held,
        reason: format!(
            "{id} is held in the middle of a run, so nothing else is begun; let it go on (evenkeel resume), or look after it"
        ),
    }
}

fn stuck(id: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Stuck,
        reason: format!(
            "the rollback of {id} failed; nothing is done until a person has put it in order and says: evenkeel unstick"
        ),
    }
}
