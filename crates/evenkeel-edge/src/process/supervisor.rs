//! Keeps the target's services as one wants them: started, stopped, restarted, watched.
//!
//! A [`Supervisor`] is a cheap handle; clones mean the same services. Operations on one service happen one after
//! another, on different services side by side. Dropping an operation's future leaves the service where it is and
//! its state known. When the last handle is dropped, or Evenkeel dies, the services go on running: the next
//! supervisor over the same data directory takes them up again.
//!
//! It decides nothing: a service that ends is reported, and stays down until somebody asks for it.

mod attach;
mod operate;
mod start;
mod stop;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use evenkeel_core::Timestamp;
use evenkeel_core::redact::{Redactor, is_secret_key};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch as watch_channel};

use super::error::SuperviseError;
use super::event::{Exit, Origin, ServiceEvent, ServiceStatus};
use super::procinfo::{self, ProcessId};
use super::record::Records;
use super::{control, spawn};
use crate::collect::probe::{Prober, now};
use crate::target::{ServiceSpec, Target};

pub use watch::Responsiveness;

/// Events that a slow subscriber may fall behind before it misses the oldest.
const EVENTS_LEN_MAX: usize = 256;

/// What a supervisor is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The target, resolved ([`Target::resolve`]).
    pub target: Target,
    /// The data directory: `run/services.json` and `logs/<name>.out` lie below it.
    pub data_dir: PathBuf,
    /// Environment variables that no service gets to see, such as `AMP_API_KEY`. Their values are also hidden in
    /// whatever output an error quotes.
    pub scrub_env: Vec<String>,
    /// Sends readiness checks.
    pub prober: Prober,
}

impl Options {
    /// Options that hide nothing, with a prober of their own.
    pub fn new(target: Target, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            target,
            data_dir: data_dir.into(),
            scrub_env: Vec::new(),
            prober: Prober::new(),
        }
    }
}

/// What a start did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReport {
    /// The service.
    pub name: String,
    /// Its process.
    pub process: ProcessId,
    /// Whether it had been running before.
    pub was_running: bool,
    /// Until it was ready, in milliseconds.
    pub took_ms: u64,
}

/// What a stop did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// The service.
    pub name: String,
    /// The process that was ended; `None` when it was not running.
    pub process: Option<ProcessId>,
    /// Whether it had to be killed.
    pub forced: bool,
    /// Until it and its children were gone, in milliseconds.
    pub took_ms: u64,
}

/// What a restart did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// The service.
    pub name: String,
    /// The process before; `None` when it was not running.
    pub old: Option<ProcessId>,
    /// The process now.
    pub new: ProcessId,
    /// Whether the old one had to be killed.
    pub forced: bool,
    /// Until the old process was gone, in milliseconds.
    pub stopped_ms: u64,
    /// Until the new one was ready, in milliseconds.
    pub took_ms: u64,
}

/// Memory that the target's processes use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Resident memory of all running services with their children, in bytes.
    pub total_bytes: u64,
    /// The same for each running service, in bytes.
    pub by_service: BTreeMap<String, u64>,
    /// Services that do not run or could not be read: the total is without them.
    pub missing: Vec<String>,
}

/// Handle to the target's services.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    data_dir: PathBuf,
    scrub_env: Vec<String>,
    redactor: Redactor,
    prober: Prober,
    records: Records,
    events: broadcast::Sender<ServiceEvent>,
    slots: BTreeMap<String, Slot>,
}

/// A service and what is known about it.
struct Slot {
    spec: ServiceSpec,
    /// Held by the one operation that is going on.
    operation: tokio::sync::Mutex<()>,
    /// Held from the moment an exit is noticed until what is left of the service was looked for.
    sweeping: Arc<tokio::sync::Mutex<()>>,
    phase: watch_channel::Sender<Phase>,
    /// Processes of earlier runs that outlived their main process.
    leftovers: Mutex<Vec<ProcessId>>,
    /// Waits for the exit of the current process.
    watcher: Mutex<Option<tokio::task::AbortHandle>>,
}

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Running(Arc<Run>),
    Ended {
        process: ProcessId,
        exit: Exit,
        asked: bool,
        at: Timestamp,
    },
}

/// One process of a service, from when it is known until it ends.
#[derive(Debug)]
struct Run {
    process: ProcessId,
    origin: Origin,
    mark: Option<String>,
    since: Timestamp,
    begun: Instant,
    output_from: u64,
    ready: AtomicBool,
    /// Evenkeel was told to end it.
    asked: AtomicBool,
}

impl Run {
    fn members(&self) -> Vec<ProcessId> {
        control::members(&self.process, self.mark.as_deref())
    }
}

impl Slot {
    fn new(spec: ServiceSpec) -> Self {
        Self {
            spec,
            operation: tokio::sync::Mutex::default(),
            sweeping: Arc::default(),
            phase: watch_channel::Sender::new(Phase::Idle),
            leftovers: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    fn name(&self) -> &str {
        &self.spec.name
    }

    fn run(&self) -> Option<Arc<Run>> {
        match &*self.phase.borrow() {
            Phase::Running(run) => Some(Arc::clone(run)),
            _ => None,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for slot in self.slots.values() {
            let watcher = slot.watcher.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = &*watcher {
                task.abort();
            }
        }
    }
}

impl Supervisor {
    /// Supervises the target's services. What an earlier Evenkeel started and still runs is taken up at once;
    /// nothing is started. Must be called inside a tokio runtime with I/O and time.
    pub fn new(options: Options) -> Self {
        let Options {
            target,
            data_dir,
            scrub_env,
            prober,
        } = options;
        let from_env = scrub_env.iter().filter_map(|name| std::env::var(name).ok());
        let configured = target
            .services
            .iter()
            .flat_map(|s| &s.env)
            .filter(|(key, _)| is_secret_key(key))
            .map(|(_, value)| value.clone());
        let redactor = Redactor::new(from_env.chain(configured));
        let slots = target
            .services
            .iter()
            .map(|spec| (spec.name.clone(), Slot::new(spec.clone())))
            .collect();
        let records = Records::load(data_dir.join("run").join("services.json"));
        let supervisor = Self {
            inner: Arc::new(Inner {
                target,
                data_dir,
                scrub_env,
                redactor,
                prober,
                records,
                events: broadcast::Sender::new(EVENTS_LEN_MAX),
                slots,
            }),
        };
        for name in supervisor.inner.records.names() {
            if !supervisor.inner.slots.contains_key(&name) {
                tracing::warn!(
                    service = name,
                    record = %supervisor.inner.records.path().display(),
                    "was started by Evenkeel and is no longer configured; if it runs, it goes on unguarded"
                );
            }
        }
        for slot in supervisor.inner.slots.values() {
            supervisor.inner.take_up(slot);
        }
        supervisor
    }

    /// What happens to the services from now on. A subscriber that falls more than 256 events behind is told that
    /// it missed some; the state then stands in [`Self::status`].
    pub fn subscribe(&self) -> broadcast::Receiver<ServiceEvent> {
        self.inner.events.subscribe()
    }

    /// The names of the services, each after those it depends on.
    pub fn names(&self) -> Vec<String> {
        let order = self.inner.target.start_order().unwrap_or_default();
        order.iter().map(|s| s.name.clone()).collect()
    }

    /// The state of a service now. A service that one attaches to is looked for first.
    pub fn status(&self, name: &str) -> Result<ServiceStatus, SuperviseError> {
        let slot = self.inner.slot(name)?;
        if slot.run().is_none()
            && let Ok(_free) = slot.operation.try_lock()
        {
            self.inner.try_attach(slot);
        }
        Ok(match &*slot.phase.borrow() {
            Phase::Idle => ServiceStatus::NotStarted,
            Phase::Running(run) => ServiceStatus::Running {
                process: run.process.clone(),
                since: run.since,
                ready: run.ready.load(Ordering::Relaxed),
                origin: run.origin,
            },
            Phase::Ended {
                at, asked: true, ..
            } => ServiceStatus::Stopped { at: *at },
            Phase::Ended {
                process, exit, at, ..
            } => ServiceStatus::Down {
                process: process.clone(),
                exit: *exit,
                at: *at,
            },
        })
    }

    /// All living processes of a service, its main process first; empty when it does not run.
    pub fn processes(&self, name: &str) -> Result<Vec<ProcessId>, SuperviseError> {
        let slot = self.inner.slot(name)?;
        let Some(run) = slot.run() else {
            return Ok(Vec::new());
        };
        let mut members = run.members();
        members.sort_by_key(|p| (*p != run.process, p.start_ticks, p.pid));
        Ok(members)
    }

    /// Memory in use now, children included.
    pub fn memory(&self) -> MemoryUse {
        let mut memory = MemoryUse::default();
        for slot in self.inner.slots.values() {
            match slot
                .run()
                .and_then(|run| procinfo::tree_rss_bytes(&run.process))
            {
                Some(bytes) => {
                    memory.total_bytes += bytes;
                    memory.by_service.insert(slot.name().to_owned(), bytes);
                }
                None => memory.missing.push(slot.name().to_owned()),
            }
        }
        memory
    }

    /// The service that uses most memory now, with its bytes; `None` when none runs.
    pub fn heaviest(&self) -> Option<(String, u64)> {
        self.memory()
            .by_service
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("services", &self.names())
            .field("data_dir", &self.inner.data_dir)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn slot(&self, name: &str) -> Result<&Slot, SuperviseError> {
        self.slots
            .get(name)
            .ok_or_else(|| SuperviseError::UnknownService {
                name: name.chars().take(64).collect(),
                known: {
                    let mut known: Vec<&str> = self.slots.keys().map(String::as_str).collect();
                    known.sort_by_key(|k| strsim::damerau_levenshtein(k, name));
                    known.join(", ")
                },
            })
    }

    fn tell(&self, event: ServiceEvent) {
        // Nobody listening is fine: the state is kept apart from what is told.
        let _ = self.events.send(event);
    }

    fn output_tail(&self, slot: &Slot, from: u64) -> String {
        let path = spawn::output_path(&slot.spec, &self.data_dir);
        self.redactor.text(&spawn::output_tail(&path, from))
    }

    /// Marks a run as ready, once.
    fn ready(&self, slot: &Slot, run: &Run) {
        if !run.ready.swap(true, Ordering::Relaxed) {
            self.tell(ServiceEvent::Ready {
                name: slot.name().to_owned(),
                process: run.process.clone(),
                took_ms: millis_since(run.begun),
                at: now(),
            });
        }
    }
}

fn millis_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
