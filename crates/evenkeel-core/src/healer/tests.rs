//! What the healer remembers, admits and holds back, by example. Sequences in a world are the simulator's.

mod bench;

use serde_json::json;

use super::*;
use crate::effect::Effect;
use crate::order::Order;
use crate::policy::{Limits, Mode, Policy};
use bench::*;

/// SAFETY 11
#[test]
fn what_was_not_measured_is_no_reason_to_act() {
    let bench = Bench::new(policy());
    let mut a = anomaly("latency_spike");
    assert!(matches!(
        bench.admit(&a, Trigger::Watchdog),
        Admission::Open { .. }
    ));
    for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        a.current = nonsense;
        assert_eq!(
            bench.admit(&a, Trigger::Watchdog),
            Admission::NoteOnly,
            "{nonsense}"
        );
    }
}

/// SAFETY 3, 4: a fix that passes its test every time and never lasts ends with a person, who is called once.
#[test]
fn an_anomaly_that_comes_back_after_every_fix_uses_its_attempts_up() {
    let mut bench = Bench::new(policy());
    for _ in 0..3 {
        bench.heal("error_rate_spike").unwrap();
        assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
        bench.pass(60_000);
    }
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::HumanAlert);
    assert_eq!(bench.acts(), 3);
    for _ in 0..20 {
        bench.clear("error_rate_spike");
        bench.pass(HOUR_MS);
        let again = bench.heal("error_rate_spike");
        assert!(
            matches!(again, Err(Admission::HandedOver { .. })),
            "{again:?}"
        );
    }
    // Gone for a day, it is a new one.
    bench.clear("error_rate_spike");
    bench.pass(DAY_MS);
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
}

/// SAFETY 3: one that comes back just after the recurrence window is no longer one fix that did not last; it flaps.
#[test]
fn what_flaps_is_left_alone_after_a_person_was_called_once() {
    let mut bench = Bench::new(policy());
    let (mut acted, mut alerts) = (0, 0);
    for _ in 0..7 * 24 / 2 {
        if bench.heal("error_rate_spike").is_ok() {
            match bench.outcome("error_rate_spike") {
                Outcome::Resolved => acted += 1,
                _ => alerts += 1,
            }
        }
        bench.pass(HOUR_MS);
        bench.clear("error_rate_spike");
        bench.pass(HOUR_MS);
    }
    assert_eq!((acted, alerts), (5, 1), "in seven days");
}

/// SAFETY 1
#[test]
fn shadow_mode_works_everything_out_and_does_nothing() {
    let mut bench = Bench::new(Policy {
        mode: Mode::Shadow,
        ..policy()
    });
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Shadow);
    assert_eq!(bench.acts(), 0);
    assert!(bench.effects.contains(&Effect::PrepareStep { step: 0 }));
    assert!(!bench.effects.contains(&Effect::TakeSnapshot));
    assert_eq!(bench.healer.spent, Spent::default());
    // Once is enough; and when somebody lets it act, it does.
    assert!(matches!(
        bench.heal("error_rate_spike"),
        Err(Admission::HandedOver { .. })
    ));
    bench.order(Order::SetMode {
        mode: Some(Mode::Auto),
        playbook: Some("p".to_owned()),
    });
    bench.order(Order::SetMode {
        mode: Some(Mode::Auto),
        playbook: None,
    });
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
}

/// SAFETY 1, 15: shadow mode that is ordered while a plan is at work lets no further step begin.
#[test]
fn the_mode_is_looked_at_again_at_the_moment_of_acting() {
    let mut bench = Bench::new(policy());
    let id = bench.open(&anomaly("error_rate_spike")).unwrap();
    while bench.healer.due(bench.now, &bench.policy, &bench.facts)
        != Due::Effect(Effect::RunStep { step: 0 })
    {
        let Due::Effect(effect) = bench.healer.due(bench.now, &bench.policy, &bench.facts) else {
            panic!("nothing is due");
        };
        let event = bench.answer(&effect);
        bench.take(&id, event);
    }
    bench.order(Order::SetMode {
        mode: Some(Mode::Shadow),
        playbook: None,
    });
    bench.drive();
    assert_eq!(bench.acts(), 0);
    assert!(bench.healer.open.as_ref().unwrap().held.is_some());
    bench.order(Order::SetMode {
        mode: Some(Mode::Auto),
        playbook: None,
    });
    bench.drive();
    assert!(
        bench.effects.contains(&Effect::Recheck),
        "SAFETY 14: {:?}",
        bench.effects
    );
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
}

/// SAFETY 19
#[test]
fn an_approval_is_bound_single_and_passes_away() {
    let mut bench = Bench::new(policy());
    bench.tier = "tier_3";
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(
        (bench.acts(), bench.healer.open.is_none()),
        (0, true),
        "others may go first"
    );
    let (id, binds) = {
        let (_, request) = bench.healer.approvals().next().unwrap();
        (request.id.clone(), request.binds.clone())
    };
    let now = bench.now;
    let refused = [
        bench.healer.approve(now, &id, "something else", "bob"),
        bench.healer.approve(now, "00000000", &binds, "bob"),
        bench
            .healer
            .approve(now.plus_millis(DAY_MS), &id, &binds, "bob"),
    ];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    let (wf, yes) = bench.healer.approve(now, &id, &binds, "bob").unwrap();
    bench.take(&wf, yes.clone());
    assert!(
        bench.healer.approve(now, &id, &binds, "bob").is_err(),
        "it works once"
    );
    bench.drive();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
    assert_eq!(bench.acts(), 1);
    assert_eq!(
        bench
            .effects
            .iter()
            .filter(|e| **e == Effect::Recheck)
            .count(),
        1
    );
}

/// SAFETY 19: each attempt asks anew, and an approval that nobody gave ends with a person.
#[test]
fn without_an_approval_nothing_is_done() {
    let mut bench = Bench::new(Policy {
        mode: Mode::Approve,
        ..policy()
    });
    bench.heal("error_rate_spike").unwrap();
    bench.heal("latency_spike").unwrap();
    assert_eq!(bench.healer.approvals().count(), 2);
    let id = bench.healer.approvals().next().unwrap().1.id.clone();
    let (wf, no) = bench.healer.deny(&id, "bob", "not now").unwrap();
    bench.take(&wf, no);
    bench.drive();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::HumanAlert);
    assert!(
        !bench.effects.contains(&Effect::Alert),
        "whoever said no knows"
    );
    bench.pass(DAY_MS);
    let (wf, late) = bench.healer.expired(bench.now).unwrap();
    bench.take(&wf, late);
    bench.drive();
    assert!(bench.effects.contains(&Effect::Alert));
    assert_eq!(bench.acts(), 0);
}

/// SAFETY 14, 15, 16
#[test]
fn nothing_begins_while_a_person_says_hands_off() {
    let mut bench = Bench::new(policy());
    let a = anomaly("error_rate_spike");
    let paused = |bench: &Bench| {
        matches!(
            bench.admit(&a, Trigger::Watchdog),
            Admission::Later(Wait::Paused { .. })
        )
    };
    bench.facts.pause_file = true;
    assert!(paused(&bench));
    bench.facts.pause_file = false;
    let lock = |service: &str| Order::Pause {
        service: Some(service.to_owned()),
        why: "by hand".to_owned(),
    };
    bench.order(lock("api-1"));
    assert!(paused(&bench));
    bench.order(Order::Resume {
        service: Some("api-1".to_owned()),
    });
    bench.order(lock("db"));
    assert!(!paused(&bench), "another service");
    bench.order(Order::Pause {
        service: None,
        why: "release".to_owned(),
    });
    assert!(paused(&bench));
    assert!(
        matches!(bench.admit(&a, Trigger::Operator), Admission::Later(_)),
        "a lock wins over a person too"
    );
    bench.order(Order::Resume { service: None });
    assert!(!paused(&bench));
}

/// SAFETY 16: a pause in the middle is a safe point, and a rollback waits as well.
#[test]
fn a_pause_stops_between_steps_and_before_a_rollback() {
    let mut bench = Bench::new(policy());
    bench.helps = false;
    let id = bench.open(&anomaly("error_rate_spike")).unwrap();
    while !matches!(
        bench.healer.open.as_ref().unwrap().phase,
        crate::Phase::RollingBack
    ) {
        let Due::Effect(effect) = bench.healer.due(bench.now, &bench.policy, &bench.facts) else {
            panic!("nothing is due");
        };
        let event = bench.answer(&effect);
        bench.take(&id, event);
    }
    bench.facts.pause_file = true;
    bench.drive();
    assert!(bench.effects.is_empty(), "{:?}", bench.effects);
    bench.facts.pause_file = false;
    bench.drive();
    assert_eq!(bench.effects.first(), Some(&Effect::RollBack));
}

#[test]
fn silences_and_windows_hold_back_and_end() {
    let mut bench = Bench::new(policy());
    let a = anomaly("error_rate_spike");
    let until = bench.now.plus_millis(HOUR_MS);
    bench.order(Order::Silence {
        what: "error_rate_spike".to_owned(),
        until,
        why: "known".to_owned(),
    });
    assert_eq!(
        bench.admit(&a, Trigger::Watchdog),
        Admission::Later(Wait::Silenced { until })
    );
    assert!(matches!(
        bench.admit(&anomaly("latency_spike"), Trigger::Watchdog),
        Admission::Open { .. }
    ));
    bench.pass(HOUR_MS);
    assert!(matches!(
        bench.admit(&a, Trigger::Watchdog),
        Admission::Open { .. }
    ));
    let window = json!({"name": "backup", "from": "00:00", "to": "00:00"});
    bench.policy.maintenance = vec![serde_json::from_value(window).unwrap()];
    assert!(matches!(
        bench.admit(&a, Trigger::Watchdog),
        Admission::Later(Wait::Maintenance { .. })
    ));
    assert!(
        matches!(bench.admit(&a, Trigger::Operator), Admission::Open { .. }),
        "a person may"
    );
}

/// SAFETY 3, 13
#[test]
fn the_breaker_opens_after_failures_in_a_row_and_waits_for_a_person() {
    let mut bench = Bench::new(policy());
    bench.helps = false;
    for kind in ["error_rate_spike", "latency_spike", "memory_growth"] {
        bench.heal(kind).unwrap();
        bench.pass(2 * HOUR_MS);
    }
    let acts = bench.acts();
    assert!(bench.healer.breaker.open.is_some());
    bench.helps = true;
    bench.heal("high_failure_rate").unwrap();
    assert_eq!(bench.outcome("high_failure_rate"), Outcome::HumanAlert);
    assert_eq!(bench.acts(), acts, "nothing is healed");
    assert!(
        matches!(
            bench.heal("high_failure_rate"),
            Err(Admission::HandedOver { .. })
        ),
        "alerted once"
    );
    bench.order(Order::ResetBreaker { why: String::new() });
    bench.heal("high_failure_rate").unwrap();
    assert_eq!(
        bench.outcome("high_failure_rate"),
        Outcome::Resolved,
        "what is still there is healed"
    );
}

/// What a person has repaired is new when it comes back, without a day of waiting.
#[test]
fn what_a_person_repaired_is_healed_again() {
    let mut bench = Bench::new(policy());
    bench.helps = false;
    bench.heal("error_rate_spike").unwrap();
    bench.heal("latency_spike").unwrap();
    bench.helps = true;
    bench.order(Order::Repaired {
        what: Some("error_rate_spike".to_owned()),
        why: String::new(),
    });
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
    assert!(
        bench.heal("latency_spike").is_err(),
        "of that nobody said so"
    );
}

/// SAFETY 20: while a person holds one cycle, others still go out to people; and where nothing was begun, they are healed.
#[test]
fn a_held_cycle_holds_up_no_alert() {
    let mut bench = Bench::new(policy());
    let lock = Order::Pause {
        service: Some("api-1".to_owned()),
        why: "by hand".to_owned(),
    };
    bench.tier = "tier_3";
    bench.heal("latency_spike").unwrap();
    bench.tier = "tier_1";
    let id = bench.open(&anomaly("error_rate_spike")).unwrap();
    while bench.healer.due(bench.now, &bench.policy, &bench.facts)
        != Due::Effect(Effect::RunStep { step: 0 })
    {
        let Due::Effect(effect) = bench.healer.due(bench.now, &bench.policy, &bench.facts) else {
            panic!("nothing is due");
        };
        let event = bench.answer(&effect);
        bench.take(&id, event);
    }
    bench.order(lock);
    bench.drive();
    assert!(bench.healer.open.as_ref().unwrap().is_held_in_the_middle());
    // The approval expires: its cycle alerts and closes all the same.
    bench.pass(DAY_MS);
    let (wf, late) = bench.healer.expired(bench.now).unwrap();
    bench.take(&wf, late);
    bench.drive();
    assert_eq!(bench.outcome("latency_spike"), Outcome::HumanAlert);
    // So does what is found meanwhile on another service.
    let mut other = anomaly("memory_growth");
    other.service = Some("db".to_owned());
    bench.open(&other).unwrap();
    bench.drive();
    assert_eq!(bench.healer.last[&other.key()].outcome, Outcome::HumanAlert);
    assert_eq!(bench.acts(), 0);
    bench.order(Order::Resume {
        service: Some("api-1".to_owned()),
    });
    bench.drive();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
    assert!(bench.healer.awaiting.is_empty() && bench.healer.open.is_none());
}

/// SAFETY 13: many failures at once stop the healer and call a person.
#[test]
fn a_storm_opens_the_breaker() {
    let mut bench = Bench::new(policy());
    bench.facts.down = ["api-1", "api-2", "db"].map(str::to_owned).into();
    bench.heal("target_down").unwrap();
    assert_eq!(bench.outcome("target_down"), Outcome::HumanAlert);
    assert_eq!(bench.acts(), 0);
    assert!(bench.healer.breaker.open.is_some());
    // What one dependency explains is no storm.
    let mut bench = Bench::new(policy());
    for api in ["api-1", "api-2"] {
        let node = bench.policy.topology.nodes.get_mut(api).unwrap();
        node.depends_on.insert("db".to_owned());
    }
    bench.facts.down = ["api-1", "api-2", "db"].map(str::to_owned).into();
    bench.heal("target_down").unwrap();
    assert!(bench.healer.breaker.open.is_none());
}

#[test]
fn a_failed_rollback_stops_everything_until_a_person_says_that_all_is_in_order() {
    let mut bench = Bench::new(policy());
    (bench.helps, bench.undone) = (false, false);
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Stuck);
    let acts = bench.acts();
    bench.heal("latency_spike").unwrap();
    assert_eq!(
        (bench.acts(), bench.outcome("latency_spike")),
        (acts, Outcome::HumanAlert)
    );
    bench.order(Order::Unstick {
        why: "put in order".to_owned(),
    });
    bench.helps = true;
    bench.heal("latency_spike").unwrap();
    assert_eq!(bench.outcome("latency_spike"), Outcome::Resolved);
}

/// SAFETY 3: in all and for one service, whatever the kinds of anomalies are.
#[test]
fn heals_stay_within_the_budget() {
    let mut bench = Bench::new(policy());
    bench.policy.limits = Limits {
        heals_per_hour: 4,
        breaker_cycles: 100,
        ..Limits::default()
    };
    for n in 0..10 {
        let _ = bench.heal(["error_rate_spike", "latency_spike"][n % 2]);
        bench.policy.recurrence_window_ms = 0;
        bench.pass(60_000);
    }
    assert_eq!(bench.acts(), 4);
    let left = bench.healer.spent.heals_left(
        bench.now,
        &bench.policy.limits,
        &bench.policy.topology,
        Some("api-1"),
    );
    assert_eq!(
        left.iter().map(|l| l.left).collect::<Vec<_>>(),
        [0, 26, 4, 16]
    );
}

/// SAFETY 8: a disk that would not take the snapshot is noticed before anything begins.
#[test]
fn without_room_for_a_snapshot_a_person_is_called_and_later_it_is_healed() {
    let mut bench = Bench::new(policy());
    bench.facts.no_room = Some("the disk is full".to_owned());
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::HumanAlert);
    assert_eq!(bench.acts(), 0);
    assert!(bench.heal("error_rate_spike").is_err(), "once");
    bench.facts.no_room = None;
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::Resolved);
}

/// SAFETY 13
#[test]
fn capacity_keeps_its_floor() {
    let mut bench = Bench::new(policy());
    bench.facts.down = ["api-2".to_owned()].into();
    bench.heal("error_rate_spike").unwrap();
    assert_eq!(
        bench
            .effects
            .iter()
            .filter(|e| matches!(e, Effect::RunStep { .. }))
            .count(),
        0
    );
    // What is down itself may be started again.
    let mut bench = Bench::new(policy());
    bench.facts.down = ["api-1".to_owned(), "api-2".to_owned()].into();
    bench.heal("target_down").unwrap();
    assert_eq!(bench.outcome("target_down"), Outcome::Resolved);
}

/// SAFETY 12: whatever the kind of anomaly is, one service is interrupted so many times an hour.
#[test]
fn a_victim_is_not_restarted_in_a_loop() {
    let mut bench = Bench::new(policy());
    bench.policy.limits = Limits {
        restarts_per_service_hour: 2,
        breaker_cycles: 100,
        ..Limits::default()
    };
    bench.helps = false;
    for kind in ["error_rate_spike", "latency_spike"] {
        bench.heal(kind).unwrap();
    }
    assert_eq!(
        bench
            .effects
            .iter()
            .filter(|e| matches!(e, Effect::RunStep { .. }))
            .count(),
        2
    );
}

#[test]
fn what_another_anomaly_explains_waits_for_it() {
    let mut bench = Bench::new(policy());
    let node = bench.policy.topology.nodes.get_mut("api-1").unwrap();
    node.depends_on.insert("db".to_owned());
    let mut cause = anomaly("target_down");
    cause.service = Some("db".to_owned());
    let found = bench.healer.admit(
        bench.now,
        &anomaly("error_rate_spike"),
        Trigger::Watchdog,
        &[cause.clone()],
        &bench.policy,
        &bench.facts,
    );
    assert_eq!(found, Admission::Later(Wait::Explained { by: cause.key() }));
}

#[test]
fn a_fix_that_did_not_last_is_repeated_after_a_wait_that_grows() {
    let mut bench = Bench::new(policy());
    bench.policy.retry_wait_ms = 60_000;
    bench.heal("error_rate_spike").unwrap();
    let mut waits = Vec::new();
    for _ in 0..2 {
        let Err(Admission::Later(Wait::CoolingDown { until })) = bench.heal("error_rate_spike")
        else {
            panic!("no wait");
        };
        waits.push(until.millis_since(bench.now));
        bench.now = until;
        bench.heal("error_rate_spike").unwrap();
    }
    assert_eq!(waits, [60_000, 120_000]);
}

/// The limit on a cycle holds however far it is; what it waits for people is not counted.
#[test]
fn a_cycle_that_takes_too_long_ends_with_a_person() {
    let mut bench = Bench::new(policy());
    bench.helps = false;
    let id = bench.open(&anomaly("error_rate_spike")).unwrap();
    bench.pass(3 * HOUR_MS);
    bench.drive();
    assert_eq!(bench.outcome("error_rate_spike"), Outcome::HumanAlert);
    assert_eq!(bench.acts(), 0);
    assert_eq!(
        bench.healer.last[&anomaly("error_rate_spike").key()].workflow_id,
        id
    );
}

/// SAFETY 9, 15: what stands in the way is looked at again when a person's yes comes, not only when the cycle opened.
#[test]
fn a_cycle_that_waited_does_not_act_after_another_got_stuck() {
    for breaker in [false, true] {
        let mut limited = policy();
        limited.limits.breaker_cycles = 1;
        let mut b = Bench::new(limited);
        b.tier = "tier_3";
        b.heal("latency_spike").unwrap();
        (b.tier, b.helps, b.undone) = ("tier_1", false, breaker);
        b.heal("error_rate_spike").unwrap();
        let other = if breaker {
            Outcome::HumanAlert
        } else {
            Outcome::Stuck
        };
        assert_eq!(b.outcome("error_rate_spike"), other);
        let acts = b.acts();
        let (id, binds) = {
            let (_, request) = b.healer.approvals().next().unwrap();
            (request.id.clone(), request.binds.clone())
        };
        let (workflow, yes) = b.healer.approve(b.now, &id, &binds, "ann").unwrap();
        b.take(&workflow, yes);
        b.drive();
        assert_eq!(b.acts(), acts, "breaker: {breaker}");
        assert_eq!(b.outcome("latency_spike"), Outcome::HumanAlert);
    }
}
