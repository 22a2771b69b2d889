//! Services that run already: taken up after Evenkeel has died, attached to, and strangers left in peace.

use std::time::Duration;

use evenkeel_core::playbook::action::SignalName;
use evenkeel_edge::process::procinfo::{self, ProcessId};
use evenkeel_edge::process::{
    Exit, Origin, ServiceEvent, ServiceStatus, SuperviseError, Supervisor,
};
use rustix::process::Signal;

use crate::supervise_world::{World, event, eventually, free_port, send};

fn running(supervisor: &Supervisor, name: &str) -> Option<(ProcessId, Origin)> {
    match supervisor.status(name).expect("it is configured") {
        ServiceStatus::Running {
            process, origin, ..
        } => Some((process, origin)),
        _ => None,
    }
}

#[tokio::test]
async fn services_are_taken_up_by_the_next_supervisor() {
    let world = World::new();
    let services = || vec![world.shell("api", "sleep 1000 & wait")];
    let first = world.supervise(services());
    let started = first.start("api").await.unwrap();
    drop(first);
    assert!(
        procinfo::is_alive(&started.process),
        "it outlives its supervisor"
    );

    let second = world.supervise(services());
    assert_eq!(
        running(&second, "api"),
        Some((started.process.clone(), Origin::TakenUp))
    );
    let mut events = second.subscribe();
    let report = second.start("api").await.unwrap();
    assert!(report.was_running);
    assert_eq!(report.process, started.process, "not started a second time");
    send(&started.process, Signal::KILL);
    event(&mut events, |e| {
        matches!(
            e,
            ServiceEvent::Exited {
                expected: false,
                ..
            }
        )
    })
    .await;
    assert!(running(&second, "api").is_none());
    second.restart("api", None).await.unwrap();
}

/// Runs in a process of its own, and dies as `kill -9` would have it.
#[tokio::test]
#[ignore = "the agent of the next test"]
async fn agent_that_dies() {
    let Some(dir) = std::env::var_os("EVENKEEL_TEST_AGENT_DIR") else {
        return;
    };
    let world = World::at(dir.into());
    let supervisor = world.supervise(vec![world.shell("api", "sleep 1000")]);
    supervisor.start("api").await.unwrap();
    std::process::abort();
}

/// SAFETY 22
#[tokio::test]
async fn when_the_agent_dies_the_service_lives_on() {
    let world = World::new();
    let status = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "supervise_attach::agent_that_dies"])
        .env("EVENKEEL_TEST_AGENT_DIR", world.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .await
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(6)
    );

    let supervisor = world.supervise(vec![world.shell("api", "sleep 1000")]);
    let (process, origin) = running(&supervisor, "api").expect("it lives on");
    assert_eq!(origin, Origin::TakenUp);
    let mut events = supervisor.subscribe();
    send(&process, Signal::KILL);
    let end = event(&mut events, |e| matches!(e, ServiceEvent::Exited { .. })).await;
    assert!(
        matches!(
            end,
            ServiceEvent::Exited {
                exit: Exit::Unknown,
                ..
            }
        ),
        "not our child, so its exit code is not ours to know: {end:?}"
    );
}

#[tokio::test]
async fn a_stranger_that_got_the_number_is_never_touched() {
    let world = World::new();
    let mut stranger = world.stranger(&["sleep", "1000"]);
    let mut id = stranger.id();
    id.start_ticks -= 1;
    std::fs::create_dir_all(world.record().parent().unwrap()).unwrap();
    let record = serde_json::json!({ "version": 1, "services": { "api": {
        "process": id, "mark": "0123", "command_hash": "x", "since": "2026-01-01T00:00:00Z",
    }}});
    std::fs::write(world.record(), record.to_string()).unwrap();

    let supervisor = world.supervise(vec![world.shell("api", "sleep 1001")]);
    assert!(running(&supervisor, "api").is_none());
    assert_eq!(
        supervisor
            .stop("api", Some(Duration::ZERO))
            .await
            .unwrap()
            .process,
        None
    );
    assert!(matches!(
        supervisor.signal("api", SignalName::Kill).await,
        Err(SuperviseError::NotRunning { .. })
    ));
    let report = supervisor
        .restart("api", Some(Duration::ZERO))
        .await
        .unwrap();
    assert_ne!(report.new.pid, id.pid);
    supervisor.stop_all().await.unwrap();
    assert!(stranger.is_running());
}

#[tokio::test]
async fn a_broken_record_is_nothing_known() {
    let world = World::new();
    std::fs::create_dir_all(world.record().parent().unwrap()).unwrap();
    std::fs::write(world.record(), "{\"version\": 1, \"serv").unwrap();
    let supervisor = world.supervise(vec![world.shell("api", "sleep 1000")]);
    assert_eq!(supervisor.status("api").unwrap(), ServiceStatus::NotStarted);
    supervisor.start("api").await.unwrap();
    let text = std::fs::read_to_string(world.record()).unwrap();
    assert!(text.contains("\"start_ticks\""), "{text}");
    let mode = std::fs::metadata(world.record()).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
}

#[tokio::test]
async fn a_start_that_was_announced_and_not_confirmed_is_found_by_its_mark() {
    let world = World::new();
    let services = || vec![world.shell("api", "sleep 1000")];
    let first = world.supervise(services());
    let started = first.start("api").await.unwrap();
    drop(first);
    // As if Evenkeel had died right after it started the process.
    eventually("the record is written", || {
        std::fs::read_to_string(world.record()).is_ok_and(|t| t.contains("start_ticks"))
    })
    .await;
    let text = std::fs::read_to_string(world.record()).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["services"]["api"]
        .as_object_mut()
        .unwrap()
        .remove("process");
    std::fs::write(world.record(), record.to_string()).unwrap();

    let second = world.supervise(services());
    assert_eq!(
        running(&second, "api"),
        Some((started.process, Origin::TakenUp))
    );
}

#[tokio::test]
async fn one_attaches_by_port_and_is_told_what_that_cannot_do() {
    let world = World::new();
    let port = free_port();
    let mut service = world.web("web", port);
    service.command.clear();
    service.port = Some(port);
    let supervisor = world.supervise(vec![service]);
    let text = supervisor.start_all().await.unwrap_err().to_string();
    assert!(
        text.contains(&format!("no process was found that listens on port {port}")),
        "{text}"
    );

    let text = port.to_string();
    let mut web = world.stranger(&["python3", "-m", "http.server", "--bind", "127.0.0.1", &text]);
    eventually("it listens", || procinfo::port_is_taken(port)).await;
    let report = &supervisor.start_all().await.unwrap()[0];
    assert_eq!(
        running(&supervisor, "web"),
        Some((web.id(), Origin::Attached))
    );
    assert!(report.was_running);
    assert!(supervisor.memory().by_service["web"] > 1 << 20);

    let text = supervisor
        .restart("web", None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("no `command`") && text.contains("give"),
        "{text}"
    );
    assert!(
        supervisor.stop_all().await.unwrap().is_empty(),
        "it is not ours to stop"
    );
    assert!(web.is_running());

    let mut events = supervisor.subscribe();
    web.kill();
    event(&mut events, |e| {
        matches!(
            e,
            ServiceEvent::Exited {
                expected: false,
                ..
            }
        )
    })
    .await;
}

#[tokio::test]
async fn one_attaches_by_pid_file_and_follows_a_daemon_there() {
    let world = World::new();
    let other = world.stranger(&["sleep", "1000"]);
    std::fs::write(world.path().join("a.pid"), format!("{}\n", other.id().pid)).unwrap();
    let mut attached = world.shell("attached", "unused");
    attached.command.clear();
    attached.pid_file = Some("a.pid".into());
    let mut daemon = world.shell("daemon", "sleep 1000 & echo $! > b.pid");
    daemon.pid_file = Some("b.pid".into());
    let supervisor = world.supervise(vec![attached, daemon]);
    let reports = supervisor.start_all().await.unwrap();
    assert_eq!(reports[0].process, other.id());
    assert!(
        procinfo::command_line(&reports[1].process)
            .unwrap()
            .starts_with("sleep")
    );
    let old = reports[1].process.clone();
    let again = supervisor.restart("daemon", None).await.unwrap();
    assert_eq!(again.old, Some(old.clone()));
    assert!(!procinfo::is_alive(&old));
    assert_eq!(
        running(&supervisor, "daemon"),
        Some((again.new.clone(), Origin::Started))
    );
    supervisor.stop_all().await.unwrap();
    assert!(!procinfo::is_alive(&again.new), "Evenkeel started it");
    assert!(procinfo::is_alive(&other.id()), "but not this one");
}
