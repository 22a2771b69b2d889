//! `[[watchdog.sql]]`: what may be asked of which database.

use evenkeel_edge::collect::sql::SQL_SERIES_MAX;
use evenkeel_edge::target::confine;

use super::Config;
use super::load::Mistake;

impl Config {
    /// Checks the questions, and lets the paths of their databases start at the target's root, which they may not
    /// lead out of.
    pub(super) fn resolve_sql(&mut self) -> Result<(), Mistake> {
        let root = self.resolved.root.clone();
        let services = &self.target.services;
        let queries = &mut self.watchdog.sql;
        let at = |parts: &[&str]| {
            let below = parts.iter().map(|p| (*p).to_owned());
            ["watchdog", "sql"]
                .map(str::to_owned)
                .into_iter()
                .chain(below)
                .collect()
        };
        if queries.len() > SQL_SERIES_MAX {
            return Err((
                at(&[]),
                format!("more than {SQL_SERIES_MAX} of them are not asked"),
            ));
        }
        for i in 0..queries.len() {
            let (before, rest) = queries.split_at_mut(i);
            let Some(query) = rest.first_mut() else { break };
            query
                .validate()
                .map_err(|(key, message)| (at(&[&query.name, key]), message))?;
            if before.iter().any(|other| other.name == query.name) {
                return Err((
                    at(&[&query.name]),
                    format!("the name `{}` stands twice", query.name),
                ));
            }
            if let Some(service) = &query.service
                && !services.iter().any(|s| s.name == *service)
            {
                let message = format!("there is no service `{service}`");
                return Err((at(&[&query.name, "service"]), message));
            }
            let Some(path) = confine(&root, &query.database) else {
                let message = format!(
                    "`{}` leads out of the target's root {}",
                    query.database.display(),
                    root.display()
                );
                return Err((at(&[&query.name, "database"]), message));
            };
            query.database = path;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ConfigError, Environment, load_text};

    const GOOD: &str = r#"
[[target.services]]
name = "api"
command = ["serve"]

[[watchdog.sql]]
name = "jobs"
database = "data/app.db"
query = "SELECT count(*) FROM jobs"
service = "api"

[[watchdog.sql]]
name = "age"
database = "data/app.db"
query = "SELECT state, max(age) FROM jobs GROUP BY state"
every_s = 5
"#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        load_text(text, "x", Path::new("/srv/app"), &Environment::default())
    }

    #[test]
    fn questions_are_read_and_their_paths_start_at_the_root() {
        let config = read(GOOD).unwrap();
        let [jobs, age] = &config.watchdog.sql[..] else {
            panic!("two were given");
        };
        assert_eq!(jobs.database, Path::new("/srv/app/data/app.db"));
        assert_eq!((jobs.every_s, jobs.service.as_deref()), (60, Some("api")));
        assert_eq!((age.every_s, age.service.as_deref()), (5, None));
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        for (from, to, place, words) in [
            ("\"jobs\"", "\"Jobs 1\"", "x:7:1", "cannot name a series"),
            ("\"age\"", "\"jobs\"", "x:6:1", "stands twice"),
            (
                "data/app.db\"\nquery = \"SELECT count",
                "../app.db\"\nquery = \"SELECT count",
                "x:8:1",
                "leads out",
            ),
            (
                "data/app.db\"\nquery = \"SELECT count",
                "/etc/app.db\"\nquery = \"SELECT count",
                "x:8:1",
                "leads out",
            ),
            (
                "service = \"api\"",
                "service = \"web\"",
                "x:10:1",
                "no service `web`",
            ),
            (
                "every_s = 5",
                "every_s = 0",
                "x:16:1",
                "not from 1 to 86400",
            ),
            ("every_s = 5", "every = 5", "x:16:1", "every_s"),
            ("SELECT count(*) FROM jobs", " ", "x:9:1", "give one SELECT"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let shown = read(&text).unwrap_err().to_string();
            assert!(
                shown.starts_with(place) && shown.contains(words),
                "{to}: {shown}"
            );
        }
        let many: String = (0..65)
            .map(|i| {
                format!("[[watchdog.sql]]\nname = 'n{i}'\ndatabase = 'd'\nquery = 'SELECT 1'\n")
            })
            .collect::<Vec<_>>()
            .concat();
        let head = "[target]\nbase_url = 'http://h'\n";
        let e = read(&format!("{head}{many}")).unwrap_err();
        assert!(e.message.contains("more than 64"), "{e}");
    }
}
