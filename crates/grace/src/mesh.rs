//! The event mesh: events published inside the process and streamed to consumers.
//! Each consumer has a bounded queue; one that does not keep up is dropped and counted, and a
//! publisher never waits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::metrics::{Counter, Page};

/// Events a consumer may be behind before it is dropped.
const CONSUMER_QUEUE: usize = 256;
/// Consumers at the same time.
pub(crate) const CONSUMERS_MAX: usize = 128;

/// An event as it is streamed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) correlation_id: Option<String>,
    pub(crate) timestamp: String,
    pub(crate) payload: Value,
}

#[derive(Debug)]
struct Consumer {
    /// Types wanted; empty for all.
    types: HashSet<String>,
    queue: mpsc::Sender<Arc<Event>>,
}

/// The consumers and what is counted about them.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    consumers: Mutex<Vec<Consumer>>,
    published: Counter,
    dropped: Counter,
}

impl Mesh {
    /// Adds a consumer of the given types (empty for all); `None` when there are too many.
    pub(crate) fn subscribe(&self, types: HashSet<String>) -> Option<mpsc::Receiver<Arc<Event>>> {
        let mut consumers = self.consumers();
        if consumers.len() >= CONSUMERS_MAX {
            return None;
        }
        let (queue, receiver) = mpsc::channel(CONSUMER_QUEUE);
        consumers.push(Consumer { types, queue });
        Some(receiver)
    }

    /// Hands the event to every consumer that wants it; how many those were.
    pub(crate) fn publish(&self, event: Event) -> usize {
        self.published.inc();
        let event = Arc::new(event);
        let mut delivered = 0;
        self.consumers().retain(|consumer| {
            if !consumer.types.is_empty() && !consumer.types.contains(&event.kind) {
                return true;
            }
            match consumer.queue.try_send(Arc::clone(&event)) {
                Ok(()) => {
                    delivered += 1;
                    true
                }
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.dropped.inc();
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
        delivered
    }

    /// Drops every consumer, so that they connect anew; how many those were.
    pub(crate) fn reset(&self) -> usize {
        std::mem::take(&mut *self.consumers()).len()
    }

    /// Writes the mesh's families.
    pub(crate) fn render(&self, page: &mut Page) {
        let consumers = self.consumers().len();
        page.gauge(
            "grace_event_consumers",
            "Consumers of the event mesh.",
            consumers,
        );
        page.counter(
            "grace_events_published_total",
            "Events published.",
            self.published.get(),
        );
        page.counter(
            "grace_event_consumers_dropped_total",
            "Consumers dropped because they did not keep up.",
            self.dropped.get(),
        );
    }

    /// The consumers that are still connected.
    fn consumers(&self) -> std::sync::MutexGuard<'_, Vec<Consumer>> {
        let mut consumers = self
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| !consumer.queue.is_closed());
        consumers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> Event {
        Event {
            id: "1".into(),
            kind: kind.into(),
            source: "test".into(),
            correlation_id: None,
            timestamp: String::new(),
            payload: Value::Null,
        }
    }

    #[test]
    fn consumers_get_the_types_they_want() {
        let mesh = Mesh::default();
        let mut all = mesh.subscribe(HashSet::new()).unwrap();
        let mut some = mesh.subscribe(HashSet::from(["b".to_owned()])).unwrap();
        assert_eq!(mesh.publish(event("a")), 1);
        assert_eq!(mesh.publish(event("b")), 2);
        assert_eq!(all.try_recv().unwrap().kind, "a");
        assert_eq!(some.try_recv().unwrap().kind, "b");
        assert!(some.try_recv().is_err());
        assert_eq!(mesh.reset(), 2);
        assert_eq!(mesh.publish(event("a")), 0);
    }

    #[test]
    fn a_consumer_that_does_not_keep_up_is_dropped_and_counted() {
        let mesh = Mesh::default();
        let _slow = mesh.subscribe(HashSet::new()).unwrap();
        for _ in 0..CONSUMER_QUEUE {
            assert_eq!(mesh.publish(event("a")), 1);
        }
        assert_eq!(mesh.publish(event("a")), 0);
        assert_eq!(mesh.dropped.get(), 1);
        assert_eq!(mesh.reset(), 0);
    }

    #[test]
    fn consumers_are_bounded() {
        let mesh = Mesh::default();
        let held: Vec<_> = (0..CONSUMERS_MAX)
            .map(|_| mesh.subscribe(HashSet::new()))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(mesh.subscribe(HashSet::new()).is_none());
        drop(held);
        assert!(mesh.subscribe(HashSet::new()).is_some());
    }
}
