//! Running a prepared step: within its time, to a safe point when asked to stop, and with an outcome in every case.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use evenkeel_core::playbook::action::{SetConfigArgs, StopLockHolderArgs};
use evenkeel_core::playbook::{Action, Prepared, Services, StepOutcome, UndoOp};
use evenkeel_core::redact::Redactor;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::{Cancel, ControlError, Executor, MESSAGE_LEN_MAX, SAMPLES_MAX, cut};
use crate::config_edit::{self, Edit};
use crate::lock_holder::{self, StopPolicy};

/// Longest sample of a log line, in bytes.
const SAMPLE_LEN_MAX: usize = 400;

/// What an action came to: the message and the findings.
pub(super) type Done = Result<(String, Value), (String, Value)>;

impl Executor {
    /// Runs a step. Never panics; ends within `timeout` (a command's whole process group is killed then).
    ///
    /// When `cancel` asks, commands, requests, statements and waits end at once; a service that is being stopped or
    /// started is brought to the end of that, and no further one is touched.
    pub async fn run(
        &self,
        prepared: &Prepared,
        timeout: Duration,
        cancel: &Cancel,
    ) -> StepOutcome {
        let begun = Instant::now();
        let work = AssertUnwindSafe(self.act(prepared, timeout, cancel)).catch_unwind();
        let done = if cancel.is_cancelled() {
            failed("asked to stop before it began")
        } else if at_safe_points(&prepared.action) {
            // It looks at `cancel` itself.
            match tokio::time::timeout(timeout, work).await {
                Ok(done) => settled(done),
                Err(_) => out_of_time(timeout),
            }
        } else {
            tokio::select! {
                biased;
                done = tokio::time::timeout(timeout, work) => match done {
                    Ok(done) => settled(done),
                    Err(_) => out_of_time(timeout),
                },
                () = cancel.cancelled() => failed("stopped because it was asked to"),
            }
        };
        let (ok, message, findings) = match done {
            Ok((message, findings)) => (true, message, findings),
            Err((message, findings)) => (false, message, findings),
        };
        StepOutcome {
            ok,
            message: cut(&self.redactor.text(&message), MESSAGE_LEN_MAX).to_owned(),
            findings: self.redactor.value(&findings),
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn act(&self, prepared: &Prepared, timeout: Duration, cancel: &Cancel) -> Done {
        match &prepared.action {
            Action::Restart(a) => {
                let each = |n| self.services.restart(n, a.graceful_ms);
                self.for_each(&a.services, cancel, "restarted", each).await
            }
            Action::Stop(a) => {
                let each = |n| self.services.stop(n, a.graceful_ms);
                self.for_each(&a.services, cancel, "stopped", each).await
            }
            Action::Start(a) => {
                let each = |n| self.services.start(n);
                self.for_each(&a.services, cancel, "started", each).await
            }
            Action::WaitReady(a) => {
                let each = |n| self.services.wait_ready(n);
                self.for_each(&a.services, cancel, "ready", each).await
            }
            Action::Signal(a) => {
                let each = |n| self.services.signal(n, a.signal);
                self.for_each(&a.services, cancel, "signalled", each).await
            }
            Action::SetConfig(a) => self.write_config(a, prepared).await,
            Action::SetTunable(_) => failed("a tunable is resolved to its key before it is run"),
            Action::HttpRequest(a) => self.request(a, timeout).await,
            Action::Sql(a) => self.sql(&a.statement, &a.params, timeout).await,
            Action::RunCommand(a) => self.command(a).await,
            Action::QueryLogs(a) => self.query_logs(a.since_s).await,
            Action::StopLockHolder(a) => self.stop_lock_holder(a, cancel).await,
            Action::ResetEventMesh(_) => match &self.mesh {
                None => failed("the target has no event mesh configured"),
                Some(mesh) => match mesh.reset().await {
                    Ok(()) => Ok(("event mesh consumers renewed".into(), Value::Null)),
                    Err(e) => failed(&e.to_string()),
                },
            },
        }
    }

    /// Does the same to services one after the other, and looks between them whether to go on.
    async fn for_each<'a, F>(
        &'a self,
        services: &'a Services,
        cancel: &Cancel,
        what: &str,
        each: impl Fn(&'a str) -> F,
    ) -> Done
    where
        F: Future<Output = Result<(), ControlError>>,
    {
        let names: Vec<&str> = match services {
            Services::One(name) => vec![name],
            Services::Many(names) => names.iter().map(String::as_str).collect(),
        };
        let mut done: Vec<&str> = Vec::new();
        for name in names {
            if cancel.is_cancelled() {
                return Err((
                    format!("asked to stop; {what} so far: {}", done.join(", ")),
                    json!({"services": done}),
                ));
            }
            if let Err(e) = each(name).await {
                return Err((format!("`{name}`: {e}"), json!({"services": done})));
            }
            done.push(name);
        }
        Ok((
            format!("{what}: {}", done.join(", ")),
            json!({"services": done}),
        ))
    }

    async fn write_config(&self, a: &SetConfigArgs, prepared: &Prepared) -> Done {
        let file = self.config_file(&a.file).map_err(plain)?;
        let root = self.target.root.clone();
        let own: Vec<_> = prepared
            .undo
            .iter()
            .filter_map(|op| match op {
                UndoOp::RestoreKeys { keys, .. } => Some(keys.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let edits: Vec<Edit> = a
            .set
            .iter()
            .map(|(key, value)| Edit {
                key: key.clone(),
                value: Some(value.clone()),
            })
            .collect();
        let name = a.file.clone();
        let summary = prepared.summary.clone();
        let work = move || -> Done {
            for change in &own {
                let now = config_edit::read(&root, &file, &change.key)
                    .map_err(|e| plain(e.to_string()))?;
                let as_before = match (&now, &change.before) {
                    (None, None) => true,
                    (Some(n), Some(b)) => config_edit::same(n, b),
                    _ => false,
                };
                let done = now
                    .as_ref()
                    .is_some_and(|n| config_edit::same(n, &change.after));
                if !as_before && !done {
                    return Err(plain(format!(
                        "`{}` in {name} was changed by somebody else since the step was prepared; it was left alone",
                        change.key
                    )));
                }
            }
            let changed =
                config_edit::apply(&root, &file, &edits).map_err(|e| plain(e.to_string()))?;
            let message = if changed || summary.starts_with("already") {
                summary
            } else {
                format!("already done: {summary}")
            };
            Ok((message, json!({"changed": changed})))
        };
        blocking(work).await
    }

    async fn query_logs(&self, since_s: u64) -> Done {
        let Some(logs) = &self.logs else {
            return failed("the target's logs are not configured");
        };
        let found = match logs.recent_errors(since_s).await {
            Ok(found) => found,
            Err(e) => return failed(&e.to_string()),
        };
        let samples: Vec<String> = found
            .samples
            .iter()
            .take(SAMPLES_MAX)
            // Redacted before it is cut: half a secret is not recognised any more.
            .map(|s| {
                cut(
                    &self.redactor.text(cut(s, 16 * SAMPLE_LEN_MAX)),
                    SAMPLE_LEN_MAX,
                )
                .to_owned()
            })
            .collect();
        let mut patterns: Vec<(&String, &u64)> = found.patterns.iter().collect();
        patterns.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let top: Vec<String> = patterns
            .iter()
            .take(3)
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        let message = if found.total == 0 {
            format!("no errors in the last {since_s} s")
        } else {
            format!(
                "{} errors in the last {since_s} s: {}",
                found.total,
                top.join(", ")
            )
        };
        Ok((
            message,
            json!({
                "total": found.total,
                "patterns": found.patterns,
                "services": found.services,
                "samples": samples,
            }),
        ))
    }

    async fn stop_lock_holder(&self, a: &StopLockHolderArgs, cancel: &Cancel) -> Done {
        let Some(db) = &self.target.database else {
            return failed("the target has no SQLite database");
        };
        let confirmed = tokio::select! {
            found = lock_holder::hold_confirmed(&db.path, a.held_ms) => found,
            () = cancel.cancelled() => return failed("stopped because it was asked to"),
        };
        let held = match confirmed {
            Ok(Some(held)) => held,
            Ok(None) => {
                return Err((
                    format!("no process holds the database locked for {} ms", a.held_ms),
                    json!({"pid": null}),
                ));
            }
            Err(e) => return failed(&e.to_string()),
        };
        let policy = StopPolicy {
            may_stop: db.may_stop_lock_holders.clone(),
            own_services: self
                .services
                .names()
                .into_iter()
                .flat_map(|name| {
                    let pids = self.services.pids(&name);
                    pids.into_iter().map(move |pid| (name.clone(), pid))
                })
                .collect(),
            graceful_ms: a.graceful_ms,
        };
        let mut findings = json!({
            "pid": held.holder.pid,
            "command": held.holder.command,
            "held_ms": held.held_ms,
            "kind": held.holder.kind,
        });
        match lock_holder::stop(&db.path, &held.holder, &policy).await {
            Ok(stopped) => {
                findings["forced"] = stopped.forced.into();
                findings["stopped"] = true.into();
                Ok((
                    format!(
                        "stopped process {} (`{}`), which held the database locked for at least {} ms{}",
                        held.holder.pid,
                        held.holder.command,
                        held.held_ms,
                        if stopped.forced {
                            "; SIGKILL was needed"
                        } else {
                            ""
                        }
                    ),
                    findings,
                ))
            }
            Err(e) => {
                if let lock_holder::LockError::OwnService { service, .. } = &e {
                    // For a later `restart: affected`.
                    findings["services"] = json!([service]);
                }
                findings["stopped"] = false.into();
                Err((e.to_string(), findings))
            }
        }
    }

    /// A text with its secrets filled in, and a redactor that knows them.
    pub(super) fn with_secrets(
        &self,
        text: &str,
        used: &mut Vec<String>,
    ) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, name, end)) = next_secret(rest) {
            let value = (self.secrets)(name).ok_or_else(|| {
                format!("the secret `{name}` is not known: set it in Evenkeel's environment")
            })?;
            out.push_str(&rest[..at]);
            out.push_str(&value);
            used.push(value);
            rest = &rest[end..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Hides what is always hidden and what this step used.
    pub(super) fn hide(&self, used: &[String], text: &str) -> String {
        Redactor::new(used.iter().cloned()).text(&self.redactor.text(text))
    }
}

/// The names of all `${secret.NAME}` in a text.
pub(super) fn secrets_in(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((_, name, end)) = next_secret(rest) {
        out.push(name);
        rest = &rest[end..];
    }
    out
}

/// Where the next `${secret.NAME}` begins, its name, and where it ends.
fn next_secret(text: &str) -> Option<(usize, &str, usize)> {
    let mut from = 0;
    while let Some(open) = text[from..].find("${").map(|i| from + i) {
        let close = text[open..].find('}').map(|i| open + i)?;
        let inside = text[open + 2..close].trim();
        if let Some(name) = inside.strip_prefix("secret.") {
            return Some((open, name, close + 1));
        }
        from = open + 2;
    }
    None
}

/// Whether an action, once begun on a service, is brought to its end.
fn at_safe_points(action: &Action) -> bool {
    matches!(
        action,
        Action::Restart(_)
            | Action::Stop(_)
            | Action::Start(_)
            | Action::Signal(_)
            | Action::SetConfig(_)
            | Action::StopLockHolder(_)
    )
}

fn settled(done: Result<Done, Box<dyn std::any::Any + Send>>) -> Done {
    done.unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        failed(&format!("an error in Evenkeel itself: {words}"))
    })
}

fn out_of_time(timeout: Duration) -> Done {
    failed(&format!("not done within {} ms", timeout.as_millis()))
}

pub(super) fn failed(message: &str) -> Done {
    Err(plain(message.to_owned()))
}

fn plain(message: String) -> (String, Value) {
    (message, Value::Null)
}

pub(super) async fn blocking(work: impl FnOnce() -> Done + Send + 'static) -> Done {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| failed(&format!("an error in Evenkeel itself: {e}")))
}
