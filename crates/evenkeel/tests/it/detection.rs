//! Series: scored in files, followed live, learned over restarts, and recorded telemetry that is run through again.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{LONG, SHORT, Stage, free_port, rows, until};

fn csv(rows: impl Iterator<Item = (i64, String)>) -> String {
    let lines: Vec<String> = rows
        .map(|(i, value)| {
            let (day, hour, minute) = (1 + i / 288, i / 12 % 24, i % 12 * 5);
            format!("2026-01-{day:02} {hour:02}:{minute:02}:00,{value}\n")
        })
        .collect();
    format!("timestamp,value\n{}", lines.concat())
}

/// Five minutes apart: a wave with a ripple, and one leap.
fn wave(leap_at: i64) -> String {
    csv((0..3000).map(|i| {
        let ripple = (i * 7919 % 101) as f64 / 10.0;
        let leap = if i == leap_at { 400.0 } else { 0.0 };
        let day = (i % 288) as f64 / 288.0 * std::f64::consts::TAU;
        (
            i,
            format!("{:.3}", 100.0 + 20.0 * day.sin() + ripple + leap),
        )
    }))
}

#[test]
fn files_are_scored_with_a_row_for_every_row() {
    let stage = Stage::new();
    stage.write("in/a/one.csv", &wave(2500));
    let odd = "timestamp,value,label\n2026-01-01T00:00:00Z,\"1,234.5\",0\n2026-01-01T00:05:00Z,n/a,0\n1767226200,7,1\n";
    stage.write("in/odd.csv", odd);
    let done = stage
        .run(&["detect", "--data", "in", "--out", "out", "--json"])
        .expect(0);
    let said: Value = serde_json::from_str(done.verdict()).unwrap();
    assert_eq!(said["rows"], 3003);
    assert_eq!(said["files"][0]["file"], "a/one.csv");
    assert_eq!(said["files"][0]["highest_at"], "2026-01-09 16:20:00");
    assert_eq!(said["files"][1]["not_a_number"], 1);
    let result = stage.read("out/a/one.csv");
    let lines: Vec<&str> = result.lines().collect();
    assert_eq!(lines.len(), 3001);
    assert_eq!(lines[0], "timestamp,value,anomaly_score");
    assert!(lines[1].starts_with("2026-01-01 00:00:00,"), "{}", lines[1]);
    for line in &lines[1..] {
        let score: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        assert!((0.0..=1.0).contains(&score), "{line}");
    }
    // Nothing is known beforehand: what comes later does not change what was said before.
    stage.write("in2/one.csv", &wave(2800));
    stage
        .run(&["detect", "--data", "in2", "--out", "out2"])
        .expect(0)
        .says("1 series, 3000 points");
    let other = stage.read("out2/one.csv");
    for (n, (a, b)) in result.lines().zip(other.lines()).take(2501).enumerate() {
        assert_eq!(a, b, "row {n}");
    }
}

#[test]
fn what_cannot_be_scored_is_said_with_its_place() {
    let stage = Stage::new();
    stage.write("in/bad.csv", "timestamp,value\nsoon,1\n");
    stage
        .run(&["detect", "--data", "in", "--out", "out"])
        .expect(2)
        .complains("bad.csv: line 2: `soon` is no time");
    stage
        .run(&["detect", "--data", "in", "--out", "in"])
        .expect(2)
        .complains("would overwrite");
    std::fs::create_dir(stage.path().join("none")).unwrap();
    stage
        .run(&["detect", "--data", "none", "--out", "out"])
        .expect(2)
        .complains("there is no CSV file in none");
    stage
        .run(&["detect", "--data", "nowhere", "--out", "out"])
        .expect(2)
        .complains("nowhere");
}

fn probe(second: i64, ok: bool) -> String {
    let at = format!("2026-01-01T00:{:02}:{:02}.000Z", second / 60, second % 60);
    let mut value = json!({
        "kind": "probe", "service": "web", "endpoint": "GET /", "ok": ok, "latency_ms": 3.0,
    });
    if !ok {
        value["error"] = json!("refused");
    }
    json!({"at": at, "series": "probe/web", "value": value}).to_string()
}

#[test]
fn recorded_telemetry_says_what_would_have_been_done_and_does_nothing() {
    let stage = Stage::new();
    stage.write(
        "evenkeel.toml",
        "[target]\nbase_url = \"http://127.0.0.1:9\"\n[[target.services]]\nname = \"web\"\ncommand = [\"false\"]\n[watchdog]\ninterval_ms = 1000\n",
    );
    let record: Vec<String> = (0..120)
        .map(|second| probe(second, !(60..90).contains(&second)))
        .collect();
    stage.write("telemetry.jsonl", &record.join("\n"));
    let done = stage.run(&["replay", "telemetry.jsonl"]).expect(0);
    done.says("target_down")
        .says("restart_down_service would be chosen (mode shadow)")
        .says("over      target_down/liveness/web")
        .says("raised: target_down 1; playbooks: restart_down_service 1");
    assert!(!stage.data().exists(), "nothing is written");
    let lines = stage
        .run(&["replay", "telemetry.jsonl", "--json"])
        .expect(0);
    let last: Value = serde_json::from_str(lines.verdict()).unwrap();
    assert_eq!(last["samples"], 120);
    stage.write("telemetry.jsonl", "{\"at\": 1}\n");
    stage
        .run(&["replay", "telemetry.jsonl"])
        .expect(2)
        .complains("telemetry.jsonl line 1");
}

/// A day of three series, ten seconds apart; then two of them have three times their level.
#[test]
fn a_day_of_recorded_series_is_quiet_and_a_shift_is_one_finding() {
    const DAY: u64 = 8640;
    let stage = Stage::new();
    stage.write(
        "evenkeel.toml",
        "[target]\nbase_url = \"http://127.0.0.1:9\"\n[watchdog]\ninterval_ms = 10000\n[watchdog.series]\nnotify_alarms_per_month = 0.5\nheal_alarms_per_month = 0.1\n",
    );
    // SplitMix64 (Steele, Lea and Flood 2014); twelve uniforms are about normal.
    let mut seed = 11_u64;
    let mut uniform = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut lines = Vec::new();
    for i in 0..DAY + 60 {
        let (hour, minute, second) = (i / 360, i / 6 % 60, i % 6 * 10);
        let at = format!(
            "2026-01-{:02}T{:02}:{minute:02}:{second:02}.000Z",
            1 + hour / 24,
            hour % 24
        );
        for (series, measure, level) in [
            ("app/queue_depth", "gauge", 50.0),
            ("app/wait", "latency", 20.0),
            ("app/requests", "rate", 100.0),
        ] {
            let noise: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            let shifted = i >= DAY && measure != "rate";
            let value = level * (1.0 + 0.06 * noise) * if shifted { 3.0 } else { 1.0 };
            let value =
                json!({"kind": "value", "service": "app", "measure": measure, "value": value});
            lines.push(json!({"at": at, "series": series, "value": value}).to_string());
        }
    }
    stage.write("day.jsonl", &lines.join("\n"));
    let done = stage.run(&["replay", "day.jsonl", "--json"]).expect(0);
    let said: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let raised: Vec<&Value> = said.iter().filter(|v| v["verdict"] == "raised").collect();
    assert_eq!(raised.len(), 1, "{raised:#?}");
    let at = raised[0]["at"].as_str().unwrap();
    assert!(
        ("2026-01-02T00:00:00"..="2026-01-02T00:01:00").contains(&at),
        "{at}"
    );
    let anomaly = &raised[0]["anomaly"];
    assert_eq!(anomaly["type"], "drift");
    let details = anomaly["details"].as_str().unwrap();
    assert!(details.contains("; usual is "), "{details}");
    assert!(anomaly["context"]["plot"].as_array().unwrap().len() > 20);
}

fn guard(stage: &Stage, port: u16) {
    stage.write("site/index.html", "hello\n");
    stage.write(
        "evenkeel.toml",
        &format!(
            r#"
[target]
name = "site"
base_url = "http://127.0.0.1:{port}"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1", "--directory", "site"]
ready = {{ http = "/" }}
start_timeout_ms = 5000

[target.endpoints]
health = "/"

[stress]
enabled = false

[watchdog]
interval_ms = 100
probe_timeout_ms = 2000
record = "telemetry.jsonl"
"#
        ),
    );
}

/// What a process uses is followed without a word of configuration, what was learned survives a restart, and a deploy
/// that is marked while nothing runs counts at the next start.
#[test]
fn series_are_followed_kept_and_told_of_deploys() {
    let stage = Stage::new();
    guard(&stage, free_port());
    let status = |key: &str| -> Option<Value> {
        let done = stage.run(&["status", "--json"]);
        let said: Value = serde_json::from_str(done.verdict()).ok()?;
        Some(said["series"][key].clone())
    };
    let evenkeel = stage.start(&["run"]);
    let names = until("followed series", LONG, || {
        let series = status("series")?;
        let names: Vec<String> = series
            .as_array()?
            .iter()
            .filter_map(|s| Some(s["series"].as_str()?.to_owned()))
            .collect();
        names
            .iter()
            .any(|n| n == "process/web/rss_bytes")
            .then_some(names)
    });
    assert!(
        names.iter().any(|n| n == "process/web/threads"),
        "{names:?}"
    );
    stage
        .run(&["mark", "deploy", "v2", "--service", "web"])
        .expect(0)
        .says("v2 is deployed in web");
    let log = stage.data().join("logs/backend.log");
    let marked = |times: usize| {
        until("the deploy in the log", SHORT, || {
            let text = std::fs::read_to_string(&log).ok()?;
            (text.matches("deploy_marked").count() == times).then_some(())
        });
    };
    marked(1);
    let ordered = rows(&stage.ledger(), "action = 'order'");
    assert!(
        ordered
            .iter()
            .any(|r| r.payload.to_string().contains("mark_deploy")),
        "the order is on record"
    );
    evenkeel.signal(Signal::TERM);
    let _ = evenkeel.finish(SHORT);
    let kept = std::fs::metadata(stage.data().join("storage/series.bin")).unwrap();
    assert!(kept.len() > 1000, "{} bytes", kept.len());
    assert!(stage.read("telemetry.jsonl").lines().count() > 10);
    stage
        .run(&["baseline", "relearn", "--why", "a new machine"])
        .expect(0)
        .says("every series is learned anew");
    let evenkeel = stage.start(&["run"]);
    until("what was learned, learned anew", LONG, || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("relearned").then_some(())
    });
    marked(1);
    evenkeel.signal(Signal::TERM);
    let _ = evenkeel.finish(SHORT);
    // What was recorded can be run through again.
    stage.run(&["replay", "telemetry.jsonl"]).expect(0);
}
