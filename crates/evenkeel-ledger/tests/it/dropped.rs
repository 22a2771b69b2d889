//! Dropping payloads: the record, what is left, and what nobody can drop unseen.

use evenkeel_ledger::{
    DamageKind, DropSelection, DroppedPayload, Hash, LedgerError, NewEntry, Query, Reader, own,
};
use rusqlite::Connection;

use crate::support::{Place, entry, signing, tamper, timestamp};

fn large(n: u64) -> NewEntry {
    NewEntry {
        payload: format!(
            r#"{{"workflow_id":"w-{n}","text":"{}"}}"#,
            "secret".repeat(200)
        ),
        ..entry(n)
    }
}

/// 20 entries after the key's, every other one large.
fn filled() -> Place {
    let place = Place::new();
    let ledger = place.open_signed(1);
    let entries = (0..20).map(|n| if n % 2 == 0 { large(n) } else { entry(n) });
    ledger.append_all_blocking(entries.collect()).unwrap();
    place
}

#[test]
fn dropped_payloads_leave_their_hashes_and_a_record() {
    let place = filled();
    let before = Reader::open(&place.path).unwrap().tail(100).unwrap();
    let ledger = place.open_signed(1);
    // Entry 2 is n = 0, a second later each.
    let selection = DropSelection {
        first_sequence: 4,
        before: Some(timestamp(10)),
        ..DropSelection::default()
    };
    let dropped = ledger
        .wait(ledger.drop_payloads(selection.clone(), "older than a day".to_owned()))
        .unwrap();
    let record = dropped.entry.unwrap();
    assert_eq!(
        (record.sequence, record.action.as_str()),
        (22, own::DROP_PAYLOADS)
    );
    assert_eq!((dropped.entries, dropped.finished), (4, true));
    let payload = record.payload_json().unwrap();
    assert_eq!(payload["reason"], "older than a day");
    assert_eq!(payload["entries"], 4);
    let after = Reader::open(&place.path).unwrap().tail(100).unwrap();
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.entry_hash, new.entry_hash);
        if [4, 6, 8, 10].contains(&old.sequence) {
            let left = DroppedPayload::parse(new.payload.as_bytes()).unwrap();
            assert_eq!(left.sha256, Hash::of(old.payload.as_bytes()));
            assert_eq!(left.bytes, old.payload.len() as u64);
        } else {
            assert_eq!(old, new);
        }
    }
    // Nothing is left to drop: nothing is recorded.
    let again = ledger
        .wait(ledger.drop_payloads(selection, "again".to_owned()))
        .unwrap();
    assert_eq!(
        (again.entry, again.entries, again.finished),
        (None, 0, true)
    );
    ledger.append_blocking(large(1)).unwrap();
    let all = ledger
        .wait(ledger.drop_payloads(DropSelection::default(), "all".to_owned()))
        .unwrap();
    assert_eq!(all.entries, 7);
    ledger.close().unwrap();
    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    assert_eq!((report.payloads_dropped, report.unsigned), (11, 0));
    // Gone from the index and from the file.
    let reader = Reader::open(&place.path).unwrap();
    assert_eq!(
        reader
            .count(&Query::new().payload("workflow_id", "w-2"))
            .unwrap(),
        0
    );
    drop(reader);
    let bytes = std::fs::read(&place.path).unwrap();
    assert!(!bytes.windows(12).any(|window| window == b"secretsecret"));
    // Opened again it goes on.
    drop(place.open_signed(1));
    assert!(place.verify().is_sound());
}

/// SAFETY 21: a payload that goes without a record
#[test]
fn nobody_drops_a_payload_unseen() {
    let place = filled();
    let text = |bytes: u32| {
        format!(
            r#"{{"evenkeel_dropped_payload":{{"sha256":"{}","bytes":{bytes}}}}}"#,
            Hash::of(b"x")
        )
    };
    let conn = Connection::open(&place.path).unwrap();
    let bytes: u32 = conn
        .query_row(
            "SELECT length(payload) FROM immutable_log WHERE sequence = 4",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let update = "UPDATE immutable_log SET payload = ?1 WHERE sequence = 4";
    // No record is the newest entry.
    assert!(conn.execute(update, [text(bytes)]).is_err());
    let ledger = place.open_signed(1);
    let selection = DropSelection {
        last_sequence: 3,
        ..DropSelection::default()
    };
    ledger
        .wait(ledger.drop_payloads(selection, "these".to_owned()))
        .unwrap();
    // The newest is a record, and not of this entry; nor is anything but the one replacement possible.
    assert!(conn.execute(update, [text(bytes)]).is_err());
    let selection = DropSelection {
        bytes_min: 1_000_000,
        ..DropSelection::default()
    };
    assert!(
        ledger
            .wait(ledger.drop_payloads(selection, "none".to_owned()))
            .unwrap()
            .entry
            .is_none()
    );
    ledger.append_blocking(large(50)).unwrap();
    let selection = DropSelection {
        first_sequence: 23,
        ..DropSelection::default()
    };
    ledger
        .wait(ledger.drop_payloads(selection, "last".to_owned()))
        .unwrap();
    for (sequence, payload) in [(23, text(bytes)), (23, "{}".to_owned()), (24, text(10))] {
        let update = format!("UPDATE immutable_log SET payload = ?1 WHERE sequence = {sequence}");
        assert!(conn.execute(&update, [payload]).is_err(), "{sequence}");
    }
    ledger.close().unwrap();
    drop(conn);
    assert!(place.verify().is_sound());

    // With the triggers gone, by the true hash: the verifier misses the record.
    let hash: String = Reader::open(&place.path)
        .unwrap()
        .get(6)
        .unwrap()
        .map(|e| Hash::of(e.payload.as_bytes()).to_string())
        .unwrap();
    tamper(&place.path, |conn| {
        let left = format!(r#"{{"evenkeel_dropped_payload":{{"sha256":"{hash}","bytes":1234}}}}"#);
        conn.execute(
            "UPDATE immutable_log SET payload = ?1 WHERE sequence = 6",
            [left],
        )
        .unwrap();
    });
    let report = place.verify();
    assert_eq!(report.first_bad_sequence(), Some(6), "{:?}", report.damage);
    assert_eq!(report.damage[0].kind, DamageKind::DroppedWithoutRecord);
    // By another hash: content.
    tamper(&place.path, |conn| {
        conn.execute(
            "UPDATE immutable_log SET payload = ?1 WHERE sequence = 6",
            [text(1200)],
        )
        .unwrap();
    });
    assert_eq!(place.verify().damage[0].kind, DamageKind::ContentEdited);
}

/// SAFETY 21: a payload that the record does not count
#[test]
fn a_record_counts_what_it_dropped() {
    let place = filled();
    let before = Reader::open(&place.path).unwrap().get(4).unwrap().unwrap();
    let ledger = place.open_signed(1);
    ledger
        .wait(ledger.drop_payloads(DropSelection::default(), "all".to_owned()))
        .unwrap();
    ledger.close().unwrap();
    tamper(&place.path, |conn| {
        conn.execute(
            "UPDATE immutable_log SET payload = ?1 WHERE sequence = 4",
            [before.payload],
        )
        .unwrap();
    });
    let report = place.verify();
    assert_eq!(report.first_bad_sequence(), Some(22));
    assert!(
        matches!(
            report.damage[0].kind,
            DamageKind::DropDiffers {
                recorded: 10,
                found: 9,
                ..
            }
        ),
        "{report:?}"
    );
}

#[test]
fn what_stands_for_a_dropped_payload_cannot_be_appended() {
    let place = Place::new();
    let ledger = place.open();
    let payload = format!(
        r#"{{"evenkeel_dropped_payload":{{"sha256":"{}","bytes":1}}}}"#,
        Hash::of(b"x")
    );
    let refused = ledger.append_blocking(NewEntry {
        payload,
        ..entry(1)
    });
    assert!(matches!(
        refused,
        Err(LedgerError::Invalid {
            field: "payload",
            ..
        })
    ));
}

/// SAFETY 7: a drop that does not fit on the disk happened not at all, and nothing is written after it
#[test]
fn a_drop_is_whole_or_nothing() {
    let place = filled();
    let before = Reader::open(&place.path).unwrap().tail(100).unwrap();
    let pages: i64 = place
        .sql()
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    let mut options = signing(1);
    options.size_bytes_max = Some(u64::try_from(pages).unwrap() * 4096);
    let ledger = evenkeel_ledger::Ledger::open_with(&place.path, &options).unwrap();
    let reason = "x".repeat(1000);
    let mut refused = None;
    // Each record takes room until there is none.
    for n in 0..100 {
        ledger
            .append_blocking(large(n))
            .err()
            .map_or_else(|| (), |error| refused = Some(error));
        if refused.is_some() {
            break;
        }
    }
    assert!(
        matches!(refused, Some(LedgerError::Full { .. })),
        "{refused:?}"
    );
    let after = ledger.wait(ledger.drop_payloads(DropSelection::default(), reason));
    assert!(matches!(after, Err(LedgerError::Poisoned { .. })));
    drop(ledger);
    assert_eq!(
        Reader::open(&place.path).unwrap().tail(100).unwrap()[..before.len()],
        before
    );
    assert!(place.verify().is_sound());
}
