//! What this thread used of a processor.

use std::time::Duration;

/// Processor time of the calling thread since it began; nothing where this system does not tell.
#[cfg(unix)]
pub(crate) fn used() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};

    let t = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(t.tv_sec).ok()?;
    let nanos = u32::try_from(t.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanos))
}

/// Processor time of the calling thread since it began; nothing where this system does not tell.
#[cfg(not(unix))]
pub(crate) fn used() -> Option<Duration> {
    None
}

/// How long the calling thread was ready to run and did not get a processor, since it began; nothing where this system does
/// not tell.
#[cfg(target_os = "linux")]
pub(crate) fn waited() -> Option<Duration> {
    // Time on a processor, time waiting for one, both in nanoseconds, and the number of turns.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let waited = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(waited))
}

/// How long the calling thread was ready to run and did not get a processor; nothing where this system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn waited() -> Option<Duration> {
    None
}
