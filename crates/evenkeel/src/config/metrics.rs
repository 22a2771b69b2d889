//! `[[watchdog.metrics]]`: pages of metrics that are read beside the checks, each at its own pace.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_edge::collect::scraper::{SERIES_MAX_DEFAULT, ScrapeTarget};
use regex::Regex;
use serde::Deserialize;

use super::{Config, Environment};

/// Most pages of metrics.
pub const METRICS_MAX: usize = 1_000;

/// One page of metrics: Prometheus text or `OpenMetrics`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSection {
    /// What to call it.
    pub name: String,
    /// Its address, or a path below `[target] base_url`.
    pub url: String,
    /// The service it belongs to.
    #[serde(default)]
    pub service: Option<String>,
    /// Time between two scrapes, in seconds: 1 to 3 600.
    #[serde(default = "every_s")]
    pub every_s: u64,
    /// How long one may take, in seconds: 1 to 60.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// Most series that are kept of it, 1 to 100 000; each bucket is one.
    #[serde(default = "series_max")]
    pub series_max: u64,
    /// Only metrics whose names match this regular expression.
    #[serde(default)]
    pub include: Option<String>,
    /// No metrics whose names match this regular expression.
    #[serde(default)]
    pub exclude: Option<String>,
    /// Environment variable with its bearer token.
    #[serde(default)]
    pub token_env: Option<String>,
}

fn every_s() -> u64 {
    10
}

fn timeout_s() -> u64 {
    5
}

fn series_max() -> u64 {
    SERIES_MAX_DEFAULT as u64
}

impl MetricsSection {
    fn expressions(&self) -> [(&'static str, Option<&String>); 2] {
        [
            ("include", self.include.as_ref()),
            ("exclude", self.exclude.as_ref()),
        ]
    }
}

impl Config {
    /// The first mistake in `[[watchdog.metrics]]`: where, and what.
    pub(super) fn check_metrics(&self) -> Result<(), (String, String)> {
        let all = &self.watchdog.metrics;
        if all.len() > METRICS_MAX {
            let message = format!("at most {METRICS_MAX} pages of metrics");
            return Err(("watchdog.metrics".to_owned(), message));
        }
        for (i, metrics) in all.iter().enumerate() {
            let wrong =
                |message: String| Err((format!("watchdog.metrics.{}", metrics.name), message));
            let is_taken = all[..i].iter().any(|other| other.name == metrics.name);
            let is_name = (1..=64).contains(&metrics.name.len())
                && !metrics.name.chars().any(char::is_control);
            if is_taken || !is_name {
                return wrong("its name is empty, longer than 64 bytes, or taken".to_owned());
            }
            let is_whole =
                metrics.url.starts_with("http://") || metrics.url.starts_with("https://");
            let is_path = metrics.url.starts_with('/') && self.target.base_url.is_some();
            if !is_whole && !is_path {
                return wrong(format!(
                    "`{}` is neither an address that starts with http:// or https:// nor a path below [target] base_url",
                    metrics.url
                ));
            }
            for (key, value, high) in [
                ("every_s", metrics.every_s, 3_600),
                ("timeout_s", metrics.timeout_s, 60),
                ("series_max", metrics.series_max, 100_000),
            ] {
                if !(1..=high).contains(&value) {
                    return wrong(format!("{key}: {value} is not from 1 to {high}"));
                }
            }
            for (key, expression) in metrics.expressions() {
                if let Some(Err(e)) = expression.map(|e| Regex::new(e)) {
                    return wrong(format!("{key}: not a regular expression: {e}"));
                }
            }
            if let Some(service) = &metrics.service
                && !self.target.services.iter().any(|s| s.name == *service)
            {
                return wrong(format!("there is no service `{service}`"));
            }
        }
        Ok(())
    }

    /// What is read, with the tokens that the environment holds. The configuration was checked.
    pub(crate) fn scrape_targets(
        &self,
        environment: &Environment,
    ) -> Result<Vec<ScrapeTarget>, String> {
        let target = |metrics: &MetricsSection| {
            let regex = |text: &Option<String>| text.as_ref().and_then(|t| Regex::new(t).ok());
            let token = match &metrics.token_env {
                Some(name) => {
                    let token = environment.get(name).ok_or_else(|| {
                        format!(
                            "metrics {}: {name}, which holds its token, is not set",
                            metrics.name
                        )
                    })?;
                    Some(token.to_owned().into())
                }
                None => None,
            };
            let url = if metrics.url.starts_with('/') {
                self.resolved.url(&metrics.url)
            } else {
                None
            };
            Ok(ScrapeTarget {
                service: metrics.service.as_deref().map(Arc::from),
                every: Duration::from_secs(metrics.every_s),
                timeout: Duration::from_secs(metrics.timeout_s),
                series_max: usize::try_from(metrics.series_max).unwrap_or(usize::MAX),
                include: regex(&metrics.include),
                exclude: regex(&metrics.exclude),
                token,
                ..ScrapeTarget::new(
                    metrics.name.as_str(),
                    url.unwrap_or_else(|| metrics.url.clone()),
                )
            })
        };
        self.watchdog.metrics.iter().map(target).collect()
    }

    /// Names of environment variables that hold tokens of metrics.
    pub(super) fn metrics_secrets(&self) -> impl Iterator<Item = String> + '_ {
        self.watchdog
            .metrics
            .iter()
            .filter_map(|m| m.token_env.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigError, load_text};
    use super::*;

    const LEAST: &str = "[target]\nbase_url = \"http://127.0.0.1:8000\"\n\n[[target.services]]\nname = \"web\"\n\
         command = [\"true\"]\n\n[[watchdog.metrics]]\nname = \"node\"\n";

    fn read(text: &str) -> Result<Config, ConfigError> {
        let environment = Environment::default();
        load_text(
            &format!("{LEAST}{text}\n"),
            "x",
            Path::new("/srv"),
            &environment,
        )
    }

    #[test]
    fn a_name_and_an_address_are_enough() {
        let config = read("url = \"/metrics\"").unwrap();
        let targets = config.scrape_targets(&Environment::default()).unwrap();
        assert_eq!(targets[0].url, "http://127.0.0.1:8000/metrics");
        assert_eq!((&*targets[0].name, targets[0].series_max), ("node", 2_000));
        assert_eq!(targets[0].every, Duration::from_secs(10));
    }

    #[test]
    fn everything_that_is_given_is_taken() {
        let config = read(
            "url = \"http://h/m\"\nevery_s = 30\ntimeout_s = 2\nseries_max = 7\nservice = \"web\"\ninclude = \"^a\"\n\
             exclude = \"z$\"\ntoken_env = \"NODE_TOKEN\"",
        )
        .unwrap();
        assert!(config.secret_names().contains(&"NODE_TOKEN".to_owned()));
        let e = config.scrape_targets(&Environment::default()).unwrap_err();
        assert!(
            e.contains("NODE_TOKEN, which holds its token, is not set"),
            "{e}"
        );
        let environment = Environment::from_pairs([("NODE_TOKEN".to_owned(), "secret".to_owned())]);
        let target = config.scrape_targets(&environment).unwrap().remove(0);
        assert_eq!(target.token.unwrap().as_str(), "secret");
        assert_eq!(target.service.as_deref(), Some("web"));
        assert!(target.include.unwrap().is_match("ab") && target.exclude.unwrap().is_match("az"));
        assert_eq!(
            (
                target.every.as_secs(),
                target.timeout.as_secs(),
                target.series_max
            ),
            (30, 2, 7)
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, words) in [
            ("url = \"metrics\"", "neither an address"),
            (
                "url = \"/m\"\nevery_s = 0",
                "every_s: 0 is not from 1 to 3600",
            ),
            ("url = \"/m\"\ntimeout_s = 61", "timeout_s: 61 is not"),
            ("url = \"/m\"\nseries_max = 0", "series_max: 0 is not"),
            (
                "url = \"/m\"\ninclude = \"(\"",
                "include: not a regular expression",
            ),
            ("url = \"/m\"\nservice = \"db\"", "there is no service `db`"),
            (
                "url = \"/m\"\n[[watchdog.metrics]]\nname = \"node\"\nurl = \"/m\"",
                "or taken",
            ),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.message.contains(words), "{text}: {e}");
            assert!(
                e.place.starts_with("x:8:") || e.place.starts_with("x:11:"),
                "{text}: {e}"
            );
        }
    }
}
