//! Secrets are used where they are meant to be, and are nowhere else (SAFETY 22).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{HttpServer, LONG, Running, Stage, environ, free_port, processes_of};

const AMP_KEY: &str = "sgamp_user_0123456789abcdef";
const SITE_TOKEN: &str = "site-token-77c1e0a9";
const ADVISOR_TOKEN: &str = "advisor-token-5b2d41f8";

/// Every file below `dir` that holds `text`.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// A target whose page comes back when somebody with the token asks for it, with a service of its own, an advisor that
/// wants a token, and a playbook whose command says the token aloud.
struct Scene {
    stage: Stage,
    target: HttpServer,
    advisor: HttpServer,
}

impl Scene {
    fn set(cure: bool) -> Self {
        let stage = Stage::new();
        let mended = Arc::new(AtomicBool::new(false));
        let target = HttpServer::start(move |request| {
            let with_token = request.head.contains(SITE_TOKEN);
            if request.head.starts_with("POST /mend ") && with_token && cure {
                mended.store(true, Ordering::SeqCst);
            }
            let is_page = request.head.starts_with("GET /page.txt ");
            if is_page && !mended.load(Ordering::SeqCst) {
                404
            } else {
                200
            }
        });
        let advisor = HttpServer::start(|_| 200);
        let port = free_port();
        stage.write(
            "evenkeel.toml",
            &format!(
                r#"[target]
name = "site"
base_url = "http://127.0.0.1:{}"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
ready = {{ port = {port} }}

[[stress.tests]]
name = "Page"
kind = "http-load"
endpoints = ["/page.txt"]
requests = 2

[watchdog]
enabled = false

[healing]
mode = "auto"
settle_ms = 0
retry_wait_ms = 0
max_attempts = 1

[escalation]
amp = {{ command = "/nonexistent/amp" }}

[[escalation.http]]
name = "house advisor"
url = "http://127.0.0.1:{}/advice"
token_env = "ADVISOR_TOKEN"
"#,
                target.port, advisor.port
            ),
        );
        stage.write(
            "playbooks/mend.yaml",
            r#"version: 1
name: mend
description: Asks the target to mend its page.
for:
  tests: ["Page"]
risk: low
tier: tier_1
steps:
  - id: say
    do:
      run_command:
        argv: [sh, -c, "echo the token is $TOKEN; echo also $TOKEN >&2"]
        env: {TOKEN: "${secret.SITE_TOKEN}"}
    undo: none_needed
    idempotent: true
  - id: mend
    do:
      http_request:
        method: POST
        url: /mend
        headers: {authorization: "Bearer ${secret.SITE_TOKEN}"}
    undo: none_needed
    idempotent: true
"#,
        );
        Self {
            stage,
            target,
            advisor,
        }
    }

    /// Runs once, with the secrets in the environment, and says as much as it can.
    fn run(&self, code: i32) {
        let mut command = self.stage.command(&["run", "--once", "--verbose"]);
        command
            .env("AMP_API_KEY", AMP_KEY)
            .env("SITE_TOKEN", SITE_TOKEN)
            .env("ADVISOR_TOKEN", ADVISOR_TOKEN);
        let end = Running::spawn(&mut command).finish(LONG).expect(code);
        // It did arrive where it was meant to.
        let mends = self.target.requests();
        let mend = mends.iter().find(|r| r.head.starts_with("POST /mend "));
        assert!(mend.unwrap().head.contains(&format!("Bearer {SITE_TOKEN}")));
        for secret in [AMP_KEY, SITE_TOKEN, ADVISOR_TOKEN] {
            assert!(!end.stdout.contains(secret), "{}", end.stdout);
            assert!(!end.stderr.contains(secret), "{}", end.stderr);
            let files = files_with(&self.stage.data(), secret);
            assert!(files.is_empty(), "{secret} stands in {files:?}");
            for question in self.advisor.requests() {
                assert!(!question.body.contains(secret), "{}", question.body);
            }
        }
    }
}

/// SAFETY 22, in a cycle that heals: files, standard output and standard error.
#[test]
fn secrets_are_used_and_stand_nowhere() {
    let scene = Scene::set(true);
    scene.run(0);
    // What the command printed is there, without the secret.
    assert!(!files_with(&scene.stage.data(), "the token is ").is_empty());
    // The service lives on, and was never given what is Evenkeel's own.
    let web = processes_of(scene.stage.path())
        .into_iter()
        .find(|(_, command)| command.contains("http.server"))
        .unwrap();
    for variable in environ(web.0) {
        assert!(!variable.starts_with("AMP_API_KEY="), "{variable}");
        assert!(!variable.contains(AMP_KEY) && !variable.contains(ADVISOR_TOKEN));
    }
}

/// SAFETY 18 and 22, in a cycle that ends with the advisors and a person: no secret in a question, an answer or the
/// alert; the advisor's own token goes to it alone; its garbage leads to nothing but the alert.
#[test]
fn secrets_are_in_no_question_and_no_alert() {
    let scene = Scene::set(false);
    scene.run(1);
    let questions = scene.advisor.requests();
    let question = questions.first().expect("the advisor was asked");
    assert!(question.head.contains(ADVISOR_TOKEN), "{}", question.head);
    assert!(question.body.contains("error_rate_spike"));
    let logs = std::fs::read_dir(scene.stage.data().join("logs")).unwrap();
    let alerts = logs
        .filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("ALERT_")
        })
        .count();
    assert_eq!(alerts, 1);
}
