//! Checkpoints, keys and cosignatures as they are written: what the writer signs, what it refuses to sign, and what
//! the tables refuse.

use std::sync::Arc;

use evenkeel_ledger::tlog::{Checkpoint, Cosigner, KeyName, SignatureLine, Signer};
use evenkeel_ledger::{
    COSIGNATURES_MAX, DamageKind, Ledger, LedgerError, Options, Reader, VerifyOptions, own,
};
use rusqlite::ErrorCode;

use crate::support::{ORIGIN, Place, entry, signer, signing, tamper};

fn witness(seed: u8) -> Cosigner {
    Cosigner::from_seed(KeyName::new(format!("witness/{seed}")).unwrap(), [seed; 32])
}

fn sizes(place: &Place) -> Vec<i64> {
    let conn = place.sql();
    let mut select = conn
        .prepare("SELECT tree_size FROM ledger_checkpoint ORDER BY tree_size")
        .unwrap();
    select
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn each_commit_is_signed_and_told() {
    let place = Place::new();
    let ledger = place.open_signed(1);
    let first = ledger.checkpoint().unwrap();
    assert_eq!(first.tree_size, 1);
    let mut watch = ledger.checkpoints();
    watch.mark_unchanged();
    ledger
        .append_all_blocking((0..5).map(entry).collect())
        .unwrap();
    assert!(watch.has_changed().unwrap());
    let newest = watch.borrow_and_update().clone().unwrap();
    assert_eq!(newest.tree_size, 6);
    newest.note.verify(&[signer(1).verifier().clone()]).unwrap();
    let stated = Checkpoint::parse(newest.note.text()).unwrap();
    assert_eq!(
        (stated.origin.as_str(), stated.size, stated.root),
        (ORIGIN, 6, newest.root)
    );
    ledger.close().unwrap();
    assert_eq!(sizes(&place), [1, 6]);
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(report.merkle_root, newest.root);
    assert_eq!(report.origin.as_deref(), Some(ORIGIN));
    assert_eq!(report.log_key.as_ref(), Some(signer(1).verifier()));
    assert_eq!(
        (
            report.checkpoints,
            report.newest_checkpoint,
            report.unsigned
        ),
        (2, Some(6), 0)
    );
    assert_eq!(report.not_anchored, Some((1, 6)));
    // Opened again: the same key, nothing new to introduce.
    let ledger = place.open_signed(1);
    assert_eq!(ledger.head().sequence, 6);
    assert_eq!(ledger.checkpoint().unwrap(), newest);
}

/// Beyond 256 and 65,536 entries, opened in between: the tree grows on from its stored nodes.
#[test]
fn a_long_log_goes_on_from_its_nodes() {
    let place = Place::signed_in_groups(700, 100);
    for n in 0..3 {
        let ledger = place.open_signed(1);
        ledger
            .append_all_blocking((0..300).map(entry).collect())
            .unwrap();
        drop(ledger);
        let report = place.verify();
        assert!(report.is_sound(), "{n}: {:?}", report.damage);
        assert_eq!(report.newest_checkpoint, Some(701 + 300 * (n + 1)));
    }
}

/// SAFETY 21: swapped key
#[test]
fn another_key_is_refused_and_named() {
    let place = Place::signed(3);
    let before = place.verify();
    let error = Ledger::open_with(&place.path, &signing(2)).unwrap_err();
    let LedgerError::WrongKey { trusted, given, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        *trusted,
        format!("{ORIGIN}+{:08x}", signer(1).verifier().id())
    );
    assert_eq!(
        *given,
        format!("{ORIGIN}+{:08x}", signer(2).verifier().id())
    );
    assert!(error.to_string().contains("rotation"), "{error}");
    assert_eq!(place.verify(), before);
}

#[test]
fn rotation_is_an_entry_signed_by_both_keys() {
    let place = Place::signed(3);
    let ledger = place.open_signed(1);
    let entry_of_it = ledger.wait(ledger.rotate_key(signer(2))).unwrap();
    assert_eq!(
        (entry_of_it.action.as_str(), entry_of_it.sequence),
        (own::ROTATE_KEY, 5)
    );
    let newest = ledger.checkpoint().unwrap();
    newest.note.verify(&[signer(2).verifier().clone()]).unwrap();
    ledger.append_blocking(entry(9)).unwrap();
    // A name that is another log's, and the key that is there.
    let other = Arc::new(Signer::from_seed(KeyName::new("other").unwrap(), [3; 32]));
    for refused in [other, signer(2)] {
        let refused = ledger.wait(ledger.rotate_key(refused));
        assert!(
            matches!(refused, Err(LedgerError::Invalid { field: "key", .. })),
            "{refused:?}"
        );
    }
    ledger.close().unwrap();
    assert!(matches!(
        Ledger::open_with(&place.path, &signing(1)),
        Err(LedgerError::WrongKey { .. })
    ));
    drop(place.open_signed(2));
    let pinned = VerifyOptions {
        log_key: Some(signer(1).verifier().clone()),
        ..VerifyOptions::default()
    };
    let report = place.verify_with(&pinned);
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(report.log_key.as_ref(), Some(signer(2).verifier()));
    // The new key is not the one to pin.
    let pinned = VerifyOptions {
        log_key: Some(signer(2).verifier().clone()),
        ..VerifyOptions::default()
    };
    let report = place.verify_with(&pinned);
    assert!(matches!(
        report.damage[0].kind,
        DamageKind::KeySubstituted { .. }
    ));
    assert_eq!(report.first_bad_sequence(), Some(1));
}

#[test]
fn a_log_without_its_key_says_so_and_goes_on() {
    let place = Place::signed(3);
    for n in 0..2 {
        let ledger = place.open();
        ledger.append_blocking(entry(n)).unwrap();
    }
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!(
        (report.entries, report.newest_checkpoint, report.unsigned),
        (7, Some(4), 3)
    );
    assert!(!report.signing_stopped);
    let stop = Reader::open(&place.path).unwrap().get(5).unwrap().unwrap();
    assert_eq!(stop.action, own::STOP_SIGNING);
    // With the key again, all of it is signed with the next commit.
    let ledger = place.open_signed(1);
    ledger.append_blocking(entry(9)).unwrap();
    drop(ledger);
    let report = place.verify();
    assert!(report.is_sound());
    assert_eq!((report.newest_checkpoint, report.unsigned), (Some(8), 0));
}

#[test]
fn signing_stops_until_somebody_resumes_it() {
    let place = Place::signed(3);
    let ledger = place.open_signed(1);
    ledger
        .wait(ledger.stop_signing("behind the witness".to_owned()))
        .unwrap();
    ledger.append_blocking(entry(1)).unwrap();
    assert_eq!(ledger.checkpoint().unwrap().tree_size, 4);
    assert!(ledger.wait(ledger.rotate_key(signer(2))).is_err());
    drop(ledger);
    // A restart does not resume.
    let ledger = place.open_signed(1);
    ledger.append_blocking(entry(2)).unwrap();
    assert_eq!(ledger.checkpoint().unwrap().tree_size, 4);
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert!(report.signing_stopped);
    assert_eq!(report.unsigned, 3);
    assert!(ledger.wait(ledger.resume_signing(String::new())).is_err());
    ledger
        .wait(ledger.resume_signing("looked at".to_owned()))
        .unwrap();
    assert_eq!(ledger.checkpoint().unwrap().tree_size, 8);
    let report = place.verify();
    assert!(report.is_sound() && !report.signing_stopped && report.unsigned == 0);
}

/// Two processes with one ledger: one rotates the key under the other.
#[test]
fn a_key_rotated_by_another_process_ends_this_writer() {
    let place = Place::signed(3);
    let (one, other) = (place.open_signed(1), place.open_signed(1));
    other.append_blocking(entry(1)).unwrap();
    one.append_blocking(entry(2)).unwrap();
    other.wait(other.rotate_key(signer(2))).unwrap();
    assert!(matches!(
        one.append_blocking(entry(3)),
        Err(LedgerError::WrongKey { .. })
    ));
    other.append_blocking(entry(4)).unwrap();
    drop((one, other));
    assert!(place.verify().is_sound());
}

#[test]
fn cosignatures_are_kept_once_and_counted() {
    let place = Place::signed(3);
    let ledger = place.open_signed(1);
    let checkpoint = ledger.checkpoint().unwrap();
    let line = witness(7).cosign(checkpoint.note.text(), 1_770_000_000);
    let add = |lines: Vec<SignatureLine>| ledger.wait(ledger.add_cosignatures(4, lines));
    assert_eq!(add(vec![line.clone(), line.clone()]).unwrap(), 1);
    assert_eq!(add(vec![line]).unwrap(), 0);
    // Of no checkpoint, and more than are kept.
    let stray = ledger.wait(ledger.add_cosignatures(3, vec![witness(8).cosign("x\n", 1)]));
    assert!(matches!(
        stray,
        Err(LedgerError::Invalid {
            field: "tree_size",
            ..
        })
    ));
    let many = (0..COSIGNATURES_MAX as u64).map(|n| witness(9).cosign(checkpoint.note.text(), n));
    assert!(matches!(
        add(many.collect()),
        Err(LedgerError::Invalid {
            field: "cosignatures",
            ..
        })
    ));
    ledger.append_blocking(entry(1)).unwrap();
    ledger.close().unwrap();

    let options = VerifyOptions {
        witnesses: vec![witness(7).verifier().clone()],
        ..VerifyOptions::default()
    };
    let report = place.verify_with(&options);
    assert!(report.is_sound(), "{:?}", report.damage);
    let [anchor] = &report.anchored[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (anchor.by.as_str(), anchor.tree_size, anchor.time),
        ("witness/7", 4, Some(1_770_000_000))
    );
    assert_eq!(report.not_anchored, Some((5, 5)));
    // Whom one does not know one does not believe.
    assert!(place.verify().anchored.is_empty());
    // SAFETY 21: a cosignature that was never given
    let forged = witness(7).cosign(&checkpoint.note.text().replace('4', "5"), 1_770_000_001);
    tamper(&place.path, |conn| {
        let sql = "UPDATE ledger_cosignature SET line = ?1";
        conn.execute(sql, [forged.to_string()]).unwrap();
    });
    let report = place.verify_with(&options);
    assert!(
        matches!(
            report.damage[0].kind,
            DamageKind::CosignatureInvalid { tree_size: 4, .. }
        ),
        "{report:?}"
    );
    assert!(report.anchored.is_empty());
}

/// SAFETY 21: what an accident cannot do to the tables beside the log
#[test]
fn no_statement_changes_what_is_signed() {
    let place = Place::signed_in_groups(300, 100);
    let ledger = place.open_signed(1);
    let text = ledger.checkpoint().unwrap().note.text().to_owned();
    ledger
        .wait(ledger.add_cosignatures(301, vec![witness(7).cosign(&text, 1)]))
        .unwrap();
    drop(ledger);
    let before = place.verify();
    let conn = place.sql();
    let mut statements = Vec::new();
    for table in ["ledger_checkpoint", "ledger_cosignature", "ledger_node"] {
        statements.push(format!("DELETE FROM {table}"));
    }
    for set in [
        "ledger_checkpoint SET note = 'x'",
        "ledger_checkpoint SET tree_size = tree_size + 1000",
        "ledger_cosignature SET line = 'x'",
        "ledger_node SET hash = zeroblob(32)",
    ] {
        statements.push(format!("UPDATE {set}"));
        statements.push(format!("UPDATE OR REPLACE {set}"));
    }
    for verb in ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE"] {
        for row in [
            "ledger_checkpoint VALUES (301, 'x')",
            "ledger_checkpoint VALUES (302, 'x')",
            "ledger_checkpoint VALUES (2, 'x')",
            "ledger_checkpoint VALUES (NULL, 'x')",
            "ledger_cosignature SELECT * FROM ledger_cosignature",
            "ledger_cosignature VALUES (302, 'x', 'y', '2026-01-31T12:00:00.000Z')",
            "ledger_node VALUES (1, 0, zeroblob(32))",
            "ledger_node VALUES (1, 1, zeroblob(32))",
            "ledger_node VALUES (1, 5, zeroblob(32))",
        ] {
            statements.push(format!("{verb} INTO {row}"));
        }
    }
    for recursive in ["OFF", "ON"] {
        conn.execute_batch(&format!("PRAGMA recursive_triggers = {recursive}"))
            .unwrap();
        for statement in &statements {
            let error = conn.execute(statement, []).expect_err(statement);
            assert_eq!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation),
                "{statement}: {error}"
            );
        }
    }
    drop(conn);
    assert_eq!(place.verify(), before);
}

#[test]
fn own_actions_are_not_for_callers() {
    let place = Place::new();
    let ledger = Ledger::open_with(&place.path, &Options::default()).unwrap();
    for action in own::ACTIONS {
        let mut entry = entry(1);
        action.clone_into(&mut entry.action);
        assert!(matches!(
            ledger.append_blocking(entry),
            Err(LedgerError::Invalid {
                field: "action",
                ..
            })
        ));
    }
    assert_eq!(ledger.head().sequence, 0);
}
