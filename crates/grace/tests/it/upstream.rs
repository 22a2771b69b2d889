//! A slow model server behind the chat.

use std::time::Duration;

use crate::support::{Home, count};

const HELLO: &str = r#"{"message":"What does the event mesh do?"}"#;

#[test]
fn a_slow_upstream_makes_the_chat_slow_and_a_shorter_timeout_cures_it() {
    let slow = ["upstream", "--listen", "127.0.0.1:0", "--delay-ms", "700"];
    let home = Home::new(|_| {});
    let upstream = home.start(&slow);
    let url = format!("http://{}", upstream.addr());
    home.set(|s| {
        s.chat.upstream_url.clone_from(&url);
        s.chat.upstream_timeout_ms = 15_000;
    });
    let grace = home.start(&["api"]);
    let reply = grace.post("/api/multimodal/chat", HELLO);
    assert_eq!(reply.json()["model"], "upstream");
    assert!(reply.took >= Duration::from_millis(700), "{:?}", reply.took);
    drop(grace);

    home.set(|s| {
        s.chat.upstream_url = url;
        s.chat.upstream_timeout_ms = 60;
    });
    let grace = home.start(&["api"]);
    let reply = grace.post("/api/multimodal/chat", HELLO);
    assert_eq!(reply.json()["model"], "local");
    assert!(reply.took < Duration::from_millis(600), "{:?}", reply.took);
    assert_eq!(grace.metric("grace_chat_upstream_timeouts_total"), 1);
    let logged = home.log("error", "upstream_timeout");
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0]["level"], "WARN");

    // Gone altogether: the same fallback.
    drop(upstream);
    assert_eq!(
        grace.post("/api/multimodal/chat", HELLO).json()["model"],
        "local"
    );
    assert_eq!(home.log("error", "upstream_error").len(), 1);
}

#[test]
fn too_many_chats_are_turned_away_and_more_room_cures_it() {
    let home = Home::new(|_| {});
    let args = ["upstream", "--listen", "127.0.0.1:0", "--delay-ms", "200"];
    let upstream = home.start(&args);
    let url = format!("http://{}", upstream.addr());
    home.set(|s| {
        s.chat.upstream_url.clone_from(&url);
        s.chat.upstream_timeout_ms = 15_000;
        s.chat.max_concurrent = 1;
    });
    let grace = home.start(&["api"]);
    let replies = grace.burst(5, "POST", &["/api/multimodal/chat"], HELLO);
    assert!(count(&replies, 503, "chat_capacity") >= 1, "{replies:?}");
    drop(grace);

    home.set(|s| s.chat.upstream_url = url);
    let grace = home.start(&["api"]);
    let replies = grace.burst(5, "POST", &["/api/multimodal/chat"], HELLO);
    assert_eq!(count(&replies, 200, ""), 5, "{replies:?}");
}
