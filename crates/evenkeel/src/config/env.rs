//! The environment and `.env`: the keys of CONTRACT section 7, and secrets.

use std::collections::BTreeMap;
use std::path::Path;

use super::Config;

/// Largest `.env` file read, in bytes.
const ENV_FILE_LEN_MAX: u64 = 256 * 1024;

/// The environment with `.env` below it: a variable that is set for the process wins.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, (String, &'static str)>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({} variables)", self.values.len())
    }
}

/// An environment key whose value is not one it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}={value} ({place}): {expected} was expected")]
pub struct EnvError {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Where it was set.
    pub place: String,
    /// What would be right.
    pub expected: &'static str,
}

impl Environment {
    /// The process's environment and, below it, `dir/.env`.
    pub fn read(dir: &Path) -> Self {
        let mut values = BTreeMap::new();
        let file = dir.join(".env");
        if std::fs::metadata(&file).is_ok_and(|m| m.len() <= ENV_FILE_LEN_MAX)
            && let Ok(text) = std::fs::read_to_string(&file)
        {
            for (k, v) in parse_env_file(&text) {
                values.insert(k, (v, ".env"));
            }
        }
        for (k, v) in std::env::vars_os() {
            if let (Ok(k), Ok(v)) = (k.into_string(), v.into_string()) {
                values.insert(k, (v, "environment"));
            }
        }
        Self { values }
    }

    /// Only these values: for tests and embedding.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            values: pairs
                .into_iter()
                .map(|(k, v)| (k, (v, "environment")))
                .collect(),
        }
    }

    /// A value, if it is set and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(|(v, _)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Forgets a variable.
    pub fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Puts what the environment says over the configuration.
    pub fn override_config(&self, config: &mut Config) -> Result<(), EnvError> {
        let boolean =
            |key: &str, slot: &mut bool| self.take(key, slot, parse_bool, "true or false");
        boolean("RUN_POST_BOOT_STRESS_TEST", &mut config.stress.enabled)?;
        boolean("ESTABLISH_WATCHDOG_BASELINE", &mut config.watchdog.baseline)?;
        boolean("ENABLE_ANOMALY_WATCHDOG", &mut config.watchdog.enabled)?;
        boolean("ENABLE_AMP_ESCALATION", &mut config.escalation.enabled)?;
        let positive = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|x| x.is_finite() && *x > 0.0)
        };
        let ratio = |text: &str| positive(text).filter(|x| *x <= 1.0);
        let t = &mut config.watchdog.thresholds;
        self.take(
            "WATCHDOG_ERROR_RATE_THRESHOLD",
            &mut t.error_rate,
            ratio,
            "a share above 0 and at most 1",
        )?;
        self.take(
            "WATCHDOG_LATENCY_P95_MS",
            &mut t.latency_p95,
            positive,
            "milliseconds above 0",
        )?;
        self.take(
            "WATCHDOG_MEMORY_GROWTH_MB",
            &mut t.memory_growth_mb,
            positive,
            "MB an hour above 0",
        )?;
        self.take(
            "WATCHDOG_FAILURE_RATE",
            &mut t.failure_rate,
            ratio,
            "a share above 0 and at most 1",
        )?;
        let attempts = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=10).contains(n));
        self.take(
            "MAX_HEALING_ATTEMPTS",
            &mut config.healing.max_attempts,
            attempts,
            "a whole number from 1 to 10",
        )
    }

    fn take<T>(
        &self,
        key: &str,
        slot: &mut T,
        parse: impl Fn(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<(), EnvError> {
        let Some((value, place)) = self.values.get(key).filter(|(v, _)| !v.trim().is_empty())
        else {
            return Ok(());
        };
        *slot = parse(value.trim()).ok_or_else(|| EnvError {
            key: key.to_owned(),
            value: value.chars().take(80).collect(),
            place: (*place).to_owned(),
            expected,
        })?;
        Ok(())
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// `KEY=value` lines; `#` comments, `export`, single and double quotes.
fn parse_env_file(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            if line.starts_with('#') {
                return None;
            }
            let (key, value) = line.split_once('=')?;
            let key = key.trim();
            let name_ok =
                !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let value = value.trim();
            let value = ['"', '\'']
                .iter()
                .find_map(|q| {
                    value
                        .strip_prefix(*q)
                        .and_then(|v| v.split_once(*q))
                        .map(|(v, _)| v)
                })
                .unwrap_or_else(|| value.split(" #").next().unwrap_or(value).trim_end());
            name_ok.then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let mut c = Config::default();
        env(&[
            ("RUN_POST_BOOT_STRESS_TEST", "false"),
            ("WATCHDOG_ERROR_RATE_THRESHOLD", "0.2"),
            ("WATCHDOG_LATENCY_P95_MS", "150"),
            ("WATCHDOG_MEMORY_GROWTH_MB", "7.5"),
            ("WATCHDOG_FAILURE_RATE", "0.5"),
            ("MAX_HEALING_ATTEMPTS", "5"),
            ("ENABLE_AMP_ESCALATION", "off"),
            ("ENABLE_ANOMALY_WATCHDOG", "0"),
            ("ESTABLISH_WATCHDOG_BASELINE", "no"),
        ])
        .override_config(&mut c)
        .unwrap();
        assert!(
            !c.stress.enabled
                && !c.watchdog.enabled
                && !c.watchdog.baseline
                && !c.escalation.enabled
        );
        assert!((c.watchdog.thresholds.error_rate - 0.2).abs() < 1e-9);
        assert!((c.watchdog.thresholds.memory_growth_mb - 7.5).abs() < 1e-9);
        assert_eq!(c.healing.max_attempts, 5);
    }

    #[test]
    fn what_does_not_parse_is_an_error_that_names_key_and_value() {
        for (key, value) in [
            ("RUN_POST_BOOT_STRESS_TEST", "maybe"),
            ("WATCHDOG_ERROR_RATE_THRESHOLD", "5%"),
            ("WATCHDOG_ERROR_RATE_THRESHOLD", "1.5"),
            ("WATCHDOG_LATENCY_P95_MS", "NaN"),
            ("WATCHDOG_LATENCY_P95_MS", "-1"),
            ("MAX_HEALING_ATTEMPTS", "0"),
        ] {
            let e = env(&[(key, value)])
                .override_config(&mut Config::default())
                .unwrap_err();
            let text = e.to_string();
            assert!(text.contains(key) && text.contains(value), "{text}");
        }
    }

    #[test]
    fn env_files_as_people_write_them() {
        let parsed = parse_env_file(
            "# c\nexport A=1\nB=\"two words\" # note\nC='x'\nD=plain # note\n=bad\nE F=1\n",
        );
        let expected = [("A", "1"), ("B", "two words"), ("C", "x"), ("D", "plain")];
        assert_eq!(
            parsed,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
        );
    }
}
