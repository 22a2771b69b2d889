//! HTTP/2 by hyper: several requests at once over one connection.

use std::cell::RefCell;
use std::error::Error as _;
use std::io;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::http1::Answer;
use super::judge::Keeper;
use crate::dial::{ConnectFailure, Dialer, Stream};

/// One connection, shared by the workers that send over its streams. It is opened anew when it ends.
pub(crate) struct Link {
    sender: RefCell<Option<SendRequest<Full<Bytes>>>>,
    opening: tokio::sync::Mutex<()>,
}

/// How asking over a stream failed: the kind under which it is counted, and a message.
pub(crate) type Failure = (&'static str, String);

#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            sender: RefCell::new(None),
            opening: tokio::sync::Mutex::new(()),
        }
    }

    /// The open connection; true when it was opened just now.
    pub(crate) async fn open(
        &self,
        dialer: &Dialer,
    ) -> Result<(SendRequest<Full<Bytes>>, bool), ConnectFailure> {
        let usable = || {
            let sender = self.sender.borrow();
            sender.as_ref().filter(|s| !s.is_closed()).cloned()
        };
        if let Some(sender) = usable() {
            return Ok((sender, false));
        }
        let _one = self.opening.lock().await;
        if let Some(sender) = usable() {
            return Ok((sender, false));
        }
        let stream = dialer.dial().await?;
        if let Stream::Tls(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(b"h2")
        {
            return Err(("tls", "TLS: the target does not speak HTTP/2".to_owned()));
        }
        // More streams than the target takes are refused, and how many it takes is in its first frame: until that came,
        // one request is under way and the rest waits.
        let (sender, connection) = http2::Builder::new(Local)
            .initial_max_send_streams(1)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failure(&e))?;
        tokio::task::spawn_local(async move {
            // How it ended reaches the requests that were under way.
            let _ = connection.await;
        });
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok((sender, true))
    }

    /// Closes the connection, for all its streams.
    pub(crate) fn close(&self) {
        self.sender.borrow_mut().take();
    }
}

/// Sends a request over a stream and reads its answer; the caller bounds the time.
pub(crate) async fn ask(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
    keeper: &mut Keeper<'_>,
) -> Result<Answer, Failure> {
    sender.ready().await.map_err(|e| failure(&e))?;
    let response = sender
        .send_request(request.map(Full::new))
        .await
        .map_err(|e| failure(&e))?;
    let status = response.status().as_u16();
    let mut received: u64 = 0;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(|e| failure(&e))?.data_ref() {
            received += data.len() as u64;
            keeper.take(status, data);
        }
    }
    Ok(Answer {
        status,
        received,
        reusable: true,
    })
}

fn failure(error: &hyper::Error) -> Failure {
    let cause = error.source().map_or(String::new(), |s| format!(": {s}"));
    let kind = kind_of(error);
    let advice = if kind == "protocol" {
        "; check that the target speaks HTTP/2"
    } else {
        ""
    };
    (kind, format!("{error}{cause}{advice}"))
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
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            // What was found wrong here is told to the other side by the same frames as what it finds wrong.
            let ended = h2.is_io() || h2.is_go_away() || h2.is_reset();
            return if ended && !h2.is_library() {
                "reset"
            } else {
                "protocol"
            };
        }
        source = cause.source();
    }
    "protocol"
}
