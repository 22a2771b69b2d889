//! Carrying out playbook steps: made ready, run, and taken back.
//!
//! Three stages with a record between each: [`Executor::prepare`] fills in everything but secrets and changes
//! nothing; [`Executor::run`] does exactly what was prepared; [`Executor::undo`] takes it back. What is to be done was
//! decided elsewhere. Texts that come from the target (log lines, answers) end up in values only, never in a program,
//! a statement or the name of a secret.

mod command;
mod http;
mod prepare;
mod run;
mod sql;
mod undo;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use evenkeel_core::Anomaly;
use evenkeel_core::playbook::action::SignalName;
use evenkeel_core::redact::Redactor;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::config_edit;
use crate::target::Target;

pub use prepare::{Preparation, PrepareError};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Most bytes of an output or an answer that are kept in findings.
pub const OUTPUT_LEN_MAX: usize = 64 * 1024;
/// Most rows of a query that are kept in findings.
pub const ROWS_MAX: usize = 100;
/// Most samples of log lines kept in findings, and the length of each in bytes.
pub const SAMPLES_MAX: usize = 20;
/// Longest message of an outcome, in bytes.
pub const MESSAGE_LEN_MAX: usize = 1_000;

/// Something that the world did not do; the text says what and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ControlError(pub String);

/// What the supervisor of the target's services offers.
pub trait ServiceControl: Send + Sync {
    /// Stops (SIGTERM, `graceful_ms`, SIGKILL) and starts a service; done when it is ready again.
    fn restart<'a>(
        &'a self,
        name: &'a str,
        graceful_ms: u64,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Stops a service; nothing to do when it is down.
    fn stop<'a>(
        &'a self,
        name: &'a str,
        graceful_ms: u64,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Starts a service; nothing to do when it runs. Done when it is ready.
    fn start<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Sends a signal to a service.
    fn signal<'a>(
        &'a self,
        name: &'a str,
        signal: SignalName,
    ) -> BoxFuture<'a, Result<(), ControlError>>;
    /// Waits until a service is ready; it may wait as long as it likes, the step's time limit ends it.
    fn wait_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ControlError>>;
    /// The numbers of a service's processes; empty when it is down.
    fn pids(&self, name: &str) -> Vec<u32>;
    /// The service that uses most memory now, if that is known.
    fn heaviest(&self) -> Option<String>;
    /// All services, in the order they are started.
    fn names(&self) -> Vec<String>;
}

/// The target's recent errors, grouped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogErrors {
    /// How many there are.
    pub total: u64,
    /// Pattern (`database_locked`, `rate_limit`, ...) to count.
    pub patterns: BTreeMap<String, u64>,
    /// Services that they name.
    pub services: Vec<String>,
    /// Some of them, as they stand in the log.
    pub samples: Vec<String>,
}

/// Access to the target's logs.
pub trait LogQuery: Send + Sync {
    /// The errors of the last `since_s` seconds.
    fn recent_errors(&self, since_s: u64) -> BoxFuture<'_, Result<LogErrors, ControlError>>;
}

/// Access to the target's event mesh.
pub trait MeshControl: Send + Sync {
    /// Drops the consumers and makes new ones.
    fn reset(&self) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// Gives the value of a secret by its name, or `None`: usually a look into the environment.
pub type SecretResolver = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Asks a running step to stop at its next safe point.
#[derive(Debug)]
pub struct Canceller(watch::Sender<bool>);

/// What a running step listens to.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Receiver<bool>);

impl Default for Canceller {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Canceller {
    /// The side to listen on.
    pub fn token(&self) -> Cancel {
        Cancel(self.0.subscribe())
    }

    /// Asks; cannot be taken back.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// One that never asks.
    pub fn never() -> Self {
        Canceller::default().token()
    }

    /// Whether it was asked for.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it was asked for; never when nobody is left who could.
    async fn cancelled(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Carries out steps on one target.
#[derive(Clone)]
pub struct Executor {
    target: Arc<Target>,
    services: Arc<dyn ServiceControl>,
    logs: Option<Arc<dyn LogQuery>>,
    mesh: Option<Arc<dyn MeshControl>>,
    secrets: SecretResolver,
    redactor: Redactor,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("target", &self.target.name)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor for a resolved target.
    pub fn new(
        target: Arc<Target>,
        services: Arc<dyn ServiceControl>,
        secrets: SecretResolver,
        redactor: Redactor,
    ) -> Self {
        Self {
            target,
            services,
            logs: None,
            mesh: None,
            secrets,
            redactor,
        }
    }

    /// With logs to query.
    #[must_use]
    pub fn with_logs(mut self, logs: Arc<dyn LogQuery>) -> Self {
        self.logs = Some(logs);
        self
    }

    /// With an event mesh.
    #[must_use]
    pub fn with_mesh(mut self, mesh: Arc<dyn MeshControl>) -> Self {
        self.mesh = Some(mesh);
        self
    }

    /// What conditions and templates may speak of: `anomaly`, `attempt`, `findings` (step id to findings), `params`,
    /// and `target` with `name`, `services`, `tunables` (name to present value, null when the key is absent), `mesh`
    /// and `database`. A tunable whose file cannot be read is left out. Reads small files.
    pub fn scope(
        &self,
        anomaly: &Anomaly,
        attempt: u32,
        findings: &Value,
        params: &BTreeMap<String, Value>,
    ) -> Value {
        let tunables: Map<String, Value> = self
            .target
            .tunables
            .iter()
            .filter_map(|(name, t)| {
                let value = config_edit::read(&self.target.root, &t.file, &t.key).ok()?;
                Some((
                    name.clone(),
                    self.redactor.value(&value.unwrap_or(Value::Null)),
                ))
            })
            .collect();
        let services: Vec<&str> = self
            .target
            .services
            .iter()
            .map(|s| s.name.as_str())
            .collect();
        json!({
            "anomaly": serde_json::to_value(anomaly).unwrap_or(Value::Null),
            "attempt": attempt,
            "findings": if findings.is_object() { findings.clone() } else { json!({}) },
            "params": params,
            "target": {
                "name": self.target.name,
                "services": services,
                "tunables": tunables,
                "mesh": self.mesh.is_some(),
                "database": self.target.database.is_some(),
            },
        })
    }

    /// A file of the target, when it is one of its `config_files`.
    fn config_file(&self, file: &str) -> Result<PathBuf, String> {
        let known = |f: &PathBuf| {
            f.strip_prefix(&self.target.root)
                .unwrap_or(f)
                .display()
                .to_string()
        };
        crate::target::confine(&self.target.root, file.as_ref())
            .filter(|f| self.target.config_files.contains(f))
            .ok_or_else(|| {
                let names: Vec<String> = self.target.config_files.iter().map(known).collect();
                format!(
                    "`{file}` is not one of the target's `config_files` ({}): add it in [target]",
                    names.join(", ")
                )
            })
    }

    /// A path as people know it: below the target's root.
    fn short(&self, file: &std::path::Path) -> String {
        file.strip_prefix(&self.target.root)
            .unwrap_or(file)
            .display()
            .to_string()
    }
}

/// At most `max` bytes of a text, cut at a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
