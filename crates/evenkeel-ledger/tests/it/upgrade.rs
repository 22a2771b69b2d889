//! Files of format version 1: read and verified as they are, and brought to version 2 when they are written to.

use evenkeel_ledger::{Hash, Ledger, LedgerError, Reader, leaf::Leaf, schema};
use rusqlite::Connection;

use crate::support::{Place, entry};

/// The schema of version 1, as it lies in files of that time.
const VERSION_1: &str = include_str!("version_1.sql");

/// A ledger of version 1, as the program of that time left it.
fn version_1(entries: u64) -> Place {
    let place = Place::new();
    let conn = Connection::open(&place.path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.execute_batch(VERSION_1).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA application_id = {}; PRAGMA user_version = 1; BEGIN",
        schema::APPLICATION_ID
    ))
    .unwrap();
    let mut previous_hash = Hash::ZERO;
    for sequence in 1..=entries {
        let new = entry(sequence);
        let leaf = Leaf {
            previous_hash,
            sequence,
            timestamp: new.timestamp.as_bytes(),
            actor: new.actor.as_bytes(),
            action: new.action.as_bytes(),
            resource: new.resource.as_bytes(),
            subsystem: new.subsystem.as_bytes(),
            result: new.result.as_bytes(),
            payload_hash: Hash::of(new.payload.as_bytes()),
        };
        let hash = leaf.hash();
        conn.execute(
            "INSERT INTO immutable_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            rusqlite::params![
                i64::try_from(sequence).unwrap(),
                new.timestamp,
                new.actor,
                new.action,
                new.resource,
                new.subsystem,
                new.payload,
                new.result,
                hash.to_string(),
                previous_hash.to_string(),
            ],
        )
        .unwrap();
        previous_hash = hash;
    }
    conn.execute_batch("COMMIT").unwrap();
    place
}

fn version(place: &Place) -> i64 {
    place
        .sql()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

#[test]
fn an_old_file_is_read_and_verified_as_it_is() {
    let place = version_1(1100);
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!((report.entries, report.checkpoints), (1100, 0));
    assert_eq!(Reader::open(&place.path).unwrap().tail(3).unwrap().len(), 3);
    assert_eq!(version(&place), 1);
}

#[test]
fn an_old_file_is_upgraded_when_it_is_written_to() {
    let place = version_1(1100);
    let before = place.verify();
    let entries = Reader::open(&place.path).unwrap().tail(2000).unwrap();
    // A reader that was there before.
    let reader = Reader::open(&place.path).unwrap();
    let ledger = place.open_signed(1);
    assert_eq!(version(&place), schema::VERSION);
    assert_eq!(ledger.head().sequence, 1101);
    assert_eq!(reader.tail(2000).unwrap()[..1100], entries);
    ledger.append_blocking(entry(1)).unwrap();
    drop(ledger);
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!((report.entries, report.checkpoints), (1102, 2));
    assert_ne!(report.merkle_root, before.merkle_root);
    let nodes: i64 = place
        .sql()
        .query_row("SELECT count(*) FROM ledger_node", [], |row| row.get(0))
        .unwrap();
    assert_eq!(nodes, 4);
}

#[test]
fn an_old_file_that_does_not_verify_is_left_as_it_is() {
    let place = version_1(20);
    place
        .sql()
        .execute_batch("DROP TRIGGER immutable_log_no_update; UPDATE immutable_log SET actor = 'x' WHERE sequence = 20")
        .unwrap();
    assert!(matches!(
        Ledger::open(&place.path),
        Err(LedgerError::DoesNotVerify { .. })
    ));
    assert_eq!(version(&place), 1);
}

/// SAFETY 21: a signed ledger made to look like one of the time before signatures
#[test]
fn a_ledger_stripped_of_what_was_signed_is_found() {
    let place = Place::signed(3);
    let conn = place.sql();
    conn.execute_batch(
        "DROP TABLE ledger_node; DROP TABLE ledger_cosignature; DROP TABLE ledger_checkpoint;
         DROP TRIGGER immutable_log_no_update; PRAGMA user_version = 1",
    )
    .unwrap();
    let no_update = VERSION_1
        .split_inclusive("END;\n")
        .find(|sql| sql.contains("immutable_log_no_update"));
    conn.execute_batch(&no_update.unwrap()[no_update.unwrap().find("CREATE TRIGGER").unwrap()..])
        .unwrap();
    drop(conn);
    let report = place.verify();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.first_bad_sequence(), Some(1));
}
