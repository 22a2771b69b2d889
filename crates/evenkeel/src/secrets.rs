//! Which environment variables are secrets: those the configuration names, and those that playbooks fill in as
//! `${secret.NAME}` at the moment of acting.

use std::collections::BTreeMap;

use crate::config::{Config, Environment};
use crate::playbooks::Known;

/// Name and value of every secret that is set.
pub fn collect(
    config: &Config,
    environment: &Environment,
    playbooks: &[Known],
) -> BTreeMap<String, String> {
    let mut names = config.secret_names();
    for known in playbooks {
        names.extend(named_in(&known.text));
    }
    names
        .into_iter()
        .filter_map(|name| {
            let value = environment.get(&name)?.to_owned();
            Some((name, value))
        })
        .collect()
}

fn named_in(text: &str) -> impl Iterator<Item = String> {
    text.split("${secret.").skip(1).filter_map(|rest| {
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_named_in_playbooks_are_found() {
        let names: Vec<String> =
            named_in("a: ${secret.ONE} b: 'Bearer ${secret.TWO}' c: ${params.x}").collect();
        assert_eq!(names, ["ONE", "TWO"]);
    }
}
