//! Any HTTP endpoint as an advisor: the question is posted as JSON, the answer is one JSON object.
//!
//! No redirects, no retries, one deadline for everything, and at most 64 KiB are read.

use std::time::Duration;

use evenkeel_core::redact::Redactor;
use futures_util::future::BoxFuture;
use reqwest::{Client, Url};

use super::answer::{ANSWER_BYTES_MAX, Answer};
use super::question::Question;
use super::{Advisor, AdvisorError, Secret};
use crate::plain::cut;
use crate::web::{self, Body};

/// An endpoint.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where questions are posted.
    pub url: String,
    /// Environment key that holds a bearer token; none: no token is sent.
    pub token_env: Option<String>,
    /// From the beginning of the connection to the end of the answer.
    pub deadline: Duration,
}

/// Asks an HTTP endpoint.
#[derive(Debug)]
pub struct HttpAdvisor {
    client: Client,
    url: Url,
    token: Option<Secret>,
    deadline: Duration,
    redactor: Redactor,
    own: Redactor,
}

impl HttpAdvisor {
    /// An advisor at this endpoint. `env` looks up environment keys, `.env` included.
    ///
    /// # Errors
    /// An address that is none, a token that is configured and not set, and a token that would cross a network
    /// unencrypted.
    pub fn new(
        options: &HttpOptions,
        env: impl Fn(&str) -> Option<String>,
        redactor: Redactor,
    ) -> Result<Self, AdvisorError> {
        let unsuitable = |reason: String| AdvisorError::Unsuitable {
            program: "http advisor".into(),
            reason,
        };
        let url = web::address(&options.url).map_err(unsuitable)?;
        let token = match &options.token_env {
            None => None,
            Some(key) => Some(Secret::new(
                env(key)
                    .filter(|t| !t.trim().is_empty())
                    .ok_or_else(|| AdvisorError::NoKey {
                        advisor: "http advisor".into(),
                        key: key.clone(),
                    })?,
            )),
        };
        if token.is_some() && url.scheme() == "http" && !web::is_loopback(&url) {
            return Err(unsuitable(
                "a token would be sent unencrypted; use an https:// address".into(),
            ));
        }
        let own = Redactor::new(
            token
                .iter()
                .map(|t| t.expose().to_owned())
                .chain(url.password().map(str::to_owned)),
        );
        Ok(Self {
            client: web::client(&url, options.deadline).map_err(unsuitable)?,
            url,
            token,
            deadline: options.deadline,
            redactor,
            own,
        })
    }

    async fn asked(&self, question: &Question) -> Result<Answer, AdvisorError> {
        let question = question.redacted_by(&[&self.redactor, &self.own]);
        let mut request = self.client.post(self.url.clone()).json(&question);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let exchange = async {
            let response = request.send().await.map_err(|e| self.failed(e))?;
            let status = response.status();
            if !status.is_success() {
                return Err(AdvisorError::Status {
                    status: status.as_u16(),
                });
            }
            web::body(response, ANSWER_BYTES_MAX)
                .await
                .map_err(|e| self.failed(e))
        };
        let body = tokio::time::timeout(self.deadline, exchange)
            .await
            .map_err(|_| self.timed_out())??;
        let bad = |reason: &str| AdvisorError::BadAnswer {
            reason: cut(&self.redacted(reason), 1024),
        };
        let Body::Whole(bytes) = body else {
            return Err(bad("more than 64 KiB were sent"));
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is not UTF-8"))?;
        Answer::from_json(text)
            .map(|a| a.redacted(&|text| self.redacted(text)))
            .map_err(|e| bad(&e.to_string()))
    }

    fn failed(&self, error: reqwest::Error) -> AdvisorError {
        if error.is_timeout() {
            return self.timed_out();
        }
        AdvisorError::Unreachable {
            reason: self.redacted(&web::reason(&error.without_url())),
        }
    }

    fn timed_out(&self) -> AdvisorError {
        AdvisorError::TimedOut {
            limit_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn redacted(&self, text: &str) -> String {
        self.own.text(&self.redactor.text(text))
    }
}

impl Advisor for HttpAdvisor {
    fn name(&self) -> &'static str {
        "http"
    }

    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AdvisorError>> {
        Box::pin(self.asked(question))
    }
}
