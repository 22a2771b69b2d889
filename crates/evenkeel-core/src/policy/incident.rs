//! Which anomalies are one incident: what has one cause is healed once.
//!
//! A service that is down explains its own errors, latency and missing telemetry, and everything that is wrong with
//! what depends on it. Any trouble of a dependency explains the same or a lesser trouble of its users. Nothing else is
//! guessed.

use std::collections::{BTreeMap, BTreeSet};

use crate::anomaly::{Anomaly, AnomalyType};

/// A service, or something outside the target that services depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it directly depends on, by name.
    pub depends_on: BTreeSet<String>,
    /// The service that it is an instance of; its own name where there is only one.
    pub instance_of: String,
    /// It is not the target's: it is watched, and never acted on.
    pub outside: bool,
}

/// The target's services and dependencies, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Every one of them.
    pub nodes: BTreeMap<String, Node>,
    /// The service that answers for the target: where a finding names none, it is about this one.
    pub front: Option<String>,
}

/// How much a symptom explains: what is worse explains what is less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Missing,
    Latency,
    Errors,
    Hung,
    Down,
}

fn weight(kind: &AnomalyType) -> Option<Weight> {
    Some(match kind.as_str() {
        AnomalyType::TARGET_DOWN => Weight::Down,
        AnomalyType::TARGET_HUNG => Weight::Hung,
        AnomalyType::ERROR_RATE_SPIKE
        | AnomalyType::HEALTH_ENDPOINT_FAILURE
        | AnomalyType::DB_POOL_EXHAUSTION
        | AnomalyType::MULTIMODAL_FAILURE
        | AnomalyType::METRICS_FAILURE
        | AnomalyType::EVENT_MESH_FAILURE => Weight::Errors,
        AnomalyType::LATENCY_SPIKE | AnomalyType::GOVERNANCE_LATENCY => Weight::Latency,
        AnomalyType::TELEMETRY_MISSING | AnomalyType::DRIFT => Weight::Missing,
        _ => return None,
    })
}

impl Topology {
    /// The service that a finding is about, where that can be told.
    pub fn service_of<'a>(&'a self, anomaly: &'a Anomaly) -> Option<&'a str> {
        anomaly.service.as_deref().or(self.front.as_deref())
    }

    /// Everything that `name` stands on, directly or not, itself not among it.
    pub fn stands_on(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            let Some(node) = self.nodes.get(next) else {
                continue;
            };
            for below in &node.depends_on {
                if below != name && found.insert(below.as_str()) {
                    open.push(below);
                }
            }
        }
        found
    }

    /// The instances of the service that `name` is an instance of, itself among them.
    pub fn instances(&self, name: &str) -> BTreeSet<&str> {
        let of = self.nodes.get(name).map(|n| n.instance_of.as_str());
        let mut all: BTreeSet<&str> = self
            .nodes
            .iter()
            .filter(|(_, n)| of == Some(n.instance_of.as_str()))
            .map(|(k, _)| k.as_str())
            .collect();
        if all.is_empty() {
            all = self
                .nodes
                .get_key_value(name)
                .map(|(k, _)| k.as_str())
                .into_iter()
                .collect();
        }
        all
    }

    /// Whether this is a dependency outside the target.
    pub fn is_outside(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|n| n.outside)
    }

    /// Whether `cause` explains `other`.
    pub fn explains(&self, cause: &Anomaly, other: &Anomaly) -> bool {
        let (Some(strong), Some(weak)) = (weight(&cause.kind), weight(&other.kind)) else {
            return false;
        };
        let (Some(below), Some(above)) = (self.service_of(cause), self.service_of(other)) else {
            return false;
        };
        if below == above {
            // Of one service only being gone or deaf explains the rest.
            return strong >= Weight::Hung && weak < strong;
        }
        self.stands_on(above).contains(below) && weak <= strong
    }

    /// The cause among `known` that explains `anomaly` and is itself explained by none of them: the root.
    pub fn root_of<'a>(&self, anomaly: &Anomaly, known: &'a [Anomaly]) -> Option<&'a Anomaly> {
        let mut root = known.iter().find(|c| self.explains(c, anomaly))?;
        // Each turn goes to a cause further down; a circle of services ends it.
        for _ in 0..known.len() {
            match known.iter().find(|c| self.explains(c, root)) {
                Some(deeper) if !self.explains(root, deeper) => root = deeper,
                _ => break,
            }
        }
        Some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::Severity;
    use crate::time::Timestamp;

    fn topology() -> Topology {
        let node = |on: &[&str], of: &str| Node {
            depends_on: on.iter().map(|s| (*s).to_owned()).collect(),
            instance_of: of.to_owned(),
            outside: false,
        };
        Topology {
            nodes: [
                ("api-1", node(&["db"], "api")),
                ("api-2", node(&["db"], "api")),
                ("web", node(&["api-1", "api-2"], "web")),
                ("db", node(&[], "db")),
            ]
            .into_iter()
            .map(|(k, n)| (k.to_owned(), n))
            .collect(),
            front: Some("web".to_owned()),
        }
    }

    fn anomaly(kind: &'static str, service: Option<&str>) -> Anomaly {
        Anomaly {
            kind: AnomalyType::known(kind),
            severity: Severity::High,
            current: 1.0,
            threshold: 0.5,
            details: String::new(),
            unit: String::new(),
            baseline: None,
            test: None,
            series: None,
            service: service.map(str::to_owned),
            since: Timestamp::default(),
            score: None,
            context: serde_json::Value::Null,
        }
    }

    #[test]
    fn what_is_down_explains_itself_and_those_above() {
        let t = topology();
        let down = anomaly(AnomalyType::TARGET_DOWN, Some("db"));
        for (kind, service) in [
            (AnomalyType::ERROR_RATE_SPIKE, Some("api-1")),
            (AnomalyType::TARGET_DOWN, Some("api-2")),
            (AnomalyType::LATENCY_SPIKE, None),
            (AnomalyType::LATENCY_SPIKE, Some("db")),
            (AnomalyType::TELEMETRY_MISSING, Some("web")),
        ] {
            assert!(
                t.explains(&down, &anomaly(kind, service)),
                "{kind} {service:?}"
            );
        }
        // Not what lies below, not a leak, and not itself.
        assert!(!t.explains(&anomaly(AnomalyType::TARGET_DOWN, Some("web")), &down));
        assert!(!t.explains(&down, &anomaly(AnomalyType::MEMORY_GROWTH, Some("api-1"))));
        assert!(!t.explains(&down, &down));
    }

    #[test]
    fn a_lesser_trouble_explains_no_greater_one() {
        let t = topology();
        let slow = anomaly(AnomalyType::LATENCY_SPIKE, Some("db"));
        assert!(t.explains(&slow, &anomaly(AnomalyType::LATENCY_SPIKE, Some("web"))));
        assert!(!t.explains(&slow, &anomaly(AnomalyType::ERROR_RATE_SPIKE, Some("web"))));
        // Slowness of a service does not explain its own errors.
        assert!(!t.explains(&slow, &anomaly(AnomalyType::ERROR_RATE_SPIKE, Some("db"))));
    }

    #[test]
    fn the_root_is_the_deepest_cause() {
        let t = topology();
        let known = [
            anomaly(AnomalyType::ERROR_RATE_SPIKE, Some("api-1")),
            anomaly(AnomalyType::TARGET_DOWN, Some("db")),
        ];
        let user = anomaly(AnomalyType::ERROR_RATE_SPIKE, Some("web"));
        let root = t.root_of(&user, &known).unwrap();
        assert_eq!(root.service.as_deref(), Some("db"));
        assert!(t.root_of(&known[1], &known).is_none());
    }

    #[test]
    fn a_circle_of_services_ends() {
        let mut t = topology();
        t.nodes
            .get_mut("db")
            .unwrap()
            .depends_on
            .insert("web".into());
        let known = ["db", "web", "api-1"].map(|s| anomaly(AnomalyType::TARGET_DOWN, Some(s)));
        assert!(t.root_of(&known[0], &known).is_some());
    }

    #[test]
    fn instances_are_those_of_one_service() {
        let t = topology();
        assert_eq!(t.instances("api-1").len(), 2);
        assert_eq!(t.instances("web").len(), 1);
        assert_eq!(t.instances("unknown").len(), 0);
    }
}
