//! Steps against real processes, files, databases and sockets.
#![cfg(unix)]

use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_core::playbook::{Action, Prepared, UndoOp};
use evenkeel_edge::action::{Cancel, Canceller, Preparation};
use serde_json::json;
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::act_world::{LONG, SECRET, World, step};

#[tokio::test]
async fn a_tunable_is_set_inside_its_bounds_and_taken_back_twice() {
    let w = World::new(None);
    let old = w.config();
    let p = w
        .prepare("{set_tunable: {name: pool, to: '${params.size}'}}")
        .unwrap();
    assert_eq!(p.summary, "set database.pool_size 2 -> 20 in grace.toml");
    assert_eq!(w.config(), old, "preparing changes nothing");
    for _ in 0..2 {
        let done = w.executor.run(&p, LONG, &Cancel::never()).await;
        assert!(done.ok, "{}", done.message);
        assert!(w.config().contains("pool_size = 20 # small"));
    }
    let again = w.prepare("{set_tunable: {name: pool, to: 20}}").unwrap();
    assert!(
        again.summary.starts_with("already") && again.undo.is_empty(),
        "{}",
        again.summary
    );
    for i in 0..2 {
        let back = w.executor.undo(&p.undo).await;
        assert!(back.ok, "{:?}", back.errors);
        assert_eq!(w.config(), old);
        let calls = w.services.taken();
        assert_eq!(
            calls.len(),
            usize::from(i == 0),
            "restarted once, and only for a change: {calls:?}"
        );
    }
    for (action, expected) in [
        ("{set_tunable: {name: pool, factor: 1.4}}", "2 -> 3 in"),
        ("{set_tunable: {name: pool, factor: 100}}", "2 -> 64 in"),
        ("{set_tunable: {name: pool, factor: 0.01}}", "2 -> 1 in"),
        (
            "{set_tunable: {name: pool, factor: 2, at_least: 16}}",
            "2 -> 16 in",
        ),
        ("{set_tunable: {name: pool, at_least: 20}}", "2 -> 20 in"),
        ("{set_tunable: {name: pool, at_least: 100}}", "2 -> 64 in"),
        ("{set_tunable: {name: rate, factor: 3}}", "0.5 -> 1.5 in"),
        // What is more already is not lowered.
        (
            "{set_tunable: {name: rate, at_least: 0.25}}",
            "already limits.rate = 0.5 in",
        ),
        ("{set_tunable: {name: rate, to: 2}}", "0.5 -> 2.0 in"),
        (
            "{set_tunable: {name: mode, to: fast}}",
            "\"slow\" -> \"fast\" in",
        ),
        (
            "{set_tunable: {name: idle, to: 3}}",
            "database.idle nothing -> 3 in",
        ),
        (
            "{set_tunable: {name: idle, at_least: 4}}",
            "database.idle nothing -> 4 in",
        ),
    ] {
        let p = w.prepare(action).unwrap();
        assert!(p.summary.contains(expected), "{action}: {}", p.summary);
    }
    for (action, words) in [
        (
            "{set_tunable: {name: workers, to: 3}}",
            "[target.tunables.workers]",
        ),
        ("{set_tunable: {name: pol, to: 3}}", "did you mean `pool`?"),
        ("{set_tunable: {name: pool, to: many}}", "number"),
        (
            "{set_tunable: {name: idle, factor: 2}}",
            "nothing to multiply",
        ),
        ("{set_tunable: {name: mode, to: 3}}", "keeps its kind"),
        (
            "{set_tunable: {name: mode, at_least: 3}}",
            "a number was expected",
        ),
        (
            "{set_config: {file: other.toml, set: {a: 2}}}",
            "config_files",
        ),
        (
            "{set_config: {file: ../x.toml, set: {a: 2}}}",
            "config_files",
        ),
        ("{set_config: {file: .env, set: {A: 2}}}", "is not there"),
        (
            "{set_config: {file: grace.toml, set: {limits.password: x}}}",
            "secret",
        ),
        (
            "{set_config: {file: grace.toml, set: {limits.x: '${params.nothing}'}}}",
            "step `s`",
        ),
        ("{restart: {services: apy}}", "did you mean `api`?"),
        ("{http_request: {url: /x}}", "base_url"),
        ("{run_command: {argv: [ls], cwd: /etc}}", "leads out"),
    ] {
        let e = w.prepare(action).unwrap_err();
        assert!(e.contains(words), "{action}: {e}");
    }
}

#[tokio::test]
async fn what_somebody_else_changed_is_left_alone() {
    let w = World::new(None);
    let p = w
        .prepare("{set_config: {file: grace.toml, set: {database.pool_size: 20, limits.rate: 1.5, new.a: 1, new.b: x}}}")
        .unwrap();
    let old = w.config();
    assert!(w.executor.run(&p, LONG, &Cancel::never()).await.ok);
    let ours = w.config();
    std::fs::write(w.file(), ours.replace("rate = 1.5", "rate = 1.75")).unwrap();
    let back = w.executor.undo(&p.undo).await;
    assert!(!back.ok);
    assert!(
        back.errors.len() == 1
            && back.errors[0].contains("limits.rate")
            && back.errors[0].contains("left alone"),
        "{back:?}"
    );
    assert_eq!(
        w.config(),
        old.replace("rate = 0.5", "rate = 1.75"),
        "the others are put back"
    );
    // And a step does not write over what changed since it was prepared.
    std::fs::write(w.file(), old.replace("pool_size = 2", "pool_size = 5")).unwrap();
    let done = w.executor.run(&p, LONG, &Cancel::never()).await;
    assert!(
        !done.ok && done.message.contains("somebody else"),
        "{}",
        done.message
    );
}

#[tokio::test]
async fn an_attempt_of_several_steps_is_taken_back_in_order() {
    let w = World::new(None);
    let old = w.config();
    let mut ops: Vec<UndoOp> = Vec::new();
    for action in [
        "{stop: {services: worker}}",
        "{set_tunable: {name: pool, to: 4}}",
        "{set_config: {file: grace.toml, set: {extra.deep.a: 1}}}",
        "{set_tunable: {name: pool, factor: 2}}",
        "{set_config: {file: grace.toml, set: {extra.deep.a: 2}}}",
        "{sql: {statement: \"INSERT INTO t VALUES (9, 'nine')\", undo_statement: DELETE FROM t WHERE id = 9}}",
        "{restart: {services: [api]}}",
    ] {
        let p = w.prepare(action).unwrap();
        ops.extend(p.undo.clone());
        let done = w.executor.run(&p, LONG, &Cancel::never()).await;
        assert!(done.ok, "{action}: {}", done.message);
    }
    assert!(w.config().contains("pool_size = 8") && w.config().contains("[extra.deep]\na = 2"));
    assert_eq!(w.services.taken(), ["stop worker", "restart api 5000"]);
    let back = w.executor.undo(&ops).await;
    assert!(back.ok, "{:?}", back.errors);
    assert_eq!(w.config(), old);
    assert_eq!(w.services.taken(), ["start worker", "restart api 5000"]);
    let again = w.executor.undo(&ops).await;
    assert!(again.ok, "{:?}", again.errors);
    assert_eq!((w.config(), w.services.taken()), (old, vec![]));
    // Nothing was put back, yet a service that the steps restarted is down.
    w.services.set("api", false);
    assert!(w.executor.undo(&ops).await.ok);
    assert_eq!(w.services.taken(), ["start api"]);
}

#[tokio::test]
async fn a_restart_of_what_is_down_leaves_nothing_to_take_back() {
    let w = World::new(None);
    w.services.set("worker", false);
    let undo = w
        .prepare("{restart: {services: [api, worker]}}")
        .unwrap()
        .undo;
    let services = vec!["api".to_owned()];
    assert_eq!(undo, [UndoOp::RestartServices { services }]);
    w.services.set("api", false);
    let undo = w.prepare("{restart: {services: all}}").unwrap().undo;
    assert_eq!(undo, []);
}

#[tokio::test]
async fn words_for_services_become_names_and_conditions_skip() {
    let w = World::new(None);
    let found = json!({"look": {"services": ["nobody", "worker"]}});
    for (action, expected) in [
        ("{restart: {services: all}}", "restart api, worker"),
        ("{restart: {services: primary}}", "restart api"),
        ("{restart: {services: heaviest}}", "restart worker"),
        ("{restart: {services: affected}}", "restart worker"),
        (
            "{restart: {services: '${findings.look.services[1]}'}}",
            "restart worker",
        ),
        ("{stop: {services: [worker, all]}}", "stop worker, api"),
    ] {
        assert_eq!(w.prepare_with(action, &found).unwrap().summary, expected);
    }
    assert_eq!(
        w.prepare("{restart: {services: affected}}")
            .unwrap()
            .summary,
        "restart api"
    );
    let mut s = step("{query_logs: {}}");
    s.when = Some("'pool' in target.tunables && target.tunables.pool > 2".into());
    let skipped = w.executor.prepare(&s, &w.scope(&json!({}))).unwrap();
    assert!(matches!(skipped, Preparation::Skipped { reason } if reason.contains("pool > 2")));
    s.when = Some("findings.nothing.total > 1".into());
    assert!(
        w.executor.prepare(&s, &w.scope(&json!({}))).is_err(),
        "never skipped by mistake"
    );
    let scope = w.scope(&json!({}));
    assert_eq!(
        scope["target"],
        json!({"name": "grace", "services": ["api", "worker"],
            "tunables": {"idle": null, "mode": "slow", "pool": 2, "rate": 0.5}, "mesh": true, "database": true})
    );
}

#[tokio::test]
async fn a_step_ends_in_an_outcome_whatever_happens() {
    let w = World::new(None);
    // A panic of somebody else's code.
    let done = w.run("{signal: {services: worker, signal: HUP}}").await;
    assert!(
        !done.ok && done.message.contains("the world falls apart"),
        "{}",
        done.message
    );
    // Out of time.
    let p = w.prepare("{wait_ready: {services: api}}").unwrap();
    let done = w
        .executor
        .run(&p, Duration::from_millis(50), &Cancel::never())
        .await;
    assert!(
        !done.ok && done.message.contains("50 ms"),
        "{}",
        done.message
    );
    // Asked to stop: at once while waiting, between services while restarting.
    let stop = Canceller::default();
    let token = stop.token();
    let (done, ()) = tokio::join!(w.executor.run(&p, LONG, &token), async { stop.cancel() });
    assert!(
        !done.ok && done.message.contains("asked to"),
        "{}",
        done.message
    );
    let p = w.prepare("{restart: {services: [worker, api]}}").unwrap();
    let stop = Canceller::default();
    let token = stop.token();
    let (done, ()) = tokio::join!(w.executor.run(&p, LONG, &token), async { stop.cancel() });
    assert!(!done.ok, "{}", done.message);
    assert_eq!(
        w.services.taken(),
        ["restart worker 5000"],
        "brought to its end, and no further"
    );
    let done = w.run("{reset_event_mesh: {}}").await;
    assert!(done.ok);
}

#[tokio::test]
async fn a_command_gets_what_is_given_and_nothing_else() {
    let w = World::new(None);
    let done = w
        .run("{run_command: {argv: [/bin/sh, -c, 'pwd; env; echo $0; echo oops >&2; exit 3', 'a; b'], env: {TOKEN: '${secret.KEY}', SIZE: '${params.size}'}}}")
        .await;
    assert!(
        !done.ok && done.message.contains("oops"),
        "{}",
        done.message
    );
    assert_eq!(done.findings["exit_code"], 3);
    let out = done.findings["stdout"].as_str().unwrap();
    let root = w.dir.path().canonicalize().unwrap();
    assert!(out.starts_with(root.to_str().unwrap()), "{out}");
    assert!(
        out.contains("SIZE=20") && out.contains("a; b") && out.contains("PATH="),
        "{out}"
    );
    assert!(!out.contains("CARGO"), "the environment is scrubbed: {out}");
    // A pipe that a child keeps open does not keep the step.
    let begun = Instant::now();
    let done = w
        .run("{run_command: {shell: 'sleep 30 & echo $! ; echo done'}}")
        .await;
    assert!(
        done.ok && begun.elapsed() < Duration::from_secs(10),
        "{}",
        done.message
    );
    let left = done.findings["stdout"]
        .as_str()
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let _ = std::process::Command::new("kill").arg(left).status();
    let done = w.run("{run_command: {argv: [no-such-program-here]}}").await;
    assert!(!done.ok && done.message.contains("no-such-program-here"));
    let done = w
        .run("{run_command: {shell: 'head -c 3000000 /dev/zero | tr \"\\\\0\" x; echo end'}}")
        .await;
    let out = done.findings["stdout"].as_str().unwrap();
    assert!(out.len() <= 64 * 1024 && out.contains("bytes left out") && out.ends_with("end\n"));
}

/// SAFETY 22
#[tokio::test]
async fn secrets_reach_the_command_and_the_request_but_no_record() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/admin"))
        .and(header("authorization", format!("Bearer {SECRET}")))
        .and(body_json(json!({"key": SECRET, "size": 20})))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"echo": SECRET, "n": 1})))
        .expect(1)
        .mount(&server)
        .await;
    let w = World::new(Some(server.uri()));
    let action = "{http_request: {method: post, url: /admin, headers: {Authorization: 'Bearer ${secret.KEY}'}, body: {key: '${secret.KEY}', size: '${params.size}'}}}";
    let p = w.prepare(action).unwrap();
    let done = w.executor.run(&p, LONG, &Cancel::never()).await;
    assert!(done.ok, "{}", done.message);
    assert_eq!(done.findings["body"]["n"], 1);
    let record = format!(
        "{}{}",
        serde_json::to_string(&p).unwrap(),
        serde_json::to_string(&done).unwrap()
    );
    assert!(!record.contains(SECRET), "{record}");
    let done = w
        .run("{run_command: {shell: 'echo $TOKEN; echo another-secret; exit 1', env: {TOKEN: '${secret.KEY}'}}}")
        .await;
    let record = serde_json::to_string(&done).unwrap();
    assert!(
        !record.contains(SECRET) && !record.contains("another-secret"),
        "{record}"
    );
    assert!(record.contains("[redacted]"));
    let done = w.run("{query_logs: {}}").await;
    assert_eq!(done.findings["patterns"]["database_locked"], 3);
    for (action, words) in [
        (
            "{run_command: {argv: [echo, '${secret.KEY}']}}",
            "may only stand in",
        ),
        (
            "{run_command: {argv: [echo], env: {A: '${secret.NOBODY}'}}}",
            "`NOBODY` is not known",
        ),
        (
            "{set_config: {file: grace.toml, set: {limits.mode: '${secret.KEY}'}}}",
            "may only stand in",
        ),
    ] {
        let e = w.prepare(action).unwrap_err();
        assert!(e.contains(words), "{action}: {e}");
    }
}

/// SAFETY 18
#[tokio::test]
async fn text_from_a_log_is_never_a_program_a_statement_or_a_secrets_name() {
    let w = World::new(Some("http://127.0.0.1:9".into()));
    let evil = json!({"look": {"samples": ["${secret.KEY}"], "word": "DROP TABLE t", "path": "//evil.example/x", "url": "http://evil.example/"}});
    for action in [
        "{sql: {statement: '${findings.look.word}', undo_statement: SELECT 1}}",
        "{run_command: {shell: 'echo ${findings.look.word}'}}",
        "{run_command: {argv: ['${findings.look.word}']}}",
        "{run_command: {argv: [env], env: {A: '${findings.look.samples[0]}'}}}",
        "{http_request: {url: /x, headers: {A: '${findings.look.samples[0]}'}}}",
        "{http_request: {url: '${findings.look.url}'}}",
        "{restart: {services: '${findings.look.word}'}}",
    ] {
        assert!(w.prepare_with(action, &evil).is_err(), "{action}");
    }
    let p = w
        .prepare_with("{http_request: {url: '${findings.look.path}'}}", &evil)
        .unwrap();
    let done = w.executor.run(&p, LONG, &Cancel::never()).await;
    assert!(
        done.message.contains("http://127.0.0.1:9/evil.example/x"),
        "{}",
        done.message
    );
    let p = w
        .prepare_with(
            "{sql: {statement: 'SELECT ?1 AS x', params: ['${findings.look.word}']}}",
            &evil,
        )
        .unwrap();
    let done = w.executor.run(&p, LONG, &Cancel::never()).await;
    assert_eq!(done.findings["rows"][0]["x"], "DROP TABLE t");
}

#[tokio::test]
async fn a_command_does_not_outlive_its_time_nor_do_its_children() {
    let w = World::new(None);
    let pids = w.dir.path().join("pids");
    let line = format!(
        "echo $$ > {0}; sleep 300 & echo $! >> {0}; wait",
        pids.display()
    );
    let p = w
        .prepare(&format!("{{run_command: {{shell: '{line}'}}}}"))
        .unwrap();
    let stop = Canceller::default();
    for cancelled in [false, true] {
        let _ = std::fs::remove_file(&pids);
        let token = stop.token();
        let limit = if cancelled {
            LONG
        } else {
            Duration::from_millis(1500)
        };
        let (done, ()) = tokio::join!(w.executor.run(&p, limit, &token), async {
            until(|| read_pids(&pids).len() == 2).await;
            if cancelled {
                stop.cancel();
            }
        });
        assert!(!done.ok, "{}", done.message);
        let started = read_pids(&pids);
        assert_eq!(started.len(), 2);
        until(|| started.iter().all(|p| !runs(p))).await;
    }
}

fn read_pids(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn runs(pid: &str) -> bool {
    std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", pid])
        .output()
        .is_ok_and(|o| {
            let state = String::from_utf8_lossy(&o.stdout).trim().to_owned();
            !state.is_empty() && !state.starts_with('Z')
        })
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("in time");
}

#[tokio::test]
async fn requests_go_to_the_target_only_and_follow_no_redirect() {
    let server = MockServer::start().await;
    Mock::given(path("/moved"))
        .respond_with(ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1:1/"))
        .mount(&server)
        .await;
    Mock::given(path("/big"))
        .respond_with(ResponseTemplate::new(200).set_body_string("x".repeat(5_000_000)))
        .mount(&server)
        .await;
    Mock::given(path("/slow"))
        .respond_with(ResponseTemplate::new(200).set_delay(LONG))
        .mount(&server)
        .await;
    let w = World::new(Some(server.uri()));
    for url in [
        "http://127.0.0.1:1/x",
        "https://example.org/",
        "http://localhost.evil/x",
        "file:///etc/passwd",
    ] {
        let e = w.prepare(&format!("{{http_request: {{url: '{url}'}}}}"));
        if url.starts_with("file") {
            // Not an address of its own, so a path of the target.
            continue;
        }
        assert!(
            e.unwrap_err().contains("not on a host of the target"),
            "{url}"
        );
    }
    let done = w.run("{http_request: {url: /moved}}").await;
    assert!(
        !done.ok && done.findings["status"] == 302,
        "{}",
        done.message
    );
    let done = w
        .run("{http_request: {url: /moved, expect_status: [302]}}")
        .await;
    assert!(done.ok);
    let done = w.run("{http_request: {url: /big}}").await;
    assert!(done.ok && done.findings["body"].as_str().unwrap().len() <= 64 * 1024);
    let p = w.prepare("{http_request: {url: /slow}}").unwrap();
    let done = w
        .executor
        .run(&p, Duration::from_millis(100), &Cancel::never())
        .await;
    assert!(!done.ok && done.duration_ms < 5_000, "{}", done.message);
}

#[tokio::test]
async fn statements_run_with_bounds_on_wait_and_rows() {
    let w = World::new(None);
    let done = w
        .run("{sql: {statement: 'SELECT id, x FROM t WHERE x = ?1', params: [two]}}")
        .await;
    assert_eq!(done.findings["rows"], json!([{"id": 2, "x": "two"}]));
    let done = w
        .run("{sql: {statement: 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<500) SELECT x FROM c'}}")
        .await;
    assert_eq!(
        (
            done.findings["total"].as_u64(),
            done.findings["rows"].as_array().unwrap().len()
        ),
        (Some(500), 100)
    );
    let done = w.run("{sql: {statement: 'UPDATE t SET x = 1'}}").await;
    assert_eq!(done.findings["changed"], 2);
    for statement in [
        "ATTACH '/tmp/x' AS y",
        "PRAGMA journal_mode = delete",
        "VACUUM",
        "",
        "-- x",
    ] {
        assert!(
            w.prepare(&format!("{{sql: {{statement: \"{statement}\"}}}}"))
                .is_err(),
            "{statement}"
        );
    }
    let done = w
        .run("{sql: {statement: 'DELETE FROM t; DROP TABLE t'}}")
        .await;
    assert!(!done.ok, "{}", done.message);
    // Somebody else writes.
    let c = rusqlite::Connection::open(w.dir.path().join("data.db")).unwrap();
    c.execute_batch("BEGIN IMMEDIATE").unwrap();
    let p = w.prepare("{sql: {statement: 'DELETE FROM t'}}").unwrap();
    let done = w
        .executor
        .run(&p, Duration::from_millis(300), &Cancel::never())
        .await;
    assert!(
        !done.ok && done.message.contains("locked"),
        "{}",
        done.message
    );
    // A statement that never ends is ended.
    let p = w
        .prepare("{sql: {statement: 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c'}}")
        .unwrap();
    let done = w
        .executor
        .run(&p, Duration::from_millis(100), &Cancel::never())
        .await;
    assert!(!done.ok && done.duration_ms < 5_000, "{}", done.message);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_lock_holder_is_found_and_stopped_with_permission_only() {
    use crate::act_lock::Holder;
    let w = World::new(None);
    let db = w.dir.path().join("data.db");
    let action = "{stop_lock_holder: {held_ms: 100, graceful_ms: 3000}}";
    let done = w.run(action).await;
    assert!(
        !done.ok && done.message.contains("no process holds"),
        "{}",
        done.message
    );
    let mut stranger = Holder::writer(&db, "BEGIN IMMEDIATE", "somebody");
    let done = w.run(action).await;
    assert!(
        !done.ok && done.message.contains("may_stop_lock_holders"),
        "{}",
        done.message
    );
    assert_eq!(done.findings["pid"], stranger.0.id());
    assert!(!stranger.ended());
    drop(stranger);
    let mut holder = Holder::writer(&db, "BEGIN IMMEDIATE", "lock-marker");
    let done = w.run(action).await;
    assert!(done.ok, "{}", done.message);
    assert!(done.findings["held_ms"].as_u64().unwrap() >= 100);
    until_ended(&mut holder).await;
    let c = rusqlite::Connection::open(&db).unwrap();
    c.execute("DELETE FROM t", []).unwrap();
}

#[cfg(target_os = "linux")]
async fn until_ended(holder: &mut crate::act_lock::Holder) {
    let wait = async {
        while !holder.ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("it ends");
}

/// SAFETY 6
#[test]
fn what_may_not_be_run_twice_says_so_and_what_is_prepared_reads_back() {
    let w = World::new(None);
    assert!(!step("{run_command: {argv: [ls]}}").idempotent);
    assert!(step("{set_tunable: {name: pool, factor: 2}}").idempotent);
    // A relative change is made absolute before it is recorded, so that running it twice does no more than once.
    let p = w.prepare("{set_tunable: {name: pool, factor: 2}}").unwrap();
    let Action::SetConfig(set) = &p.action else {
        panic!("{:?}", p.action);
    };
    assert_eq!(set.set["database.pool_size"], 4);
    let record = serde_json::to_value(&p).unwrap();
    assert_eq!(serde_json::from_value::<Prepared>(record).unwrap(), p);
}
