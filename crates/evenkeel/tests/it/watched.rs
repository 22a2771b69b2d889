//! Somebody watches the watcher: the service manager, the heartbeat file and an address elsewhere hear from Evenkeel
//! while it works, and from nobody when it does not. What it starts keeps its priority, and lives on without it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    HttpServer, LONG, SHORT, Stage, alive, environ, free_port, get, processes_of, rows, scalar,
    signal, until,
};

/// A service that answers, guarded, with checks twice a second.
fn guarded(stage: &Stage, more: &str) -> u16 {
    let port = free_port();
    stage.write("index.html", "well");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
ready = {{ http = "/" }}

[target.endpoints]
health = "/"

[stress]
enabled = false

[watchdog]
interval_ms = 500
{more}"#
        ),
    );
    port
}

/// Everything that the socket was sent, up to a message that has these words.
fn hear(socket: &UnixDatagram, words: &str) -> Vec<String> {
    socket.set_read_timeout(Some(SHORT)).unwrap();
    let mut heard: Vec<String> = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let n = socket
            .recv(&mut bytes)
            .unwrap_or_else(|e| panic!("no `{words}` but {heard:?}: {e}"));
        heard.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
        if heard.last().unwrap().contains(words) {
            return heard;
        }
    }
}

/// The process number of the service.
fn web(stage: &Stage) -> i32 {
    let found = processes_of(stage.path());
    let mut web = found.iter().filter(|(_, c)| c.contains("http.server"));
    web.next().unwrap_or_else(|| panic!("{found:?}")).0
}

/// The niceness of each thread of a process.
fn niceness(pid: i32) -> Vec<(String, i64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .flatten()
        .filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            // The 19th field of all; the first two are gone.
            let nice = rest.split_whitespace().nth(16)?.parse().ok()?;
            Some((name.to_owned(), nice))
        })
        .collect()
}

#[test]
fn the_service_manager_hears_of_every_stage() {
    let stage = Stage::new();
    guarded(&stage, "");
    let path = stage.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = stage.command(&["run"]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000");
    let evenkeel = crate::support::Running::spawn(&mut command);

    let first = hear(&socket, "READY=1");
    assert_eq!(
        first.len(),
        1,
        "nothing before the gate is passed: {first:?}"
    );
    let boot = rows(&stage.ledger(), "action = 'complete_boot'");
    assert_eq!(boot.len(), 1, "ready only after the gate");
    hear(&socket, "STATUS=watching");
    for _ in 0..5 {
        hear(&socket, "WATCHDOG=1");
    }
    let inherited = environ(web(&stage));
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert!(!inherited.iter().any(|v| v.starts_with(name)), "{name}");
    }

    // A process that hangs says nothing.
    signal(evenkeel.pid(), Signal::STOP);
    until("the process to stand still", SHORT, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", evenkeel.pid())).ok()?;
        stat.rsplit(')').next()?.starts_with(" T").then_some(())
    });
    socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 1024];
    while socket.recv(&mut bytes).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    // Twice the time that the manager would have waited before it acts.
    socket
        .set_read_timeout(Some(Duration::from_secs(4)))
        .unwrap();
    assert!(socket.recv(&mut bytes).is_err(), "it spoke while it hung");
    signal(evenkeel.pid(), Signal::CONT);
    hear(&socket, "WATCHDOG=1");

    signal(evenkeel.pid(), Signal::TERM);
    hear(&socket, "STOPPING=1");
    evenkeel.finish(LONG).expect(0);
}

#[test]
fn the_file_and_the_address_elsewhere_hear_from_it() {
    let stage = Stage::new();
    let keeper = HttpServer::start(|_| 200);
    let ping = format!(
        "\n[heartbeat]\nping = \"http://127.0.0.1:{}/ping/secret-of-mine\"\nping_interval_ms = 1000\n",
        keeper.port
    );
    guarded(&stage, &ping);
    let evenkeel = stage.start(&["run"]);
    let file = stage.data().join("run/heartbeat");
    let read = || std::fs::read_to_string(&file).ok();
    let first = until("the heartbeat file", SHORT, read);
    let at = evenkeel_core::Timestamp::parse(first.trim()).unwrap();
    until("a newer heartbeat", SHORT, || {
        let next = evenkeel_core::Timestamp::parse(read()?.trim()).ok()?;
        (next > at).then_some(())
    });
    until("two pings", SHORT, || {
        (keeper.requests().len() >= 2).then_some(())
    });
    let request = &keeper.requests()[0].head;
    assert!(
        request.starts_with("GET /ping/secret-of-mine "),
        "{request}"
    );
    signal(evenkeel.pid(), Signal::TERM);
    evenkeel.finish(LONG).expect(0);
    let log = stage.read("data/logs/backend.log");
    assert!(!log.contains("secret-of-mine"));
}

#[test]
fn a_keeper_that_never_answers_keeps_nobody_waiting() {
    let stage = Stage::new();
    // It takes connections and says nothing.
    let keeper = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = keeper.local_addr().unwrap().port();
    let ping = format!(
        "\n[heartbeat]\nping = \"http://127.0.0.1:{port}/\"\nping_interval_ms = 1000\ntimeout_ms = 300\n"
    );
    guarded(&stage, &ping);
    let evenkeel = stage.start(&["run"]);
    let log = stage.data().join("logs/backend.log");
    until("a failed ping in the log", SHORT, || {
        std::fs::read_to_string(&log)
            .ok()?
            .contains("ping_failed")
            .then_some(())
    });
    let file = stage.data().join("run/heartbeat");
    let before = std::fs::read_to_string(&file).unwrap();
    until("a newer heartbeat", SHORT, || {
        (std::fs::read_to_string(&file).ok()? != before).then_some(())
    });
    signal(evenkeel.pid(), Signal::TERM);
    evenkeel.finish(LONG).expect(0);
}

/// SAFETY 22: `kill -9` of Evenkeel leaves the service running and serving, and the next start takes it up.
#[test]
fn the_service_lives_on_without_evenkeel_and_is_taken_up_again() {
    let stage = Stage::new();
    let port = guarded(&stage, "");
    let watching = |file: &Path| std::fs::read_to_string(file).is_ok_and(|t| t.contains("ready"));
    let status = stage.data().join("run/status.json");
    let evenkeel = stage.start(&["run"]);
    until("the watchdog", SHORT, || watching(&status).then_some(()));
    let pid = web(&stage);

    // SAFETY 22: Evenkeel gives way, the service does not.
    let own = niceness(std::process::id().cast_signed())[0].1;
    let lowered = niceness(evenkeel.pid());
    assert!(
        lowered
            .iter()
            .all(|(name, nice)| *nice == if name == "launcher" { own } else { own.max(5) }),
        "{lowered:?}"
    );
    assert!(lowered.iter().any(|(name, _)| name == "launcher"));
    assert!(niceness(pid).iter().all(|(_, nice)| *nice == own));

    evenkeel.kill();
    assert!(alive(pid));
    assert_eq!(get(port, "/"), Some(200));
    std::fs::remove_file(&status).unwrap();
    let again = stage.start(&["run"]);
    until("the watchdog again", SHORT, || {
        watching(&status).then_some(())
    });
    assert_eq!(web(&stage), pid, "the same process");
    assert!(
        std::fs::read_to_string(&status)
            .unwrap()
            .contains(&pid.to_string())
    );
    assert_eq!(get(port, "/"), Some(200));
    signal(again.pid(), Signal::TERM);
    again
        .finish(LONG)
        .expect(0)
        .says(&format!("running as {pid}"));
    assert!(alive(pid));
}

/// What only reads works beside a running Evenkeel; an order does not, and says so.
#[test]
fn dry_runs_work_while_it_runs_and_orders_do_not() {
    let stage = Stage::new();
    guarded(&stage, "");
    let evenkeel = stage.start(&["run"]);
    let file = stage.data().join("run/heartbeat");
    until("the heartbeat file", SHORT, || file.exists().then_some(()));
    let pid = web(&stage);
    let plan = stage.run(&["heal", "target_down", "--dry-run"]).expect(0);
    plan.says("playbook    restart_down_service");
    assert!(!plan.stdout.contains("not running"), "{}", plan.stdout);
    let refused = stage.run(&["heal", "target_down"]).expect(3);
    assert!(
        refused.stderr.contains("stop it first to order a cycle"),
        "{}",
        refused.stderr
    );
    assert_eq!(web(&stage), pid, "nothing was restarted");
    signal(evenkeel.pid(), Signal::TERM);
    evenkeel.finish(LONG).expect(0);
}

/// SAFETY 22: beyond its cap Evenkeel ends in good order, and what it guards lives on.
#[test]
fn too_much_memory_ends_it_in_good_order() {
    let stage = Stage::new();
    let port = guarded(&stage, "\n[agent]\nmemory_max_mb = 16\n");
    let end = stage.run(&["run"]).expect(5);
    assert!(
        end.stderr.contains("[agent] memory_max_mb allows 16"),
        "{}",
        end.stderr
    );
    assert_eq!(
        scalar(
            &stage.ledger(),
            "SELECT count(*) FROM immutable_log WHERE action = 'stop_over_memory'"
        ),
        1
    );
    assert_eq!(get(port, "/"), Some(200));
    stage.run(&["ledger", "verify"]).expect(0);
}
