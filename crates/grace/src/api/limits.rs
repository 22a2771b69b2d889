//! The rate limit and the worker gate of the public read API, and of nothing else.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Shared;
use super::error::ApiError;
use crate::metrics::Counter;
use crate::settings;

/// A token bucket.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: f64,
    burst: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    pub(super) fn new(settings: &settings::Limits) -> Self {
        let burst = f64::from(settings.burst);
        Self {
            per_second: settings.requests_per_second,
            burst,
            bucket: Mutex::new(Bucket {
                tokens: burst,
                filled: Instant::now(),
            }),
        }
    }

    /// Takes a token at `now`; without one, the time until there is one.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * self.per_second).min(self.burst);
        bucket.filled = bucket.filled.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - bucket.tokens) / self.per_second;
        // A day is long enough to say "not now".
        Err(Duration::from_secs_f64(seconds.min(86_400.0)))
    }
}

/// Bounds how many requests are worked on, and how many wait for that.
#[derive(Debug)]
pub(super) struct Gate {
    workers: Semaphore,
    queue: Semaphore,
    wait: Duration,
}

impl Gate {
    pub(super) fn new(settings: &settings::Server) -> Self {
        Self {
            workers: Semaphore::new(settings.workers),
            queue: Semaphore::new(settings.queue),
            wait: Duration::from_millis(settings.queue_timeout_ms),
        }
    }

    /// A worker, now or within the time limit; `None` when the queue is full or time is up.
    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(worker) = self.workers.try_acquire() {
            return Some(worker);
        }
        let _place = self.queue.try_acquire().ok()?;
        tokio::time::timeout(self.wait, self.workers.acquire())
            .await
            .ok()?
            .ok()
    }
}

/// Lets a request of the public read API pass, or turns it away.
pub(super) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if let Err(wait) = app.limit.take(Instant::now()) {
        app.metrics.rate_limited.inc();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        return ApiError::rate_limit(seconds.max(1)).into_response();
    }
    let Some(_worker) = app.gate.enter().await else {
        return exhausted(&app.metrics.workers_exhausted);
    };
    next.run(request).await
}

fn exhausted(counter: &Counter) -> Response {
    counter.inc();
    let message = "every worker of the public read API is busy and its queue is full";
    ApiError::unavailable("workers_exhausted", message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_gives_its_burst_and_fills_at_its_rate() {
        let limit = RateLimit::new(&settings::Limits {
            requests_per_second: 5.0,
            burst: 3,
        });
        let start = Instant::now();
        for _ in 0..3 {
            limit.take(start).unwrap();
        }
        let wait = limit.take(start).unwrap_err();
        assert!(
            wait > Duration::from_millis(150) && wait <= Duration::from_millis(200),
            "{wait:?}"
        );
        limit.take(start + Duration::from_millis(210)).unwrap();
        let later = start + Duration::from_hours(1);
        for _ in 0..3 {
            limit.take(later).unwrap();
        }
        limit.take(later).unwrap_err();
    }

    #[tokio::test]
    async fn the_gate_has_workers_and_a_queue() {
        let gate = Gate::new(&settings::Server {
            workers: 1,
            queue: 1,
            queue_timeout_ms: 20,
            ..settings::Server::default()
        });
        let first = gate.enter().await.unwrap();
        // One waits until time is up, one more is turned away at once.
        let (waited, full) = tokio::join!(gate.enter(), gate.enter());
        assert!(waited.is_none() && full.is_none());
        drop(first);
        assert!(gate.enter().await.is_some());
    }
}
