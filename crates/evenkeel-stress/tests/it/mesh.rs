//! The mesh client, the responder, and the self-heal trigger over both.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use evenkeel_core::measure::TestStatus;
use evenkeel_stress::mesh::{ACK, MeshError, ResponderOptions, SELFTEST};
use evenkeel_stress::{
    BaseUrl, MeshClient, MeshEvent, MeshSpec, MeshState, Responder, ResponderHandle, TestKind,
    TestSpec, run_test,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::server::{FakeAccess, Mesh, Server, closed_port, context, soon};

fn client(base: BaseUrl) -> MeshClient {
    MeshClient::new(base, MeshSpec::default()).unwrap()
}

fn event(kind: &str, id: &str) -> MeshEvent {
    MeshEvent {
        kind: kind.into(),
        source: "test".into(),
        correlation_id: Some(id.into()),
        payload: json!({"ä": 1}),
    }
}

fn responder(base: BaseUrl) -> ResponderHandle {
    let options = ResponderOptions {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        ..ResponderOptions::default()
    };
    Responder::new(client(base), options).spawn()
}

async fn connected(handle: &ResponderHandle, on: bool) {
    soon(handle.connected().wait_for(|c| *c == on))
        .await
        .unwrap();
}

fn trigger(limit_ms: f64) -> TestSpec {
    TestSpec {
        ack_limit_ms: Some(limit_ms),
        mesh: Some(MeshSpec::default()),
        ..TestSpec::new("Self-Heal Trigger", TestKind::Mesh)
    }
}

#[tokio::test]
async fn what_is_published_arrives_at_those_who_want_it() {
    let server = Server::start(Mesh::new().router()).await;
    let client = client(server.base());
    let mut wanted = client.subscribe(&["a", "b"]).await.unwrap();
    for (kind, id) in [("c", "1"), ("a", "2"), ("b", "3")] {
        client.publish(&event(kind, id)).await.unwrap();
    }
    assert_eq!(soon(wanted.next()).await.unwrap(), Some(event("a", "2")));
    assert_eq!(soon(wanted.next()).await.unwrap(), Some(event("b", "3")));
}

#[tokio::test]
async fn what_is_no_mesh_is_told_apart() {
    let router = Router::new()
        .route("/api/events", get(async || "hello"))
        .route("/api/events", post(async || StatusCode::FORBIDDEN));
    let server = Server::start(router).await;
    let plain = client(server.base()).subscribe(&["a"]).await.unwrap_err();
    assert!(matches!(plain, MeshError::NoStream { .. }), "{plain}");
    let refused = client(server.base())
        .publish(&event("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), "status_403");
    let nobody = BaseUrl::parse(&format!("http://{}", closed_port().await)).unwrap();
    assert_eq!(
        client(nobody).subscribe(&["a"]).await.unwrap_err().kind(),
        "refused"
    );
}

#[tokio::test]
async fn a_mesh_that_does_not_answer_times_out() {
    let server = Server::raw(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let limit = Duration::from_millis(100);
    let client = client(server.base()).with_limits(limit, limit);
    assert_eq!(
        client.subscribe(&["a"]).await.unwrap_err().kind(),
        "timeout"
    );
    assert_eq!(
        client.publish(&event("a", "1")).await.unwrap_err().kind(),
        "timeout"
    );
}

#[tokio::test]
async fn the_round_trip_is_measured_end_to_end() {
    let server = Server::start(Mesh::new().router()).await;
    let handle = responder(server.base());
    connected(&handle, true).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&trigger(5_000.0), &ctx)).await;
    assert_eq!((result.status, &result.issue), (TestStatus::Passed, &None));
    assert!(
        result.value > 0.0 && result.value < 5_000.0,
        "{}",
        result.value
    );
    assert_eq!((result.limit, result.unit.as_str()), (5_000.0, "ms"));
    assert_eq!(result.context["acknowledged_by"], "evenkeel.healer");
    assert_eq!(handle.acknowledged(), 1);
    soon(handle.stop()).await;
}

#[tokio::test]
async fn another_tests_acknowledgement_does_not_count() {
    let mesh = Mesh::new();
    let server = Server::start(mesh.router()).await;
    let mut tests = client(server.base()).subscribe(&[SELFTEST]).await.unwrap();
    let wrong = tokio::spawn(async move {
        let seen = tests.next().await.unwrap().unwrap();
        assert!(seen.correlation_id.is_some());
        mesh.emit(json!({"type": ACK, "correlation_id": "someone else's"}));
        mesh.emit(json!({"type": ACK}));
    });
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&trigger(100.0), &ctx)).await;
    assert_eq!(result.status, TestStatus::Failed);
    assert_eq!(
        result.issue.as_deref(),
        Some("no acknowledgement within 100 ms")
    );
    assert!(result.value >= 100.0, "{}", result.value);
    soon(wrong).await.unwrap();
}

#[tokio::test]
async fn a_late_acknowledgement_fails_and_says_how_late() {
    let mesh = Mesh::new();
    let server = Server::start(mesh.router()).await;
    let mut tests = client(server.base()).subscribe(&[SELFTEST]).await.unwrap();
    tokio::spawn(async move {
        let seen = tests.next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(1050)).await;
        mesh.emit(json!({"type": ACK, "correlation_id": seen.correlation_id}));
    });
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&trigger(1000.0), &ctx)).await;
    assert_eq!(result.status, TestStatus::Failed);
    let issue = result.issue.unwrap();
    assert!(
        issue.starts_with("the acknowledgement came after"),
        "{issue}"
    );
    assert!(result.value >= 1050.0, "{}", result.value);
}

#[tokio::test]
async fn the_issue_says_when_the_healer_itself_is_away() {
    let server = Server::start(Mesh::new().router()).await;
    let access = FakeAccess {
        mesh: Some(MeshState {
            responder_connected: false,
        }),
        ..FakeAccess::default()
    };
    let result = soon(run_test(&trigger(50.0), &context(&server.url(), access))).await;
    let issue = result.issue.unwrap();
    assert!(
        issue.contains("the healer itself is not connected"),
        "{issue}"
    );
}

#[tokio::test]
async fn the_responder_comes_back_when_the_mesh_does() {
    let address = closed_port().await;
    let base = BaseUrl::parse(&format!("http://{address}")).unwrap();
    let handle = responder(base.clone());
    connected(&handle, false).await;
    let mesh = Mesh::new();
    let listener = TcpListener::bind(address).await.unwrap();
    let _server = Server::on(listener, mesh.router());
    connected(&handle, true).await;
    let mut changes = handle.connected();
    changes.mark_unchanged();
    mesh.end_streams();
    soon(changes.wait_for(|c| !*c)).await.unwrap();
    connected(&handle, true).await;
    handle.reconnect();
    soon(changes.wait_for(|c| !*c)).await.unwrap();
    connected(&handle, true).await;
    let ctx = context(&base.to_string(), FakeAccess::default());
    let result = soon(run_test(&trigger(5_000.0), &ctx)).await;
    assert_eq!(result.issue, None);
    let connected = handle.connected();
    soon(handle.stop()).await;
    assert!(!*connected.borrow());
}
