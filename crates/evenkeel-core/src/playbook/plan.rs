//! A playbook made concrete for one attempt. Records hold plans whole, so a replay needs no playbook file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::action::{Action, UndoKind};
use super::{OnFailure, ParamError, Playbook, Risk, Tier, VerifyWith};

/// One step of a plan. Arguments may still hold templates: they are filled when the step is prepared, because
/// they may speak of the findings of the steps before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step's name in its playbook.
    pub id: String,
    /// What it does.
    pub action: Action,
    /// Condition, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Time limit, in milliseconds.
    pub timeout_ms: u64,
    /// How often it is tried again.
    pub retries: u32,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// How it is taken back.
    pub undo: UndoKind,
    /// Whether it may be run again when its outcome is unknown.
    pub idempotent: bool,
}

/// Who chose the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    /// The mapping from anomalies and tests to playbooks.
    Mapping,
    /// An advisor, after validation.
    Advisor,
    /// A person.
    Operator,
}

/// What will be done in one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The playbook's name.
    pub playbook: String,
    /// Who chose it.
    pub chosen_by: ChosenBy,
    /// Its risk.
    pub risk: Risk,
    /// Its effective tier.
    pub tier: Tier,
    /// Every parameter, checked against its bounds.
    pub params: BTreeMap<String, Value>,
    /// Its steps.
    pub steps: Vec<PlannedStep>,
    /// What proves that it helped when the anomaly itself does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyWith>,
}

impl Plan {
    /// Makes a playbook concrete.
    pub fn new(
        playbook: &Playbook,
        overrides: &BTreeMap<String, Value>,
        chosen_by: ChosenBy,
    ) -> Result<Self, ParamError> {
        Ok(Self {
            playbook: playbook.name.clone(),
            chosen_by,
            risk: playbook.risk,
            tier: playbook.effective_tier(),
            params: playbook.resolve_params(overrides)?,
            steps: playbook
                .steps
                .iter()
                .map(|s| PlannedStep {
                    id: s.id.clone(),
                    action: s.action.clone(),
                    when: s.when.clone(),
                    timeout_ms: s.timeout_ms,
                    retries: s.retries,
                    on_failure: s.on_failure,
                    undo: s.undo_kind(),
                    idempotent: s.is_idempotent(),
                })
                .collect(),
            verify: playbook.verify.clone(),
        })
    }
}
