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
