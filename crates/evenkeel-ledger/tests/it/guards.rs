//! The triggers: what an accident with a plain connection cannot do. SAFETY 21, as far as triggers go.

use rusqlite::{Connection, ErrorCode};

use crate::support::{Place, entry};

const COLUMNS: &str = "sequence, timestamp, actor, action, resource, subsystem, payload, result, entry_hash, previous_hash";

/// An INSERT of a row that is well formed in itself.
fn insert(verb: &str, sequence: &str, entry_hash: &str, previous_hash: &str) -> String {
    format!(
        "{verb} INTO immutable_log ({COLUMNS}) VALUES ({sequence}, '2026-01-31T12:00:00.000Z', 'mallory', 'x', '', '',
         '{{}}', '', {entry_hash}, {previous_hash})"
    )
}

/// SAFETY 21
#[test]
fn no_statement_changes_or_removes_an_entry() {
    let place = Place::with_entries(4);
    // The writer itself passes over the triggers; that it is there changes nothing for others.
    let ledger = place.open();
    ledger.append_blocking(entry(5)).unwrap();
    let before = place.verify();
    let conn = place.sql();
    let hash = format!("'{}'", "a".repeat(64));
    let head = "(SELECT entry_hash FROM immutable_log WHERE sequence = 5)";
    let mut statements = vec![
        "UPDATE immutable_log SET result = 'failed' WHERE sequence = 3".to_owned(),
        "UPDATE OR REPLACE immutable_log SET sequence = 2 WHERE sequence = 3".to_owned(),
        "UPDATE OR IGNORE immutable_log SET rowid = 9 WHERE sequence = 5".to_owned(),
        "DELETE FROM immutable_log".to_owned(),
        "DELETE FROM immutable_log WHERE sequence = 5".to_owned(),
    ];
    for verb in [
        "INSERT",
        "INSERT OR REPLACE",
        "REPLACE",
        "INSERT OR IGNORE",
        "INSERT OR FAIL",
        "INSERT OR ROLLBACK",
    ] {
        // An old place, a hole, before the start, and none given.
        for sequence in ["3", "5", "7", "0", "-1", "NULL", "9223372036854775807"] {
            statements.push(insert(verb, sequence, &hash, head));
        }
        // The right place with a wrong link.
        statements.push(insert(verb, "6", &hash, &hash));
        statements.push(insert(verb, "6", &hash, "NULL"));
    }
    statements.push(format!(
        "{} ON CONFLICT DO UPDATE SET result = 'x'",
        insert("INSERT", "3", &hash, head)
    ));
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
    ledger.append_blocking(entry(6)).unwrap();
    assert!(ledger.failure().is_none());
}

/// A second unique column would let REPLACE of a correct next entry delete an older row.
#[test]
fn a_correct_next_row_with_an_old_hash_deletes_nothing() {
    let place = Place::with_entries(3);
    let conn = place.sql();
    let old = "(SELECT entry_hash FROM immutable_log WHERE sequence = 1)";
    let head = "(SELECT entry_hash FROM immutable_log WHERE sequence = 3)";
    conn.execute(&insert("INSERT OR REPLACE", "4", old, head), [])
        .unwrap();
    assert_eq!(count(&conn), 4);
    assert_eq!(place.verify().first_bad_sequence(), Some(4));
}

#[test]
fn malformed_rows_are_refused_by_the_table() {
    let place = Place::with_entries(0);
    let conn = place.sql();
    let zeros = format!("'{}'", "0".repeat(64));
    let good = insert("INSERT", "1", &zeros, &zeros);
    for (from, to) in [
        ("'{}'", "'{'"),
        ("'{}'", "NULL"),
        ("'mallory'", "''"),
        ("'mallory'", "NULL"),
        ("'2026-01-31T12:00:00.000Z'", "'2026-01-31'"),
        (zeros.as_str(), "'00'"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(conn.execute(&bad, []).is_err(), "{bad}");
    }
    let upper = insert("INSERT", "1", &format!("'{}'", "A".repeat(64)), &zeros);
    assert!(conn.execute(&upper, []).is_err());
    assert_eq!(count(&conn), 0);
    conn.execute(&good, []).unwrap();
}

fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM immutable_log", [], |row| row.get(0))
        .unwrap()
}
