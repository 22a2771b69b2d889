//! Taking steps back. Everything here may be run when the change never happened, and run twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::playbook::{KeyChange, RollbackOutcome, UndoOp};
use evenkeel_core::redact::is_secret_key;
use serde_json::Value;

use super::Executor;
use crate::config_edit::{self, Edit};

/// Time limit of each single thing that is done to take a step back.
const UNDO_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a service has to stop by itself when it is restarted.
const GRACEFUL_MS: u64 = 5_000;

/// One key of one file over all steps: where it began, and every value that was ours.
struct Chain {
    file: PathBuf,
    key: String,
    before: Option<Value>,
    ours: Vec<Option<Value>>,
}

impl Executor {
    /// Takes back what the steps of an attempt changed. `ops` are their undos in the order the steps were run.
    ///
    /// First keys, statements and programs, the last change first; then services that were stopped are started; then
    /// services are restarted, each once, and only when configuration was put back or they are down. A key that
    /// somebody else changed is left alone and reported. Each single thing has a minute.
    pub async fn undo(&self, ops: &[UndoOp]) -> RollbackOutcome {
        let mut out = RollbackOutcome::default();
        let put_back = self.restore_keys(ops, &mut out).await;
        for op in ops.iter().rev() {
            match op {
                UndoOp::Sql { statement } => {
                    let done = self.sql(statement, &[], UNDO_TIMEOUT);
                    let done = tokio::time::timeout(UNDO_TIMEOUT, done).await;
                    self.note(&mut out, done, &format!("SQL `{statement}`"));
                }
                UndoOp::Command { argv, cwd } => {
                    let done = self.run_program(argv, cwd, &[], &[]);
                    let done = tokio::time::timeout(UNDO_TIMEOUT, done).await;
                    self.note(&mut out, done, &format!("`{}`", argv.join(" ")));
                }
                _ => {}
            }
        }
        let started = self.start_stopped(ops, &mut out).await;
        self.restart_changed(ops, put_back, &started, &mut out)
            .await;
        out.ok = out.errors.is_empty();
        out
    }

    fn note(
        &self,
        out: &mut RollbackOutcome,
        done: Result<super::run::Done, tokio::time::error::Elapsed>,
        what: &str,
    ) {
        let line = match done {
            Ok(Ok((message, _))) => Ok(format!("{what}: {message}")),
            Ok(Err((message, _))) => Err(format!("{what}: {message}")),
            Err(_) => Err(format!(
                "{what}: not done within {} s",
                UNDO_TIMEOUT.as_secs()
            )),
        };
        match line {
            Ok(line) => out.restored.push(self.redactor.text(&line)),
            Err(line) => out.errors.push(self.redactor.text(&line)),
        }
    }

    /// Puts keys back; whether any file had to be changed.
    async fn restore_keys(&self, ops: &[UndoOp], out: &mut RollbackOutcome) -> bool {
        let chains = chains(ops);
        if chains.is_empty() {
            return false;
        }
        let root = self.target.root.clone();
        let allowed = self.target.config_files.clone();
        let work = move || {
            let mut files: Vec<&Path> = Vec::new();
            for chain in chains.iter().rev() {
                if !files.contains(&chain.file.as_path()) {
                    files.push(&chain.file);
                }
            }
            let (mut restored, mut errors) = (Vec::new(), Vec::new());
            for file in files {
                if !allowed.iter().any(|f| f == file) {
                    errors.push(format!(
                        "{} is not one of the target's `config_files` any more",
                        file.display()
                    ));
                    continue;
                }
                let own: Vec<&Chain> = chains.iter().filter(|c| c.file == file).collect();
                restore_file(&root, file, &own, &mut restored, &mut errors);
            }
            (restored, errors)
        };
        let (restored, errors) = tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|e| (Vec::new(), vec![e.to_string()]));
        let changed = !restored.is_empty();
        let text = |line: &String| self.redactor.text(line);
        out.restored.extend(restored.iter().map(text));
        out.errors.extend(errors.iter().map(text));
        changed
    }

    async fn start_stopped(&self, ops: &[UndoOp], out: &mut RollbackOutcome) -> Vec<String> {
        let wanted = named(ops, |op| match op {
            UndoOp::StartServices { services } => Some(services),
            _ => None,
        });
        let mut started = Vec::new();
        // In the order in which they depend on each other.
        for name in self.services.names() {
            if !wanted.contains(&name) || !self.services.pids(&name).is_empty() {
                continue;
            }
            match tokio::time::timeout(UNDO_TIMEOUT, self.services.start(&name)).await {
                Ok(Ok(())) => {
                    out.restored.push(format!("started {name}"));
                    started.push(name);
                }
                Ok(Err(e)) => out.errors.push(format!("`{name}` did not start: {e}")),
                Err(_) => out.errors.push(format!(
                    "`{name}` did not start within {} s",
                    UNDO_TIMEOUT.as_secs()
                )),
            }
        }
        self.unknown(&wanted, out);
        started
    }

    async fn restart_changed(
        &self,
        ops: &[UndoOp],
        put_back: bool,
        started: &[String],
        out: &mut RollbackOutcome,
    ) {
        let wanted = named(ops, |op| match op {
            UndoOp::RestartServices { services } => Some(services),
            _ => None,
        });
        for name in self.services.names() {
            // What has just been started has read the configuration already.
            if !wanted.contains(&name) || started.contains(&name) {
                continue;
            }
            let down = self.services.pids(&name).is_empty();
            if !put_back && !down {
                continue;
            }
            let done = async {
                if down {
                    self.services.start(&name).await
                } else {
                    self.services.restart(&name, GRACEFUL_MS).await
                }
            };
            let what = if down { "started" } else { "restarted" };
            match tokio::time::timeout(UNDO_TIMEOUT, done).await {
                Ok(Ok(())) => out.restored.push(format!("{what} {name}")),
                Ok(Err(e)) => out.errors.push(format!("`{name}` was not {what}: {e}")),
                Err(_) => out.errors.push(format!(
                    "`{name}` was not {what} within {} s",
                    UNDO_TIMEOUT.as_secs()
                )),
            }
        }
        self.unknown(&wanted, out);
    }

    fn unknown(&self, wanted: &[String], out: &mut RollbackOutcome) {
        let known = self.services.names();
        for name in wanted.iter().filter(|n| !known.contains(n)) {
            out.errors
                .push(format!("the target has no service `{name}` any more"));
        }
    }
}

fn named<'o>(ops: &'o [UndoOp], of: impl Fn(&'o UndoOp) -> Option<&'o Vec<String>>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in ops.iter().filter_map(of).flatten() {
        if !out.contains(name) {
            out.push(name.clone());
        }
    }
    out
}

fn chains(ops: &[UndoOp]) -> Vec<Chain> {
    let mut out: Vec<Chain> = Vec::new();
    for op in ops {
        let UndoOp::RestoreKeys { file, keys } = op else {
            continue;
        };
        for KeyChange { key, before, after } in keys {
            let ours = [before.clone(), Some(after.clone())];
            match out.iter_mut().find(|c| c.file == *file && c.key == *key) {
                Some(chain) => chain.ours.extend(ours),
                None => out.push(Chain {
                    file: file.clone(),
                    key: key.clone(),
                    before: before.clone(),
                    ours: ours.to_vec(),
                }),
            }
        }
    }
    out
}

/// Puts the keys of one file back, at once; those that are somebody else's now are left alone.
fn restore_file(
    root: &Path,
    file: &Path,
    chains: &[&Chain],
    restored: &mut Vec<String>,
    errors: &mut Vec<String>,
) {
    let name = file.strip_prefix(root).unwrap_or(file).display();
    let (format, text) = match config_edit::read_text(root, file) {
        Ok(read) => read,
        Err(e) => {
            errors.push(e.to_string());
            return;
        }
    };
    let mut edited = text;
    let mut edits = Vec::new();
    let mut lines = Vec::new();
    for chain in chains.iter().rev() {
        let now = match config_edit::get(format, &edited, &chain.key) {
            Ok(now) => now,
            Err(e) => {
                errors.push(format!("{name}: {e}"));
                continue;
            }
        };
        let created_table_is_gone = chains.iter().any(|c| {
            c.before.is_none()
                && chain
                    .key
                    .strip_prefix(c.key.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
                && matches!(config_edit::get(format, &edited, &c.key), Ok(None))
        });
        if equal(now.as_ref(), chain.before.as_ref()) || created_table_is_gone {
            continue;
        }
        if !chain
            .ours
            .iter()
            .any(|own| equal(now.as_ref(), own.as_ref()))
        {
            errors.push(format!(
                "`{}` in {name} was changed by somebody else meanwhile; it was left alone",
                chain.key
            ));
            continue;
        }
        let changed = match &chain.before {
            Some(value) => config_edit::set(format, &edited, &chain.key, value),
            None => config_edit::remove(format, &edited, &chain.key),
        };
        match changed {
            Ok(text) => {
                edited = text;
                edits.push(Edit {
                    key: chain.key.clone(),
                    value: chain.before.clone(),
                });
                lines.push(format!(
                    "{} {} -> {} in {name}",
                    chain.key,
                    show(&chain.key, now.as_ref()),
                    show(&chain.key, chain.before.as_ref())
                ));
            }
            Err(e) => errors.push(format!("{name}: {e}")),
        }
    }
    if edits.is_empty() {
        return;
    }
    match config_edit::apply(root, file, &edits) {
        Ok(_) => restored.extend(lines),
        Err(e) => errors.push(e.to_string()),
    }
}

fn equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => config_edit::same(a, b),
        _ => false,
    }
}

fn show(key: &str, value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::String(_)) if is_secret_key(key) => evenkeel_core::redact::REDACTED.to_owned(),
        Some(v) => v.to_string(),
    }
}
