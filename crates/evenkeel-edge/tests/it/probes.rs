//! Probes against servers that behave, and servers that do not.

use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use evenkeel_edge::collect::{ProbeError, Prober};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(5);

/// A server that answers each connection by what the function does with it.
async fn raw<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn answers_are_told_by_status_and_timed() {
    let app = axum::Router::new()
        .route("/ok", get(|| async { "fine" }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }),
        )
        .route("/big", get(|| async { "x".repeat(1 << 20) }))
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route(
            "/moved",
            get(|| async { axum::response::Redirect::to("/ok") }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });

    let prober = Prober::new();
    let ok = prober.probe(&format!("{base}/ok"), DEADLINE).await;
    assert!(
        ok.ok && ok.status == Some(200) && ok.error.is_none(),
        "{ok:?}"
    );
    assert!(ok.latency_ms > 0.0 && ok.latency_ms < 5000.0);
    let slow = prober.probe(&format!("{base}/slow"), DEADLINE).await;
    assert!(slow.ok && slow.latency_ms >= 30.0, "{slow:?}");
    for (path, status) in [("down", 503), ("moved", 303), ("missing", 404)] {
        let result = prober.probe(&format!("{base}/{path}"), DEADLINE).await;
        assert_eq!(result.status, Some(status));
        assert_eq!((result.ok, result.error), (false, Some(ProbeError::Status)));
    }
    let (big, body) = prober.fetch(&format!("{base}/big"), DEADLINE, 1000).await;
    assert!(big.ok);
    assert_eq!(body.len(), 1000, "no more than was asked for");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let prober = Prober::new();
    let short = Duration::from_millis(100);
    let unbound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", unbound.local_addr().unwrap());
    drop(unbound);
    let silent = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        std::future::pending::<()>().await;
    })
    .await;
    let closes = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let stops_short = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .await;
    })
    .await;
    let trickles = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let babbles = raw(|mut stream| async move {
        let _ = stream.write_all(b"\0\xffno http at all\r\n\r\n").await;
    })
    .await;
    for (what, url, kind) in [
        ("nobody", nobody.as_str(), ProbeError::Refused),
        ("silent", &silent, ProbeError::Timeout),
        ("closes", &closes, ProbeError::Reset),
        ("stops short", &stops_short, ProbeError::Reset),
        ("trickles", &trickles, ProbeError::Timeout),
        ("babbles", &babbles, ProbeError::Other),
        ("no address", "nonsense", ProbeError::Other),
        (
            "no tls",
            &closes.replace("http", "https"),
            ProbeError::Reset,
        ),
        (
            "nobody's tls",
            &nobody.replace("http", "https"),
            ProbeError::Refused,
        ),
    ] {
        let begun = std::time::Instant::now();
        let deadline = if kind == ProbeError::Timeout {
            short
        } else {
            DEADLINE
        };
        let result = prober.probe(url, deadline).await;
        assert_eq!(
            (result.ok, result.error),
            (false, Some(kind)),
            "{what}: {result:?}"
        );
        assert!(
            result
                .detail
                .is_some_and(|d| !d.is_empty() && d.len() <= 200)
        );
        assert!(begun.elapsed() < DEADLINE, "{what}");
    }
}
