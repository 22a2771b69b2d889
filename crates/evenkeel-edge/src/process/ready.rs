//! Whether a service is ready, by what its `ready` says.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use tokio::net::TcpStream;

use super::error::SuperviseError;
use crate::collect::probe::Prober;
use crate::target::{ServiceSpec, Target};

/// What to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Running is enough.
    Runs,
    /// A GET must succeed.
    Http(String),
    /// A connection must succeed.
    Port(u16),
}

impl Check {
    pub(crate) fn of(spec: &ServiceSpec, target: &Target) -> Result<Self, SuperviseError> {
        let Some(ready) = &spec.ready else {
            return Ok(Self::Runs);
        };
        match (&ready.http, ready.port) {
            (Some(path), _) => {
                target
                    .url(path)
                    .map(Self::Http)
                    .ok_or_else(|| SuperviseError::NoBaseUrl {
                        name: spec.name.clone(),
                        path: path.clone(),
                    })
            }
            (None, Some(port)) => Ok(Self::Port(port)),
            (None, None) => Ok(Self::Runs),
        }
    }

    /// The port of this host that the service will listen on, if the check tells.
    pub(crate) fn local_port(&self) -> Option<u16> {
        match self {
            Self::Runs => None,
            Self::Port(port) => Some(*port),
            Self::Http(url) => {
                let uri: Uri = url.parse().ok()?;
                let host = uri.host()?;
                let is_local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
                let default = if uri.scheme_str() == Some("https") {
                    443
                } else {
                    80
                };
                is_local.then(|| uri.port_u16().unwrap_or(default))
            }
        }
    }

    /// Tries once.
    pub(crate) async fn attempt(&self, prober: &Prober, deadline: Duration) -> Result<(), String> {
        match self {
            Self::Runs => Ok(()),
            Self::Http(url) => {
                let result = prober.probe(url, deadline).await;
                if result.ok {
                    Ok(())
                } else {
                    let detail = result.detail.unwrap_or_default();
                    Err(format!("its ready address: {detail}"))
                }
            }
            Self::Port(port) => {
                let connect = async {
                    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                    match TcpStream::connect(v4).await {
                        Ok(_) => Ok(()),
                        Err(e) => TcpStream::connect((Ipv6Addr::LOCALHOST, *port))
                            .await
                            .map(drop)
                            .map_err(|_| format!("port {port}: {e}")),
                    }
                };
                tokio::time::timeout(deadline, connect)
                    .await
                    .unwrap_or_else(|_| Err(format!("port {port}: no connection in time")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_local_port() {
        let port = |url: &str| Check::Http(url.to_owned()).local_port();
        assert_eq!(port("http://127.0.0.1:8000/health"), Some(8000));
        assert_eq!(port("http://localhost/health"), Some(80));
        assert_eq!(port("https://[::1]/"), Some(443));
        assert_eq!(port("http://db.example:5432/"), None);
        assert_eq!(port("nonsense"), None);
        assert_eq!(Check::Port(7).local_port(), Some(7));
    }
}
