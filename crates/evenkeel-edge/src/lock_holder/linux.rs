//! Linux: `/proc/locks` by device and inode, and `/proc/*/fdinfo` where that names no process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open, pidfd_send_signal};

use super::{COMMAND_LEN_MAX, LockError, LockHolder, LockKind};

/// SQLite's `PENDING_BYTE` in the database file; `RESERVED_BYTE` and `SHARED_FIRST` follow.
const PENDING_BYTE: u64 = 0x4000_0000;
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
const SHARED_FIRST: u64 = PENDING_BYTE + 2;
/// `UNIX_SHM_BASE` + `WAL_WRITE_LOCK` in the `-shm` file.
const WAL_WRITE_BYTE: u64 = 120;
/// Most processes and open files looked at.
const PROCESSES_MAX: usize = 100_000;
const FILES_MAX: usize = 65_536;
/// How far up a process's ancestors are followed.
const ANCESTORS_MAX: usize = 64;

#[derive(Clone, Copy)]
pub(super) enum Signal {
    Term,
    Kill,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Database,
    Shm,
}

struct Watched {
    role: Role,
    dev: u64,
    ino: u64,
}

/// One write lock from the kernel's list.
#[derive(Debug, PartialEq)]
struct Lock<'l> {
    /// `None` for locks that belong to an open file, not to a process.
    pid: Option<u32>,
    /// `major:minor:inode`, as printed.
    place: &'l str,
    start: u64,
    end: u64,
}

pub(super) fn find(db: &Path) -> Result<Vec<LockHolder>, LockError> {
    let watched = watched(db)?;
    let text = fs::read_to_string("/proc/locks").map_err(|source| LockError::Io {
        what: "/proc/locks".into(),
        source,
    })?;
    let mut found: Vec<(u32, LockKind)> = Vec::new();
    // Nothing under our device number proves nothing: some file systems print another one than they show.
    let mut named = false;
    let mut locked = false;
    for lock in text.lines().filter_map(parse) {
        let Some((w, kind)) = watched
            .iter()
            .filter(|w| w.is_at(lock.place))
            .find_map(|w| Some((w, kind(w.role, lock.start, lock.end)?)))
        else {
            continue;
        };
        debug_assert!(w.ino > 0);
        locked = true;
        if let Some(pid) = lock.pid {
            named = true;
            found.push((pid, kind));
        }
    }
    if !named {
        scan(&watched, &mut found);
    }
    let mut holders: Vec<LockHolder> = Vec::new();
    for (pid, kind) in found {
        if holders.iter().all(|h| h.pid != pid)
            && let Some(holder) = describe(pid, kind)
        {
            holders.push(holder);
        }
    }
    if holders.is_empty() && locked && !named {
        return Err(LockError::Hidden { db: db.to_owned() });
    }
    Ok(holders)
}

fn watched(db: &Path) -> Result<Vec<Watched>, LockError> {
    let of = |path: &Path, role| {
        fs::metadata(path).map(|m| Watched {
            role,
            dev: m.dev(),
            ino: m.ino(),
        })
    };
    let mut out = vec![of(db, Role::Database).map_err(|source| LockError::Io {
        what: db.display().to_string(),
        source,
    })?];
    let mut shm = fs::canonicalize(db)
        .unwrap_or_else(|_| db.to_owned())
        .into_os_string();
    shm.push("-shm");
    if let Ok(w) = of(&PathBuf::from(shm), Role::Shm) {
        out.push(w);
    }
    Ok(out)
}

impl Watched {
    fn is_at(&self, place: &str) -> bool {
        let mut parts = place.split(':');
        let hex = |s: Option<&str>| s.and_then(|s| u32::from_str_radix(s, 16).ok());
        let (major, minor) = (hex(parts.next()), hex(parts.next()));
        let ino = parts.next().and_then(|s| s.parse::<u64>().ok());
        major == Some(rustix::fs::major(self.dev))
            && minor == Some(rustix::fs::minor(self.dev))
            && ino == Some(self.ino)
    }
}

/// Reads `1: POSIX  ADVISORY  WRITE 12345 fd:01:131090 120 120`; only write locks, and none that merely wait.
fn parse(line: &str) -> Option<Lock<'_>> {
    let mut words = line.split_ascii_whitespace();
    words.next()?.strip_suffix(':')?;
    let class = words.next()?;
    if class != "POSIX" && class != "OFDLCK" {
        return None;
    }
    words.next()?;
    if words.next()? != "WRITE" {
        return None;
    }
    let pid = words
        .next()?
        .parse::<i64>()
        .ok()
        .and_then(|p| u32::try_from(p).ok())
        .filter(|p| *p > 0);
    let place = words.next()?;
    let start = words.next()?.parse().ok()?;
    let end = match words.next()? {
        "EOF" => u64::MAX,
        n => n.parse().ok()?,
    };
    Some(Lock {
        pid,
        place,
        start,
        end,
    })
}

fn kind(role: Role, start: u64, end: u64) -> Option<LockKind> {
    let covers = |byte: u64| (start..=end).contains(&byte);
    match role {
        Role::Shm => covers(WAL_WRITE_BYTE).then_some(LockKind::WalWrite),
        Role::Database if covers(SHARED_FIRST) => Some(LockKind::Exclusive),
        Role::Database if covers(PENDING_BYTE) => Some(LockKind::Pending),
        Role::Database if covers(RESERVED_BYTE) => Some(LockKind::Reserved),
        Role::Database => None,
    }
}

/// Looks through every process that may be looked into for an open file that is one of ours and is locked.
fn scan(watched: &[Watched], found: &mut Vec<(u32, LockKind)>) {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten().take(PROCESSES_MAX) {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for file in files.flatten().take(FILES_MAX) {
            let Ok(meta) = fs::metadata(file.path()) else {
                continue;
            };
            let Some(w) = watched
                .iter()
                .find(|w| (w.dev, w.ino) == (meta.dev(), meta.ino()))
            else {
                continue;
            };
            let info = process.path().join("fdinfo").join(file.file_name());
            let Ok(info) = fs::read_to_string(info) else {
                continue;
            };
            found.extend(
                info.lines()
                    .filter_map(|l| parse(l.strip_prefix("lock:")?.trim()))
                    .filter_map(|l| kind(w.role, l.start, l.end))
                    .map(|k| (pid, k)),
            );
        }
    }
}

fn describe(pid: u32, kind: LockKind) -> Option<LockHolder> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let mut command = process
        .cmdline()
        .map(|words| words.join(" "))
        .unwrap_or_default();
    if command.is_empty() {
        command = stat.comm;
    }
    let mut end = command.len().min(COMMAND_LEN_MAX);
    while !command.is_char_boundary(end) {
        end -= 1;
    }
    command.truncate(end);
    Some(LockHolder {
        pid,
        started: stat.starttime,
        command,
        uid: process.uid().ok()?,
        kind,
    })
}

pub(super) fn with_ancestors(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = pid;
    while family.len() < ANCESTORS_MAX {
        let parent = i32::try_from(at)
            .ok()
            .and_then(|p| procfs::process::Process::new(p).ok())
            .and_then(|p| p.stat().ok())
            .and_then(|s| u32::try_from(s.ppid).ok());
        match parent {
            Some(p) if p > 1 => {
                family.push(p);
                at = p;
            }
            _ => break,
        }
    }
    family
}

pub(super) fn may_signal(uid: u32) -> bool {
    let own = geteuid();
    own.is_root() || own.as_raw() == uid
}

/// Signals exactly the process that was found: the descriptor is bound to it before its start time is compared.
pub(super) fn signal(holder: &LockHolder, signal: Signal) -> Result<(), LockError> {
    let io = |source: rustix::io::Errno| LockError::Io {
        what: format!("process {}", holder.pid),
        source: source.into(),
    };
    let gone = rustix::io::Errno::SRCH;
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(e) if e == gone => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    let same = describe(holder.pid, holder.kind)
        .is_some_and(|now| now.is(holder) && now.command == holder.command);
    if !same {
        // The number belongs to somebody else now, or the program became another one: not ours to signal.
        return Ok(());
    }
    let signal = match signal {
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
    };
    match pidfd_send_signal(&fd, signal) {
        Err(e) if e != gone => Err(io(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_list() {
        assert_eq!(
            parse("1: POSIX  ADVISORY  WRITE 12345 fd:01:131090 120 120"),
            Some(Lock {
                pid: Some(12345),
                place: "fd:01:131090",
                start: 120,
                end: 120
            })
        );
        let ofd = parse("7: OFDLCK ADVISORY  WRITE -1 fd:01:9 1073741824 EOF").unwrap();
        assert_eq!((ofd.pid, ofd.end), (None, u64::MAX));
        for other in [
            "1: -> POSIX  ADVISORY  WRITE 1 fd:01:1 120 120",
            "1: POSIX  ADVISORY  READ 1 fd:01:1 120 120",
            "1: FLOCK  ADVISORY  WRITE 1 fd:01:1 0 EOF",
            "",
            "1:",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn knows_the_lock_bytes() {
        let db = |a, b| kind(Role::Database, a, b);
        assert_eq!(db(RESERVED_BYTE, RESERVED_BYTE), Some(LockKind::Reserved));
        assert_eq!(db(PENDING_BYTE, RESERVED_BYTE), Some(LockKind::Pending));
        assert_eq!(
            db(PENDING_BYTE, SHARED_FIRST + 509),
            Some(LockKind::Exclusive)
        );
        assert_eq!(db(0, 100), None);
        assert_eq!(kind(Role::Shm, 120, 120), Some(LockKind::WalWrite));
        assert_eq!(kind(Role::Shm, 121, 128), None);
    }
}
