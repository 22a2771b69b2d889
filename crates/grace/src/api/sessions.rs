//! Sessions in memory: the context of each conversation, and the bound on how many are kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Shared;
use super::error::ApiError;
use crate::ids;
use crate::metrics::{Counter, Page};
use crate::settings;

const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// What unused context is filled with. Not zero: zeroed memory would not be resident.
const BLANK: u8 = b' ';
/// Longest piece of the context handed on, in bytes.
const RECALL_MAX: usize = 2048;

/// The session a request belongs to.
#[derive(Debug, Clone)]
pub(super) struct SessionId(pub(super) String);

#[derive(Debug)]
struct Session {
    /// Position in the order of use.
    used: u64,
    /// The conversation so far: a buffer of fixed size, written round and round.
    context: Vec<u8>,
    written: usize,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<String, Session>,
    /// The least recently used first.
    order: BTreeMap<u64, String>,
    clock: u64,
}

/// The session cache.
#[derive(Debug)]
pub(super) struct Cache {
    inner: Mutex<Inner>,
    /// Sessions at most; 0 for no bound.
    max_entries: usize,
    context_bytes: usize,
    opened: Counter,
    evicted: Counter,
}

impl Cache {
    pub(super) fn new(settings: &settings::Sessions) -> Self {
        Self {
            inner: Mutex::default(),
            max_entries: settings.max_entries,
            context_bytes: settings.context_bytes,
            opened: Counter::default(),
            evicted: Counter::default(),
        }
    }

    /// Opens the session, or marks it as used.
    ///
    /// When the cache is full, the new session takes over the memory of the least recently used
    /// one: nothing is freed and allocated anew, so that memory does not depend on what the
    /// allocator gives back.
    pub(super) fn touch(&self, id: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        inner.clock += 1;
        let used = inner.clock;
        if let Some(session) = inner.sessions.get_mut(id) {
            inner.order.remove(&session.used);
            session.used = used;
            inner.order.insert(used, id.to_owned());
            return;
        }
        let full = self.max_entries > 0 && inner.sessions.len() >= self.max_entries;
        let reused = full
            .then(|| inner.order.pop_first())
            .flatten()
            .and_then(|(_, oldest)| inner.sessions.remove(&oldest));
        let context = match reused {
            Some(mut session) => {
                self.evicted.inc();
                session.context.fill(BLANK);
                session.context
            }
            None => vec![BLANK; self.context_bytes],
        };
        self.opened.inc();
        inner.order.insert(used, id.to_owned());
        let session = Session {
            used,
            context,
            written: 0,
        };
        inner.sessions.insert(id.to_owned(), session);
    }

    /// Adds a line of the conversation to the session's context.
    pub(super) fn remember(&self, id: &str, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = inner.sessions.get_mut(id) else {
            return;
        };
        for byte in line.bytes().chain([b'\n']) {
            let at = session.written % session.context.len();
            session.context[at] = byte;
            session.written += 1;
        }
    }

    /// The newest part of the session's context.
    pub(super) fn recall(&self, id: &str) -> String {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = inner.sessions.get(id) else {
            return String::new();
        };
        let size = session.context.len();
        let length = session.written.min(size).min(RECALL_MAX);
        let bytes: Vec<u8> = (session.written - length..session.written)
            .map(|at| session.context[at % size])
            .collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    fn len(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sessions.len()
    }

    /// Writes the cache's families.
    pub(super) fn render(&self, page: &mut Page) {
        let sessions = self.len();
        page.gauge("grace_sessions", "Sessions in memory.", sessions);
        page.gauge(
            "grace_session_context_bytes",
            "Memory of all session contexts.",
            sessions * self.context_bytes,
        );
        page.counter(
            "grace_sessions_opened_total",
            "Sessions opened.",
            self.opened.get(),
        );
        page.counter(
            "grace_sessions_evicted_total",
            "Sessions that made room for a new one.",
            self.evicted.get(),
        );
    }
}

/// The session a request names in its header, or `None`.
pub(super) fn named(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(&SESSION_ID) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(id) if ids::is_plain(id) => Ok(Some(id.to_owned())),
        _ => Err(ApiError::bad_request(
            "x-session-id must have 1 to 64 letters, digits, '-', '_' or '.'",
        )),
    }
}

/// Tells the caller its session.
pub(super) fn tell(response: &mut Response, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(SESSION_ID, value);
    }
}

/// Gives each request below `/api/` its session.
pub(super) async fn attach(
    State(app): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let id = match named(request.headers()) {
        Ok(id) => id.unwrap_or_else(ids::new_id),
        Err(error) => return error.into_response(),
    };
    app.sessions.touch(&id);
    request.extensions_mut().insert(SessionId(id.clone()));
    let mut response = next.run(request).await;
    tell(&mut response, &id);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(max_entries: usize) -> Cache {
        Cache::new(&settings::Sessions {
            max_entries,
            context_bytes: 1024,
        })
    }

    #[test]
    fn the_least_recently_used_session_makes_room() {
        let cache = cache(2);
        for id in ["a", "b", "a", "c"] {
            cache.touch(id);
        }
        cache.remember("b", "gone");
        cache.remember("a", "kept");
        assert_eq!(
            (cache.recall("a"), cache.recall("b")),
            ("kept".into(), String::new())
        );
        assert_eq!(
            (cache.len(), cache.evicted.get(), cache.opened.get()),
            (2, 1, 3)
        );
        cache.touch("d");
        assert_eq!(
            cache.recall("d"),
            "",
            "nothing is left of the session before"
        );
    }

    #[test]
    fn without_a_bound_every_session_stays() {
        let cache = cache(0);
        for n in 0..50 {
            cache.touch(&n.to_string());
        }
        assert_eq!((cache.len(), cache.evicted.get()), (50, 0));
    }

    #[test]
    fn the_context_is_written_round_and_round() {
        let cache = cache(1);
        cache.touch("a");
        for n in 0..500 {
            cache.remember("a", &format!("line {n}"));
        }
        let recalled = cache.recall("a");
        assert!(recalled.ends_with("line 499") && recalled.len() <= 1024);
    }
}
