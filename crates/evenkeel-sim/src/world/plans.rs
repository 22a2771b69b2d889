//! Plans that a user might have made up: a few steps of every kind that matters to the healer (relative and absolute
//! changes, stops, steps that change nothing, steps that must not run twice).

use std::collections::BTreeMap;

use evenkeel_core::playbook::action::{
    RunCommandArgs, Services, ServicesArgs, SetConfigArgs, SetTunableArgs, StopArgs,
};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{Action, OnFailure, Plan, PlannedStep, Risk, Tier, UndoKind};
use serde_json::json;

use super::target::OWN_KEYS;
use crate::odds::Odds;
use crate::rng::Rng;
use crate::scenario::Scenario;

/// Most steps of a plan here.
pub const STEPS_MAX: u32 = 4;
/// Most retries of a step here.
pub const RETRIES_MAX: u32 = 2;

/// Draws a plan.
pub fn draw(rng: &mut Rng, odds: &Odds, scenario: &Scenario, chosen_by: ChosenBy) -> Plan {
    // A playbook without steps cannot be written, but the state machine must not fall over one.
    let steps = rng.pick([0, 1, 1, 2, 2, 3, STEPS_MAX]);
    let tier = if rng.chance(odds.needs_approval) {
        Tier::Three
    } else {
        rng.pick([Tier::One, Tier::Two])
    };
    Plan {
        playbook: "simulated".to_owned(),
        chosen_by,
        risk: Risk::Low,
        tier,
        params: BTreeMap::new(),
        steps: (0..steps).map(|i| step(rng, scenario, i)).collect(),
        verify: None,
    }
}

fn step(rng: &mut Rng, scenario: &Scenario, index: u32) -> PlannedStep {
    let action = action(rng, scenario);
    PlannedStep {
        id: format!("step_{index}"),
        when: None,
        timeout_ms: 30_000,
        retries: rng.below(RETRIES_MAX + 1),
        on_failure: rng.pick([OnFailure::Fail, OnFailure::Fail, OnFailure::Continue]),
        undo: match &action {
            Action::WaitReady(_) => UndoKind::NoneNeeded,
            _ => UndoKind::Reversible,
        },
        idempotent: !matches!(action, Action::RunCommand(_)),
        action,
    }
}

fn action(rng: &mut Rng, scenario: &Scenario) -> Action {
    let count = u32::try_from(scenario.services.len()).unwrap_or(1);
    let service = scenario.services[rng.below(count) as usize].name;
    match rng.below(5) {
        0 => Action::SetTunable(SetTunableArgs {
            name: rng.pick(["workers", "db_pool_size"]).to_owned(),
            to: None,
            factor: Some(json!(2)),
            at_least: None,
        }),
        1 => Action::SetConfig(SetConfigArgs {
            file: "app.toml".to_owned(),
            set: OWN_KEYS
                .iter()
                .map(|key| ((*key).to_owned(), json!(10 + rng.below(50))))
                .collect(),
        }),
        2 => Action::Stop(StopArgs {
            services: Services::One(service.to_owned()),
            graceful_ms: 5_000,
        }),
        3 => Action::RunCommand(RunCommandArgs {
            argv: vec!["grow".to_owned(), "shards".to_owned()],
            shell: None,
            cwd: None,
            env: BTreeMap::new(),
            undo_argv: vec!["shrink".to_owned()],
        }),
        _ => Action::WaitReady(ServicesArgs {
            services: Services::One("all".to_owned()),
        }),
    }
}
