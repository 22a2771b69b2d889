//! Playbooks: what may be done about an anomaly, in which order, and how each step is taken back.
//!
//! A playbook is data. It names actions from a closed list ([`action::Action`]); the edge carries them out.
//! [`plan::Plan`] is a playbook made concrete for one attempt, and what a cycle's records hold: replay never
//! depends on the playbook files of today.

pub mod action;
pub mod parse;
pub mod plan;
pub mod select;
pub mod undo;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use action::{Action, Services, UndoKind};
pub use parse::{PlaybookProblem, lint, parse};
pub use plan::{Plan, PlannedStep};
pub use undo::{KeyChange, Prepared, RollbackOutcome, StepOutcome, UndoOp};

/// The format's version that this code reads.
pub const FORMAT_VERSION: u32 = 1;

/// How much harm a playbook can do when it is wrong.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Nothing a user would notice.
    Low,
    /// A short interruption of one service.
    Medium,
    /// A longer interruption, or several services.
    High,
    /// Data may be touched.
    Critical,
}

/// How much freedom a playbook has.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Act.
    #[serde(rename = "tier_1")]
    One,
    /// Act and notify.
    #[serde(rename = "tier_2")]
    Two,
    /// Wait for a person's approval.
    #[serde(rename = "tier_3")]
    Three,
    /// Never run automatically.
    #[serde(rename = "tier_4")]
    Four,
}

impl std::fmt::Display for Risk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One => "tier_1",
            Self::Two => "tier_2",
            Self::Three => "tier_3",
            Self::Four => "tier_4",
        })
    }
}

/// What a playbook is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remedies {
    /// Anomaly types, such as `memory_growth`.
    #[serde(default)]
    pub anomalies: Vec<String>,
    /// Stress tests, by their exact names; a playbook that names the failed test goes before one that names
    /// only the anomaly type.
    #[serde(default)]
    pub tests: Vec<String>,
}

/// Type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParamType {
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A text of at most 256 bytes.
    String,
    /// true or false.
    Boolean,
}

/// A parameter of a playbook, with its bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamSpec {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// Its value when nobody says otherwise.
    pub default: Value,
    /// Smallest value, for numbers.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest value, for numbers.
    #[serde(default)]
    pub max: Option<f64>,
    /// The only values allowed, for texts.
    #[serde(default)]
    pub choices: Vec<String>,
    /// One sentence for a person, with the unit.
    #[serde(default)]
    pub help: String,
}

/// Why a value is not one a parameter takes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{name}` = {value}: {reason}")]
pub struct ParamError {
    /// The parameter.
    pub name: String,
    /// The value.
    pub value: String,
    /// What would be right.
    pub reason: String,
}

impl ParamSpec {
    /// Whether `value` is of the type and inside the bounds.
    pub fn check(&self, name: &str, value: &Value) -> Result<(), ParamError> {
        let wrong = |reason: String| {
            Err(ParamError {
                name: name.to_owned(),
                value: value.to_string().chars().take(80).collect(),
                reason,
            })
        };
        match (self.kind, value) {
            (ParamType::Boolean, Value::Bool(_)) => Ok(()),
            (ParamType::String, Value::String(s)) if s.len() > 256 => {
                wrong("a text of at most 256 bytes was expected".into())
            }
            (ParamType::String, Value::String(s)) => {
                if self.choices.is_empty() || self.choices.contains(s) {
                    Ok(())
                } else {
                    wrong(format!("one of {} was expected", self.choices.join(", ")))
                }
            }
            (ParamType::Integer | ParamType::Number, Value::Number(n)) => {
                let Some(x) = n.as_f64().filter(|x| x.is_finite()) else {
                    return wrong("a finite number was expected".into());
                };
                if self.kind == ParamType::Integer && x.fract() != 0.0 {
                    return wrong("a whole number was expected".into());
                }
                match (self.min, self.max) {
                    (Some(min), _) if x < min => wrong(format!("at least {min} was expected")),
                    (_, Some(max)) if x > max => wrong(format!("at most {max} was expected")),
                    _ => Ok(()),
                }
            }
            (kind, _) => wrong(format!(
                "{} was expected",
                match kind {
                    ParamType::Integer => "a whole number",
                    ParamType::Number => "a number",
                    ParamType::String => "a text",
                    ParamType::Boolean => "true or false",
                }
            )),
        }
    }
}

/// What proves that the playbook helped, when it was not started by an anomaly that says so itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VerifyWith {
    /// Run this stress test again.
    Test(String),
    /// Read this watchdog monitor again over fresh samples.
    Monitor(String),
    /// Every service is up and ready.
    Ready {},
}

/// What happens when a step fails after its retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The attempt has failed: what was changed is rolled back.
    #[default]
    Fail,
    /// Go on with the next step.
    Continue,
}

/// One step of a playbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the step, unique in the playbook; later steps read its findings as `findings.<id>`.
    pub id: String,
    /// The action and its arguments.
    #[serde(rename = "do")]
    pub action: Action,
    /// Condition; the step is skipped when it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Time limit in milliseconds, 1 to 600 000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How often it is tried again after a failure, at most 5.
    #[serde(default)]
    pub retries: u32,
    /// What happens when it fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Overrides what the action says of itself; only for actions whose effect Evenkeel cannot know
    /// (`http_request`, `sql`, `run_command`, `signal`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoKind>,
    /// Whether running it twice does no more than running it once; same actions as `undo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
}

/// 30 seconds.
pub fn default_timeout_ms() -> u64 {
    30_000
}

/// A playbook file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Version of the format: 1.
    pub version: u32,
    /// Its name: 1 to 64 of `a-z`, `0-9` and `_`.
    pub name: String,
    /// One sentence: what it does and why that helps.
    pub description: String,
    /// What it is for.
    #[serde(default, rename = "for")]
    pub remedies: Remedies,
    /// How much harm it can do.
    pub risk: Risk,
    /// How much freedom it has.
    pub tier: Tier,
    /// Condition over anomaly, attempt, earlier findings and target: when false, the next candidate is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Among candidates for the same anomaly the lowest rank goes first.
    #[serde(default = "default_rank")]
    pub rank: i32,
    /// Its parameters.
    #[serde(default)]
    pub params: BTreeMap<String, ParamSpec>,
    /// What it does, in order; 1 to 32 steps.
    pub steps: Vec<Step>,
    /// What proves that it helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyWith>,
}

fn default_rank() -> i32 {
    100
}

impl Playbook {
    /// Every parameter at its default, with `overrides` put over them; each checked against its bounds.
    pub fn resolve_params(
        &self,
        overrides: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, ParamError> {
        if let Some((name, value)) = overrides
            .iter()
            .find(|(n, _)| !self.params.contains_key(*n))
        {
            let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
            return Err(ParamError {
                name: name.clone(),
                value: value.to_string().chars().take(80).collect(),
                reason: if known.is_empty() {
                    format!("`{}` takes no parameters", self.name)
                } else {
                    format!("`{}` takes {}", self.name, known.join(", "))
                },
            });
        }
        self.params
            .iter()
            .map(|(name, spec)| {
                let value = overrides.get(name).unwrap_or(&spec.default);
                spec.check(name, value)?;
                Ok((name.clone(), value.clone()))
            })
            .collect()
    }

    /// The tier that counts: a playbook with an irreversible step waits for approval whatever it says.
    pub fn effective_tier(&self) -> Tier {
        let irreversible = self
            .steps
            .iter()
            .any(|s| s.undo_kind() == UndoKind::Irreversible);
        if irreversible {
            self.tier.max(Tier::Three)
        } else {
            self.tier
        }
    }
}

impl Step {
    /// How it is taken back.
    pub fn undo_kind(&self) -> UndoKind {
        self.undo.unwrap_or_else(|| self.action.undo_kind())
    }

    /// Whether it may be run again when its outcome is unknown.
    pub fn is_idempotent(&self) -> bool {
        self.idempotent
            .unwrap_or_else(|| self.action.is_idempotent())
    }
}

/// The JSON Schema of a playbook file, for editors.
pub fn json_schema() -> Value {
    schemars::schema_for!(Playbook).to_value()
}
