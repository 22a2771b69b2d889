//! Linux: `/proc`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::OnceLock;

use evenkeel_core::Timestamp;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, Stat, all_processes};
use tokio::net::TcpSocket;

use super::{ProcessId, ProcessState};

/// Names the boot of this machine.
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned())
    })
    .as_deref()
}

fn of_stat(stat: &Stat) -> Option<ProcessId> {
    Some(ProcessId {
        pid: u32::try_from(stat.pid).ok()?,
        start_ticks: stat.starttime,
        boot_id: boot_id().map(str::to_owned),
    })
}

/// Where Linux shows its processes.
const PROC: &str = "/proc";

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

fn exact(process: &ProcessId) -> Option<(Process, Stat)> {
    exact_in(Path::new(PROC), process)
}

/// The process and its figures, if it is exactly this one; `root` is `/proc`.
pub(crate) fn exact_in(root: &Path, process: &ProcessId) -> Option<(Process, Stat)> {
    if process.boot_id.is_some() && process.boot_id.as_deref() != boot_id() {
        return None;
    }
    let found = Process::new_with_root(root.join(process.pid.to_string())).ok()?;
    let stat = found.stat().ok()?;
    (stat.starttime == process.start_ticks).then_some((found, stat))
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x')
}

pub(super) fn identify(pid: u32) -> Option<ProcessId> {
    let stat = open(pid)?.stat().ok()?;
    (!has_ended(&stat)).then(|| of_stat(&stat)).flatten()
}

/// As [`identify`], but also a process that has ended and was not reaped yet.
pub(crate) fn identify_any(pid: u32) -> Option<ProcessId> {
    of_stat(&open(pid)?.stat().ok()?)
}

pub(super) fn state(process: &ProcessId) -> Option<ProcessState> {
    let (_, stat) = exact(process)?;
    Some(match stat.state {
        'T' | 't' => ProcessState::Stopped,
        _ if has_ended(&stat) => ProcessState::Zombie,
        _ => ProcessState::Running,
    })
}

pub(super) fn rss_bytes(process: &ProcessId) -> Option<u64> {
    let (_, stat) = exact(process)?;
    (!has_ended(&stat)).then(|| stat.rss * procfs::page_size())
}

pub(super) fn cpu_ms(process: &ProcessId) -> Option<u64> {
    let (_, stat) = exact(process)?;
    Some((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
}

pub(super) fn started_at(process: &ProcessId) -> Option<Timestamp> {
    exact(process)?;
    let boot_ms = procfs::boot_time_secs().ok()?.checked_mul(1000)?;
    let after_boot_ms = process.start_ticks.checked_mul(1000)? / procfs::ticks_per_second();
    Some(Timestamp::from_millis(
        i64::try_from(boot_ms.checked_add(after_boot_ms)?).ok()?,
    ))
}

pub(super) fn arguments(process: &ProcessId) -> Option<Vec<String>> {
    let (found, stat) = exact(process)?;
    let arguments = found.cmdline().ok()?;
    Some(if arguments.is_empty() {
        vec![format!("[{}]", stat.comm)]
    } else {
        arguments
    })
}

pub(super) fn children(process: &ProcessId) -> Vec<ProcessId> {
    let Some((found, _)) = exact(process) else {
        return Vec::new();
    };
    // `task/*/children` costs nothing on a host with many processes; kernels built without it need the long way.
    let listed: Option<Vec<u32>> = found.tasks().ok().and_then(|tasks| {
        let mut pids = Vec::new();
        for task in tasks.flatten() {
            match task.children() {
                Ok(children) => pids.extend(children),
                Err(_) if task.tid == found.pid => return None,
                Err(_) => {} // that thread has just ended
            }
        }
        Some(pids)
    });
    match listed {
        Some(pids) => pids.into_iter().filter_map(identify).collect(),
        None => everyone(|stat| stat.ppid == found.pid),
    }
}

/// The living members of a process group.
pub(crate) fn group_members(group: u32) -> Vec<ProcessId> {
    // Asking whether there is such a group at all spares looking at every process of the host.
    let exists = i32::try_from(group)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|group| {
            rustix::process::test_kill_process_group(group) != Err(rustix::io::Errno::SRCH)
        });
    if !exists {
        return Vec::new();
    }
    everyone(|stat| u32::try_from(stat.pgrp).ok() == Some(group))
}

/// The process group of exactly this process.
pub(crate) fn group_of(process: &ProcessId) -> Option<u32> {
    u32::try_from(exact(process)?.1.pgrp).ok()
}

/// Whether exactly this process was given this environment variable with this value when it was started.
/// `false` also when its environment may not be read.
pub(crate) fn has_env(process: &ProcessId, name: &str, value: &str) -> bool {
    exact(process)
        .and_then(|(found, _)| found.environ().ok())
        .and_then(|env| env.get(std::ffi::OsStr::new(name)).map(|v| v == value))
        .unwrap_or(false)
}

/// Living processes that were given this environment variable with this value.
pub(crate) fn with_env(name: &str, value: &str) -> Vec<ProcessId> {
    everyone(|_| true)
        .into_iter()
        .filter(|p| has_env(p, name, value))
        .collect()
}

fn everyone(wanted: impl Fn(&Stat) -> bool) -> Vec<ProcessId> {
    let Ok(all) = all_processes() else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|p| p.stat().ok())
        .filter(|stat| !has_ended(stat) && wanted(stat))
        .filter_map(|stat| of_stat(&stat))
        .collect()
}

/// Sockets that listen on this port.
fn listening_sockets(port: u16) -> HashSet<u64> {
    [procfs::net::tcp(), procfs::net::tcp6()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.state == TcpState::Listen && e.local_address.port() == port)
        .map(|e| e.inode)
        .collect()
}

pub(super) fn port_is_taken(port: u16) -> bool {
    !can_be_bound(port) && !listening_sockets(port).is_empty()
}

/// Whether the port can be had on every address of this host: then nobody listens on it. The other way round it says
/// little, an outgoing connection may have the port. Spares reading the list of all connections of the host, which
/// takes tens of milliseconds where there are thousands. It is not listened on, so nobody can connect meanwhile.
fn can_be_bound(port: u16) -> bool {
    let bind = |socket: std::io::Result<TcpSocket>, address: IpAddr| {
        let socket = socket?;
        // Connections of an earlier listener that are only waiting to be forgotten are no hindrance.
        socket.set_reuseaddr(true)?;
        socket.bind((address, port).into())
    };
    // The one of IPv6 may be for IPv6 only, or there may be none.
    let v6_is_free = match bind(TcpSocket::new_v6(), Ipv6Addr::UNSPECIFIED.into()) {
        Ok(()) => true,
        Err(e) => e.kind() != std::io::ErrorKind::AddrInUse,
    };
    v6_is_free && bind(TcpSocket::new_v4(), Ipv4Addr::UNSPECIFIED.into()).is_ok()
}

pub(super) fn listener_on_port(port: u16) -> Option<ProcessId> {
    let sockets = listening_sockets(port);
    if sockets.is_empty() {
        return None;
    }
    let holds_one = |p: &Process| {
        p.fd().is_ok_and(|fds| {
            fds.flatten()
                .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
        })
    };
    all_processes()
        .ok()?
        .flatten()
        .filter(holds_one)
        .filter_map(|p| p.stat().ok())
        .filter(|stat| !has_ended(stat))
        .min_by_key(|stat| (stat.starttime, stat.pid))
        .and_then(|stat| of_stat(&stat))
}
