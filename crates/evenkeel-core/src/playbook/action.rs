//! The closed list of what a step can do, and what each kind says of itself: what it changes, how it is undone,
//! and whether it may be run twice.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a step is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoKind {
    /// Rollback restores what it changed.
    Reversible,
    /// There is nothing to restore.
    NoneNeeded,
    /// It cannot be taken back; the playbook waits for a person's approval.
    Irreversible,
}

/// Which services of the target a step concerns: a name, a list of names, or one of the words
/// `all`, `primary` (the first configured), `affected` (named by the anomaly or by earlier findings, else the
/// primary) and `heaviest` (most memory now).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Services {
    /// One name or word; may be a template.
    One(String),
    /// Several names, at most 32.
    Many(Vec<String>),
}

/// Arguments of `restart` and `stop`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopArgs {
    /// Which services.
    pub services: Services,
    /// How long a service has to stop by itself before it is killed, in milliseconds.
    #[serde(default = "default_graceful_ms")]
    pub graceful_ms: u64,
}

/// Arguments of `start` and `wait_ready`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicesArgs {
    /// Which services.
    pub services: Services,
}

/// Arguments of `signal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalArgs {
    /// Which services.
    pub services: Services,
    /// The signal.
    pub signal: SignalName,
}

/// Signals that a playbook may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// Ask to end.
    Term,
    /// Often: read the configuration again.
    Hup,
    /// As from the keyboard.
    Int,
    /// The service's own meaning.
    Usr1,
    /// The service's own meaning.
    Usr2,
    /// Go on after a stop.
    Cont,
    /// End at once.
    Kill,
}

/// Arguments of `set_config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetConfigArgs {
    /// One of the target's `config_files`; `.env`, TOML, YAML or JSON by its ending.
    pub file: String,
    /// Dotted key to new value; 1 to 32 of them.
    pub set: BTreeMap<String, Value>,
}

/// Arguments of `set_tunable`: exactly one of `to`, `factor` and `at_least`, but for `factor` with `at_least`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTunableArgs {
    /// Name of a tunable in `[target.tunables]`.
    pub name: String,
    /// The new value; kept inside the tunable's bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// The present value times this; kept inside the tunable's bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<Value>,
    /// The present value where it is higher, else this; with `factor`: not below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Value>,
}

impl SetTunableArgs {
    /// Whether they say what the new value is, and say it once.
    pub fn is_one_change(&self) -> bool {
        match (&self.to, &self.factor) {
            (Some(_), None) => self.at_least.is_none(),
            (None, Some(_)) => true,
            (None, None) => self.at_least.is_some(),
            (Some(_), Some(_)) => false,
        }
    }
}

/// Arguments of `http_request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRequestArgs {
    /// The method; GET when absent.
    #[serde(default = "default_method")]
    pub method: String,
    /// A path of the target (`/admin/reload`) or a whole address on a host of the target.
    pub url: String,
    /// Headers; values may hold `${secret.NAME}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: a text as it is, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Statuses that count as done; any of 200 to 299 when absent.
    #[serde(default)]
    pub expect_status: Vec<u16>,
}

/// Arguments of `sql`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlArgs {
    /// One statement on the target's SQLite database.
    pub statement: String,
    /// Its parameters, for `?1`, `?2`, ...
    #[serde(default)]
    pub params: Vec<Value>,
    /// The statement that takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_statement: Option<String>,
}

/// Arguments of `run_command`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCommandArgs {
    /// Program and arguments; nothing is given to a shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// A line for `/bin/sh -c`, instead of `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Working directory; the target's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment on top of a scrubbed one; values may hold `${secret.NAME}`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Program and arguments that take it back.
    #[serde(default)]
    pub undo_argv: Vec<String>,
}

/// Arguments of `query_logs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryLogsArgs {
    /// How far back, in seconds; 300 when absent.
    #[serde(default = "default_since_s")]
    pub since_s: u64,
}

/// Arguments of `stop_lock_holder`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopLockHolderArgs {
    /// The lock must have been held this long by the same process before that process is stopped, in milliseconds.
    #[serde(default = "default_held_ms")]
    pub held_ms: u64,
    /// How long the process has to end by itself before it is killed, in milliseconds.
    #[serde(default = "default_graceful_ms")]
    pub graceful_ms: u64,
}

/// No arguments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

fn default_graceful_ms() -> u64 {
    5_000
}
fn default_since_s() -> u64 {
    300
}
fn default_held_ms() -> u64 {
    500
}
fn default_method() -> String {
    "GET".to_owned()
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Stop (graceful, then forced) and start services; done when they are ready again.
    Restart(StopArgs),
    /// Stop services, graceful, then forced.
    Stop(StopArgs),
    /// Start services that are down; done when they are ready.
    Start(ServicesArgs),
    /// Send a signal to services.
    Signal(SignalArgs),
    /// Set keys in a configuration file of the target; comments and order are kept.
    SetConfig(SetConfigArgs),
    /// Set one of the target's tunables, wherever its configuration keeps it.
    SetTunable(SetTunableArgs),
    /// Send one HTTP request.
    HttpRequest(HttpRequestArgs),
    /// Run one SQL statement on the target's SQLite database.
    Sql(SqlArgs),
    /// Run a program.
    RunCommand(RunCommandArgs),
    /// Read the target's recent errors and group them by pattern; findings: `total`, `patterns`
    /// (name to count), `services`, `samples`.
    QueryLogs(QueryLogsArgs),
    /// Find the process that holds the target's SQLite database locked and stop it, if the configuration
    /// permits stopping that program; findings: `pid`, `command`, `held_ms`.
    StopLockHolder(StopLockHolderArgs),
    /// Wait until services are ready.
    WaitReady(ServicesArgs),
    /// Drop and renew the consumers of the target's event mesh.
    ResetEventMesh(NoArgs),
}

impl Action {
    /// The action's name as playbooks write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restart(_) => "restart",
            Self::Stop(_) => "stop",
            Self::Start(_) => "start",
            Self::Signal(_) => "signal",
            Self::SetConfig(_) => "set_config",
            Self::SetTunable(_) => "set_tunable",
            Self::HttpRequest(_) => "http_request",
            Self::Sql(_) => "sql",
            Self::RunCommand(_) => "run_command",
            Self::QueryLogs(_) => "query_logs",
            Self::StopLockHolder(_) => "stop_lock_holder",
            Self::WaitReady(_) => "wait_ready",
            Self::ResetEventMesh(_) => "reset_event_mesh",
        }
    }

    /// How the action is taken back, unless its step says otherwise.
    ///
    /// Stopping a lock holder needs no undo: SQLite rolls the holder's open transaction back by itself. That a
    /// program may be stopped at all is a standing permission in the configuration.
    pub fn undo_kind(&self) -> UndoKind {
        match self {
            Self::Stop(_) | Self::SetConfig(_) | Self::SetTunable(_) => UndoKind::Reversible,
            Self::Restart(_)
            | Self::Start(_)
            | Self::QueryLogs(_)
            | Self::StopLockHolder(_)
            | Self::WaitReady(_)
            | Self::ResetEventMesh(_) => UndoKind::NoneNeeded,
            Self::Signal(a) => match a.signal {
                SignalName::Cont | SignalName::Hup => UndoKind::NoneNeeded,
                _ => UndoKind::Irreversible,
            },
            Self::HttpRequest(a) => {
                if is_safe_method(&a.method) {
                    UndoKind::NoneNeeded
                } else {
                    UndoKind::Irreversible
                }
            }
            Self::Sql(a) if a.undo_statement.is_some() => UndoKind::Reversible,
            Self::Sql(a) if is_select(&a.statement) => UndoKind::NoneNeeded,
            Self::RunCommand(a) if !a.undo_argv.is_empty() => UndoKind::Reversible,
            Self::Sql(_) | Self::RunCommand(_) => UndoKind::Irreversible,
        }
    }

    /// Whether it only looks: nothing of the target is another after it.
    pub fn only_looks(&self) -> bool {
        match self {
            Self::QueryLogs(_) | Self::WaitReady(_) => true,
            Self::HttpRequest(a) => is_safe_method(&a.method),
            Self::Sql(a) => is_select(&a.statement),
            _ => false,
        }
    }

    /// Whether it may be run again when nobody knows if it ran, unless its step says otherwise.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Restart(_)
            | Self::Stop(_)
            | Self::Start(_)
            | Self::SetConfig(_)
            | Self::SetTunable(_)
            | Self::QueryLogs(_)
            | Self::StopLockHolder(_)
            | Self::WaitReady(_)
            | Self::ResetEventMesh(_) => true,
            Self::Signal(_) | Self::RunCommand(_) => false,
            Self::HttpRequest(a) => {
                is_safe_method(&a.method)
                    || ["PUT", "DELETE"].contains(&a.method.to_ascii_uppercase().as_str())
            }
            Self::Sql(a) => is_select(&a.statement),
        }
    }

    /// Whether a step may override `undo` and `idempotent`: only where Evenkeel cannot know the effect.
    pub fn effect_is_opaque(&self) -> bool {
        matches!(
            self,
            Self::HttpRequest(_) | Self::Sql(_) | Self::RunCommand(_) | Self::Signal(_)
        )
    }

    /// Whether it changes anything at all.
    pub fn changes_something(&self) -> bool {
        !matches!(self, Self::QueryLogs(_) | Self::WaitReady(_))
    }

    /// Whether it may write to the target's database.
    pub fn changes_database(&self) -> bool {
        matches!(self, Self::Sql(a) if !is_select(&a.statement))
    }
}

fn is_safe_method(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS"].contains(&method.to_ascii_uppercase().as_str())
}

fn is_select(statement: &str) -> bool {
    statement
        .trim_start()
        .get(..6)
        .is_some_and(|w| w.eq_ignore_ascii_case("select"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_back_says_so() {
        let sql = |s: &str, undo: Option<&str>| {
            Action::Sql(SqlArgs {
                statement: s.into(),
                params: vec![],
                undo_statement: undo.map(Into::into),
            })
        };
        assert_eq!(
            sql("DELETE FROM t", None).undo_kind(),
            UndoKind::Irreversible
        );
        assert_eq!(
            sql("DELETE FROM t", Some("INSERT ...")).undo_kind(),
            UndoKind::Reversible
        );
        assert_eq!(sql("select 1", None).undo_kind(), UndoKind::NoneNeeded);
        assert!(!sql("DELETE FROM t", None).is_idempotent());
        let http = |m: &str| {
            Action::HttpRequest(HttpRequestArgs {
                method: m.into(),
                url: "/x".into(),
                headers: BTreeMap::new(),
                body: None,
                expect_status: vec![],
            })
        };
        assert_eq!(http("post").undo_kind(), UndoKind::Irreversible);
        assert!(!http("POST").is_idempotent());
        assert!(http("PUT").is_idempotent());
        assert_eq!(http("get").undo_kind(), UndoKind::NoneNeeded);
    }
}
