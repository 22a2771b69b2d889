//! SAFETY 20: the alert goes out with the advisor, the network or the disk down.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::redact::Redactor;
use evenkeel_core::{AnomalyType, Severity, Timestamp};
use evenkeel_edge::advisor::{ScriptedReply, ScriptedServer, Secret};
use evenkeel_edge::alert::file::check_writable;
use evenkeel_edge::alert::{
    Alert, AlertChannel, AlertError, AlertFacts, AlertFile, Escalation, WebhookChannel, send_all,
};
use futures_util::future::BoxFuture;
use serde_json::json;

const SECRET: &str = "s3cret-value-1";

fn redactor() -> Redactor {
    Redactor::new([SECRET.to_owned()])
}

fn alert() -> Alert {
    let facts = AlertFacts {
        kind: evenkeel_edge::alert::AlertKind::Alert,
        at: Timestamp::parse("2025-11-09T19:07:00Z").unwrap(),
        anomaly: AnomalyType::known("error_rate_spike"),
        severity: Severity::High,
        details: format!("Error rate 12% exceeds threshold 5%, key {SECRET}"),
        healing_attempts: 3,
        escalation: Escalation::NotConfigured,
        tried: vec!["scale_up_workers: failed".into()],
        snapshot: None,
        ledger: None,
        next_steps: vec![],
    };
    Alert::new(facts, &redactor())
}

/// A path that no user, root included, can make a directory of.
fn blocked(dir: &Path) -> PathBuf {
    let file = dir.join("a_file");
    fs::write(&file, "").unwrap();
    file.join("logs")
}

fn webhook(url: &str, deadline: Duration) -> Arc<dyn AlertChannel> {
    Arc::new(WebhookChannel::new("pager", &Secret::new(url), None, deadline).unwrap())
}

#[tokio::test]
async fn two_alerts_of_one_second_stand_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let channels: [Arc<dyn AlertChannel>; 1] = [Arc::new(AlertFile::new(&logs, dir.path()))];
    for name in [
        "ALERT_error_rate_spike_20251109_190700.txt",
        "ALERT_error_rate_spike_20251109_190700-2.txt",
    ] {
        let report = send_all(&channels, &alert()).await;
        assert_eq!(report.failed, []);
        assert_eq!(report.to_print, None);
        let path = logs.join(name);
        assert_eq!(report.delivered[0].to, path.display().to_string());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, alert().text());
        assert!(text.contains("AMP Escalation: Not configured\n"));
        assert!(!text.contains(SECRET));
    }
}

#[tokio::test]
async fn when_the_logs_cannot_be_written_another_place_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = vec![blocked(dir.path())];
    if cfg!(target_os = "linux") {
        places.push("/proc/evenkeel".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let read_only = dir.path().join("read_only");
        fs::create_dir(&read_only).unwrap();
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o555)).unwrap();
        if rustix::process::geteuid().is_root() {
            println!("skipped: for root no directory is read-only");
        } else {
            places.push(read_only);
        }
    }
    for logs in places {
        let data = dir.path().join("data");
        let to = AlertFile::in_order(vec![logs.clone(), data.clone()])
            .send(&alert())
            .await
            .unwrap();
        assert!(to.starts_with(data.to_str().unwrap()), "{to}");
        assert!(
            to.contains(logs.to_str().unwrap()),
            "says what failed: {to}"
        );
    }
}

#[tokio::test]
async fn when_nothing_can_be_written_the_text_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let logs = blocked(dir.path());
    let file = AlertFile::in_order(vec![logs.clone(), logs]);
    let error = file.send(&alert()).await.unwrap_err();
    assert!(check_writable(dir.path()).is_ok() && check_writable(&blocked(dir.path())).is_err());
    let AlertError::NotWritten { tried, text } = error else {
        panic!("{error}")
    };
    assert_eq!((tried.len(), text), (2, alert().text()));

    let report = send_all(&[Arc::new(file) as Arc<dyn AlertChannel>], &alert()).await;
    assert_eq!(report.to_print, Some(alert().text()));
    let nobody = send_all(&[], &alert()).await;
    assert_eq!(nobody.to_print, Some(alert().text()));
}

/// SAFETY 20: a webhook that hangs and logs that cannot be written delay nothing.
#[tokio::test]
async fn a_channel_that_hangs_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let dead = ScriptedServer::start(vec![ScriptedReply::Hang])
        .await
        .unwrap();
    let live = ScriptedServer::start(vec![ScriptedReply::Answer(json!({}))])
        .await
        .unwrap();
    let channels: [Arc<dyn AlertChannel>; 4] = [
        webhook(&dead.url(), Duration::from_secs(4)),
        Arc::new(Panics),
        Arc::new(AlertFile::in_order(vec![blocked(dir.path()), data.clone()])),
        webhook(&live.url(), Duration::from_secs(4)),
    ];
    let alert = alert();
    let mut sending = Box::pin(send_all(&channels, &alert));
    let file = data.join("ALERT_error_rate_spike_20251109_190700.txt");
    let started = Instant::now();
    while !(file.exists() && live.questions() == 1) {
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "somebody had to wait"
        );
        let step = tokio::time::timeout(Duration::from_millis(10), &mut sending).await;
        assert!(step.is_err(), "the one that hangs is still waited for");
    }
    let report = sending.await;
    let delivered: Vec<&str> = report
        .delivered
        .iter()
        .map(|d| d.channel.as_str())
        .collect();
    assert_eq!(delivered, ["file", "pager"]);
    let failed: Vec<&str> = report
        .failed
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(failed, ["pager", "panics"]);
    assert_eq!(report.to_print, None);
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(
        dead.questions(),
        3,
        "tried three times within its own deadline"
    );
    let posted = live.last_question().unwrap();
    assert_eq!(posted["anomaly"], "error_rate_spike");
    assert_eq!(posted["amp_escalation"], "Not configured");
    assert_eq!(posted["text"], alert.text());
    assert!(!posted.to_string().contains(SECRET));
}

struct Panics;

impl AlertChannel for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }
    fn deadline(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn send<'a>(&'a self, _: &'a Alert) -> BoxFuture<'a, Result<String, AlertError>> {
        Box::pin(async { panic!("on purpose") })
    }
}

#[tokio::test]
async fn a_webhook_is_tried_again_when_that_may_help() {
    for (script, tries, is_ok) in [
        (
            vec![
                ScriptedReply::Status(500),
                ScriptedReply::Close,
                ScriptedReply::Status(204),
            ],
            3,
            true,
        ),
        (
            vec![ScriptedReply::Status(429), ScriptedReply::Status(200)],
            2,
            true,
        ),
        (vec![ScriptedReply::Status(404)], 1, false),
        (vec![ScriptedReply::Status(302)], 1, false),
        (vec![ScriptedReply::Status(500)], 3, false),
    ] {
        let server = ScriptedServer::start(script.clone()).await.unwrap();
        let url = format!("{}?hook=778899", server.url());
        let result = webhook(&url, Duration::from_secs(20)).send(&alert()).await;
        assert_eq!(result.is_ok(), is_ok, "{script:?}: {result:?}");
        assert_eq!(server.questions(), tries, "{script:?}");
        if let Err(e) = result {
            assert!(!e.to_string().contains("778899"), "{e}");
        }
    }
}

/// SAFETY 22: the address of a webhook is a secret.
#[tokio::test]
async fn a_webhook_that_cannot_be_reached_does_not_show_its_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook/778899", free.local_addr().unwrap());
    drop(free);
    let report = send_all(&[webhook(&url, Duration::from_secs(5))], &alert()).await;
    assert_eq!(report.failed.len(), 1);
    assert!(
        !report.failed[0].1.contains("778899"),
        "{:?}",
        report.failed
    );
    assert_eq!(report.to_print, Some(alert().text()));

    let open = WebhookChannel::new(
        "pager",
        &Secret::new("http://example.org/778899"),
        Some(Secret::new(SECRET)),
        Duration::from_secs(1),
    );
    let e = open.unwrap_err().to_string();
    assert!(e.contains("unencrypted") && !e.contains("778899"), "{e}");
}

#[cfg(unix)]
mod command {
    use super::*;
    use evenkeel_edge::alert::CommandChannel;

    fn sh(script: &str, dir: &Path, deadline: Duration) -> CommandChannel {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let env = BTreeMap::from([("OUT".to_owned(), dir.display().to_string())]);
        CommandChannel::new("mail", argv, env, redactor(), deadline).unwrap()
    }

    #[tokio::test]
    async fn the_text_goes_to_its_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let channel = sh(
            "cat > \"$OUT/alert\"; env > \"$OUT/env\"",
            dir.path(),
            Duration::from_secs(10),
        );
        assert_eq!(channel.send(&alert()).await.unwrap(), "sh");
        assert_eq!(
            fs::read_to_string(dir.path().join("alert")).unwrap(),
            alert().text()
        );
        let env = fs::read_to_string(dir.path().join("env")).unwrap();
        assert!(
            !env.contains("CARGO"),
            "Evenkeel's own environment stays its own: {env}"
        );
    }

    #[tokio::test]
    async fn one_that_reads_nothing_or_fails_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(10);
        assert!(sh("exit 0", dir.path(), limit).send(&alert()).await.is_ok());
        let e = sh(
            &format!("echo no route for {SECRET} >&2; exit 7"),
            dir.path(),
            limit,
        )
        .send(&alert())
        .await
        .unwrap_err()
        .to_string();
        assert!(
            e.contains('7') && e.contains("no route") && !e.contains(SECRET),
            "{e}"
        );
        let argv = vec!["/no/such/program".to_owned()];
        let missing =
            CommandChannel::new("mail", argv, BTreeMap::new(), redactor(), limit).unwrap();
        assert!(missing.send(&alert()).await.is_err());
        assert!(CommandChannel::new("mail", vec![], BTreeMap::new(), redactor(), limit).is_err());
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        // The child holds the write end of a pipe as long as it lives.
        let script =
            "mkfifo \"$OUT/fifo\"; sleep 600 > \"$OUT/fifo\" & echo up > \"$OUT/up\"; wait";
        let channel = sh(script, dir.path(), Duration::from_secs(2));
        let fifo = dir.path().join("fifo");
        // Reading the pipe to its end returns only when nobody holds it any more.
        let reader = std::thread::spawn({
            let (fifo, up) = (fifo.clone(), dir.path().join("up"));
            move || {
                let until = Instant::now() + Duration::from_secs(10);
                while !up.exists() {
                    assert!(Instant::now() < until);
                    std::thread::yield_now();
                }
                fs::read(fifo)
            }
        });
        let e = channel.send(&alert()).await.unwrap_err();
        assert!(matches!(e, AlertError::TimedOut { limit_ms: 2000 }), "{e}");
        let until = Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() {
            assert!(Instant::now() < until, "a process of the command lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(reader.join().unwrap().is_ok());
    }
}
