//! Which process holds a SQLite database's write lock, and stopping it where the configuration permits that.
//!
//! Nothing here opens the database: the kernel's own list of locks is read (`/proc/locks`, `/proc/*/fdinfo`), and
//! SQLite's lock bytes are looked for (<https://sqlite.org/fileformat2.html#the_lock_byte_page>, `os.h` and `wal.c`).
//! Other systems than Linux offer no such list; there the answer is an error that says so.

#[cfg(target_os = "linux")]
#[path = "lock_holder/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "lock_holder/other.rs"]
mod imp;

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two looks, in milliseconds.
const LOOK_EVERY_MS: u64 = 20;
/// How long a killed process may take to vanish, in milliseconds.
const KILLED_WITHIN_MS: u64 = 5_000;
/// Longest command line that is kept, in bytes.
pub const COMMAND_LEN_MAX: usize = 512;

/// What kind of write lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// WAL mode: the one writer.
    WalWrite,
    /// Rollback mode: a writer that others may still read beside.
    Reserved,
    /// Rollback mode: a writer that waits for the last readers.
    Pending,
    /// Nobody else may read or write.
    Exclusive,
}

/// A process that holds the write lock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LockHolder {
    /// Its number.
    pub pid: u32,
    /// Its start, in clock ticks since boot: with the number, what makes it itself and no other.
    pub started: u64,
    /// Its command line, at most [`COMMAND_LEN_MAX`] bytes.
    pub command: String,
    /// The user it runs as.
    pub uid: u32,
    /// What it holds.
    pub kind: LockKind,
}

impl LockHolder {
    fn is(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started == other.started
    }
}

/// Why nothing was found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// This system does not tell.
    #[error("who holds a lock cannot be found out here: {reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
    },
    /// The system's answer could not be read.
    #[error("{what} cannot be read: {source}")]
    Io {
        /// What was looked at.
        what: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Somebody holds the lock, and who that is cannot be seen.
    #[error("{} is locked by a process that cannot be identified: run Evenkeel as the same user", db.display())]
    Hidden {
        /// The database.
        db: std::path::PathBuf,
    },
    /// The configuration does not permit stopping this program.
    #[error(
        "process {pid} (`{command}`) holds the lock, and nothing permits stopping it: name a part of its command line in `may_stop_lock_holders` of [target.database]"
    )]
    NotPermitted {
        /// Its number.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// Evenkeel itself holds the lock.
    #[error("Evenkeel itself holds the lock (process {pid})")]
    OwnProcess {
        /// Its number.
        pid: u32,
    },
    /// One of the target's services holds the lock.
    #[error(
        "the target's own service `{service}` holds the lock (process {pid}, `{command}`): it is restarted, not stopped as a stranger"
    )]
    OwnService {
        /// The service.
        service: String,
        /// The process: the service itself or a child of it.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// It runs as somebody else.
    #[error(
        "process {pid} (`{command}`) holds the lock and belongs to user {uid}; Evenkeel may not stop it"
    )]
    OtherUser {
        /// Its number.
        pid: u32,
        /// Its command line.
        command: String,
        /// The user.
        uid: u32,
    },
    /// Even SIGKILL did not end it in time.
    #[error("process {pid} (`{command}`) was killed and still holds the lock after {waited_ms} ms")]
    Survived {
        /// Its number.
        pid: u32,
        /// Its command line.
        command: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
}

/// What may be stopped, and how long it has.
#[derive(Clone, Debug, Default)]
pub struct StopPolicy {
    /// Parts of command lines (`DatabaseSpec::may_stop_lock_holders`); empty ones permit nothing.
    pub may_stop: Vec<String>,
    /// The target's own services and the numbers of their processes: never stopped this way.
    pub own_services: Vec<(String, u32)>,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub graceful_ms: u64,
}

/// A lock that one process held the whole time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub holder: LockHolder,
    /// How long it was watched, in milliseconds; it may have held it longer.
    pub held_ms: u64,
}

/// How a holder was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Whether SIGKILL was needed.
    pub forced: bool,
    /// How long it took to let go, in milliseconds.
    pub waited_ms: u64,
    /// Who holds the lock now, if somebody else took it at once.
    pub next: Option<LockHolder>,
}

/// The processes that hold the write lock of this database now; usually none or one.
///
/// Reads `/proc`: a few milliseconds, blocking.
pub fn find(db: &Path) -> Result<Vec<LockHolder>, LockError> {
    imp::find(db)
}

/// The process that holds the write lock at every look over `held_ms`; `None` when nobody does the whole time.
pub async fn hold_confirmed(db: &Path, held_ms: u64) -> Result<Option<Held>, LockError> {
    let begun = Instant::now();
    let whole = Duration::from_millis(held_ms);
    let mut holders = look(db).await?;
    while !holders.is_empty() && begun.elapsed() < whole {
        let left = whole.saturating_sub(begun.elapsed());
        sleep(left.min(Duration::from_millis(LOOK_EVERY_MS))).await;
        let now = look(db).await?;
        holders.retain(|h| now.iter().any(|n| n.is(h)));
    }
    Ok(holders.into_iter().next().map(|holder| Held {
        holder,
        held_ms: millis(begun.elapsed()),
    }))
}

/// Whether this holder may be stopped.
pub fn permitted(holder: &LockHolder, policy: &StopPolicy) -> Result<(), LockError> {
    let (pid, command) = (holder.pid, holder.command.clone());
    if pid == std::process::id() {
        return Err(LockError::OwnProcess { pid });
    }
    let family = imp::with_ancestors(pid);
    if let Some((service, _)) = policy
        .own_services
        .iter()
        .find(|(_, own)| family.contains(own))
    {
        return Err(LockError::OwnService {
            service: service.clone(),
            pid,
            command,
        });
    }
    let named = policy
        .may_stop
        .iter()
        .any(|part| !part.trim().is_empty() && command.contains(part.as_str()));
    if !named || pid <= 1 {
        return Err(LockError::NotPermitted { pid, command });
    }
    if !imp::may_signal(holder.uid) {
        return Err(LockError::OtherUser {
            pid,
            command,
            uid: holder.uid,
        });
    }
    Ok(())
}

/// Stops a holder: SIGTERM, time to end by itself, SIGKILL; done when it no longer holds the lock.
///
/// Immediately before each signal the process is checked to be the one that was found, to hold the lock still, and
/// to be permitted. A holder that let go meanwhile is left alone.
pub async fn stop(
    db: &Path,
    holder: &LockHolder,
    policy: &StopPolicy,
) -> Result<Stopped, LockError> {
    permitted(holder, policy)?;
    let begun = Instant::now();
    let mut forced = false;
    for (signal, wait_ms) in [
        (imp::Signal::Term, policy.graceful_ms),
        (imp::Signal::Kill, KILLED_WITHIN_MS),
    ] {
        let Some(now) = look(db).await?.into_iter().find(|h| h.is(holder)) else {
            break;
        };
        permitted(&now, policy)?;
        forced = matches!(signal, imp::Signal::Kill);
        imp::signal(&now, signal)?;
        if !let_go(db, holder, Duration::from_millis(wait_ms)).await? && forced {
            return Err(LockError::Survived {
                pid: holder.pid,
                command: holder.command.clone(),
                waited_ms: millis(begun.elapsed()),
            });
        }
    }
    Ok(Stopped {
        forced,
        waited_ms: millis(begun.elapsed()),
        next: look(db).await?.into_iter().next(),
    })
}

async fn let_go(db: &Path, holder: &LockHolder, within: Duration) -> Result<bool, LockError> {
    let deadline = Instant::now() + within;
    loop {
        if !look(db).await?.iter().any(|h| h.is(holder)) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
}

async fn look(db: &Path) -> Result<Vec<LockHolder>, LockError> {
    let db = db.to_owned();
    tokio::task::spawn_blocking(move || find(&db))
        .await
        .unwrap_or_else(|e| {
            Err(LockError::Unsupported {
                reason: e.to_string(),
            })
        })
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
