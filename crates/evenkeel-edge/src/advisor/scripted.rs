//! An advisor endpoint on loopback that answers from a script: for demonstrations and tests.
//!
//! It speaks the protocol of [`super::http`], so that everything in front of it is the real thing. It is no advisor, and
//! whoever shows its answers says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024;
const CONNECTIONS_MAX: usize = 16;
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Also silence ends.
const HANG_LIMIT: Duration = Duration::from_mins(10);

/// What is done with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptedReply {
    /// 200 with this JSON.
    Answer(Value),
    /// This status with an empty body; a redirect leads back to the server itself.
    Status(u16),
    /// 200 with this text, whatever it is.
    Garbage(String),
    /// Nothing, until the asker hangs up.
    Hang,
    /// The connection is closed.
    Close,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    script: Vec<ScriptedReply>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    questions: usize,
    last: Option<Value>,
}

impl ScriptedServer {
    /// Listens on a free port of 127.0.0.1. Each question takes the next reply; the last one is repeated.
    ///
    /// # Errors
    /// An empty script, or no port.
    pub async fn start(script: Vec<ScriptedReply>) -> io::Result<Self> {
        if script.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the script needs at least one reply",
            ));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            script,
            seen: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// Where it is to be asked.
    pub fn url(&self) -> String {
        format!("http://{}/advice", self.address)
    }

    /// How many questions came.
    pub fn questions(&self) -> usize {
        self.state.seen().questions
    }

    /// The last question, where it was JSON.
    pub fn last_question(&self) -> Option<Value> {
        self.state.seen().last.clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, body: &[u8]) -> ScriptedReply {
        let mut seen = self.seen();
        let at = seen.questions.min(self.script.len() - 1);
        seen.questions += 1;
        seen.last = serde_json::from_slice(body).ok();
        self.script[at].clone()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The connections end with this task.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    // A connection that breaks is the asker's business.
                    let _ = serve(stream, &state).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, perhaps: not at once again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let request = tokio::time::timeout(REQUEST_LIMIT, read_request(&mut stream))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let (status, body) = match request {
        Request::Refused(status) => (status, String::new()),
        Request::Question(body) => match state.next(&body) {
            ScriptedReply::Answer(json) => (200, json.to_string()),
            ScriptedReply::Status(status) => (status, String::new()),
            ScriptedReply::Garbage(text) => (200, text),
            ScriptedReply::Hang => {
                let mut byte = [0];
                let _ = tokio::time::timeout(HANG_LIMIT, stream.read(&mut byte)).await;
                return Ok(());
            }
            ScriptedReply::Close => return Ok(()),
        },
    };
    let location = if (300..400).contains(&status) {
        "Location: /advice\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\n{location}Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

enum Request {
    Question(Vec<u8>),
    Refused(u16),
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Ok(Request::Refused(431));
        }
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    if !lines.next().is_some_and(|l| l.starts_with("POST ")) {
        return Ok(Request::Refused(405));
    }
    let length = lines
        .filter_map(|l| l.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let Some(length) = length else {
        return Ok(Request::Refused(411));
    };
    if length > BODY_BYTES_MAX {
        return Ok(Request::Refused(413));
    }
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => body.extend_from_slice(&chunk[..n]),
        }
    }
    body.truncate(length);
    Ok(Request::Question(body))
}
