//! Storage that fails: full, read-only, locked, failing writes, a file taken away. SAFETY 7: no record, no act;
//! here the record is refused, clearly and for good.

use std::fs;
use std::time::Duration;

use evenkeel_ledger::{Ledger, LedgerError, NewEntry, Options};

use crate::support::{Place, entry};

fn large(n: u64) -> NewEntry {
    NewEntry {
        payload: format!("\"{}\"", "x".repeat(10_000)),
        ..entry(n)
    }
}

/// SAFETY 7: a full disk refuses the record, ends the writer, and leaves no half entry
#[test]
fn a_full_disk_poisons_and_keeps_what_was_acknowledged() {
    let place = Place::new();
    let options = Options {
        size_bytes_max: Some(200_000),
        ..Options::default()
    };
    let ledger = Ledger::open_with(&place.path, &options).unwrap();
    let mut acknowledged = Vec::new();
    let error = (0..100)
        .find_map(
            |n| match ledger.append_all_blocking(vec![entry(n), large(n), entry(n)]) {
                Ok(entries) => {
                    acknowledged.extend(entries);
                    None
                }
                Err(error) => Some(error),
            },
        )
        .expect("the limit is reached");
    assert!(matches!(error, LedgerError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    // Also an entry that would still fit: after a failure nobody guesses.
    let refused = ledger.append_blocking(entry(1)).unwrap_err();
    assert!(matches!(refused, LedgerError::Poisoned { .. }), "{refused}");
    assert!(
        matches!(refused.root_cause(), LedgerError::Full { .. }),
        "{refused}"
    );
    assert!(matches!(ledger.failure(), Some(LedgerError::Full { .. })));
    assert!(matches!(ledger.close(), Err(LedgerError::Full { .. })));
    assert!(acknowledged.len() > 10);

    let report = place.verify();
    assert!(report.is_sound(), "{:?}", report.damage);
    let again = place.open();
    assert_eq!(again.reader().unwrap().tail(1000).unwrap(), acknowledged);
    assert_eq!(
        again.append_blocking(large(1)).unwrap().sequence,
        acknowledged.len() as u64 + 1
    );
}

/// SAFETY 7: several who wait for the same commit all hear of its failure
#[test]
fn everyone_in_a_failed_group_is_refused() {
    let place = Place::new();
    let options = Options {
        size_bytes_max: Some(150_000),
        ..Options::default()
    };
    let ledger = Ledger::open_with(&place.path, &options).unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40)
            .map(|n| {
                scope.spawn({
                    let ledger = ledger.clone();
                    move || ledger.append_blocking(large(n))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (kept, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(!refused.is_empty());
    for error in refused {
        assert!(matches!(
            error.unwrap_err().root_cause(),
            LedgerError::Full { .. }
        ));
    }
    drop(ledger);
    let report = place.verify();
    assert!(report.is_sound());
    assert_eq!(report.entries, kept.len() as u64);
}

/// A lock is not a failure: nothing was written, and later it works.
#[test]
fn a_lock_held_by_others_is_busy_and_not_poison() {
    let place = Place::new();
    let options = Options {
        busy_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let ledger = Ledger::open_with(&place.path, &options).unwrap();
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = ledger.append_blocking(entry(1)).unwrap_err();
    assert!(matches!(error, LedgerError::Busy { .. }), "{error}");
    assert!(ledger.failure().is_none());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.append_blocking(entry(1)).unwrap().sequence, 1);
}

/// SAFETY 7: writes into a file that was deleted or replaced are kept by nobody, so they are not acknowledged
#[cfg(unix)]
#[test]
fn a_file_taken_away_is_noticed_before_the_acknowledgement() {
    type Take = fn(&Place);
    let takes: [Take; 3] = [
        |place| fs::remove_file(&place.path).unwrap(),
        |place| {
            let copy = place.dir.path().join("copy.db");
            fs::copy(&place.path, &copy).unwrap();
            fs::rename(copy, &place.path).unwrap();
        },
        |place| fs::remove_file(place.dir.path().join("evenkeel.db-wal")).unwrap(),
    ];
    for take in takes {
        let place = Place::new();
        let ledger = place.open();
        ledger.append_blocking(entry(1)).unwrap();
        take(&place);
        let error = ledger.append_blocking(entry(2)).unwrap_err();
        assert!(matches!(error, LedgerError::Replaced { .. }), "{error}");
        assert!(matches!(
            ledger.append_blocking(entry(3)),
            Err(LedgerError::Poisoned { .. })
        ));
    }
}

/// The write-ahead log does not grow for ever.
#[test]
fn the_write_ahead_log_is_cut_back() {
    let place = Place::new();
    let ledger = place.open();
    let mut largest = 0;
    for n in 0..40 {
        ledger
            .append_all_blocking((0..40).map(|_| large(n)).collect())
            .unwrap();
        largest = largest.max(
            fs::metadata(place.dir.path().join("evenkeel.db-wal"))
                .unwrap()
                .len(),
        );
    }
    let written = fs::metadata(&place.path).unwrap().len();
    assert!(written > 10 << 20, "{written} bytes");
    assert!(largest < 10 << 20, "{largest} bytes");
}

/// Things that need another process: a user without rights, a limit on file sizes.
#[cfg(unix)]
mod other_process {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::Command;

    use evenkeel_ledger::Reader;

    use super::*;

    const PLACE: &str = "LEDGER_TEST_PLACE";

    fn helper(name: &str) -> Vec<String> {
        [
            &format!("storage::other_process::{name}"),
            "--exact",
            "--ignored",
            "--nocapture",
        ]
        .map(ToString::to_string)
        .to_vec()
    }

    fn place_of_parent() -> PathBuf {
        PathBuf::from(std::env::var_os(PLACE).expect("set by the test that starts this helper"))
    }

    /// A copy of this program and a place that user "nobody" may read.
    fn readable_by_all(place: &Place) -> PathBuf {
        let program = place.dir.path().join("tests");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        program
    }

    /// Runs a helper as somebody who may only read. `root` may do everything, so it becomes user "nobody".
    fn run_unprivileged(place: &Place, name: &str) {
        let program = readable_by_all(place);
        let mut command = Command::new(program);
        command
            .args(helper(name))
            .env(PLACE, &place.path)
            .current_dir("/");
        if std::os::unix::fs::MetadataExt::uid(&fs::metadata(place.dir.path()).unwrap()) == 0 {
            command.uid(65_534).gid(65_534);
        }
        // Another test that forks while the copy is written holds it open for writing until it execs.
        let begun = std::time::Instant::now();
        let output = loop {
            match command.output() {
                Err(error)
                    if error.kind() == std::io::ErrorKind::ExecutableFileBusy
                        && begun.elapsed() < Duration::from_secs(10) =>
                {
                    std::thread::yield_now();
                }
                other => break other.unwrap(),
            }
        };
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.contains("1 passed"), "{said}");
    }

    /// SAFETY 7
    #[test]
    fn without_the_right_to_write_it_reads_and_refuses_to_append() {
        run_unprivileged(&Place::with_entries(3), "helper_reads_only");
    }

    #[test]
    #[ignore = "helper process of another test"]
    fn helper_reads_only() {
        let path = place_of_parent();
        assert!(
            fs::write(path.with_extension("probe"), "").is_err(),
            "this user may write"
        );
        assert_eq!(Reader::open(&path).unwrap().tail(10).unwrap().len(), 3);
        assert!(
            evenkeel_ledger::verify(&path, |_, _| {})
                .unwrap()
                .is_sound()
        );
        let error = Ledger::open(&path).unwrap_err();
        assert!(matches!(error, LedgerError::ReadOnly { .. }), "{error}");
    }

    /// A ledger of a crashed process in a directory that may not be written: its log cannot be read, and
    /// reading without it would hide entries.
    #[test]
    fn without_the_right_to_write_a_log_left_behind_is_not_ignored() {
        let place = Place::new();
        let live = place.open();
        live.append_blocking(entry(1)).unwrap();
        let crashed = Place::new();
        for file in ["evenkeel.db", "evenkeel.db-wal"] {
            let to = crashed.dir.path().join(file);
            fs::copy(place.dir.path().join(file), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o444)).unwrap();
        }
        run_unprivileged(&crashed, "helper_refuses_to_ignore_the_log");
        // With the right to write it is read, log and all.
        assert_eq!(
            Reader::open(&crashed.path).unwrap().head().unwrap(),
            live.head()
        );
    }

    #[test]
    #[ignore = "helper process of another test"]
    fn helper_refuses_to_ignore_the_log() {
        let error = Reader::open(place_of_parent()).unwrap_err();
        assert!(error.to_string().contains("-wal"), "{error}");
    }

    /// SAFETY 7: a write that the operating system refuses. A limit on file sizes does that for real.
    #[test]
    fn a_failing_write_poisons_and_nothing_acknowledged_is_lost() {
        let place = Place::new();
        let script = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(helper("helper_writes_until_it_fails"))
            .env(PLACE, &place.path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let acknowledged: u64 = said
            .lines()
            .find_map(|line| line.split("acknowledged ").nth(1))
            .and_then(|count| count.trim().parse().ok())
            .expect("the helper tells how far it came");
        let report = place.verify();
        assert!(report.is_sound(), "{:?}", report.damage);
        assert!(report.entries >= acknowledged && acknowledged > 0);
        assert!(place.open().append_blocking(entry(1)).is_ok());
    }

    #[test]
    #[ignore = "helper process of another test"]
    fn helper_writes_until_it_fails() {
        let ledger = Ledger::open(place_of_parent()).unwrap();
        let mut acknowledged = 0;
        let error = loop {
            match ledger.append_blocking(large(acknowledged)) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 1000, "no write fails");
        };
        assert!(
            matches!(error.root_cause(), LedgerError::Io { .. }),
            "{error}"
        );
        assert!(matches!(
            ledger.append_blocking(entry(1)),
            Err(LedgerError::Poisoned { .. })
        ));
        println!("acknowledged {acknowledged}");
    }
}
