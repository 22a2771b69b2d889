//! The guarded target as the configuration describes it: services, endpoints, database, files, tunables.
//!
//! Plain data with serde; paths are resolved once by [`Target::resolve`] and confined to the target's root where
//! a playbook can name them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The target: one or several services that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// What people call it.
    pub name: String,
    /// Directory that relative paths below start from; the configuration file's own directory when absent.
    pub root: PathBuf,
    /// Where it answers, such as `http://127.0.0.1:8000`.
    pub base_url: Option<String>,
    /// Its services, in the order they are started when `depends_on` does not say otherwise.
    pub services: Vec<ServiceSpec>,
    /// Its SQLite database, if it has one.
    pub database: Option<DatabaseSpec>,
    /// Configuration files that playbooks may change and snapshots keep.
    pub config_files: Vec<PathBuf>,
    /// Values that playbooks may tune, by name.
    pub tunables: BTreeMap<String, Tunable>,
    /// Log files to follow: JSON lines or plain text.
    pub logs: Vec<PathBuf>,
}

/// One service (process) of the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name: 1 to 64 of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// Program and arguments. Absent: Evenkeel only attaches to a running process, and cannot start it again.
    #[serde(default)]
    pub command: Vec<String>,
    /// Working directory; the target's root when absent.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Environment on top of Evenkeel's own (without Evenkeel's secrets).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Services that must be ready before this one is started.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// What else it stands on while it runs: services, or dependencies outside the target. Trouble there explains
    /// trouble here. Whatever `depends_on` names counts too.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The service that this is one of several instances of; its own name when absent.
    #[serde(default)]
    pub instance_of: Option<String>,
    /// When it counts as ready. Absent: as soon as it runs.
    #[serde(default)]
    pub ready: Option<ReadySpec>,
    /// Attach to the process whose number stands in this file.
    #[serde(default)]
    pub pid_file: Option<PathBuf>,
    /// Attach to the process that listens on this TCP port of loopback.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where its standard output and error go; `logs/<name>.out` below the data directory when absent.
    #[serde(default)]
    pub output: Option<PathBuf>,
    /// How long it may take to get ready, in milliseconds.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u64,
    /// How long it has to stop by itself before it is killed, in milliseconds.
    #[serde(default = "default_stop_timeout_ms")]
    pub stop_timeout_ms: u64,
}

/// What shows that a service is ready: exactly one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadySpec {
    /// A GET of this address (or path below `base_url`) answers 200 to 299.
    pub http: Option<String>,
    /// This TCP port of loopback accepts a connection.
    pub port: Option<u16>,
}

/// The target's SQLite database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    /// The database file.
    pub path: PathBuf,
    /// A read-only query for the direct pool test; `SELECT count(*) FROM sqlite_master` when absent.
    #[serde(default)]
    pub query: Option<String>,
    /// Programs that Evenkeel may stop when they hold the database locked: each is looked for as a part of the
    /// holder's command line. The target's own services are never stopped this way. Empty: none may be stopped.
    #[serde(default)]
    pub may_stop_lock_holders: Vec<String>,
}

/// A value of the target's configuration that playbooks may tune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunable {
    /// One of `config_files`.
    pub file: PathBuf,
    /// Dotted key in that file.
    pub key: String,
    /// Smallest value a playbook may set.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest value a playbook may set.
    #[serde(default)]
    pub max: Option<f64>,
    /// The service to restart before a change counts; the primary one when absent.
    #[serde(default)]
    pub service: Option<String>,
}

fn default_start_timeout_ms() -> u64 {
    30_000
}
fn default_stop_timeout_ms() -> u64 {
    5_000
}

/// Something in the target's description that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[target] {at}: {reason}")]
pub struct TargetError {
    /// The key, such as `services.api.depends_on`.
    pub at: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Target {
    /// Checks names and references, and makes every path absolute below `base` (the configuration's directory).
    pub fn resolve(mut self, base: &Path) -> Result<Self, TargetError> {
        let err = |at: String, reason: String| Err(TargetError { at, reason });
        self.root = base.join(&self.root);
        let root = self.root.clone();
        let names: Vec<String> = self.services.iter().map(|s| s.name.clone()).collect();
        for (i, s) in self.services.iter_mut().enumerate() {
            let at = |key: &str| format!("services.{}.{key}", s.name);
            let name_ok = (1..=64).contains(&s.name.len())
                && s.name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
            if !name_ok {
                return err(
                    format!("services[{i}].name"),
                    format!(
                        "`{}` cannot name a service: use 1 to 64 of a-z, 0-9, _ and -",
                        s.name
                    ),
                );
            }
            if names[..i].contains(&s.name) {
                return err(at("name"), "two services have this name".into());
            }
            if s.command.is_empty() && s.pid_file.is_none() && s.port.is_none() {
                return err(
                    at("command"),
                    "give a `command` to start it, or a `pid_file` or `port` to attach to it"
                        .into(),
                );
            }
            for d in &s.depends_on {
                if !names.contains(d) {
                    return err(at("depends_on"), format!("there is no service `{d}`"));
                }
            }
            if let Some(r) = &s.ready
                && r.http.is_some() == r.port.is_some()
            {
                return err(at("ready"), "set exactly one of `http` and `port`".into());
            }
            s.cwd = Some(
                s.cwd
                    .as_ref()
                    .map_or_else(|| root.clone(), |c| root.join(c)),
            );
            s.pid_file = s.pid_file.as_ref().map(|p| root.join(p));
            s.output = s.output.as_ref().map(|p| root.join(p));
        }
        if self.start_order().is_none() {
            return err(
                "services.depends_on".into(),
                "the services depend on each other in a circle".into(),
            );
        }
        if let Some(db) = &mut self.database {
            db.path = root.join(&db.path);
        }
        for file in &mut self.config_files {
            *file = confine(&root, file).ok_or_else(|| TargetError {
                at: "config_files".into(),
                reason: format!(
                    "`{}` leads out of the target's root {}",
                    file.display(),
                    root.display()
                ),
            })?;
        }
        for (name, t) in &mut self.tunables {
            let file = confine(&root, &t.file).unwrap_or_default();
            if !self.config_files.contains(&file) {
                return err(
                    format!("tunables.{name}.file"),
                    format!("`{}` is not one of `config_files`", t.file.display()),
                );
            }
            t.file = file;
            if let Some(s) = t.service.as_ref().filter(|s| !names.contains(s)) {
                return err(
                    format!("tunables.{name}.service"),
                    format!("there is no service `{s}`"),
                );
            }
        }
        for log in &mut self.logs {
            *log = root.join(&*log);
        }
        Ok(self)
    }

    /// The services, each after those it depends on; `None` when they depend on each other in a circle.
    pub fn start_order(&self) -> Option<Vec<&ServiceSpec>> {
        let mut order: Vec<&ServiceSpec> = Vec::with_capacity(self.services.len());
        while order.len() < self.services.len() {
            let next = self.services.iter().find(|s| {
                !order.iter().any(|o| o.name == s.name)
                    && s.depends_on
                        .iter()
                        .all(|d| order.iter().any(|o| &o.name == d))
            })?;
            order.push(next);
        }
        Some(order)
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceSpec> {
        self.services.iter().find(|s| s.name == name)
    }

    /// The first service: the one a playbook means by `primary`.
    pub fn primary(&self) -> Option<&ServiceSpec> {
        self.services.first()
    }

    /// An address: `path_or_url` itself when it is whole, else below `base_url`.
    pub fn url(&self, path_or_url: &str) -> Option<String> {
        if path_or_url.starts_with("http://") || path_or_url.starts_with("https://") {
            return Some(path_or_url.to_owned());
        }
        let base = self.base_url.as_deref()?.trim_end_matches('/');
        Some(format!("{base}/{}", path_or_url.trim_start_matches('/')))
    }
}

/// `path` below `root`, unless it leads out of it by `..` or by being absolute somewhere else.
pub fn confine(root: &Path, path: &Path) -> Option<PathBuf> {
    let joined = root.join(path);
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean.starts_with(normal(root)).then_some(clean)
}

fn normal(path: &Path) -> PathBuf {
    path.components()
        .filter(|c| *c != Component::CurDir)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, depends_on: &[&str]) -> ServiceSpec {
        ServiceSpec {
            name: name.into(),
            command: vec!["true".into()],
            cwd: None,
            env: BTreeMap::new(),
            depends_on: depends_on.iter().map(|s| (*s).to_owned()).collect(),
            needs: Vec::new(),
            instance_of: None,
            ready: None,
            pid_file: None,
            port: None,
            output: None,
            start_timeout_ms: 1,
            stop_timeout_ms: 1,
        }
    }

    #[test]
    fn services_start_after_what_they_depend_on() {
        let t = Target {
            services: vec![service("web", &["db"]), service("db", &[])],
            ..Target::default()
        };
        let order: Vec<&str> = t
            .start_order()
            .unwrap()
            .iter()
            .map(|s| s.name.as_str())
            .collect();
        assert_eq!(order, ["db", "web"]);
        let circle = Target {
            services: vec![service("a", &["b"]), service("b", &["a"])],
            ..Target::default()
        };
        assert!(
            circle
                .resolve(Path::new("/x"))
                .unwrap_err()
                .reason
                .contains("circle")
        );
    }

    #[test]
    fn paths_are_confined_to_the_root() {
        let root = Path::new("/srv/app");
        assert_eq!(
            confine(root, Path::new("a/../b.toml")),
            Some("/srv/app/b.toml".into())
        );
        assert_eq!(
            confine(root, Path::new("/srv/app/c")),
            Some("/srv/app/c".into())
        );
        for out in ["../x", "/etc/passwd", "a/../../x"] {
            assert_eq!(confine(root, Path::new(out)), None, "{out}");
        }
        let t = Target {
            config_files: vec!["../evil".into()],
            ..Target::default()
        };
        assert!(t.resolve(root).is_err());
    }

    #[test]
    fn a_tunable_needs_a_known_file() {
        let t = Target {
            tunables: BTreeMap::from([(
                "workers".to_owned(),
                Tunable {
                    file: "x.toml".into(),
                    key: "a.b".into(),
                    min: None,
                    max: None,
                    service: None,
                },
            )]),
            ..Target::default()
        };
        assert!(
            t.resolve(Path::new("/srv"))
                .unwrap_err()
                .reason
                .contains("config_files")
        );
    }
}
