//! Reading the configuration and finding every mistake in it.

use std::fmt;
use std::path::{Path, PathBuf};

use evenkeel_core::playbook::parse::nearest_in_message;

use evenkeel_detect::Thresholds;

use super::{Config, Environment};

/// Largest configuration file, in bytes.
const CONFIG_LEN_MAX: u64 = 1024 * 1024;

/// A mistake in the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line:column` or the environment key.
    pub place: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads `path`, puts the environment over it, and checks everything.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let place = path.display().to_string();
    let unreadable = |message: String| ConfigError {
        place: place.clone(),
        message,
        hint: None,
    };
    let meta = std::fs::metadata(path).map_err(|e| ConfigError {
        place: place.clone(),
        message: format!("cannot be read: {e}"),
        hint: Some("name another with --config, or try `evenkeel demo`, which needs none".into()),
    })?;
    if meta.len() > CONFIG_LEN_MAX {
        return Err(unreadable(format!(
            "has {} bytes, at most {CONFIG_LEN_MAX} are read",
            meta.len()
        )));
    }
    let text =
        std::fs::read_to_string(path).map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    let base = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let base = base.canonicalize().unwrap_or(base);
    load_text(&text, &place, &base, environment)
}

/// As [`load`], from a text; `place` is what errors call it, `base` is where paths start.
pub fn load_text(
    text: &str,
    place: &str,
    base: &Path,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let at = |offset: usize| {
        let before = &text[..offset.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{place}:{line}:{column}")
    };
    let mut config: Config = toml::from_str(text).map_err(|e| {
        let message = e.message().to_owned();
        ConfigError {
            place: at(e.span().map_or(0, |s| s.start)),
            hint: nearest_in_message(&message),
            message,
        }
    })?;
    environment
        .override_config(&mut config)
        .map_err(|e| ConfigError {
            place: e.place.clone(),
            message: e.to_string(),
            hint: None,
        })?;
    config.base = base.to_path_buf();
    check(&config).map_err(|(path, message)| ConfigError {
        place: at(locate(text, &path)),
        message: format!("{}: {message}", path.join(".")),
        hint: None,
    })?;
    let resolved = config.target.to_target().resolve(base).map_err(|e| {
        let mut path = vec!["target".to_owned()];
        path.extend(e.at.split('.').map(str::to_owned));
        ConfigError {
            place: at(locate(text, &path)),
            message: e.to_string(),
            hint: None,
        }
    })?;
    config.resolved = resolved;
    config
        .resolve_sql()
        .and_then(|()| config.resolve_tests())
        .map_err(|(path, message)| ConfigError {
            place: at(locate(text, &path)),
            message: format!("{}: {message}", path.join(".")),
            hint: None,
        })?;
    Ok(config)
}

/// Where in the configuration, and what is wrong.
pub(super) type Mistake = (Vec<String>, String);

fn check(c: &Config) -> Result<(), Mistake> {
    let at = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    let range = |path: &str, value: u64, low: u64, high: u64| {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err((at(path), format!("{value} is not from {low} to {high}")))
        }
    };
    range(
        "watchdog.interval_ms",
        c.watchdog.interval_ms,
        100,
        3_600_000,
    )?;
    range(
        "watchdog.probe_timeout_ms",
        c.watchdog.probe_timeout_ms,
        10,
        60_000,
    )?;
    c.watchdog
        .detect
        .validate()
        .map_err(|e| (at(&format!("watchdog.detect.{}", e.key)), e.to_string()))?;
    c.watchdog
        .series
        .check()
        .map_err(|(key, e)| (at(&format!("watchdog.series.{key}")), e))?;
    range("healing.max_attempts", c.healing.max_attempts.into(), 1, 10)?;
    range("healing.settle_ms", c.healing.settle_ms, 0, 3_600_000)?;
    range(
        "healing.retry_wait_ms",
        c.healing.retry_wait_ms,
        0,
        3_600_000,
    )?;
    range(
        "healing.recurrence_window_s",
        c.healing.recurrence_window_s,
        0,
        604_800,
    )?;
    range(
        "escalation.timeout_ms",
        c.escalation.timeout_ms,
        1_000,
        600_000,
    )?;
    range("snapshots.keep", c.snapshots.keep as u64, 1, 100_000)?;
    for (key, value, low, high) in c.heartbeat.ranges().into_iter().chain(c.agent.ranges()) {
        range(key, value, low, high)?;
    }
    if let Some(url) = &c.heartbeat.ping
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        // Such an address often is a secret: it is not repeated.
        return Err((
            at("heartbeat.ping"),
            "the address does not start with http:// or https://".into(),
        ));
    }
    if !(0.0..=1.0).contains(&c.escalation.confidence_min) {
        return Err((
            at("escalation.confidence_min"),
            format!("{} is not from 0 to 1", c.escalation.confidence_min),
        ));
    }
    Thresholds::from(c.watchdog.thresholds)
        .validate()
        .map_err(|e| (at(&format!("watchdog.thresholds.{}", e.key)), e.to_string()))?;
    if let Some(url) = &c.target.base_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err((
            at("target.base_url"),
            format!("`{url}` does not start with http:// or https://"),
        ));
    }
    if c.target.services.is_empty() && c.target.base_url.is_none() {
        return Err((
            at("target"),
            "nothing to guard: give a `base_url`, or at least one [[target.services]]".into(),
        ));
    }
    // As they will run: one of the eight's names with one number changed keeps everything else of it.
    let is_configured = |name: &str| c.stress.tests.iter().any(|t| t.name == name);
    for test in c.tests().iter().filter(|t| is_configured(&t.name)) {
        test.validate()
            .map_err(|e| (at("stress.tests"), e.to_string()))?;
    }
    if let Some(listen) = c.audit.listen
        && !listen.ip().is_loopback()
    {
        return Err((
            at("audit.listen"),
            format!("{listen} is not a loopback address"),
        ));
    }
    c.check_policy()
        .map_err(|(path, message)| (at(&path), message))?;
    c.check_metrics()
        .map_err(|(path, message)| (at(&path), message))?;
    c.ledger
        .check()
        .map_err(|(path, message)| (at(path), message))
}

/// Where a key stands in the text: the deepest part of `path` that exists.
fn locate(text: &str, path: &[String]) -> usize {
    use toml::de::DeValue;
    let Ok(root) = toml::de::DeTable::parse(text) else {
        return 0;
    };
    let mut found = 0;
    let mut value: DeValue<'_> = DeValue::Table(root.into_inner());
    for part in path {
        let name = part.split('[').next().unwrap_or(part).to_owned();
        let next = match &value {
            DeValue::Table(table) => table
                .iter()
                .find(|(k, _)| k.get_ref().as_ref() == name)
                .map(|(k, v)| (k.span().start, v.get_ref().clone())),
            // `services.api`: the element whose name that is.
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(t) => {
                    let named = t.iter().any(|(k, v)| {
                        k.get_ref().as_ref() == "name"
                            && v.get_ref().as_str() == Some(name.as_str())
                    });
                    named.then(|| (item.span().start, item.get_ref().clone()))
                }
                _ => None,
            }),
            _ => None,
        };
        let Some((at, v)) = next else { break };
        found = at;
        value = v;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[target]
name = "web"
base_url = "http://127.0.0.1:8000"

[[target.services]]
name = "web"
command = ["python3", "-m", "http.server"]
ready = { http = "/" }

[target.endpoints]
health = "/"

[watchdog]
interval_ms = 1000
"#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        load_text(
            text,
            "evenkeel.toml",
            Path::new("/srv"),
            &Environment::default(),
        )
    }

    #[test]
    fn ten_lines_are_enough_for_a_service() {
        let c = read(GOOD).unwrap();
        assert_eq!(c.resolved.services[0].name, "web");
        assert_eq!(c.watchdog.interval_ms, 1000);
        assert_eq!(c.tests().len(), 8);
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        for (from, to, place, words) in [
            (
                "interval_ms",
                "intervall_ms",
                "evenkeel.toml:15:1",
                "did you mean `interval_ms`?",
            ),
            (
                "1000",
                "50",
                "evenkeel.toml:15:1",
                "50 is not from 100 to 3600000",
            ),
            ("1000", "\"1s\"", "evenkeel.toml:15:15", "invalid type"),
            (
                "[watchdog]",
                "[watchdogs]",
                "evenkeel.toml:14:2",
                "did you mean `watchdog`?",
            ),
            (
                "health = ",
                "helth = ",
                "evenkeel.toml:12:1",
                "did you mean `health`?",
            ),
            (
                "ready = { http = \"/\" }",
                "depends_on = [\"db\"]",
                "evenkeel.toml:9:1",
                "no service `db`",
            ),
            (
                "\"http://127",
                "\"ftp://127",
                "evenkeel.toml:4:1",
                "does not start with",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let e = read(&text).unwrap_err();
            let shown = e.to_string();
            assert!(
                shown.starts_with(place) && shown.contains(words),
                "{to}: {shown}"
            );
        }
    }

    #[test]
    fn one_number_of_a_built_in_test_can_be_changed() {
        let change = |line: &str| {
            let test = "[[stress.tests]]\nname = \"Health Endpoint Load\"\nkind = \"http-load\"\n";
            read(&format!("{GOOD}\n{test}{line}\n"))
        };
        let c = change("concurrency = 4").unwrap();
        let tests = c.tests();
        let test = tests.iter().find(|t| t.name == "Health Endpoint Load");
        let test = test.unwrap();
        assert_eq!((test.concurrency, test.requests), (Some(4), Some(50)));
        assert_eq!((tests.len(), test.endpoints.len()), (8, 1));
        assert!(change("concurrency = 0").is_err());
    }

    #[test]
    fn nothing_to_guard_is_an_error() {
        assert!(read("").unwrap_err().message.contains("nothing to guard"));
    }
}
