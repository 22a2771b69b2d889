//! The HTTP service: what it is put together from, its start and its end.

mod chat;
mod error;
mod events;
mod governance;
mod limits;
mod observe;
pub(crate) mod serve;
mod sessions;
mod system;

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::audit::Audit;
use crate::cli::CollectorCommand;
use crate::db::Store;
use crate::error::GraceError;
use crate::http::HttpUrl;
use crate::log::{Level, Log};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::process::Shutdown;
use crate::settings::Settings;

use error::ApiError;
use governance::Decisions;
use limits::{Gate, RateLimit};
use sessions::Cache;

/// Largest request body, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// Longest wait for the audit queue to empty at the end.
const AUDIT_DRAIN: Duration = Duration::from_millis(400);
/// Times the collector is started anew when it ended by itself, and the pause before that.
const COLLECTOR_RESTARTS: u32 = 5;
const COLLECTOR_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the collector at the end.
const COLLECTOR_END: Duration = Duration::from_millis(700);

/// What the handlers share.
struct App {
    settings: Settings,
    upstream: Option<HttpUrl>,
    store: Store,
    metrics: Metrics,
    sessions: Cache,
    limit: RateLimit,
    gate: Gate,
    chats: Semaphore,
    decisions: Decisions,
    mesh: Arc<Mesh>,
    audit: Audit,
    log: Arc<Log>,
    started: Instant,
}

type Shared = Arc<App>;

/// Serves until it is told to end.
pub(crate) async fn run(
    settings: Settings,
    collector: Option<CollectorCommand>,
    shutdown: Shutdown,
) -> Result<(), GraceError> {
    let listener = serve::bind(settings.api_addr()?).await?;
    let addr = serve::local_addr(&listener)?;
    let log = Arc::new(Log::open(&settings.log, "grace.api")?);
    let store = Store::open(&settings)?;
    let (audit, audit_task) = Audit::start(&settings.audit, &log);
    let mesh = Arc::new(Mesh::default());
    let app = Arc::new(App {
        upstream: HttpUrl::parse(&settings.chat.upstream_url).map(|url| url.join("/v1/generate")),
        store,
        metrics: Metrics::default(),
        sessions: Cache::new(&settings.sessions),
        limit: RateLimit::new(&settings.limits),
        gate: Gate::new(&settings.server),
        chats: Semaphore::new(settings.chat.max_concurrent),
        decisions: Decisions::new(&settings.governance),
        mesh: Arc::clone(&mesh),
        audit,
        log: Arc::clone(&log),
        started: Instant::now(),
        settings,
    });
    let fields = json!({"address": addr.to_string(), "pid": std::process::id()});
    log.event(
        Level::Info,
        "api",
        "service_started",
        "the API is ready",
        fields,
    );
    serve::announce("api", &listener)?;
    let (end, ended) = tokio::sync::oneshot::channel();
    let keeper = collector
        .map(|command| tokio::spawn(keep_collector(command, addr, Arc::clone(&log), ended)));
    let router = router(&app);
    drop(app);
    let served = serve::until(listener, router, shutdown, move || {
        // Streams would go on for ever, and the collector may begin to end now.
        mesh.reset();
        drop(end);
    })
    .await;
    if let Some(keeper) = keeper {
        // Bounded inside.
        let _ = keeper.await;
    }
    if let Some(task) = audit_task {
        let _ = tokio::time::timeout(AUDIT_DRAIN, task).await;
    }
    log.note(Level::Info, "api", "service_stopped", "the API has ended");
    served
}

fn router(app: &Shared) -> Router {
    let public = Router::new()
        .route("/api/metrics/summary", get(system::summary))
        .route("/docs", get(system::docs))
        .route_layer(from_fn_with_state(Arc::clone(app), sessions::attach))
        .route_layer(from_fn_with_state(Arc::clone(app), limits::guard));
    let inner = Router::new()
        .route("/api/governance/policies", get(governance::policies))
        .route("/api/governance/decide", post(governance::decide))
        .route_layer(from_fn_with_state(Arc::clone(app), sessions::attach));
    Router::new()
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .route("/metrics", get(system::metrics))
        .route("/api/multimodal/chat", post(chat::chat))
        .route("/api/events", get(events::stream).post(events::publish))
        .route("/api/events/reset", post(events::reset))
        .merge(public)
        .merge(inner)
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(Arc::clone(app), observe::observe))
        .layer(from_fn(observe::request_id))
        .with_state(Arc::clone(app))
}

/// Keeps the metrics collector running as a child until `ended`, with a bound on restarts.
async fn keep_collector(
    command: CollectorCommand,
    addr: SocketAddr,
    log: Arc<Log>,
    mut ended: tokio::sync::oneshot::Receiver<()>,
) {
    for _ in 0..=COLLECTOR_RESTARTS {
        let mut child = match command.command(addr).spawn() {
            Ok(child) => child,
            Err(error) => {
                let message = format!("cannot start the metrics collector: {error}");
                log.note(Level::Error, "metrics", "collector_failed", &message);
                return;
            }
        };
        // Held here: its end is the child's signal to end, also when this process is killed.
        let lifeline = child.stdin.take();
        let exit = tokio::select! {
            exit = child.wait() => exit,
            _ = &mut ended => {
                drop(lifeline);
                if tokio::time::timeout(COLLECTOR_END, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
                return;
            }
        };
        let how = exit.map_or_else(
            |error| error.to_string(),
            |status: ExitStatus| status.to_string(),
        );
        let message = format!("the metrics collector ended: {how}");
        log.note(Level::Error, "metrics", "collector_ended", &message);
        tokio::select! {
            () = tokio::time::sleep(COLLECTOR_PAUSE) => {}
            _ = &mut ended => return,
        }
    }
    let message = "the metrics collector is not started again: it ended too often";
    log.note(Level::Error, "metrics", "collector_given_up", message);
}
