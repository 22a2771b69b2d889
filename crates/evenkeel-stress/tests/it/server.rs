//! Servers on free ports, and a target whose memory and database are what a test says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use evenkeel_core::time::Timestamp;
use evenkeel_stress::world::BoxFuture;
use evenkeel_stress::{
    BaseUrl, Cancel, MemoryError, MemoryReading, MeshState, PoolError, PoolLoad, PoolReport,
    ServiceMemory, TargetAccess, TestContext,
};
use futures_util::stream::{self, Stream};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it took too long")
}

/// A server that ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), router)
    }

    pub(crate) fn on(listener: TcpListener, router: Router) -> Self {
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, task }
    }

    /// A server that does with each connection what `serve` does.
    pub(crate) async fn raw<F, W>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn base(&self) -> BaseUrl {
        BaseUrl::parse(&self.url()).unwrap()
    }
}

/// An address on which nothing listens.
pub(crate) async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A mesh that gives each event to each subscriber of its type.
#[derive(Clone)]
pub(crate) struct Mesh(Arc<Mutex<broadcast::Sender<Value>>>);

impl Mesh {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(broadcast::Sender::new(64))))
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/api/events", get(subscribe).post(publish))
            .with_state(self.clone())
    }

    /// Ends all streams; new ones can be opened.
    pub(crate) fn end_streams(&self) {
        *self.0.lock().unwrap() = broadcast::Sender::new(64);
    }

    pub(crate) fn emit(&self, event: Value) {
        // Nobody listening is fine.
        let _ = self.0.lock().unwrap().send(event);
    }
}

async fn publish(State(mesh): State<Mesh>, axum::Json(event): axum::Json<Value>) {
    mesh.emit(event);
}

async fn subscribe(
    State(mesh): State<Mesh>,
    Query(query): Query<std::collections::HashMap<String, String>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let receiver = mesh.0.lock().unwrap().subscribe();
    let types: Vec<String> = query["types"].split(',').map(str::to_owned).collect();
    Sse::new(stream::unfold(
        (receiver, types),
        |(mut receiver, types)| async {
            loop {
                let event = receiver.recv().await.ok()?;
                if types.iter().any(|t| event["type"] == *t) {
                    let sse = Event::default().data(event.to_string());
                    return Some((Ok(sse), (receiver, types)));
                }
            }
        },
    ))
}

type Reading = Result<MemoryReading, MemoryError>;

/// What a test says of its target. Readings are handed out in turn, the last one for ever.
#[derive(Default)]
pub(crate) struct FakeAccess {
    pub(crate) readings: Mutex<VecDeque<Reading>>,
    pub(crate) pool: Option<Result<PoolReport, PoolError>>,
    pub(crate) mesh: Option<MeshState>,
    /// Values of the metric `heap_bytes`, handed out in turn.
    pub(crate) heap: Mutex<VecDeque<f64>>,
}

impl FakeAccess {
    pub(crate) fn with_readings(readings: impl IntoIterator<Item = Reading>) -> Self {
        Self {
            readings: Mutex::new(readings.into_iter().collect()),
            ..Self::default()
        }
    }
}

impl TargetAccess for FakeAccess {
    fn memory_bytes(&self) -> BoxFuture<'_, Reading> {
        let mut readings = self.readings.lock().unwrap();
        let reading = if readings.len() > 1 {
            readings.pop_front()
        } else {
            readings.front().cloned()
        };
        Box::pin(async move { reading.unwrap_or(Err(MemoryError::NoProcess)) })
    }

    fn pooled_queries(
        &self,
        _load: PoolLoad,
    ) -> BoxFuture<'_, Option<Result<PoolReport, PoolError>>> {
        let pool = self.pool.clone();
        Box::pin(async move { pool })
    }

    fn metric<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<f64, MemoryError>> {
        let next = self.heap.lock().unwrap().pop_front();
        let known = next.filter(|_| name == "heap_bytes");
        Box::pin(async move { known.ok_or(MemoryError::Unreadable("no such metric".to_owned())) })
    }

    fn mesh(&self) -> Option<MeshState> {
        self.mesh
    }
}

/// A reading with one service, `api`.
pub(crate) fn memory(pid: u32, mb: u64) -> MemoryReading {
    let bytes = mb * 1_048_576;
    let service = ServiceMemory {
        pid,
        started: u64::from(pid) * 7,
        bytes,
        group_bytes: None,
    };
    MemoryReading {
        total_bytes: bytes,
        by_service: [("api".to_owned(), service)].into(),
    }
}

pub(crate) fn context(base_url: &str, access: FakeAccess) -> TestContext {
    TestContext {
        base_url: base_url.to_owned(),
        access: Arc::new(access),
        cancel: Cancel::new(),
        now: Arc::new(|| Timestamp::from_millis(1_762_715_115_042)),
    }
}
