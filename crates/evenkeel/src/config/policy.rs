//! What the configuration says of modes, limits, windows and dependencies, as the core takes it.

use evenkeel_core::policy::incident::Node;
use evenkeel_core::policy::window::WINDOWS_MAX;
use evenkeel_core::{Policy, policy::Topology};
use serde::Deserialize;

use super::Config;

/// Most dependencies outside the target.
pub const DEPENDENCIES_MAX: usize = 64;

/// `[[target.dependencies]]`: something outside the target that its services depend on. It is watched and never acted
/// on: while it is down, what depends on it is left alone, and a person is called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependencySection {
    /// Its name, for `depends_on`.
    pub name: String,
    /// An address that answers 200 to 299 to a GET while it is well.
    #[serde(default)]
    pub http: Option<String>,
    /// `host:port` that takes a TCP connection while it is well.
    #[serde(default)]
    pub tcp: Option<String>,
}

/// `[api]`: orders and approvals over HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSection {
    /// Address to listen on, such as `127.0.0.1:8791`; absent: none.
    pub listen: Option<std::net::SocketAddr>,
    /// Allows an address that is not loopback.
    pub allow_remote: bool,
    /// File with the token that clients must send; made with a random one when it does not exist.
    pub token_file: Option<std::path::PathBuf>,
}

impl Config {
    /// What holds for every decision.
    pub fn policy(&self) -> Policy {
        let services = self.resolved.services.iter().map(|s| {
            let node = Node {
                depends_on: s.depends_on.iter().chain(&s.needs).cloned().collect(),
                instance_of: s.instance_of.clone().unwrap_or_else(|| s.name.clone()),
                outside: false,
            };
            (s.name.clone(), node)
        });
        let outside = self.target.dependencies.iter().map(|d| {
            let node = Node {
                instance_of: d.name.clone(),
                outside: true,
                ..Node::default()
            };
            (d.name.clone(), node)
        });
        let front = self.target.serves.api.clone();
        Policy {
            mode: self.healing.mode,
            playbook_modes: self.healing.modes.clone(),
            limits: self.limits,
            maintenance: self.maintenance.clone(),
            recurrence_window_ms: i64::try_from(
                self.healing.recurrence_window_s.saturating_mul(1_000),
            )
            .unwrap_or(i64::MAX),
            retry_wait_ms: self.healing.retry_wait_ms,
            topology: Topology {
                nodes: services.chain(outside).collect(),
                front: front.or_else(|| self.resolved.primary().map(|s| s.name.clone())),
            },
            target: self.resolved.name.clone(),
        }
    }

    /// What of it does not fit: the key, and why.
    pub(super) fn check_policy(&self) -> Result<(), (String, String)> {
        self.limits
            .check()
            .map_err(|e| (format!("limits.{}", e.key), e.to_string()))?;
        if self.maintenance.len() > WINDOWS_MAX {
            return Err((
                "maintenance".to_owned(),
                format!("at most {WINDOWS_MAX} windows"),
            ));
        }
        let dependencies = &self.target.dependencies;
        if dependencies.len() > DEPENDENCIES_MAX {
            return Err((
                "target.dependencies".to_owned(),
                format!("at most {DEPENDENCIES_MAX} dependencies"),
            ));
        }
        for (i, d) in dependencies.iter().enumerate() {
            let at = format!("target.dependencies.{}", d.name);
            if d.http.is_some() == d.tcp.is_some() {
                return Err((at, "exactly one of `http` and `tcp` is needed".to_owned()));
            }
            let taken = dependencies[..i].iter().any(|other| other.name == d.name)
                || self.target.services.iter().any(|s| s.name == d.name);
            if taken || d.name.is_empty() || d.name.len() > 64 {
                return Err((at, "its name is empty, too long, or taken".to_owned()));
            }
        }
        for s in &self.target.services {
            for name in &s.needs {
                let known = dependencies.iter().any(|d| d.name == *name)
                    || self.target.services.iter().any(|s| s.name == *name);
                if !known {
                    return Err((
                        format!("target.services.{}.needs", s.name),
                        format!("there is no service and no [[target.dependencies]] `{name}`"),
                    ));
                }
            }
        }
        if let Some(listen) = self.api.listen
            && !listen.ip().is_loopback()
            && !self.api.allow_remote
        {
            return Err((
                "api.listen".to_owned(),
                format!("{listen} is not a loopback address; `allow_remote = true` permits it"),
            ));
        }
        Ok(())
    }
}
