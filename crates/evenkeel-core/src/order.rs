//! What a person orders. An order is recorded like everything else, so it survives whatever ends Evenkeel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Mode;
use crate::time::Timestamp;

/// Most silences and locks that are remembered; the oldest goes first.
pub const ORDERS_MAX: usize = 256;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// How freely the healer acts; without a mode, as the configuration has it.
    SetMode {
        /// The mode.
        #[serde(default)]
        mode: Option<Mode>,
        /// Only for this playbook.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        playbook: Option<String>,
    },
    /// Hands off: no step and no rollback begins.
    Pause {
        /// Only this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Why, for whoever reads it.
        #[serde(default)]
        why: String,
    },
    /// The pause is over.
    Resume {
        /// Only that of this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
    /// Nothing is done and nobody is alerted about a type of anomaly for a while.
    Silence {
        /// The type, or a key such as `error_rate_spike/api`.
        what: String,
        /// Until when.
        until: Timestamp,
        /// Why.
        why: String,
    },
    /// A silence is over.
    Unsilence {
        /// What was silenced.
        what: String,
    },
    /// The breaker is closed again.
    ResetBreaker {
        /// Why it may be.
        #[serde(default)]
        why: String,
    },
    /// A person has repaired what was handed over: if it comes back, it is a new anomaly.
    Repaired {
        /// The type or the key; everything when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        what: Option<String>,
        /// What was done.
        #[serde(default)]
        why: String,
    },
    /// A person has put in order what a failed rollback left.
    Unstick {
        /// What was done.
        why: String,
    },
    /// A new version is there: what is usual may change now.
    MarkDeploy {
        /// Which.
        version: String,
        /// Only of this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
    /// What a series shows now is to be taken for healthy, errors too (SAFETY 17: nothing but a person says so).
    Relearn {
        /// The series; every series when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        series: Option<String>,
        /// Why it may be.
        why: String,
    },
}

impl Order {
    /// Its name, as records carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetMode { .. } => "set_mode",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Silence { .. } => "silence",
            Self::Unsilence { .. } => "unsilence",
            Self::ResetBreaker { .. } => "reset_breaker",
            Self::Repaired { .. } => "repaired",
            Self::Unstick { .. } => "unstick",
            Self::MarkDeploy { .. } => "mark_deploy",
            Self::Relearn { .. } => "relearn",
        }
    }
}

/// An order, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What.
    #[serde(flatten)]
    pub order: Order,
}

/// Somebody's word that holds until further notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when.
    pub at: Timestamp,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Until when, for a silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A mode that somebody ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedMode {
    /// The mode.
    pub mode: Mode,
    /// Who ordered it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The orders that stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Orders {
    /// The mode, where one was ordered.
    pub mode: Option<OrderedMode>,
    /// The modes of single playbooks.
    pub playbook_modes: BTreeMap<String, OrderedMode>,
    /// The pause of everything.
    pub paused: Option<Standing>,
    /// Services that nobody but a person touches.
    pub locked: BTreeMap<String, Standing>,
    /// Silences, by what is silenced.
    pub silences: BTreeMap<String, Standing>,
    /// The newest deploy of each service, by its name; of the whole target under the empty one. The reason is the
    /// version.
    pub deploys: BTreeMap<String, Standing>,
    /// When a person last had a series learned anew, by its name; all of them under the empty one.
    pub relearned: BTreeMap<String, Standing>,
}

impl Orders {
    /// Takes an order that concerns them.
    pub(crate) fn apply(&mut self, ordered: &Ordered) {
        let Ordered { at, by, order } = ordered;
        let (at, by) = (*at, by.clone());
        match order {
            Order::SetMode { mode, playbook } => {
                let ordered = mode.map(|mode| OrderedMode { mode, by, at });
                match (playbook, ordered) {
                    (None, ordered) => self.mode = ordered,
                    (Some(name), Some(ordered)) => {
                        make_room(&mut self.playbook_modes, name, |m| m.at);
                        self.playbook_modes.insert(name.clone(), ordered);
                    }
                    (Some(name), None) => {
                        self.playbook_modes.remove(name);
                    }
                }
            }
            Order::Pause { service, why } => {
                let standing = Standing {
                    at,
                    by,
                    why: why.clone(),
                    until: None,
                };
                match service {
                    None => self.paused = Some(standing),
                    Some(name) => {
                        make_room(&mut self.locked, name, |s| s.at);
                        self.locked.insert(name.clone(), standing);
                    }
                }
            }
            Order::Resume { service: None } => self.paused = None,
            Order::Resume {
                service: Some(name),
            } => {
                self.locked.remove(name);
            }
            Order::Silence { what, until, why } => {
                self.silences
                    .retain(|_, s| s.until.is_none_or(|until| until > at));
                make_room(&mut self.silences, what, |s| s.at);
                self.silences.insert(
                    what.clone(),
                    Standing {
                        at,
                        by,
                        why: why.clone(),
                        until: Some(*until),
                    },
                );
            }
            Order::Unsilence { what } => {
                self.silences.remove(what);
            }
            Order::MarkDeploy { version, service } => {
                mark(&mut self.deploys, service.as_deref(), version, at, by);
            }
            Order::Relearn { series, why } => {
                mark(&mut self.relearned, series.as_deref(), why, at, by);
            }
            Order::ResetBreaker { .. } | Order::Repaired { .. } | Order::Unstick { .. } => {}
        }
    }
}

/// Notes when something was said last of a name, or of everything.
fn mark(
    map: &mut BTreeMap<String, Standing>,
    name: Option<&str>,
    why: &str,
    at: Timestamp,
    by: String,
) {
    let name = name.unwrap_or("");
    make_room(map, name, |s| s.at);
    let why = why.to_owned();
    let until = None;
    map.insert(name.to_owned(), Standing { at, by, why, until });
}

/// Keeps a map of orders within its bound.
fn make_room<T>(map: &mut BTreeMap<String, T>, new: &str, at: impl Fn(&T) -> Timestamp) {
    while map.len() >= ORDERS_MAX && !map.contains_key(new) {
        let oldest = map
            .iter()
            .min_by_key(|(_, v)| at(v))
            .map(|(k, _)| k.clone());
        match oldest {
            Some(key) => map.remove(&key),
            None => return,
        };
    }
}
