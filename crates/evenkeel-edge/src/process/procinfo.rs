//! What the operating system says about processes: who they are, whether they live, what they use.
//!
//! A process is its number *and* its start time; a bare number is never trusted, because the system hands numbers
//! out again. Reads only: nothing here sends a signal or starts anything. Linux reads `/proc`; elsewhere `sysinfo`
//! answers the same questions with less detail, and what it cannot answer is `None` or empty.

use serde::{Deserialize, Serialize};

use evenkeel_core::Timestamp;
use evenkeel_core::redact::{REDACTED, is_secret_key};

#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(target_os = "linux")]
use linux as sys;

#[cfg(any(not(target_os = "linux"), test))]
pub(crate) mod portable;
#[cfg(not(target_os = "linux"))]
use portable as sys;

/// Longest command line that is read, in bytes.
pub(crate) const COMMAND_LEN_MAX: usize = 4096;
/// Most processes that a walk over a process tree visits.
const TREE_LEN_MAX: usize = 4096;

/// One process for as long as the machine runs: its number together with the moment it was started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process number.
    pub pid: u32,
    /// When it was started: clock ticks since boot on Linux, seconds since the epoch elsewhere.
    pub start_ticks: u64,
    /// The boot that the two above belong to, where the system names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// What a process is doing, as far as a supervisor cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Running, or waiting for something.
    Running,
    /// Stopped by a signal or a debugger: alive, but it does nothing.
    Stopped,
    /// Ended; only its entry in the process table is left.
    Zombie,
}

/// The process that has this number now. `None` when there is none, or when it has ended.
pub fn identify(pid: u32) -> Option<ProcessId> {
    (pid != 0).then(|| sys::identify(pid)).flatten()
}

/// Whether exactly this process still runs: same number, same start, same boot, not ended.
pub fn is_alive(process: &ProcessId) -> bool {
    state(process).is_some_and(|s| s != ProcessState::Zombie)
}

/// What exactly this process is doing; `None` when it is gone.
pub fn state(process: &ProcessId) -> Option<ProcessState> {
    sys::state(process)
}

/// Resident memory of exactly this process, in bytes.
pub fn rss_bytes(process: &ProcessId) -> Option<u64> {
    sys::rss_bytes(process)
}

/// Resident memory of this process and all its descendants, in bytes. Pages that they share count once for each.
pub fn tree_rss_bytes(process: &ProcessId) -> Option<u64> {
    let own = rss_bytes(process)?;
    let below: u64 = descendants(process).iter().filter_map(rss_bytes).sum();
    Some(own + below)
}

/// Processor time that this process has used since its start, in milliseconds (10 ms steps on Linux).
pub fn cpu_ms(process: &ProcessId) -> Option<u64> {
    sys::cpu_ms(process)
}

/// When the process was started (one-second precision).
pub fn started_at(process: &ProcessId) -> Option<Timestamp> {
    sys::started_at(process)
}

/// Program and arguments, joined with spaces, at most 4 KiB. May hold secrets: match on it, do not show it.
pub fn command_line(process: &ProcessId) -> Option<String> {
    let mut line = sys::arguments(process)?.join(" ");
    truncate(&mut line, COMMAND_LEN_MAX);
    Some(line)
}

/// The command line for people: secret arguments hidden, at most 200 bytes.
pub fn shown_command(process: &ProcessId) -> Option<String> {
    Some(hide_secrets(&sys::arguments(process)?))
}

/// The process's direct children.
pub fn children(process: &ProcessId) -> Vec<ProcessId> {
    sys::children(process)
}

/// Its children, their children and so on; at most 4096.
pub fn descendants(process: &ProcessId) -> Vec<ProcessId> {
    let mut found = children(process);
    let mut next = 0;
    while next < found.len() && found.len() < TREE_LEN_MAX {
        for child in children(&found[next]) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found.truncate(TREE_LEN_MAX);
    found
}

/// The process that listens on this TCP port on an address of this host; the oldest one when several share it.
/// `None` when nobody listens, or when the listener may not be looked at (it belongs to another user, or the system
/// is not Linux): [`port_is_taken`] tells the two apart.
pub fn listener_on_port(port: u16) -> Option<ProcessId> {
    sys::listener_on_port(port)
}

/// Whether anybody listens on this TCP port.
pub fn port_is_taken(port: u16) -> bool {
    sys::port_is_taken(port)
}

/// Hides the values of arguments whose name says that they are secret.
pub(crate) fn hide_secrets(arguments: &[String]) -> String {
    let mut shown = Vec::with_capacity(arguments.len());
    let mut hide_next = false;
    for argument in arguments {
        match argument.split_once('=') {
            _ if hide_next => {
                shown.push(REDACTED.to_owned());
                hide_next = false;
            }
            Some((key, _)) if is_secret_key(key) => shown.push(format!("{key}={REDACTED}")),
            None if argument.starts_with('-') && is_secret_key(argument) => {
                shown.push(argument.clone());
                hide_next = true;
            }
            _ => shown.push(argument.clone()),
        }
    }
    let mut line = shown.join(" ");
    truncate(&mut line, 200);
    line
}

/// Cuts a text at a character boundary.
pub(crate) fn truncate(text: &mut String, len_max: usize) {
    if text.len() > len_max {
        let mut end = len_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> ProcessId {
        identify(std::process::id()).expect("this process runs")
    }

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let me = me();
        assert!(is_alive(&me));
        assert_eq!(state(&me), Some(ProcessState::Running));
        assert!(rss_bytes(&me).unwrap() > 100_000);
        assert!(cpu_ms(&me).is_some());
        let mut other = me.clone();
        other.start_ticks += 1;
        assert!(!is_alive(&other), "another start is another process");
        assert_eq!(rss_bytes(&other), None);
        let mut earlier_boot = me.clone();
        earlier_boot.boot_id = Some("an earlier boot".into());
        assert!(!is_alive(&earlier_boot));
        assert_eq!(identify(0), None);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if cfg!(target_os = "linux") {
            assert_eq!(listener_on_port(port).map(|p| p.pid), Some(me().pid));
        }
        assert!(port_is_taken(port));
        // An outgoing connection that has the port is no listener.
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let outgoing = std::net::TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let its_port = outgoing.local_addr().unwrap().port();
        assert!(!cfg!(target_os = "linux") || !port_is_taken(its_port));
        drop(listener);
        assert!(!port_is_taken(port));
        assert_eq!(listener_on_port(port), None);
    }

    #[test]
    fn children_are_found_and_their_memory_counts() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let id = identify(child.id()).unwrap();
        assert!(children(&me()).contains(&id));
        assert!(descendants(&me()).contains(&id));
        // For a moment after exec the arguments are not there yet.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while command_line(&id).unwrap() != "sleep 30" {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(tree_rss_bytes(&me()).unwrap() > rss_bytes(&id).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(&id));
        assert_eq!(command_line(&id), None);
    }

    /// SAFETY 22
    #[test]
    fn secret_arguments_are_not_shown() {
        let args = ["app", "--api-key=abc", "--token", "def", "--port", "80"];
        let shown = hide_secrets(&args.map(str::to_owned));
        assert!(!shown.contains("abc") && !shown.contains("def"), "{shown}");
        assert!(shown.ends_with("--port 80"), "{shown}");
    }
}
