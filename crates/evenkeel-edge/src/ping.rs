//! A sign of life to an address elsewhere, whose keeper notices when it stays away.

use std::time::Duration;

use reqwest::{Client, Url};

use crate::advisor::Secret;
use crate::web;

/// Why no sign of life was given. No text holds the address.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The address is none.
    #[error("the address cannot be used: {0}")]
    Configured(String),
    /// It could not be reached in time, or did not answer with 200 to 299.
    #[error("the sign of life did not arrive: {0}")]
    Failed(String),
}

/// Asks for an address, which is treated as a secret: such addresses often are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ping {
    client: Client,
    url: Secret,
}

impl Ping {
    /// A GET of `url` that ends within `limit`.
    ///
    /// # Errors
    /// [`PingError::Configured`].
    pub fn new(url: &Secret, limit: Duration) -> Result<Self, PingError> {
        let address = web::address(url.expose()).map_err(PingError::Configured)?;
        Ok(Self {
            client: web::client(&address, limit).map_err(PingError::Configured)?,
            url: url.clone(),
        })
    }

    /// Gives one sign of life. Redirects are not followed.
    ///
    /// # Errors
    /// [`PingError::Failed`].
    pub async fn call(&self) -> Result<(), PingError> {
        let url: Url = web::address(self.url.expose()).map_err(PingError::Failed)?;
        let answer = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|error| PingError::Failed(web::reason(&error.without_url())))?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(PingError::Failed(format!(
                "status {}",
                answer.status().as_u16()
            )))
        }
    }
}
