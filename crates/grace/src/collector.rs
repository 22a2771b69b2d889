//! The metrics collector: a process of its own that scrapes the API's metrics at an interval and
//! writes a summary row into the database. It may not fail with the API: a scrape that does not
//! work is logged, and the next one comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::api::serve;
use crate::db::Store;
use crate::db::queries::{self, Summary};
use crate::error::GraceError;
use crate::http::{self, HttpUrl};
use crate::ids;
use crate::log::{Level, Log};
use crate::metrics::{self, Counter, Sample};
use crate::process::{Shutdown, say};
use crate::settings::Settings;

/// Longest wait for one scrape.
const SCRAPE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Progress {
    written: Counter,
    failed: Counter,
    /// Milliseconds after the start at which the last row was written.
    last_ms: Counter,
}

pub(crate) async fn run(settings: Settings, mut shutdown: Shutdown) -> Result<(), GraceError> {
    let url = if settings.metrics.api_url.is_empty() {
        format!("http://{}", settings.api_addr()?)
    } else {
        settings.metrics.api_url.clone()
    };
    let url = HttpUrl::parse(&url)
        .ok_or(GraceError::SettingsValue {
            key: "metrics.api_url",
            value: url,
            expected: "a plain address such as \"http://127.0.0.1:8700\"",
        })?
        .join("/metrics");
    let store = Store::open(&settings)?;
    let log = Log::open(&settings.log, "grace.collector")?;
    let progress = Arc::new(Progress::default());
    let start = Instant::now();
    let collect = collect(&settings, &url, &store, &log, &progress, start);
    let Some(addr) = settings.collector_addr()? else {
        say("grace metrics-collector ready");
        tokio::select! {
            () = collect => {}
            () = shutdown.wait() => {}
        }
        return Ok(());
    };
    let seen = Arc::clone(&progress);
    let app = Router::new().route(
        "/health",
        get(async move || {
            let written = seen.written.get();
            let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            Json(json!({
                "status": "ok",
                "summaries_written": written,
                "scrapes_failed": seen.failed.get(),
                "last_summary_age_ms": (written > 0).then(|| elapsed.saturating_sub(seen.last_ms.get())),
            }))
        }),
    );
    let listener = serve::bind(addr).await?;
    serve::announce("metrics-collector", &listener)?;
    tokio::select! {
        () = collect => Ok(()),
        served = serve::until(listener, app, shutdown, || {}) => served,
    }
}

/// Scrapes and stores, for as long as it is polled.
async fn collect(
    settings: &Settings,
    url: &HttpUrl,
    store: &Store,
    log: &Log,
    progress: &Progress,
    start: Instant,
) {
    let mut ticks = tokio::time::interval(Duration::from_millis(settings.metrics.interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match scrape(url, store, settings.metrics.keep_rows).await {
            Ok(()) => {
                let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                progress
                    .last_ms
                    .add(elapsed.saturating_sub(progress.last_ms.get()));
                progress.written.inc();
                if std::mem::take(&mut failing) {
                    log.note(
                        Level::Info,
                        "metrics",
                        "scrape_resumed",
                        "metrics are collected again",
                    );
                }
            }
            Err(error) => {
                progress.failed.inc();
                // Once for each outage, not for each interval.
                if !std::mem::replace(&mut failing, true) {
                    log.note(Level::Warn, "metrics", "scrape_failed", &error);
                }
            }
        }
    }
}

async fn scrape(url: &HttpUrl, store: &Store, keep_rows: u32) -> Result<(), String> {
    let (status, body) = http::get(url, SCRAPE_LIMIT)
        .await
        .map_err(|error| format!("cannot scrape the API: {error}"))?;
    if !status.is_success() {
        return Err(format!("cannot scrape the API: it answered {status}"));
    }
    let text = String::from_utf8_lossy(&body);
    let samples = metrics::parse(&text).ok_or("cannot scrape the API: not a metrics text")?;
    let summary = summarise(&samples);
    store
        .run(move |connection| queries::store_summary(connection, &summary, keep_rows))
        .await
        .map_err(|error| format!("cannot store the summary: {error}"))
}

fn summarise(samples: &[Sample<'_>]) -> Summary {
    let one = |name: &str| {
        samples
            .iter()
            .find(|s| s.name == name)
            .map(|s| whole(s.value))
    };
    let requests = || {
        samples
            .iter()
            .filter(|s| s.name == "grace_http_requests_total")
    };
    Summary {
        at: ids::now(),
        requests_total: whole(requests().map(|s| s.value).sum()),
        server_errors_total: whole(
            requests()
                .filter(|s| {
                    s.label("status")
                        .is_some_and(|status| status.starts_with('5'))
                })
                .map(|s| s.value)
                .sum(),
        ),
        latency_p95_ms: metrics::latency_quantile(samples, 0.95).map(|s| s * 1000.0),
        resident_bytes: one("process_resident_memory_bytes"),
        sessions: one("grace_sessions"),
        pool_in_use: one("grace_pool_in_use"),
        pool_timeouts_total: one("grace_pool_timeouts_total"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "counts and bytes, far below 2^53"
)]
fn whole(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_adds_up_routes() {
        let text = "grace_http_requests_total{route=\"/a\",method=\"GET\",status=\"200\"} 3\n\
                    grace_http_requests_total{route=\"/b\",method=\"GET\",status=\"503\"} 2\n\
                    grace_sessions 7\n";
        let summary = summarise(&metrics::parse(text).unwrap());
        assert_eq!(
            (summary.requests_total, summary.server_errors_total),
            (5, 2)
        );
        assert_eq!((summary.sessions, summary.pool_in_use), (Some(7), None));
        assert_eq!(summary.latency_p95_ms, None);
    }
}
