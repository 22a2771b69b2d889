//! Opens connections: TCP, and TLS over it where the address asks for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::plan::HttpVersion;
use crate::target::{BaseUrl, PlanError};
use crate::text::bounded;

/// An open connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why a connection did not open: the kind under which it is counted, and a message.
pub(crate) type ConnectFailure = (&'static str, String);

/// How connections to one target are opened.
#[derive(Clone)]
pub(crate) struct Dialer {
    addresses: Vec<SocketAddr>,
    limit: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    /// Each connection is opened within `limit`, TLS included. `authorities`: PEM certificates that are trusted;
    /// nothing means those of this system.
    pub(crate) fn new(
        base: &BaseUrl,
        addresses: Vec<SocketAddr>,
        limit: Duration,
        version: HttpVersion,
        authorities: Option<&[u8]>,
    ) -> Result<Self, PlanError> {
        let tls = if base.tls() {
            let name = ServerName::try_from(base.host().to_owned()).map_err(|_| {
                PlanError::BadAddress {
                    url: base.to_string(),
                    reason: "its host cannot stand in a certificate",
                }
            })?;
            Some((TlsConnector::from(client(version, authorities)?), name))
        } else {
            None
        };
        Ok(Self {
            addresses,
            limit,
            tls,
        })
    }

    /// Opens a connection to the first address that accepts, within the limit for all together.
    pub(crate) async fn dial(&self) -> Result<Stream, ConnectFailure> {
        match tokio::time::timeout(self.limit, self.dial_any()).await {
            Ok(result) => result,
            Err(_) => Err((
                "connect_timeout",
                format!("no connection within {} ms", self.limit.as_millis()),
            )),
        }
    }

    async fn dial_any(&self) -> Result<Stream, ConnectFailure> {
        let mut failure = ("connect", "the target has no address".to_owned());
        for address in &self.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Without it the kernel holds small requests back; with an error nothing is lost
                    // but time, and the next write says what is wrong with the socket.
                    let _ = stream.set_nodelay(true);
                    return self.secure(stream).await;
                }
                Err(error) => failure = (connect_kind(&error), format!("{address}: {error}")),
            }
        }
        Err(failure)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Stream, ConnectFailure> {
        let Some((connector, name)) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            // What rustls finds wrong comes as invalid data; the rest is the connection's own.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(("tls", format!("TLS: {}", bounded(&error.to_string(), 200))))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err((
                "tls",
                "TLS: the connection ended before it was agreed on".to_owned(),
            )),
            Err(error) => Err((connect_kind(&error), format!("TLS: {error}"))),
        }
    }
}

/// A TLS client (TLS 1.2 and 1.3) that says which HTTP it speaks.
fn client(
    version: HttpVersion,
    authorities: Option<&[u8]>,
) -> Result<Arc<ClientConfig>, PlanError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = authorities {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate
                .map_err(|e| PlanError::BadAuthorities(format!("no PEM certificate: {e:?}")))?;
            roots
                .add(certificate)
                .map_err(|e| PlanError::BadAuthorities(e.to_string()))?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        return Err(PlanError::BadAuthorities("there is none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| PlanError::BadAuthorities(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match version {
        HttpVersion::Http1 => b"http/1.1".to_vec(),
        HttpVersion::Http2 => b"h2".to_vec(),
    }];
    Ok(Arc::new(config))
}

fn connect_kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut => "connect_timeout",
        io::ErrorKind::ConnectionReset => "reset",
        io::ErrorKind::AddrNotAvailable => "local",
        // EMFILE and ENFILE: no more descriptors, for which std has no kind.
        _ if cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24)) => "local",
        _ => "connect",
    }
}
