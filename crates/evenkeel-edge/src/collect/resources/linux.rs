//! Linux: `/proc`.

use std::path::{Path, PathBuf};

use procfs::ProcError;
use procfs::process::LimitValue;

use super::{Figure, GroupFigures, GroupMemory, ProcessFigures, Roots, cgroup};
use crate::process::ProcessId;
use crate::process::procinfo::linux::exact_in;

/// Of exactly this process; `None` when it has ended.
pub(super) fn figures(
    roots: &Roots,
    process: &ProcessId,
    with_pss: bool,
) -> Option<ProcessFigures> {
    let (found, stat) = exact_in(&roots.proc, process)?;
    if matches!(stat.state, 'Z' | 'X' | 'x') {
        return None;
    }
    let pss_bytes = with_pss.then(|| {
        let maps = found.smaps_rollup().map_err(why)?;
        let pss = maps
            .memory_map_rollup
            .iter()
            .map(|m| m.extension.map.get("Pss"));
        // A process without memory of its own, such as one of the kernel's, has an empty page here.
        let pss: Option<u64> = pss.sum();
        pss.ok_or_else(|| "smaps_rollup has no Pss".to_owned())
    });
    let open_files_max =
        found
            .limits()
            .map_err(why)
            .map(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Unlimited => None,
                LimitValue::Value(max) => Some(max),
            });
    let figures = ProcessFigures {
        rss_bytes: Ok(stat.rss * procfs::page_size()),
        pss_bytes,
        cpu_ms: Ok((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second()),
        open_files: found.fd_count().map(|n| n as u64).map_err(why),
        open_files_max,
        threads: u64::try_from(stat.num_threads).map_err(|_| "stat has no threads".to_owned()),
    };
    // It may have ended in between, and what could not be read then is no fault.
    exact_in(&roots.proc, process).map(|_| figures)
}

/// What the control group of exactly this process says.
pub(super) fn group(roots: &Roots, process: &ProcessId) -> Figure<GroupFigures> {
    cgroup::figures(&own_group(roots, process)?)
}

/// What its own group is charged with and keeps, and that group.
pub(super) fn group_memory(roots: &Roots, process: &ProcessId) -> Figure<GroupMemory> {
    let directory = own_group(roots, process)?;
    Ok(GroupMemory {
        bytes: cgroup::kept_bytes(&directory)?,
        directory,
    })
}

/// The directory of the control group of exactly this process, where it has one of its own.
fn own_group(roots: &Roots, process: &ProcessId) -> Figure<PathBuf> {
    let of = |pid: &str| {
        let path = roots.proc.join(pid).join("cgroup");
        cgroup::path_in(&cgroup::read(&path)?)
    };
    if exact_in(&roots.proc, process).is_none() {
        return Err("its main process has just ended".to_owned());
    }
    let own = of(&process.pid.to_string())?;
    if own == "/" {
        return Err("it has no control group of its own: it is in the topmost one".to_owned());
    }
    if of("self").is_ok_and(|path| path == own) {
        return Err("it has no control group of its own: it shares that of Evenkeel".to_owned());
    }
    let unified = roots.cgroup.join("unified");
    let base: &Path = if unified.join("cgroup.controllers").is_file() {
        &unified
    } else {
        &roots.cgroup
    };
    Ok(base.join(own.trim_start_matches('/')))
}

fn why(error: ProcError) -> String {
    match error {
        ProcError::PermissionDenied(_) => {
            "it may not be read: the process belongs to another user".to_owned()
        }
        other => other.to_string(),
    }
}
