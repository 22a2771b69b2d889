//! SAFETY 21: a checkpoint elsewhere, on a file or behind an address, to compare the ledger with later.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use evenkeel_edge::advisor::Secret;
use evenkeel_edge::anchor::{Anchor, AnchorError, FileAnchor, PostAnchor};
use evenkeel_ledger::Hash;
use evenkeel_ledger::tlog::{Checkpoint, KeyName, SignedNote, Signer};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(20);

fn note(size: u64, extension: usize) -> SignedNote {
    let signer = Signer::from_seed(KeyName::new("example.com/log").unwrap(), [1; 32]);
    let mut checkpoint = Checkpoint::new("example.com/log", size, Hash::of(&size.to_be_bytes()));
    if extension > 0 {
        checkpoint.extensions.push("x".repeat(extension));
    }
    checkpoint.sign(&signer).unwrap()
}

#[tokio::test]
async fn the_last_checkpoint_in_a_file_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("anchor");
    let anchor = Anchor::File(FileAnchor::new(&path));
    assert!(anchor.is_readable());
    assert_eq!(anchor.last().await, Ok(None));
    for size in 1..6 {
        anchor.put(&note(size, 0)).await.unwrap();
        assert_eq!(anchor.last().await, Ok(Some(note(size, 0))));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("\tcheckpoint\n").count(), 5);
    // The power failed in the middle of a record, then it went on.
    std::fs::write(&path, &text[..text.len() - 30]).unwrap();
    assert_eq!(anchor.last().await, Ok(Some(note(4, 0))));
    anchor.put(&note(6, 0)).await.unwrap();
    assert_eq!(anchor.last().await, Ok(Some(note(6, 0))));
}

#[tokio::test]
async fn a_full_file_is_set_aside_and_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("anchor");
    let bytes_max = 256 << 10;
    let anchor = Anchor::File(FileAnchor::new(&path).with_bytes_max(1));
    for size in 1..=12 {
        anchor.put(&note(size, 60_000)).await.unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= bytes_max);
        assert_eq!(anchor.last().await, Ok(Some(note(size, 60_000))));
    }
    let aside = dir.path().join("anchor.1");
    assert!(std::fs::metadata(&aside).unwrap().len() <= bytes_max);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    // The moment between setting aside and the first record.
    std::fs::rename(&path, &aside).unwrap();
    assert_eq!(anchor.last().await, Ok(Some(note(12, 60_000))));
}

#[tokio::test]
async fn a_mount_that_is_gone_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let anchor = Anchor::File(FileAnchor::new(dir.path().join("gone/anchor")));
    let put = anchor.put(&note(1, 0)).await;
    assert!(matches!(put, Err(AnchorError::File { .. })), "{put:?}");
    let last = anchor.last().await;
    assert!(matches!(last, Err(AnchorError::File { .. })), "{last:?}");
}

#[tokio::test]
async fn many_at_once_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let anchor = FileAnchor::new(dir.path().join("anchor"));
    let puts = (1..20).map(|size| {
        let anchor = anchor.clone();
        async move { anchor.put(&note(size, 500)).await }
    });
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    let text = std::fs::read_to_string(anchor.path()).unwrap();
    for record in text.split_inclusive("\tend\n") {
        let note = record
            .strip_prefix("\tcheckpoint\n")
            .and_then(|rest| rest.strip_suffix("\tend\n"))
            .unwrap();
        SignedNote::parse(note.as_bytes()).unwrap();
    }
}

type Seen = Arc<Mutex<Vec<(Option<String>, String)>>>;

async fn takes(status: StatusCode) -> (String, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let take = move |headers: HeaderMap, body: String| async move {
        let token = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        kept.lock().unwrap().push((token, body));
        (status, [("location", "/here")])
    };
    let router = Router::new().route("/here", post(take));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/here", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

#[tokio::test]
async fn a_checkpoint_is_posted_as_it_is() {
    let (url, seen) = takes(StatusCode::NO_CONTENT).await;
    let token = Some(Secret::new("t0ken"));
    let anchor = Anchor::Post(PostAnchor::new(&Secret::new(&url), token, LIMIT).unwrap());
    anchor.put(&note(7, 0)).await.unwrap();
    let expected = (Some("Bearer t0ken".to_owned()), note(7, 0).to_string());
    assert_eq!(*seen.lock().unwrap(), [expected]);
    assert!(!anchor.is_readable());
    assert_eq!(anchor.last().await, Ok(None));
    assert!(!format!("{anchor:?}").contains("t0ken"));
}

/// SAFETY 22: neither the address nor the token is in an error
#[tokio::test]
async fn what_is_not_taken_is_an_error_without_the_address() {
    for status in [
        StatusCode::FOUND,
        StatusCode::FORBIDDEN,
        StatusCode::BAD_GATEWAY,
    ] {
        let (url, seen) = takes(status).await;
        let secret = Secret::new(format!("{url}?key=s3cret"));
        let anchor = PostAnchor::new(&secret, None, LIMIT).unwrap();
        let error = anchor.put(&note(7, 0)).await.unwrap_err().to_string();
        assert!(
            error.contains(status.as_str()) && !error.contains("s3cret"),
            "{error}"
        );
        assert_eq!(seen.lock().unwrap().len(), 1, "no redirect is followed");
    }
    let token = Some(Secret::new("t0ken"));
    let plain = PostAnchor::new(&Secret::new("http://anchor.example/s3cret"), token, LIMIT);
    let error = plain.unwrap_err();
    assert!(matches!(error, AnchorError::Configured { .. }));
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
