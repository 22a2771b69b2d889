//! The figures of services that run, that crashed and that were started again.

use evenkeel_core::Timestamp;
use evenkeel_edge::collect::{Collected, ResourceCollector};

use crate::supervise_world::{World, free_port};

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

fn value(collected: &Collected, series: &str) -> Option<f64> {
    let found = collected.readings.iter().find(|r| &*r.series == series);
    assert!(found.is_none_or(|r| r.service.as_deref() == Some("web")));
    found.map(|r| r.value)
}

/// SAFETY 11
#[tokio::test]
async fn a_service_has_figures_while_it_runs_and_none_while_it_does_not() {
    let world = World::new();
    let supervisor = world.supervise(vec![world.web("web", free_port())]);
    let mut collector = ResourceCollector::default();
    let idle = collector.collect(&supervisor, at(0));
    assert!(idle.readings.is_empty());
    assert_eq!(idle.missing[0].reason, "no process of it runs");

    supervisor.start("web").await.unwrap();
    let first = collector.collect(&supervisor, at(1));
    assert!(value(&first, "process/web/rss_bytes").unwrap() > f64::from(1 << 20));
    assert_eq!(value(&first, "process/web/restarts"), Some(0.0));
    if cfg!(target_os = "linux") {
        assert!(value(&first, "process/web/pss_bytes").unwrap() > f64::from(1 << 19));
        assert!(value(&first, "process/web/open_files").unwrap() >= 3.0);
        assert!(value(&first, "process/web/threads").unwrap() >= 1.0);
        // Evenkeel started it, so they are in one group.
        let group = first.missing.iter().find(|m| &*m.series == "cgroup/web/*");
        assert!(group.is_some(), "{first:?}");
    }

    supervisor.restart("web", None).await.unwrap();
    let second = collector.collect(&supervisor, at(2));
    assert_eq!(value(&second, "process/web/restarts"), Some(1.0));
    assert_eq!(
        value(&second, "process/web/cpu_cores"),
        None,
        "of another process"
    );
    let third = collector.collect(&supervisor, at(3));
    assert!(value(&third, "process/web/cpu_cores").is_some());

    supervisor.stop("web", None).await.unwrap();
    let stopped = collector.collect(&supervisor, at(4));
    assert!(stopped.readings.is_empty(), "{stopped:?}");
}
