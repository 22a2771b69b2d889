//! Signs of life, given only while everything that has to work does: to the service manager, into `run/heartbeat`, and
//! to an address elsewhere.
//!
//! **Invariant:** no timer gives them. They come from the two loops that do the work, when they come round: the one
//! that watches and the one that heals. Each looks whether the other came round too, and whether the ledger takes its
//! entries. When one of the three hangs, all signs stay away, and whoever waits for them acts.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use evenkeel_edge::advisor::Secret;
use evenkeel_edge::ping::Ping;
use evenkeel_edge::process::procinfo;
use evenkeel_edge::service_manager::ServiceManager;
use tokio::time::Instant;

use crate::clock;
use crate::config::Config;
use crate::journal::Journal;
use crate::layout::Layout;
use crate::stop::Stop;

/// Time between two signs, unless the service manager wants them more often.
const PERIOD: Duration = Duration::from_secs(5);
/// Shortest time between two signs that a service manager gets.
const PERIOD_MIN: Duration = Duration::from_millis(50);
/// How long a loop may take to come round, beside the probes of a check, which have their own limit.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// How long the ledger may take for an entry.
const ENTRY_MAX: Duration = Duration::from_secs(30);
/// How long something that has no limit of its own (a stress test, a snapshot) may keep the healing loop.
pub(crate) const WORK_MAX: Duration = Duration::from_mins(30);
/// What is added to a limit before who keeps it counts as hung.
pub(crate) const SLACK: Duration = Duration::from_mins(2);
/// No time yet.
const NEVER: u64 = u64::MAX;

/// Who has come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// The one that measures and judges.
    Watch,
    /// The one that takes what was found, and heals.
    Healer,
}

/// Signs of life. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Inner>);

struct Inner {
    began: Instant,
    period: Duration,
    watch_max: Duration,
    /// When each came round last, in milliseconds since `began`; [`NEVER`] before it began to.
    watch: AtomicU64,
    healer: AtomicU64,
    /// When the last signs were given.
    given: AtomicU64,
    silent: AtomicBool,
    journal: Journal,
    file: PathBuf,
    manager: Option<ServiceManager>,
    ping: Option<Pings>,
    /// What the service manager shows, and whether it was told.
    status: Mutex<(String, bool)>,
    /// In bytes; none: not capped.
    memory_max: Option<u64>,
    over: OnceLock<u64>,
    stop: Stop,
}

struct Pings {
    ping: Ping,
    interval: Duration,
    /// When the last one began.
    begun: AtomicU64,
    under_way: Arc<AtomicBool>,
}

impl Pulse {
    /// `own_process`: the process is Evenkeel's own, so that its service manager is told and its memory is capped.
    pub(crate) fn new(
        config: &Config,
        layout: &Layout,
        journal: &Journal,
        own_process: bool,
        stop: &Stop,
    ) -> Result<Self, String> {
        let manager = own_process
            .then(|| ServiceManager::from_environment(|name| std::env::var(name).ok()))
            .flatten();
        let wanted = manager.as_ref().and_then(ServiceManager::watchdog);
        let period = wanted.map_or(PERIOD, |w| (w / 4).clamp(PERIOD_MIN, PERIOD));
        let h = &config.heartbeat;
        let ping = h
            .ping
            .as_ref()
            .map(|url| {
                let limit = Duration::from_millis(h.timeout_ms);
                Ping::new(&Secret::new(url.as_str()), limit)
                    .map(|ping| Pings {
                        ping,
                        interval: Duration::from_millis(h.ping_interval_ms),
                        begun: AtomicU64::new(NEVER),
                        under_way: Arc::default(),
                    })
                    .map_err(|e| format!("[heartbeat] ping: {e}"))
            })
            .transpose()?;
        let probe = Duration::from_millis(config.watchdog.probe_timeout_ms);
        Ok(Self(Arc::new(Inner {
            began: Instant::now(),
            period,
            // Each address is asked twice where it does not answer, and the metrics once.
            watch_max: ROUND_MAX + probe * 3,
            watch: AtomicU64::new(NEVER),
            healer: AtomicU64::new(NEVER),
            given: AtomicU64::new(NEVER),
            silent: AtomicBool::new(false),
            journal: journal.clone(),
            file: layout.heartbeat(),
            manager,
            ping,
            status: Mutex::new((String::new(), true)),
            memory_max: own_process.then(|| config.agent.memory_max_mb.saturating_mul(1 << 20)),
            over: OnceLock::new(),
            stop: stop.clone(),
        })))
    }

    /// How often a loop should come round while it has nothing to do.
    pub(crate) fn period(&self) -> Duration {
        self.0.period
    }

    /// A loop came round. Signs are given when they are due and everything works.
    pub(crate) fn beat(&self, who: Loop) {
        let now = self.now();
        self.of(who).store(now, Ordering::Relaxed);
        let given = self.0.given.load(Ordering::Relaxed);
        if given == NEVER || now.saturating_sub(given) >= millis(self.0.period) {
            self.give(now);
        }
    }

    /// The watchdog has made a whole check: signs are given at once.
    pub(crate) fn checked(&self) {
        let now = self.now();
        self.0.watch.store(now, Ordering::Relaxed);
        self.give(now);
    }

    /// Waits for work that may take long, and counts it as coming round for at most `limit`.
    pub(crate) async fn during<T>(&self, limit: Duration, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(self.0.period);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.beat(Loop::Healer);
                    return done;
                }
                _ = ticks.tick() => if begun.elapsed() <= limit {
                    self.beat(Loop::Healer);
                },
            }
        }
    }

    /// The boot gate is passed.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
        self.beat(Loop::Healer);
    }

    /// What is being done, for people who ask the service manager.
    pub(crate) fn status(&self, text: &str) {
        let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.0 != text {
            *status = (text.to_owned(), false);
        }
    }

    /// Evenkeel is ending in good order.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// How much memory was used when that was too much, in bytes.
    pub(crate) fn over_memory(&self) -> Option<u64> {
        self.0.over.get().copied()
    }

    fn now(&self) -> u64 {
        millis(self.0.began.elapsed())
    }

    fn of(&self, who: Loop) -> &AtomicU64 {
        match who {
            Loop::Watch => &self.0.watch,
            Loop::Healer => &self.0.healer,
        }
    }

    /// Who hangs, and for how long; `None` when nobody does.
    fn hung(&self, now: u64) -> Option<(&'static str, Duration)> {
        let waiting = self.0.journal.waiting();
        if waiting > ENTRY_MAX {
            return Some(("the ledger", waiting));
        }
        [
            ("the watch loop", Loop::Watch, self.0.watch_max),
            ("the healing loop", Loop::Healer, ROUND_MAX),
        ]
        .into_iter()
        .find_map(|(name, who, limit)| {
            let last = self.of(who).load(Ordering::Relaxed);
            // Who has not begun yet does not hang.
            let age = Duration::from_millis(now.saturating_sub(last));
            (last != NEVER && age > limit).then_some((name, age))
        })
    }

    fn give(&self, now: u64) {
        if let Some((who, since)) = self.hung(now) {
            if !self.0.silent.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    subsystem = "watchdog",
                    event_type = "pulse_stopped",
                    who,
                    seconds = since.as_secs(),
                    "something hangs: no signs of life are given until it goes on"
                );
            }
            return;
        }
        if self.0.silent.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                subsystem = "watchdog",
                event_type = "pulse_goes_on",
                "what hung goes on"
            );
        }
        self.0.given.store(now, Ordering::Relaxed);
        self.write_file();
        let status = {
            let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
            let news = !status.1;
            status.1 = true;
            news.then(|| format!("\nSTATUS={}", one_line(&status.0)))
        };
        self.tell(&format!("WATCHDOG=1{}", status.unwrap_or_default()));
        self.ping(now);
        self.look_at_memory();
    }

    /// Losing it loses nothing, so it is not synced.
    fn write_file(&self) {
        let temp = self.0.file.with_extension("tmp");
        let written = std::fs::write(&temp, format!("{}\n", clock::now()))
            .and_then(|()| std::fs::rename(&temp, &self.0.file));
        if let Err(e) = written {
            tracing::warn!(
                subsystem = "watchdog",
                "the heartbeat file could not be written: {e}"
            );
        }
    }

    fn tell(&self, assignments: &str) {
        if let Some(manager) = &self.0.manager
            && let Err(e) = manager.tell(assignments)
        {
            tracing::warn!(
                subsystem = "watchdog",
                "the service manager does not take signs of life: {e}"
            );
        }
    }

    /// One at a time, and never waited for.
    fn ping(&self, now: u64) {
        let Some(p) = &self.0.ping else { return };
        let begun = p.begun.load(Ordering::Relaxed);
        let due = begun == NEVER || now.saturating_sub(begun) >= millis(p.interval);
        if !due || p.under_way.swap(true, Ordering::Relaxed) {
            return;
        }
        p.begun.store(now, Ordering::Relaxed);
        let (ping, under_way) = (p.ping.clone(), Arc::clone(&p.under_way));
        tokio::spawn(async move {
            if let Err(e) = ping.call().await {
                tracing::warn!(subsystem = "watchdog", event_type = "ping_failed", "{e}");
            }
            under_way.store(false, Ordering::Relaxed);
        });
    }

    /// SAFETY 22: too much ends the process in good order; what it knows stands in the ledger.
    fn look_at_memory(&self) {
        let Some(max) = self.0.memory_max else { return };
        let own = procinfo::identify(std::process::id());
        let Some(used) = own.and_then(|own| procinfo::rss_bytes(&own)) else {
            return;
        };
        if used > max && self.0.over.set(used).is_ok() {
            tracing::error!(
                subsystem = "watchdog",
                event_type = "memory_cap",
                used_mb = used >> 20,
                max_mb = max >> 20,
                "more memory than allowed: stopping in good order"
            );
            self.0.stop.ask();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

/// A newline would be another assignment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use evenkeel_core::redact::Redactor;

    struct Stage {
        dir: tempfile::TempDir,
        journal: Journal,
        pulse: Pulse,
        stop: Stop,
    }

    /// In a runtime whose time stands still unless it is moved.
    fn stage(own_process: bool, memory_max_mb: u64) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[target]\nbase_url = 'http://127.0.0.1:1'\n[agent]\nmemory_max_mb = {memory_max_mb}\n"
        );
        let config =
            crate::config::load_text(&text, "x", dir.path(), &Environment::default()).unwrap();
        let layout = Layout::new(dir.path(), config.profile);
        layout.create().unwrap();
        let ledger = evenkeel_ledger::Ledger::open(layout.ledger()).unwrap();
        let journal = Journal::new(ledger, Arc::new(Redactor::default()));
        let (_, stop) = crate::stop::pair();
        let pulse = Pulse::new(&config, &layout, &journal, own_process, &stop).unwrap();
        Stage {
            dir,
            journal,
            pulse,
            stop,
        }
    }

    impl Stage {
        /// Whether a sign was given since the last call.
        fn gave(&self) -> bool {
            std::fs::remove_file(self.dir.path().join("run/heartbeat")).is_ok()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_lives_is_silent_when_the_other_hangs() {
        let s = stage(false, 256);
        for (lives, hangs, limit) in [
            // Three probes of five seconds come on top for a check.
            (Loop::Healer, Loop::Watch, ROUND_MAX + PERIOD * 3),
            (Loop::Watch, Loop::Healer, ROUND_MAX),
        ] {
            s.pulse.beat(lives);
            s.pulse.beat(hangs);
            tokio::time::advance(limit).await;
            let _ = s.gave();
            s.pulse.beat(lives);
            assert!(s.gave(), "{hangs:?} may still come round");
            tokio::time::advance(Duration::from_secs(6)).await;
            s.pulse.beat(lives);
            assert!(!s.gave(), "{hangs:?} hangs");
            s.pulse.beat(hangs);
            assert!(s.gave(), "{hangs:?} goes on");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_silent_while_the_ledger_takes_no_entry() {
        let s = stage(false, 256);
        let entry = s.journal.under_way();
        tokio::time::advance(ENTRY_MAX).await;
        s.pulse.beat(Loop::Healer);
        assert!(s.gave());
        tokio::time::advance(Duration::from_secs(6)).await;
        s.pulse.beat(Loop::Healer);
        s.pulse.checked();
        assert!(!s.gave());
        drop(entry);
        s.pulse.beat(Loop::Healer);
        assert!(s.gave());
    }

    #[tokio::test(start_paused = true)]
    async fn long_work_is_a_sign_of_life_only_within_its_limit() {
        let s = stage(false, 256);
        s.pulse.beat(Loop::Watch);
        let work = async {
            for _ in 0..12 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                s.pulse.beat(Loop::Watch);
            }
            let _ = s.gave();
            tokio::time::sleep(Duration::from_secs(10)).await;
            s.pulse.beat(Loop::Watch);
            s.gave()
        };
        // 130 seconds of work, of which 60 were expected and 30 are forgiven.
        let gave = s.pulse.during(Duration::from_mins(1), work).await;
        assert!(!gave);
        assert!(s.gave(), "it came to an end");
    }

    /// SAFETY 22.
    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn too_much_memory_asks_for_an_end_once_and_only_in_a_process_of_its_own() {
        // Larger than the least cap, as a written-to page counts.
        let used = vec![1_u8; 24 << 20];
        let embedded = stage(false, 16);
        embedded.pulse.beat(Loop::Healer);
        assert!(!embedded.stop.is_requested());
        let roomy = stage(true, 65_536);
        roomy.pulse.beat(Loop::Healer);
        assert!(!roomy.stop.is_requested());
        let own = stage(true, 16);
        own.pulse.beat(Loop::Healer);
        assert!(own.stop.is_requested());
        assert!(own.pulse.over_memory().unwrap() > 16 << 20);
        assert_eq!(used.len(), 24 << 20);
    }
}
