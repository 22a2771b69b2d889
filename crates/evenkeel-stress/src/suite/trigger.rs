//! The self-heal trigger: an event over the mesh, and the healer's acknowledgement, end to end.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_core::measure::{LatencySummary, TestStatus};
use serde_json::json;
use tokio::time::timeout_at;

use super::{Figures, TestContext, millis};
use crate::mesh::{ACK, MeshClient, MeshError, MeshEvent, SELFTEST, Subscription};
use crate::spec::TestSpec;
use crate::target::BaseUrl;

/// A late acknowledgement is waited for up to this many limits, to say how late it came.
const PATIENCE: f64 = 2.0;

/// Subscribes to the acknowledgement, then publishes, then waits.
pub(super) async fn run(spec: &TestSpec, ctx: &TestContext, base: BaseUrl) -> Figures {
    let limit_ms = spec.ack_limit_ms();
    let mesh = spec.mesh.clone().unwrap_or_default();
    let client = match MeshClient::new(base, mesh) {
        Ok(client) => client.with_limits(
            Duration::from_millis(spec.connect_timeout_ms()),
            Duration::from_secs(5),
        ),
        Err(error) => return Figures::skipped(spec, format!("cannot be run: {error}")),
    };
    let mut acks = match client.subscribe(&[ACK]).await {
        Ok(acks) => acks,
        Err(error) => return broken(spec, ctx, &error, "subscribing"),
    };
    let event = MeshEvent {
        kind: SELFTEST.to_owned(),
        source: "evenkeel.stress".to_owned(),
        correlation_id: Some(correlation_id()),
        payload: json!({ "test": spec.name, "sent_at": (ctx.now)() }),
    };
    let started = Instant::now();
    let patience = Duration::from_secs_f64(limit_ms * PATIENCE / 1000.0);
    let waited = timeout_at(
        (started + patience).into(),
        exchange(&client, &mut acks, &event),
    )
    .await;
    let took_ms = millis(started.elapsed());
    let mut f = match waited {
        Ok(Ok(ack)) => {
            let mut f = Figures::new(spec, TestStatus::Passed, None);
            if took_ms > limit_ms {
                f.status = TestStatus::Failed;
                f.issue = Some(format!(
                    "the acknowledgement came after {took_ms:.0} ms, limit {limit_ms:.0} ms"
                ));
                f.errors = BTreeMap::from([("late".to_owned(), 1)]);
            }
            f.note(
                "acknowledged_by",
                json!(crate::text::bounded(&ack.source, 80)),
            );
            f.note("acknowledged_after_ms", json!(took_ms));
            f
        }
        Ok(Err(error)) => broken(spec, ctx, &error, "the exchange"),
        Err(_) => {
            let mut f = Figures::failed(
                spec,
                format!("no acknowledgement within {limit_ms:.0} ms{}", hint(ctx)),
            );
            f.errors = BTreeMap::from([("timeout".to_owned(), 1)]);
            f
        }
    };
    f.requests = 1;
    f.value = took_ms;
    f.latency_ms = LatencySummary {
        p50: took_ms,
        p90: took_ms,
        p95: took_ms,
        p99: took_ms,
        max: took_ms,
        mean: took_ms,
    };
    f.throughput_rps = 1000.0 / took_ms.max(0.001);
    f.note("correlation_id", json!(event.correlation_id));
    f
}

/// Publishes and waits for the answer at once: the answer may be quicker than the mesh's own.
async fn exchange(
    client: &MeshClient,
    acks: &mut Subscription,
    event: &MeshEvent,
) -> Result<MeshEvent, MeshError> {
    let published = client.publish(event);
    let answered = async {
        loop {
            match acks.next().await? {
                Some(ack) if ack.correlation_id == event.correlation_id => return Ok(ack),
                Some(_) => {}
                None => {
                    return Err(MeshError::Connection {
                        what: "the wait for the acknowledgement".to_owned(),
                        reason: "the event mesh ended the stream".to_owned(),
                    });
                }
            }
        }
    };
    tokio::pin!(published, answered);
    tokio::select! {
        biased;
        ack = &mut answered => ack,
        result = &mut published => {
            result?;
            answered.await
        }
    }
}

fn broken(spec: &TestSpec, ctx: &TestContext, error: &MeshError, during: &str) -> Figures {
    let mut f = Figures::failed(spec, format!("{during} failed: {error}{}", hint(ctx)));
    f.requests = 1;
    f.errors = BTreeMap::from([(error.kind(), 1)]);
    f
}

fn hint(ctx: &TestContext) -> &'static str {
    match ctx.access.mesh() {
        Some(state) if !state.responder_connected => {
            " (the healer itself is not connected to the event mesh)"
        }
        Some(_) => " (the healer is connected to the event mesh)",
        None => "",
    }
}

/// Unlike any other, of this process and others.
fn correlation_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one((std::process::id(), count));
    format!("selftest-{}-{count}-{random:016x}", std::process::id())
}
