//! Advisors: whom one asks when the known remedies did not help, and what comes back.
//!
//! An advisor holds nothing and does nothing (SAFETY 18): it gets a bounded, redacted [`Question`] and returns a
//! proposal, the [`Answer`]. Whether the proposed playbook exists, whether its parameters are inside their bounds and
//! whether policy allows it is decided elsewhere, by pure code. Every way of asking ends at a deadline, and every way
//! of failing is a value of [`AdvisorError`]; none is a guess.
//!
//! In reading order: what is asked ([`question`]), what is answered ([`answer`]), the Amp CLI ([`amp`]) with the tool it
//! answers through ([`mcp`]), any HTTP endpoint ([`http`]), and a scripted endpoint for demonstrations and tests
//! ([`scripted`]).

pub mod amp;
pub mod answer;
pub mod http;
pub mod mcp;
pub mod question;
pub mod scan;
pub mod scripted;

use std::fmt;

use futures_util::future::BoxFuture;

pub use amp::{AmpAdvisor, AmpOptions};
pub use answer::{Answer, AnswerError};
pub use http::{HttpAdvisor, HttpOptions};
pub use question::{PlaybookOffer, Question};
pub use scripted::{ScriptedReply, ScriptedServer};

/// Somebody who can be asked.
pub trait Advisor: Send + Sync {
    /// What people call it: `amp`, `http`.
    fn name(&self) -> &str;

    /// Asks. Ends within the advisor's own deadline, and leaves no process or connection behind, also when dropped.
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AdvisorError>>;
}

/// Why there is no answer. No text in it holds a known secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdvisorError {
    /// The advisor needs a key and has none; nothing was started.
    #[error("{advisor} was not asked: {key} is not set; set it in the environment or in .env")]
    NoKey {
        /// The advisor.
        advisor: String,
        /// The environment key.
        key: String,
    },
    /// The program is not there.
    #[error("`{program}` was not found in PATH; install it or configure its full path")]
    NotInstalled {
        /// What was looked for.
        program: String,
    },
    /// The program is there and cannot be used as it has to be.
    #[error("`{program}` was not asked: {reason}")]
    Unsuitable {
        /// The program or endpoint.
        program: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// No answer in time; whatever was running is gone.
    #[error("no answer within {limit_ms} ms")]
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The program ended with an error.
    #[error("the program ended with {}: {stderr}", code_text(*.code))]
    Exited {
        /// Its exit code; none when a signal ended it.
        code: Option<i32>,
        /// The beginning of what it wrote to standard error, at most 2 KiB.
        stderr: String,
    },
    /// The endpoint could not be reached, or the connection broke.
    #[error("the endpoint cannot be reached: {reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// The endpoint answered with something other than 200 to 299. Redirects are not followed.
    #[error("the endpoint answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// There is an answer, and it is not one that can be used.
    #[error("the answer cannot be used: {reason}")]
    BadAnswer {
        /// What is wrong with it, at most 1 KiB.
        reason: String,
    },
    /// The machine refused something that asking needs: a temporary directory, a process.
    #[error("{what} failed: {reason}")]
    Io {
        /// What was being done.
        what: String,
        /// The operating system's words.
        reason: String,
    },
}

fn code_text(code: Option<i32>) -> String {
    code.map_or_else(|| "a signal".to_owned(), |c| format!("code {c}"))
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes it.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for whoever hands it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
