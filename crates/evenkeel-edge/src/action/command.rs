//! Running a program: an argument vector, a scrubbed environment, a process group of its own that does not outlive
//! its time, and an output of bounded size.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use evenkeel_core::playbook::action::RunCommandArgs;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::run::{Done, failed};
use super::{Executor, OUTPUT_LEN_MAX, cut};

/// The environment that is handed on.
const HANDED_ON: [&str; 3] = ["PATH", "HOME", "LANG"];
/// How long output may still come after the program has ended: a child of it may have kept the pipe.
const DRAIN: Duration = Duration::from_millis(250);
/// Half of what one stream may keep: as much of its beginning as of its end.
const HALF: usize = OUTPUT_LEN_MAX / 4;
/// Read beyond the halves, so that a secret that is cut by the gap is still hidden whole.
const MARGIN: usize = 4 * 1024;

impl Executor {
    pub(super) async fn command(&self, a: &RunCommandArgs) -> Done {
        let argv = match (&a.shell, a.argv.is_empty()) {
            (Some(line), true) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            (None, false) => a.argv.clone(),
            _ => return failed("exactly one of `argv` and `shell` was expected"),
        };
        let cwd = a.cwd.as_ref().map_or(self.target.root.as_path(), Path::new);
        let mut used = Vec::new();
        let mut env = Vec::new();
        for (name, value) in &a.env {
            match self.with_secrets(value, &mut used) {
                Ok(value) => env.push((name.clone(), value)),
                Err(e) => return failed(&e),
            }
        }
        self.run_program(&argv, cwd, &env, &used).await
    }

    pub(super) async fn run_program(
        &self,
        argv: &[String],
        cwd: &Path,
        env: &[(String, String)],
        used: &[String],
    ) -> Done {
        let Some((program, arguments)) = argv.split_first() else {
            return failed("there is no program to run");
        };
        let handed_on: Vec<(&str, OsString)> = HANDED_ON
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)))
            .collect();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(cwd)
            .env_clear()
            .envs(handed_on)
            .envs(env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let runtime = tokio::runtime::Handle::current();
        let spawned = crate::launcher::launch(move || {
            let _inside = runtime.enter();
            command.spawn()
        });
        let child = match spawned {
            Ok(child) => child,
            Err(e) => {
                return failed(&format!(
                    "`{program}` cannot be run in {}: {e}",
                    cwd.display()
                ));
            }
        };
        let mut group = Group(child);
        let (ended, running) = watch::channel(());
        let out = tokio::spawn(keep(group.0.stdout.take(), running.clone()));
        let err = tokio::spawn(keep(group.0.stderr.take(), running));
        let status = group.0.wait().await;
        drop(ended);
        let (out, err) = (out.await.unwrap_or_default(), err.await.unwrap_or_default());
        let hide = |text: &str| self.hide(used, text);
        let (out, err) = (out.text(hide), err.text(hide));
        let status = match status {
            Ok(status) => status,
            Err(e) => return failed(&format!("`{program}` cannot be waited for: {e}")),
        };
        let findings = json!({"exit_code": status.code(), "stdout": out, "stderr": err});
        if status.success() {
            return Ok((format!("`{program}` ended with success"), findings));
        }
        let words = [&err, &out]
            .into_iter()
            .find_map(|t| t.lines().rev().find(|l| !l.trim().is_empty()))
            .map_or_else(String::new, |l| format!(": {}", cut(l.trim(), 300)));
        Err((format!("`{program}` failed ({status}){words}"), findings))
    }
}

/// A child and everything it started. Dropped before its end was seen, all of it is killed.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is there only while the child has not been waited for, so the number cannot be somebody else's.
        #[cfg(unix)]
        if let Some(pid) = self
            .0
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The beginning and the end of a stream.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let room = (HALF + MARGIN).saturating_sub(self.head.len());
        let (head, tail) = bytes.split_at(room.min(bytes.len()));
        self.head.extend(head);
        self.tail.extend(tail);
        while self.tail.len() > HALF + MARGIN {
            self.tail.pop_front();
            self.dropped += 1;
        }
    }

    /// What is kept as text, hidden what must be, with a note in the gap.
    fn text(self, hide: impl Fn(&str) -> String) -> String {
        let tail: Vec<u8> = self.tail.into();
        if self.dropped == 0 {
            let whole = [self.head, tail].concat();
            return hide(&String::from_utf8_lossy(&whole));
        }
        // A secret may have been cut at the gap; what is next to it goes.
        let head = hide(&String::from_utf8_lossy(&self.head));
        let tail = hide(&String::from_utf8_lossy(&tail));
        let head = cut(&head, head.len().saturating_sub(MARGIN));
        let mut from = MARGIN.min(tail.len());
        while !tail.is_char_boundary(from) {
            from += 1;
        }
        let gone = self.dropped + 2 * MARGIN as u64;
        format!("{head}\n[... {gone} bytes left out ...]\n{}", &tail[from..])
    }
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, mut running: watch::Receiver<()>) -> Kept {
    let mut kept = Kept::default();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = vec![0u8; 8 * 1024];
    let give_up = async {
        // The sender goes when the program has ended.
        while running.changed().await.is_ok() {}
        tokio::time::sleep(DRAIN).await;
    };
    tokio::pin!(give_up);
    loop {
        tokio::select! {
            biased;
            read = stream.read(&mut buffer) => match read {
                Ok(n) if n > 0 => kept.add(&buffer[..n]),
                _ => return kept,
            },
            () = &mut give_up => return kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SAFETY 22
    #[test]
    fn a_secret_cut_by_the_gap_leaves_no_half() {
        let secret = "sk-0123456789abcdef";
        let hide = |t: &str| t.replace(secret, "[redacted]");
        for shift in 0..secret.len() {
            let mut kept = Kept::default();
            kept.add(&vec![b'a'; HALF + MARGIN - shift]);
            kept.add(secret.as_bytes());
            kept.add(&vec![b'b'; 10 * HALF]);
            kept.add(secret.as_bytes());
            kept.add(&vec![b'c'; HALF + MARGIN - shift]);
            let text = kept.text(hide);
            assert!(!text.contains("sk-") && !text.contains("cdef"), "{shift}");
            assert!(text.len() <= 2 * HALF + 100, "{}", text.len());
        }
    }
}
