//! The Amp CLI as an advisor: a program that could run commands, kept from doing so.
//!
//! It is started only with a key (without one it waits for ever), only with a deadline, in a process group of its own,
//! in an empty directory, with an environment of six variables and a settings file that rejects every tool but ours.
//! That the installed release honours this file is tried before the first question; one that does not is not asked.
//!
//! The answer comes through our own tool where the release can use it, else as the last JSON object of its closing
//! words. An answer that cannot be read is asked for once more, within the same deadline.

mod cli;
mod prompt;
mod stream;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use evenkeel_core::redact::Redactor;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::Answer;
use super::question::Question;
use super::{Advisor, AdvisorError, Secret};
use crate::plain::{cut, plain};
use cli::{Cli, Room};
use stream::Heard;

/// How Amp is started.
#[derive(Clone, Debug)]
pub struct AmpOptions {
    /// The program: a name that is looked up in `path`, or a full path.
    pub program: PathBuf,
    /// `AMP_API_KEY`.
    pub api_key: Option<Secret>,
    /// `AMP_URL`, where it is not the default one.
    pub url: Option<String>,
    /// `PATH` for Amp.
    pub path: OsString,
    /// Agent mode (`low`, `medium`, `high`, `ultra`), where the release has the choice.
    pub mode: Option<String>,
    /// Program and arguments that start [`super::mcp::serve_stdio`], such as this executable with `advisor-mcp`. Empty:
    /// the answer is read from Amp's closing words only.
    pub tool_server: Vec<String>,
    /// For everything about one question: trying the program out, asking, and asking again.
    pub deadline: Duration,
}

impl Default for AmpOptions {
    /// `amp` from a usual `PATH`, no key, no tool server, two minutes.
    fn default() -> Self {
        Self {
            program: "amp".into(),
            api_key: None,
            url: None,
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            mode: None,
            tool_server: Vec::new(),
            deadline: Duration::from_mins(2),
        }
    }
}

/// Asks Amp.
#[derive(Debug)]
pub struct AmpAdvisor {
    options: AmpOptions,
    redactor: Redactor,
    own: Redactor,
    /// What the installed release can do; forgotten when it ends with an error, since it may have been replaced.
    cli: Mutex<Option<Cli>>,
}

impl AmpAdvisor {
    /// An advisor that keeps the secrets `redactor` knows, and its own key, out of questions and errors.
    pub fn new(options: AmpOptions, redactor: Redactor) -> Self {
        let own = Redactor::new(options.api_key.iter().map(|k| k.expose().to_owned()));
        Self {
            options,
            redactor,
            own,
            cli: Mutex::new(None),
        }
    }

    async fn asked(&self, question: &Question) -> Result<Answer, AdvisorError> {
        let Some(key) = &self
            .options
            .api_key
            .as_ref()
            .filter(|k| !k.expose().trim().is_empty())
        else {
            return Err(AdvisorError::NoKey {
                advisor: "amp".into(),
                key: "AMP_API_KEY".into(),
            });
        };
        let until = Instant::now() + self.options.deadline;
        let room = Room::new(&self.options, key)?;
        let cli = self.cli(&room, until).await?;

        let question = question.redacted_by(&[&self.redactor, &self.own]);
        let actions = prompt::actions(&question);
        let has_tool = cli.has("--mcp-config") && !self.options.tool_server.is_empty();
        let mut complaint: Option<String> = None;
        // The question, and one repair turn.
        for _ in 0..2 {
            let text = prompt::prompt(&question, has_tool, complaint.as_deref());
            let heard = room.ask(&self.options, &cli, &actions, &text, until).await;
            match heard.map(|h| self.judged(h)) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(reason)) => complaint = Some(reason),
                Err(e) => {
                    if matches!(e, AdvisorError::Exited { .. }) {
                        self.remember(None);
                    }
                    return Err(match e {
                        AdvisorError::TimedOut { .. } => self.timed_out(),
                        AdvisorError::Exited { code, stderr } => AdvisorError::Exited {
                            code,
                            stderr: cut(plain(&self.redacted(&stderr)).trim(), 2048),
                        },
                        AdvisorError::BadAnswer { reason } => AdvisorError::BadAnswer {
                            reason: cut(&plain(&self.redacted(&reason)), 1024),
                        },
                        other => other,
                    });
                }
            }
        }
        Err(AdvisorError::BadAnswer {
            reason: complaint.unwrap_or_default(),
        })
    }

    /// The answer in what was heard, or what is wrong with it.
    fn judged(&self, heard: Heard) -> Result<Answer, String> {
        let answer = match heard {
            Heard::Submitted(answer) => Ok(*answer),
            Heard::Said(text) => Answer::from_text(&text),
        };
        answer
            .map(|a| a.redacted(&|text| self.redacted(text)))
            .map_err(|e| cut(&plain(&self.redacted(&e.to_string())), 1024))
    }

    async fn cli(&self, room: &Room, until: Instant) -> Result<Cli, AdvisorError> {
        let known = self
            .cli
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        if let Some(cli) = known {
            return Ok(cli);
        }
        let cli = room
            .try_out(&self.options, until)
            .await
            .map_err(|e| match e {
                AdvisorError::TimedOut { .. } => self.timed_out(),
                AdvisorError::Unsuitable { program, reason } => AdvisorError::Unsuitable {
                    program,
                    reason: cut(plain(&self.redacted(&reason)).trim(), 1024),
                },
                other => other,
            })?;
        self.remember(Some(cli.clone()));
        Ok(cli)
    }

    fn remember(&self, cli: Option<Cli>) {
        *self
            .cli
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = cli;
    }

    fn timed_out(&self) -> AdvisorError {
        AdvisorError::TimedOut {
            limit_ms: u64::try_from(self.options.deadline.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn redacted(&self, text: &str) -> String {
        self.own.text(&self.redactor.text(text))
    }
}

impl Advisor for AmpAdvisor {
    fn name(&self) -> &'static str {
        "amp"
    }

    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AdvisorError>> {
        Box::pin(self.asked(question))
    }
}

/// The settings that lock Amp: one tool of ours is allowed, everything else rejected. The first rule that matches counts.
fn locked_settings() -> Value {
    let tool = format!("mcp__evenkeel__{}", super::mcp::TOOL);
    serde_json::json!({
        "amp.permissions": [
            { "tool": tool, "action": "allow" },
            {
                "tool": "*", "action": "reject",
                "message": "You advise only: no tool but submit_recommendation can be used.",
            },
        ],
        "amp.dangerouslyAllowAll": false,
        "amp.tools.enable": [tool],
        "amp.remoteThreadCreation.enabled": false,
        "amp.updates.mode": "disabled",
        "amp.notifications.enabled": false,
    })
}
