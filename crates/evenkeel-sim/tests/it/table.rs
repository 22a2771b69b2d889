//! The table of transitions under events in any order, not only those that a world would send.

use evenkeel_core::cycle::{CRASHES_MAX, Cycle, Outcome, Phase};
use evenkeel_core::event::{AlertRef, Event, Stamped, Trigger};
use evenkeel_core::healer::{Healer, HealerEvent};
use evenkeel_core::playbook::RollbackOutcome;
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::{Effect, Timestamp, record};
use evenkeel_sim::rng::Rng;
use evenkeel_sim::world::{World, plans};
use evenkeel_sim::{Config, Scenario};
use proptest::prelude::*;
use serde_json::json;
use std::rc::Rc;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn world(seed: u64) -> World {
    World::new(Rc::new(Scenario::draw(seed, &Config::default())))
}

/// An opening, as some world would send it.
fn opening(seed: u64) -> Event {
    let mut world = world(seed);
    let odds = world.odds;
    let by_hand = world.rng.chance(200);
    let scenario = world.scenario().clone();
    let plan = by_hand.then(|| {
        Box::new(plans::draw(
            &mut world.rng,
            &odds,
            &scenario,
            ChosenBy::Operator,
        ))
    });
    let anomaly = json!({
        "type": world.rng.pick(["error_rate_spike", "target_down"]), "severity": "high", "current": 0.2,
        "threshold": 0.05, "details": "", "service": "api", "since": "2026-01-31T12:00:00Z"});
    Event::Opened {
        anomaly: Box::new(serde_json::from_value(anomaly).expect("an anomaly")),
        trigger: world.rng.pick([Trigger::Watchdog, Trigger::PostBoot]),
        rules: scenario.rules,
        prior_attempts: world.rng.below(4),
        recurrence_of: world.rng.chance(300).then(|| "wf_0".to_owned()),
        plan,
        refusal: None,
    }
}

/// Any event, whether it fits or not. `turn` 0 to 9 gives an answer that fits, if there is one.
fn any_event(cycle: &Cycle, seed: u64, turn: u32) -> Event {
    let mut world = world(seed);
    if turn < 10
        && let Some(effect) = cycle.effect()
    {
        return world.answer(cycle, &effect);
    }
    let mut rng = Rng::new(seed);
    let step = rng.below(5) as usize;
    let ok = rng.chance(500);
    let outcome = rng.pick([
        Outcome::Resolved,
        Outcome::ResolvedWithAdvice,
        Outcome::Cleared,
        Outcome::HumanAlert,
        Outcome::Stuck,
    ]);
    let text = "whatever".to_owned();
    let effect = |world: &mut World, effect| world.answer(cycle, &effect);
    match rng.below(20) {
        0 => opening(seed),
        1 => effect(&mut world, Effect::TakeSnapshot),
        2 => Event::SnapshotFailed { error: text },
        3 => effect(&mut world, Effect::SelectPlaybook),
        4 => Event::NoPlaybook { reason: text },
        5 => effect(&mut world, Effect::PrepareStep { step }),
        6 => Event::StepSkipped { step, reason: text },
        7 => Event::StepRefused { step, error: text },
        8 => effect(&mut world, Effect::RunStep { step }),
        9 => effect(&mut world, Effect::Verify),
        10 => Event::Settled {
            stayed_normal: ok,
            details: text,
        },
        11 => Event::RolledBack {
            outcome: RollbackOutcome {
                ok,
                ..RollbackOutcome::default()
            },
        },
        12 => Event::RunConcluded,
        13 => Event::RetryDue {
            still_there: ok,
            details: text,
        },
        14 => effect(&mut world, Effect::Advise { advisor: 0 }),
        15 => Event::AdviceFailed {
            advisor: text.clone(),
            reason: text,
        },
        16 => Event::Alerted {
            alert: AlertRef::default(),
        },
        17 => Event::Closed { outcome },
        18 => Event::Parked { interrupted: ok },
        _ => Event::Resumed { after_crash: ok },
    }
}

fn stamp(event: Event) -> Stamped {
    Stamped {
        workflow_id: "wf_1".to_owned(),
        at: AT,
        event,
    }
}

/// Through the record's bytes and back.
fn through_the_ledger(after: &Cycle, stamped: &Stamped) -> HealerEvent {
    let record = record::of_event(after, stamped);
    record::read_back(record.action, record.at, &record.payload.to_string())
        .expect("what was written can be read")
        .expect("an event of a cycle changes the healer")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// SAFETY 5: whatever is refused changes nothing; whatever is accepted leaves something due, or a cycle that is
    /// parked or closed; every event reads back from its record as it was; and the fold over what was read back is
    /// the same state.
    #[test]
    fn any_event_in_any_phase(first in any::<u64>(), turns in prop::collection::vec((any::<u64>(), 0_u32..14), 1..80)) {
        let opened = stamp(opening(first));
        let mut cycle = Cycle::open("wf_1", AT, &opened.event).expect("an opening opens");
        let mut replayed = Healer::default();
        let read = through_the_ledger(&cycle, &opened);
        prop_assert_eq!(&read, &HealerEvent::Cycle(opened));
        replayed.apply(&read).expect("replay takes what live took");
        for (seed, turn) in turns {
            let before = cycle.clone();
            let stamped = stamp(any_event(&cycle, seed, turn));
            if cycle.apply(AT, &stamped.event).is_err() {
                prop_assert_eq!(&cycle, &before, "a refused {} changed something", stamped.event.name());
                continue;
            }
            prop_assert!(before.outcome().is_none(), "a closed cycle took {}", stamped.event.name());
            prop_assert_eq!(cycle.effect().is_none(), cycle.parked || cycle.outcome().is_some());
            let read = through_the_ledger(&cycle, &stamped);
            prop_assert_eq!(&read, &HealerEvent::Cycle(stamped));
            replayed.apply(&read).expect("replay takes what live took");
            match cycle.outcome() {
                None => prop_assert_eq!(replayed.open.as_ref(), Some(&cycle)),
                Some(outcome) => {
                    prop_assert_eq!(replayed.open.as_ref(), None);
                    prop_assert_eq!(replayed.last.values().next().map(|p| p.outcome), Some(outcome));
                }
            }
        }
    }

    /// An answer that fits what is due is always taken, and a cycle that is only ever answered comes to its end.
    #[test]
    fn whoever_answers_gets_to_the_end(first in any::<u64>(), seeds in prop::collection::vec(any::<u64>(), 400)) {
        let mut cycle = Cycle::open("wf_1", AT, &opening(first)).expect("an opening opens");
        for seed in seeds {
            if cycle.outcome().is_some() {
                break;
            }
            let event = any_event(&cycle, seed, 0);
            let phase = format!("{:?}", cycle.phase);
            prop_assert!(cycle.apply(AT, &event).is_ok(), "{phase} refused {}", event.name());
        }
        prop_assert!(cycle.outcome().is_some(), "still in {:?}", cycle.phase);
    }
}

/// SAFETY 6: a step or a rollback during which the healer always dies is given up, and ends with a person.
#[test]
fn a_healer_that_dies_in_every_act_gives_up() {
    for seed in 0..40 {
        let mut cycle = Cycle::open("wf_1", AT, &opening(seed)).unwrap();
        let mut acts = 0;
        for turn in 0..2_000 {
            let Some(effect) = cycle.effect() else {
                break;
            };
            let event = if effect.acts() {
                acts += 1;
                Event::Resumed { after_crash: true }
            } else {
                any_event(&cycle, seed * 10_000 + turn, 0)
            };
            cycle.apply(AT, &event).unwrap();
        }
        assert!(acts <= 2 * CRASHES_MAX, "seed {seed}: {acts} acts");
        assert!(
            matches!(cycle.phase, Phase::Closed { .. }),
            "seed {seed}: still in {:?}",
            cycle.phase
        );
    }
}
