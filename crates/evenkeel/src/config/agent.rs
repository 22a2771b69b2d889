//! `[heartbeat]` and `[agent]`: how others know that Evenkeel lives, and what it may use itself.

use serde::Deserialize;

/// `[heartbeat]`: beside the service manager's watchdog and `run/heartbeat`, which need no key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatSection {
    /// An address that is asked for (GET) while Evenkeel lives; its keeper notices when that stays away.
    pub ping: Option<String>,
    /// Time between two pings, in milliseconds: 1 000 to 86 400 000.
    pub ping_interval_ms: u64,
    /// How long a ping may take, in milliseconds: 100 to 60 000.
    pub timeout_ms: u64,
}

/// `[agent]`: for `evenkeel run`. A program that guards itself from inside is not capped.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSection {
    /// Resident memory above which Evenkeel stops, for its supervisor to start it anew, in MB: 16 to 65 536.
    pub memory_max_mb: u64,
    /// Its niceness: 0 to 19. The services that it starts keep the one that Evenkeel was started with.
    pub nice: u8,
}

impl Default for HeartbeatSection {
    fn default() -> Self {
        Self {
            ping: None,
            ping_interval_ms: 60_000,
            timeout_ms: 10_000,
        }
    }
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            memory_max_mb: 256,
            nice: 5,
        }
    }
}

/// A key, its value, and the smallest and the largest one.
type Range = (&'static str, u64, u64, u64);

impl HeartbeatSection {
    pub(super) fn ranges(&self) -> [Range; 2] {
        [
            (
                "heartbeat.ping_interval_ms",
                self.ping_interval_ms,
                1_000,
                86_400_000,
            ),
            ("heartbeat.timeout_ms", self.timeout_ms, 100, 60_000),
        ]
    }
}

impl AgentSection {
    pub(super) fn ranges(&self) -> [Range; 2] {
        [
            ("agent.memory_max_mb", self.memory_max_mb, 16, 65_536),
            ("agent.nice", self.nice.into(), 0, 19),
        ]
    }
}
