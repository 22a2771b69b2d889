//! Starting the Amp CLI: the room it is shut in, what its release can do, and one run of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::stream::{Heard, Listener};
use super::{AmpOptions, locked_settings};
use crate::advisor::mcp::ACTIONS_ENV;
use crate::advisor::{AdvisorError, Secret};
use crate::outside::{CaptureError, Captured, Kept, Outside, capture, feed};

/// How much of `--help` is read.
const HELP_BYTES_MAX: usize = 256 * 1024;
/// How much of standard error is kept; what is reported is shorter still.
const STDERR_BYTES_MAX: usize = 16 * 1024;
/// How long Amp may take to end by itself after its closing message.
const GRACE: Duration = Duration::from_secs(2);

/// Flags that every release must know to be usable.
const FLAGS_NEEDED: [&str; 3] = ["--execute", "--stream-json", "--settings-file"];
/// Flags that are used where they are known.
const FLAGS_WANTED: [&str; 4] = ["--mcp-config", "--mode", "--visibility", "--executor"];

/// What the installed release can do: the wanted flags that it knows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cli {
    flags: Vec<&'static str>,
}

impl Cli {
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

/// An empty home, an empty working directory and a locked settings file; gone when dropped.
pub(super) struct Room {
    dir: TempDir,
    settings: PathBuf,
    env: Vec<(&'static str, std::ffi::OsString)>,
}

impl Room {
    pub(super) fn new(options: &AmpOptions, key: &Secret) -> Result<Self, AdvisorError> {
        let io = |e: &std::io::Error| AdvisorError::Io {
            what: "making an empty directory for amp".into(),
            reason: e.to_string(),
        };
        let dir = tempfile::Builder::new()
            .prefix("evenkeel-advisor-")
            .tempdir()
            .map_err(|e| io(&e))?;
        for sub in ["home", "work"] {
            std::fs::create_dir(dir.path().join(sub)).map_err(|e| io(&e))?;
        }
        let settings = dir.path().join("settings.json");
        private_file(&settings)
            .and_then(|mut f| f.write_all(locked_settings().to_string().as_bytes()))
            .map_err(|e| io(&e))?;
        let mut env = vec![
            ("AMP_API_KEY", key.expose().into()),
            ("AMP_SKIP_UPDATE_CHECK", "1".into()),
            ("PATH", options.path.clone()),
            ("HOME", dir.path().join("home").into_os_string()),
        ];
        if let Some(url) = &options.url {
            env.push(("AMP_URL", url.into()));
        }
        #[cfg(windows)]
        if let Some(root) = std::env::var_os("SystemRoot") {
            // Nothing starts on Windows without it.
            env.push(("SystemRoot", root));
        }
        Ok(Self { dir, settings, env })
    }

    fn command(&self, options: &AmpOptions) -> Command {
        let mut command = Command::new(&options.program);
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.dir.path().join("work"));
        command
    }

    /// Reads `--help`, and makes sure that the settings file keeps commands from being run.
    pub(super) async fn try_out(
        &self,
        options: &AmpOptions,
        until: Instant,
    ) -> Result<Cli, AdvisorError> {
        let program = options.program.display().to_string();
        let unsuitable = |reason: String| AdvisorError::Unsuitable {
            program: program.clone(),
            reason,
        };
        let help = self.captured(options, &["--help"], until).await?;
        let text = help.stdout.text();
        let has = |flag: &str| {
            text.split(|c: char| c.is_whitespace() || c == ',' || c == '=')
                .any(|word| word == flag)
        };
        for flag in FLAGS_NEEDED {
            if !has(flag) {
                return Err(unsuitable(format!(
                    "this release does not know {flag} (its --help ended with {}: {}); install a current one",
                    help.status,
                    crate::plain::cut(&help.stderr.text(), 512)
                )));
            }
        }
        let settings = self.settings.to_string_lossy();
        let lock = self
            .captured(
                options,
                &[
                    "--settings-file",
                    &settings,
                    "permissions",
                    "test",
                    "Bash",
                    "--cmd",
                    "ls",
                ],
                until,
            )
            .await?;
        if lock.status.code() != Some(2) {
            return Err(unsuitable(format!(
                "it could not be kept from running commands: `amp permissions test Bash --cmd ls` with our settings \
                 ended with {} instead of 2: {}",
                lock.status,
                crate::plain::cut(&lock.stderr.text(), 512)
            )));
        }
        Ok(Cli {
            flags: FLAGS_WANTED.into_iter().filter(|f| has(f)).collect(),
        })
    }

    async fn captured(
        &self,
        options: &AmpOptions,
        args: &[&str],
        until: Instant,
    ) -> Result<Captured, AdvisorError> {
        let left = until.saturating_duration_since(Instant::now());
        capture(self.command(options).args(args), b"", HELP_BYTES_MAX, left)
            .await
            .map_err(|e| match e {
                CaptureError::TimedOut => AdvisorError::TimedOut { limit_ms: 0 },
                CaptureError::Io(e) => not_started(options, &e),
            })
    }

    /// One run: the prompt goes in through standard input, where no other user sees it.
    pub(super) async fn ask(
        &self,
        options: &AmpOptions,
        cli: &Cli,
        actions: &[String],
        prompt: &str,
        until: Instant,
    ) -> Result<Heard, AdvisorError> {
        let mut command = self.command(options);
        command.arg("--settings-file").arg(&self.settings);
        if cli.has("--visibility") {
            command.args(["--visibility", "private"]);
        }
        if cli.has("--executor") {
            command.args(["--executor", "local"]);
        }
        if let (true, Some(mode)) = (cli.has("--mode"), &options.mode) {
            command.args(["--mode", mode]);
        }
        if let (true, [program, args @ ..]) = (cli.has("--mcp-config"), &options.tool_server[..]) {
            let config = json!({ "evenkeel": {
                "command": program, "args": args, "env": { ACTIONS_ENV: actions.join(",") },
            } });
            command.arg("--mcp-config").arg(config.to_string());
        }
        command.args(["--execute", "--stream-json"]);

        let mut outside = Outside::spawn(&mut command).map_err(|e| not_started(options, &e))?;
        let (stdin, stdout, stderr) = outside.streams().expect("spawned with its streams piped");
        let mut listener = Listener::default();
        let mut complaints = Kept::new(STDERR_BYTES_MAX);
        let heard_all = {
            let side = async {
                tokio::join!(feed(stdin, prompt.as_bytes()), complaints.fill(stderr));
            };
            tokio::pin!(side);
            let mut flowing = true;
            let conversation = async {
                let mut listening = std::pin::pin!(listener.listen(stdout));
                let end = loop {
                    tokio::select! {
                        end = &mut listening => break end,
                        () = &mut side, if flowing => flowing = false,
                    }
                };
                // Only a program that has closed its output is waited for: one that broke a bound is just killed.
                if end.is_ok() {
                    let _ = tokio::time::timeout(GRACE, async {
                        let _ = outside.ended().await;
                        if flowing {
                            side.await;
                        }
                    })
                    .await;
                }
                end
            };
            tokio::time::timeout_at(until, conversation).await
        };
        let status = outside.finish().await.map_err(|e| AdvisorError::Io {
            what: "waiting for amp".into(),
            reason: e.to_string(),
        })?;
        if listener.has_submission() {
            // Whatever went wrong afterwards, this is the answer.
            return listener.heard().ok_or_else(nothing);
        }
        let bad = |reason: String| Err(AdvisorError::BadAnswer { reason });
        match heard_all {
            Err(_) => return Err(AdvisorError::TimedOut { limit_ms: 0 }),
            Ok(Err(reason)) => return bad(reason.to_owned()),
            Ok(Ok(())) => {}
        }
        if let Some(failure) = listener.failure.take() {
            return bad(format!("amp reports: {failure}"));
        }
        if !listener.is_done && !status.success() {
            return Err(AdvisorError::Exited {
                code: status.code(),
                stderr: complaints.text(),
            });
        }
        listener.heard().ok_or_else(nothing)
    }
}

fn nothing() -> AdvisorError {
    AdvisorError::BadAnswer {
        reason: "amp ended without an answer".into(),
    }
}

fn not_started(options: &AmpOptions, error: &std::io::Error) -> AdvisorError {
    let program = options.program.display().to_string();
    if error.kind() == std::io::ErrorKind::NotFound {
        AdvisorError::NotInstalled { program }
    } else {
        AdvisorError::Io {
            what: format!("starting `{program}`"),
            reason: error.to_string(),
        }
    }
}

fn private_file(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
