//! Everywhere else: what `sysinfo` tells of a process.

use super::{Figure, GroupFigures, GroupMemory, ProcessFigures, Roots};
use crate::process::{ProcessId, procinfo};

fn no<T>() -> Figure<T> {
    Err("this system does not tell".to_owned())
}

/// Of exactly this process; `None` when it has ended.
pub(super) fn figures(_: &Roots, process: &ProcessId, with_pss: bool) -> Option<ProcessFigures> {
    Some(ProcessFigures {
        rss_bytes: Ok(procinfo::rss_bytes(process)?),
        pss_bytes: with_pss.then(no),
        cpu_ms: procinfo::cpu_ms(process).map_or_else(no, Ok),
        open_files: no(),
        open_files_max: no(),
        threads: no(),
    })
}

/// Control groups are Linux's.
pub(super) fn group(_: &Roots, _: &ProcessId) -> Figure<GroupFigures> {
    no()
}

/// Likewise.
pub(super) fn group_memory(_: &Roots, _: &ProcessId) -> Figure<GroupMemory> {
    no()
}
