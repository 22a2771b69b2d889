//! `evenkeel check`: the configuration and the playbooks, and nothing is started.

use serde_json::json;

use super::table::print;
use super::{Exit, Failure, Global};
use crate::config::{self, Config, Environment};
use crate::playbooks::{self, Known};

/// Reads configuration and playbooks as every command that acts does.
pub(super) fn configuration(global: &Global) -> Result<(Config, Environment, Vec<Known>), Failure> {
    let dir = global
        .config
        .parent()
        .map_or_else(Default::default, std::path::Path::to_path_buf);
    let environment = Environment::read(&dir);
    let config = config::load(&global.config, &environment)?;
    let tests: Vec<String> = config.tests().into_iter().map(|t| t.name).collect();
    let known = playbooks::load(&config.base.join(&config.healing.playbooks), &tests)?;
    Ok((config, environment, known))
}

pub(super) fn check(global: &Global) -> Result<Exit, Failure> {
    let (config, _, known) = configuration(global)?;
    let tests = config.tests();
    let ready: Vec<&str> = tests
        .iter()
        .filter(|t| t.missing.is_none())
        .map(|t| t.name.as_str())
        .collect();
    let skipped: Vec<(&str, &str)> = tests
        .iter()
        .filter_map(|t| Some((t.name.as_str(), t.missing.as_deref()?)))
        .collect();
    if global.json {
        print(
            &json!({
                "config": global.config.display().to_string(), "target": config.resolved.name,
                "mode": config.healing.mode,
                "services": config.resolved.services.iter().map(|s| &s.name).collect::<Vec<_>>(),
                "tests": ready, "tests_skipped": skipped.iter().map(|(t, why)| json!({"test": t, "why": why})).collect::<Vec<_>>(),
                "playbooks": known.iter().map(|k| &k.playbook.name).collect::<Vec<_>>(),
            })
            .to_string(),
        );
        return Ok(Exit::Healthy);
    }
    print(&format!("{}: good", global.config.display()));
    print(&format!(
        "  target {} with {} service(s); {} of {} stress tests can run; {} playbooks ({} of your own)",
        config.resolved.name,
        config.resolved.services.len(),
        ready.len(),
        tests.len(),
        known.len(),
        known.iter().filter(|k| k.origin != "built-in").count()
    ));
    print(&format!("  mode {}", config.healing.mode));
    for (test, why) in skipped {
        print(&format!("  skipped: {test}: {why}"));
    }
    Ok(Exit::Healthy)
}
