//! The healer's end of the self-heal test: hears `evenkeel.selftest`, answers `evenkeel.ack`.
//!
//! It acts on nothing; that it answers shows that events reach the healer and that the healer's
//! reach the mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::{ACK, MeshClient, MeshError, MeshEvent, SELFTEST, Subscription};
use crate::cancel::Cancel;
use crate::text::bounded;

/// Longest correlation id that is answered, in characters; others are not of our test.
const CORRELATION_CHARS_MAX: usize = 128;

/// How a responder behaves.
#[derive(Clone, Debug)]
pub struct ResponderOptions {
    /// The `source` of its answers.
    pub source: String,
    /// Wait before the first attempt to connect again; doubles with each failure.
    pub backoff_min: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
    /// A stream on which nothing at all came for this long is opened anew: the other host may be
    /// gone without a word.
    pub idle_max: Duration,
}

impl Default for ResponderOptions {
    fn default() -> Self {
        Self {
            source: "evenkeel.healer".to_owned(),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            idle_max: Duration::from_mins(1),
        }
    }
}

/// Answers self-tests until it is stopped.
#[derive(Debug)]
pub struct Responder {
    client: MeshClient,
    options: ResponderOptions,
    connected: watch::Sender<bool>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: Cancel,
    renew: Notify,
    acknowledged: AtomicU64,
}

/// Watches and stops a responder. Dropping the handle stops it too.
#[derive(Debug)]
pub struct ResponderHandle {
    connected: watch::Receiver<bool>,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl Responder {
    /// A responder on the mesh that `client` reaches.
    pub fn new(client: MeshClient, options: ResponderOptions) -> Self {
        Self {
            client,
            options,
            connected: watch::Sender::new(false),
            shared: Arc::default(),
        }
    }

    /// Starts it on the current tokio runtime.
    pub fn spawn(self) -> ResponderHandle {
        let connected = self.connected.subscribe();
        let shared = Arc::clone(&self.shared);
        let task = Some(tokio::spawn(self.run()));
        ResponderHandle {
            connected,
            shared,
            task,
        }
    }

    async fn run(self) {
        let stop = self.shared.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve() => {}
        }
        self.connected.send_replace(false);
    }

    /// Connects, answers, and connects again, until it is dropped.
    async fn serve(&self) {
        let mut backoff = self.options.backoff_min;
        loop {
            match self.client.subscribe(&[SELFTEST]).await {
                Ok(subscription) => {
                    self.connected.send_replace(true);
                    tracing::debug!("subscribed to self-tests on the event mesh");
                    let since = Instant::now();
                    let ended = tokio::select! {
                        reason = self.answer(subscription) => Some(reason),
                        () = self.shared.renew.notified() => None,
                    };
                    self.connected.send_replace(false);
                    // A stream that ends again and again soon after its start earns no haste.
                    if since.elapsed() >= self.options.backoff_max {
                        backoff = self.options.backoff_min;
                    }
                    let Some(reason) = ended else {
                        continue;
                    };
                    tracing::debug!(reason, "the subscription on the event mesh ended");
                }
                Err(error) => tracing::debug!(%error, "no subscription on the event mesh"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.shared.renew.notified() => {}
            }
            backoff = backoff.saturating_mul(2).min(self.options.backoff_max);
        }
    }

    /// Answers events until the stream ends; says why it did.
    async fn answer(&self, mut subscription: Subscription) -> String {
        loop {
            while let Some(event) = subscription.pop() {
                if let Err(error) = self.acknowledge(&event).await {
                    tracing::warn!(%error, "a self-test could not be acknowledged");
                }
            }
            match tokio::time::timeout(self.options.idle_max, subscription.advance()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return "the stream ended".to_owned(),
                Ok(Err(error)) => return bounded(&error.to_string(), 200),
                Err(_) => return "nothing came for too long".to_owned(),
            }
        }
    }

    async fn acknowledge(&self, event: &MeshEvent) -> Result<(), MeshError> {
        let Some(id) = event.correlation_id.as_ref() else {
            return Ok(());
        };
        if id.is_empty() || id.chars().nth(CORRELATION_CHARS_MAX).is_some() {
            return Ok(());
        }
        let ack = MeshEvent {
            kind: ACK.to_owned(),
            source: self.options.source.clone(),
            correlation_id: Some(id.clone()),
            payload: json!({ "received": event.kind }),
        };
        self.client.publish(&ack).await?;
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl ResponderHandle {
    /// Whether it is subscribed right now, and a way to wait for changes of that.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Self-tests that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Drops the subscription and makes a new one at once, whatever the backoff.
    pub fn reconnect(&self) {
        self.shared.renew.notify_one();
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        self.shared.stop.cancel();
        if let Some(task) = self.task.take() {
            // The task neither panics nor is it aborted; and if it were, it has stopped.
            let _ = task.await;
        }
    }
}

impl Drop for ResponderHandle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
