//! Alerts: telling a person, by every way there is, at once.
//!
//! An alert waits for nothing (SAFETY 20): each channel has its own deadline and its own task, the advisor and the
//! network are not needed for the file, and no disk is needed for the webhook. What reached nobody is handed back as
//! text, for standard error.
//!
//! In reading order: what is told ([`Alert`]), how it is laid out ([`text`]), the channels ([`mod@file`], [`webhook`],
//! [`command`]), and [`send_all`].

pub mod command;
pub mod file;
pub mod text;
pub mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{AnomalyType, Severity, Timestamp};
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;

pub use command::CommandChannel;
pub use file::AlertFile;
pub use webhook::WebhookChannel;

use crate::plain::one_line;

/// Longest details line, in bytes.
const DETAILS_BYTES_MAX: usize = 2 * 1024;
/// Longest other line, in bytes.
const LINE_BYTES_MAX: usize = 512;
/// Most lines of a list.
const LINES_MAX: usize = 50;

/// What became of asking an advisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Escalation {
    /// It was asked, and that led nowhere.
    Failed,
    /// There is no advisor, or it has no key.
    #[serde(rename = "Not configured")]
    NotConfigured,
    /// It is switched off.
    Disabled,
    /// A person was needed before anybody else was asked.
    #[serde(rename = "Not needed")]
    NotNeeded,
}

impl Escalation {
    /// As it stands in the alert.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::NotConfigured => "Not configured",
            Self::Disabled => "Disabled",
            Self::NotNeeded => "Not needed",
        }
    }
}

/// What a person is told for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A person is needed: nothing more is done.
    #[default]
    Alert,
    /// A plan waits for a person's approval.
    Approval,
    /// Nothing was done because nothing may be: shadow mode, or a person said hands off.
    HandsOff,
    /// Something was done, and nobody needs to come.
    Notice,
}

impl AlertKind {
    /// How files of it begin.
    pub fn file_prefix(self) -> &'static str {
        match self {
            Self::Alert | Self::HandsOff => "ALERT",
            Self::Approval => "APPROVAL",
            Self::Notice => "NOTICE",
        }
    }

    /// The heading, and the sentence below the facts.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Alert => (
                "CRITICAL ALERT - HUMAN INTERVENTION REQUIRED",
                "Self-healing exhausted. Manual intervention required.",
            ),
            Self::Approval => (
                "APPROVAL REQUESTED - A PLAN WAITS FOR A PERSON",
                "Nothing is done until a person has said yes.",
            ),
            Self::HandsOff => (
                "ALERT - NOTHING MAY BE DONE ABOUT THIS",
                "Evenkeel has done nothing about it, because it may not.",
            ),
            Self::Notice => ("NOTICE - A PLAYBOOK WAS RUN", "Nobody needs to come."),
        }
    }
}

/// What an alert says.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertFacts {
    /// What for.
    pub kind: AlertKind,
    /// When it was raised.
    pub at: Timestamp,
    /// The anomaly's type.
    pub anomaly: AnomalyType,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub details: String,
    /// Failed attempts.
    pub healing_attempts: u32,
    /// What became of asking an advisor.
    pub escalation: Escalation,
    /// What was tried, one line each: playbook and outcome.
    pub tried: Vec<String>,
    /// The snapshot from before the first change.
    pub snapshot: Option<PathBuf>,
    /// The ledger.
    pub ledger: Option<PathBuf>,
    /// What a person may do next, one line each.
    pub next_steps: Vec<String>,
}

/// An alert that can be sent: bounded, on single lines, and without a known secret, because it cannot be made otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    facts: AlertFacts,
}

impl Alert {
    /// Makes facts fit to be sent.
    pub fn new(facts: AlertFacts, redactor: &Redactor) -> Self {
        // Redacted before and after what is invisible is taken out, since that may put a secret together again.
        let line = |s: &str, max: usize| {
            one_line(&redactor.text(&crate::plain::plain(&redactor.text(s))), max)
        };
        let lines = |list: &[String]| -> Vec<String> {
            list.iter()
                .take(LINES_MAX)
                .map(|s| line(s, LINE_BYTES_MAX))
                .collect()
        };
        let path = |p: &PathBuf| PathBuf::from(line(&p.to_string_lossy(), 4096));
        Self {
            facts: AlertFacts {
                details: line(&facts.details, DETAILS_BYTES_MAX),
                tried: lines(&facts.tried),
                snapshot: facts.snapshot.as_ref().map(path),
                ledger: facts.ledger.as_ref().map(path),
                next_steps: lines(&facts.next_steps),
                ..facts
            },
        }
    }

    /// What it says.
    pub fn facts(&self) -> &AlertFacts {
        &self.facts
    }

    /// The text as it stands in the alert file.
    pub fn text(&self) -> String {
        text::render(self)
    }
}

/// A way to reach a person.
pub trait AlertChannel: Send + Sync {
    /// What people call it.
    fn name(&self) -> &str;

    /// How long it may take in all; [`send_all`] sees to it.
    fn deadline(&self) -> Duration;

    /// Delivers, and says where to.
    fn send<'a>(&'a self, alert: &'a Alert) -> BoxFuture<'a, Result<String, AlertError>>;
}

/// Why a channel did not deliver. No text in it holds a known secret or a webhook's address.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// No directory would take the file.
    #[error("the alert could be written nowhere: {}", tried.join("; "))]
    NotWritten {
        /// Each directory and its reason.
        tried: Vec<String>,
        /// The whole alert, to be printed instead.
        text: String,
    },
    /// The endpoint did not take it.
    #[error("the webhook did not take it ({tries} tries): {reason}")]
    Webhook {
        /// How often it was tried.
        tries: u32,
        /// What happened the last time.
        reason: String,
    },
    /// The command did not take it.
    #[error("the command did not take it: {reason}")]
    Command {
        /// What happened.
        reason: String,
    },
    /// It was not done in time.
    #[error("not delivered within {limit_ms} ms")]
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The channel cannot work as configured.
    #[error("alert channel `{channel}`: {reason}")]
    Configured {
        /// The channel.
        channel: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// One channel that delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The channel.
    pub channel: String,
    /// Where to.
    pub to: String,
}

/// What became of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertReport {
    /// The channels that delivered.
    pub delivered: Vec<Delivery>,
    /// Those that did not, each with its reason.
    pub failed: Vec<(String, String)>,
    /// The whole alert where no file was written or nobody was reached: print it to standard error.
    pub to_print: Option<String>,
}

/// Sends an alert over all channels at the same time.
///
/// Each has its own task and deadline: one that hangs, fails or panics neither delays nor hinders another. Returns when
/// the slowest deadline is over at the latest. Needs a Tokio runtime with its timer.
pub async fn send_all(channels: &[Arc<dyn AlertChannel>], alert: &Alert) -> AlertReport {
    let alert = Arc::new(alert.clone());
    let sendings = channels.iter().map(|channel| {
        let limit = channel.deadline();
        let name = channel.name().to_owned();
        let (channel, alert) = (Arc::clone(channel), Arc::clone(&alert));
        let mut task = tokio::spawn(async move { channel.send(&alert).await });
        async move {
            let result = match tokio::time::timeout(limit, &mut task).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(AlertError::Configured {
                    channel: name.clone(),
                    reason: "it crashed; please report this as an error of Evenkeel".into(),
                }),
                Err(_) => {
                    task.abort();
                    Err(AlertError::TimedOut {
                        limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                    })
                }
            };
            (name, result)
        }
    });
    let mut report = AlertReport::default();
    for (channel, result) in join_all(sendings).await {
        match result {
            Ok(to) => report.delivered.push(Delivery { channel, to }),
            Err(e) => {
                if let AlertError::NotWritten { text, .. } = &e {
                    report.to_print = Some(text.clone());
                }
                report.failed.push((channel, e.to_string()));
            }
        }
    }
    if report.delivered.is_empty() {
        report.to_print = Some(alert.text());
    }
    report
}
