//! The structured log: one JSON object a line, appended.
//! It may not hold a secret, and it never fails a request: a log that cannot be written is
//! counted, and the request goes on.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use crate::error::GraceError;
use crate::ids;
use crate::settings;

/// How bad an event is, as it stands in `level`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Writes to one file. The file is opened for each line, so that it may be moved away by a log
/// rotation, and so that several processes can share it (appends of one line are atomic).
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    logger: &'static str,
    max_bytes: u64,
    turn: Mutex<()>,
    lost: AtomicU64,
}

impl Log {
    /// Makes the directory and checks that the file can be written.
    pub(crate) fn open(settings: &settings::Log, logger: &'static str) -> Result<Self, GraceError> {
        let path = settings.path.clone();
        let what = || format!("write the log {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(GraceError::io(what()))?;
        }
        append(&path).map_err(GraceError::io(what()))?;
        Ok(Self {
            path,
            logger,
            max_bytes: settings.max_bytes,
            turn: Mutex::new(()),
            lost: AtomicU64::new(0),
        })
    }

    /// Lines that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Appends one line. `fields` (an object) is merged behind the fixed ones.
    pub(crate) fn event(
        &self,
        level: Level,
        subsystem: &str,
        event_type: &str,
        message: &str,
        fields: Value,
    ) {
        let mut line = Map::new();
        line.insert("timestamp".into(), ids::now().into());
        line.insert("level".into(), level.name().into());
        line.insert("logger".into(), self.logger.into());
        line.insert("subsystem".into(), subsystem.into());
        line.insert("event_type".into(), event_type.into());
        line.insert("message".into(), message.into());
        if let Value::Object(more) = fields {
            line.extend(more);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        if self.write(text.as_bytes()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An event without further fields.
    pub(crate) fn note(&self, level: Level, subsystem: &str, event_type: &str, message: &str) {
        self.event(level, subsystem, event_type, message, json!({}));
    }

    fn write(&self, line: &[u8]) -> std::io::Result<()> {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut file = append(&self.path)?;
        if file.metadata()?.len() >= self.max_bytes {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            file = append(&self.path)?;
        }
        file.write_all(line)
    }
}

fn append(path: &Path) -> std::io::Result<fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/grace.log");
        let settings = settings::Log {
            path: path.clone(),
            max_bytes: 2000,
        };
        let log = Log::open(&settings, "grace.test").unwrap();
        for n in 0..40 {
            log.event(
                Level::Warn,
                "api",
                "tried",
                "a \"quoted\" message",
                json!({"n": n}),
            );
        }
        assert_eq!(log.lost(), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() < 2300, "{}", text.len());
        assert!(dir.path().join("deep/grace.log.1").exists());
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["level"], "WARN");
            assert_eq!(value["subsystem"], "api");
        }
    }
}
