//! One HTTP/1.1 connection: open, ask, read the answer within bounds.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::tally::{End, error_code};
use crate::plan::Limits;
use crate::request::Prepared;
use crate::text::bounded;

/// Most bytes of a bad answer's body that are looked at for its error code.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// An open connection. Dropping it closes it.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    /// Whether an answer came over it already.
    used: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a connection did not open: the kind under which it is counted, and a message.
pub(crate) type ConnectFailure = (&'static str, String);

/// Opens a connection to the first address that accepts, within `limit` for all together.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<Connection, ConnectFailure> {
    match tokio::time::timeout(limit, connect_any(addresses)).await {
        Ok(result) => result,
        Err(_) => Err((
            "connect_timeout",
            format!("no connection within {} ms", limit.as_millis()),
        )),
    }
}

async fn connect_any(addresses: &[SocketAddr]) -> Result<Connection, ConnectFailure> {
    let mut failure = ("connect", "the target has no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without it the kernel holds small requests back; with an error nothing is lost
                // but time, and the next write says what is wrong with the socket.
                let _ = stream.set_nodelay(true);
                let (sender, connection) = http1::Builder::new()
                    .handshake(TokioIo::new(stream))
                    .await
                    .map_err(|e| ("connect", e.to_string()))?;
                let driver = tokio::task::spawn_local(async move {
                    // How it ended reaches the request that was under way.
                    let _ = connection.await;
                });
                return Ok(Connection {
                    sender,
                    driver: driver.abort_handle(),
                    used: false,
                });
            }
            Err(error) => failure = (connect_kind(&error), format!("{address}: {error}")),
        }
    }
    Err(failure)
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

/// What came of asking over a connection.
pub(crate) struct Asked {
    pub(crate) end: End,
    /// The connection, where it can be used again.
    pub(crate) connection: Option<Connection>,
}

/// The request never left because the target had closed the idle connection: open another one.
pub(crate) struct Stale;

impl Connection {
    /// Whether the target closed it while it was idle.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and reads its answer. The caller bounds the time.
    pub(crate) async fn ask(mut self, what: &Prepared, limits: &Limits) -> Result<Asked, Stale> {
        if let Err(error) = self.sender.ready().await {
            return if self.used {
                Err(Stale)
            } else {
                Ok(no_answer(what, &error))
            };
        }
        let mut request = Request::new(Full::new(what.body.clone()));
        *request.method_mut() = what.method.clone();
        *request.uri_mut() = what.uri.clone();
        *request.headers_mut() = what.headers.clone();
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                return if self.used && error.take_message().is_some() {
                    Err(Stale)
                } else {
                    Ok(no_answer(what, error.error()))
                };
            }
        };
        self.used = true;
        let status = response.status().as_u16();
        let expected = what.expect.contains(status);
        let keep = match (expected, &what.check) {
            (true, None) => 0,
            (true, Some(_)) => limits.body_bytes,
            (false, _) => limits.body_bytes.min(ERROR_BODY_BYTES_MAX),
        };
        let (body, whole) = match read(response.into_body(), keep).await {
            Ok(read) => read,
            Err(error) => return Ok(no_answer(what, &error)),
        };
        let bad = |kind: String, message: String, code| End::BadAnswer {
            kind,
            message: format!("{}: {message}", what.name),
            code,
        };
        let end = if expected {
            match &what.check {
                None => End::Good,
                Some(_) if !whole => bad(
                    "body".to_owned(),
                    format!("the body is longer than {} bytes", limits.body_bytes),
                    None,
                ),
                Some(check) => match check.judge(&body) {
                    Ok(()) => End::Good,
                    Err(reason) => bad("body".to_owned(), reason, None),
                },
            }
        } else {
            let text = bounded(&String::from_utf8_lossy(&body), 200);
            bad(
                format!("status_{status}"),
                format!("status {status}: {text}"),
                error_code(&body),
            )
        };
        Ok(Asked {
            end,
            connection: Some(self),
        })
    }
}

/// Reads a body to its end; keeps at most `keep` bytes and says whether that is all of it.
async fn read(mut body: Incoming, keep: usize) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut kept = Vec::new();
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let room = keep - kept.len();
            whole &= data.len() <= room;
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok((kept, whole))
}

fn no_answer(what: &Prepared, error: &hyper::Error) -> Asked {
    let cause = error.source().map_or(String::new(), |s| format!(": {s}"));
    Asked {
        end: End::NoAnswer {
            kind: kind_of(error),
            message: format!("{}: {error}{cause}", what.name),
        },
        connection: None,
    }
}

fn kind_of(error: &hyper::Error) -> &'static str {
    if error.is_parse() {
        return "protocol";
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "reset";
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => "protocol",
                _ => "reset",
            };
        }
        source = cause.source();
    }
    "protocol"
}
