//! Making a step ready: every template filled, every word resolved, every change spelled out with its undo. Changes
//! nothing.

mod config;

use std::path::Path;

use evenkeel_core::expression::{self, ExpressionError};
use evenkeel_core::playbook::parse::nearest;
use evenkeel_core::playbook::{Action, PlannedStep, Prepared, Services, UndoKind, UndoOp};
use serde_json::Value;

use super::{Executor, cut};
use crate::config_edit::ConfigError;
use crate::target::confine;

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Preparation {
    /// It is ready to be run.
    Ready(Box<Prepared>),
    /// Its condition is false.
    Skipped {
        /// The condition.
        reason: String,
    },
}

impl Preparation {
    /// The step, unless it is skipped.
    pub fn ready(self) -> Option<Prepared> {
        match self {
            Self::Ready(prepared) => Some(*prepared),
            Self::Skipped { .. } => None,
        }
    }
}

/// Why a step cannot be made ready. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A condition or a template.
    #[error("step `{step}`: {source}")]
    Expression {
        /// The step.
        step: String,
        /// Why.
        source: ExpressionError,
    },
    /// A configuration file.
    #[error("step `{step}`: {source}")]
    Config {
        /// The step.
        step: String,
        /// Why.
        source: ConfigError,
    },
    /// Something that the step asks for is not there or not allowed.
    #[error("step `{step}`: {reason}")]
    Refused {
        /// The step.
        step: String,
        /// What, and what to do.
        reason: String,
    },
}

impl Executor {
    /// Makes a step ready. `scope` is what [`Executor::scope`] returned; reads small files.
    pub fn prepare(&self, step: &PlannedStep, scope: &Value) -> Result<Preparation, PrepareError> {
        let p = Preparing {
            executor: self,
            step,
            scope,
        };
        if let Some(when) = &step.when {
            let holds = expression::eval_condition(when, scope).map_err(|e| p.expression(e))?;
            if !holds {
                return Ok(Preparation::Skipped {
                    reason: format!("its condition does not hold: {when}"),
                });
            }
        }
        p.fixed_texts()?;
        let given = serde_json::to_value(&step.action).map_err(|e| p.refused(e.to_string()))?;
        let mut filled = expression::fill(&given, scope).map_err(|e| p.expression(e))?;
        texts_stay_texts(&mut filled);
        p.secrets(&given, &filled)?;
        let action: Action = serde_json::from_value(filled)
            .map_err(|e| p.refused(format!("with its templates filled in it is no action: {e}")))?;
        let (action, undo, summary) = p.action(action)?;
        Ok(Preparation::Ready(Box::new(Prepared {
            action,
            undo,
            summary: self.redactor.text(&summary),
        })))
    }
}

struct Preparing<'p> {
    executor: &'p Executor,
    step: &'p PlannedStep,
    scope: &'p Value,
}

type Made = (Action, Vec<UndoOp>, String);

impl Preparing<'_> {
    fn refused(&self, reason: impl Into<String>) -> PrepareError {
        PrepareError::Refused {
            step: self.step.id.clone(),
            reason: reason.into(),
        }
    }

    fn expression(&self, source: ExpressionError) -> PrepareError {
        PrepareError::Expression {
            step: self.step.id.clone(),
            source,
        }
    }

    fn config(&self, source: ConfigError) -> PrepareError {
        PrepareError::Config {
            step: self.step.id.clone(),
            source,
        }
    }

    /// What is executed is written in the playbook: no value, least of all one from a log, becomes a program, a shell
    /// line or a statement.
    fn fixed_texts(&self) -> Result<(), PrepareError> {
        let fixed: Vec<(&str, Option<&String>)> = match &self.step.action {
            Action::Sql(a) => vec![
                ("statement", Some(&a.statement)),
                ("undo_statement", a.undo_statement.as_ref()),
            ],
            Action::RunCommand(a) => vec![
                ("shell", a.shell.as_ref()),
                ("argv[0]", a.argv.first()),
                ("undo_argv[0]", a.undo_argv.first()),
            ],
            _ => Vec::new(),
        };
        match fixed
            .iter()
            .find(|(_, text)| text.is_some_and(|t| t.contains("${")))
        {
            None => Ok(()),
            Some((name, _)) => Err(self.refused(format!(
                "`{name}` may hold no template: hand values over in `params`, `argv` or `env`"
            ))),
        }
    }

    /// Secrets stand only where they are filled in late (headers, environment, body), are known, and were named by
    /// the playbook, not by a value that was filled in.
    fn secrets(&self, given: &Value, filled: &Value) -> Result<(), PrepareError> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        secret_names(given, &mut Vec::new(), &mut before);
        secret_names(filled, &mut Vec::new(), &mut after);
        if before != after {
            return Err(self.refused("a value that was filled in speaks of a secret"));
        }
        for (path, name) in before {
            let place = path.get(1).map_or("", String::as_str);
            if !matches!(
                (self.step.action.name(), place),
                ("http_request", "headers" | "body") | ("run_command", "env")
            ) {
                return Err(self.refused(format!(
                    "`${{secret.{name}}}` may only stand in headers, body and env"
                )));
            }
            if (self.executor.secrets)(&name).is_none() {
                return Err(self.refused(format!(
                    "the secret `{name}` is not known: set it in Evenkeel's environment"
                )));
            }
        }
        Ok(())
    }

    /// Those that run now.
    fn running(&self, names: &[String]) -> Vec<String> {
        let runs = |name: &&String| !self.executor.services.pids(name).is_empty();
        names.iter().filter(runs).cloned().collect()
    }

    fn action(&self, action: Action) -> Result<Made, PrepareError> {
        Ok(match action {
            Action::Restart(mut a) => {
                let names = self.services(&a.services)?;
                a.services = Services::Many(names.clone());
                // What is down now is not brought up to take a restart back: it was down before it too.
                let running = self.running(&names);
                let undo = if running.is_empty() {
                    Vec::new()
                } else {
                    vec![UndoOp::RestartServices { services: running }]
                };
                (
                    Action::Restart(a),
                    undo,
                    format!("restart {}", names.join(", ")),
                )
            }
            Action::Stop(mut a) => {
                let names = self.services(&a.services)?;
                a.services = Services::Many(names.clone());
                // Only what runs now is started again.
                let running = self.running(&names);
                let undo = if running.is_empty() {
                    Vec::new()
                } else {
                    vec![UndoOp::StartServices { services: running }]
                };
                (Action::Stop(a), undo, format!("stop {}", names.join(", ")))
            }
            Action::Start(mut a) => {
                let names = self.services(&a.services)?;
                a.services = Services::Many(names.clone());
                (
                    Action::Start(a),
                    Vec::new(),
                    format!("start {}", names.join(", ")),
                )
            }
            Action::WaitReady(mut a) => {
                let names = self.services(&a.services)?;
                a.services = Services::Many(names.clone());
                (
                    Action::WaitReady(a),
                    Vec::new(),
                    format!("wait until {} is ready", names.join(", ")),
                )
            }
            Action::Signal(mut a) => {
                let names = self.services(&a.services)?;
                a.services = Services::Many(names.clone());
                self.no_undo()?;
                let summary = format!("send {:?} to {}", a.signal, names.join(", "));
                (Action::Signal(a), Vec::new(), summary)
            }
            Action::SetConfig(a) => self.set_config(a, &[])?,
            Action::SetTunable(a) => self.set_tunable(&a)?,
            Action::HttpRequest(a) => {
                self.no_undo()?;
                self.executor
                    .allowed_url(&a.url)
                    .map_err(|e| self.refused(e))?;
                let summary = format!("{} {}", a.method.to_ascii_uppercase(), a.url);
                (Action::HttpRequest(a), Vec::new(), summary)
            }
            Action::Sql(a) => {
                if self.executor.target.database.is_none() {
                    return Err(self.refused(
                        "the target has no SQLite database: configure [target.database]",
                    ));
                }
                super::sql::permitted(&a.statement).map_err(|e| self.refused(e))?;
                let mut undo = Vec::new();
                if self.step.undo == UndoKind::Reversible {
                    let Some(statement) = a.undo_statement.clone() else {
                        return Err(self.no_undo_given("undo_statement"));
                    };
                    super::sql::permitted(&statement).map_err(|e| self.refused(e))?;
                    undo.push(UndoOp::Sql { statement });
                }
                let summary = format!("run SQL: {}", cut(&a.statement, 120));
                (Action::Sql(a), undo, summary)
            }
            Action::RunCommand(mut a) => {
                let root = &self.executor.target.root;
                let cwd = match &a.cwd {
                    None => root.clone(),
                    Some(cwd) => confine(root, Path::new(cwd)).ok_or_else(|| {
                        self.refused(format!("cwd `{cwd}` leads out of {}", root.display()))
                    })?,
                };
                a.cwd = Some(cwd.display().to_string());
                let mut undo = Vec::new();
                if self.step.undo == UndoKind::Reversible {
                    if a.undo_argv.is_empty() {
                        return Err(self.no_undo_given("undo_argv"));
                    }
                    undo.push(UndoOp::Command {
                        argv: a.undo_argv.clone(),
                        cwd,
                    });
                }
                let line = a.shell.clone().unwrap_or_else(|| a.argv.join(" "));
                if line.trim().is_empty() {
                    return Err(self.refused("there is no program to run"));
                }
                let summary = format!("run `{}`", cut(&line, 200));
                (Action::RunCommand(a), undo, summary)
            }
            Action::QueryLogs(a) => {
                if self.executor.logs.is_none() {
                    return Err(self.refused(
                        "the target's logs are not configured: name them in `logs` of [target]",
                    ));
                }
                let summary = format!("group the errors of the last {} s", a.since_s);
                (Action::QueryLogs(a), Vec::new(), summary)
            }
            Action::StopLockHolder(a) => {
                if self.executor.target.database.is_none() {
                    return Err(self.refused(
                        "the target has no SQLite database: configure [target.database]",
                    ));
                }
                (
                    Action::StopLockHolder(a),
                    Vec::new(),
                    "find who holds the database locked, and stop it where that is permitted"
                        .to_owned(),
                )
            }
            Action::ResetEventMesh(a) => {
                if self.executor.mesh.is_none() {
                    return Err(self.refused("the target has no event mesh configured"));
                }
                (
                    Action::ResetEventMesh(a),
                    Vec::new(),
                    "drop and renew the event mesh's consumers".to_owned(),
                )
            }
        })
    }

    fn no_undo(&self) -> Result<(), PrepareError> {
        if self.step.undo == UndoKind::Reversible {
            return Err(self.refused(format!(
                "`undo: reversible` is said of `{}`, which has no way back; say `none_needed` or `irreversible`",
                self.step.action.name()
            )));
        }
        Ok(())
    }

    fn no_undo_given(&self, name: &str) -> PrepareError {
        self.refused(format!(
            "`undo: reversible` needs an `{name}`: add it, or say `irreversible`"
        ))
    }

    /// The names behind a word; each is a service of the target.
    fn services(&self, wanted: &Services) -> Result<Vec<String>, PrepareError> {
        let known = self.executor.services.names();
        let words: Vec<&str> = match wanted {
            Services::One(word) => vec![word.as_str()],
            Services::Many(words) => words.iter().map(String::as_str).collect(),
        };
        let primary = || {
            self.executor
                .target
                .primary()
                .map(|s| s.name.clone())
                .or_else(|| known.first().cloned())
        };
        let mut names: Vec<String> = Vec::new();
        for word in words {
            let found = match word.trim() {
                "all" => known.clone(),
                "primary" => primary().into_iter().collect(),
                "affected" => {
                    let affected = self.affected(&known);
                    if affected.is_empty() {
                        primary().into_iter().collect()
                    } else {
                        affected
                    }
                }
                "heaviest" => match self.executor.services.heaviest() {
                    Some(name) => vec![name],
                    None => {
                        return Err(self.refused(
                            "no service's memory is known, so none is `heaviest`: is any running?",
                        ));
                    }
                },
                name => vec![name.to_owned()],
            };
            for name in found {
                if !known.contains(&name) {
                    let hint = nearest(&name, known.iter().map(String::as_str))
                        .map_or_else(String::new, |h| format!(" ({h})"));
                    return Err(self.refused(format!(
                        "the target has no service `{}`{hint}; it has {}",
                        cut(&name, 64),
                        known.join(", ")
                    )));
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        if names.is_empty() {
            return Err(self.refused("the target has no services: configure [[target.services]]"));
        }
        Ok(names)
    }

    /// The service that the anomaly names, else those that findings name.
    fn affected(&self, known: &[String]) -> Vec<String> {
        let named = |v: &Value| v.as_str().map(str::to_owned).filter(|n| known.contains(n));
        if let Some(service) = named(&self.scope["anomaly"]["service"]) {
            return vec![service];
        }
        let mut out: Vec<String> = Vec::new();
        for findings in self.scope["findings"]
            .as_object()
            .into_iter()
            .flat_map(|m| m.values())
        {
            for name in findings["services"].as_array().into_iter().flatten() {
                if let Some(name) = named(name).filter(|n| !out.contains(n)) {
                    out.push(name);
                }
            }
        }
        out
    }
}

/// A text that is one whole template takes the type of its value; where only a text will do it is written out.
fn texts_stay_texts(action: &mut Value) {
    const TEXTS: [&str; 9] = [
        "argv",
        "cwd",
        "env",
        "file",
        "headers",
        "method",
        "services",
        "undo_argv",
        "url",
    ];
    fn write_out(value: &mut Value) {
        match value {
            Value::Number(_) | Value::Bool(_) => *value = Value::String(value.to_string()),
            Value::Array(items) => items.iter_mut().for_each(write_out),
            Value::Object(map) => map.values_mut().for_each(write_out),
            _ => {}
        }
    }
    let arguments = action
        .as_object_mut()
        .and_then(|map| map.values_mut().next())
        .and_then(Value::as_object_mut);
    for (name, value) in arguments.into_iter().flatten() {
        if TEXTS.contains(&name.as_str()) {
            write_out(value);
        }
    }
}

/// Every `${secret.NAME}` in a value, with the way to it.
fn secret_names(value: &Value, path: &mut Vec<String>, out: &mut Vec<(Vec<String>, String)>) {
    match value {
        Value::String(text) => {
            for name in super::run::secrets_in(text) {
                out.push((path.clone(), name.to_owned()));
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                path.push(i.to_string());
                secret_names(item, path, out);
                path.pop();
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                secret_names(item, path, out);
                path.pop();
            }
        }
        _ => {}
    }
}
