//! SAFETY 21: a witness on the other end of a real connection. What was cut off, put back or rewritten here is known
//! there, and whoever sits in between cannot make its word.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use evenkeel_edge::witness::{ServerOptions, WitnessClient, WitnessError, WitnessServer};
use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::proof::{LeafNodes, NotInLog, consistency, leaf_hash, root};
use evenkeel_ledger::tlog::witness::REQUEST_BYTES_MAX;
use evenkeel_ledger::tlog::{
    Checkpoint, Cosigner, KeyName, ProveError, SignedNote, Signer, VerifierKey,
};
use evenkeel_ledger::witness::{EvidenceKind, WitnessStore};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const ORIGIN: &str = "example.com/log";
const LIMIT: Duration = Duration::from_secs(20);

fn signer(name: &str, seed: u8) -> Signer {
    Signer::from_seed(KeyName::new(name).unwrap(), [seed; 32])
}

fn cosigner() -> Cosigner {
    Cosigner::from_seed(KeyName::new("example.com/w").unwrap(), [9; 32])
}

/// A log in memory; from `fork_at` on its entries depend on `branch`.
struct Log {
    signer: Signer,
    leaves: Vec<Hash>,
}

impl Log {
    fn new(fork_at: u64, branch: u8) -> Self {
        let leaf = |n: u64| {
            let branch = if n < fork_at { 0 } else { branch };
            leaf_hash(&[&n.to_be_bytes()[..], &[branch]].concat())
        };
        Self {
            signer: signer(ORIGIN, 1),
            leaves: (0..100).map(leaf).collect(),
        }
    }

    fn note(&self, size: u64) -> SignedNote {
        let root = root(&LeafNodes(&self.leaves), size).unwrap();
        Checkpoint::new(ORIGIN, size, root)
            .sign(&self.signer)
            .unwrap()
    }

    fn proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, ProveError<NotInLog>> {
        consistency(&LeafNodes(&self.leaves), old, new)
    }

    /// Has the witness cosign; the time that it states.
    async fn cosigned(
        &self,
        client: &WitnessClient,
        hint: u64,
        size: u64,
    ) -> Result<u64, WitnessError> {
        let mut note = self.note(size);
        let line = client
            .cosign(&note, hint, |old| self.proof(old, size))
            .await?;
        let verified = note.add_verified(line, client.verifier()).unwrap();
        Ok(verified.time.unwrap())
    }
}

fn log_keys() -> [VerifierKey; 1] {
    [signer(ORIGIN, 1).verifier().clone()]
}

/// A witness that is being served.
struct Served {
    dir: TempDir,
    store: Arc<WitnessStore>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    now: Arc<AtomicU64>,
}

impl Served {
    async fn start() -> Self {
        let served = Self::in_dir(tempfile::tempdir().unwrap(), ServerOptions::default()).await;
        served.store.add_log(&log_keys()[0], None, 1).unwrap();
        served
    }

    async fn in_dir(dir: TempDir, options: ServerOptions) -> Self {
        let own = [cosigner().verifier().clone()];
        let store = Arc::new(WitnessStore::open(&dir.path().join("w.db"), &own).unwrap());
        let now = Arc::new(AtomicU64::new(1000));
        let clock = Arc::clone(&now);
        let server = WitnessServer::new(
            Arc::clone(&store),
            Arc::new(cosigner()),
            move || clock.load(Ordering::Relaxed),
            options,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            server
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self {
            dir,
            store,
            address,
            stop,
            task,
            now,
        }
    }

    fn client(&self) -> WitnessClient {
        client_at(self.address)
    }

    /// Stops it, waits for its end, and serves the same file again.
    async fn restarted(self) -> Self {
        self.stop.send(()).unwrap();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .unwrap()
            .unwrap();
        let left = Arc::try_unwrap(self.store).expect("the server keeps nothing when it has ended");
        drop(left);
        Self::in_dir(self.dir, ServerOptions::default()).await
    }

    /// What a plain connection gets for these bytes, until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may refuse before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the server answers or closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn post(&self, body: &[u8]) -> (u16, String) {
        let sent = plain_post(self.address, body).await;
        let (head, text) = sent.split_once("\r\n\r\n").unwrap_or((&sent, ""));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.to_owned())
    }
}

async fn plain_post(address: SocketAddr, body: &[u8]) -> String {
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

fn client_at(address: SocketAddr) -> WitnessClient {
    let key = cosigner().verifier().clone();
    WitnessClient::new(&format!("http://{address}"), key, LIMIT).unwrap()
}

/// A server of another make, that says this to everything.
async fn saying(status: u16, content_type: &'static str, body: String) -> SocketAddr {
    let answer = move || {
        let body = body.clone();
        async move {
            (
                StatusCode::from_u16(status).unwrap(),
                [("content-type", content_type), ("location", "/elsewhere")],
                body,
            )
        }
    };
    let router = Router::new()
        .route("/add-checkpoint", post(answer.clone()))
        .route("/checkpoint", axum::routing::get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_log_is_cosigned_as_it_grows_and_the_witness_remembers_over_restarts() {
    let served = Served::start().await;
    let (client, log) = (served.client(), Log::new(100, 0));
    let unknown = client.latest_size(ORIGIN, &log_keys()).await;
    assert_eq!(
        unknown,
        Err(WitnessError::Unknown),
        "known, not cosigned yet"
    );
    assert_eq!(log.cosigned(&client, 0, 3).await, Ok(1000));
    served.now.store(2000, Ordering::Relaxed);
    assert_eq!(log.cosigned(&client, 3, 10).await, Ok(2000));
    // A hint that is wrong, too small or too large, costs one more question.
    assert_eq!(log.cosigned(&client, 3, 12).await, Ok(2000));
    assert_eq!(log.cosigned(&client, 90, 20).await, Ok(2000));

    let served = served.restarted().await;
    let client = served.client();
    assert_eq!(client.latest_size(ORIGIN, &log_keys()).await, Ok(20));
    let latest = client.latest(ORIGIN, &log_keys()).await.unwrap();
    assert_eq!(latest.note.text(), log.note(20).text());
    assert_eq!(
        (latest.cosigned_unix, latest.note.signatures().len()),
        (2000, 2)
    );
    // The clock is behind now: the time stays.
    assert_eq!(log.cosigned(&client, 20, 21).await, Ok(2000));
    let stranger = [signer(ORIGIN, 66).verifier().clone()];
    let wrong = client.latest(ORIGIN, &stranger).await;
    assert!(
        matches!(wrong, Err(WitnessError::BadAnswer { .. })),
        "{wrong:?}"
    );
}

/// SAFETY 21: an old copy put back, or a tail cut off together with its checkpoints
#[tokio::test]
async fn a_log_that_is_behind_its_witness_is_told_so() {
    let served = Served::start().await;
    let (client, log) = (served.client(), Log::new(100, 0));
    log.cosigned(&client, 0, 50).await.unwrap();
    for hint in [0, 20, 40, 99] {
        let behind = log.cosigned(&client, hint, 40).await.unwrap_err();
        assert_eq!(
            behind,
            WitnessError::Behind {
                witness_size: 50,
                size: 40
            }
        );
        assert!(behind.is_alarm());
    }
}

/// SAFETY 21: a rewrite with the stolen key, at the same size and at a larger one; the evidence stays
#[tokio::test]
async fn a_fork_is_refused_and_its_evidence_kept() {
    let served = Served::start().await;
    let (client, log, fork) = (served.client(), Log::new(100, 0), Log::new(10, 1));
    log.cosigned(&client, 0, 50).await.unwrap();
    for (hint, size) in [(50, 50), (0, 50), (50, 60), (0, 60)] {
        let forked = fork.cosigned(&client, hint, size).await.unwrap_err();
        assert_eq!(
            forked,
            WitnessError::Forked { witness_size: 50 },
            "{hint} {size}"
        );
        assert!(forked.is_alarm());
    }
    let served = served.restarted().await;
    let kept = served.store.evidence(ORIGIN).unwrap();
    let kinds: Vec<EvidenceKind> = kept.iter().map(|kept| kept.kind).collect();
    assert_eq!(kinds, [EvidenceKind::OtherRoot, EvidenceKind::BadProof]);
    assert!(kept[0].proves_fork(&log_keys()) && !kept[1].proves_fork(&log_keys()));
    assert_eq!(log.cosigned(&served.client(), 50, 51).await, Ok(1000));
}

#[tokio::test]
async fn who_is_not_known_or_not_trusted_hears_it() {
    let served = Served::start().await;
    let (client, log) = (served.client(), Log::new(100, 0));
    let thief = Log {
        signer: signer(ORIGIN, 66),
        leaves: log.leaves.clone(),
    };
    let untrusted = thief.cosigned(&client, 0, 3).await;
    assert_eq!(untrusted, Err(WitnessError::Untrusted));
    let note = Checkpoint::new("example.com/other", 0, Hash::of(b""))
        .sign(&log.signer)
        .unwrap();
    let unknown = client.cosign(&note, 0, |_| Ok::<_, String>(vec![])).await;
    assert_eq!(unknown, Err(WitnessError::Unknown));
    // A proof that is wrong by our own fault is the same 422.
    log.cosigned(&client, 0, 5).await.unwrap();
    let note = log.note(9);
    let bad = client.cosign(&note, 5, |_| Ok::<_, String>(vec![Hash::ZERO; 3]));
    assert_eq!(bad.await, Err(WitnessError::Forked { witness_size: 5 }));
    let unproven = client.cosign(&note, 5, |_| Err("no nodes")).await;
    assert!(
        matches!(unproven, Err(WitnessError::Proof { old: 5, .. })),
        "{unproven:?}"
    );
}

/// Two clients at once, again and again: of each pair of different trees at most one grows, and nothing goes back.
#[tokio::test]
async fn clients_at_once_never_roll_the_witness_back() {
    let served = Served::start().await;
    let (client, log) = (served.client(), Log::new(100, 0));
    log.cosigned(&client, 0, 4).await.unwrap();
    let mut known = 4;
    for round in 0..12 {
        let sizes = [known + 1 + round % 3, known + 2];
        let both = join_all(sizes.map(|size| log.cosigned(&client, known, size))).await;
        let granted: Vec<u64> = sizes
            .into_iter()
            .zip(&both)
            .filter_map(|(size, answer)| answer.is_ok().then_some(size))
            .collect();
        assert!(!granted.is_empty(), "{both:?}");
        for refused in both.iter().filter_map(|answer| answer.as_ref().err()) {
            let is_race = matches!(
                refused,
                WitnessError::Behind { .. } | WitnessError::Raced { .. }
            );
            assert!(is_race, "{refused}");
        }
        let now = client.latest_size(ORIGIN, &log_keys()).await.unwrap();
        assert_eq!(now, granted.into_iter().max().unwrap());
        known = now;
    }
}

/// SAFETY 21: two histories of one log ask at the same time
#[tokio::test]
async fn two_histories_at_once_never_both_get_a_cosignature() {
    let served = Served::start().await;
    let client = served.client();
    let logs = [Log::new(100, 0), Log::new(2, 1)];
    let asked = (0..64_usize).map(|n| {
        let (client, log) = (&client, &logs[n % 2]);
        async move { (n % 2, log.cosigned(client, 0, 5 + n as u64).await) }
    });
    let answers = tokio::time::timeout(LIMIT, join_all(asked)).await.unwrap();
    let granted = |which: usize| {
        let is = |(log, answer): &&(usize, Result<u64, _>)| *log == which && answer.is_ok();
        answers.iter().filter(is).count()
    };
    assert!(granted(0) + granted(1) > 0, "{answers:?}");
    assert!(granted(0) == 0 || granted(1) == 0, "{answers:?}");
}

#[tokio::test]
async fn garbage_and_what_is_too_long_is_refused() {
    let served = Served::start().await;
    for body in [
        &b""[..],
        b"old 0\n",
        b"\0\xff",
        b"old 0\n\nexample.com/log\n",
    ] {
        assert_eq!(served.post(body).await.0, 400);
    }
    assert_eq!(served.post(&vec![b'A'; REQUEST_BYTES_MAX]).await.0, 400);
    let long = served
        .raw(
            format!(
                "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}",
                REQUEST_BYTES_MAX + 1,
                "A".repeat(REQUEST_BYTES_MAX + 1)
            )
            .as_bytes(),
        )
        .await;
    assert!(long.starts_with("HTTP/1.1 413"), "{long}");
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "A".repeat(20_000));
    let head = served.raw(head.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    let get = served
        .raw(b"GET /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        .await;
    assert!(get.starts_with("HTTP/1.1 405"), "{get}");
    let about = served
        .raw(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        about.contains(&cosigner().verifier().to_string()),
        "{about}"
    );
    let nothing = served
        .raw(b"GET /checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        .await;
    assert!(nothing.starts_with("HTTP/1.1 400"), "{nothing}");
    assert!(served.store.failure().is_none());
    assert_eq!(
        Log::new(100, 0).cosigned(&served.client(), 0, 3).await,
        Ok(1000)
    );
}

/// One that sends slowly, or nothing, neither lasts nor keeps others out.
#[tokio::test]
async fn slow_clients_are_cut_off() {
    let options = ServerOptions {
        request_limit: Duration::from_millis(200),
        connections_max: 2,
    };
    let served = Served::in_dir(tempfile::tempdir().unwrap(), options).await;
    served.store.add_log(&log_keys()[0], None, 1).unwrap();
    let heads = [
        &b"POST /add-check"[..],
        b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 500\r\n\r\nold 0",
    ];
    let answers = join_all(heads.map(|head| served.raw(head))).await;
    assert!(answers[1].starts_with("HTTP/1.1 408"), "{answers:?}");
    // Both places are free again.
    assert_eq!(
        Log::new(100, 0).cosigned(&served.client(), 0, 3).await,
        Ok(1000)
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_store_that_fails_answers_500_and_no_signature() {
    let served = Served::start().await;
    let (client, log) = (served.client(), Log::new(100, 0));
    log.cosigned(&client, 0, 3).await.unwrap();
    std::fs::rename(served.store.path(), served.dir.path().join("away")).unwrap();
    for _ in 0..2 {
        let down = log.cosigned(&client, 3, 4).await.unwrap_err();
        assert!(matches!(down, WitnessError::Unreachable { .. }), "{down}");
        assert!(down.to_string().contains("500"), "{down}");
    }
    let about = served
        .raw(b"GET / HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        .await;
    assert!(about.starts_with("HTTP/1.1 503"), "{about}");
}

/// SAFETY 21: who sits in between cannot make a cosignature, nor have one taken that is not on this checkpoint
#[tokio::test]
async fn answers_that_no_witness_gives_are_not_believed() {
    let log = Log::new(100, 0);
    let stranger_key = Cosigner::from_seed(KeyName::new("example.com/w").unwrap(), [8; 32]);
    let mut spoiled = cosigner().cosign(log.note(4).text(), 7).to_string();
    let forged = stranger_key.cosign(log.note(4).text(), 7);
    let other = cosigner().cosign(log.note(5).text(), 7);
    spoiled.replace_range(spoiled.len() - 8..spoiled.len() - 4, "AAAA");
    let bad = [
        (200, format!("{forged}\n")),
        (200, format!("{other}\n")),
        (200, format!("{spoiled}\n")),
        (200, String::new()),
        (200, "x".repeat(200_000)),
        (302, String::new()),
        (400, "no".to_owned()),
        (409, "0\n".to_owned()),
        (409, "3".to_owned()),
        (418, String::new()),
    ];
    for (status, body) in bad {
        let client = client_at(saying(status, "text/plain", body).await);
        let answer = log.cosigned(&client, 0, 4).await;
        assert!(
            matches!(answer, Err(WitnessError::BadAnswer { .. })),
            "{status}: {answer:?}"
        );
        assert!(!answer.unwrap_err().is_alarm());
    }
    // The right line among those of strangers is found, the latest of several taken.
    let own = |time| cosigner().cosign(log.note(4).text(), time);
    let body = format!("{forged}\n{}\n{}\n", own(9), own(7));
    let client = client_at(saying(200, "text/plain", body).await);
    assert_eq!(log.cosigned(&client, 0, 4).await, Ok(9));
    // The size asked with is the wrong one again.
    let client = client_at(saying(409, "text/x.tlog.size", "2\n".to_owned()).await);
    let mad = log.cosigned(&client, 0, 4).await;
    assert!(
        matches!(mad, Err(WitnessError::BadAnswer { .. })),
        "{mad:?}"
    );
    for status in [429, 500, 503] {
        let client = client_at(saying(status, "text/plain", String::new()).await);
        let down = log.cosigned(&client, 0, 4).await;
        assert!(
            matches!(down, Err(WitnessError::Unreachable { .. })),
            "{down:?}"
        );
    }
    // A witness of another make has no such page; that is not the same as knowing nothing.
    let client = client_at(saying(404, "text/plain", String::new()).await);
    let latest = client.latest_size(ORIGIN, &log_keys()).await;
    assert_eq!(latest, Err(WitnessError::Unknown));
    let unsigned = client_at(saying(200, "text/plain", log.note(4).to_string()).await);
    let latest = unsigned.latest_size(ORIGIN, &log_keys()).await;
    assert!(
        matches!(latest, Err(WitnessError::BadAnswer { .. })),
        "{latest:?}"
    );
}

/// A size that changes with each question is a race, and no endless loop.
#[tokio::test]
async fn a_witness_that_names_another_size_each_time_is_asked_twice() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let answer = move || async move {
        let size = 1 + count.fetch_add(1, Ordering::Relaxed);
        (StatusCode::CONFLICT, format!("{size}\n"))
    };
    let router = Router::new().route("/add-checkpoint", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_at(listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let raced = Log::new(100, 0).cosigned(&client, 0, 4).await;
    assert_eq!(raced, Err(WitnessError::Raced { witness_size: 2 }));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_cannot_be_a_witness_is_refused() {
    let key = cosigner().verifier().clone();
    for url in ["", "example.com", "ftp://example.com/", "http://"] {
        let client = WitnessClient::new(url, key.clone(), LIMIT);
        assert!(
            matches!(client, Err(WitnessError::Configured { .. })),
            "{url}"
        );
    }
    let logs = WitnessClient::new("http://127.0.0.1:1/", log_keys()[0].clone(), LIMIT);
    assert!(matches!(logs, Err(WitnessError::Configured { .. })));
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let gone = Log::new(100, 0)
        .cosigned(&client_at(port), 0, 3)
        .await
        .unwrap_err();
    assert!(matches!(gone, WitnessError::Unreachable { .. }), "{gone}");
}
