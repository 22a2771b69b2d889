//! The alert file: the channel that needs neither network nor configuration, and that looks for another place when its
//! own one is full, read-only or gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Alert, AlertChannel, AlertError};
use crate::fresh_file;

/// Writes `ALERT_<type>_<YYYYMMDD_HHMMSS>.txt` (or `APPROVAL_...`), readable by its owner only.
#[derive(Clone, Debug)]
pub struct AlertFile {
    dirs: Vec<PathBuf>,
    limit_each: Duration,
}

impl AlertFile {
    /// In `logs_dir`; when that cannot be written, in `data_dir`; when that cannot either, in the system's temporary
    /// directory.
    pub fn new(logs_dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self::in_order(vec![logs_dir.into(), data_dir.into(), std::env::temp_dir()])
    }

    /// In the first of these that can be written.
    pub fn in_order(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            limit_each: Duration::from_secs(3),
        }
    }

    /// How long one directory is waited for; 3 s otherwise. A file system that hangs is left behind after this.
    #[must_use]
    pub fn with_limit_each(mut self, limit: Duration) -> Self {
        self.limit_each = limit;
        self
    }

    async fn written(&self, alert: &Alert) -> Result<String, AlertError> {
        let f = alert.facts();
        let stem = format!("{}_{}_{}", f.kind.file_prefix(), f.anomaly, f.at.compact());
        let text = alert.text();
        let mut tried = Vec::new();
        for dir in &self.dirs {
            match write(dir.clone(), stem.clone(), text.clone(), self.limit_each).await {
                Ok(path) => {
                    let path = path.display();
                    return Ok(if tried.is_empty() {
                        path.to_string()
                    } else {
                        format!("{path} (not where it belongs: {})", tried.join("; "))
                    });
                }
                Err(reason) => tried.push(format!("{}: {reason}", dir.display())),
            }
        }
        Err(AlertError::NotWritten { tried, text })
    }
}

impl AlertChannel for AlertFile {
    fn name(&self) -> &'static str {
        "file"
    }

    fn deadline(&self) -> Duration {
        let dirs = u32::try_from(self.dirs.len()).unwrap_or(u32::MAX);
        self.limit_each
            .saturating_mul(dirs)
            .saturating_add(Duration::from_secs(1))
    }

    fn send<'a>(&'a self, alert: &'a Alert) -> BoxFuture<'a, Result<String, AlertError>> {
        Box::pin(self.written(alert))
    }
}

/// Writes on a thread that nobody waits for longer than `limit`, not even at the end of the program: a dead network file
/// system would hold any other one for ever.
async fn write(
    dir: PathBuf,
    stem: String,
    text: String,
    limit: Duration,
) -> Result<PathBuf, String> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("alert-file".into())
        .spawn(move || {
            let _ = done.send(fresh_file::create(&dir, &stem, "txt", text.as_bytes()));
        })
        .map_err(|e| format!("no thread to write it: {e}"))?;
    match tokio::time::timeout(limit, result).await {
        Ok(Ok(written)) => written
            .map(|p| std::path::absolute(&p).unwrap_or(p))
            .map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("the writing thread ended early".into()),
        Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
    }
}

/// Whether alerts can be written to `dir` now; makes the directory when it is missing. For the boot gate.
pub fn check_writable(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    tempfile::tempfile_in(dir).map(drop)
}
