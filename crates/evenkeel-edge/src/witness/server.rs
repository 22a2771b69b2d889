//! A witness's HTTP: reads requests within bounds, has the store answer them, and writes the answers. It decides
//! nothing.
//!
//! | request | answer |
//! |---|---|
//! | `POST /add-checkpoint` | as C2SP `tlog-witness` says; 408, 413, 503 where a bound is met |
//! | `GET /checkpoint?origin=...` | the latest checkpoint of that log with the log's signature and ours, as a note; 404 where there is none. Our own addition: the specification leaves open how monitors read a witness |
//! | `GET /` | one line: what this is, and the verifier key; 503 after a failure of the store |
//!
//! | what | bound |
//! |---|---|
//! | a request's body | [`REQUEST_BYTES_MAX`] |
//! | a request, and reading its head | [`ServerOptions::request_limit`] |
//! | connections | [`ServerOptions::connections_max`]; others wait to be accepted |
//! | a connection | `CONNECTION_LIMIT` |
//! | requests at the store | `STORE_REQUESTS_MAX`; others wait, as long as a request may last |
//!
//! There is no TLS here: requests are signed by the log and answers by the witness. Where the way between is not
//! trusted at all, put a TLS server in front, so that nobody can hold requests back unnoticed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use evenkeel_ledger::tlog::Cosigner;
use evenkeel_ledger::tlog::witness::REQUEST_BYTES_MAX;
use evenkeel_ledger::witness::{StoreError, WitnessStore};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests that may be at the store, or wait for its lock, at once.
const STORE_REQUESTS_MAX: usize = 16;
/// How long a connection is kept, however busy.
const CONNECTION_LIMIT: Duration = Duration::from_mins(10);
/// How long nothing is accepted after the system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

const TEXT: &str = "text/plain; charset=utf-8";

/// What the server allows itself and others.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// How long a request may last, its body included; 10 s otherwise.
    pub request_limit: Duration,
    /// How many connections are open at once; 128 otherwise.
    pub connections_max: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            request_limit: Duration::from_secs(10),
            connections_max: 128,
        }
    }
}

/// A witness that can be served. Cheap to clone.
#[derive(Clone)]
pub struct WitnessServer {
    store: Arc<WitnessStore>,
    cosigner: Arc<Cosigner>,
    now_unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    options: ServerOptions,
    at_store: Arc<Semaphore>,
}

impl fmt::Debug for WitnessServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessServer({})", self.cosigner.verifier())
    }
}

impl WitnessServer {
    /// A witness with this memory and this key. `now_unix` is the clock, in seconds since 1970. The store should have
    /// been opened with this key among its own.
    pub fn new(
        store: Arc<WitnessStore>,
        cosigner: Arc<Cosigner>,
        now_unix: impl Fn() -> u64 + Send + Sync + 'static,
        options: ServerOptions,
    ) -> Self {
        Self {
            store,
            cosigner,
            now_unix: Arc::new(now_unix),
            options,
            at_store: Arc::new(Semaphore::new(STORE_REQUESTS_MAX)),
        }
    }

    /// Its requests and answers, for who has a server already; [`Self::serve`] bounds connections too.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(about))
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/checkpoint", get(checkpoint))
            .with_state(self.clone())
    }

    /// Serves until `shutdown` is ready, then ends what has begun, within the time that a request may last.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let router = self.router();
        let slots = Arc::new(Semaphore::new(self.options.connections_max.max(1)));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, stream) = tokio::select! {
                () = &mut shutdown => break,
                (slot, accepted) = accepted => match accepted {
                    Ok((stream, _)) => (slot, stream),
                    Err(error) => {
                        tracing::warn!(%error, "the witness cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let connection = self.connection(stream, router.clone());
            let watched = graceful.watch(connection);
            connections.spawn(async move {
                // An error is the other side's: it hung up, or spoke something else than HTTP.
                let _ = tokio::time::timeout(CONNECTION_LIMIT, watched).await;
                drop(slot);
            });
        }
        drop(listener);
        // Dropping the set ends what is left.
        let _ = tokio::time::timeout(self.options.request_limit, graceful.shutdown()).await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        router: Router,
    ) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
        let _ = stream.set_nodelay(true);
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.request_limit)
            .max_header_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    }

    /// Runs something that blocks, on a thread for that, and waits for it as long as a request may last. What has
    /// begun goes on after that, and keeps its place.
    async fn at_store<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        let done = async move {
            let place = Arc::clone(&this.at_store).acquire_owned().await.ok()?;
            tokio::task::spawn_blocking(move || {
                let done = what(&this);
                drop(place);
                done
            })
            .await
            .ok()
        };
        tokio::time::timeout(self.options.request_limit, done)
            .await
            .ok()
            .flatten()
    }
}

async fn add_checkpoint(State(witness): State<WitnessServer>, request: Request) -> Response {
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
    let body = match tokio::time::timeout(witness.options.request_limit, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return text(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a request has at most {REQUEST_BYTES_MAX} bytes"),
            );
        }
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the request's body broke off"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    let answered = witness.at_store(move |witness| {
        let now_unix = (witness.now_unix)();
        witness
            .store
            .add_checkpoint(&body, &witness.cosigner, now_unix)
    });
    match answered.await {
        Some(answer) => {
            let status =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response(status, answer.content_type, answer.body)
        }
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the witness is busy"),
    }
}

/// Which log.
#[derive(Debug, Deserialize)]
struct Of {
    origin: String,
}

async fn checkpoint(
    State(witness): State<WitnessServer>,
    of: Result<Query<Of>, QueryRejection>,
) -> Response {
    let Ok(Query(Of { origin })) = of else {
        return text(
            StatusCode::BAD_REQUEST,
            "ask with ?origin=<the log's origin>",
        );
    };
    let latest = witness.at_store(move |witness| witness.store.latest(&origin));
    match latest.await {
        Some(Ok(Some(latest))) => response(StatusCode::OK, TEXT, latest.note.to_string()),
        Some(Ok(None)) => text(
            StatusCode::NOT_FOUND,
            "no checkpoint of this log was cosigned here",
        ),
        Some(Err(StoreError::Busy { .. })) | None => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the witness is busy")
        }
        Some(Err(error)) => {
            tracing::error!(%error, "the witness's store cannot be read");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the witness's store failed",
            )
        }
    }
}

async fn about(State(witness): State<WitnessServer>) -> Response {
    let failed = witness.at_store(|witness| witness.store.failure().is_some());
    let verifier = witness.cosigner.verifier();
    match failed.await {
        Some(false) => text(
            StatusCode::OK,
            &format!("Evenkeel witness (C2SP tlog-witness): {verifier}"),
        ),
        Some(true) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("Evenkeel witness, its store failed, nothing is cosigned: {verifier}"),
        ),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the witness is busy"),
    }
}

fn text(status: StatusCode, line: &str) -> Response {
    response(status, TEXT, format!("{line}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}
