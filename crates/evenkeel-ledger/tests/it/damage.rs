//! The verifier and the check at opening against an attacker with the file in hand. SAFETY 21.

use evenkeel_ledger::{
    Damage, DamageKind, Ledger, LedgerError, Report, VerifyOptions, leaf::Leaf, verify_with,
};
use evenkeel_ledger::{Hash, merkle::Frontier};
use proptest::prelude::*;

use crate::support::{Place, drop_triggers, triggers};

const ENTRIES: u64 = 20;

/// Runs statements as an attacker who drops the triggers and puts them back.
fn tampered(statements: &str) -> (Place, Report) {
    let place = Place::with_entries(ENTRIES);
    let guards = triggers(&place.path);
    let conn = place.sql();
    drop_triggers(&conn);
    conn.execute_batch(statements).unwrap();
    for guard in guards {
        conn.execute_batch(&guard).unwrap();
    }
    drop(conn);
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
    assert_eq!(&report.damage[0].kind, kind, "{statements}");
    assert!(!report.is_sound());
}

/// SAFETY 21: edit, one class for each column
#[test]
fn an_edited_column_is_found_at_its_entry() {
    for column in [
        "timestamp",
        "actor",
        "action",
        "resource",
        "subsystem",
        "result",
    ] {
        expect(
            &format!(
                "UPDATE immutable_log SET {column} = '2026-01-31T12:00:07.001Z' WHERE sequence = 7"
            ),
            7,
            &DamageKind::ContentEdited,
        );
    }
    // Same JSON, other bytes.
    expect(
        "UPDATE immutable_log SET payload = replace(payload, ',  ', ', ') WHERE sequence = 7",
        7,
        &DamageKind::ContentEdited,
    );
    let other = "'aa' || substr(entry_hash, 3)";
    expect(
        &format!("UPDATE immutable_log SET entry_hash = {other} WHERE sequence = 7"),
        7,
        &DamageKind::HashEdited,
    );
    let other = "'aa' || substr(previous_hash, 3)";
    expect(
        &format!("UPDATE immutable_log SET previous_hash = {other} WHERE sequence = 7"),
        7,
        &DamageKind::BrokenLink,
    );
}

/// SAFETY 21: delete, insert, reorder
#[test]
fn moved_missing_and_additional_rows_are_found() {
    expect(
        "DELETE FROM immutable_log WHERE sequence = 1",
        1,
        &DamageKind::Gap { found: 2 },
    );
    expect(
        "DELETE FROM immutable_log WHERE sequence BETWEEN 5 AND 8",
        5,
        &DamageKind::Gap { found: 9 },
    );
    expect(
        "PRAGMA ignore_check_constraints = ON;
         UPDATE immutable_log SET sequence = 0 WHERE sequence = 4",
        1,
        &DamageKind::StrayRow { found: 0 },
    );
    // Deleted, and the hole closed by renumbering.
    expect(
        "DELETE FROM immutable_log WHERE sequence = 5;
         UPDATE immutable_log SET sequence = -sequence + 1 WHERE sequence > 5;
         UPDATE immutable_log SET sequence = -sequence WHERE sequence < 0"
            .replacen("DELETE", "PRAGMA ignore_check_constraints = ON; DELETE", 1)
            .as_str(),
        5,
        &DamageKind::BrokenLink,
    );
    // Two entries change places.
    expect(
        "UPDATE immutable_log SET sequence = 1000 WHERE sequence = 5;
         UPDATE immutable_log SET sequence = 5 WHERE sequence = 6;
         UPDATE immutable_log SET sequence = 6 WHERE sequence = 1000",
        5,
        &DamageKind::BrokenLink,
    );
    // A row that pretends to be the next one.
    let row = "SELECT sequence + 1, timestamp, actor, action, resource, subsystem, payload, result, entry_hash,
                      entry_hash FROM immutable_log WHERE sequence = 20";
    expect(
        &format!("INSERT INTO immutable_log {row}"),
        21,
        &DamageKind::ContentEdited,
    );
}

/// SAFETY 21: an entry that was edited and hashed again contradicts the one after it
#[test]
fn a_row_that_was_hashed_again_breaks_the_next_link() {
    let place = Place::with_entries(ENTRIES);
    rehash_from(&place, 7, 7);
    let report = place.verify();
    assert_eq!(report.first_bad_sequence(), Some(8));
    assert!(
        report
            .damage
            .iter()
            .any(|damage| damage.kind == DamageKind::BrokenLink)
    );
}

/// What a chain alone cannot see, so that nobody believes it can: the root differs, and only somebody who kept
/// the old one knows.
#[test]
fn a_history_rewritten_to_its_end_changes_the_root_and_nothing_else() {
    let place = Place::with_entries(ENTRIES);
    let honest = place.verify();
    let guards = triggers(&place.path);
    rehash_from(&place, 7, ENTRIES);
    for guard in guards {
        place.sql().execute_batch(&guard).unwrap();
    }
    let rewritten = place.verify();
    assert!(rewritten.is_sound(), "{:?}", rewritten.damage);
    assert_ne!(rewritten.merkle_root, honest.merkle_root);
    assert_ne!(rewritten.head, honest.head);

    let (_place, cut) = tampered("DELETE FROM immutable_log WHERE sequence > 15");
    assert!(cut.is_sound());
    assert_ne!(cut.merkle_root, honest.merkle_root);
}

/// Edits one entry and computes hashes anew up to another, triggers dropped.
fn rehash_from(place: &Place, from: u64, to: u64) {
    let mut entries = Ledger::open(&place.path)
        .unwrap()
        .reader()
        .unwrap()
        .tail(100)
        .unwrap();
    let conn = place.sql();
    drop_triggers(&conn);
    let first = usize::try_from(from).unwrap() - 1;
    "innocent".clone_into(&mut entries[first].actor);
    let mut previous = entries[first].previous_hash;
    for entry in &entries[first..usize::try_from(to).unwrap()] {
        let leaf = Leaf {
            previous_hash: previous,
            sequence: entry.sequence,
            timestamp: entry.timestamp.as_bytes(),
            actor: entry.actor.as_bytes(),
            action: entry.action.as_bytes(),
            resource: entry.resource.as_bytes(),
            subsystem: entry.subsystem.as_bytes(),
            result: entry.result.as_bytes(),
            payload_hash: Hash::of(entry.payload.as_bytes()),
        };
        conn.execute(
            "UPDATE immutable_log SET actor = ?1, entry_hash = ?2, previous_hash = ?3 WHERE sequence = ?4",
            (&entry.actor, leaf.hash().to_string(), previous.to_string(), i64::try_from(entry.sequence).unwrap()),
        )
        .unwrap();
        previous = leaf.hash();
    }
}

/// SAFETY 21: dropped triggers, changed schema. Appending is refused as well.
#[test]
fn a_changed_schema_is_found_and_not_appended_to() {
    for (change, object) in [
        (
            "DROP TRIGGER immutable_log_no_delete",
            "immutable_log_no_delete",
        ),
        (
            "DROP INDEX immutable_log_by_action",
            "immutable_log_by_action",
        ),
        (
            "DROP VIEW playbook_runs; CREATE VIEW playbook_runs AS SELECT 1 AS sequence",
            "playbook_runs",
        ),
        (
            "CREATE TRIGGER sly AFTER INSERT ON immutable_log BEGIN SELECT 1; END",
            "sly",
        ),
        (
            "ALTER TABLE immutable_log ADD COLUMN extra TEXT",
            "immutable_log",
        ),
        (
            "ALTER TABLE immutable_log RENAME TO elsewhere",
            "immutable_log",
        ),
        ("DROP TABLE immutable_log", "immutable_log"),
    ] {
        let place = Place::with_entries(3);
        place.sql().execute_batch(change).unwrap();
        let report = place.verify();
        assert!(
            report
                .damage
                .iter()
                .any(|damage| damage.to_string().contains(object)),
            "{change}: {report:?}"
        );
        assert_eq!(report.first_bad_sequence(), None, "{change}");
        match Ledger::open(&place.path) {
            Err(LedgerError::DoesNotVerify { sequence: None, .. }) => {}
            other => panic!("{change}: {other:?}"),
        }
    }
    let place = Place::with_entries(3);
    place
        .sql()
        .execute_batch("DROP TRIGGER immutable_log_no_delete")
        .unwrap();
    let name = "immutable_log_no_delete".to_owned();
    assert_eq!(
        place.verify().damage[0].kind,
        DamageKind::MissingTrigger { name }
    );
}

/// SAFETY 21: hidden from queries by an index that lacks it, though the chain is whole
#[test]
fn an_entry_hidden_from_an_index_is_found() {
    let place = Place::with_entries(5);
    let conn = place.sql();
    let index = "SELECT sql FROM sqlite_schema WHERE name = 'immutable_log_by_action'";
    let sql: String = conn.query_row(index, [], |row| row.get(0)).unwrap();
    // The index is built over other content, then told to be the one it was.
    conn.execute_batch(
        "DROP INDEX immutable_log_by_action;
         CREATE INDEX immutable_log_by_action ON immutable_log (action) WHERE sequence <> 3;",
    )
    .unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
        .unwrap();
    conn.execute_batch("PRAGMA writable_schema = ON").unwrap();
    conn.execute(
        "UPDATE sqlite_schema SET sql = ?1 WHERE name = 'immutable_log_by_action'",
        [sql],
    )
    .unwrap();
    drop(conn);
    let hidden = place.sql().query_row(
        "SELECT count(*) FROM immutable_log WHERE action = 'check'",
        [],
        |row| row.get::<_, i64>(0),
    );
    assert_eq!(hidden.unwrap(), 4, "the attack works on queries");
    let report = place.verify();
    assert!(
        matches!(report.damage[..], [ref damage] if matches!(damage.kind, DamageKind::Inconsistent { .. }))
    );
    let without = VerifyOptions {
        integrity_check: false,
        ..VerifyOptions::default()
    };
    assert!(
        verify_with(&place.path, &without, |_, _| {})
            .unwrap()
            .is_sound()
    );
}

#[test]
fn opening_refuses_a_tail_that_does_not_verify() {
    for (statements, at) in [
        (
            "UPDATE immutable_log SET result = 'x' WHERE sequence = 20",
            20,
        ),
        (
            "UPDATE immutable_log SET result = 'x' WHERE sequence = 7",
            7,
        ),
        ("DELETE FROM immutable_log WHERE sequence = 19", 19),
        ("DELETE FROM immutable_log WHERE sequence = 1", 1),
    ] {
        let (place, _) = tampered(statements);
        match Ledger::open(&place.path) {
            Err(LedgerError::DoesNotVerify { sequence, .. }) => assert_eq!(sequence, Some(at)),
            other => panic!("{other:?}"),
        }
    }
}

/// An entry put in by hand under a running writer, a tail cut under it, a trigger dropped under it.
#[test]
fn a_running_writer_stops_when_the_log_changes_under_it() {
    for tamper in [
        "DELETE FROM immutable_log WHERE sequence = 3",
        "UPDATE immutable_log SET entry_hash = previous_hash WHERE sequence = 3",
        "INSERT INTO immutable_log SELECT 4, timestamp, actor, action, resource, subsystem, payload, result,
           previous_hash, entry_hash FROM immutable_log WHERE sequence = 3",
        "SELECT 1",
    ] {
        let place = Place::with_entries(2);
        let ledger = place.open();
        ledger.append_blocking(crate::support::entry(3)).unwrap();
        let guards = triggers(&place.path);
        let conn = place.sql();
        drop_triggers(&conn);
        let _rows_or_none = conn.execute(tamper, []);
        if tamper != "SELECT 1" {
            for guard in guards {
                conn.execute_batch(&guard).unwrap();
            }
        }
        let refused = ledger.append_blocking(crate::support::entry(4));
        assert!(matches!(refused, Err(LedgerError::DoesNotVerify { .. })), "{tamper}: {refused:?}");
        let refused = ledger.append_blocking(crate::support::entry(5));
        assert!(matches!(refused, Err(LedgerError::Poisoned { .. })), "{tamper}: {refused:?}");
    }
}

#[test]
fn a_damaged_file_is_reported_as_unreadable() {
    let place = Place::with_entries(ENTRIES);
    place
        .sql()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let bytes = std::fs::read(&place.path).unwrap();
    let pages = bytes.len() / 4096;
    let mut noticed = 0;
    for page in 1..pages {
        let mut torn = bytes.clone();
        torn[page * 4096..(page + 1) * 4096].fill(0x5a);
        std::fs::write(&place.path, &torn).unwrap();
        let report = place.verify();
        assert!(!report.is_sound(), "page {page}");
        noticed += 1;
    }
    assert!(noticed > 3, "{pages} pages");
}

/// SAFETY 21: the marks that say "this is a ledger" taken off, the first page overwritten
#[test]
fn a_ledger_made_unrecognisable_is_damaged_and_not_overlooked() {
    for pragma in [
        "application_id = 0",
        "application_id = 7",
        "user_version = 0",
        "user_version = -1",
    ] {
        let place = Place::with_entries(3);
        place
            .sql()
            .execute_batch(&format!("PRAGMA {pragma}"))
            .unwrap();
        let report = place.verify();
        assert!(
            matches!(
                report.damage[..],
                [Damage {
                    kind: DamageKind::ChangedSchema { .. },
                    ..
                }]
            ),
            "{pragma}"
        );
        assert_eq!(report.entries, 3);
        assert!(matches!(
            Ledger::open(&place.path),
            Err(LedgerError::NotALedger { .. })
        ));
    }
    let place = Place::with_entries(3);
    let mut bytes = std::fs::read(&place.path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&place.path, bytes).unwrap();
    let report = place.verify();
    assert!(matches!(
        report.damage[..],
        [Damage {
            kind: DamageKind::Unreadable { .. },
            ..
        }]
    ));
}

/// No false alarm while entries are being written.
#[test]
fn a_live_ledger_verifies_at_any_moment() {
    let place = Place::with_entries(10);
    let ledger = place.open();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..500 {
                let batch = vec![crate::support::entry(n); 20];
                ledger.append_all_blocking(batch).unwrap();
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut last = 0;
        for _ in 0..10 {
            let report = place.verify();
            assert!(report.is_sound(), "{:?}", report.damage);
            assert!(report.entries >= last);
            last = report.entries;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_report_describes_an_honest_log() {
    let place = Place::with_entries(1500);
    let mut progress = Vec::new();
    let report =
        evenkeel_ledger::verify(&place.path, |done, total| progress.push((done, total))).unwrap();
    assert!(report.is_sound());
    assert_eq!(
        (report.entries, report.first_sequence, report.last_sequence),
        (1500, Some(1), Some(1500))
    );
    assert_eq!(progress, [(1024, 1500), (1500, 1500)]);
    let mut tree = Frontier::new();
    let reader = place.open().reader().unwrap();
    for entry in reader.tail(1500).unwrap() {
        tree.push(entry.entry_hash);
    }
    assert_eq!(report.merkle_root, tree.root());

    let empty = Place::with_entries(0).verify();
    assert!(empty.is_sound());
    assert_eq!((empty.entries, empty.head), (0, Hash::ZERO));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// SAFETY 21: any single change of any byte of text in any entry is found, at that entry or at the next.
    #[test]
    fn any_changed_character_is_found(sequence in 1..=ENTRIES, column in 0..8_usize, place in any::<prop::sample::Index>()) {
        let column = ["timestamp", "actor", "action", "resource", "subsystem", "payload", "result", "entry_hash"][column];
        let at = Place::with_entries(ENTRIES);
        let guards = triggers(&at.path);
        let conn = at.sql();
        drop_triggers(&conn);
        let sql = format!("SELECT {column} FROM immutable_log WHERE sequence = {sequence}");
        let text: String = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let changed = &mut characters[place.index(text.chars().count())];
        *changed = if *changed == '7' { '8' } else { '7' };
        let new: String = characters.into_iter().collect();
        conn.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        let sql = format!("UPDATE immutable_log SET {column} = ?1 WHERE sequence = {sequence}");
        let updated = conn.execute(&sql, [new]);
        // The index on the payload refuses text that is no JSON; nothing was changed then.
        prop_assume!(updated.is_ok());
        for guard in guards {
            conn.execute_batch(&guard).unwrap();
        }
        drop(conn);
        let report = at.verify();
        prop_assert_eq!(report.first_bad_sequence(), Some(sequence), "{:?}", report.damage);
    }
}
