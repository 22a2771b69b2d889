//! The HTTP adapter against endpoints that behave in every way one can.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::{Duration, Instant};

use evenkeel_core::redact::Redactor;
use evenkeel_edge::advisor::{
    Advisor, AdvisorError, Answer, HttpAdvisor, HttpOptions, Question, ScriptedReply,
    ScriptedServer,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wiremock::matchers::{header, method};
use wiremock::{Mock, MockServer, ResponseTemplate};

const TOKEN: &str = "bearer-token-424242";

fn options(url: &str) -> HttpOptions {
    HttpOptions {
        url: url.into(),
        token_env: None,
        deadline: Duration::from_secs(10),
    }
}

fn advisor(url: &str) -> HttpAdvisor {
    HttpAdvisor::new(&options(url), |_| None, redactor()).unwrap()
}

fn redactor() -> Redactor {
    Redactor::new(["db-pass-778899".to_owned()])
}

fn question() -> Question {
    Question {
        issue: "latency_spike".into(),
        context: json!({ "severity": "high", "recent_errors": ["dsn db-pass-778899"] }),
        playbooks: vec![],
    }
}

fn answer() -> Value {
    json!({ "suggested_action": "scale_up_workers", "confidence": 0.7, "reasoning": "load",
        "recommended_config": { "workers": 4 } })
}

async fn ask(reply: ScriptedReply) -> Result<Answer, AdvisorError> {
    let server = ScriptedServer::start(vec![reply]).await.unwrap();
    let result = advisor(&server.url()).ask(&question()).await;
    assert_eq!(server.questions(), 1, "one try, and no redirect followed");
    result
}

/// SAFETY 22
#[tokio::test]
async fn a_question_without_secrets_gets_its_answer() {
    let server = ScriptedServer::start(vec![
        ScriptedReply::Status(503),
        ScriptedReply::Answer(answer()),
    ])
    .await
    .unwrap();
    let advisor = advisor(&server.url());
    assert_eq!(
        advisor.ask(&question()).await,
        Err(AdvisorError::Status { status: 503 })
    );
    for _ in 0..2 {
        let got = advisor.ask(&question()).await.unwrap();
        assert_eq!(got.to_json(), answer(), "the last reply is repeated");
    }
    assert_eq!(server.questions(), 3);
    let asked = server.last_question().unwrap();
    assert_eq!(asked["issue"], "latency_spike");
    assert_eq!(asked["context"]["severity"], "high");
    assert!(!asked.to_string().contains("db-pass-778899"));
}

/// SAFETY 18: whatever comes that is not an answer is an error.
#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    for status in [302, 404, 500] {
        assert_eq!(
            ask(ScriptedReply::Status(status)).await,
            Err(AdvisorError::Status { status })
        );
    }
    for text in [
        String::new(),
        "<html>".into(),
        "[]".into(),
        "{\"suggested_action\":\"x\"}".into(),
        answer().to_string().replace("0.7", "7"),
        format!("{} trailing", answer()),
        format!("{{\"x\":\"{}\"}}", "y".repeat(70_000)),
    ] {
        let shown: String = text.chars().take(60).collect();
        let got = ask(ScriptedReply::Garbage(text)).await;
        assert!(
            matches!(got, Err(AdvisorError::BadAnswer { .. })),
            "{shown}: {got:?}"
        );
    }
    let got = ask(ScriptedReply::Close).await;
    assert!(
        matches!(got, Err(AdvisorError::Unreachable { .. })),
        "{got:?}"
    );
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let server = ScriptedServer::start(vec![ScriptedReply::Hang])
        .await
        .unwrap();
    let options = HttpOptions {
        deadline: Duration::from_millis(300),
        ..options(&server.url())
    };
    let advisor = HttpAdvisor::new(&options, |_| None, redactor()).unwrap();
    let started = Instant::now();
    assert_eq!(
        advisor.ask(&question()).await,
        Err(AdvisorError::TimedOut { limit_ms: 300 })
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let mut chunk: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        while stream.write_all(chunk).await.is_ok() {
            chunk = &[b' '; 4096];
        }
    });
    let got = advisor(&url).ask(&question()).await;
    assert!(
        matches!(&got, Err(AdvisorError::BadAnswer { reason }) if reason.contains("64 KiB")),
        "{got:?}"
    );
    // The server notices that nobody reads any more.
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap();
}

/// SAFETY 22
#[tokio::test]
async fn the_token_is_sent_and_never_shown() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(header("authorization", format!("Bearer {TOKEN}").as_str()))
        .respond_with(ResponseTemplate::new(200).set_body_json(answer()))
        .mount(&server)
        .await;
    let with_token = |url: &str| HttpOptions {
        token_env: Some("ADVISOR_TOKEN".into()),
        ..options(url)
    };
    let env = |key: &str| (key == "ADVISOR_TOKEN").then(|| TOKEN.to_owned());
    let advisor = HttpAdvisor::new(&with_token(&server.uri()), env, redactor()).unwrap();
    assert!(advisor.ask(&question()).await.is_ok());
    assert!(!format!("{advisor:?}").contains(TOKEN));

    let missing = HttpAdvisor::new(&with_token(&server.uri()), |_| None, redactor()).unwrap_err();
    assert!(matches!(missing, AdvisorError::NoKey { .. }));
    assert!(missing.to_string().contains("ADVISOR_TOKEN"));
    let open = HttpAdvisor::new(&with_token("http://example.org/"), env, redactor()).unwrap_err();
    assert!(open.to_string().contains("unencrypted"), "{open}");

    let echo = json!({ "suggested_action": "a", "confidence": 1, "reasoning": format!("saw {TOKEN}"),
        "recommended_config": {} });
    let echoing = ScriptedServer::start(vec![ScriptedReply::Answer(echo)])
        .await
        .unwrap();
    let advisor = HttpAdvisor::new(&with_token(&echoing.url()), env, redactor()).unwrap();
    let got = advisor.ask(&question()).await.unwrap();
    assert!(!format!("{got:?}").contains(TOKEN), "{got:?}");
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_errors_without_the_address() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let got = advisor(&format!("http://127.0.0.1:{port}/hook-778899"))
        .ask(&question())
        .await;
    let Err(AdvisorError::Unreachable { reason }) = got else {
        panic!("{got:?}")
    };
    assert!(!reason.contains("778899"), "{reason}");

    for url in ["", "ftp://x/", "not an address"] {
        let got = HttpAdvisor::new(&options(url), |_| None, redactor());
        assert!(matches!(got, Err(AdvisorError::Unsuitable { .. })), "{url}");
    }
}

#[tokio::test]
async fn tls_is_really_spoken() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let advisor = match HttpAdvisor::new(&options(&url), |_| None, redactor()) {
        Ok(advisor) => advisor,
        // A machine without any certificate: said, not panicked.
        Err(e) => {
            assert!(matches!(e, AdvisorError::Unsuitable { .. }), "{e}");
            return;
        }
    };
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let first = stream.read_u8().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Plain\r\n\r\n")
            .await
            .unwrap();
        first
    });
    let question = question();
    let (got, first) = tokio::join!(advisor.ask(&question), server);
    assert!(
        matches!(got, Err(AdvisorError::Unreachable { .. })),
        "{got:?}"
    );
    assert_eq!(
        first.unwrap(),
        0x16,
        "a TLS handshake, and nothing in the clear"
    );
}
