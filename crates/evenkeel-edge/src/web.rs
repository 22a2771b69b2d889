//! The HTTP client of this crate's outgoing calls: no redirects, a time limit, TLS by rustls with ring.
//!
//! Addresses can be secrets (chat webhooks are), so no error text made here holds one.

use std::sync::Once;
use std::time::Duration;

use reqwest::{Client, Response, Url, redirect};

/// Reads `http://` and `https://` addresses. The reason does not repeat the address.
pub(crate) fn address(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|e| format!("not an address: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("not an http:// or https:// address".into());
    }
    Ok(url)
}

/// Whether the address leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// A client for calls to `url` that end within `limit`.
pub(crate) fn client(url: &Url, limit: Duration) -> Result<Client, String> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another part of the program may have chosen one already; any is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(limit)
        .user_agent("evenkeel");
    if url.scheme() == "http" {
        // Without this a machine that has no certificates at all could not even call its own loopback.
        builder = builder.tls_certs_only(std::iter::empty());
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| reason(&e.without_url()))
}

/// The error and what is behind it, without the address.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    // Depth is bounded against a chain that never ends.
    for _ in 0..6 {
        let Some(e) = source else { break };
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    crate::plain::one_line(&text, 400)
}

/// A response's body of at most `bytes_max`.
pub(crate) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// It is longer than allowed; reading has stopped.
    TooLong,
}

/// Reads a body, and stops reading where it becomes too long.
pub(crate) async fn body(mut response: Response, bytes_max: usize) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > bytes_max {
            return Ok(Body::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(bytes))
}
