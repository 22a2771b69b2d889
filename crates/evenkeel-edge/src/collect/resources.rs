//! What the processes of one service use, and its control group where it has one of its own.
//!
//! Linux reads `/proc` and the files of cgroup v2; elsewhere a few of the figures are to be had. What cannot be read
//! is missing with its reason, never zero: a sum over processes of which one could not be read is missing too.
//!
//! | series, below `process/SERVICE/` | kind | what |
//! |---|---|---|
//! | `rss_bytes`, `pss_bytes` | gauge | resident memory of all its processes; the second counts a shared page once, and is read less often because it is dear |
//! | `cpu_cores` | rate | processor seconds a second |
//! | `cpu_seconds` | total | of the processes that live |
//! | `open_files`, `threads`, `processes` | gauge | |
//! | `open_files_share` | share | of its limit, of the process that is nearest to it |
//! | `restarts` | total | how often its main process has become another one since the collector began |
//!
//! | series, below `cgroup/SERVICE/` | kind | what |
//! |---|---|---|
//! | `memory_bytes` | gauge | `memory.current` |
//! | `memory_share` | share | of `memory.max`, where there is a limit |
//! | `oom_kills` | total | |
//! | `cpu_throttled_share` | share | of the periods, where the processor is limited |
//! | `cpu_throttled_cores` | rate | seconds throttled a second |
//! | `RESOURCE_SOME_avg10` | gauge | pressure stall of `cpu`, `memory` and `io`, `some` and `full`, in percent of the last ten seconds |
//! | `RESOURCE_SOME_stalled` | rate | the same from its total: seconds stalled a second |

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as sys;

#[cfg(any(not(target_os = "linux"), test))]
mod portable;
#[cfg(not(target_os = "linux"))]
use portable as sys;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_core::Timestamp;

use super::collected::{Collected, Collecting};
use super::reading::ReadingKind;
use crate::process::{ProcessId, Supervisor};

/// Most processes of one service whose figures are added up; with more the sums are missing.
const PROCESSES_MAX: usize = 512;
/// Least time between two readings of PSS of one service, in milliseconds: the kernel walks all pages for it.
const PSS_EVERY_MS: i64 = 60_000;

/// A figure, or why there is none.
type Figure<T> = Result<T, String>;

/// Where the system shows its figures; to be changed by tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`. Where version 2 is mounted at `unified` below it, that is found.
    pub cgroup: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            cgroup: PathBuf::from("/sys/fs/cgroup"),
        }
    }
}

impl Roots {
    /// The memory of the control group of exactly this process. Reads a few small files.
    ///
    /// # Errors
    ///
    /// The reason, in words, why there is none: the process has ended, shares the group of Evenkeel, or the system has no
    /// control groups of version 2 with the memory controller.
    pub fn group_memory(&self, process: &ProcessId) -> Result<GroupMemory, String> {
        sys::group_memory(self, process)
    }
}

/// What a control group of a service's own is charged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    /// The group, which other services may be in too.
    pub directory: PathBuf,
    /// Memory of all its processes, of what they share, and of the kernel for them, that cannot be dropped: of
    /// `memory.stat` all but files and reclaimable slabs. In bytes.
    pub bytes: u64,
}

/// What one process uses.
#[derive(Clone, Debug, PartialEq)]
struct ProcessFigures {
    rss_bytes: Figure<u64>,
    /// `None` when it was not asked for.
    pss_bytes: Option<Figure<u64>>,
    cpu_ms: Figure<u64>,
    open_files: Figure<u64>,
    /// `None` for no limit.
    open_files_max: Figure<Option<u64>>,
    threads: Figure<u64>,
}

/// What a control group says.
#[derive(Clone, Debug, PartialEq)]
struct GroupFigures {
    memory_bytes: Figure<u64>,
    /// `None` for no limit.
    memory_max_bytes: Figure<Option<u64>>,
    oom_kills: Figure<u64>,
    /// `None` where the processor is not limited.
    throttling: Figure<Option<Throttling>>,
    /// By its name, such as `cpu_some`.
    pressure: Vec<(&'static str, Figure<Pressure>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Throttling {
    periods: u64,
    throttled: u64,
    throttled_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Pressure {
    /// Percent of the last ten seconds.
    avg10: f64,
    /// Microseconds.
    total_us: u64,
}

/// What is kept of one service from look to look.
#[derive(Debug, Default)]
struct Known {
    at: Timestamp,
    main: Option<ProcessId>,
    restarts: u64,
    pss_at: Option<Timestamp>,
    /// `None` when it could not be read of each process.
    cpu_ms: Option<BTreeMap<ProcessId, u64>>,
    throttling: Option<Throttling>,
    stalled_us: BTreeMap<&'static str, u64>,
}

/// Reads the figures of services, one look after the other.
#[derive(Debug, Default)]
pub struct ResourceCollector {
    roots: Roots,
    known: BTreeMap<Arc<str>, Known>,
}

impl ResourceCollector {
    /// One that reads below these roots.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            known: BTreeMap::new(),
        }
    }

    /// One look at every service that is supervised. Reads files, and so may take some milliseconds.
    pub fn collect(&mut self, supervisor: &Supervisor, at: Timestamp) -> Collected {
        let mut all = Collected::default();
        let names = supervisor.names();
        self.known
            .retain(|name, _| names.iter().any(|n| **n == **name));
        for name in names {
            let processes = supervisor.processes(&name).unwrap_or_default();
            all.extend(self.collect_one(&name.into(), &processes, at));
        }
        all
    }

    /// One look at one service: `processes` are all of its own, the main one first.
    pub fn collect_one(
        &mut self,
        service: &Arc<str>,
        processes: &[ProcessId],
        at: Timestamp,
    ) -> Collected {
        let known = self.known.entry(Arc::clone(service)).or_default();
        let seconds = at.millis_since(known.at) as f64 / 1000.0;
        known.at = at;
        let name = format!("process/{service}");
        let mut out = Collecting::new(name, Some(Arc::clone(service)), at);
        let Some(main) = processes.first() else {
            forget(known);
            out.missing("*", "no process of it runs");
            return out.collected;
        };
        if known.main.as_ref().is_some_and(|m| m != main) {
            known.restarts = known.restarts.saturating_add(1);
            forget(known);
        }
        known.main = Some(main.clone());
        out.put("restarts", ReadingKind::Total, known.restarts as f64);
        if processes.len() > PROCESSES_MAX {
            forget(known);
            let reason = format!("it has more than {PROCESSES_MAX} processes");
            out.missing("*", reason);
            return out.collected;
        }
        let with_pss = known
            .pss_at
            .is_none_or(|last| !(0..PSS_EVERY_MS).contains(&at.millis_since(last)));
        let figures: Vec<(ProcessId, ProcessFigures)> = processes
            .iter()
            .filter_map(|p| Some((p.clone(), sys::figures(&self.roots, p, with_pss)?)))
            .collect();
        if figures.is_empty() {
            forget(known);
            out.missing("*", "its processes have just ended");
            return out.collected;
        }
        if with_pss {
            known.pss_at = Some(at);
        }
        put_sums(&mut out, &figures, with_pss);
        put_cpu(&mut out, known, &figures, seconds);
        let mut collected = out.collected;
        let name = format!("cgroup/{service}");
        let mut out = Collecting::new(name, Some(Arc::clone(service)), at);
        match sys::group(&self.roots, main) {
            Ok(group) => put_group(&mut out, known, &group, seconds),
            Err(reason) => {
                known.throttling = None;
                known.stalled_us.clear();
                out.missing("*", reason);
            }
        }
        collected.extend(out.collected);
        collected
    }
}

/// There is nothing to compare the next figures with.
fn forget(known: &mut Known) {
    known.cpu_ms = None;
    known.throttling = None;
    known.stalled_us.clear();
    known.pss_at = None;
}

fn put_sums(out: &mut Collecting, figures: &[(ProcessId, ProcessFigures)], with_pss: bool) {
    let sum = |of: &dyn Fn(&ProcessFigures) -> Figure<u64>| {
        let each = figures.iter().map(|(_, f)| of(f));
        each.sum::<Figure<u64>>().map(|n| n as f64)
    };
    out.put("processes", ReadingKind::Gauge, figures.len() as f64);
    out.figure(
        "rss_bytes",
        ReadingKind::Gauge,
        sum(&|f| f.rss_bytes.clone()),
    );
    if with_pss {
        let of = |f: &ProcessFigures| f.pss_bytes.clone().unwrap_or(Ok(0));
        out.figure("pss_bytes", ReadingKind::Gauge, sum(&of));
    }
    out.figure(
        "open_files",
        ReadingKind::Gauge,
        sum(&|f| f.open_files.clone()),
    );
    out.figure("threads", ReadingKind::Gauge, sum(&|f| f.threads.clone()));
    // The process that is nearest to its limit; those without one are left out.
    let mut nearest: Option<(f64, u64)> = None;
    for (_, f) in figures {
        match (&f.open_files, &f.open_files_max) {
            (Ok(_), Ok(None)) => {}
            (Ok(open), Ok(Some(max))) => {
                let share = *open as f64 / (*max).max(1) as f64;
                if nearest.is_none_or(|(most, _)| share > most) {
                    nearest = Some((share, *max));
                }
            }
            (Err(reason), _) | (_, Err(reason)) => {
                return out.missing("open_files_share", reason.as_str());
            }
        }
    }
    if let Some((share, n)) = nearest {
        out.put("open_files_share", ReadingKind::Share { n }, share.min(1.0));
    }
}

fn put_cpu(
    out: &mut Collecting,
    known: &mut Known,
    figures: &[(ProcessId, ProcessFigures)],
    seconds: f64,
) {
    let each = figures
        .iter()
        .map(|(id, f)| Ok((id.clone(), f.cpu_ms.clone()?)));
    let now: BTreeMap<ProcessId, u64> = match each.collect::<Figure<_>>() {
        Ok(now) => now,
        Err(reason) => {
            known.cpu_ms = None;
            out.missing("cpu_seconds", reason.as_str());
            return out.missing("cpu_cores", reason);
        }
    };
    let total: u64 = now.values().sum();
    out.put("cpu_seconds", ReadingKind::Total, total as f64 / 1000.0);
    if let Some(before) = &known.cpu_ms
        && seconds > 0.0
    {
        // A process that came since has used all of its time since; what one that ended used last is not known.
        let used =
            |(id, ms): (&ProcessId, &u64)| ms.saturating_sub(before.get(id).copied().unwrap_or(0));
        let used: u64 = now.iter().map(used).sum();
        out.put(
            "cpu_cores",
            ReadingKind::Rate,
            used as f64 / 1000.0 / seconds,
        );
    }
    known.cpu_ms = Some(now);
}

fn put_group(out: &mut Collecting, known: &mut Known, group: &GroupFigures, seconds: f64) {
    let memory = group.memory_bytes.clone();
    out.figure(
        "memory_bytes",
        ReadingKind::Gauge,
        memory.clone().map(|n| n as f64),
    );
    match (memory, &group.memory_max_bytes) {
        (_, Ok(None)) => {}
        (Ok(used), Ok(Some(max))) => {
            let share = used as f64 / (*max).max(1) as f64;
            out.put(
                "memory_share",
                ReadingKind::Share { n: *max },
                share.min(1.0),
            );
        }
        (Err(reason), _) => out.missing("memory_share", reason),
        (_, Err(reason)) => out.missing("memory_share", reason.as_str()),
    }
    let kills = group.oom_kills.clone();
    out.figure("oom_kills", ReadingKind::Total, kills.map(|n| n as f64));
    match &group.throttling {
        Ok(None) => known.throttling = None,
        Err(reason) => {
            known.throttling = None;
            out.missing("cpu_throttled_share", reason.as_str());
            out.missing("cpu_throttled_cores", reason.as_str());
        }
        Ok(Some(now)) => {
            if let Some(before) = known.throttling.replace(*now) {
                put_throttling(out, before, *now, seconds);
            }
        }
    }
    for (name, pressure) in &group.pressure {
        match pressure {
            Ok(pressure) => {
                out.put(&format!("{name}_avg10"), ReadingKind::Gauge, pressure.avg10);
                let before = known.stalled_us.insert(name, pressure.total_us);
                let grown = before.and_then(|before| pressure.total_us.checked_sub(before));
                if let Some(us) = grown.filter(|_| seconds > 0.0) {
                    let stalled = us as f64 / 1e6 / seconds;
                    out.put(&format!("{name}_stalled"), ReadingKind::Rate, stalled);
                }
            }
            Err(reason) => {
                known.stalled_us.remove(name);
                out.missing(&format!("{name}_avg10"), reason.as_str());
                out.missing(&format!("{name}_stalled"), reason.as_str());
            }
        }
    }
}

/// Nothing when a counter went back: the group is another one of the same name.
fn put_throttling(out: &mut Collecting, before: Throttling, now: Throttling, seconds: f64) {
    let periods = now.periods.checked_sub(before.periods);
    let throttled = now.throttled.checked_sub(before.throttled);
    let us = now.throttled_us.checked_sub(before.throttled_us);
    let (Some(n), Some(throttled), Some(us)) = (periods, throttled, us) else {
        return;
    };
    if n > 0 {
        let share = (throttled as f64 / n as f64).min(1.0);
        out.put("cpu_throttled_share", ReadingKind::Share { n }, share);
    }
    if seconds > 0.0 {
        out.put(
            "cpu_throttled_cores",
            ReadingKind::Rate,
            us as f64 / 1e6 / seconds,
        );
    }
}

#[cfg(test)]
mod tests;
