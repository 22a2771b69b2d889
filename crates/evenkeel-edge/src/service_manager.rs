//! Telling a service manager how this process is: the datagrams of `sd_notify(3)`, which systemd and others understand.
//!
//! Nothing here waits: a manager that does not read its socket keeps nobody up. On systems without Unix sockets there
//! is no manager.

use std::time::Duration;

/// What the environment of a service manager is called. What this process starts must not inherit it: it would speak
/// in this process's name.
pub const ENVIRONMENT: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager that started this process.
#[derive(Debug)]
pub struct ServiceManager {
    line: line::Line,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The manager that the environment names; `None` when there is none, or its address cannot be used.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let line = line::Line::to(&get("NOTIFY_SOCKET")?)?;
        let number = |name: &str| get(name).and_then(|text| text.trim().parse::<u64>().ok());
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|usec| mine && *usec > 0)
            .map(Duration::from_micros);
        Some(Self { line, watchdog })
    }

    /// Within which time the manager wants to hear `WATCHDOG=1` again; `None` when it does not wait for it.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends assignments such as `READY=1`, one a line, in one datagram.
    ///
    /// # Errors
    /// The socket is gone, or full.
    pub fn tell(&self, assignments: &str) -> std::io::Result<()> {
        self.line.send(assignments.as_bytes())
    }
}

#[cfg(unix)]
mod line {
    use std::io;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[derive(Debug)]
    pub(super) struct Line {
        socket: UnixDatagram,
        address: SocketAddr,
    }

    impl Line {
        /// To a path, or (`@name`) to an abstract socket of Linux.
        pub(super) fn to(address: &str) -> Option<Self> {
            let address = match address.strip_prefix('@') {
                Some(name) => abstract_address(name)?,
                None if address.starts_with('/') => SocketAddr::from_pathname(address).ok()?,
                None => return None,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(Self { socket, address })
        }

        pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
            self.socket.send_to_addr(bytes, &self.address).map(drop)
        }
    }

    #[cfg(target_os = "linux")]
    fn abstract_address(name: &str) -> Option<SocketAddr> {
        <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn abstract_address(_: &str) -> Option<SocketAddr> {
        None
    }
}

#[cfg(not(unix))]
mod line {
    #[derive(Debug)]
    pub(super) struct Line;

    impl Line {
        pub(super) fn to(_: &str) -> Option<Self> {
            None
        }

        pub(super) fn send(&self, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn manager(address: &str, more: &[(&str, String)]) -> Option<ServiceManager> {
        ServiceManager::from_environment(|name| {
            if name == "NOTIFY_SOCKET" {
                return Some(address.to_owned());
            }
            more.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.clone())
        })
    }

    /// The one message that waits.
    fn received(socket: &UnixDatagram) -> std::io::Result<String> {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut bytes = [0; 256];
        let n = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
    }

    #[test]
    fn it_hears_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let here = manager(path.to_str().unwrap(), &[]).unwrap();
        here.tell("READY=1\nSTATUS=well").unwrap();
        assert_eq!(received(&by_path).unwrap(), "READY=1\nSTATUS=well");

        let name = format!("evenkeel-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        manager(&format!("@{name}"), &[])
            .unwrap()
            .tell("STOPPING=1")
            .unwrap();
        assert_eq!(received(&by_name).unwrap(), "STOPPING=1");

        drop(by_path);
        assert!(here.tell("WATCHDOG=1").is_err(), "nobody listens");
        assert!(manager("vsock:2:1", &[]).is_none());
    }

    #[test]
    fn the_watchdog_of_another_process_is_none_of_ours() {
        let usec = ("WATCHDOG_USEC", "2000000".to_owned());
        let own = ("WATCHDOG_PID", std::process::id().to_string());
        let two = Some(Duration::from_secs(2));
        for (more, expected) in [
            (vec![], None),
            (vec![usec.clone()], two),
            (vec![usec.clone(), own], two),
            (vec![usec, ("WATCHDOG_PID", "1".to_owned())], None),
        ] {
            let manager = manager("/nowhere/at/all", &more).unwrap();
            assert_eq!(manager.watchdog(), expected, "{more:?}");
        }
    }
}
