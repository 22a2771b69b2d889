//! Waits to the tens of microseconds. The runtime's own timers count milliseconds, which is late by more than a
//! request may be.

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A `timerfd` of Linux.
    #[derive(Debug)]
    pub(crate) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(crate) fn new() -> io::Result<Self> {
            let fd = timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?;
            #[expect(
                deprecated,
                reason = "what can lie about its descriptor is unsound in it; an `OwnedFd` cannot"
            )]
            let fd = AsyncFd::new(fd)?;
            Ok(Self(fd))
        }

        /// Waits until `when`, and not longer than needed.
        pub(crate) async fn until(&mut self, when: Instant) {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Setting it anew makes it count from nothing; an earlier expiry that nobody read is gone.
            let value = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(left),
            };
            if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value).is_err() {
                return tokio::time::sleep_until(when.into()).await;
            }
            loop {
                let Ok(mut ready) = self.0.readable().await else {
                    return tokio::time::sleep_until(when.into()).await;
                };
                ready.clear_ready();
                // Readiness may be left from before.
                if Instant::now() >= when {
                    return;
                }
            }
        }
    }

    fn timespec(d: Duration) -> Timespec {
        Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::time::Instant;

    /// The runtime's timer, which counts milliseconds.
    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        #[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn until(&mut self, when: Instant) {
            tokio::time::sleep_until(when.into()).await;
        }
    }
}

pub(crate) use system::Timer;

#[cfg(test)]
mod tests {
    use super::Timer;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn it_is_never_early() {
        let mut timer = Timer::new().unwrap();
        for micros in [0, 50, 700, 3_000, 10] {
            let when = Instant::now() + Duration::from_micros(micros);
            timer.until(when).await;
            assert!(Instant::now() >= when, "{micros}");
        }
        let past = Instant::now();
        timer.until(past).await;
    }
}
