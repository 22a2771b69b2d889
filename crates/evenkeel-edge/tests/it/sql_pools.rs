//! Pools of real connections to real databases: a SQLite file, and a PostgreSQL server that the test starts itself.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test, as the tests themselves do"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_edge::sql_pool::{QueryLoad, QueryReport, SqlitePool};
use rusqlite::Connection;

/// Counts for ever.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

fn load() -> QueryLoad {
    QueryLoad {
        parallel: 8,
        queries: 40,
        pool_size: 3,
        acquire_timeout: Duration::from_secs(20),
        query_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
    }
}

fn only(report: &QueryReport, kind: &str) -> u64 {
    assert!(
        report.errors.keys().all(|k| *k == kind),
        "{:?} {:?}",
        report.errors,
        report.sample
    );
    report.errors.get(kind).copied().unwrap_or(0)
}

fn shop(dir: &Path) -> Connection {
    let db = Connection::open(dir.join("shop.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE orders(id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1), (2)",
    )
    .unwrap();
    db
}

fn asking(dir: &Path, query: Option<&str>) -> SqlitePool {
    SqlitePool::new(dir.join("shop.db"), query.map(str::to_owned))
}

#[tokio::test]
async fn a_sqlite_file_is_asked_through_a_pool_smaller_than_its_askers() {
    let dir = tempfile::tempdir().unwrap();
    let _service = shop(dir.path());
    let report = asking(dir.path(), Some("SELECT * FROM orders"))
        .run(load())
        .await;
    assert_eq!(only(&report, ""), 0);
    assert_eq!((report.connections, report.connections_failed), (3, 0));
    assert_eq!((report.queries, report.connects.len()), (40, 3));
    assert_eq!((report.acquires.len(), report.latencies.len()), (40, 40));
    // The service is still there with what it wrote; closing the pool has not emptied its log.
    assert!(dir.path().join("shop.db-wal").metadata().unwrap().len() > 0);
}

#[tokio::test]
async fn waits_for_a_connection_and_slow_queries_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let _service = shop(dir.path());
    let tight = QueryLoad {
        parallel: 3,
        queries: 3,
        pool_size: 1,
        acquire_timeout: Duration::from_millis(200),
        query_timeout: Duration::from_secs(2),
        ..load()
    };
    let report = asking(dir.path(), Some(ENDLESS)).run(tight).await;
    assert_eq!(report.errors["acquire_timeout"], 2, "{report:?}");
    assert_eq!(report.errors["timeout"], 1, "{report:?}");
    assert_eq!((report.queries, report.latencies.len()), (3, 0));
    let mut waits = report.acquires.clone();
    waits.sort();
    assert!(waits[0] < Duration::from_millis(200), "{waits:?}");
    assert!(waits[1] >= Duration::from_millis(200), "{waits:?}");
}

#[tokio::test]
async fn a_locked_database_a_missing_one_and_a_wrong_query_have_their_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let service = shop(dir.path());
    let few = QueryLoad {
        parallel: 2,
        queries: 2,
        query_timeout: Duration::from_millis(300),
        ..load()
    };
    let wrong = asking(dir.path(), Some("SELECT * FROM nothing"))
        .run(few)
        .await;
    assert_eq!(only(&wrong, "query"), 2);
    let writing = asking(dir.path(), Some("DELETE FROM orders"))
        .run(few)
        .await;
    assert_eq!(only(&writing, "query"), 2, "it is opened for reading");
    service
        .execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE")
        .unwrap();
    let begun = Instant::now();
    let locked = asking(dir.path(), Some("SELECT * FROM orders"))
        .run(few)
        .await;
    assert_eq!(only(&locked, "locked"), 2);
    assert!(
        begun.elapsed() >= Duration::from_millis(250),
        "it waited for the lock"
    );
    service.execute_batch("COMMIT").unwrap();
    let there = asking(dir.path(), Some("SELECT * FROM orders"))
        .run(few)
        .await;
    assert_eq!((only(&there, ""), there.latencies.len()), (0, 2));
    let elsewhere = SqlitePool::new(dir.path().join("none.db"), None);
    let missing = elsewhere.run(few).await;
    assert_eq!((only(&missing, "open"), missing.connections), (3, 0));
    assert_eq!((missing.connections_failed, missing.queries), (3, 0));
    std::fs::write(
        dir.path().join("text.db"),
        "no database at all, by any means",
    )
    .unwrap();
    let text = SqlitePool::new(dir.path().join("text.db"), None)
        .run(few)
        .await;
    assert!(only(&text, "open") >= 2, "{text:?}");
}

#[cfg(unix)]
mod postgres {
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::Command;

    use evenkeel_edge::advisor::Secret;
    use evenkeel_edge::sql_pool::PostgresPool;
    use tokio_postgres::{Client, NoTls};

    use super::*;

    const PASSWORD: &str = "hunter22";
    const CONNECTIONS_MAX: u32 = 12;

    /// A server of its own in a temporary directory, on a Unix socket.
    struct Postgres {
        bin: PathBuf,
        dir: tempfile::TempDir,
        user: Option<(u32, u32)>,
    }

    /// Where Debian puts it, the newest; or on the path.
    fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
        let mut debian: Vec<PathBuf> = versions
            .flatten()
            .flatten()
            .map(|v| v.path().join("bin"))
            .collect();
        debian.sort();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = debian.into_iter().rev().chain(std::env::split_paths(&path));
        all.into_iter()
            .find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())
    }

    /// The server refuses to run as root: then another user is taken.
    fn another_user() -> Option<(u32, u32)> {
        let is_root = Command::new("id").arg("-u").output().ok()?.stdout == b"0\n";
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let of = |name: &str| {
            let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        if is_root {
            of("postgres").or_else(|| of("nobody"))
        } else {
            None
        }
    }

    impl Postgres {
        fn start(bin: PathBuf) -> Self {
            let dir = tempfile::Builder::new()
                .prefix("pg")
                .tempdir_in("/tmp")
                .unwrap();
            let server = Self {
                bin,
                dir,
                user: another_user(),
            };
            let secret = server.dir.path().join("password");
            std::fs::write(&secret, PASSWORD).unwrap();
            if let Some((uid, gid)) = server.user {
                for path in [server.dir.path(), &secret] {
                    std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
                }
            }
            let data = server.data();
            let pwfile = format!("--pwfile={}", secret.display());
            server.run(
                "initdb",
                &[
                    "-D",
                    &data,
                    "-U",
                    "admin",
                    "-A",
                    "scram-sha-256",
                    &pwfile,
                    "-N",
                    "-E",
                    "UTF8",
                    "--locale=C",
                ],
            );
            let options = format!(
                "-k {} -c listen_addresses='' -c fsync=off -c max_connections={CONNECTIONS_MAX}",
                server.dir.path().display()
            );
            let log = server.dir.path().join("log").display().to_string();
            server.run(
                "pg_ctl",
                &[
                    "-D", &data, "-w", "-t", "60", "-l", &log, "-o", &options, "start",
                ],
            );
            server
        }

        fn data(&self) -> String {
            self.dir.path().join("data").display().to_string()
        }

        fn command(&self, program: &str) -> Command {
            let mut command = Command::new(self.bin.join(program));
            command.current_dir(self.dir.path());
            if let Some((uid, gid)) = self.user {
                command.gid(gid).uid(uid);
            }
            command
        }

        fn run(&self, program: &str, arguments: &[&str]) {
            // To a file: the server would keep a pipe open.
            let said = std::fs::File::create(self.dir.path().join("said")).unwrap();
            let ended = self
                .command(program)
                .args(arguments)
                .stdout(said.try_clone().unwrap())
                .stderr(said)
                .status()
                .unwrap();
            let said = std::fs::read_to_string(self.dir.path().join("said")).unwrap();
            assert!(ended.success(), "{program}: {said}");
        }

        fn stop(&self) {
            self.run(
                "pg_ctl",
                &["-D", &self.data(), "-m", "immediate", "-w", "stop"],
            );
        }

        fn address(&self, user: &str, password: &str) -> Secret {
            let dir = self.dir.path().display();
            Secret::new(format!(
                "postgres:///postgres?host={dir}&user={user}&password={password}"
            ))
        }

        async fn admin(&self) -> Client {
            let address = self.address("admin", PASSWORD);
            let (client, connection) = tokio_postgres::connect(address.expose(), NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            client
        }
    }

    impl Drop for Postgres {
        fn drop(&mut self) {
            let stopped = ["-D", &self.data(), "-m", "immediate", "stop"];
            let _ = self.command("pg_ctl").args(stopped).output();
        }
    }

    async fn sessions(admin: &Client) -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'evenkeel'";
        admin.query_one(count, &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn a_postgresql_server_is_asked_through_real_connections() {
        let Some(bin) = programs() else {
            eprintln!("skipped: PostgreSQL's initdb and pg_ctl are not installed");
            return;
        };
        let server = Postgres::start(bin);
        let admin = server.admin().await;
        admin
            .batch_execute(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"))
            .await
            .unwrap();
        let app = server.address("app", PASSWORD);
        let asking = |query: &str| PostgresPool::new(&app, Some(query.to_owned())).unwrap();

        // Exactly as many sessions as the pool holds, whatever the number of askers, and all of them at once.
        let mut run = tokio::spawn(asking("SELECT pg_sleep(0.03), 7").run(load()));
        let mut most = 0;
        let report = loop {
            tokio::select! {
                report = &mut run => break report.unwrap(),
                now = sessions(&admin) => most = most.max(now),
            }
        };
        assert_eq!((only(&report, ""), most), (0, 3));
        assert_eq!(
            (report.connections, report.queries, report.latencies.len()),
            (3, 40, 40)
        );
        assert!(
            report
                .latencies
                .iter()
                .all(|l| *l >= Duration::from_millis(30))
        );
        // Eight askers, three connections: most wait for a whole query of another one at least once.
        let waited = |l: &&Duration| **l >= Duration::from_millis(15);
        assert!(
            report.acquires.iter().filter(waited).count() > 10,
            "{report:?}"
        );

        // One connection, held for a second: the others give up.
        let tight = QueryLoad {
            parallel: 4,
            queries: 4,
            pool_size: 1,
            acquire_timeout: Duration::from_millis(200),
            ..load()
        };
        let report = asking("SELECT pg_sleep(2)").run(tight).await;
        assert_eq!(
            (only(&report, "acquire_timeout"), report.latencies.len()),
            (3, 1)
        );

        // A query that takes too long is ended by the server, and its connection serves the next one.
        let patient = QueryLoad {
            parallel: 1,
            queries: 2,
            pool_size: 1,
            query_timeout: Duration::from_millis(200),
            ..load()
        };
        let begun = Instant::now();
        let report = asking("SELECT pg_sleep(60)").run(patient).await;
        assert_eq!((only(&report, "timeout"), report.connections), (2, 1));
        assert!(begun.elapsed() < Duration::from_secs(20));

        // More than the server takes: three are kept for its administrators, one of which is connected.
        let many = QueryLoad {
            pool_size: CONNECTIONS_MAX,
            ..load()
        };
        let report = asking("SELECT 1").run(many).await;
        assert!(
            report.connections >= 5 && report.connections_failed >= 3,
            "{report:?}"
        );
        assert_eq!(
            report.connections + report.connections_failed,
            u64::from(CONNECTIONS_MAX)
        );
        let refused = only(&report, "too_many_connections");
        assert!(refused >= report.connections_failed, "{report:?}");

        // Nothing can be changed.
        let few = QueryLoad {
            parallel: 1,
            queries: 1,
            pool_size: 1,
            ..load()
        };
        let root = PostgresPool::new(
            &server.address("admin", PASSWORD),
            Some("CREATE TABLE oops (a int)".to_owned()),
        );
        let report = root.unwrap().run(few).await;
        assert_eq!(only(&report, "query"), 1);
        assert!(report.sample.unwrap().contains("25006"));
        let made = "SELECT count(*) FROM pg_class WHERE relname = 'oops'";
        assert_eq!(
            admin.query_one(made, &[]).await.unwrap().get::<_, i64>(0),
            0
        );

        // What is wrong with the query, the password, and a server that is gone.
        assert_eq!(only(&asking("SELECT nothing").run(few).await, "query"), 1);
        assert_eq!(only(&asking("SELECT $1::int").run(few).await, "query"), 1);
        let wrong = PostgresPool::new(&server.address("app", "hunter23"), None).unwrap();
        let report = wrong.run(few).await;
        assert_eq!((only(&report, "auth"), report.queries), (1, 0));
        assert!(!format!("{report:?}").contains("hunter23"));
        drop(admin);
        server.stop();
        assert_eq!(only(&asking("SELECT 1").run(few).await, "refused"), 1);
    }
}
