//! Checkpoints posted to an address: the signed note as it is, as plain text.

use std::time::Duration;

use evenkeel_ledger::tlog::SignedNote;
use reqwest::{Client, Url};

use super::AnchorError;
use crate::advisor::Secret;
use crate::web;

/// Posts checkpoints to an address, which is treated as a secret. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostAnchor {
    client: Client,
    url: Secret,
    token: Option<Secret>,
}

impl PostAnchor {
    /// Posts to `url` within `limit`; with `token`, as a bearer token.
    ///
    /// # Errors
    /// [`AnchorError::Configured`]: an address that is none, or a token that would cross a network unencrypted.
    pub fn new(url: &Secret, token: Option<Secret>, limit: Duration) -> Result<Self, AnchorError> {
        let wrong = |reason: String| AnchorError::Configured { reason };
        let address = web::address(url.expose()).map_err(wrong)?;
        if token.is_some() && address.scheme() == "http" && !web::is_loopback(&address) {
            return Err(wrong(
                "a token would be sent unencrypted; use an https:// address".into(),
            ));
        }
        Ok(Self {
            client: web::client(&address, limit).map_err(wrong)?,
            url: url.clone(),
            token,
        })
    }

    /// Posts a checkpoint, once.
    ///
    /// # Errors
    /// [`AnchorError::Post`]: the address cannot be reached in time, or its answer is not 200 to 299; redirects are not
    /// followed.
    pub async fn put(&self, note: &SignedNote) -> Result<(), AnchorError> {
        let failed = |reason: String| AnchorError::Post { reason };
        let url: Url = web::address(self.url.expose()).map_err(failed)?;
        let mut request = self
            .client
            .post(url)
            .header("content-type", "text/plain; charset=utf-8")
            .body(note.to_string());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request
            .send()
            .await
            .map_err(|error| failed(web::reason(&error.without_url())))?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(failed(format!("status {}", response.status().as_u16())))
        }
    }
}
