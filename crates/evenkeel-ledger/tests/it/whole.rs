//! The verifier against somebody who has the file, and in some tests the key as well. SAFETY 21: what the file alone
//! shows, and what only a checkpoint from elsewhere does.

use evenkeel_ledger::tlog::{Checkpoint, KeyName, SignedNote, Signer};
use evenkeel_ledger::{
    DamageKind, Hash, Ledger, LedgerError, Report, VERIFY_THREADS_MAX, VerifyOptions, verify_with,
};
use rusqlite::Connection;

use crate::support::{ORIGIN, Place, entry, signer, signing, tamper};

/// Checkpoints lie at 1, 8, 15, 22, ... and 31.
const ENTRIES: u64 = 30;

fn newest(place: &Place) -> SignedNote {
    let sql = "SELECT note FROM ledger_checkpoint ORDER BY tree_size DESC LIMIT 1";
    checkpoint(place, sql)
}

fn at(place: &Place, size: u64) -> SignedNote {
    checkpoint(
        place,
        &format!("SELECT note FROM ledger_checkpoint WHERE tree_size = {size}"),
    )
}

fn checkpoint(place: &Place, sql: &str) -> SignedNote {
    let note: String = place.sql().query_row(sql, [], |row| row.get(0)).unwrap();
    note.parse().unwrap()
}

fn against(place: &Place, notes: Vec<SignedNote>) -> Report {
    place.verify_with(&VerifyOptions {
        against: notes,
        ..VerifyOptions::default()
    })
}

fn tampered(statements: &str) -> (Place, Report) {
    let place = Place::signed(ENTRIES);
    tamper(&place.path, |conn| conn.execute_batch(statements).unwrap());
    let report = place.verify();
    (place, report)
}

#[track_caller]
fn expect(statements: &str, sequence: u64, kind: &DamageKind) {
    let (_place, report) = tampered(statements);
    assert_eq!(
        report.first_bad_sequence(),
        Some(sequence),
        "{statements}: {:?}",
        report.damage
    );
    assert!(
        report.damage.iter().any(|damage| damage.kind == *kind),
        "{statements}: {:?}",
        report.damage
    );
}

/// A log by the same key with the same number of entries, other from entry `from` on.
fn rewritten(from: u64) -> Place {
    let place = Place::new();
    let ledger = place.open_signed(1);
    for n in 1..=ENTRIES {
        let mut entry = entry(n);
        if n + 1 >= from {
            "innocent".clone_into(&mut entry.actor);
        }
        ledger.append_blocking(entry).unwrap();
    }
    place
}

/// SAFETY 21: the checkpoints themselves edited, exchanged and deleted
#[test]
fn a_checkpoint_that_is_not_the_logs_is_found() {
    let (_place, report) = tampered(
        "UPDATE ledger_checkpoint SET note = replace(note, '15', '16') WHERE tree_size = 15",
    );
    assert_eq!(report.first_bad_sequence(), Some(15));
    assert!(
        matches!(report.damage[..], [ref one] if matches!(one.kind, DamageKind::CheckpointInvalid { tree_size: 15, .. }))
    );
    let (_place, report) = tampered(
        "UPDATE ledger_checkpoint SET note = (SELECT note FROM ledger_checkpoint WHERE tree_size = 8) WHERE tree_size = 15",
    );
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::CheckpointInvalid { tree_size: 15, .. }
    ));
    expect(
        "DELETE FROM ledger_checkpoint WHERE tree_size = 1",
        1,
        &DamageKind::CheckpointMissing,
    );
    expect(
        "DELETE FROM ledger_checkpoint WHERE tree_size > 15",
        16,
        &DamageKind::UnsignedTail,
    );
    expect(
        "INSERT INTO ledger_checkpoint SELECT 50, note FROM ledger_checkpoint WHERE tree_size = 31",
        32,
        &DamageKind::TailCut {
            expected: 50,
            found: 31,
            by: "a checkpoint in the file".to_owned(),
        },
    );
    // Signed by the key, with another root, with another log's name, by another key, with another algorithm's key.
    let other = Signer::from_seed(KeyName::new(ORIGIN).unwrap(), [9; 32]);
    for (note, found) in [
        (
            Checkpoint::new(ORIGIN, 15, Hash::ZERO)
                .sign(&signer(1))
                .unwrap(),
            9,
        ),
        (
            Checkpoint::new("other", 15, Hash::ZERO)
                .sign(&signer(1))
                .unwrap(),
            15,
        ),
        (
            Checkpoint::new(ORIGIN, 15, Hash::ZERO)
                .sign(&other)
                .unwrap(),
            15,
        ),
    ] {
        let place = Place::signed(ENTRIES);
        tamper(&place.path, |conn| {
            conn.execute(
                "UPDATE ledger_checkpoint SET note = ?1 WHERE tree_size = 15",
                [note.to_string()],
            )
            .unwrap();
        });
        let report = place.verify();
        assert_eq!(report.damage_count, 1, "{:?}", report.damage);
        assert_eq!(
            report.first_bad_sequence(),
            Some(found),
            "{:?}",
            report.damage
        );
    }
}

/// SAFETY 21: cut tail. With its checkpoints left, the file tells; with them gone, one from elsewhere does.
#[test]
fn a_cut_tail_is_found() {
    expect(
        "DELETE FROM immutable_log WHERE sequence > 20",
        21,
        &DamageKind::TailCut {
            expected: 31,
            found: 20,
            by: "a checkpoint in the file".to_owned(),
        },
    );
    let witness = Place::signed(ENTRIES);
    let note = newest(&witness);
    let (place, report) = tampered(
        "DELETE FROM immutable_log WHERE sequence > 22; DELETE FROM ledger_checkpoint WHERE tree_size > 22",
    );
    assert!(
        report.is_sound(),
        "nothing in the file can tell: {:?}",
        report.damage
    );
    let report = against(&place, vec![note.clone()]);
    assert_eq!(report.first_bad_sequence(), Some(23));
    assert!(
        matches!(report.damage[..], [ref one] if matches!(one.kind, DamageKind::TailCut { expected: 31, found: 22, .. }))
    );
    // The file as it should be.
    let report = against(&witness, vec![note]);
    assert!(report.is_sound());
    assert_eq!(report.not_anchored, None);
    // Opening refuses what the file tells.
    let (place, _) = tampered("DELETE FROM immutable_log WHERE sequence > 20");
    for options in [signing(1), evenkeel_ledger::Options::default()] {
        assert!(matches!(
            Ledger::open_with(&place.path, &options),
            Err(LedgerError::DoesNotVerify {
                sequence: Some(21),
                ..
            })
        ));
    }
}

/// SAFETY 21: whole rewrite with the stolen key, and an old copy put back
#[test]
fn a_rewrite_is_found_by_checkpoints_from_elsewhere_and_located_between_them() {
    let honest = Place::signed(ENTRIES);
    let forged = rewritten(12);
    assert!(forged.verify().is_sound(), "nothing in the file can tell");
    let report = against(&forged, vec![newest(&honest)]);
    assert_eq!(report.first_bad_sequence(), Some(1), "somewhere up to 31");
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::RootDiffers {
            tree_size: 31,
            first: 1,
            ..
        }
    ));
    let report = against(
        &forged,
        vec![newest(&honest), at(&honest, 8), at(&honest, 15)],
    );
    assert_eq!(report.first_bad_sequence(), Some(9), "{:?}", report.damage);
    assert_eq!(report.not_anchored, Some((9, 31)));
    assert_eq!(report.damage_count, 2);

    let old = Place::signed(14);
    let report = against(&old, vec![at(&honest, 22)]);
    assert_eq!(report.first_bad_sequence(), Some(16));
    // A split view: two honest logs of one key that are not one log.
    let fork = rewritten(31);
    let report = against(&fork, vec![newest(&honest), at(&honest, 29)]);
    assert_eq!(report.first_bad_sequence(), Some(30), "{:?}", report.damage);
}

/// SAFETY 21: swapped key, for the whole log
#[test]
fn a_log_made_anew_with_another_key_is_found() {
    let honest = Place::signed(ENTRIES);
    let place = Place::new();
    let ledger = place.open_signed(2);
    for n in 1..=ENTRIES {
        ledger.append_blocking(entry(n)).unwrap();
    }
    drop(ledger);
    assert!(place.verify().is_sound());
    let report = against(&place, vec![newest(&honest)]);
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::KeySubstituted { .. }
    ));
    assert_eq!(report.first_bad_sequence(), Some(1));
    let unsigned = Place::with_entries(31);
    let report = against(&unsigned, vec![newest(&honest)]);
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::KeySubstituted { .. }
    ));
    // Another log's checkpoint is a mistake or a trick, and told as that.
    let other = Signer::from_seed(KeyName::new("other").unwrap(), [3; 32]);
    let note = Checkpoint::new("other", 8, Hash::ZERO)
        .sign(&other)
        .unwrap();
    let report = against(&honest, vec![note]);
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::OriginDiffers { .. }
    ));
}

/// SAFETY 21: nodes of the tree, from which proofs are made
#[test]
fn a_changed_node_is_found() {
    let place = Place::signed_in_groups(1300, 300);
    for (statement, sequence) in [
        (
            "UPDATE ledger_node SET hash = zeroblob(32) WHERE position = 2",
            513,
        ),
        ("DELETE FROM ledger_node WHERE position = 4", 1025),
        ("INSERT INTO ledger_node VALUES (1, 5, zeroblob(32))", 1302),
        ("INSERT INTO ledger_node VALUES (2, 0, zeroblob(32))", 1302),
    ] {
        let copy = Place::new();
        std::fs::copy(&place.path, &copy.path).unwrap();
        tamper(&copy.path, |conn| conn.execute_batch(statement).unwrap());
        let report = copy.verify();
        assert_eq!(report.damage_count, 1, "{statement}: {:?}", report.damage);
        assert_eq!(report.first_bad_sequence(), Some(sequence), "{statement}");
    }
}

/// SAFETY 21: the log's own entries hidden from the index by which the ledger finds them
#[test]
fn an_own_entry_hidden_from_its_index_is_found() {
    let place = Place::signed(3);
    let conn = place.sql();
    let sql: String = conn
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = 'immutable_log_by_action'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    conn.execute_batch(
        "DROP INDEX immutable_log_by_action;
         CREATE INDEX immutable_log_by_action ON immutable_log (action) WHERE sequence <> 1;",
    )
    .unwrap();
    conn.execute_batch("PRAGMA writable_schema = ON").unwrap();
    conn.execute(
        "UPDATE sqlite_schema SET sql = ?1 WHERE name = 'immutable_log_by_action'",
        [sql],
    )
    .unwrap();
    drop(conn);
    let without = VerifyOptions {
        integrity_check: false,
        ..VerifyOptions::default()
    };
    let report = place.verify_with(&without);
    assert!(
        report
            .damage
            .iter()
            .any(|damage| matches!(damage.kind, DamageKind::OwnEntry { .. })),
        "{report:?}"
    );
}

/// The report does not depend on who read what.
#[test]
fn any_number_of_threads_finds_the_same() {
    let place = Place::signed_in_groups(5000, 470);
    let statements = [
        "SELECT 1",
        "UPDATE immutable_log SET actor = 'x' WHERE sequence IN (1024, 1025, 3000)",
        "UPDATE immutable_log SET entry_hash = previous_hash WHERE sequence IN (1024, 2048)",
        "DELETE FROM immutable_log WHERE sequence BETWEEN 1000 AND 3100",
        "DELETE FROM immutable_log WHERE sequence <= 1024",
        "PRAGMA ignore_check_constraints = ON;
         UPDATE immutable_log SET sequence = -sequence WHERE sequence BETWEEN 100 AND 1100",
        "UPDATE immutable_log SET sequence = 9223372036854775807 WHERE sequence = 5001",
        "UPDATE ledger_node SET hash = zeroblob(32) WHERE position IN (1, 9)",
        "UPDATE ledger_checkpoint SET note = 'x' WHERE tree_size BETWEEN 900 AND 2000",
    ];
    for statement in statements {
        let copy = Place::new();
        std::fs::copy(&place.path, &copy.path).unwrap();
        tamper(&copy.path, |conn| conn.execute_batch(statement).unwrap());
        let with = |threads| {
            copy.verify_with(&VerifyOptions {
                threads,
                ..VerifyOptions::default()
            })
        };
        let one = with(1);
        assert_eq!(
            one.is_sound(),
            statement == "SELECT 1",
            "{statement}: {:?}",
            one.damage
        );
        for threads in [2, 3, 7] {
            assert_eq!(with(threads), one, "{statement}, {threads} threads");
        }
    }
    for threads in [0, VERIFY_THREADS_MAX + 1] {
        let options = VerifyOptions {
            threads,
            ..VerifyOptions::default()
        };
        assert!(matches!(
            verify_with(&place.path, &options, |_, _| {}),
            Err(LedgerError::Invalid { .. })
        ));
    }
}

#[test]
fn a_payload_that_is_no_json_is_named() {
    let place = Place::with_entries(5);
    let conn = Connection::open(&place.path).unwrap();
    let (sequence, previous): (i64, String) = conn
        .query_row(
            "SELECT sequence, entry_hash FROM immutable_log ORDER BY sequence DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    let leaf = evenkeel_ledger::leaf::Leaf {
        previous_hash: Hash::from_hex(previous.as_bytes()).unwrap(),
        sequence: 6,
        timestamp: b"2026-01-31T12:00:00.000Z",
        actor: b"a",
        action: b"b",
        resource: b"",
        subsystem: b"",
        result: b"",
        payload_hash: Hash::of(b"{"),
    };
    // The index on the payload would refuse it: the attacker takes it away and puts an empty one of the same text.
    tamper(&place.path, |conn| {
        let sql: String = conn
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = 'immutable_log_by_workflow'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        conn.execute_batch(
            "DROP INDEX immutable_log_by_workflow; PRAGMA ignore_check_constraints = ON;
             CREATE INDEX immutable_log_by_workflow ON immutable_log (sequence) WHERE sequence < 0;",
        )
        .unwrap();
        conn.execute(
            "INSERT INTO immutable_log VALUES (?1, '2026-01-31T12:00:00.000Z', 'a', 'b', '', '', '{', '', ?2, ?3)",
            (sequence + 1, leaf.hash().to_string(), previous),
        )
        .unwrap();
        conn.execute_batch("PRAGMA writable_schema = ON").unwrap();
        conn.execute(
            "UPDATE sqlite_schema SET sql = ?1 WHERE name = 'immutable_log_by_workflow'",
            [sql],
        )
        .unwrap();
    });
    let report = place.verify();
    assert_eq!(report.first_bad_sequence(), Some(6), "{:?}", report.damage);
    assert_eq!(report.damage[0].kind, DamageKind::InvalidJson);
    assert!(matches!(
        Ledger::open(&place.path),
        Err(LedgerError::DoesNotVerify { .. })
    ));
}

/// Nothing is damaged while it grows, is cosigned and loses payloads.
#[test]
fn a_live_signed_ledger_verifies_at_any_moment() {
    let place = Place::signed(10);
    let ledger = place.open_signed(1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..300 {
                let mut batch = vec![entry(n); 19];
                batch[0].payload = format!("\"{}\"", "x".repeat(1000));
                ledger.append_all_blocking(batch).unwrap();
                if n % 10 == 9 {
                    let all = evenkeel_ledger::DropSelection::default();
                    ledger
                        .wait(ledger.drop_payloads(all, "old".to_owned()))
                        .unwrap();
                }
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        for threads in [1, 2, 3, 1, 2, 3] {
            let report = place.verify_with(&VerifyOptions {
                threads,
                ..VerifyOptions::default()
            });
            assert!(report.is_sound(), "{:?}", report.damage);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// SAFETY 21: the end rewritten by somebody who has the file and not the key
#[test]
fn a_false_stop_of_signing_shows_by_a_checkpoint_from_elsewhere_only() {
    let place = Place::signed(ENTRIES);
    let elsewhere = newest(&place);
    tamper(&place.path, |conn| {
        conn.execute_batch(
            "DELETE FROM immutable_log WHERE sequence > 15;
             DELETE FROM ledger_checkpoint WHERE tree_size > 15",
        )
        .unwrap();
    });
    // The ledger opened without its key says so itself; the attacker can do no better.
    let ledger = place.open();
    ledger
        .append_all_blocking((100..116).map(entry).collect())
        .unwrap();
    ledger.close().unwrap();
    let alone = place.verify();
    assert!(alone.is_sound(), "{:?}", alone.damage);
    assert_eq!((alone.entries, alone.unsigned), (32, 17));
    let report = against(&place, vec![elsewhere.clone()]);
    assert_eq!(report.first_bad_sequence(), Some(1), "{:?}", report.damage);
    let report = against(&place, vec![at(&place, 15), elsewhere]);
    assert_eq!(report.first_bad_sequence(), Some(16), "{:?}", report.damage);
    // With its key again it signs the false entries too.
    let ledger = place.open_signed(1);
    ledger.append_blocking(entry(200)).unwrap();
    ledger.close().unwrap();
    let signed = place.verify();
    assert!(signed.is_sound() && signed.unsigned == 0, "{signed:?}");
}
