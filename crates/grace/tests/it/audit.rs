//! What is reported to the audit receiver, and that it slows nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::{ASK, Home, LIMIT, eventually};

/// A receiver: hands on the Authorization header and the body of each request.
fn receiver() -> (u16, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut token, mut length, mut line) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                let (key, value) = line.trim().split_once(": ").unwrap_or_default();
                match key.to_ascii_lowercase().as_str() {
                    "authorization" => value.clone_into(&mut token),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
            if tell
                .send((token, serde_json::from_slice(&body).unwrap()))
                .is_err()
            {
                return;
            }
        }
    });
    (port, told)
}

#[test]
fn decisions_chats_and_failures_are_reported_with_the_token() {
    let (port, told) = receiver();
    let home = Home::new(|s| {
        s.audit.url = format!("http://127.0.0.1:{port}/audit");
        s.audit.token_file = "token".into();
        s.database.busy_timeout_ms = 0;
    });
    std::fs::write(home.path("token"), "s3cret-token\n").unwrap();
    let grace = home.start(&["api"]);
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 200);
    assert_eq!(
        grace
            .post("/api/multimodal/chat", r#"{"message":"my private words"}"#)
            .status,
        200
    );
    let _holder = home.start(&["hold-lock", "--db", "backend/grace_data.db"]);
    assert_eq!(grace.post("/api/governance/decide", ASK).status, 503);

    let mut actions = Vec::new();
    while actions.len() < 3 {
        let (token, body) = told.recv_timeout(LIMIT).unwrap();
        assert_eq!(token, "Bearer s3cret-token");
        match body {
            Value::Array(many) => actions.extend(many),
            one => actions.push(one),
        }
    }
    let brief: Vec<_> = actions
        .iter()
        .map(|a| ["actor", "action", "subsystem", "result"].map(|key| a[key].as_str().unwrap()))
        .collect();
    assert_eq!(
        brief,
        [
            ["grace", "governance_decide", "governance", "success"],
            ["grace", "multimodal_chat", "chat", "success"],
            ["grace", "governance_decide", "governance", "error"],
        ]
    );
    assert_eq!(actions[0]["resource"], "document/3");
    assert_eq!(actions[2]["payload"]["error"], "database_locked");
    assert!(!format!("{actions:?}").contains("private words"));
    eventually("all are counted", || {
        (grace.metric("grace_audit_sent_total") >= 3).then_some(())
    });
    let log = std::fs::read_to_string(home.path("logs/grace.log")).unwrap();
    assert!(!log.contains("s3cret"));
}

#[test]
fn a_receiver_that_never_answers_slows_no_request() {
    // Takes connections (the system does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/audit", silent.local_addr().unwrap());
    let home = Home::new(|s| s.audit.url = url);
    let grace = home.start(&["api"]);
    for _ in 0..10 {
        let reply = grace.post("/api/governance/decide", ASK);
        assert_eq!(reply.status, 200);
        assert!(reply.took < Duration::from_millis(900), "{:?}", reply.took);
    }
    drop(silent);
    eventually("they are dropped and counted", || {
        (grace.metric("grace_audit_dropped_total") >= 1).then_some(())
    });
    assert_eq!(
        home.log("event_type", "audit_undelivered").len(),
        1,
        "once for an outage"
    );
}
