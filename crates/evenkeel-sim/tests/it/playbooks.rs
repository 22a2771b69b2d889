//! Every playbook that ships, put through everything that can go wrong while it runs.

use evenkeel_core::playbook::parse;
use evenkeel_sim::library;
use evenkeel_sim::rehearsal::rehearse;

/// SAFETY 5, 6, 9, 20: each step failing, each step repeated, a death after each record; in the end the target is
/// restored, or the cycle is stuck, and a person was alerted.
#[test]
fn every_playbook_that_ships_survives_everything() {
    for playbook in library::playbooks() {
        let rehearsal = rehearse(playbook).expect("defaults are within their bounds");
        assert!(rehearsal.is_good(), "{rehearsal}");
        let ends = rehearsal.ends();
        for end in ["resolved", "human_alert", "stuck"] {
            assert!(
                ends.contains_key(end),
                "{}: never {end}: {ends:?}",
                playbook.name
            );
        }
        assert!(rehearsal.cases.len() > 40, "{}", rehearsal.cases.len());
    }
}

/// A playbook that says its command may be run twice, and whose undo does not exist, is found out.
#[test]
fn what_cannot_be_taken_back_is_named() {
    let text = "
version: 1
name: deletes
description: Deletes what is old.
risk: high
tier: tier_3
steps:
  - id: delete_old
    do: {sql: {statement: \"DELETE FROM t\"}}
";
    let playbook = parse("deletes.yaml", text).expect("it can be read");
    let rehearsal = rehearse(&playbook).expect("it has no parameters");
    assert_eq!(rehearsal.irreversible, ["delete_old"]);
    assert!(
        rehearsal
            .to_string()
            .contains("cannot be taken back: delete_old")
    );
}

/// Names of services and tunables that only the user's target has stand for any.
#[test]
fn a_playbook_for_another_target_can_be_rehearsed() {
    let text = "
version: 1
name: shard
description: More shards, then a restart of both that hold them.
risk: medium
tier: tier_2
params:
  n: {type: integer, default: 4, min: 1, max: 16, help: shards}
steps:
  - id: set
    do: {set_tunable: {name: shard_count, to: \"${params.n}\"}}
  - id: grow
    do: {run_command: {argv: [\"grow\", \"shards\"], undo_argv: [\"shrink\", \"shards\"]}}
  - id: again
    do: {restart: {services: [\"shard-a\", \"shard-b\"]}}
";
    let playbook = parse("shard.yaml", text).expect("it can be read");
    let rehearsal = rehearse(&playbook).expect("defaults are within their bounds");
    assert!(rehearsal.is_good(), "{rehearsal}");
    assert!(rehearsal.irreversible.is_empty());
}
