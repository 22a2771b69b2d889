//! Questions to real databases: what is answered, what is refused, and what is left as it was.

use rusqlite::Connection;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

struct Db {
    dir: tempfile::TempDir,
    conn: Connection,
}

impl Db {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("app.db")).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE jobs (state TEXT, age REAL);
             INSERT INTO jobs VALUES ('waiting', 1.5), ('waiting', 2.5), ('done', 9);",
        )
        .unwrap();
        Self { dir, conn }
    }

    fn query(&self, query: &str) -> SqlQuery {
        SqlQuery {
            name: "jobs".into(),
            database: self.dir.path().join("app.db"),
            query: query.into(),
            every_s: 10,
            service: Some("api".into()),
        }
    }

    fn ask(&self, query: &str) -> Collected {
        SqlCollector::new([self.query(query)]).collect(at(0))
    }

    fn reason(&self, query: &str) -> String {
        let collected = self.ask(query);
        assert!(collected.readings.is_empty(), "{query}: {collected:?}");
        let [missing] = &collected.missing[..] else {
            panic!("{query}: {collected:?}");
        };
        assert_eq!(
            (&*missing.series, missing.service.as_deref()),
            ("sql/jobs", Some("api"))
        );
        missing.reason.clone()
    }
}

fn figures(collected: &Collected) -> Vec<(&str, f64)> {
    assert!(collected.missing.is_empty(), "{collected:?}");
    let figure = |r: &'_ super::super::Reading| {
        assert_eq!(
            (r.kind, r.service.as_deref()),
            (ReadingKind::Gauge, Some("api"))
        );
        r.value
    };
    collected
        .readings
        .iter()
        .map(|r| (&*r.series, figure(r)))
        .collect()
}

#[test]
fn a_number_is_a_series_and_labelled_numbers_are_some() {
    let db = Db::new();
    let one = db.ask("SELECT count(*) FROM jobs WHERE state = 'waiting'; -- those that wait");
    assert_eq!(figures(&one), [("sql/jobs", 2.0)]);
    let labelled = db.ask("SELECT state, avg(age) FROM jobs GROUP BY state ORDER BY state");
    assert_eq!(
        figures(&labelled),
        [("sql/jobs/done", 9.0), ("sql/jobs/waiting", 2.0)]
    );
    let numbered = db.ask("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) SELECT i, i FROM n");
    assert_eq!(numbered.readings.len(), 50);
}

#[test]
fn each_is_asked_when_it_is_due() {
    let db = Db::new();
    let mut collector = SqlCollector::new([db.query("SELECT count(*) FROM jobs")]);
    let mut ask = |second| {
        let collected = collector.collect(at(second));
        figures(&collected).first().map(|(_, value)| *value)
    };
    assert_eq!(ask(0), Some(3.0));
    assert_eq!(ask(9), None);
    db.conn
        .execute("DELETE FROM jobs WHERE state = 'done'", [])
        .unwrap();
    assert_eq!(ask(10), Some(2.0));
    assert_eq!(ask(11), None);
    assert_eq!(
        ask(-50),
        Some(2.0),
        "a clock that went back does not silence it"
    );
}

/// SAFETY 11
#[test]
fn what_is_no_number_is_missing_with_its_reason() {
    let db = Db::new();
    for (query, part) in [
        ("SELECT max(age) FROM jobs WHERE state = 'lost'", "NULL"),
        ("SELECT age FROM jobs WHERE state = 'lost'", "no row"),
        ("SELECT age FROM jobs", "more than one row"),
        (
            "SELECT state FROM jobs LIMIT 1",
            "something else than a number",
        ),
        ("SELECT 1, 2, 3", "3 columns"),
        ("SELECT 9e999", "finite"),
        ("SELECT 'a', 1 UNION ALL SELECT 'a', 2", "twice"),
        ("SELECT char(7), 1", "not printable"),
        ("SELECT NULL, 1", "neither a text"),
        ("SELECT hex(zeroblob(40)), 1", "longer than 64"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 51) SELECT i, i FROM n",
            "more than 50 rows",
        ),
        ("SELEC 1", "syntax"),
        ("SELECT x FROM jobs", "no such column"),
        ("-- nothing", "empty"),
        ("SELECT length(zeroblob(900000000))", "too big"),
    ] {
        let reason = db.reason(query);
        assert!(
            reason.to_lowercase().contains(&part.to_lowercase()),
            "{query}: {reason}"
        );
    }
    let mut gone = db.query("SELECT 1");
    gone.database = db.dir.path().join("gone.db");
    let collected = SqlCollector::new([gone]).collect(at(0));
    assert!(collected.missing[0].reason.contains("gone.db"));
    assert!(!db.dir.path().join("gone.db").exists());
}

#[test]
fn one_label_without_a_number_spoils_no_other() {
    let db = Db::new();
    let mut collector =
        SqlCollector::new([db.query("SELECT state, max(age) FROM jobs GROUP BY state")]);
    assert_eq!(collector.collect(at(0)).readings.len(), 2);
    db.conn
        .execute_batch("UPDATE jobs SET age = NULL WHERE state = 'done'")
        .unwrap();
    let some = collector.collect(at(10));
    assert_eq!(some.readings.len(), 1);
    assert_eq!(&*some.missing[0].series, "sql/jobs/done");
    db.conn
        .execute_batch("DELETE FROM jobs WHERE state = 'done'")
        .unwrap();
    let gone = collector.collect(at(20));
    assert_eq!(
        gone.missing[0].reason,
        "the query gives no such label any more"
    );
    assert!(
        collector.collect(at(30)).missing.is_empty(),
        "it is told once"
    );
    db.conn
        .execute_batch("ALTER TABLE jobs RENAME TO work")
        .unwrap();
    for second in [40, 50] {
        let broken = collector.collect(at(second));
        assert_eq!(&*broken.missing[0].series, "sql/jobs/*");
    }
}

#[test]
fn nothing_but_reading_is_let_through() {
    let db = Db::new();
    let other = db.dir.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    for query in [
        "DELETE FROM jobs".to_owned(),
        "INSERT INTO jobs VALUES ('x', 1) RETURNING age".to_owned(),
        "PRAGMA user_version = 7".to_owned(),
        "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        "SELECT * FROM pragma_user_version".to_owned(),
        "BEGIN EXCLUSIVE".to_owned(),
        "VACUUM".to_owned(),
        format!("ATTACH '{}' AS o", other.display()),
        format!("VACUUM INTO '{}'", db.dir.path().join("copy.db").display()),
        "CREATE TEMP TABLE x (y)".to_owned(),
    ] {
        let reason = db.reason(&query);
        assert!(reason.contains("only a SELECT"), "{query}: {reason}");
    }
    assert_eq!(
        db.reason("SELECT 1; SELECT 2"),
        "more than one statement may not be asked"
    );
    let reason = db.reason("SELECT load_extension('x')");
    assert!(reason.contains("not authorized"), "{reason}");
    assert!(!db.dir.path().join("copy.db").exists());
    let version: i64 = db
        .conn
        .query_row("PRAGMA user_version", [], |r| r.get(0))
        .unwrap();
    assert_eq!(version, 0);
    assert_eq!(
        figures(&db.ask("SELECT count(*) FROM jobs")),
        [("sql/jobs", 3.0)]
    );
}

/// Whoever reads last must not fold the log of the one who wrote into the database.
#[test]
fn the_log_of_the_database_is_left_alone() {
    let db = Db::new();
    let wal = db.dir.path().join("app.db-wal");
    let (main, before) = (
        std::fs::read(db.dir.path().join("app.db")).unwrap(),
        std::fs::read(&wal).unwrap(),
    );
    assert!(!before.is_empty());
    assert_eq!(
        figures(&db.ask("SELECT count(*) FROM jobs")),
        [("sql/jobs", 3.0)]
    );
    assert_eq!(std::fs::read(&wal).unwrap(), before);
    assert_eq!(std::fs::read(db.dir.path().join("app.db")).unwrap(), main);
}

#[test]
fn a_lock_and_a_long_query_end() {
    let db = Db::new();
    let begun = Instant::now();
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    assert!(db.reason(endless).contains("longer than 2 s"));
    assert!(begun.elapsed() < Duration::from_secs(20));
    // A rollback journal, whose writer keeps readers out.
    db.conn
        .execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE")
        .unwrap();
    assert_eq!(
        db.reason("SELECT count(*) FROM jobs"),
        "the database is locked"
    );
}

#[test]
fn a_query_is_checked_before_it_is_asked() {
    let db = Db::new();
    let good = db.query("SELECT 1");
    assert_eq!(good.validate(), Ok(()));
    let key = |change: fn(&mut SqlQuery)| {
        let mut query = good.clone();
        change(&mut query);
        query.validate().unwrap_err().0
    };
    assert_eq!(key(|q| q.name = "A b".into()), "name");
    assert_eq!(key(|q| q.name.clear()), "name");
    assert_eq!(key(|q| q.query = " ".into()), "query");
    assert_eq!(key(|q| q.query = "x".repeat(5000)), "query");
    assert_eq!(key(|q| q.every_s = 0), "every_s");
    assert_eq!(key(|q| q.every_s = 86_401), "every_s");
}
