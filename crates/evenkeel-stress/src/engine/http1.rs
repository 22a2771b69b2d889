//! HTTP/1.1 over one connection, written for what it costs: a request is one write and its answer usually one read, and
//! nothing is allocated for either.

pub mod parser;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::parser::{Fed, Parser, Violation};
use super::alarm::Alarm;
use super::judge::Keeper;
use crate::dial::Stream;

/// Where all connections of a thread read to.
pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// Bytes that are read at once.
const SCRATCH_BYTES: usize = 64 * 1024;

/// A place to read to.
pub(crate) fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    scratch: Scratch,
    /// Whether an answer came over it already.
    used: bool,
}

/// How asking over a connection failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request never left, because the target had closed the idle connection: another one is to be opened.
    Stale,
    /// Not answered within the limit.
    Timeout,
    /// The connection ended before the answer was complete.
    Reset(String),
    /// What came back is not HTTP/1.1.
    Protocol(Violation),
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes that came, the head included.
    pub(crate) received: u64,
    /// The connection can be used again.
    pub(crate) reusable: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            used: false,
        }
    }

    /// Whether it can no longer be used: it was closed while it was idle, or more came than was asked for.
    ///
    /// Costs no system call while nothing came.
    fn is_spent(&mut self, cx: &mut Context<'_>) -> bool {
        let mut place = [0; 1];
        if let Stream::Plain(stream) = &self.stream {
            let nothing = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
            return !stream.try_read(&mut place).as_ref().is_err_and(nothing);
        }
        let mut buf = ReadBuf::new(&mut place);
        Pin::new(&mut self.stream)
            .poll_read(cx, &mut buf)
            .is_ready()
    }

    /// Sends a request and reads its answer; `alarm` ends it.
    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        to_head: bool,
        keeper: &mut Keeper<'_>,
        alarm: &Alarm,
    ) -> Result<Answer, Failure> {
        let mut parser = Parser::new(to_head);
        let mut exchange = Exchange {
            written: 0,
            received: 0,
            write_error: None,
            checked: !self.used,
        };
        let answer = poll_fn(|cx| {
            match self.poll_exchange(cx, request, &mut parser, keeper, &mut exchange) {
                Poll::Pending => match alarm.poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(Failure::Timeout)),
                    Poll::Pending => Poll::Pending,
                },
                ready @ Poll::Ready(_) => ready,
            }
        })
        .await;
        self.used = true;
        answer
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        request: &[u8],
        parser: &mut Parser,
        keeper: &mut Keeper<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<Answer, Failure>> {
        if !exchange.checked {
            exchange.checked = true;
            if self.is_spent(cx) {
                return Poll::Ready(Err(Failure::Stale));
            }
        }
        while exchange.written < request.len() && exchange.write_error.is_none() {
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write(cx, &request[exchange.written..]) {
                Poll::Ready(Ok(0)) => exchange.write_error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => exchange.written += n,
                Poll::Ready(Err(_)) if self.used && exchange.written == 0 => {
                    return Poll::Ready(Err(Failure::Stale));
                }
                // It may have answered before it closed: what came is read all the same.
                Poll::Ready(Err(error)) => exchange.write_error = Some(error),
                Poll::Pending => break,
            }
        }
        if let Stream::Tls(stream) = &mut self.stream {
            // Records wait in the session until they are flushed.
            if let Poll::Ready(Err(error)) = Pin::new(stream).poll_flush(cx) {
                exchange.write_error.get_or_insert(error);
            }
        }
        let scratch = Rc::clone(&self.scratch);
        let mut scratch = scratch.borrow_mut();
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending if exchange.write_error.is_some() => {
                    return Poll::Ready(Err(exchange.reset(None, parser)));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(exchange.reset(Some(&error), parser)));
                }
                Poll::Ready(Ok(())) => {}
            }
            let piece = buf.filled();
            exchange.received += piece.len() as u64;
            let done = if piece.is_empty() {
                parser.closed().then_some(0)
            } else {
                match parser.feed(piece, &mut |status, body| keeper.take(status, body)) {
                    Ok(Fed::Done { surplus }) => Some(surplus),
                    Ok(Fed::More) => continue,
                    Err(violation) => return Poll::Ready(Err(Failure::Protocol(violation))),
                }
            };
            let Some(surplus) = done else {
                return Poll::Ready(Err(exchange.reset(None, parser)));
            };
            // An answer to a request that has not left whole is an answer, and the rest is not sent.
            let sent = exchange.written == request.len() && exchange.write_error.is_none();
            return Poll::Ready(Ok(Answer {
                status: parser.status(),
                received: exchange.received,
                reusable: parser.keep_alive() && sent && surplus == 0 && !piece.is_empty(),
            }));
        }
    }
}

/// How far asking has come.
#[derive(Debug)]
struct Exchange {
    written: usize,
    received: u64,
    write_error: Option<io::Error>,
    checked: bool,
}

impl Exchange {
    fn reset(&self, read_error: Option<&io::Error>, parser: &Parser) -> Failure {
        let why = match (read_error, &self.write_error) {
            (Some(error), _) | (None, Some(error)) => error.to_string(),
            (None, None) => "it was closed".to_owned(),
        };
        let when = if parser.begun() {
            "in the middle of the answer"
        } else {
            "before the answer began"
        };
        Failure::Reset(format!("the connection ended {when}: {why}"))
    }
}
