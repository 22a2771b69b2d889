//! Listening and serving with a bounded end; shared by every role that speaks HTTP.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use crate::error::GraceError;
use crate::process::{Shutdown, say};

/// Longest wait for requests that are still running at the end.
const DRAIN: Duration = Duration::from_millis(1500);

pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, GraceError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| GraceError::Bind { addr, source })
}

pub(crate) fn local_addr(listener: &TcpListener) -> Result<SocketAddr, GraceError> {
    listener
        .local_addr()
        .map_err(GraceError::io("read the address listened on"))
}

/// The one line on standard output.
pub(crate) fn announce(role: &str, listener: &TcpListener) -> Result<(), GraceError> {
    let addr = local_addr(listener)?;
    say(&format!("grace {role} ready on http://{addr}"));
    Ok(())
}

/// Serves until `shutdown`, then runs `on_stop` and lets running requests end, for a bounded time.
pub(crate) async fn until(
    listener: TcpListener,
    app: Router,
    mut shutdown: Shutdown,
    on_stop: impl FnOnce(),
) -> Result<(), GraceError> {
    let (stop, told) = tokio::sync::oneshot::channel::<()>();
    let listener = listener.tap_io(|stream| {
        // A small answer must not wait for the next one; without it, it is only slower.
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = told.await;
    });
    let mut server = pin!(server.into_future());
    tokio::select! {
        end = &mut server => return end.map_err(GraceError::io("serve")),
        () = shutdown.wait() => {}
    }
    on_stop();
    let _ = stop.send(());
    match tokio::time::timeout(DRAIN, server).await {
        Ok(end) => end.map_err(GraceError::io("serve")),
        // Requests that run on are cut off: the end is bounded.
        Err(_) => Ok(()),
    }
}
