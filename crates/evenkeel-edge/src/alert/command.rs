//! Alerts by a program of the operator's: `sendmail`, a pager's client. The text goes to its standard input; no shell.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::redact::Redactor;
use futures_util::future::BoxFuture;
use tokio::process::Command;

use super::{Alert, AlertChannel, AlertError};
use crate::outside::{CaptureError, ENV_KEPT, capture};
use crate::plain::one_line;

/// How much of its outputs is kept.
const OUTPUT_BYTES_MAX: usize = 8 * 1024;

/// Runs a program for each alert.
#[derive(Debug)]
pub struct CommandChannel {
    name: String,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    redactor: Redactor,
    deadline: Duration,
}

impl CommandChannel {
    /// A channel that runs `argv` with `env` on top of a small part of Evenkeel's own environment, and kills it with
    /// everything it started when it is not done within `deadline`.
    ///
    /// # Errors
    /// An empty `argv`.
    pub fn new(
        name: &str,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        redactor: Redactor,
        deadline: Duration,
    ) -> Result<Self, AlertError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(AlertError::Configured {
                channel: name.to_owned(),
                reason: "give the program and its arguments as a list".into(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            argv,
            env,
            redactor,
            deadline,
        })
    }

    async fn run(&self, alert: &Alert) -> Result<String, AlertError> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env_clear();
        for key in ENV_KEPT {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command.envs(&self.env);
        let failed = |reason: String| AlertError::Command {
            reason: one_line(&self.redactor.text(&reason), 512),
        };
        let text = alert.text();
        let done = capture(
            &mut command,
            text.as_bytes(),
            OUTPUT_BYTES_MAX,
            self.deadline,
        )
        .await
        .map_err(|e| match e {
            CaptureError::TimedOut => AlertError::TimedOut {
                limit_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
            },
            CaptureError::Io(e) => failed(format!("`{}` cannot be run: {e}", self.argv[0])),
        })?;
        if done.status.success() {
            Ok(self.argv[0].clone())
        } else {
            Err(failed(format!("{}: {}", done.status, done.stderr.text())))
        }
    }
}

impl AlertChannel for CommandChannel {
    fn name(&self) -> &str {
        &self.name
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn send<'a>(&'a self, alert: &'a Alert) -> BoxFuture<'a, Result<String, AlertError>> {
        Box::pin(self.run(alert))
    }
}
