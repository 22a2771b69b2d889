//! Reading playbook files, and saying exactly what is wrong with one.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::action::{Action, Services};
use super::{FORMAT_VERSION, Playbook, Step, VerifyWith};
use crate::anomaly::AnomalyType;
use crate::expression;
use crate::redact::is_secret_key;

/// Largest playbook file, in bytes.
pub const FILE_LEN_MAX: usize = 64 * 1024;
/// Most steps in a playbook.
pub const STEPS_MAX: usize = 32;
/// Longest time limit of a step, in milliseconds.
pub const STEP_TIMEOUT_MS_MAX: u64 = 600_000;
/// Most retries of a step.
pub const RETRIES_MAX: u32 = 5;

/// Monitors that a playbook may be verified with.
pub const MONITORS: [&str; 4] = ["error_rate", "latency_p95", "memory_growth", "liveness"];

/// Something wrong in a playbook file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaybookProblem {
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for PlaybookProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PlaybookProblem {}

/// Reads a playbook. `file` is only used to say where a problem is.
pub fn parse(file: &str, text: &str) -> Result<Playbook, PlaybookProblem> {
    if text.len() > FILE_LEN_MAX {
        return Err(PlaybookProblem {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: format!(
                "the file has {} bytes; a playbook has at most {FILE_LEN_MAX}",
                text.len()
            ),
            hint: None,
        });
    }
    serde_saphyr::from_str::<Playbook>(text).map_err(|e| {
        let (line, column) = e.location().map_or((1, 1), |l| (l.line(), l.column()));
        let message = e.without_snippet().to_string();
        let message = message.lines().next().unwrap_or("not a playbook");
        // The place stands in front already.
        let message = message
            .split(" at line ")
            .next()
            .unwrap_or(message)
            .to_owned();
        let hint = nearest_in_message(&message);
        PlaybookProblem {
            file: file.to_owned(),
            line,
            column,
            message,
            hint,
        }
    })
}

/// For a message of the form "unknown field `x`, expected one of a, b": the nearest of the expected names.
pub fn nearest_in_message(message: &str) -> Option<String> {
    let (before, expected) = message.split_once("expected ")?;
    let wrong = before
        .split('`')
        .nth(1)
        .filter(|_| before.contains("unknown"))?;
    let expected = expected.strip_prefix("one of ").unwrap_or(expected);
    nearest(
        wrong,
        expected
            .split(',')
            .map(|name| name.trim().trim_matches('`'))
            .filter(|name| !name.is_empty() && !name.contains(' ')),
    )
}

/// "did you mean `x`?" for the candidate most like `wrong`, if one is like it at all.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(wrong, c), c))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| format!("did you mean `{c}`?"))
}

/// Everything about a playbook that its types cannot say. `text` is the file it was read from, for positions;
/// `known_tests` are the tests that exist, and an empty list skips that check.
pub fn lint(
    file: &str,
    text: &str,
    playbook: &Playbook,
    known_tests: &[String],
) -> Vec<PlaybookProblem> {
    let mut l = Linter {
        file,
        text,
        problems: Vec::new(),
    };
    l.head(playbook, known_tests);
    l.params(playbook);
    let mut earlier = BTreeSet::new();
    for step in &playbook.steps {
        l.step(playbook, step, &earlier);
        if !earlier.insert(step.id.as_str()) {
            l.at(
                &place(step),
                format!("two steps are named `{}`", step.id),
                Some("give each step its own id".into()),
            );
        }
    }
    l.problems
}

struct Linter<'a> {
    file: &'a str,
    text: &'a str,
    problems: Vec<PlaybookProblem>,
}

impl Linter<'_> {
    /// Notes a problem at the first place where `needle` stands in the file.
    fn at(&mut self, needle: &str, message: String, hint: Option<String>) {
        let found = self.text.lines().enumerate().find_map(|(i, line)| {
            line.find(needle)
                .map(|byte| (i, line[..byte].chars().count()))
        });
        let (line, column) = found.map_or((1, 1), |(l, c)| (l as u64 + 1, c as u64 + 1));
        self.problems.push(PlaybookProblem {
            file: self.file.to_owned(),
            line,
            column,
            message,
            hint,
        });
    }

    fn head(&mut self, p: &Playbook, known_tests: &[String]) {
        if p.version != FORMAT_VERSION {
            self.at(
                "version",
                format!("format version {} is not known", p.version),
                Some(format!("this Evenkeel reads version {FORMAT_VERSION}")),
            );
        }
        if AnomalyType::new(&p.name).is_err() {
            self.at(
                &p.name,
                format!("`{}` cannot name a playbook", p.name),
                Some("use 1 to 64 of a-z, 0-9 and _, starting with a letter".into()),
            );
        }
        for kind in &p.remedies.anomalies {
            if let Err(e) = AnomalyType::new(kind) {
                self.at(kind, e.to_string(), None);
            }
        }
        if !known_tests.is_empty() {
            let verify = match &p.verify {
                Some(VerifyWith::Test(t)) => Some(t),
                _ => None,
            };
            for test in p.remedies.tests.iter().chain(verify) {
                if !known_tests.contains(test) {
                    self.at(
                        test,
                        format!("there is no stress test `{test}`"),
                        nearest(test, known_tests.iter().map(String::as_str)),
                    );
                }
            }
        }
        if let Some(VerifyWith::Monitor(monitor)) = &p.verify
            && !MONITORS.contains(&monitor.as_str())
        {
            self.at(
                monitor,
                format!(
                    "there is no monitor `{monitor}`; there are {}",
                    MONITORS.join(", ")
                ),
                nearest(monitor, MONITORS),
            );
        }
        if p.steps.is_empty() || p.steps.len() > STEPS_MAX {
            self.at(
                "steps",
                format!("{} steps; a playbook has 1 to {STEPS_MAX}", p.steps.len()),
                None,
            );
        }
        if let Some(when) = &p.when {
            self.expression(when);
        }
    }

    fn params(&mut self, p: &Playbook) {
        for (name, spec) in &p.params {
            if let (Some(min), Some(max)) = (spec.min, spec.max)
                && min > max
            {
                self.at(
                    &format!("{name}:"),
                    format!("parameter `{name}`: min {min} is above max {max}"),
                    None,
                );
            }
            if let Err(e) = spec.check(name, &spec.default) {
                self.at(
                    &format!("{name}:"),
                    format!("the default of parameter {e}"),
                    Some("put the default inside the bounds".into()),
                );
            }
        }
    }

    fn step(&mut self, p: &Playbook, step: &Step, earlier: &BTreeSet<&str>) {
        if AnomalyType::new(&step.id).is_err() {
            self.at(
                &place(step),
                format!("`{}` cannot name a step", step.id),
                Some("use 1 to 64 of a-z, 0-9 and _, starting with a letter".into()),
            );
        }
        if step.timeout_ms == 0 || step.timeout_ms > STEP_TIMEOUT_MS_MAX {
            self.at(
                &place(step),
                format!(
                    "step `{}`: timeout_ms = {}; 1 to {STEP_TIMEOUT_MS_MAX} was expected",
                    step.id, step.timeout_ms
                ),
                None,
            );
        }
        if step.retries > RETRIES_MAX {
            self.at(
                &place(step),
                format!(
                    "step `{}`: retries = {}; at most {RETRIES_MAX} was expected",
                    step.id, step.retries
                ),
                None,
            );
        }
        if (step.undo.is_some() || step.idempotent.is_some()) && !step.action.effect_is_opaque() {
            self.at(
                &place(step),
                format!(
                    "step `{}`: `{}` knows its own undo and may not be overridden",
                    step.id,
                    step.action.name()
                ),
                Some("leave `undo` and `idempotent` out".into()),
            );
        }
        if let Some(when) = &step.when {
            self.expression(when);
            self.findings(when, earlier);
        }
        self.action(step);
        let arguments = serde_json::to_value(&step.action).unwrap_or(Value::Null);
        self.templates(&arguments, p, earlier);
    }

    fn action(&mut self, step: &Step) {
        let mut wrong = |message: &str, hint: &str| {
            let text = format!("step `{}`: {message}", step.id);
            self.at(&place(step), text, Some(hint.to_owned()));
        };
        match &step.action {
            Action::SetTunable(a) if !a.is_one_change() => wrong(
                "`set_tunable` needs exactly one of `to`, `factor` and `at_least`",
                "`to: 20` sets a value, `at_least: 20` raises a lower one to it, `factor: 2` doubles the present one",
            ),
            Action::SetConfig(a) if a.set.is_empty() || a.set.len() > 32 => {
                wrong("`set_config` sets 1 to 32 keys", "list them under `set:`");
            }
            Action::SetConfig(a) if a.set.keys().any(|k| is_secret_key(k)) => wrong(
                "`set_config` may not set a key whose name says that it is secret",
                "records would have to hold the secret to undo it; keep secrets out of playbooks",
            ),
            Action::RunCommand(a) if a.argv.is_empty() == a.shell.is_none() => wrong(
                "`run_command` needs exactly one of `argv` and `shell`",
                "prefer `argv: [program, argument]`; `shell: \"...\"` asks for /bin/sh",
            ),
            Action::Sql(a) if a.statement.trim().is_empty() => {
                wrong("`sql` needs a statement", "write one SQL statement");
            }
            Action::HttpRequest(a) if a.url.is_empty() => {
                wrong("`http_request` needs a url", "a path such as /admin/reload");
            }
            Action::Restart(a) | Action::Stop(a) if is_empty(&a.services) => {
                wrong(
                    "no service is named",
                    "name one, or write all, primary, affected or heaviest",
                );
            }
            Action::Start(a) | Action::WaitReady(a) if is_empty(&a.services) => {
                wrong(
                    "no service is named",
                    "name one, or write all, primary, affected or heaviest",
                );
            }
            _ => {}
        }
    }

    fn templates(&mut self, value: &Value, p: &Playbook, earlier: &BTreeSet<&str>) {
        match value {
            Value::String(text) => {
                if let Err(e) = expression::check_template(text) {
                    self.at(text, e.to_string(), None);
                }
                if text.contains("${") {
                    self.findings(text, earlier);
                    self.param_names(text, p);
                }
            }
            Value::Array(items) => items.iter().for_each(|v| self.templates(v, p, earlier)),
            Value::Object(map) => map.values().for_each(|v| self.templates(v, p, earlier)),
            _ => {}
        }
    }

    fn expression(&mut self, text: &str) {
        if let Err(e) = expression::check(text) {
            self.at(text, e.to_string(), None);
        }
    }

    /// `findings.x` must speak of an earlier step.
    fn findings(&mut self, text: &str, earlier: &BTreeSet<&str>) {
        for name in names_after(text, "findings.") {
            if !earlier.contains(name) {
                self.at(
                    text,
                    format!("`findings.{name}`: no step before this one is named `{name}`"),
                    nearest(name, earlier.iter().copied()),
                );
            }
        }
    }

    fn param_names(&mut self, text: &str, p: &Playbook) {
        for name in names_after(text, "params.") {
            if !p.params.contains_key(name) {
                self.at(
                    text,
                    format!("`params.{name}`: there is no such parameter"),
                    nearest(name, p.params.keys().map(String::as_str)),
                );
            }
        }
    }
}

/// What stands in the file where the step begins.
fn place(step: &Step) -> String {
    format!("id: {}", step.id)
}

fn is_empty(services: &Services) -> bool {
    match services {
        Services::One(s) => s.trim().is_empty(),
        Services::Many(v) => v.is_empty() || v.len() > 32,
    }
}

/// The identifiers that directly follow `prefix` in `text`.
fn names_after<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    text.match_indices(prefix)
        .map(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version: 1
name: raise_pool
description: More connections for more load.
for: {anomalies: [db_pool_exhaustion], tests: ["Database Connection Pool"]}
risk: low
tier: tier_2
params:
  size: {type: integer, default: 20, min: 1, max: 64, help: "connections"}
steps:
  - id: look
    do: {query_logs: {}}
  - id: raise
    do: {set_tunable: {name: db_pool_size, to: "${params.size}"}}
    when: "findings.look.total > 0 || attempt > 1"
  - id: again
    do: {restart: {services: primary}}
    timeout_ms: 20000
"#;

    fn problems(text: &str) -> Vec<PlaybookProblem> {
        match parse("p.yaml", text) {
            Err(e) => vec![e],
            Ok(p) => lint("p.yaml", text, &p, &["Database Connection Pool".into()]),
        }
    }

    #[test]
    fn a_good_playbook_has_no_problems() {
        assert_eq!(problems(GOOD), vec![]);
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        let cases: &[(&str, &str, u64, &str)] = &[
            ("risk: low", "riskk: low", 6, "riskk"),
            (
                "do: {query_logs: {}}",
                "do: {query_log: {}}",
                12,
                "query_log",
            ),
            ("tier: tier_2", "tier: tier_9", 7, "tier_9"),
            ("default: 20", "default: 99", 9, "at most 64"),
            ("params.size}", "params.sise}", 14, "params.sise"),
            (
                "findings.look.total",
                "findings.lok.total",
                15,
                "findings.lok",
            ),
            ("attempt > 1", "atempt > 1", 15, "atempt"),
            (
                "Database Connection Pool",
                "Database Conection Pool",
                5,
                "Conection",
            ),
            ("timeout_ms: 20000", "timeout_ms: 0", 16, "timeout_ms"),
            (
                "timeout_ms: 20000",
                "undo: irreversible",
                16,
                "knows its own undo",
            ),
            ("id: again", "id: look", 11, "two steps"),
            ("version: 1", "version: 7", 2, "version 7"),
            ("name: raise_pool", "name: ../raise", 3, "cannot name"),
            (
                "to: \"${params.size}\"",
                "factor: 2, to: 3",
                13,
                "exactly one",
            ),
            (
                "to: \"${params.size}\"",
                "to: 2, at_least: 3",
                13,
                "exactly one",
            ),
        ];
        for (from, to, line, words) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from} is not in the sample");
            let found = problems(&text);
            let first = found
                .first()
                .unwrap_or_else(|| panic!("{to}: nothing was found"));
            assert!(
                first.to_string().contains(words) && first.line == *line,
                "{to}: expected line {line} and `{words}`, got {first}"
            );
        }
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest_one() {
        let p = &problems(&GOOD.replace("description:", "descripton:"))[0];
        assert_eq!(
            p.hint.as_deref(),
            Some("did you mean `description`?"),
            "{p}"
        );
        let p = &problems(&GOOD.replace("Database Connection", "Databse Connection"))[0];
        assert_eq!(
            p.hint.as_deref(),
            Some("did you mean `Database Connection Pool`?"),
            "{p}"
        );
    }

    #[test]
    fn a_bomb_or_a_huge_file_is_refused() {
        assert!(parse("p", &" ".repeat(FILE_LEN_MAX + 1)).is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nname: *c\n";
        assert!(parse("p", bomb).is_err());
    }
}
