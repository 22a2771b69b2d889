//! What the triggers refuse, the writer refuses without them; and without the writer the triggers still do.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use super::*;
use crate::merkle::Frontier;
use crate::signed::Own;
use crate::tlog::{KeyName, Signer};
use crate::writer::Failure;
use crate::writer::draft::{Draft, Signing};
use crate::{LedgerError, NewEntry};

fn entry() -> NewEntry {
    NewEntry {
        timestamp: "2026-01-31T12:00:00.000Z".to_owned(),
        actor: "a".to_owned(),
        action: "b".to_owned(),
        resource: String::new(),
        subsystem: String::new(),
        payload: "{}".to_owned(),
        result: String::new(),
    }
}

fn signing() -> Signing {
    let name = KeyName::new("log.example/a").unwrap();
    Signing {
        signer: Some(Arc::new(Signer::from_seed(name, [1; 32]))),
        own: Own::default(),
    }
}

/// A ledger of so many entries whose connection passes over triggers and checks.
fn log(entries: u64) -> (Connection, Head, Frontier) {
    let conn = Connection::open_in_memory().unwrap();
    crate::schema::create(&conn).unwrap();
    switch(&conn, false).unwrap();
    let head = Head {
        sequence: 0,
        hash: Hash::ZERO,
    };
    let mut draft = draft(&conn, head, Frontier::new());
    for _ in 0..entries {
        append(&mut draft).ok().unwrap();
    }
    draft.sign().ok().unwrap();
    let (head, tree, _) = draft.into_parts();
    (conn, head, tree)
}

fn draft(conn: &Connection, head: Head, tree: Frontier) -> Draft<'_> {
    let clock = || jiff::Timestamp::UNIX_EPOCH;
    Draft::new(conn, Path::new("x.db"), head, tree, signing(), clock)
}

fn append(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.append(0, &entry(), Hash::of(b"{}")).map(|_| ())
}

fn damage<T>(result: Result<T, Failure>) -> (Option<u64>, DamageKind) {
    match result {
        Err(Failure::Fatal(LedgerError::DoesNotVerify { sequence, kind, .. })) => (sequence, kind),
        Err(Failure::Fatal(error) | Failure::Busy(error) | Failure::Refused(_, error)) => {
            panic!("another error: {error}")
        }
        Ok(_) => panic!("it was let pass"),
    }
}

/// SAFETY 21
#[test]
fn an_append_to_another_head_than_the_files_ends_the_writer() {
    let (conn, head, tree) = log(3);
    let at = |sequence, hash| Head { sequence, hash };
    let refusal = |head| damage(append(&mut draft(&conn, head, tree.clone())));
    assert_eq!(
        refusal(at(3, Hash::of(b"other"))),
        (Some(4), DamageKind::BrokenLink)
    );
    assert_eq!(
        refusal(at(2, head.hash)),
        (Some(3), DamageKind::StrayRow { found: 3 })
    );
    assert!(matches!(
        refusal(at(4, head.hash)),
        (
            Some(4),
            DamageKind::TailCut {
                expected: 4,
                found: 3,
                ..
            }
        )
    ));
    append(&mut draft(&conn, head, tree)).ok().unwrap();
}

/// A row that came to lie behind the writer's own, by whatever way.
#[test]
fn what_is_signed_is_what_the_file_holds() {
    let (conn, head, tree) = log(3);
    let mut draft = draft(&conn, head, tree);
    append(&mut draft).ok().unwrap();
    conn.execute_batch(
        "UPDATE immutable_log SET entry_hash = replace(entry_hash, '1', '2') WHERE sequence = 4",
    )
    .unwrap();
    assert_eq!(damage(draft.sign()), (Some(5), DamageKind::BrokenLink));
}

#[test]
fn a_sequence_that_is_there_is_not_replaced() {
    let (conn, head, tree) = log(3);
    let mut draft = draft(&conn, head, tree);
    append(&mut draft).ok().unwrap();
    // As if the comparison with the file had been forgotten.
    draft.head = head;
    match append(&mut draft) {
        Err(Failure::Fatal(LedgerError::Sqlite { .. })) => {}
        _ => panic!("it was let pass"),
    }
}

#[test]
fn a_checkpoint_is_newer_than_all_others() {
    let (conn, head, tree) = log(3);
    conn.execute_batch("INSERT INTO ledger_checkpoint SELECT 9, note FROM ledger_checkpoint")
        .unwrap();
    let mut draft = draft(&conn, head, tree);
    append(&mut draft).ok().unwrap();
    assert!(matches!(
        damage(draft.sign()),
        (
            Some(4),
            DamageKind::TailCut {
                expected: 9,
                found: 3,
                ..
            }
        )
    ));
}

#[test]
fn a_node_is_the_next_of_its_level() {
    for planted in [0, 4] {
        let (conn, head, tree) = log(255);
        conn.execute(
            "INSERT INTO ledger_node VALUES (1, ?1, zeroblob(32))",
            [planted],
        )
        .unwrap();
        let refused = damage(append(&mut draft(&conn, head, tree)));
        let kind = DamageKind::NodeDiffers {
            level: 1,
            position: 0,
        };
        assert_eq!(refused, (Some(1), kind));
    }
}

/// The switch is this connection's alone, and works both ways.
#[test]
fn only_the_writers_connection_passes_over_triggers_and_checks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    crate::schema::create(&conn).unwrap();
    let other = Connection::open(&path).unwrap();
    let zeros = "0".repeat(64);
    let row = |sequence: i64, hash: &str| {
        format!(
            "INSERT INTO immutable_log VALUES ({sequence}, '2026-01-31T12:00:00.000Z', 'a', 'b', '', '', '{{}}', '',
              '{hash}', '{zeros}')"
        )
    };
    let (hole, bad_hash) = (row(7, &zeros), row(1, "no hash"));
    let refuses = |conn: &Connection, sql: &str| {
        let code = conn
            .execute_batch(&format!("BEGIN; {sql}; ROLLBACK"))
            .err()
            .and_then(|error| error.sqlite_error_code());
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK").unwrap();
        }
        code == Some(ErrorCode::ConstraintViolation)
    };
    for round in 0..2 {
        switch(&conn, false).unwrap();
        assert!(!refuses(&conn, &hole) && !refuses(&conn, &bad_hash));
        assert!(
            refuses(&other, &hole) && refuses(&other, &bad_hash),
            "{round}"
        );
        switch(&conn, true).unwrap();
        assert!(
            refuses(&conn, &hole) && refuses(&conn, &bad_hash),
            "{round}"
        );
    }
}

/// Dropping payloads, keys and cosignatures stay under the file's own triggers and checks.
#[test]
fn what_is_not_an_append_is_under_the_triggers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let mut writer = crate::writer::Writer::open(&path, &crate::Options::default()).unwrap();
    let ignored = |writer: &crate::writer::Writer| -> bool {
        let pragma = "ignore_check_constraints";
        writer
            .conn
            .pragma_query_value(None, pragma, |row| row.get(0))
            .unwrap()
    };
    assert!(ignored(&writer));
    let edit = writer.transact_guarded(|draft| {
        append(draft)?;
        let sql = "UPDATE immutable_log SET actor = 'x'";
        Ok(draft.conn.execute(sql, []).unwrap_err().to_string())
    });
    assert!(edit.ok().unwrap().contains("cannot be changed"));
    assert!(ignored(&writer));
}
