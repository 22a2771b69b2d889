//! What is healed: configuration, services and one thing that a command makes larger, as numbers under names. It
//! does what a step really does, whole or half, and takes changes back as [`UndoOp`] promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use evenkeel_core::playbook::action::{Services, SetConfigArgs};
use evenkeel_core::playbook::{Action, KeyChange, UndoOp};
use serde_json::{Value, json};

use crate::rng::Rng;
use crate::trace::Extent;

/// Configuration keys.
pub const CONFIG: [&str; 2] = ["database.pool_size", "workers"];
/// Services: 1 when up, 0 when down.
pub const SERVICES: [&str; 2] = ["api", "worker"];
/// What the command `grow` adds one to: twice is not once.
pub const COUNTER: &str = "shards";

/// The state of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    state: BTreeMap<&'static str, i64>,
    meddled: BTreeSet<&'static str>,
    foreign: i64,
}

impl Target {
    /// A healthy one.
    pub fn new() -> Self {
        Self {
            state: BTreeMap::from([
                (CONFIG[0], 2),
                (CONFIG[1], 4),
                (SERVICES[0], 1),
                (SERVICES[1], 1),
                (COUNTER, 1),
            ]),
            meddled: BTreeSet::new(),
            foreign: 1_000_000,
        }
    }

    /// Whether nothing is different, but for what others changed.
    pub fn same_as(&self, other: &Self) -> bool {
        self.state
            .iter()
            .filter(|(k, _)| !self.meddled.contains(*k))
            .all(|(k, v)| other.state.get(k) == Some(v))
    }

    /// Somebody else changes a configuration key to a value that nobody else would choose.
    pub fn meddle(&mut self, rng: &mut Rng) -> &'static str {
        let key = rng.pick(CONFIG);
        self.foreign += 1;
        self.state.insert(key, self.foreign);
        self.meddled.insert(key);
        key
    }

    /// From here on, what others changed so far counts as how things are.
    pub fn forget_meddling(&mut self) {
        self.meddled.clear();
    }

    /// Makes an action concrete against the present state, with its undo.
    pub fn prepare(&self, action: &Action) -> (Action, Vec<UndoOp>) {
        match action {
            Action::SetTunable(a) => {
                let factor = a.factor.as_ref().and_then(Value::as_i64).unwrap_or(1);
                let now = self.value(&a.name);
                let after = json!(now.wrapping_mul(factor) % 100_000 + 1);
                self.prepare_config(BTreeMap::from([(a.name.clone(), after)]))
            }
            Action::SetConfig(a) => self.prepare_config(a.set.clone()),
            Action::Stop(a) => {
                let up: Vec<String> = names(&a.services)
                    .into_iter()
                    .filter(|s| self.value(s) == 1)
                    .collect();
                let undo = if up.is_empty() {
                    Vec::new()
                } else {
                    vec![UndoOp::StartServices { services: up }]
                };
                (action.clone(), undo)
            }
            Action::RunCommand(_) => {
                let before = self.value(COUNTER).to_string();
                let undo = UndoOp::Command {
                    argv: vec!["shrink".to_owned(), before],
                    cwd: PathBuf::from("/srv/app"),
                };
                (action.clone(), vec![undo])
            }
            other => (other.clone(), Vec::new()),
        }
    }

    fn prepare_config(&self, set: BTreeMap<String, Value>) -> (Action, Vec<UndoOp>) {
        let keys = set
            .iter()
            .map(|(key, after)| KeyChange {
                key: key.clone(),
                before: Some(json!(self.value(key))),
                after: after.clone(),
            })
            .collect();
        let undo = UndoOp::RestoreKeys {
            file: PathBuf::from("/srv/app/app.toml"),
            keys,
        };
        let args = SetConfigArgs {
            file: "app.toml".to_owned(),
            set,
        };
        (Action::SetConfig(args), vec![undo])
    }

    /// Does what a prepared action does.
    pub fn act(&mut self, action: &Action, extent: Extent) {
        if extent == Extent::Nothing {
            return;
        }
        match action {
            Action::SetConfig(a) => {
                let n = if extent == Extent::Half {
                    a.set.len().div_ceil(2)
                } else {
                    a.set.len()
                };
                for (key, value) in a.set.iter().take(n) {
                    self.put(key, value.as_i64().unwrap_or(0));
                }
            }
            // Half a stop is a stop that was not noticed.
            Action::Stop(a) => {
                for service in names(&a.services) {
                    self.put(&service, 0);
                }
            }
            Action::RunCommand(_) => self.put(COUNTER, self.value(COUNTER) + 1),
            _ => {}
        }
    }

    /// Takes changes back, the last one first, as the edge does; what could not be taken back is returned. `ops` are
    /// in the order in which the steps ran.
    pub fn take_back(&mut self, ops: &[UndoOp]) -> Vec<String> {
        let mut errors = Vec::new();
        // A key goes back to where its chain of changes began, if it holds any value that is ours.
        let mut chains: BTreeMap<&str, Vec<Option<i64>>> = BTreeMap::new();
        for op in ops {
            if let UndoOp::RestoreKeys { keys, .. } = op {
                for change in keys {
                    let ours = [
                        change.before.as_ref().and_then(Value::as_i64),
                        change.after.as_i64(),
                    ];
                    chains.entry(&change.key).or_default().extend(ours);
                }
            }
        }
        for (key, ours) in chains {
            if ours.contains(&Some(self.value(key))) {
                self.put(key, ours.first().copied().flatten().unwrap_or(0));
            } else {
                errors.push(format!("{key} was changed by somebody else"));
            }
        }
        for op in ops.iter().rev() {
            match op {
                UndoOp::StartServices { services } => {
                    for service in services {
                        self.put(service, 1);
                    }
                }
                UndoOp::Command { argv, .. } => {
                    let before = argv.get(1).and_then(|v| v.parse().ok());
                    self.put(COUNTER, before.unwrap_or(0));
                }
                _ => {}
            }
        }
        errors
    }

    fn value(&self, key: &str) -> i64 {
        self.state.get(key).copied().unwrap_or(0)
    }

    fn put(&mut self, key: &str, value: i64) {
        if let Some(slot) = self.state.get_mut(key) {
            *slot = value;
        }
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether doing it twice is doing it once: the world's own view, which plans copy and the checkers rely on.
pub fn repeatable(action: &Action) -> bool {
    !matches!(action, Action::RunCommand(_))
}

fn names(services: &Services) -> Vec<String> {
    match services {
        Services::One(name) => vec![name.clone()],
        Services::Many(names) => names.clone(),
    }
}
