//! Guidance files: kept apart, complete, private, and read back whatever else lies there.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::path::Path;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Anomaly, AnomalyType, Severity, Timestamp};
use evenkeel_edge::guidance::{Guidance, GuidanceError, GuidanceStore, LIST_MAX, Outcome};
use serde_json::{Value, json};

fn guidance(kind: &'static str, at: &str) -> Guidance {
    let at = Timestamp::parse(at).unwrap();
    Guidance {
        timestamp: at,
        advisor: "amp".into(),
        anomaly: Anomaly {
            kind: AnomalyType::known(kind),
            severity: Severity::High,
            current: 0.12,
            threshold: 0.05,
            details: "Error rate 12% with key s3cret-value".into(),
            unit: "ratio".into(),
            baseline: None,
            test: None,
            series: None,
            service: None,
            since: at,
            score: None,
            context: Value::Null,
        },
        amp_response: json!({ "suggested_action": "increase_db_pool_size", "confidence": 0.85,
            "reasoning": "uses s3cret-value", "recommended_config": { "pool_size": 20 } }),
        outcome: Outcome::Pending,
        learned: false,
    }
}

fn store(dir: &Path) -> GuidanceStore {
    GuidanceStore::new(dir, Redactor::new(["s3cret-value".to_owned()]))
}

/// SAFETY 22
#[test]
fn it_is_written_as_specified_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("training/amp_guidance");
    let store = store(&dir);
    let g = guidance("error_rate_spike", "2025-11-09T19:06:00Z");
    let first = store.write(&g).unwrap();
    let second = store.write(&g).unwrap();
    assert_eq!(first, dir.join("error_rate_spike_20251109_190600.json"));
    assert_eq!(second, dir.join("error_rate_spike_20251109_190600-2.json"));

    store
        .update_outcome(&first, Outcome::Success, true)
        .unwrap();
    let text = fs::read_to_string(&first).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["anomaly"]["type"], "error_rate_spike");
    assert_eq!(
        json["amp_response"]["suggested_action"],
        "increase_db_pool_size"
    );
    assert_eq!(
        (&json["outcome"], &json["learned"]),
        (&json!("success"), &json!(true))
    );
    let other: Value = serde_json::from_str(&fs::read_to_string(&second).unwrap()).unwrap();
    assert_eq!(other["outcome"], "pending");

    #[cfg(unix)]
    for path in [&first, &second] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[test]
fn a_broken_file_is_reported_and_the_others_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for (kind, at) in [
        ("latency_spike", "2025-11-09T19:06:00Z"),
        ("error_rate_spike", "2025-11-09T19:07:00Z"),
        ("memory_growth", "2025-11-08T19:07:00Z"),
        ("latency_spike", "2025-11-09T19:06:00Z"),
    ] {
        store.write(&guidance(kind, at)).unwrap();
    }
    fs::write(
        dir.path().join("torn_20251109_190000.json"),
        "{\"anomaly\":",
    )
    .unwrap();
    fs::write(
        dir.path().join("huge_20251109_190000.json"),
        vec![b' '; 300 * 1024],
    )
    .unwrap();
    fs::create_dir(dir.path().join("dir_20251109_190000.json")).unwrap();
    fs::write(dir.path().join("notes.txt"), "not guidance").unwrap();
    let list = store.list().unwrap();
    let names: Vec<String> = list
        .files
        .iter()
        .map(|(p, _)| p.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "memory_growth_20251108_190700",
            "latency_spike_20251109_190600",
            "latency_spike_20251109_190600-2",
            "error_rate_spike_20251109_190700",
        ]
    );
    assert_eq!(list.broken.len(), 3, "{:?}", list.broken);
    assert_eq!(list.left_out, 0);
}

#[test]
fn reading_back_is_bounded_to_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for i in 0..LIST_MAX + 3 {
        fs::write(dir.path().join(format!("x_20251109_{i:06}.json")), "{}").unwrap();
    }
    let newest = store
        .write(&guidance("latency_spike", "2026-01-01T00:00:00Z"))
        .unwrap();
    let list = store.list().unwrap();
    assert_eq!(list.left_out, 4);
    assert_eq!(list.files.last().unwrap().0, newest);
    assert_eq!(list.files.len() + list.broken.len(), LIST_MAX);
}

#[test]
fn what_is_written_can_be_read_back_however_much_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut g = guidance("latency_spike", "2025-11-09T19:06:00Z");
    g.anomaly.context = json!({ "lines": "x".repeat(400 * 1024) });
    store.write(&g).unwrap();
    let list = store.list().unwrap();
    assert_eq!((list.files.len(), list.broken.len()), (1, 0));
    g.amp_response = json!("x".repeat(400 * 1024));
    assert!(matches!(store.write(&g), Err(GuidanceError::Broken { .. })));
}

#[test]
fn only_its_own_files_are_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("g"), dir.path().join("other.json"));
    let store = store(&inside);
    assert!(store.list().unwrap().files.is_empty(), "no directory yet");
    let written = store
        .write(&guidance("latency_spike", "2025-11-09T19:06:00Z"))
        .unwrap();
    fs::copy(&written, &outside).unwrap();
    for path in [
        &outside,
        &inside.join("../other.json"),
        &inside.join("x.txt"),
    ] {
        let e = store
            .update_outcome(path, Outcome::Failed, false)
            .unwrap_err();
        assert!(matches!(e, GuidanceError::Elsewhere { .. }), "{e}");
    }
    #[cfg(unix)]
    {
        let link = inside.join("link_20251109_190600.json");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        let e = store
            .update_outcome(&link, Outcome::Failed, false)
            .unwrap_err();
        assert!(matches!(e, GuidanceError::Broken { .. }), "{e}");
    }
    let missing = inside.join("gone_20251109_190600.json");
    assert!(
        store
            .update_outcome(&missing, Outcome::Failed, false)
            .is_err()
    );
    assert_eq!(fs::read(&outside).unwrap(), fs::read(&written).unwrap());
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let e = store(&blocked.join("guidance"))
        .write(&guidance("latency_spike", "2025-11-09T19:06:00Z"))
        .unwrap_err();
    assert!(e.to_string().contains("guidance"), "{e}");
}
