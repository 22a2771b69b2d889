//! A server that speaks HTTP/1.1 by hand: it answers with the bytes that a test says, and counts what reached it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use evenkeel_stress::BaseUrl;

/// What the server saw.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicU64,
    received: AtomicU64,
    answered: AtomicU64,
}

impl Counts {
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests that came in whole.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Answers that were handed to the kernel whole.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

/// What is done with a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
}

/// A connection whose requests are read one by one.
pub(crate) struct Requests {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
    counts: Arc<Counts>,
}

impl Requests {
    /// The head of the next request; what follows it stays. Nothing at the end of the connection.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("the engine's own head is text"));
            }
            let n = self.stream.read_buf(&mut self.read).await.ok()?;
            if n == 0 {
                return None;
            }
        }
    }

    /// The next request whole: its head and its body.
    pub(crate) async fn next(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let length = length(&head);
        while self.read.len() < length {
            let n = self.stream.read_buf(&mut self.read).await.ok()?;
            if n == 0 {
                return None;
            }
        }
        let body = self.read.drain(..length).collect();
        self.received();
        Some((head, body))
    }

    pub(crate) fn received(&self) {
        self.counts.received.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes that were read and belong to no head.
    pub(crate) fn left(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }

    /// Writes an answer; false when the connection is gone.
    pub(crate) async fn answer(&mut self, bytes: &[u8]) -> bool {
        let written = self.stream.write_all(bytes).await.is_ok();
        if written {
            self.counts.answered.fetch_add(1, Ordering::SeqCst);
        }
        written
    }
}

/// The length that a head announces.
pub(crate) fn length(head: &str) -> usize {
    head.lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |n| {
            n.parse().expect("the engine's own length is a number")
        })
}

/// A server whose connections, too, end when it is dropped.
pub(crate) struct RawServer {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawServer {
    /// Does with each connection what `serve` does.
    pub(crate) async fn start<F, W>(serve: F) -> Self
    where
        F: Fn(Requests) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, Arc::default(), serve)
    }

    /// The same on a socket that is there, counting on.
    pub(crate) fn on<F, W>(listener: TcpListener, counts: Arc<Counts>, serve: F) -> Self
    where
        F: Fn(Requests) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                stream.set_nodelay(true).unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(Requests {
                    stream,
                    read: Vec::new(),
                    counts: Arc::clone(&shared),
                }));
                // Those that ended are forgotten.
                while open.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            counts,
            task,
        }
    }

    /// Answers each request with the same bytes.
    pub(crate) async fn replying(reply: impl Into<Vec<u8>>, after: After) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::start(move |mut requests| {
            let reply = Arc::clone(&reply);
            async move {
                while requests.next().await.is_some() {
                    if !requests.answer(&reply).await {
                        return;
                    }
                    if after == After::Close {
                        // No reset while the answer is on its way: all was read, so closing is a FIN.
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Ends it and all its connections, and waits until they have ended.
    pub(crate) async fn stop(mut self) -> Arc<Counts> {
        self.task.abort();
        // It was aborted, which is what this says.
        let _ = (&mut self.task).await;
        Arc::clone(&self.counts)
    }

    pub(crate) fn base(&self) -> BaseUrl {
        BaseUrl::parse(&format!("http://{}", self.address)).unwrap()
    }
}
