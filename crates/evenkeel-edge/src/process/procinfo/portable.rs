//! Everywhere else: `sysinfo`. No boot id, no listeners by port, start times in whole seconds.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use evenkeel_core::Timestamp;
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::{ProcessId, ProcessState};

fn with_process<T>(pid: u32, read: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    let pid = Pid::from_u32(pid);
    look(ProcessesToUpdate::Some(&[pid]))?
        .process(pid)
        .map(read)
}

fn look(at: ProcessesToUpdate<'_>) -> Option<System> {
    let what = ProcessRefreshKind::nothing()
        .with_memory()
        .with_cpu()
        .with_cmd(UpdateKind::Always);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(at, true, what);
    Some(system)
}

fn exact<T>(process: &ProcessId, read: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    if process.boot_id.is_some() {
        return None; // recorded by a system that names its boots: not this one
    }
    with_process(process.pid, |p| {
        (p.start_time() == process.start_ticks).then(|| read(p))
    })
    .flatten()
}

fn of(process: &sysinfo::Process) -> ProcessId {
    ProcessId {
        pid: process.pid().as_u32(),
        start_ticks: process.start_time(),
        boot_id: None,
    }
}

pub(super) fn identify(pid: u32) -> Option<ProcessId> {
    with_process(pid, |p| {
        (p.status() != ProcessStatus::Zombie).then(|| of(p))
    })
    .flatten()
}

pub(super) fn state(process: &ProcessId) -> Option<ProcessState> {
    exact(process, |p| match p.status() {
        ProcessStatus::Stop | ProcessStatus::Tracing => ProcessState::Stopped,
        ProcessStatus::Zombie | ProcessStatus::Dead => ProcessState::Zombie,
        _ => ProcessState::Running,
    })
}

pub(super) fn rss_bytes(process: &ProcessId) -> Option<u64> {
    exact(process, sysinfo::Process::memory)
}

pub(super) fn cpu_ms(process: &ProcessId) -> Option<u64> {
    exact(process, sysinfo::Process::accumulated_cpu_time)
}

pub(super) fn started_at(process: &ProcessId) -> Option<Timestamp> {
    exact(process, |p| {
        Timestamp::from_millis(
            i64::try_from(p.start_time().saturating_mul(1000)).unwrap_or(i64::MAX),
        )
    })
}

pub(super) fn arguments(process: &ProcessId) -> Option<Vec<String>> {
    exact(process, |p| {
        p.cmd()
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect()
    })
}

pub(super) fn children(process: &ProcessId) -> Vec<ProcessId> {
    let Some(system) = look(ProcessesToUpdate::All) else {
        return Vec::new();
    };
    let parent = Some(Pid::from_u32(process.pid));
    system
        .processes()
        .values()
        .filter(|p| p.parent() == parent && p.thread_kind().is_none())
        .map(of)
        .collect()
}

pub(super) fn port_is_taken(port: u16) -> bool {
    TcpStream::connect_timeout(
        &(Ipv4Addr::LOCALHOST, port).into(),
        Duration::from_millis(500),
    )
    .is_ok()
}

/// Which process listens cannot be told here.
pub(super) fn listener_on_port(_port: u16) -> Option<ProcessId> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_the_same_questions_with_less_detail() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let me = identify(std::process::id()).unwrap();
        let id = identify(child.id()).unwrap();
        assert!(children(&me).contains(&id));
        // For a moment after exec the arguments are not there yet.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while arguments(&id).unwrap() != ["sleep", "30"] {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(state(&id).map(|s| s == ProcessState::Zombie), Some(false));
        assert!(rss_bytes(&id).is_some() && cpu_ms(&id).is_some());
        assert!(started_at(&id).unwrap().as_millis() > 1_000_000_000_000);
        let mut other = id.clone();
        other.start_ticks += 7;
        assert_eq!(state(&other), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state(&id), None);
        assert!(listener_on_port(1).is_none());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(port_is_taken(listener.local_addr().unwrap().port()));
    }
}
