//! Reports audited actions to a receiver, from a bounded queue in the background.
//! It may not slow a request: a full queue drops the action and counts it. The token is read from
//! its file for each batch and stands nowhere else.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::http::{self, HttpUrl};
use crate::log::{Level, Log};
use crate::metrics::{Counter, Page};
use crate::settings;

/// Actions waiting at most.
const QUEUE: usize = 1024;
/// Actions in one request at most.
const BATCH: usize = 64;
/// Longest wait for the receiver.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// Tries of one batch, and the pause between them.
const TRIES: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Longest token file read, in bytes.
const TOKEN_MAX: usize = 4096;

/// One audited action, as it is sent.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) actor: &'static str,
    pub(crate) action: &'static str,
    pub(crate) resource: String,
    pub(crate) subsystem: &'static str,
    pub(crate) payload: Value,
    pub(crate) result: &'static str,
}

#[derive(Debug, Default)]
struct Counts {
    sent: Counter,
    dropped: Counter,
}

/// The way into the queue.
#[derive(Debug)]
pub(crate) struct Audit {
    queue: Option<mpsc::Sender<Entry>>,
    counts: Arc<Counts>,
}

impl Audit {
    /// Starts the sender in the background, where a receiver is configured. The task ends when
    /// this handle is dropped and the queue is empty.
    pub(crate) fn start(
        settings: &settings::Audit,
        log: &Arc<Log>,
    ) -> (Self, Option<tokio::task::JoinHandle<()>>) {
        let counts = Arc::new(Counts::default());
        let Some(url) = HttpUrl::parse(&settings.url) else {
            return (
                Self {
                    queue: None,
                    counts,
                },
                None,
            );
        };
        let (queue, receiver) = mpsc::channel(QUEUE);
        let sender = Sender {
            url,
            settings: settings.clone(),
            counts: Arc::clone(&counts),
            log: Arc::clone(log),
            failing: false,
        };
        let task = tokio::spawn(sender.run(receiver));
        let queue = Some(queue);
        (Self { queue, counts }, Some(task))
    }

    /// Hands an action over; never waits.
    pub(crate) fn report(&self, entry: Entry) {
        if let Some(queue) = &self.queue
            && queue.try_send(entry).is_err()
        {
            self.counts.dropped.inc();
        }
    }

    /// Writes the audit's families.
    pub(crate) fn render(&self, page: &mut Page) {
        page.counter(
            "grace_audit_sent_total",
            "Audited actions the receiver took.",
            self.counts.sent.get(),
        );
        page.counter(
            "grace_audit_dropped_total",
            "Audited actions dropped: the queue was full or the receiver did not take them.",
            self.counts.dropped.get(),
        );
    }
}

struct Sender {
    url: HttpUrl,
    settings: settings::Audit,
    counts: Arc<Counts>,
    log: Arc<Log>,
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Entry>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let count = batch.len() as u64;
            match self.deliver(&batch).await {
                Ok(()) => {
                    self.counts.sent.add(count);
                    if std::mem::take(&mut self.failing) {
                        let message = "the audit receiver takes actions again";
                        self.log
                            .note(Level::Info, "audit", "audit_delivered", message);
                    }
                }
                Err(error) => {
                    self.counts.dropped.add(count);
                    // Once for each outage, not for each batch.
                    if !std::mem::replace(&mut self.failing, true) {
                        let message = format!("audited actions are dropped: {error}");
                        self.log
                            .note(Level::Warn, "audit", "audit_undelivered", &message);
                    }
                }
            }
            batch.clear();
        }
    }

    async fn deliver(&self, batch: &[Entry]) -> Result<(), String> {
        let body = match batch {
            [one] => serde_json::to_string(one),
            many => serde_json::to_string(many),
        }
        .map_err(|error| error.to_string())?;
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            let token = self.token()?;
            match http::post_json(&self.url, body.clone(), token.as_deref(), SEND_LIMIT).await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                Ok((status, _)) => last = format!("the receiver answered {status}"),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// The token as it stands in its file now; `None` when no file is set.
    fn token(&self) -> Result<Option<String>, String> {
        let path = &self.settings.token_file;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the token file {}: {error}", path.display()))?;
        let token = text.trim();
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Err(format!("the token file {} holds no token", path.display()));
        }
        Ok(Some(token.to_owned()))
    }
}
