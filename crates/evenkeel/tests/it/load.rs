//! `evenkeel load`: what it counts is what the server saw, its verdict is its exit code, and it hits nobody by accident.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Finished, HttpServer, LONG, Running, SHORT, Stage, free_port, until};

fn url(server: &HttpServer, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", server.port)
}

fn paths(server: &HttpServer, path: &str) -> usize {
    let line = format!(" {path} HTTP/1.1");
    let requests = server.requests();
    let first = requests.iter().filter_map(|r| r.head.lines().next());
    first.filter(|l| l.ends_with(&line)).count()
}

/// The only document on standard output.
#[track_caller]
fn report(end: &Finished) -> Value {
    serde_json::from_str(&end.stdout).unwrap_or_else(|e| panic!("{e}: {end:?}"))
}

/// A run of an open loop on a machine that let it run: one that froze the generator is found invalid by itself, and is
/// made again.
fn undisturbed(mut run: impl FnMut() -> Finished) -> Finished {
    for _ in 0..9 {
        let end = run();
        if end.code() != Some(3) || !end.stdout.contains("the generator was the bottleneck") {
            return end.expect(0);
        }
    }
    run().expect(0)
}

#[test]
fn what_is_counted_is_what_the_server_saw() {
    let stage = Stage::new();
    let server = HttpServer::start(|r| if r.head.contains(" /bad ") { 503 } else { 200 });
    let good = url(&server, "/good");
    let end = stage
        .run(&["load", &good, "-n", "300", "-c", "8"])
        .expect(0);
    end.says("300, of which all answered")
        .says("8 connections, each asking again when answered, for 300 requests")
        .says("errors      none")
        .says("200: 300")
        .says("the run was made to its end");
    assert_eq!(server.requests().len(), 300);
    assert!(!end.stdout.contains('\u{1b}'), "{}", end.stdout);

    let bad = url(&server, "/bad");
    let line = [
        "load", &bad, "-n", "60", "-c", "3", "--json", "--save", "run.json",
    ];
    let end = stage.run(&line).expect(0);
    let report = report(&end);
    assert_eq!(paths(&server, "/bad"), 60);
    assert_eq!(report["version"], 1);
    assert_eq!(report["answered"], 60);
    assert_eq!(report["errors"]["status_503"], 60);
    assert_eq!(report["statuses"]["503"], 60);
    assert_eq!(report["run"]["url"], bad.as_str());
    assert_eq!(report["run"]["load"]["requests"], 60);
    let counts = report["latency_histogram"]["us"].as_array().unwrap().iter();
    let all: u64 = counts.map(|pair| pair[1].as_u64().unwrap()).sum();
    assert_eq!(all, 60);
    let saved: Value = serde_json::from_str(&stage.read("run.json")).unwrap();
    assert_eq!(saved, report);
    // Neither a configuration nor a data directory is needed, and none is made.
    assert!(!stage.data().exists());
}

#[test]
fn an_open_loop_keeps_its_rate_and_tells_both_latencies() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let at = url(&server, "/");
    let line = [
        "load",
        &at,
        "--rate",
        "100",
        "-d",
        "1s",
        "--series",
        "series.csv",
        "--csv",
        "run.csv",
    ];
    let mut seen = 0;
    let end = undisturbed(|| {
        let before = server.requests().len();
        let end = stage.run(&line);
        seen = server.requests().len() - before;
        end
    });
    end.says("100 requests/s, for 1 s")
        .says("felt")
        .says("service time")
        .says("sent late by this host")
        .says("100 planned");
    assert_eq!(seen, 100);
    let mut rows = csv::Reader::from_path(stage.path().join("series.csv")).unwrap();
    let requests: u64 = rows
        .records()
        .map(|r| r.unwrap()[2].parse::<u64>().unwrap())
        .sum();
    assert_eq!(requests, 100);
    assert!(stage.read("run.csv").contains(",100,0,"));

    let ramp = [
        "load",
        &at,
        "--rate",
        "0..200",
        "-d",
        "1s",
        "--json",
        "--arrivals",
        "poisson",
    ];
    let end = undisturbed(|| {
        let before = server.requests().len();
        let end = stage.run(&ramp);
        seen = server.requests().len() - before;
        end
    });
    let report = report(&end);
    assert_eq!(report["run"]["load"]["ramp_ms"], 1000);
    assert_eq!(report["run"]["load"]["arrivals"], "poisson");
    assert_eq!(report["planned"], seen);
    assert!((50..150).contains(&seen), "{seen}");
}

#[test]
fn thresholds_set_the_exit_code() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let at = url(&server, "/");
    let run = |limits: &[&str]| {
        let mut line = vec!["load", &at, "-n", "50", "-c", "2"];
        line.extend(limits.iter().flat_map(|l| ["--threshold", l]));
        stage.run(&line)
    };
    let kept = run(&["p99.9 < 1h", "errors < 1%", "throughput > 0.001/s"]).expect(0);
    kept.says("kept    errors < 1%")
        .says("every threshold was kept");
    let missed = run(&["errors < 1%", "max < 1us"]).expect(1);
    missed
        .says("MISSED  max < 1us")
        .says("1 of 2 thresholds missed");
    let wrong = run(&["p95 < 300"]).expect(2);
    wrong.complains("p95 < 300ms");
    assert_eq!(server.requests().len(), 100, "the last one was not run");
}

#[test]
fn assertions_are_errors() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 302);
    let at = url(&server, "/");
    let run = |more: &[&str]| {
        let mut line = vec!["load", &at, "-n", "20", "-c", "2", "--json"];
        line.extend_from_slice(more);
        report(&stage.run(&line).expect(0))["errors"].clone()
    };
    assert_eq!(run(&[])["status_302"], 20, "a redirect is not followed");
    assert_eq!(run(&["--expect-status", "3xx"]), serde_json::json!({}));
    let held = ["--expect-status", "302", "--expect-contains", "ok"];
    assert_eq!(run(&held), serde_json::json!({}));
    let other = ["--expect-status", "302", "--expect-contains", "ko"];
    assert_eq!(run(&other)["assertion"], 20);
    let json = ["--expect-status", "302", "--expect-json", "/a=1"];
    assert_eq!(run(&json)["assertion"], 20);
    assert_eq!(server.requests().len(), 100);
}

#[test]
fn what_is_not_answered_is_told_with_its_remedy() {
    let stage = Stage::new();
    let at = format!("http://127.0.0.1:{}/", free_port());
    let end = stage.run(&["load", &at, "-n", "20", "-c", "2"]).expect(3);
    end.says("refused")
        .says("is the target running")
        .says("did not answer a single request");
    let json = stage.run(&["load", &at, "-n", "20", "--json"]).expect(3);
    assert_eq!(report(&json)["passed"], false);
    json.complains("did not answer a single request");
}

#[test]
fn too_many_errors_end_the_run() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 500);
    let at = url(&server, "/");
    let begun = Instant::now();
    let end = stage
        .run(&["load", &at, "-d", "10m", "-c", "2", "--json"])
        .expect(1);
    assert!(begun.elapsed() < LONG);
    let report = report(&end);
    assert!(report["too_many_errors"].as_f64().unwrap() > 0.5);
    assert_eq!(report["passed"], false);
    end.complains("ended early");
}

#[test]
fn nobody_is_hit_by_accident() {
    let stage = Stage::new();
    // Addresses for documentation: nobody has them.
    for foreign in ["http://192.0.2.1/", "http://[2001:db8::1]:8080/"] {
        let begun = Instant::now();
        let end = stage.run(&["load", foreign, "-n", "1"]).expect(2);
        end.complains("--yes-really");
        assert!(end.stdout.is_empty() && begun.elapsed() < SHORT);
    }
    let server = HttpServer::start(|_| 200);
    let at = url(&server, "/");
    for line in [
        &["-c", "10001"][..],
        &["--rate", "50001"],
        &["-n", "100000001"],
        &["-d", "25h"],
    ] {
        let line = [&["load", &at], line].concat();
        stage.run(&line).expect(2).complains("--yes-really");
    }
    let secret = format!("http://me:hunter22@127.0.0.1:{}/", server.port);
    let end = stage.run(&["load", &secret]).expect(2);
    end.complains("credentials");
    assert!(!end.stderr.contains("hunter22"), "{}", end.stderr);
    // The configured target is allowed: here it only fails to answer.
    stage.write(
        "evenkeel.toml",
        "[target]\nbase_url = \"http://192.0.2.1:9\"\n",
    );
    let allowed = [
        "load",
        "http://192.0.2.1:9/",
        "-n",
        "1",
        "-c",
        "1",
        "--connect-timeout",
        "50ms",
    ];
    stage.run(&allowed).expect(3).says("did not answer");
    stage
        .run(&["load", "http://192.0.2.1:8/", "-n", "1"])
        .expect(2)
        .complains("--yes-really");
    assert!(server.requests().is_empty());
}

#[test]
fn several_requests_reach_the_server_by_their_weights() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    stage.write(
        "requests.yaml",
        "- /a\n- path: /b/${id}\n  weight: 3\n  method: PUT\n  body: {name: \"${name}\"}\n",
    );
    stage.write("rows.csv", "id,name\n1,one\n2,\"tw\"\"o\"\n");
    let at = url(&server, "/base");
    let line = [
        "load",
        &at,
        "--requests-file",
        "requests.yaml",
        "--data",
        "rows.csv",
        "-n",
        "400",
        "-c",
        "4",
        "--json",
        "-H",
        "X-All: yes",
    ];
    let end = stage.run(&line).expect(0);
    assert_eq!(paths(&server, "/base/a"), 100);
    let b = paths(&server, "/base/b/1") + paths(&server, "/base/b/2");
    assert_eq!(b, 300);
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.head.contains("yes")));
    let mut bodies: Vec<&str> = requests
        .iter()
        .map(|r| r.body.as_str())
        .filter(|b| !b.is_empty())
        .collect();
    assert_eq!(bodies.len(), 300);
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies, [r#"{"name":"one"}"#, r#"{"name":"tw\"o"}"#]);
    let report = report(&end);
    let names = report["per_request"].as_array().unwrap().iter();
    let counts: Vec<(&str, u64)> = names
        .map(|r| (r["name"].as_str().unwrap(), r["requests"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts, [("GET /a", 100), ("PUT /b/${id}", 300)]);

    stage.write("wrong.yaml", "- path: /a\n  weigth: 3\n");
    let wrong = ["load", &at, "--requests-file", "wrong.yaml"];
    stage.run(&wrong).expect(2).complains("weigth");
}

fn under_load(stage: &Stage, server: &HttpServer, more: &[&str]) -> Running {
    let at = url(server, "/");
    let seen = server.requests().len();
    let mut running = stage.start(&[&["load", &at], more].concat());
    until("requests", SHORT, || {
        assert!(!running.has_ended(), "{}", running.said());
        (server.requests().len() > seen + 20).then_some(())
    });
    running
}

#[test]
fn ctrl_c_ends_the_run_with_the_summary_so_far() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    for which in [Signal::INT, Signal::TERM] {
        let running = under_load(&stage, &server, &["-d", "10m", "-c", "2"]);
        running.signal(which);
        let end = running.finish(SHORT).expect(0);
        end.says("ended by a signal").says("p99");
        end.complains("ending the run");
    }
    // What was not measured to its end has not shown that it keeps its thresholds.
    let more = ["-d", "10m", "-c", "2", "--json", "--threshold", "p50 < 1h"];
    let running = under_load(&stage, &server, &more);
    running.signal(Signal::INT);
    let end = running.finish(SHORT).expect(1);
    let report = report(&end);
    assert_eq!(report["cancelled"], true);
    assert!(report["requests"].as_u64().unwrap() > 0);
}

/// A generator that did not get to run says so, and its figures are not taken for the target's.
#[test]
fn a_run_that_this_host_held_up_is_invalid() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let more = ["--rate", "200", "-d", "1s", "--threshold", "errors < 1%"];
    let running = under_load(&stage, &server, &more);
    running.signal(Signal::STOP);
    let stopped = Instant::now();
    // How long the fault lasts; nothing is waited for.
    until("the planned time to be over", SHORT, || {
        (stopped.elapsed() > Duration::from_millis(1200)).then_some(())
    });
    running.signal(Signal::CONT);
    let end = running.finish(LONG).expect(3);
    end.says("kept    errors < 1%").says("did not get to run");
    assert!(end.verdict().starts_with("invalid: "), "{}", end.stdout);
}

/// A generator that caught up in time is told of beside the figures that it spoiled.
#[test]
fn a_run_that_this_host_disturbed_says_so() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let end = undisturbed(|| {
        let running = under_load(&stage, &server, &["--rate", "200", "-d", "3s"]);
        running.signal(Signal::STOP);
        let stopped = Instant::now();
        until("half a second", SHORT, || {
            (stopped.elapsed() > Duration::from_millis(500)).then_some(())
        });
        running.signal(Signal::CONT);
        running.finish(LONG)
    });
    end.says("much of the felt latency is this host's own");
    end.complains(" s of 3 s: ").complains("no errors");
    // Half a second in three: 100 of the 600 were due in it, and none was left out.
    end.says("600, of which all answered");
}

/// Answers 401 with everything that it was sent.
fn parrot() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || repeat(stream));
        }
    });
    port
}

fn repeat(mut stream: TcpStream) {
    let mut got = vec![0; 64 * 1024];
    // The requests of this test fit into one piece.
    while let Ok(n) = stream.read(&mut got) {
        if n == 0 {
            return;
        }
        let said = String::from_utf8_lossy(&got[..n]).replace(['\r', '\n', '"', '\\'], " ");
        let body = format!("{{\"error\": \"{said}\"}}");
        let answer = format!(
            "HTTP/1.1 401 No\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// SAFETY 22
#[test]
fn secrets_stay_out_even_when_the_target_repeats_them() {
    let stage = Stage::new();
    let at = format!("http://127.0.0.1:{}/x?token=hunter-query", parrot());
    stage.write("rows.csv", "name\nhunter-row\n");
    let line = [
        "load",
        &at,
        "-n",
        "20",
        "-c",
        "2",
        "-H",
        "X-Key: hunter-key",
        "--body",
        "{\"p\": \"hunter-body\", \"n\": \"${name}\"}",
        "--data",
        "rows.csv",
        "--save",
        "run.json",
        "--csv",
        "run.csv",
    ];
    let plain = stage.run(&line).expect(0);
    plain.says("such as: ").says("[redacted]");
    let json = stage.run(&[&line[..], &["--json"]].concat()).expect(0);
    for text in [
        &plain.stdout,
        &plain.stderr,
        &json.stdout,
        &json.stderr,
        &stage.read("run.json"),
        &stage.read("run.csv"),
    ] {
        assert!(!text.contains("hunter"), "{text}");
    }
    assert_eq!(report(&json)["errors"]["status_401"], 20);
}

#[test]
fn more_connections_than_files_raise_the_limit_or_are_refused() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let run = |limit: &str| {
        let program = env!("CARGO_BIN_EXE_evenkeel");
        let line = format!(
            "{limit} && exec '{program}' load {} -c 100 -n 300",
            url(&server, "/")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        command.current_dir(stage.path()).stdin(Stdio::null());
        Running::spawn(&mut command).finish(LONG)
    };
    run("ulimit -S -n 40")
        .expect(0)
        .says("300, of which all answered");
    let refused = run("ulimit -n 100").expect(3);
    refused
        .complains("hard limit")
        .complains("at most 36 connections");
    assert_eq!(server.requests().len(), 300);
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_the_run() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let at = url(&server, "/");
    for option in ["--save", "--csv", "--series"] {
        let end = stage.run(&["load", &at, "-n", "5", option, "nowhere/file"]);
        end.expect(3).complains("nowhere/file cannot be written");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_run_is_a_page_and_is_held_against_an_older_one() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| 200);
    let url = url(&server, "/");
    let run = ["load", &url, "-n", "50", "-c", "2", "--html", "run.html"];
    stage
        .run(&[&run[..], &["--save", "old.json"]].concat())
        .expect(0);
    let page = stage.read("run.html");
    assert!(
        page.starts_with("<!doctype html>") && page.contains("<svg"),
        "{page}"
    );
    let elsewhere = |link: &&str| page.contains(link);
    assert!(![" src=", "@import", "<link"].iter().any(elsewhere));

    let against = [&run[..], &["--compare", "old.json"]].concat();
    // Less than a second of each says nothing, and that is said.
    stage
        .run(&against)
        .expect(0)
        .says("new run against old: unclear");
    assert!(stage.read("run.html").contains("unclear"));
    let end = stage
        .run(&[&against[..], &["--json", "--fail-if-worse"]].concat())
        .expect(0);
    assert_eq!(report(&end)["comparison"]["finding"], "unclear");

    stage.write("other.json", "{\"version\": 1}");
    for wrong in ["other.json", "missing.json"] {
        let end = stage.run(&[&run[..], &["--compare", wrong]].concat());
        let end = end.expect(2);
        assert!(end.stderr.contains(wrong), "{end:?}");
        assert!(end.stderr.contains("--save FILE"), "{end:?}");
    }
    stage.run(&["load", &url, "--fail-if-worse"]).expect(2);
}
