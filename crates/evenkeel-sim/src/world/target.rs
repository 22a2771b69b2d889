//! What acting changes and a rollback puts back: settings in a file, and things that only a program or a statement
//! changes. Services are apart, in [`super::service`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use evenkeel_core::playbook::action::SetConfigArgs;
use evenkeel_core::playbook::{Action, KeyChange, UndoOp};
use serde_json::{Value, json};

use crate::rng::Rng;
use crate::trace::Extent;

/// Settings that playbooks know as tunables, with the values a healthy target was set up with.
pub const TUNABLES: [(&str, i64); 10] = [
    ("workers", 8),
    ("queue", 32),
    ("db_pool_size", 10),
    ("db_pool_timeout_s", 5),
    ("rate_limit", 100_000),
    ("rate_limit_burst", 100),
    ("cache_max_entries", 1_000),
    ("upstream_timeout_ms", 10_000),
    ("chat_max_concurrent", 8),
    ("governance_cache_entries", 256),
];
/// The file they stand in.
pub const FILE: &str = "/srv/app/app.toml";
/// Keys of that file that plans of the user set at once, and that nobody uses.
pub const OWN_KEYS: [&str; 2] = ["feature.one", "feature.two"];

/// The state of the target, as far as it is changed by acting.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Settings by key.
    pub settings: BTreeMap<String, Value>,
    /// How often a program or a statement was run whose effect only it knows, less how often it was taken back.
    pub marks: BTreeMap<String, i64>,
    /// Services that a step stopped and nobody started since.
    pub held: BTreeSet<usize>,
}

/// A target with what is needed to change it and to take changes back.
#[derive(Clone, Debug)]
pub struct Ground {
    /// As it is.
    pub target: Target,
    meddled: BTreeSet<String>,
    /// Marks that nothing takes back: whoever wrote the plan said so.
    for_good: BTreeSet<String>,
    foreign: i64,
    /// What a text that takes something back puts back: the mark, and its value then.
    undo_book: BTreeMap<String, (String, i64)>,
}

impl Ground {
    /// A healthy one.
    pub fn new() -> Self {
        let settings = TUNABLES
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .chain(OWN_KEYS.iter().map(|key| ((*key).to_owned(), json!(1))))
            .collect();
        Self {
            target: Target {
                settings,
                marks: BTreeMap::new(),
                held: BTreeSet::new(),
            },
            meddled: BTreeSet::new(),
            for_good: BTreeSet::new(),
            foreign: 1_000_000,
            undo_book: BTreeMap::new(),
        }
    }

    /// A setting as a number; 0 when it is none.
    pub fn number(&self, key: &str) -> i64 {
        self.target
            .settings
            .get(key)
            .and_then(Value::as_i64)
            .unwrap_or(0)
    }

    /// Whether nothing is different, but for what others changed.
    pub fn same_as(&self, other: &Target) -> bool {
        let zero = |map: &BTreeMap<String, i64>| {
            map.iter()
                .filter(|(k, n)| **n != 0 && !self.for_good.contains(*k))
                .map(|(k, n)| (k.clone(), *n))
                .collect::<Vec<_>>()
        };
        let settings_same = self
            .target
            .settings
            .keys()
            .chain(other.settings.keys())
            .filter(|k| !self.meddled.contains(*k))
            .all(|k| self.target.settings.get(k) == other.settings.get(k));
        settings_same
            && zero(&self.target.marks) == zero(&other.marks)
            && self.target.held.is_subset(&other.held)
    }

    /// Somebody else changes a setting to a value that nobody else would choose.
    pub fn meddle(&mut self, rng: &mut Rng) -> String {
        let key = rng
            .pick(["workers", "db_pool_size", OWN_KEYS[0]])
            .to_owned();
        self.foreign += 1;
        self.target
            .settings
            .insert(key.clone(), json!(self.foreign));
        self.meddled.insert(key.clone());
        key
    }

    /// From here on what others changed before is part of the state.
    pub fn forget_meddling(&mut self) {
        self.meddled.clear();
    }

    /// A change of settings, with its undo.
    pub fn prepare_config(&self, set: BTreeMap<String, Value>) -> (Action, Vec<UndoOp>) {
        let keys = set
            .iter()
            .map(|(key, after)| KeyChange {
                key: key.clone(),
                before: self.target.settings.get(key).cloned(),
                after: after.clone(),
            })
            .collect();
        let undo = UndoOp::RestoreKeys {
            file: PathBuf::from(FILE),
            keys,
        };
        let args = SetConfigArgs {
            file: "app.toml".to_owned(),
            set,
        };
        (Action::SetConfig(args), vec![undo])
    }

    /// Sets keys, or a part of them.
    pub fn set(&mut self, set: &BTreeMap<String, Value>, extent: Extent) {
        let n = match extent {
            Extent::Nothing => 0,
            Extent::Half => set.len().div_ceil(2),
            Extent::Whole => set.len(),
        };
        for (key, value) in set.iter().take(n) {
            self.target.settings.insert(key.clone(), value.clone());
        }
    }

    /// Remembers what `undo` would put `mark` back to.
    pub fn promise(&mut self, mark: &str, undo: String) {
        let now = self.target.marks.get(mark).copied().unwrap_or(0);
        self.undo_book.insert(undo, (mark.to_owned(), now));
    }

    /// Nothing takes this mark back.
    pub fn is_for_good(&mut self, mark: String) {
        self.for_good.insert(mark);
    }

    /// The target has a setting of this name, at least from now on.
    pub fn have(&mut self, name: &str) {
        let settings = &mut self.target.settings;
        settings.entry(name.to_owned()).or_insert(json!(10));
    }

    /// Does what only the program itself knows.
    pub fn leave_mark(&mut self, mark: &str) {
        *self.target.marks.entry(mark.to_owned()).or_default() += 1;
    }

    /// Takes settings and marks back, the last one first, as the edge does; what could not be taken back is
    /// returned. `ops` are in the order in which the steps ran.
    pub fn take_back(&mut self, ops: &[UndoOp]) -> Vec<String> {
        let mut errors = Vec::new();
        // A key goes back to where its chain of changes began, if it holds any value that is ours.
        let mut chains: BTreeMap<&str, Vec<Option<&Value>>> = BTreeMap::new();
        for op in ops {
            if let UndoOp::RestoreKeys { keys, .. } = op {
                for change in keys {
                    let ours = [change.before.as_ref(), Some(&change.after)];
                    chains.entry(&change.key).or_default().extend(ours);
                }
            }
        }
        for (key, ours) in chains {
            if ours.contains(&self.target.settings.get(key)) {
                match ours.first().copied().flatten() {
                    Some(value) => {
                        self.target.settings.insert(key.to_owned(), value.clone());
                    }
                    None => {
                        self.target.settings.remove(key);
                    }
                }
            } else {
                errors.push(format!("{key} was changed by somebody else"));
            }
        }
        for op in ops.iter().rev() {
            let text = match op {
                UndoOp::Sql { statement } => statement.clone(),
                UndoOp::Command { argv, .. } => argv.join(" "),
                _ => continue,
            };
            match self.undo_book.get(&text) {
                Some((mark, before)) => {
                    self.target.marks.insert(mark.clone(), *before);
                }
                None => errors.push(format!("`{text}` takes back nothing that is known")),
            }
        }
        errors
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}
