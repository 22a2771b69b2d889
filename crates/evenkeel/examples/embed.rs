//! A program that guards itself: a small HTTP service with one spawned call beside its own work.
//!
//! `cargo run -p evenkeel --example embed` works for ten seconds, or until Ctrl-C, and ends cleanly. A number is another
//! time in seconds; a second argument is the data directory, `evenkeel-data/embed` when absent.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use evenkeel::guard::Guard;
use evenkeel::ui::Style;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(Ok(10), |s| s.parse())?;
    let data = PathBuf::from(
        args.next()
            .unwrap_or_else(|| "evenkeel-data/embed".to_owned()),
    );

    // The program's own work: it counts its visitors.
    let visits = Arc::new(AtomicU64::new(0));
    let app = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/visits", get(count))
        .with_state(visits.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(
        axum::serve(listener, app)
            .with_graceful_shutdown(async {
                // A sender that is gone asks for the end too.
                let _ = closed.await;
            })
            .into_future(),
    );

    // Guarding it is one spawned call. No service is named: a program cannot stop and start itself, so what playbooks can
    // do here is ask its own endpoints (`http_request`) and change its settings (`set_config`).
    let guard = Guard::from_text(&configuration(addr), ".", data)?.with_style(Style::Plain);
    let stopper = guard.stopper();
    let guarding = tokio::spawn(guard.run_post_boot_workflow());

    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        signal = tokio::signal::ctrl_c() => signal?,
    }

    // The guard first, so that it does not take an orderly end for a fault.
    stopper.stop();
    let summary = guarding.await??;
    let _ = close.send(());
    server.await??;
    println!(
        "{} visits; {} cycles; healthy: {}",
        visits.load(Ordering::Relaxed),
        summary.cycles.len(),
        summary.healthy()
    );
    Ok(())
}

async fn count(State(visits): State<Arc<AtomicU64>>) -> String {
    (visits.fetch_add(1, Ordering::Relaxed) + 1).to_string()
}

fn configuration(addr: std::net::SocketAddr) -> String {
    format!(
        r#"
[target]
name = "embedded"
base_url = "http://{addr}"

[target.endpoints]
health = "/health"
api = ["/visits"]

[healing]
mode = "auto"

[watchdog]
interval_ms = 1000
"#
    )
}
