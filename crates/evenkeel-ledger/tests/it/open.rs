//! Opening what is there and what is not: other people's files, newer files, missing directories.

use std::fs;

use evenkeel_ledger::{Ledger, LedgerError, Reader, schema, verify};
use rusqlite::Connection;

use crate::support::{Place, entry};

#[cfg(unix)]
#[test]
fn the_file_and_its_log_are_the_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let ledger = place.open();
    ledger.append_blocking(entry(1)).unwrap();
    let mut files = 0;
    for file in fs::read_dir(place.dir.path()).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        files += 1;
    }
    assert_eq!(files, 3);
}

#[test]
fn a_missing_directory_is_named() {
    let place = Place::new();
    let path = place.dir.path().join("none").join("evenkeel.db");
    let error = Ledger::open(&path).unwrap_err();
    assert!(matches!(error, LedgerError::Open { .. }), "{error}");
    assert!(error.to_string().contains("none"), "{error}");
    assert!(matches!(
        Ledger::open(place.dir.path()),
        Err(LedgerError::Open { .. })
    ));
    assert!(matches!(
        Reader::open(&place.path),
        Err(LedgerError::Open { .. })
    ));
    assert!(matches!(
        verify(&place.path, |_, _| {}),
        Err(LedgerError::Open { .. })
    ));
    assert!(!place.path.exists());
}

#[test]
fn other_files_are_left_as_they_are() {
    let place = Place::new();
    fs::write(
        &place.path,
        "these are somebody's notes, and longer than the header of a database is: 100 bytes or so",
    )
    .unwrap();
    let before = fs::read(&place.path).unwrap();
    assert!(matches!(
        Ledger::open(&place.path),
        Err(LedgerError::NotALedger { .. })
    ));
    assert!(matches!(
        Reader::open(&place.path),
        Err(LedgerError::NotALedger { .. })
    ));
    assert_eq!(fs::read(&place.path).unwrap(), before);

    let other = Place::new();
    other
        .sql()
        .execute_batch("CREATE TABLE users (name TEXT)")
        .unwrap();
    let before = fs::read(&other.path).unwrap();
    assert!(matches!(
        Ledger::open(&other.path),
        Err(LedgerError::NotALedger { .. })
    ));
    assert!(matches!(
        Reader::open(&other.path),
        Err(LedgerError::NotALedger { .. })
    ));
    assert!(matches!(
        verify(&other.path, |_, _| {}),
        Err(LedgerError::NotALedger { .. })
    ));
    assert_eq!(fs::read(&other.path).unwrap(), before);
}

#[test]
fn a_newer_format_is_a_clear_error() {
    let place = Place::with_entries(2);
    place
        .sql()
        .pragma_update(None, "user_version", schema::VERSION + 1)
        .unwrap();
    for error in [
        Ledger::open(&place.path).unwrap_err(),
        Reader::open(&place.path).unwrap_err(),
        verify(&place.path, |_, _| {}).unwrap_err(),
    ] {
        let LedgerError::NewerVersion {
            found, supported, ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((found, supported), (schema::VERSION + 1, schema::VERSION));
        assert!(error.to_string().contains("version 3"), "{error}");
    }
}

/// A process that died between creating the file and creating the table.
#[test]
fn a_half_created_ledger_is_completed() {
    let place = Place::new();
    fs::write(&place.path, "").unwrap();
    assert_eq!(place.open().append_blocking(entry(1)).unwrap().sequence, 1);

    let place = Place::new();
    let conn = Connection::open(&place.path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(conn);
    assert_eq!(place.open().append_blocking(entry(1)).unwrap().sequence, 1);
}

#[test]
fn opening_again_continues_the_chain() {
    let place = Place::new();
    for n in 0..150 {
        let ledger = place.open();
        assert_eq!(ledger.head().sequence, n);
        assert_eq!(ledger.append_blocking(entry(n)).unwrap().sequence, n + 1);
    }
    assert!(place.verify().is_sound());
}
