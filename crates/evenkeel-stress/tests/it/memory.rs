//! The memory test judges the target's memory, or says that it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use evenkeel_core::measure::{TestResult, TestStatus};
use evenkeel_stress::{MemoryError, RequestSpec, TestKind, TestSpec, run_test};

use crate::server::{FakeAccess, Server, context, memory, soon};

fn spec() -> TestSpec {
    TestSpec {
        endpoints: vec![RequestSpec::get("/")],
        ..TestSpec::new("Memory Leak Detection", TestKind::Memory)
    }
}

async fn judged(access: FakeAccess) -> TestResult {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    soon(run_test(&spec(), &context(&server.url(), access))).await
}

fn assert_inconclusive(result: &TestResult, word: &str) {
    assert_eq!(result.status, TestStatus::Failed);
    let issue = result.issue.as_deref().unwrap();
    assert!(
        issue.starts_with("inconclusive: ") && issue.contains(word),
        "{issue}"
    );
    assert_eq!(result.context["inconclusive"], true);
}

#[tokio::test]
async fn growth_beyond_the_limit_fails() {
    // Before the warm-up, before the load, after the load: what the warm-up took does not count.
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 120)), Ok(memory(1, 175))];
    let result = judged(FakeAccess::with_readings(readings)).await;
    assert_eq!(result.status, TestStatus::Failed);
    assert_eq!(
        result.issue.as_deref(),
        Some(
            "memory grew by 55.0 MB over 100 requests (120.0 MB before, 175.0 MB after), limit 50 MB"
        )
    );
    assert_eq!(
        (result.value, result.limit, result.unit.as_str()),
        (55.0, 50.0, "MB")
    );
    assert_eq!((result.requests, result.latency_ms.p50 > 0.0), (100, true));
    assert_eq!(result.context["growth_mb_by_service"]["api"], 55.0);
}

#[tokio::test]
async fn growth_within_the_limit_and_shrinking_pass() {
    for (after, growth) in [(170, 50.0), (90, -30.0)] {
        let readings = [Ok(memory(1, 120)), Ok(memory(1, 120)), Ok(memory(1, after))];
        let result = judged(FakeAccess::with_readings(readings)).await;
        assert_eq!((result.status, result.issue), (TestStatus::Passed, None));
        assert!((result.value - growth).abs() < 1e-9, "{}", result.value);
    }
}

#[tokio::test]
async fn a_replaced_process_is_inconclusive() {
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Ok(memory(2, 20))];
    let result = judged(FakeAccess::with_readings(readings)).await;
    assert_inconclusive(
        &result,
        "`api` was replaced during the test (pid 1 before, 2 after)",
    );
}

#[tokio::test]
async fn the_same_pid_with_another_start_is_another_process() {
    let mut again = memory(1, 20);
    again.by_service.get_mut("api").unwrap().started += 1;
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Ok(again)];
    assert_inconclusive(
        &judged(FakeAccess::with_readings(readings)).await,
        "replaced",
    );
}

#[tokio::test]
async fn a_reading_that_breaks_is_inconclusive() {
    let gone = MemoryError::Unreadable("process 1 of `api` is gone".to_owned());
    let readings = [Ok(memory(1, 100)), Ok(memory(1, 100)), Err(gone.clone())];
    assert_inconclusive(
        &judged(FakeAccess::with_readings(readings)).await,
        "is gone",
    );
    assert_inconclusive(
        &judged(FakeAccess::with_readings([Err(gone)])).await,
        "is gone",
    );
}

#[tokio::test]
async fn a_target_without_known_process_is_skipped_without_a_request() {
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let handler = async move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let ctx = context(&server.url(), FakeAccess::default());
    let result = soon(run_test(&spec(), &ctx)).await;
    assert_eq!(result.status, TestStatus::Skipped);
    assert_eq!(
        result.issue.as_deref(),
        Some("no process of the target is known")
    );
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn too_many_failed_requests_are_inconclusive_even_without_growth() {
    let count = AtomicU64::new(0);
    let count = Arc::new(count);
    let handler = async move || match count.fetch_add(1, Ordering::Relaxed) % 10 {
        0 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    let server = Server::start(Router::new().route("/", get(handler))).await;
    let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
    let result = soon(run_test(&spec(), &context(&server.url(), access))).await;
    assert_inconclusive(
        &result,
        "10 of 100 requests failed (status_500: 10), limit 5%",
    );
    assert_eq!(result.unit, "ratio");
    assert_eq!(result.anomaly_type.as_str(), "error_rate_spike");
}

#[tokio::test]
async fn one_named_service_is_judged_alone() {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    let mut both = memory(1, 100);
    both.by_service
        .insert("cache".into(), memory(2, 10).by_service["api"]);
    let mut grown = both.clone();
    grown.by_service.get_mut("cache").unwrap().bytes += 500 * 1_048_576;
    grown.total_bytes += 500 * 1_048_576;
    let mut spec = spec();
    for (service, status) in [
        ("api", TestStatus::Passed),
        ("cache", TestStatus::Failed),
        ("nobody", TestStatus::Failed),
    ] {
        spec.service = Some(service.to_owned());
        let readings = [Ok(both.clone()), Ok(both.clone()), Ok(grown.clone())];
        let ctx = context(&server.url(), FakeAccess::with_readings(readings));
        let result = soon(run_test(&spec, &ctx)).await;
        assert_eq!(result.status, status, "{service}: {:?}", result.issue);
    }
}

/// Before the warm-up, before the load, and after each block.
async fn course(mb: &[u64], limit: Option<f64>) -> TestResult {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    let readings = std::iter::once(mb[0]).chain(mb.iter().copied());
    let access = FakeAccess::with_readings(readings.map(|mb| Ok(memory(1, mb))));
    let mut spec = spec();
    spec.requests = Some(200);
    spec.blocks = Some(u32::try_from(mb.len() - 1).unwrap());
    spec.leak_limit_mb_per_1000 = limit;
    spec.validate().unwrap();
    soon(run_test(&spec, &context(&server.url(), access))).await
}

#[tokio::test]
async fn what_memory_does_over_blocks_has_a_name() {
    for (mb, verdict) in [
        (
            &[100, 102, 104, 106, 109, 110, 112, 114, 116, 119, 120],
            "leak",
        ),
        (
            &[100, 112, 119, 123, 126, 127, 127, 128, 127, 128, 127],
            "warm_up",
        ),
        (
            &[100, 101, 100, 102, 101, 100, 101, 99, 102, 100, 101],
            "none",
        ),
        (
            &[100, 110, 120, 130, 100, 110, 120, 130, 100, 110, 120],
            "none",
        ),
    ] {
        // What is no leak of more than the limit passes, whatever it is called.
        let result = course(mb, Some(150.0)).await;
        assert_eq!((result.status, &result.issue), (TestStatus::Passed, &None));
        let leak = &result.context["leak"];
        assert_eq!(leak["verdict"], verdict, "{leak}");
        let blocks = leak["blocks"].as_array().unwrap();
        assert_eq!((blocks.len(), result.requests), (11, 200));
        assert_eq!(blocks[10]["requests"], 200);
        assert_eq!(blocks[3]["memory_mb"].as_f64(), Some(mb[3] as f64));
        let (low, high) = (
            leak["low"].as_f64().unwrap(),
            leak["high"].as_f64().unwrap(),
        );
        let slope = leak["mb_per_1000_requests"].as_f64().unwrap();
        assert!(low <= slope && slope <= high, "{leak}");
    }
}

#[tokio::test]
async fn a_leak_above_its_limit_fails_and_warm_up_does_not() {
    // 2 MB a block of 20 requests: 100 MB for 1,000.
    let leaking = [100, 102, 104, 106, 109, 110, 112, 114, 116, 119, 120];
    let result = course(&leaking, Some(50.0)).await;
    assert_eq!(result.status, TestStatus::Failed);
    let issue = result.issue.unwrap();
    assert!(
        issue.starts_with("memory leaks 100.00 MB for 1,000 requests"),
        "{issue}"
    );
    assert_eq!(
        (result.limit, result.anomaly_type.as_str()),
        (50.0, "memory_growth")
    );
    let warming = [100, 112, 119, 123, 126, 127, 127, 128, 127, 128, 127];
    assert!(course(&warming, Some(0.001)).await.passed);
    // The specified difference decides as before, leak or not.
    let step = [100, 151, 151, 151, 151, 151, 151, 151, 151, 151, 151];
    let result = course(&step, None).await;
    assert_eq!((result.status, result.value), (TestStatus::Failed, 51.0));
    assert_eq!(result.context["leak"]["verdict"], "warm_up");
}

#[tokio::test]
async fn a_heap_can_tell_the_leak_that_resident_memory_hides() {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    let mut spec = spec();
    spec.memory_metric = Some("heap_bytes".to_owned());
    spec.leak_limit_mb_per_1000 = Some(1.0);
    // 1 MB a block of 20 requests, in memory that the process had taken before.
    let access = |blocks: u32| {
        let access = FakeAccess::with_readings([Ok(memory(1, 100))]);
        let heap = (0..blocks).map(|mb| f64::from(mb) * 1_048_576.0);
        *access.heap.lock().unwrap() = heap.collect();
        access
    };
    let result = soon(run_test(&spec, &context(&server.url(), access(6)))).await;
    assert_eq!(result.status, TestStatus::Failed);
    assert!(result.issue.unwrap().starts_with("memory leaks 50.00 MB"));
    assert_eq!(result.context["leak"]["metric"], "heap_bytes");
    let result = soon(run_test(&spec, &context(&server.url(), access(3)))).await;
    assert_inconclusive(&result, "no such metric");
}

#[tokio::test]
async fn a_control_group_can_tell_the_leak_that_resident_memory_hides() {
    let server = Server::start(Router::new().route("/", get(async || "ok"))).await;
    let mut spec = spec();
    spec.leak_limit_mb_per_1000 = Some(1.0);
    // 3 MB a block of 20 requests, in files in memory; the last reading is missing in one of the courses.
    let reading = |mb: Option<u64>| {
        let mut reading = memory(1, 100);
        let api = reading.by_service.get_mut("api").unwrap();
        api.group_bytes = mb.map(|mb| mb * 1_048_576);
        Ok(reading)
    };
    let grown = [400, 400, 403, 406, 409, 412].map(|mb| reading(Some(mb)));
    for (last, status) in [(Some(415), TestStatus::Failed), (None, TestStatus::Passed)] {
        let readings = grown.clone().into_iter().chain([reading(last)]);
        let access = FakeAccess::with_readings(readings);
        let result = soon(run_test(&spec, &context(&server.url(), access))).await;
        assert_eq!(result.status, status, "{}", result.context);
        let leak = &result.context["leak"];
        assert_eq!(leak["verdict"], "none");
        let group = &leak["control_group"];
        if last.is_none() {
            assert!(group.is_null() && result.issue.is_none(), "{group}");
            continue;
        }
        assert_eq!(
            (
                group["verdict"].as_str(),
                leak["blocks"][5]["control_group_mb"].as_f64()
            ),
            (Some("leak"), Some(415.0))
        );
        let issue = result.issue.unwrap();
        assert!(
            issue.starts_with("the control group leaks 150.00 MB for 1,000"),
            "{issue}"
        );
        assert_eq!(result.anomaly_type.as_str(), "memory_growth");
    }
}

#[cfg(target_os = "linux")]
mod real {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use evenkeel_stress::world::BoxFuture;
    use evenkeel_stress::{
        Cancel, MemoryReading, PoolError, PoolLoad, PoolReport, ServiceMemory, TargetAccess,
        TestContext,
    };

    use super::*;

    /// Keeps 100 KB for each request to `/leak`, and for the first 100 to `/warm`.
    const PROGRAM: &str = r#"
import http.server
kept, warm = [], []
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/leak":
            kept.append(b"x" * 100_000)
        elif self.path == "/warm" and len(warm) < 100:
            warm.append(b"x" * 100_000)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

    struct Program(Child);

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Reads the resident memory of a process.
    struct Resident(u32);

    impl TargetAccess for Resident {
        fn memory_bytes(&self) -> BoxFuture<'_, Result<MemoryReading, MemoryError>> {
            Box::pin(async {
                let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))
                    .map_err(|e| MemoryError::Unreadable(e.to_string()))?;
                let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
                let kb = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
                let bytes = kb.unwrap() * 1024;
                let service = ServiceMemory {
                    pid: self.0,
                    started: 1,
                    bytes,
                    group_bytes: None,
                };
                Ok(MemoryReading {
                    total_bytes: bytes,
                    by_service: [("program".to_owned(), service)].into(),
                })
            })
        }

        fn pooled_queries(
            &self,
            _: PoolLoad,
        ) -> BoxFuture<'_, Option<Result<PoolReport, PoolError>>> {
            Box::pin(async { None })
        }
    }

    #[tokio::test]
    async fn a_real_process_that_leaks_is_measured() {
        let Ok(child) = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: python3 is not installed");
            return;
        };
        let mut program = Program(child);
        let mut port = String::new();
        let out = program.0.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut port).unwrap();
        let ctx = TestContext {
            base_url: format!("http://127.0.0.1:{}", port.trim()),
            access: Arc::new(Resident(program.0.id())),
            cancel: Cancel::new(),
            now: context("http://h", FakeAccess::default()).now,
        };
        let test = |path: &str| TestSpec {
            endpoints: vec![RequestSpec::get(path)],
            requests: Some(400),
            concurrency: Some(2),
            blocks: Some(10),
            growth_limit_mb: Some(500.0),
            leak_limit_mb_per_1000: Some(20.0),
            ..TestSpec::new("Leak", TestKind::Memory)
        };
        let warming = soon(run_test(&test("/warm"), &ctx)).await;
        assert!(warming.passed, "{:?} {}", warming.issue, warming.context);
        assert_eq!(
            warming.context["leak"]["verdict"], "warm_up",
            "{}",
            warming.context
        );
        let leaking = soon(run_test(&test("/leak"), &ctx)).await;
        assert_eq!(leaking.status, TestStatus::Failed, "{}", leaking.context);
        // 100,000 bytes a request are 95.4 MB for 1,000.
        let leak = &leaking.context["leak"];
        assert_eq!(leak["verdict"], "leak", "{leak}");
        let slope = leak["mb_per_1000_requests"].as_f64().unwrap();
        assert!((90.0..105.0).contains(&slope), "{leak}");
    }
}
