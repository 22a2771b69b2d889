//! What is due now, by what the cycle wants and what the policy allows at this very moment (SAFETY 15, 16).
//!
//! This is the only way from a cycle to an act: every limit is looked at again here, right before.

use super::Healer;
use super::admit::Wait;
use crate::anomaly::Anomaly;
use crate::cycle::Cycle;
use crate::effect::Effect;
use crate::event::{Event, Trigger};
use crate::playbook::Action;
use crate::playbook::action::Services;
use crate::playbook::plan::ChosenBy;
use crate::policy::limits::millis;
use crate::policy::{Facts, Mode, Policy};
use crate::time::Timestamp;

/// What is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Nothing: no cycle is open, or it is put aside, or it is held and stays so.
    Nothing,
    /// This effect, to be carried out.
    Effect(Effect),
    /// This event, to be recorded: a limit speaks, a hold begins or ends.
    Event(Event),
}

impl Healer {
    /// What is due for the open cycle.
    pub fn due(&self, now: Timestamp, policy: &Policy, facts: &Facts) -> Due {
        let Some(cycle) = self.open.as_ref().filter(|c| !c.parked) else {
            return Due::Nothing;
        };
        if cycle.held.is_some() {
            let mut free = cycle.clone();
            free.held = None;
            let goes_on = free
                .effect()
                .is_some_and(|e| self.holds(now, &free, &e, policy, facts).is_none());
            return if goes_on {
                Due::Event(Event::Released)
            } else {
                Due::Nothing
            };
        }
        let Some(effect) = cycle.effect() else {
            return Due::Nothing;
        };
        if let Some(reason) = self.holds(now, cycle, &effect, policy, facts) {
            return Due::Event(Event::Held { reason });
        }
        if let Some(event) = self.refuses(now, cycle, &effect, policy, facts) {
            return Due::Event(event);
        }
        Due::Effect(effect)
    }

    /// How freely a playbook may act: by the order for it, its configuration, the order for all, the configuration.
    pub fn mode_of(&self, playbook: &str, policy: &Policy) -> Mode {
        let ordered = self.orders.playbook_modes.get(playbook).map(|m| m.mode);
        let configured = policy.playbook_modes.get(playbook).copied();
        ordered.or(configured).unwrap_or_else(|| self.mode(policy))
    }

    /// How freely the healer acts where nothing else is said.
    pub fn mode(&self, policy: &Policy) -> Mode {
        self.orders.mode.as_ref().map_or(policy.mode, |m| m.mode)
    }

    /// Until when a person silenced an anomaly.
    pub fn silenced(&self, now: Timestamp, anomaly: &Anomaly) -> Option<Timestamp> {
        let key = anomaly.key();
        [anomaly.kind.as_str(), key.as_str()]
            .into_iter()
            .filter_map(|what| self.orders.silences.get(what)?.until)
            .find(|until| now < *until)
    }

    /// Who says hands off: the kill switch, a pause, a lock, and for automata a maintenance window.
    pub fn hands_off(
        &self,
        now: Timestamp,
        service: Option<&str>,
        policy: &Policy,
        facts: &Facts,
        trigger: Trigger,
    ) -> Option<Wait> {
        let paused = |reason| Some(Wait::Paused { reason });
        if facts.pause_file {
            return paused("the file PAUSE lies in the data directory".to_owned());
        }
        if let Some(p) = &self.orders.paused {
            return paused(format!("by {} at {}: {}", p.by, p.at, p.why));
        }
        if let Some((name, p)) = service.and_then(|s| self.orders.locked.get_key_value(s)) {
            return paused(format!(
                "{name} is locked by {} at {}: {}",
                p.by, p.at, p.why
            ));
        }
        if trigger == Trigger::Operator {
            return None;
        }
        policy.maintenance.iter().find_map(|w| {
            w.ends_after(now).map(|until| Wait::Maintenance {
                name: w.name.clone(),
                until,
            })
        })
    }

    fn holds(
        &self,
        now: Timestamp,
        cycle: &Cycle,
        effect: &Effect,
        policy: &Policy,
        facts: &Facts,
    ) -> Option<String> {
        if !effect.waits_when_held() {
            return None;
        }
        let service = policy.topology.service_of(&cycle.anomaly);
        let trigger = match cycle.plan() {
            Some(plan) if plan.chosen_by == ChosenBy::Operator => Trigger::Operator,
            _ => cycle.trigger,
        };
        // SAFETY 15: held between two runs, it may find that another was begun meanwhile and is held in the middle of one.
        let other = self
            .cycles()
            .find(|c| c.workflow_id != cycle.workflow_id && c.is_held_in_the_middle());
        if let Some(other) = other.filter(|_| !cycle.has_acted()) {
            return Some(format!(
                "{} is held in the middle of a run, so nothing else goes on",
                other.workflow_id
            ));
        }
        let by_target = self.hands_off(now, service, policy, facts, trigger);
        let wait = by_target.or_else(|| {
            // A step may touch other services than the one the anomaly is about.
            touched(cycle, effect)
                .into_iter()
                .find_map(|s| self.hands_off(now, Some(s), policy, facts, Trigger::Operator))
        });
        if let Some(wait) = wait {
            return Some(wait.to_string());
        }
        let by_hand = trigger == Trigger::Operator;
        let plan = cycle.plan().filter(|_| effect.acts() && !by_hand)?;
        let mode = self.mode_of(&plan.playbook, policy);
        (mode == Mode::Shadow).then(|| format!("{} is in shadow mode now", plan.playbook))
    }

    fn refuses(
        &self,
        now: Timestamp,
        cycle: &Cycle,
        effect: &Effect,
        policy: &Policy,
        facts: &Facts,
    ) -> Option<Event> {
        let limits = &policy.limits;
        let refused = |reason: String| Some(Event::Refused { reason });
        let by_hand = cycle
            .plan()
            .is_some_and(|p| p.chosen_by == ChosenBy::Operator);
        match effect {
            Effect::TakeSnapshot
            | Effect::WaitRetry { .. }
            | Effect::Advise { .. }
            | Effect::RequestApproval => {
                let active = now.millis_since(cycle.opened_at) - cycle.waited_ms;
                if active >= millis(limits.cycle_timeout_s) {
                    return refused(format!(
                        "the cycle has taken longer than cycle_timeout_s = {}",
                        limits.cycle_timeout_s
                    ));
                }
                // A cycle that waited for a person may find that another has failed meanwhile.
                if *effect == Effect::TakeSnapshot
                    && let Some(reason) = self.stopped(by_hand)
                {
                    return refused(reason);
                }
                if *effect == Effect::TakeSnapshot && !by_hand {
                    let service = policy.topology.service_of(&cycle.anomaly);
                    if let Some(reason) = self.spent.used_up(now, limits, &policy.topology, service)
                    {
                        return refused(reason);
                    }
                }
                if *effect == Effect::RequestApproval
                    && self.awaiting.len() >= crate::approval::AWAITING_MAX
                {
                    return refused("too many approvals are waited for already".to_owned());
                }
                None
            }
            Effect::RunStep { step } => {
                let error = self.forbids_step(now, cycle, *step, policy, facts)?;
                Some(Event::StepRefused { step: *step, error })
            }
            _ => None,
        }
    }

    /// Why no attempt begins until a person says so: a rollback failed, or the breaker is open; the latter does not bind
    /// a person's own order.
    fn stopped(&self, by_hand: bool) -> Option<String> {
        if let Some(id) = &self.stuck {
            return Some(format!(
                "the rollback of {id} failed; nothing is done until a person has put it in order and says: evenkeel unstick"
            ));
        }
        let open = self.breaker.open.as_ref().filter(|_| !by_hand)?;
        Some(format!(
            "the breaker is open since {} ({})",
            open.at, open.why
        ))
    }

    /// The limit that forbids a step: time, interruptions, capacity (SAFETY 13).
    fn forbids_step(
        &self,
        now: Timestamp,
        cycle: &Cycle,
        step: usize,
        policy: &Policy,
        facts: &Facts,
    ) -> Option<String> {
        let limits = &policy.limits;
        let run = cycle.run()?;
        let attempt_ms = now.millis_since(run.started_at);
        if attempt_ms >= millis(limits.attempt_timeout_s) {
            return Some(format!(
                "the attempt has taken longer than attempt_timeout_s = {}",
                limits.attempt_timeout_s
            ));
        }
        let prepared = run
            .steps
            .iter()
            .find(|s| s.step == step)?
            .prepared
            .as_ref()?;
        let by_hand = run.plan.chosen_by == ChosenBy::Operator;
        for service in prepared.action.interrupts() {
            // The intent of this very step is counted already.
            let left = self.spent.interruptions_left(now, limits, service);
            let used = self.spent.interruptions.get(service).map_or(0, |t| {
                t.iter()
                    .filter(|at| now.millis_since(**at) < crate::policy::limits::HOUR_MS)
                    .count()
            });
            if !by_hand && used > left.of as usize {
                return Some(format!(
                    "{service} has been interrupted {} times within the hour; restarts_per_service_hour = {}",
                    used - 1,
                    left.of
                ));
            }
            if let Some(error) = over_capacity(service, &prepared.action, policy, facts) {
                return Some(error);
            }
        }
        None
    }
}

/// Whether interrupting a service leaves too few of its instances. Services of one step are interrupted one after the
/// other and are up again before the next, unless the step only stops them.
fn over_capacity(service: &str, action: &Action, policy: &Policy, facts: &Facts) -> Option<String> {
    // What is down already loses nothing.
    if facts.down.contains(service) {
        return None;
    }
    let instances = policy.topology.instances(service);
    if instances.len() < 2 {
        return None;
    }
    let stays_down = matches!(action, Action::Stop(_) | Action::Signal(_));
    let down = instances
        .iter()
        .filter(|i| facts.down.contains(**i))
        .count();
    let taken = if stays_down {
        let interrupted = action.interrupts();
        let of_it = instances
            .iter()
            .filter(|i| interrupted.contains(*i) && !facts.down.contains(**i));
        of_it.count()
    } else {
        1
    };
    let all = u32::try_from(instances.len()).unwrap_or(u32::MAX);
    let allowed = policy.limits.may_be_down(all) as usize;
    (down + taken > allowed).then(|| {
        format!(
            "{down} of {all} instances are down; interrupting {taken} more would leave too few ({allowed} may be down)"
        )
    })
}

/// The services that an effect is about to touch.
fn touched<'a>(cycle: &'a Cycle, effect: &Effect) -> Vec<&'a str> {
    let Some(run) = cycle.run() else {
        return Vec::new();
    };
    match effect {
        Effect::RunStep { step } => run
            .steps
            .iter()
            .filter(|s| s.step == *step)
            .filter_map(|s| s.prepared.as_ref())
            .flat_map(|p| p.action.touches())
            .collect(),
        _ => Vec::new(),
    }
}

impl Action {
    /// The services that a prepared action interrupts.
    pub fn interrupts(&self) -> Vec<&str> {
        match self {
            Self::Restart(a) | Self::Stop(a) => a.services.names(),
            Self::Signal(a) => a.services.names(),
            _ => Vec::new(),
        }
    }

    /// The services that a prepared action does something to.
    pub fn touches(&self) -> Vec<&str> {
        match self {
            Self::Start(a) => a.services.names(),
            _ => self.interrupts(),
        }
    }
}

impl Services {
    /// The names, as they stand: of a prepared action these are services.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::Many(names) => names.iter().map(String::as_str).collect(),
        }
    }
}
