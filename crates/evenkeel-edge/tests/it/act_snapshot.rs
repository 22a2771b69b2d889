//! Snapshots of live databases and the way back, with real writers, locks and interruptions.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Anomaly, AnomalyType, Severity, Timestamp};
use evenkeel_edge::snapshot::{
    DatabaseRestore, FileRole, PruneRules, RestoreRequest, RestoreStage, SnapshotError,
    SnapshotKind, SnapshotLimits, SnapshotRequest, Snapshots,
};
use rusqlite::Connection;
use tempfile::TempDir;

const AT: Timestamp = Timestamp::from_millis(1_762_715_115_042);
const SECRET: &str = "sk-very-secret-0123";

struct World {
    dir: TempDir,
}

impl World {
    fn new(journal_mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let w = Self { dir };
        fs::create_dir_all(w.root().join("conf/a")).unwrap();
        fs::create_dir_all(w.root().join("conf/b")).unwrap();
        fs::write(w.root().join("conf/a/x.toml"), "size = 2 # a\n").unwrap();
        fs::write(w.root().join("conf/b/x.toml"), "size = 3 # b\n").unwrap();
        let c = Connection::open(w.db()).unwrap();
        c.pragma_update(None, "journal_mode", journal_mode).unwrap();
        c.execute_batch(
            "CREATE TABLE acc(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
             CREATE INDEX acc_n ON acc(n);
             CREATE TABLE kv(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
             INSERT INTO acc VALUES (1, 100), (2, 100);
             INSERT INTO kv VALUES ('a', x'00ff'), ('b', NULL);",
        )
        .unwrap();
        w
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("app")
    }
    fn db(&self) -> PathBuf {
        self.root().join("grace_data.db")
    }
    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }
    fn snapshots(&self) -> Snapshots {
        Snapshots::new(
            self.storage(),
            Redactor::new([SECRET.to_owned()]),
            SnapshotLimits {
                busy_ms: 300,
                ..SnapshotLimits::default()
            },
        )
    }
    fn configs() -> Vec<PathBuf> {
        vec![
            "conf/a/x.toml".into(),
            "conf/b/x.toml".into(),
            "conf/none.env".into(),
        ]
    }
    fn request(&self) -> SnapshotRequest {
        SnapshotRequest {
            kind: SnapshotKind::PreHeal {
                anomaly: Box::new(anomaly()),
                anomaly_id: format!("an-1 {SECRET}"),
            },
            at: AT,
            database: Some(self.db()),
            ledger: None,
            config_files: Self::configs(),
            root: self.root(),
        }
    }
    fn restore(&self, fenced: bool) -> RestoreRequest {
        RestoreRequest {
            at: AT,
            database: Some(DatabaseRestore {
                path: self.db(),
                fenced,
                fence: None,
            }),
            config: true,
            config_files: Self::configs(),
            root: self.root(),
        }
    }
    fn sum(&self) -> i64 {
        sum(&self.db())
    }
    fn break_it(&self) {
        let c = Connection::open(self.db()).unwrap();
        c.execute_batch("UPDATE acc SET n = 0; DELETE FROM kv; CREATE TABLE junk(x);")
            .unwrap();
        fs::write(self.root().join("conf/a/x.toml"), "size = 99\n").unwrap();
        fs::write(self.root().join("conf/b/x.toml"), "size = 99\n").unwrap();
    }
    fn is_restored(&self) -> bool {
        let text = |f: &str| fs::read_to_string(self.root().join(f)).unwrap();
        let junk: i64 = Connection::open(self.db())
            .unwrap()
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'junk'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        self.sum() == 200
            && junk == 0
            && text("conf/a/x.toml") == "size = 2 # a\n"
            && text("conf/b/x.toml") == "size = 3 # b\n"
    }
}

fn sum(db: &Path) -> i64 {
    Connection::open(db)
        .unwrap()
        .query_row("SELECT sum(n) FROM acc", [], |r| r.get(0))
        .unwrap()
}

fn anomaly() -> Anomaly {
    Anomaly {
        kind: AnomalyType::known(AnomalyType::ERROR_RATE_SPIKE),
        severity: Severity::High,
        current: 0.12,
        threshold: 0.05,
        details: format!("errors with key {SECRET}"),
        unit: "ratio".into(),
        baseline: None,
        test: None,
        series: None,
        service: None,
        since: AT,
        score: None,
        context: serde_json::json!({"api_key": "short"}),
    }
}

/// A process that holds a write transaction on the database until it is killed.
struct Holder(Child);

impl Holder {
    fn new(db: &Path, begin: &str) -> Self {
        let program = format!(
            "import sqlite3, sys\nc = sqlite3.connect({:?}, isolation_level=None)\nc.execute('{begin}')\nprint('held', flush=True)\nsys.stdin.read()\n",
            db.display().to_string()
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
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
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_snapshot_is_laid_out_as_the_contract_says() {
    let w = World::new("wal");
    let mut request = w.request();
    let ledger = w.dir.path().join("grace_data.db");
    Connection::open(&ledger)
        .unwrap()
        .execute_batch("CREATE TABLE immutable_log(x)")
        .unwrap();
    request.ledger = Some(ledger);
    let s = w.snapshots().take(&request).unwrap();
    assert_eq!(s.id, "pre_heal_error_rate_spike_20251109_190515");
    assert_eq!(s.dir, w.storage().join("snapshots").join(&s.id));
    assert!(s.verified);
    let mut names: Vec<&str> = s.files.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "anomaly.json",
            "config/conf/a/x.toml",
            "config/conf/b/x.toml",
            "grace_data.db",
            "ledger_grace_data.db",
        ]
    );
    let on_disk = fs::read_dir(&s.dir).unwrap().count();
    assert_eq!(on_disk, 5, "no WAL and no temporary file beside the copies");
    assert_eq!(sum(&s.dir.join("grace_data.db")), 200);
    let meta: serde_json::Value =
        serde_json::from_slice(&fs::read(s.dir.join("metadata.json")).unwrap()).unwrap();
    for key in [
        "snapshot_id",
        "anomaly_id",
        "timestamp",
        "type",
        "files",
        "format_version",
    ] {
        assert!(!meta[key].is_null(), "{key} is missing");
    }
    assert_eq!(meta["type"], "error_rate_spike");
    assert_eq!(meta["timestamp"], "2025-11-09T19:05:15.042Z");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for f in s
            .files
            .iter()
            .map(|f| f.name.as_str())
            .chain(["metadata.json"])
        {
            let mode = fs::metadata(s.dir.join(f)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{f}");
        }
    }
    // Two in one second.
    let again = w.snapshots().take(&request).unwrap();
    assert_eq!(again.id, "pre_heal_error_rate_spike_20251109_190515-2");
    assert_eq!(w.snapshots().list().unwrap().len(), 2);
    let workflow = SnapshotRequest {
        kind: SnapshotKind::Workflow { id: "wf-7".into() },
        ..request
    };
    assert_eq!(w.snapshots().take(&workflow).unwrap().id, "workflow_wf-7");
}

/// SAFETY 22
#[test]
fn no_secret_gets_into_metadata_or_anomaly() {
    let w = World::new("wal");
    let s = w.snapshots().take(&w.request()).unwrap();
    for file in ["metadata.json", "anomaly.json"] {
        let text = fs::read_to_string(s.dir.join(file)).unwrap();
        assert!(
            !text.contains(SECRET) && !text.contains("short"),
            "{file}: {text}"
        );
    }
}

#[test]
fn a_snapshot_beside_a_busy_writer_is_consistent_and_leaves_its_wal_alone() {
    let w = World::new("wal");
    let stop = Arc::new(AtomicBool::new(false));
    let (db, stopping) = (w.db(), stop.clone());
    let writer = thread::spawn(move || {
        let mut c = Connection::open(db).unwrap();
        c.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        let mut commits = 0u64;
        while !stopping.load(Ordering::SeqCst) {
            let t = c.transaction().unwrap();
            t.execute("UPDATE acc SET n = n - 1 WHERE id = 1", [])
                .unwrap();
            t.execute(
                "INSERT INTO kv VALUES (?1, zeroblob(3000))",
                [commits.to_string()],
            )
            .unwrap();
            t.execute("UPDATE acc SET n = n + 1 WHERE id = 2", [])
                .unwrap();
            t.commit().unwrap();
            commits += 1;
        }
        (commits, c)
    });
    for _ in 0..8 {
        let s = w.snapshots().take(&w.request()).unwrap();
        assert_eq!(
            sum(&s.dir.join("grace_data.db")),
            200,
            "half a transaction was copied"
        );
    }
    stop.store(true, Ordering::SeqCst);
    let (commits, open) = writer.join().unwrap();
    assert!(commits > 0);
    // Ours were not the last connections, but none of them checkpointed either.
    let wal = fs::metadata(w.db().with_extension("db-wal")).unwrap().len();
    assert!(
        wal > commits * 3000,
        "somebody checkpointed: {wal} bytes after {commits} commits"
    );
    drop(open);
}

#[test]
fn a_wal_with_the_last_commits_is_in_the_copy_and_stays() {
    let w = World::new("wal");
    let wal = w.db().with_extension("db-wal");
    // A service that was killed: its WAL holds commits and nobody has the database open.
    let holder = Holder::new(&w.db(), "UPDATE acc SET n = 70");
    drop(holder);
    let before = fs::metadata(&wal).unwrap().len();
    assert!(before > 0);
    let s = w.snapshots().take(&w.request()).unwrap();
    assert_eq!(sum(&s.dir.join("grace_data.db")), 140);
    assert_eq!(
        fs::metadata(&wal).unwrap().len(),
        before,
        "the WAL was checkpointed"
    );
}

#[test]
fn a_lock_is_waited_for_and_no_longer() {
    // WAL: a writer does not stand in the way.
    let w = World::new("wal");
    let holder = Holder::new(&w.db(), "BEGIN IMMEDIATE");
    w.snapshots().take(&w.request()).unwrap();
    drop(holder);
    // Rollback journal: an exclusive lock does.
    let w = World::new("delete");
    let holder = Holder::new(&w.db(), "BEGIN EXCLUSIVE");
    let e = w.snapshots().take(&w.request()).unwrap_err();
    assert!(
        matches!(e, SnapshotError::Locked { waited_ms, .. } if waited_ms >= 300),
        "{e}"
    );
    assert!(e.to_string().contains("grace_data.db"), "{e}");
    assert_eq!(
        fs::read_dir(w.storage().join("snapshots")).unwrap().count(),
        0
    );
    drop(holder);
    w.snapshots().take(&w.request()).unwrap();
}

#[test]
fn a_transaction_cut_off_by_a_crash_is_not_in_the_copy() {
    let w = World::new("delete");
    // Killed in the middle of a big rollback-journal transaction: a hot journal stays.
    let program = format!(
        "import sqlite3, os\nc = sqlite3.connect({:?}, isolation_level=None)\nc.execute('pragma cache_size=2')\nc.execute('begin')\nc.execute('update acc set n = 0')\nc.executemany('insert into kv values (?, zeroblob(4000))', [(str(i),) for i in range(500)])\nos.kill(os.getpid(), 9)\n",
        w.db().display().to_string()
    );
    let _ = Command::new("python3")
        .args(["-c", &program])
        .status()
        .unwrap();
    assert!(
        w.db().with_extension("db-journal").exists(),
        "the journal is hot"
    );
    let s = w.snapshots().take(&w.request()).unwrap();
    assert_eq!(sum(&s.dir.join("grace_data.db")), 200);
}

/// SAFETY 8
#[test]
fn no_snapshot_of_a_damaged_database_or_without_space() {
    let w = World::new("delete");
    let limits = SnapshotLimits {
        reserve_bytes: u64::MAX / 2,
        ..SnapshotLimits::default()
    };
    let tight = Snapshots::new(w.storage(), Redactor::default(), limits);
    let e = tight.take(&w.request()).unwrap_err();
    assert!(
        matches!(e, SnapshotError::NoSpace { needed, free, .. } if needed > free),
        "{e}"
    );
    Connection::open(w.db())
        .unwrap()
        .execute_batch(
            "WITH RECURSIVE c(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM c WHERE x < 9000) INSERT INTO acc SELECT x, x FROM c",
        )
        .unwrap();
    let mut bytes = fs::read(w.db()).unwrap();
    for b in &mut bytes[4096 * 6 + 50..4096 * 6 + 3000] {
        *b ^= 0x5a;
    }
    fs::write(w.db(), bytes).unwrap();
    let e = w.snapshots().take(&w.request()).unwrap_err();
    assert!(matches!(e, SnapshotError::Sqlite { .. }), "{e}");
    assert!(w.snapshots().list().unwrap().is_empty());
}

/// SAFETY 8
#[test]
fn a_damaged_snapshot_never_reaches_the_target() {
    let w = World::new("wal");
    let s = w.snapshots().take(&w.request()).unwrap();
    w.break_it();
    let copy = s.dir.join("grace_data.db");
    let good = fs::read(&copy).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    fs::write(&copy, &bad).unwrap();
    for e in [
        w.snapshots().verify(&s.id).unwrap_err(),
        w.snapshots().restore(&s.id, &w.restore(true)).unwrap_err(),
    ] {
        assert!(matches!(e, SnapshotError::Damaged { .. }), "{e}");
    }
    assert_eq!(w.sum(), 0, "the target was touched");
    fs::write(&copy, &good).unwrap();
    w.snapshots().restore(&s.id, &w.restore(true)).unwrap();
    assert!(w.is_restored());
}

#[test]
fn the_database_comes_back_only_when_the_service_was_fenced() {
    for mode in ["wal", "delete"] {
        let w = World::new(mode);
        let snapshots = w.snapshots();
        let s = snapshots.take(&w.request()).unwrap();
        w.break_it();
        let e = snapshots.restore(&s.id, &w.restore(false)).unwrap_err();
        assert!(matches!(e, SnapshotError::NotFenced), "{e}");
        assert_eq!(w.sum(), 0);
        // Configuration alone needs no fence.
        let mut only_config = w.restore(false);
        only_config.database = None;
        snapshots.restore(&s.id, &only_config).unwrap();
        assert_eq!(w.sum(), 0);
        assert_eq!(
            fs::read_to_string(w.root().join("conf/b/x.toml")).unwrap(),
            "size = 3 # b\n"
        );
        w.break_it_again();
        let report = snapshots.restore(&s.id, &w.restore(true)).unwrap();
        assert!(w.is_restored(), "{mode}");
        assert!(report.digest.is_some());
        // The broken state is kept.
        let kept = snapshots.verify(&report.kept_as).unwrap();
        assert_eq!(sum(&kept.dir.join("grace_data.db")), 0);
        let conf = fs::read_to_string(kept.dir.join("config/conf/a/x.toml")).unwrap();
        assert_eq!(conf, "size = 99\n");
        let now: String = Connection::open(w.db())
            .unwrap()
            .query_row("PRAGMA journal_mode", [], |r| r.get(0))
            .unwrap();
        assert_eq!(now, mode, "the journal mode is the target's own");
    }
}

impl World {
    fn break_it_again(&self) {
        fs::write(self.root().join("conf/a/x.toml"), "size = 99\n").unwrap();
    }
}

#[test]
fn a_database_that_is_none_any_more_or_gone_is_replaced_whole() {
    for gone in [false, true] {
        let w = World::new("wal");
        let s = w.snapshots().take(&w.request()).unwrap();
        if gone {
            fs::remove_file(w.db()).unwrap();
        } else {
            fs::write(w.db(), vec![7u8; 9000]).unwrap();
            fs::write(w.db().with_extension("db-wal"), b"left over").unwrap();
        }
        let report = w.snapshots().restore(&s.id, &w.restore(true)).unwrap();
        assert!(w.is_restored(), "gone: {gone}");
        if !gone {
            let kept = w.snapshots().get(&report.kept_as).unwrap();
            assert!(kept.files.iter().any(|f| f.role == FileRole::Raw));
        }
    }
}

#[test]
fn a_restore_that_was_cut_off_anywhere_is_finished_by_the_next_start() {
    use RestoreStage as S;
    for stage in [
        S::Verified,
        S::Kept,
        S::Intent,
        S::Database,
        S::DatabaseNoted,
        S::FirstConfig,
        S::Config,
        S::Checked,
    ] {
        let w = World::new("wal");
        let s = w.snapshots().take(&w.request()).unwrap();
        w.break_it();
        let cut = w.snapshots().stop_after(stage);
        let e = cut.restore(&s.id, &w.restore(true)).unwrap_err();
        assert!(
            matches!(e, SnapshotError::Stopped(at) if at == stage),
            "{stage:?}: {e}"
        );
        let recovered = w.snapshots().recover(&w.restore(true)).unwrap();
        if matches!(stage, S::Verified | S::Kept) {
            assert!(recovered.is_none(), "{stage:?}: nothing was announced");
            assert_eq!(w.sum(), 0, "{stage:?}: nothing was touched");
        } else {
            assert!(w.is_restored(), "{stage:?}");
            assert!(recovered.is_some());
        }
        assert!(!w.storage().join("restore.journal").exists());
        assert!(w.snapshots().recover(&w.restore(true)).unwrap().is_none());
    }
}

#[test]
fn recovery_loses_nothing_that_was_written_since() {
    // The database was restored and noted; then the service was started and wrote.
    let w = World::new("wal");
    let s = w.snapshots().take(&w.request()).unwrap();
    w.break_it();
    let cut = w.snapshots().stop_after(RestoreStage::DatabaseNoted);
    cut.restore(&s.id, &w.restore(true)).unwrap_err();
    Connection::open(w.db())
        .unwrap()
        .execute("INSERT INTO acc VALUES (3, 5)", [])
        .unwrap();
    w.snapshots().recover(&w.restore(false)).unwrap().unwrap();
    assert_eq!(w.sum(), 205);
    // It was not yet restored, and nobody says that the service is fenced: it is not touched, and the journal stays.
    let w = World::new("wal");
    let s = w.snapshots().take(&w.request()).unwrap();
    w.break_it();
    let cut = w.snapshots().stop_after(RestoreStage::Intent);
    cut.restore(&s.id, &w.restore(true)).unwrap_err();
    let e = w.snapshots().recover(&w.restore(false)).unwrap_err();
    assert!(matches!(e, SnapshotError::NotFenced), "{e}");
    assert_eq!(w.sum(), 0);
    let e = w.snapshots().restore(&s.id, &w.restore(true)).unwrap_err();
    assert!(matches!(e, SnapshotError::Unfinished { .. }), "{e}");
    // It was restored and only the note is missing: nothing is left to do to it.
    let w = World::new("wal");
    let s = w.snapshots().take(&w.request()).unwrap();
    w.break_it();
    let cut = w.snapshots().stop_after(RestoreStage::Database);
    cut.restore(&s.id, &w.restore(true)).unwrap_err();
    w.snapshots().recover(&w.restore(false)).unwrap().unwrap();
    assert!(w.is_restored());
}

#[test]
fn ids_from_outside_lead_nowhere_else() {
    let w = World::new("wal");
    for id in ["../x", "", "a/b", "..", ".", "a\0b", &"a".repeat(200)] {
        let e = w.snapshots().restore(id, &w.restore(true)).unwrap_err();
        assert!(matches!(e, SnapshotError::BadId { .. }), "{id:?}: {e}");
    }
    let e = w.snapshots().verify("nothing_here").unwrap_err();
    assert!(matches!(e, SnapshotError::Unknown { .. }), "{e}");
    let manual = SnapshotRequest {
        kind: SnapshotKind::Manual {
            label: "../up".into(),
        },
        ..w.request()
    };
    assert!(matches!(
        w.snapshots().take(&manual),
        Err(SnapshotError::BadId { .. })
    ));
    // A snapshot whose list of files was tampered with.
    let s = w.snapshots().take(&w.request()).unwrap();
    let meta = s.dir.join("metadata.json");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("config/conf/a/x.toml", "../../../x")).unwrap();
    let e = w.snapshots().verify(&s.id).unwrap_err();
    assert!(matches!(e, SnapshotError::Damaged { .. }), "{e}");
    fs::write(
        &meta,
        text.replace("\"format_version\": 1", "\"format_version\": 9"),
    )
    .unwrap();
    let e = w.snapshots().verify(&s.id).unwrap_err();
    assert!(matches!(e, SnapshotError::TooNew { found: 9, .. }), "{e}");
}

#[test]
fn pruning_keeps_the_newest_good_one_and_the_protected() {
    let w = World::new("wal");
    let at = |i: i64| AT.plus_millis(i * 60_000);
    let ids: Vec<String> = (0..5)
        .map(|i| {
            let request = SnapshotRequest {
                at: at(i),
                ..w.request()
            };
            w.snapshots().take(&request).unwrap().id
        })
        .collect();
    // The newest one is damaged, so the one before it is the newest good one.
    let newest = w
        .storage()
        .join("snapshots")
        .join(&ids[4])
        .join("grace_data.db");
    fs::write(&newest, b"no").unwrap();
    let none = PruneRules {
        keep_count: 0,
        keep_age_ms: i64::MAX,
        max_bytes: u64::MAX,
        protected: BTreeSet::from([ids[1].clone()]),
    };
    let gone: Vec<String> = w
        .snapshots()
        .prune(&none, at(9))
        .unwrap()
        .into_iter()
        .map(|p| p.id)
        .collect();
    assert_eq!(gone, [ids[0].clone(), ids[2].clone(), ids[4].clone()]);
    let left: Vec<String> = w
        .snapshots()
        .list()
        .unwrap()
        .into_iter()
        .map(|s| s.id)
        .collect();
    assert_eq!(left, [ids[3].clone(), ids[1].clone()]);
    let old = PruneRules {
        keep_count: 9,
        keep_age_ms: 1,
        max_bytes: 0,
        protected: BTreeSet::new(),
    };
    let gone = w.snapshots().prune(&old, at(9)).unwrap();
    assert_eq!((gone.len(), gone[0].rule), (1, "age"));
    w.snapshots().verify(&ids[3]).unwrap();
}

/// A large database: kept as blocks, each once; whole again for a restore, for a check and for a person.
#[test]
fn a_large_database_is_kept_as_blocks_and_comes_back_whole() {
    let w = World::new("WAL");
    let c = Connection::open(w.db()).unwrap();
    c.execute_batch(
        "CREATE TABLE big(id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
         INSERT INTO big SELECT i, hex(randomblob(200)) FROM n;
         CREATE TABLE immutable_log(sequence INTEGER PRIMARY KEY, entry_hash BLOB);
         INSERT INTO immutable_log VALUES (7, x'00ff');",
    )
    .unwrap();
    let snapshots = Snapshots::new(
        w.storage(),
        Redactor::default(),
        SnapshotLimits {
            blocks_above_bytes: 64 * 1024,
            ledger_copy_bytes: 0,
            ..SnapshotLimits::default()
        },
    );
    let request = |at: i64| SnapshotRequest {
        at: AT.plus_millis(at),
        ledger: Some(w.db()),
        ..w.request()
    };
    let first = snapshots.take(&request(0)).unwrap();
    let file = first.files.iter().find(|f| f.role == FileRole::Database);
    let file = file.unwrap();
    assert!(first.dir.join("grace_data.db.blocks").is_file());
    assert!(!first.dir.join("grace_data.db").exists());
    let metadata = fs::read_to_string(first.dir.join("metadata.json")).unwrap();
    assert!(metadata.contains("\"entry_hash\": \"00ff\""), "{metadata}");
    // Four pages change; little more than they is written.
    let changed = 4;
    for id in [1, 1000, 2000, 3000] {
        c.execute("UPDATE big SET v = upper(v) || 'x' WHERE id = ?1", [id])
            .unwrap();
    }
    let second = snapshots.take(&request(1)).unwrap();
    let stored = second.files.iter().find_map(|f| f.stored_bytes).unwrap();
    assert!(stored < changed * 4 * 4096, "{stored}");
    assert!(file.stored_bytes.unwrap() > 100 * 4096);
    snapshots.verify(&second.id).unwrap();

    // Out of it, as plain files.
    let out = w.dir.path().join("out");
    let files = snapshots.extract(&first.id, &out).unwrap();
    assert!(files.len() >= 3);
    assert_eq!(sum(&out.join("grace_data.db")), 200);
    assert!(
        snapshots.extract(&first.id, &out).is_err(),
        "not over anything"
    );

    // And back.
    w.break_it();
    snapshots.restore(&first.id, &w.restore(true)).unwrap();
    assert!(w.is_restored());

    // The second needs the first one's blocks, also when that is gone.
    let rules = PruneRules {
        keep_count: 1,
        keep_age_ms: i64::MAX,
        max_bytes: u64::MAX,
        protected: BTreeSet::from([second.id.clone()]),
    };
    snapshots.prune(&rules, AT).unwrap();
    assert!(snapshots.get(&first.id).is_err());
    snapshots.verify(&second.id).unwrap();
    let pack = fs::read_dir(w.storage().join("blocks")).unwrap().flatten();
    let pack = pack
        .map(|e| e.path())
        .max_by_key(|p| fs::metadata(p).unwrap().len());
    let mut bytes = fs::read(pack.as_ref().unwrap()).unwrap();
    // One block may be one that the second snapshot has anew.
    let end = bytes.len() / 2;
    for byte in bytes[8..end].iter_mut().step_by(1000) {
        *byte ^= 1;
    }
    fs::write(pack.unwrap(), bytes).unwrap();
    let e = snapshots.restore(&second.id, &w.restore(true)).unwrap_err();
    assert!(e.to_string().contains("damaged"), "SAFETY 8: {e}");
}

/// A disk that would not fit a snapshot is known before one is begun.
#[test]
fn the_room_for_a_snapshot_is_known_beforehand() {
    let w = World::new("WAL");
    let room = w.snapshots().room_for(&w.request()).unwrap();
    assert!(room.fits() && room.needed > fs::metadata(w.db()).unwrap().len());
}

/// SAFETY 15: a supervisor of somebody else's that starts the service in the middle is noticed, before and after.
#[test]
fn a_fence_that_breaks_is_noticed() {
    use std::sync::atomic::AtomicU32;

    use evenkeel_edge::snapshot::Fence;
    let w = World::new("WAL");
    let id = w.snapshots().take(&w.request()).unwrap().id;
    w.break_it();
    let looks_until_it_breaks = |looks: u32| {
        let asked = AtomicU32::new(0);
        let mut request = w.restore(true);
        request.database.as_mut().unwrap().fence = Some(Fence::new(move || {
            asked.fetch_add(1, Ordering::Relaxed) < looks
        }));
        w.snapshots().restore(&id, &request)
    };
    for looks in [0, 1] {
        let e = looks_until_it_breaks(looks).unwrap_err();
        assert!(matches!(e, SnapshotError::NotFenced), "{looks}: {e}");
        assert_eq!(w.sum(), 0, "nothing was changed");
    }
    let e = looks_until_it_breaks(2).unwrap_err();
    assert!(matches!(e, SnapshotError::FenceBroken { .. }), "{e}");
}
