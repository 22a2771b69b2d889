//! Who holds a database locked: found, confirmed, and stopped only with permission.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use evenkeel_edge::lock_holder::{
    LockError, LockKind, StopPolicy, find, hold_confirmed, permitted, stop,
};
use rusqlite::Connection;

/// A process that runs `body` (Python, with `db` as the path), says so, and stays.
pub(crate) struct Holder(pub(crate) Child);

impl Holder {
    pub(crate) fn new(db: &Path, body: &str, marker: &str) -> Self {
        let program = format!(
            "import sqlite3, sys, fcntl, os, struct, signal\ndb = sys.argv[1]\n{body}\nprint('held', flush=True)\nwhile True: signal.pause()\n"
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .arg(db)
            .arg(marker)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "held");
        Self(child)
    }

    pub(crate) fn writer(db: &Path, begin: &str, marker: &str) -> Self {
        let body = format!(
            "c = sqlite3.connect(db, isolation_level=None, timeout=0)\nc.execute('{begin}')"
        );
        Self::new(db, &body, marker)
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn database(dir: &Path, mode: &str) -> std::path::PathBuf {
    let db = dir.join("data.db");
    let c = Connection::open(&db).unwrap();
    c.pragma_update(None, "journal_mode", mode).unwrap();
    c.execute_batch("CREATE TABLE t(x)").unwrap();
    db
}

fn allow(part: &str) -> StopPolicy {
    StopPolicy {
        may_stop: vec![String::new(), part.to_owned()],
        own_services: Vec::new(),
        graceful_ms: 3_000,
    }
}

#[tokio::test]
async fn the_writer_is_found_in_each_mode_and_a_reader_is_not() {
    for (mode, begin, kind) in [
        ("wal", "BEGIN IMMEDIATE", LockKind::WalWrite),
        ("delete", "BEGIN IMMEDIATE", LockKind::Reserved),
        ("delete", "BEGIN EXCLUSIVE", LockKind::Exclusive),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let db = database(dir.path(), mode);
        assert_eq!(find(&db).unwrap(), []);
        let reader = Holder::new(
            &db,
            "c = sqlite3.connect(db, isolation_level=None)\nc.execute('BEGIN')\nc.execute('SELECT * FROM t').fetchall()",
            "reader",
        );
        assert_eq!(find(&db).unwrap(), [], "{mode}: a reader blocks no writer");
        if begin.contains("EXCLUSIVE") {
            drop(reader);
        }
        let holder = Holder::writer(&db, begin, "the-writer");
        let found = find(&db).unwrap();
        assert_eq!(found.len(), 1, "{mode} {begin}");
        assert_eq!((found[0].pid, found[0].kind), (holder.0.id(), kind));
        assert!(
            found[0].command.contains("the-writer"),
            "{}",
            found[0].command
        );
        let held = hold_confirmed(&db, 120).await.unwrap().unwrap();
        assert_eq!(held.holder.pid, holder.0.id());
        assert!(held.held_ms >= 120);
        drop(holder);
        assert_eq!(hold_confirmed(&db, 50).await.unwrap(), None);
    }
}

#[test]
fn a_lock_that_belongs_to_an_open_file_leads_to_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(dir.path(), "delete");
    // An OFD lock (F_OFD_SETLK = 37) on RESERVED: the kernel's list names no process for it.
    let holder = Holder::new(
        &db,
        "fd = os.open(db, os.O_RDWR)\nfcntl.fcntl(fd, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0x40000001, 1, 0))",
        "ofd",
    );
    let found = find(&db).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].pid, found[0].kind),
        (holder.0.id(), LockKind::Reserved)
    );
}

#[tokio::test]
async fn only_what_the_configuration_names_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(dir.path(), "wal");
    let mut holder = Holder::writer(&db, "BEGIN IMMEDIATE", "nightly-report");
    let found = find(&db).unwrap().remove(0);
    for policy in [StopPolicy::default(), allow("another-program"), allow("  ")] {
        let e = stop(&db, &found, &policy).await.unwrap_err();
        let text = e.to_string();
        assert!(matches!(e, LockError::NotPermitted { .. }), "{text}");
        assert!(
            text.contains(&found.pid.to_string())
                && text.contains("nightly-report")
                && text.contains("may_stop_lock_holders"),
            "{text}"
        );
    }
    let mut own = allow("nightly-report");
    own.own_services = vec![("api".into(), found.pid)];
    let e = stop(&db, &found, &own).await.unwrap_err();
    assert!(
        matches!(&e, LockError::OwnService { service, .. } if service == "api"),
        "{e}"
    );
    // This test is the holder's parent: a child of a service counts as the service.
    own.own_services = vec![("api".into(), std::process::id())];
    let e = stop(&db, &found, &own).await.unwrap_err();
    assert!(matches!(e, LockError::OwnService { .. }), "{e}");
    // Not the process that was found: its number stands for somebody else now.
    let mut other = found.clone();
    other.started += 1;
    stop(&db, &other, &allow("nightly-report")).await.unwrap();
    assert!(!holder.ended(), "a stranger was stopped");
    let done = stop(&db, &found, &allow("nightly-report")).await.unwrap();
    assert!(!done.forced && done.next.is_none());
    assert_eq!(find(&db).unwrap(), []);
    Connection::open(&db)
        .unwrap()
        .execute("INSERT INTO t VALUES (1)", [])
        .unwrap();
}

#[tokio::test]
async fn a_holder_that_ignores_sigterm_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(dir.path(), "wal");
    let body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nc = sqlite3.connect(db, isolation_level=None)\nc.execute('BEGIN IMMEDIATE')";
    let _holder = Holder::new(&db, body, "stubborn");
    let found = find(&db).unwrap().remove(0);
    let mut policy = allow("stubborn");
    policy.graceful_ms = 150;
    let done = stop(&db, &found, &policy).await.unwrap();
    assert!(done.forced && done.waited_ms >= 150);
    assert_eq!(find(&db).unwrap(), []);
}

#[test]
fn evenkeel_does_not_stop_itself() {
    let dir = tempfile::tempdir().unwrap();
    let db = database(dir.path(), "wal");
    let c = Connection::open(&db).unwrap();
    c.execute_batch("BEGIN IMMEDIATE").unwrap();
    let found = find(&db).unwrap().remove(0);
    let e = permitted(&found, &allow("")).unwrap_err();
    assert!(matches!(e, LockError::OwnProcess { .. }), "{e}");
}
