//! The scenarios: what goes wrong, and where its cause lies.

use clap::ValueEnum;
use grace::Settings;

/// What goes wrong in a demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A session cache without a bound
    MemoryLeak,
    /// Another process holds the database locked
    ErrorSpike,
    /// A connection pool that is too small
    DbPool,
    /// A rate limiter that is set too low
    RateLimit,
    /// A slow upstream
    Latency,
    /// The service's process is killed
    Crash,
    /// The service's process is stopped (SIGSTOP)
    Hang,
    /// The mapped playbook cannot cure it: three attempts, then the advisor's answer does
    PersistentFailure,
    /// The advisor fails too: a person is alerted
    Exhausted,
    /// Nothing is wrong
    Healthy,
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// One sentence.
    pub fn story(self) -> &'static str {
        match self {
            Self::MemoryLeak => "Grace keeps every session's context in memory and never drops one",
            Self::ErrorSpike => {
                "a report job has opened Grace's database, taken the write lock and never let go"
            }
            Self::DbPool => {
                "Grace has one database connection for everybody, and nobody waits long for it"
            }
            Self::RateLimit => "Grace's limiter lets five requests a second through",
            Self::Latency => "the model server that Grace asks takes 2.5 seconds for every answer",
            Self::Crash => "Grace's API process is killed while it is watched",
            Self::Hang => "Grace's API process is stopped: it lives, and does not answer",
            Self::PersistentFailure => {
                "Grace has one worker and no queue; the mapped playbook does not know that cause"
            }
            Self::Exhausted => "as persistent-failure, and the advisor's answers cannot be used",
            Self::Healthy => "nothing is wrong, so nothing may be done",
        }
    }

    /// The fault comes while the watchdog watches, not before the stress test.
    pub fn strikes_later(self) -> bool {
        matches!(self, Self::Crash | Self::Hang)
    }

    /// Puts the cause into Grace's settings, where it lies there.
    pub fn put_into(self, settings: &mut Settings) {
        match self {
            Self::MemoryLeak => settings.sessions.max_entries = 0,
            Self::DbPool => {
                settings.database.pool_size = 1;
                // A tenth of what the last of twenty waits for here, so that a fast machine shows the fault too.
                settings.database.pool_timeout_ms = 5;
            }
            Self::RateLimit => {
                settings.limits.requests_per_second = 5.0;
                settings.limits.burst = 3;
            }
            Self::Latency => settings.chat.upstream_timeout_ms = 10_000,
            Self::PersistentFailure | Self::Exhausted => {
                settings.server.workers = 1;
                settings.server.queue = 0;
            }
            Self::ErrorSpike | Self::Crash | Self::Hang | Self::Healthy => {}
        }
    }
}
