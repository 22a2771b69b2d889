//! One GET of the target, timed: does it answer, how fast, and if not, in what way does it fail.
//!
//! `http` goes over a bare connection of its own each time, as a new user's would, and costs next to nothing
//! between probes. Certificates and the TLS machinery are loaded with the first `https` address only.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::Timestamp;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// Most of an answer's body that a plain probe reads before it hangs up, in bytes.
pub const BODY_LEN_MAX: usize = 64 * 1024;

/// In what way a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeError {
    /// Nobody listens.
    Refused,
    /// No whole answer before the deadline.
    Timeout,
    /// The connection was closed in the middle.
    Reset,
    /// It answered, but not with 200 to 299.
    Status,
    /// Anything else; the detail says what.
    Other,
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Other => "other",
        })
    }
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it was sent.
    pub at: Timestamp,
    /// Whether the answer was whole, in time, and 200 to 299.
    pub ok: bool,
    /// The status, if there was one.
    pub status: Option<u16>,
    /// From sending to the whole answer (or to the failure), in milliseconds.
    pub latency_ms: f64,
    /// In what way it failed.
    pub error: Option<ProbeError>,
    /// For people: what exactly went wrong, at most 200 bytes.
    pub detail: Option<String>,
}

/// Sends probes; cheap to clone, and clones share the TLS machinery.
#[derive(Clone, Debug, Default)]
pub struct Prober {
    tls: Arc<OnceCell<reqwest::Client>>,
}

struct Failure(ProbeError, String);

/// A page that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Its address.
    pub url: &'a str,
    /// How long the whole answer may take.
    pub deadline: Duration,
    /// Most bytes that are read of it.
    pub len_max: usize,
    /// Content types that are understood.
    pub accept: Option<&'a str>,
    /// Bearer token.
    pub token: Option<&'a str>,
}

/// A page that came, or did not.
#[derive(Clone, Debug, PartialEq)]
pub struct PageAnswer {
    /// Whether it came.
    pub result: ProbeResult,
    /// What it says it is; empty when it does not.
    pub content_type: String,
    /// Whether it is compressed, or encoded in another way.
    pub is_encoded: bool,
    /// The page.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Answer {
    status: u16,
    content_type: String,
    is_encoded: bool,
    body: Vec<u8>,
}

impl Prober {
    /// A prober that has loaded nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a GET; redirects are not followed. Never waits longer than `deadline`.
    pub async fn probe(&self, url: &str, deadline: Duration) -> ProbeResult {
        self.fetch(url, deadline, BODY_LEN_MAX).await.0
    }

    /// As [`Self::probe`], with up to `len_max` bytes of the body: what comes after is not read.
    pub async fn fetch(
        &self,
        url: &str,
        deadline: Duration,
        len_max: usize,
    ) -> (ProbeResult, Vec<u8>) {
        let answer = self
            .page(&PageRequest {
                url,
                deadline,
                len_max,
                accept: None,
                token: None,
            })
            .await;
        (answer.result, answer.body)
    }

    /// Sends a GET for a page; redirects are not followed. Never waits longer than its deadline.
    pub async fn page(&self, request: &PageRequest<'_>) -> PageAnswer {
        let at = now();
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(request.deadline, self.get(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure(
                ProbeError::Timeout,
                format!("no whole answer within {} ms", request.deadline.as_millis()),
            )),
        };
        let latency_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let (status, answer, failure) = match outcome {
            Ok(answer) => {
                let status = answer.status;
                let failure = (!(200..300).contains(&status))
                    .then(|| Failure(ProbeError::Status, format!("status {status}")));
                (Some(status), answer, failure)
            }
            Err(failure) => (None, Answer::default(), Some(failure)),
        };
        let (error, detail) = failure.map(|Failure(kind, detail)| (kind, detail)).unzip();
        let result = ProbeResult {
            at,
            ok: error.is_none(),
            status,
            latency_ms,
            error,
            detail: detail.map(|mut d| {
                crate::process::procinfo::truncate(&mut d, 200);
                d
            }),
        };
        PageAnswer {
            result,
            content_type: answer.content_type,
            is_encoded: answer.is_encoded,
            body: answer.body,
        }
    }

    async fn get(&self, request: &PageRequest<'_>) -> Result<Answer, Failure> {
        let uri: Uri = request.url.parse().map_err(|e| {
            Failure(
                ProbeError::Other,
                format!("not an address such as http://127.0.0.1:8000/health: {e}"),
            )
        })?;
        match uri.scheme_str() {
            Some("http") => plain(&uri, request).await,
            Some("https") => self.over_tls(request).await,
            _ => Err(Failure(
                ProbeError::Other,
                "the address begins with neither http:// nor https://".to_owned(),
            )),
        }
    }

    async fn over_tls(&self, request: &PageRequest<'_>) -> Result<Answer, Failure> {
        let client = self
            .tls
            .get_or_try_init(|| async {
                // Someone else may have chosen the process-wide provider before: then that one is used.
                let _ = rustls::crypto::ring::default_provider().install_default();
                reqwest::Client::builder()
                    .redirect(reqwest::redirect::Policy::none())
                    .no_proxy()
                    .pool_max_idle_per_host(1)
                    .build()
            })
            .await
            .map_err(of_reqwest)?;
        let mut builder = client.get(request.url);
        for (name, value) in request.headers() {
            builder = builder.header(name, value.as_str());
        }
        let mut response = builder.send().await.map_err(of_reqwest)?;
        let mut answer = Answer::of(response.status(), response.headers());
        while let Some(chunk) = response.chunk().await.map_err(of_reqwest)? {
            if append(&mut answer.body, &chunk, request.len_max) {
                break;
            }
        }
        Ok(answer)
    }
}

impl PageRequest<'_> {
    fn headers(&self) -> impl Iterator<Item = (&'static str, Zeroizing<String>)> {
        let accept = self.accept.map(|a| ("accept", a.to_owned().into()));
        let token = self
            .token
            .map(|t| ("authorization", format!("Bearer {t}").into()));
        accept.into_iter().chain(token)
    }
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        Self {
            status: status.as_u16(),
            content_type: text(CONTENT_TYPE).unwrap_or_default().to_owned(),
            is_encoded: text(CONTENT_ENCODING).is_some_and(|e| !e.eq_ignore_ascii_case("identity")),
            body: Vec::new(),
        }
    }
}

async fn plain(uri: &Uri, page: &PageRequest<'_>) -> Result<Answer, Failure> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| of_io(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| of_hyper(&e))?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let authority = uri.authority().map_or("", |a| a.as_str());
    let mut request = Request::get(path)
        .header("host", authority.rsplit('@').next().unwrap_or_default())
        .header("user-agent", "evenkeel")
        .header("connection", "close");
    for (name, value) in page.headers() {
        request = request.header(name, value.as_str());
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| Failure(ProbeError::Other, e.to_string()))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| of_hyper(&e))?;
        let mut answer = Answer::of(response.status(), response.headers());
        answer.body = read(response.into_body(), page.len_max).await?;
        Ok(answer)
    };
    // The connection is driven here, so that nothing is left behind when the probe is dropped at its deadline.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

async fn read<B: Body<Data = Bytes, Error = hyper::Error> + Unpin>(
    mut body: B,
    len_max: usize,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| of_hyper(&e))?;
        if let Some(data) = frame.data_ref()
            && append(&mut bytes, data, len_max)
        {
            break;
        }
    }
    Ok(bytes)
}

/// Appends what fits; whether the bound is reached.
fn append(bytes: &mut Vec<u8>, data: &[u8], len_max: usize) -> bool {
    let room = len_max - bytes.len();
    bytes.extend_from_slice(&data[..data.len().min(room)]);
    bytes.len() == len_max
}

fn of_io(error: &io::Error) -> Failure {
    use io::ErrorKind as K;
    let kind = match error.kind() {
        K::ConnectionRefused => ProbeError::Refused,
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => {
            ProbeError::Reset
        }
        K::TimedOut => ProbeError::Timeout,
        _ => ProbeError::Other,
    };
    Failure(kind, error.to_string())
}

fn of_hyper(error: &hyper::Error) -> Failure {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Failure(ProbeError::Reset, error.to_string());
    }
    of_source(error)
}

fn of_reqwest(error: reqwest::Error) -> Failure {
    // Its text would repeat the whole address, which may hold a password.
    of_source(&error.without_url())
}

/// By the I/O error that lies somewhere below, if there is one; told by the last error of the chain.
fn of_source(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut kind = ProbeError::Other;
    let mut last = error;
    // A chain of errors has an end, but nothing promises it.
    for _ in 0..16 {
        let io = last.downcast_ref::<io::Error>();
        if let Some(Failure(found, _)) = io.map(of_io)
            && found != ProbeError::Other
        {
            kind = found;
        }
        // An I/O error that wraps another names that one's source as its own, and would skip it.
        let wrapped = io.and_then(io::Error::get_ref);
        match wrapped.map(|e| e as _).or_else(|| last.source()) {
            Some(next) => last = next,
            None => break,
        }
    }
    let text = match (error.to_string(), last.to_string()) {
        (first, last) if first == last => first,
        (first, last) => format!("{first}: {last}"),
    };
    Failure(kind, text)
}

/// Now, by the wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
