//! Servers that answer as they should not, or as few do: every request ends, as what it was, and counts agree.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_stress::{Cancel, Outcome, Plan, RequestSpec, run};
use http::Method;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{After, RawServer, length};
use crate::server::soon;

/// Requests of a run here, over [`CONNECTIONS`].
const TOTAL: u64 = 6;
const CONNECTIONS: u32 = 2;

fn plan(server: &RawServer, spec: RequestSpec) -> Plan {
    Plan::closed(server.base(), vec![spec], TOTAL, CONNECTIONS)
}

async fn measure(plan: &Plan) -> Outcome {
    soon(run(plan, &Cancel::new())).await.unwrap()
}

fn kinds(outcome: &Outcome) -> BTreeMap<&str, u64> {
    outcome
        .errors
        .iter()
        .map(|(k, n)| (k.as_str(), *n))
        .collect()
}

/// What the answers to all requests are.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Good, over connections that are kept.
    Kept,
    /// Good, each over a connection of its own.
    Once,
    /// A kind of error. An answer that is no answer ends its connection.
    Error(&'static str),
}

async fn check(reply: &[u8], after: After, spec: RequestSpec, expected: Expected) {
    let server = RawServer::replying(reply, after).await;
    let outcome = measure(&plan(&server, spec)).await;
    let shown = String::from_utf8_lossy(&reply[..reply.len().min(120)]).into_owned();
    let (errors, connections) = match expected {
        Expected::Kept => (BTreeMap::new(), u64::from(CONNECTIONS)),
        Expected::Once => (BTreeMap::new(), TOTAL),
        Expected::Error(kind) => (BTreeMap::from([(kind, TOTAL)]), TOTAL),
    };
    assert_eq!(
        kinds(&outcome),
        errors,
        "{shown}: {:?}",
        outcome.error_samples
    );
    assert_eq!(outcome.requests, TOTAL, "{shown}");
    let answered = if errors.is_empty() { TOTAL } else { 0 };
    assert_eq!(
        (outcome.answered, outcome.aborted),
        (answered, 0),
        "{shown}"
    );
    assert_eq!(server.counts.received(), TOTAL, "{shown}");
    assert_eq!(server.counts.connections(), connections, "{shown}");
    assert_eq!(outcome.connections_opened, connections, "{shown}");
    if errors.is_empty() {
        // All that was sent was read, but for what came after the end of an answer.
        assert!(
            outcome.bytes_received <= TOTAL * reply.len() as u64,
            "{shown}"
        );
        assert_eq!(outcome.latency.len(), TOTAL, "{shown}");
    } else {
        assert!(
            outcome.latency.is_empty(),
            "{shown}: no answer has no latency"
        );
    }
}

#[tokio::test]
async fn every_way_to_frame_an_answer_is_read() {
    use After::{Close, Keep};
    use Expected::{Kept, Once};
    for (reply, after, expected) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], Keep, Kept),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n", Keep, Kept),
        (b"HTTP/1.1 200 OK\r\n\r\nas long as the connection", Close, Once),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", Keep, Once),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Close, Once),
        (b"HTTP/1.0 200 OK\r\n\r\nok", Close, Once),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", Keep, Kept),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Keep, Kept),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
         Keep, Kept),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Keep, Kept),
        // Both framings at once: the chunks count, and nothing more comes over this connection.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Keep, Once),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", Keep, Kept),
        // More than it announces, and two answers to one request: the rest is nobody's answer.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nok", Keep, Once),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", Keep, Once),
    ] {
        check(reply, after, RequestSpec::get("/"), expected).await;
    }
    let mut head = RequestSpec::get("/");
    head.method = Some(Method::HEAD);
    check(
        b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
        Keep,
        head,
        Kept,
    )
    .await;
    let mut unchanged = RequestSpec::get("/");
    unchanged.expect_status = Some(evenkeel_stress::StatusSet::one(304));
    check(
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\n\r\n",
        Keep,
        unchanged,
        Kept,
    )
    .await;
}

#[tokio::test]
async fn answers_that_are_none_are_errors_of_their_kind() {
    use After::{Close, Keep};
    let flood = format!(
        "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
        "x: y\r\n".repeat(10_000)
    );
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    let on_and_on = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    let extension = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\n\r\n",
        "x".repeat(100_000)
    );
    let trailer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}\r\n",
        "x: y\r\n".repeat(50_000)
    );
    for (reply, after, kind) in [
        (flood.as_str(), Keep, "protocol"),
        (&long, Keep, "protocol"),
        (&on_and_on, Keep, "protocol"),
        (&extension, Keep, "protocol"),
        (&trailer, Keep, "protocol"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            Keep,
            "protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
            Keep,
            "protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok",
            Keep,
            "protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok",
            Keep,
            "protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n",
            Keep,
            "protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
            Keep,
            "protocol",
        ),
        ("HTTP/2.0 200 OK\r\n\r\n", Keep, "protocol"),
        ("\0\0\0\0", Keep, "protocol"),
        // Less than it announces.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
            Close,
            "reset",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok",
            Close,
            "reset",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            Close,
            "reset",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\no",
            Close,
            "reset",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            Close,
            "reset",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-le", Close, "reset"),
        ("HTTP/1.1 100 Continue\r\n\r\n", Close, "reset"),
        ("H", Close, "reset"),
    ] {
        check(
            reply.as_bytes(),
            after,
            RequestSpec::get("/"),
            Expected::Error(kind),
        )
        .await;
    }
}

#[tokio::test]
async fn an_answer_byte_by_byte_is_an_answer() {
    let server = RawServer::start(|mut requests| async move {
        let reply = b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        while requests.next().await.is_some() {
            let (last, rest) = reply.split_last().unwrap();
            for byte in rest {
                if requests.stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            requests.answer(&[*last]).await;
        }
    })
    .await;
    let mut spec = RequestSpec::get("/");
    spec.expect_body = Some(evenkeel_stress::BodyCheck::Contains("ok".into()));
    let outcome = measure(&plan(&server, spec)).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), TOTAL)
    );
    assert_eq!(server.counts.connections(), u64::from(CONNECTIONS));
}

/// An answer of `bytes` bytes whose bytes come `gap` apart.
async fn dribbling(bytes: usize, gap: Duration) -> RawServer {
    RawServer::start(move |mut requests| async move {
        while requests.next().await.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            if !requests.answer(head.as_bytes()).await {
                return;
            }
            for _ in 0..bytes {
                tokio::time::sleep(gap).await;
                if requests.stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_dribbling_answer_takes_as_long_as_it_takes_and_no_longer_than_its_limit() {
    let server = dribbling(20, Duration::from_millis(5)).await;
    let outcome = measure(&plan(&server, RequestSpec::get("/"))).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), TOTAL)
    );
    assert!(outcome.latency.min() >= 99_900, "{}", outcome.latency.min());

    // It never stops giving signs of life, and the limit is the whole answer's.
    let server = dribbling(10_000, Duration::from_millis(5)).await;
    let mut plan = plan(&server, RequestSpec::get("/"));
    plan.limits.request = Duration::from_millis(100);
    let outcome = measure(&plan).await;
    assert_eq!(kinds(&outcome), BTreeMap::from([("timeout", TOTAL)]));
    assert!(
        outcome.latency.max() < 2_000_000,
        "{}",
        outcome.latency.max()
    );
}

#[tokio::test]
async fn a_limit_holds_in_every_phase() {
    let big = RequestSpec::post("/", "x".repeat(32 * 1024 * 1024).into());
    for (phase, said, spec) in [
        ("before the answer", &b""[..], RequestSpec::get("/")),
        (
            "in the head",
            b"HTTP/1.1 200 OK\r\nx: ",
            RequestSpec::get("/"),
        ),
        (
            "after an informational answer",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            RequestSpec::get("/"),
        ),
        (
            "in a chunk",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            RequestSpec::get("/"),
        ),
        (
            "before the connection ends",
            b"HTTP/1.1 200 OK\r\n\r\nab",
            RequestSpec::get("/"),
        ),
        ("while the request is sent", b"", big),
    ] {
        let server = RawServer::start(move |mut requests| async move {
            // Only the head is read: the rest of a large request fills the buffers on the way.
            if requests.head().await.is_some() && requests.answer(said).await {
                std::future::pending::<()>().await;
            }
        })
        .await;
        let mut plan = plan(&server, spec);
        plan.limits.request = Duration::from_millis(150);
        let outcome = measure(&plan).await;
        assert_eq!(
            kinds(&outcome),
            BTreeMap::from([("timeout", TOTAL)]),
            "{phase}"
        );
        assert!(
            outcome.latency.min() >= 149_800,
            "{phase}: {}",
            outcome.latency.min()
        );
        assert!(
            outcome.latency.max() < 2_000_000,
            "{phase}: {}",
            outcome.latency.max()
        );
    }
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_large_request() {
    let bytes = 3 * 1024 * 1024;
    let server = RawServer::start(move |mut requests| async move {
        while let Some(head) = requests.head().await {
            let mut got = requests.left();
            // A byte at a time at first, then little by little.
            let mut place = vec![0; 512];
            while got.len() < length(&head) {
                let room = if got.len() < 100_000 { 1 } else { 512 };
                let n = requests.stream.read(&mut place[..room]).await.unwrap();
                assert_ne!(n, 0, "the request was cut");
                got.extend_from_slice(&place[..n]);
                if got.len() % 4096 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let expected: Vec<u8> = (0..bytes).map(letter).collect();
            assert!(got == expected, "the body did not arrive as it was sent");
            requests.received();
            requests
                .answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let body: String = (0..bytes).map(|i| char::from(letter(i))).collect();
    let outcome = measure(&plan(&server, RequestSpec::post("/", body.into()))).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), TOTAL)
    );
    assert_eq!(server.counts.received(), TOTAL);
    assert_eq!(server.counts.connections(), u64::from(CONNECTIONS));
    assert!(outcome.bytes_sent > TOTAL * bytes as u64);
}

fn letter(i: usize) -> u8 {
    b'a' + u8::try_from(i % 25).unwrap()
}

/// What a server does with the rest of a request that it has answered already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Reads it, and then the next request.
    Drained,
    /// Leaves it where it is, and the connection open.
    Left,
    /// Closes the connection at once.
    Cut,
}

/// Answers before the request is complete.
async fn hasty(rest: Rest) -> RawServer {
    RawServer::start(move |mut requests| async move {
        while let Some(head) = requests.head().await {
            requests.received();
            let reply = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig";
            if !requests.answer(reply).await || rest == Rest::Cut {
                return;
            }
            if rest == Rest::Left {
                return std::future::pending().await;
            }
            let mut left = length(&head) - requests.left().len();
            let mut place = vec![0; 65_536];
            while left > 0 {
                let room = left.min(place.len());
                match requests.stream.read(&mut place[..room]).await {
                    Ok(n) if n > 0 => left -= n,
                    _ => return,
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_before_the_request_is_complete_is_its_answer() {
    // More than the buffers of both ends hold, so that it never leaves whole while nobody reads it.
    let spec = RequestSpec::post("/", "x".repeat(32 * 1024 * 1024).into());
    for rest in [Rest::Left, Rest::Drained] {
        let server = hasty(rest).await;
        let outcome = measure(&plan(&server, spec.clone())).await;
        assert_eq!(kinds(&outcome), BTreeMap::from([("status_413", TOTAL)]));
        assert_eq!((outcome.answered, server.counts.received()), (TOTAL, TOTAL));
        // What is left of a request cannot be taken back, so nothing else goes over its connection. Of one that is
        // drained the last byte may leave before the answer is read.
        let least = if rest == Rest::Left {
            TOTAL
        } else {
            u64::from(CONNECTIONS)
        };
        assert!((least..=TOTAL).contains(&server.counts.connections()));
    }

    // Closing with unread bytes resets the connection (RFC 1122, 4.2.2.13), which may overtake the answer.
    let server = hasty(Rest::Cut).await;
    let outcome = measure(&plan(&server, spec)).await;
    let kinds = kinds(&outcome);
    let of = |kind| kinds.get(kind).copied().unwrap_or(0);
    assert_eq!(of("status_413") + of("reset"), TOTAL, "{kinds:?}");
    assert_eq!(
        (outcome.requests, outcome.answered),
        (TOTAL, of("status_413"))
    );
    assert_eq!(server.counts.received(), TOTAL);
}

#[tokio::test]
async fn an_idle_connection_that_is_closed_without_notice_costs_nothing_but_a_new_one() {
    // Kept, by what the answer says, and closed all the same.
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let server = RawServer::replying(reply, After::Close).await;
    let mut plan = plan(&server, RequestSpec::get("/"));
    let pause = Duration::from_millis(50);
    plan.load = evenkeel_stress::Load::Closed {
        connections: CONNECTIONS,
        until: evenkeel_stress::Until::Requests(TOTAL),
        think: evenkeel_stress::Think {
            min: pause,
            max: pause,
        },
    };
    let outcome = measure(&plan).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), TOTAL)
    );
    assert_eq!(
        (server.counts.received(), server.counts.connections()),
        (TOTAL, TOTAL)
    );
}

#[tokio::test]
async fn bytes_that_come_late_and_unasked_are_nobodys_answer() {
    let server = RawServer::start(|mut requests| async move {
        while requests.next().await.is_some() {
            requests
                .answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = requests
                .stream
                .write_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let mut plan = plan(&server, RequestSpec::get("/"));
    let pause = Duration::from_millis(400);
    plan.load = evenkeel_stress::Load::Closed {
        connections: CONNECTIONS,
        until: evenkeel_stress::Until::Requests(TOTAL),
        think: evenkeel_stress::Think {
            min: pause,
            max: pause,
        },
    };
    let outcome = measure(&plan).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), TOTAL)
    );
    assert_eq!(outcome.statuses, BTreeMap::from([(200, TOTAL)]));
}

/// Pieces of which answers are made, and what breaks them.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"HTTP/1.0 503 No\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"content-length: 70000\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"\r\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"\n",
    ])
    .prop_map(<[u8]>::to_vec);
    let random = prop::collection::vec(any::<u8>(), 0..40);
    let piece = prop_oneof![5 => known, 1 => random];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn whatever_comes_back_every_request_ends_and_is_counted_once() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(reply in anything(), cut in 0_usize..400)| {
        runtime.block_on(async {
            let shared = reply.clone();
            let server = RawServer::start(move |mut requests| {
                let reply = shared.clone();
                async move {
                    let at = cut.min(reply.len());
                    while requests.next().await.is_some() {
                        let (a, b) = reply.split_at(at);
                        if requests.stream.write_all(a).await.is_err() || !requests.answer(b).await {
                            return;
                        }
                        // Sometimes it is closed after this, sometimes it waits for more.
                        if cut % 3 != 0 {
                            return;
                        }
                    }
                }
            })
            .await;
            let mut plan = Plan::closed(server.base(), vec![RequestSpec::get("/")], 3, 1);
            plan.limits.request = Duration::from_millis(40);
            let outcome = measure(&plan).await;
            assert_eq!((outcome.requests, outcome.aborted), (3, 0));
            let unanswered: u64 = ["reset", "timeout", "protocol"]
                .iter()
                .filter_map(|kind| outcome.errors.get(*kind))
                .sum();
            assert_eq!(outcome.answered + unanswered, 3, "{:?}", outcome.errors);
            assert_eq!(outcome.statuses.values().sum::<u64>(), outcome.answered);
            assert!(server.counts.received() <= 3);
        });
    });
}
