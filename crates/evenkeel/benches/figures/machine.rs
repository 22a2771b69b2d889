//! The machine that measures: its clock, its load, what it is.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a clock that all processes share and that nobody sets.
pub(crate) fn now_ms() -> f64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

/// The three load averages.
#[derive(Clone, Debug)]
pub(crate) struct Load(String);

impl Load {
    pub(crate) fn now() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let first: Vec<&str> = text.split_whitespace().take(3).collect();
        Self(first.join(" "))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the machine is and how busy it was, in Markdown.
pub(crate) fn describe(before: &Load) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name.trim());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb: f64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
        .and_then(|kb| kb.trim().parse().ok())
        .unwrap_or(0.0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Linux {}, {model}, {cores} cores, {:.0} GB; load averages before {before}, after {}.\n",
        kernel.trim(),
        kb / 1_048_576.0,
        Load::now()
    )
}
