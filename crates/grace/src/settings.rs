//! The settings: what may be set, the defaults, and what is a valid value.
//! It may not touch the network or the database; it reads the one file it is given.

mod text;
mod valid;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::GraceError;

/// Everything that can be set, as it stands in the settings file. Keys that are left out take
/// their default; an unknown key is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API listens and how many public requests it works on at once.
    pub server: Server,
    /// The SQLite file and the pool of connections to it.
    pub database: Database,
    /// The rate limit of the public read API.
    pub limits: Limits,
    /// The in-memory session cache.
    pub sessions: Sessions,
    /// The chat and its model server.
    pub chat: Chat,
    /// The policy decisions.
    pub governance: Governance,
    /// The metrics collector.
    pub metrics: Metrics,
    /// Where audited actions are sent.
    pub audit: Audit,
    /// The structured log.
    pub log: Log,
}

/// Table `[server]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Requests of the public read API worked on at the same time, 1 to 1024.
    pub workers: usize,
    /// Requests of the public read API that may wait for a worker, 0 to 65536.
    pub queue: usize,
    /// Longest wait for a worker in milliseconds, 1 to 60000.
    pub queue_timeout_ms: u64,
}

/// Table `[database]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// The SQLite file.
    pub path: PathBuf,
    /// Connections at most, 1 to 256.
    pub pool_size: usize,
    /// Longest wait for a free connection in milliseconds, 1 to 60000.
    pub pool_timeout_ms: u64,
    /// Longest wait for another process's lock in milliseconds, 0 to 60000.
    pub busy_timeout_ms: u64,
}

/// Table `[limits]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sustained requests per second of the public read API, above 0, at most 1000000.
    pub requests_per_second: f64,
    /// Requests that may come at once before the rate counts, 1 to 1000000.
    pub burst: u32,
}

/// Table `[sessions]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Sessions kept in memory at most; 0 sets no bound.
    pub max_entries: usize,
    /// Memory of one session's conversation context in bytes, 1024 to 67108864.
    pub context_bytes: usize,
}

/// Table `[chat]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chat {
    /// Model server as `http://host:port`; empty for the built-in local model.
    pub upstream_url: String,
    /// Longest wait for the model server in milliseconds, 1 to 600000.
    pub upstream_timeout_ms: u64,
    /// Chats worked on at the same time, 1 to 1024.
    pub max_concurrent: usize,
}

/// Table `[governance]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Governance {
    /// Decisions kept in memory, 0 to 65536; 0 evaluates every request anew.
    pub cache_entries: usize,
    /// How long a kept decision counts in milliseconds, 100 to 3600000.
    pub cache_ttl_ms: u64,
    /// Decisions kept in the database as history, 100 to 200000.
    pub history_rows: u32,
}

/// Table `[metrics]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Time between two scrapes in milliseconds, 50 to 3600000.
    pub interval_ms: u64,
    /// Port of the collector's own `GET /health`; 0 for none.
    pub collector_port: u16,
    /// Address scraped, as `http://host:port`; empty derives it from `[server]`.
    pub api_url: String,
    /// Summary rows kept in the database, 10 to 100000.
    pub keep_rows: u32,
}

/// Table `[audit]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Where audited actions are posted, as `http://host:port/path` on this host; empty for
    /// nowhere.
    pub url: String,
    /// File that holds the bearer token; empty sends none.
    pub token_file: PathBuf,
}

/// Table `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The log file; its directory is made.
    pub path: PathBuf,
    /// Size in bytes at which the file is moved to `<path>.1`, 65536 to 1073741824.
    pub max_bytes: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8700,
            workers: 16,
            queue: 64,
            queue_timeout_ms: 2000,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            path: "backend/grace_data.db".into(),
            pool_size: 20,
            pool_timeout_ms: 1000,
            busy_timeout_ms: 500,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 500.0,
            burst: 200,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max_entries: 8,
            context_bytes: 550 * 1024,
        }
    }
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            upstream_url: String::new(),
            upstream_timeout_ms: 1000,
            max_concurrent: 16,
        }
    }
}

impl Default for Governance {
    fn default() -> Self {
        Self {
            cache_entries: 1024,
            cache_ttl_ms: 60_000,
            history_rows: 2500,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            interval_ms: 1000,
            collector_port: 0,
            api_url: String::new(),
            keep_rows: 500,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            path: "logs/grace.log".into(),
            max_bytes: 16 * 1024 * 1024,
        }
    }
}

/// The defaults with the API on `port` (0 takes a free one).
pub fn default_settings(port: u16) -> Settings {
    let mut settings = Settings::default();
    settings.server.port = port;
    settings
}

impl Settings {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown key or a value that is not valid.
    pub fn load(path: &Path) -> Result<Self, GraceError> {
        let text = std::fs::read_to_string(path).map_err(|source| GraceError::SettingsRead {
            path: path.to_owned(),
            source,
        })?;
        let settings: Self = toml::from_str(&text).map_err(|error| GraceError::SettingsSyntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        settings.validate()?;
        Ok(settings)
    }

    /// The settings as TOML text in which a comment explains each key and its unit. Reading it
    /// back gives equal settings.
    pub fn to_commented_toml(&self) -> String {
        text::render(self)
    }

    /// The address the API listens on.
    pub(crate) fn api_addr(&self) -> Result<SocketAddr, GraceError> {
        self.addr(self.server.port)
    }

    /// The address of the collector's health endpoint, where it has one.
    pub(crate) fn collector_addr(&self) -> Result<Option<SocketAddr>, GraceError> {
        match self.metrics.collector_port {
            0 => Ok(None),
            port => self.addr(port).map(Some),
        }
    }

    fn addr(&self, port: u16) -> Result<SocketAddr, GraceError> {
        let host: IpAddr = self
            .server
            .host
            .parse()
            .map_err(|_| GraceError::SettingsValue {
                key: "server.host",
                value: format!("{:?}", self.server.host),
                expected: "an IP address such as \"127.0.0.1\"",
            })?;
        Ok(SocketAddr::new(host, port))
    }

    /// Longest wait for a free connection.
    pub(crate) fn pool_timeout(&self) -> Duration {
        Duration::from_millis(self.database.pool_timeout_ms)
    }

    /// The same settings with every relative path set below `root`.
    pub(crate) fn rooted(mut self, root: &Path) -> Self {
        self.database.path = root.join(&self.database.path);
        self.log.path = root.join(&self.log.path);
        if !self.audit.token_file.as_os_str().is_empty() {
            self.audit.token_file = root.join(&self.audit.token_file);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grace.toml");
        std::fs::write(&file, "[database]\npool_sise = 3\n").unwrap();
        let message = Settings::load(&file).unwrap_err().to_string();
        assert!(message.contains("pool_sise"), "{message}");
        assert!(
            message.contains("pool_size"),
            "names what is valid: {message}"
        );
        assert!(message.contains("line 2"), "{message}");
    }
}
