//! TLS and HTTP/2: what is agreed on, what is not, and what ends in the middle.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_stress::{BaseUrl, Cancel, HttpVersion, Outcome, Plan, RequestSpec, run};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::server::soon;

/// An authority made for a test, and a server's certificate of it.
struct Authority {
    pem: Arc<[u8]>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem().into_bytes().into(),
            issuer: Issuer::new(params, key),
        }
    }

    /// How a server of that name accepts TLS, speaking these protocols.
    fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }
}

/// A listening server that ends with the test.
struct Listening {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listening {
    /// Does with each connection what `serve` does, which counts its requests.
    async fn start<F, W>(serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<AtomicU64>) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (opened, counted) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream, Arc::clone(&counted)));
            }
        });
        Self {
            address,
            connections,
            requests,
            task,
        }
    }

    /// HTTP/1.1 over TLS.
    async fn https(acceptor: TlsAcceptor) -> Self {
        Self::start(move |stream, count| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(tls) = acceptor.accept(stream).await {
                    http1(tls, count).await;
                }
            }
        })
        .await
    }

    fn plan(&self, scheme: &str, total: u64, connections: u32) -> Plan {
        let base = BaseUrl::parse(&format!("{scheme}://{}", self.address)).unwrap();
        let mut plan = Plan::closed(base, vec![RequestSpec::get("/")], total, connections);
        plan.limits.request = Duration::from_secs(5);
        plan
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, count: Arc<AtomicU64>) {
    let mut read = Vec::new();
    loop {
        while let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            read.drain(..end + 4);
            count.fetch_add(1, Ordering::SeqCst);
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if stream.write_all(reply).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        if stream.read_buf(&mut read).await.map_or(true, |n| n == 0) {
            return;
        }
    }
}

/// What an HTTP/2 server does with a request, by its number on the connection.
#[derive(Clone, Copy)]
enum Reply {
    Good(usize),
    /// A stream reset before the answer.
    Reset,
    /// A stream reset in the middle of the answer.
    Cut,
    /// Good, and no further streams on this connection (GOAWAY).
    Last,
    /// The connection ends with an error.
    Break,
    Never,
}

/// HTTP/2 from the start.
async fn http2<S>(stream: S, count: Arc<AtomicU64>, streams_max: u32, reply: fn(u64) -> Reply)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut number = 0;
    let mut hanging = Vec::new();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let what = reply(number);
        number += 1;
        let ok = http::Response::new(());
        match what {
            Reply::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Reply::Cut => {
                let mut body = respond.send_response(ok, false).unwrap();
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                body.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            Reply::Break => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
            Reply::Never => hanging.push(respond),
            Reply::Good(_) | Reply::Last => {
                if matches!(what, Reply::Last) {
                    connection.graceful_shutdown();
                }
                let bytes = if let Reply::Good(n) = what { n } else { 2 };
                let mut body = respond.send_response(ok, false).unwrap();
                tokio::spawn(async move {
                    let mut left = bytes;
                    while left > 0 {
                        body.reserve_capacity(left);
                        let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else {
                            return;
                        };
                        left -= room.min(left);
                        let _ = body.send_data(Bytes::from(vec![b'x'; room]), false);
                    }
                    let _ = body.send_data(Bytes::new(), true);
                });
            }
        }
    }
}

async fn h2c(streams_max: u32, reply: fn(u64) -> Reply) -> Listening {
    Listening::start(move |stream, count| http2(stream, count, streams_max, reply)).await
}

async fn measure(plan: &Plan) -> Outcome {
    soon(run(plan, &Cancel::new())).await.unwrap()
}

fn over_http2(mut plan: Plan, streams: u32) -> Plan {
    plan.transport.version = HttpVersion::Http2;
    plan.transport.streams = streams;
    plan
}

fn kinds(outcome: &Outcome) -> BTreeMap<&str, u64> {
    let errors = outcome.errors.iter();
    errors.map(|(k, n)| (k.as_str(), *n)).collect()
}

#[tokio::test]
async fn the_right_authority_is_trusted_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (name, trusted, good) in [
        ("127.0.0.1", &ours, true),
        ("127.0.0.1", &theirs, false),
        ("elsewhere.example", &ours, false),
    ] {
        let server = Listening::https(ours.acceptor(name, &["http/1.1"])).await;
        let mut plan = server.plan("https", 40, 4);
        plan.transport.authorities = Some(Arc::clone(&trusted.pem));
        let outcome = measure(&plan).await;
        let samples = &outcome.error_samples;
        if good {
            assert_eq!(
                (kinds(&outcome), outcome.answered),
                (BTreeMap::new(), 40),
                "{samples:?}"
            );
            assert_eq!((server.requests(), server.connections()), (40, 4));
        } else {
            assert_eq!(
                kinds(&outcome),
                BTreeMap::from([("tls", 40)]),
                "{samples:?}"
            );
            assert_eq!(server.requests(), 0, "nothing is sent to a stranger");
            assert!(samples[0].contains("certificate"), "{samples:?}");
        }
    }
}

#[tokio::test]
async fn without_keep_alive_each_request_agrees_anew() {
    let authority = Authority::new();
    let server = Listening::https(authority.acceptor("127.0.0.1", &[])).await;
    let mut plan = server.plan("https", 12, 3);
    plan.transport.authorities = Some(authority.pem);
    plan.transport.keep_alive = false;
    let outcome = measure(&plan).await;
    assert_eq!((kinds(&outcome), outcome.answered), (BTreeMap::new(), 12));
    assert_eq!(
        (
            server.requests(),
            server.connections(),
            outcome.connections_opened
        ),
        (12, 12, 12)
    );

    let unsecured = Listening::start(http1).await;
    let mut plan = unsecured.plan("http", 12, 3);
    plan.transport.keep_alive = false;
    let outcome = measure(&plan).await;
    assert_eq!((kinds(&outcome), outcome.answered), (BTreeMap::new(), 12));
    assert_eq!((unsecured.requests(), unsecured.connections()), (12, 12));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_apart() {
    let authority = Authority::new();
    let talker = Listening::start(|mut stream, _| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let unsecured = Listening::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let gone = Listening::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    });
    let silent = Listening::start(|stream, _| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let (talker, unsecured, gone) = (talker.await, unsecured.await, gone.await);
    let silent = silent.await;
    for (server, kind) in [
        (&talker, "tls"),
        (&unsecured, "tls"),
        (&gone, "tls"),
        (&silent, "connect_timeout"),
    ] {
        let mut plan = server.plan("https", 4, 2);
        plan.transport.authorities = Some(Arc::clone(&authority.pem));
        plan.limits.connect = Duration::from_millis(if kind == "tls" { 5_000 } else { 150 });
        let outcome = measure(&plan).await;
        assert_eq!(
            kinds(&outcome),
            BTreeMap::from([(kind, 4)]),
            "{:?}",
            outcome.error_samples
        );
    }
}

#[tokio::test]
async fn an_answer_that_tls_does_not_end_is_cut() {
    let authority = Authority::new();
    for (proper, reply) in [
        (true, "HTTP/1.1 200 OK\r\n\r\nok"),
        (false, "HTTP/1.1 200 OK\r\n\r\nok"),
        (true, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"),
    ] {
        let acceptor = authority.acceptor("127.0.0.1", &[]);
        let server = Listening::start(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let mut tls = acceptor.accept(stream).await.unwrap();
                let _ = tls.read(&mut [0; 4096]).await;
                tls.write_all(reply.as_bytes()).await.unwrap();
                tls.flush().await.unwrap();
                if proper {
                    let _ = tls.shutdown().await;
                }
            }
        })
        .await;
        let mut plan = server.plan("https", 4, 2);
        plan.transport.authorities = Some(Arc::clone(&authority.pem));
        let outcome = measure(&plan).await;
        // As long as the connection, and the connection ended as TLS ends one: whole. Otherwise somebody cut it.
        let whole = proper && !reply.contains("length");
        let expected = if whole {
            BTreeMap::new()
        } else {
            BTreeMap::from([("reset", 4)])
        };
        assert_eq!(
            kinds(&outcome),
            expected,
            "{proper} {reply}: {:?}",
            outcome.error_samples
        );
    }
}

#[tokio::test]
async fn http2_has_many_streams_over_few_connections() {
    // More at once than the server takes: the rest waits for a stream.
    let server = h2c(25, |_| Reply::Good(2)).await;
    let outcome = measure(&over_http2(server.plan("http", 2_000, 4), 50)).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), 2_000),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!(
        (
            server.requests(),
            server.connections(),
            outcome.connections_opened
        ),
        (2_000, 4, 4)
    );
    assert_eq!(outcome.bytes_received, 4_000);

    // Bodies beyond the window of a stream and of a connection.
    let server = h2c(100, |_| Reply::Good(300_000)).await;
    let outcome = measure(&over_http2(server.plan("http", 60, 2), 10)).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), 60),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!(outcome.bytes_received, 60 * 300_000);

    // The same over TLS.
    let authority = Authority::new();
    let acceptor = authority.acceptor("127.0.0.1", &["h2", "http/1.1"]);
    let server = Listening::start(move |stream, count| {
        let acceptor = acceptor.clone();
        async move {
            http2(acceptor.accept(stream).await.unwrap(), count, 100, |_| {
                Reply::Good(2)
            })
            .await;
        }
    })
    .await;
    let mut plan = over_http2(server.plan("https", 200, 2), 10);
    plan.transport.authorities = Some(authority.pem);
    let outcome = measure(&plan).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), 200),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!((server.requests(), server.connections()), (200, 2));
}

#[tokio::test]
async fn http2_asks_for_no_more_streams_than_the_target_takes_though_it_says_so_late() {
    // How many it takes is said only when the first request is there: those that came before would be refused.
    let server = Listening::start(|stream, count| async move {
        // The preface with settings and window takes 60 bytes; a request is more.
        let mut place = [0; 120];
        while stream
            .peek(&mut place)
            .await
            .is_ok_and(|n| (1..100).contains(&n))
        {
            tokio::task::yield_now().await;
        }
        http2(stream, count, 3, |_| Reply::Good(2)).await;
    })
    .await;
    let outcome = measure(&over_http2(server.plan("http", 200, 1), 50)).await;
    assert_eq!(
        (kinds(&outcome), outcome.answered),
        (BTreeMap::new(), 200),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!((server.requests(), server.connections()), (200, 1));
}

#[tokio::test]
async fn a_reset_stream_costs_its_request_and_no_other() {
    let server = h2c(100, |n| match n % 10 {
        3 => Reply::Reset,
        7 => Reply::Cut,
        _ => Reply::Good(2),
    })
    .await;
    let outcome = measure(&over_http2(server.plan("http", 300, 1), 10)).await;
    assert_eq!(
        kinds(&outcome),
        BTreeMap::from([("reset", 60)]),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!(
        (outcome.answered, server.requests(), server.connections()),
        (240, 300, 1)
    );
}

#[tokio::test]
async fn a_connection_that_says_goodbye_is_opened_anew() {
    // One stream: all that was begun is answered, and the next request opens the next connection.
    let server = h2c(100, |n| if n == 9 { Reply::Last } else { Reply::Good(2) }).await;
    let outcome = measure(&over_http2(server.plan("http", 60, 1), 1)).await;
    assert_eq!(outcome.requests, 60);
    assert_eq!(outcome.requests, outcome.answered + outcome.error_count());
    assert!(
        kinds(&outcome).keys().all(|k| *k == "reset"),
        "{:?}",
        outcome.error_samples
    );
    assert!(outcome.answered <= server.requests());
    // At most the one that met the goodbye half-way, for each connection.
    let resets = outcome.error_count();
    assert!(
        resets < server.connections(),
        "{resets} resets, {} connections",
        server.connections()
    );
    assert!(
        (6..=12).contains(&server.connections()),
        "{}",
        server.connections()
    );

    // The connection ends with an error: what was under way is lost, and the rest goes over a new one.
    let server = h2c(100, |n| if n == 9 { Reply::Break } else { Reply::Good(2) }).await;
    let outcome = measure(&over_http2(server.plan("http", 200, 1), 4)).await;
    assert_eq!(outcome.requests, 200);
    assert_eq!(outcome.requests, outcome.answered + outcome.error_count());
    assert!(
        kinds(&outcome).keys().all(|k| *k == "reset"),
        "{:?}",
        outcome.errors
    );
    assert!(
        outcome.error_count() >= server.connections() - 1,
        "{:?}",
        outcome.errors
    );
    assert!(
        outcome.error_count() <= 8 * server.connections(),
        "{:?}",
        outcome.errors
    );
}

#[tokio::test]
async fn a_stream_that_is_not_answered_times_out_alone() {
    let server = h2c(100, |n| {
        if n % 10 == 5 {
            Reply::Never
        } else {
            Reply::Good(2)
        }
    })
    .await;
    let mut plan = over_http2(server.plan("http", 60, 1), 10);
    plan.limits.request = Duration::from_millis(400);
    let outcome = measure(&plan).await;
    assert_eq!(
        kinds(&outcome),
        BTreeMap::from([("timeout", 6)]),
        "{:?}",
        outcome.error_samples
    );
    assert_eq!((outcome.answered, server.connections()), (54, 1));
    assert_eq!(outcome.latency.len(), 60);
}

#[tokio::test]
async fn who_does_not_speak_http2_is_told_apart() {
    // Without TLS it answers the preface as an HTTP/1.1 server does.
    let unsecured = Listening::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .await;
        while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let outcome = measure(&over_http2(unsecured.plan("http", 6, 2), 1)).await;
    assert_eq!(
        kinds(&outcome),
        BTreeMap::from([("protocol", 6)]),
        "{:?}",
        outcome.error_samples
    );
    assert!(outcome.error_samples[0].contains("speaks HTTP/2"));

    // With TLS the two do not agree: by an alert, or by saying nothing about it.
    let authority = Authority::new();
    for protocols in [&["http/1.1"][..], &[]] {
        let server = Listening::https(authority.acceptor("127.0.0.1", protocols)).await;
        let mut plan = over_http2(server.plan("https", 6, 2), 1);
        plan.transport.authorities = Some(Arc::clone(&authority.pem));
        let outcome = measure(&plan).await;
        assert_eq!(
            kinds(&outcome),
            BTreeMap::from([("tls", 6)]),
            "{:?}",
            outcome.error_samples
        );
        assert_eq!(server.requests(), 0);
    }
}
