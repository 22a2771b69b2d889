//! Where requests go: a checked base address.

use std::fmt;
use std::net::SocketAddr;

use http::Uri;
use serde::{Deserialize, Deserializer};

/// A load plan, an address or a test that cannot be carried out as it is written.
///
/// These are errors of configuration, never of the target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not an address the engine can use.
    #[error(
        "`{url}` is not a usable base address: {reason}; write it as http://host:port or https://host:port"
    )]
    BadAddress {
        /// The address, without any credentials.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A part of a request is not valid.
    #[error("{what} `{value}`: {reason}")]
    BadRequest {
        /// Which part.
        what: &'static str,
        /// What it holds, bounded.
        value: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A number is out of its range.
    #[error("{what} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it holds.
        value: u64,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// A rate that is no number, 0 all the time, or too high.
    #[error("the rate {0} is not from 0.001 to 10,000,000 requests a second")]
    BadRate(String),
    /// A share that is not from 0 to 1.
    #[error("the share {0} of failed requests is not from 0 to 1")]
    BadShare(String),
    /// Rows of data that cannot be used.
    #[error("the rows of data cannot be used: {0}")]
    BadData(String),
    /// Certificates of authorities that cannot be used.
    #[error("the certificates of authorities to trust cannot be used: {0}")]
    BadAuthorities(String),
    /// A plan without requests.
    #[error("no request is given; name at least one endpoint")]
    NoRequests,
}

/// The address that paths are appended to: `http://host[:port][/prefix]`, or the same with `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    prefix: String,
}

impl BaseUrl {
    /// Reads an address. Credentials in it, other schemes, queries and fragments are refused.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let shown = || {
            let text: String = text.chars().take(200).collect();
            match (text.find("://"), text.rfind('@')) {
                (Some(s), Some(at)) if at > s => format!("{}{}", &text[..s + 3], &text[at + 1..]),
                _ => text,
            }
        };
        let bad = |reason| PlanError::BadAddress {
            url: shown(),
            reason,
        };
        if text.contains('#') {
            return Err(bad("it has a fragment"));
        }
        let uri: Uri = text.trim().parse().map_err(|_| bad("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(bad("its scheme is neither http nor https")),
            None => return Err(bad("it has no http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("credentials do not belong into it"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        // `Authority::port` takes a number beyond 65535 for no port at all.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None if tls => 443,
            None => 80,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err(bad("its port is not from 1 to 65535")),
            },
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether it is spoken to over TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host alone, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The scheme: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Host and port as they stand in the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// `path` below this address, as it stands in a request line.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The socket addresses of the host, at most eight. Needs a tokio runtime.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            .take(8)
            .collect();
        if found.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the name has no address",
            ));
        }
        Ok(found)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.prefix)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let url = BaseUrl::parse("http://[::1]:8080/base/").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 8080));
        assert_eq!(url.path("/health"), "/base/health");
        assert_eq!(url.to_string(), "http://[::1]:8080/base");
        assert_eq!(BaseUrl::parse("http://localhost").unwrap().port, 80);
    }

    #[test]
    fn https_has_its_own_port() {
        let url = BaseUrl::parse("https://example.org/x").unwrap();
        assert_eq!(
            (url.tls(), url.port(), url.host()),
            (true, 443, "example.org")
        );
        assert_eq!(url.to_string(), "https://example.org/x");
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let error = BaseUrl::parse("http://user:hunter22@host:1/").unwrap_err();
        assert!(!error.to_string().contains("hunter22"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "localhost:80",
            "ftp://x",
            "http://",
            "http://x:0",
            "http://x:99999",
            "/x",
            "http://x/?q=1",
            "http://x/#f",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
