//! The event mesh, end to end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{Home, LIMIT, Process};

/// A consumer of the stream.
struct Consumer(BufReader<TcpStream>);

impl Consumer {
    fn connect(addr: SocketAddr, types: &str) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "GET /api/events?types={types} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut consumer = Self(BufReader::new(stream));
        let head = consumer.until(": connected").unwrap();
        assert!(head.contains("text/event-stream"), "{head}");
        consumer
    }

    /// Reads up to a line that begins so; `None` at the end of the stream.
    fn until(&mut self, start: &str) -> Option<String> {
        let mut text = String::new();
        loop {
            let from = text.len();
            if self.0.read_line(&mut text).unwrap() == 0 {
                return None;
            }
            if text[from..].starts_with(start) {
                return Some(text);
            }
        }
    }

    fn event(&mut self) -> Option<Value> {
        let text = self.until("data: ")?;
        let (_, data) = text.rsplit_once("data: ").unwrap();
        Some(serde_json::from_str(data).unwrap())
    }
}

fn publish(grace: &Process, kind: &str, correlation: &str) -> Value {
    let body = format!(
        r#"{{"type":"{kind}","source":"test","correlation_id":"{correlation}","payload":{{"n":1}}}}"#
    );
    let reply = grace.post("/api/events", &body);
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()
}

#[test]
fn an_event_reaches_the_consumers_of_its_type_and_a_reset_drops_them() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    let mut healer = Consumer::connect(grace.addr(), "anomaly,other");
    let mut tester = Consumer::connect(grace.addr(), "ack");
    assert_eq!(publish(&grace, "unheard", "c0")["delivered"], 0);
    assert_eq!(publish(&grace, "anomaly", "c1")["delivered"], 1);
    let event = healer.event().unwrap();
    assert_eq!(
        (&event["type"], &event["correlation_id"]),
        (&"anomaly".into(), &"c1".into())
    );
    assert_eq!(event["payload"]["n"], 1);
    // The answer of the one reaches the other.
    publish(&grace, "ack", "c1");
    assert_eq!(tester.event().unwrap()["correlation_id"], "c1");

    assert_eq!(grace.post("/api/events/reset", "").json()["dropped"], 2);
    assert!(
        healer.event().is_none() && tester.event().is_none(),
        "the streams have ended"
    );
    let mut again = Consumer::connect(grace.addr(), "");
    assert_eq!(publish(&grace, "any", "c2")["delivered"], 1);
    assert_eq!(again.event().unwrap()["type"], "any");
    assert_eq!(
        grace.metric("grace_sessions"),
        0,
        "the mesh opens no session"
    );
}

#[test]
fn bad_events_are_told_so() {
    let home = Home::new(|_| {});
    let grace = home.start(&["api"]);
    for body in [
        "",
        "{",
        r#"{"type":"a"}"#,
        r#"{"type":"a b","source":"s"}"#,
        r#"{"type":"a","source":"s","x":1}"#,
    ] {
        let reply = grace.post("/api/events", body);
        assert_eq!(reply.outcome(), (400, "bad_request".into()), "{body}");
    }
    assert_eq!(grace.get("/api/events?types=a%20b").status, 400);
}
