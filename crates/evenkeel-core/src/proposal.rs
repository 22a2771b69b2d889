//! Judging an advisor's answer. The answer is a proposal: only a known playbook with parameters inside its declared
//! bounds, under a tier that may act, ever becomes a plan. Nothing an advisor writes is executed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::anomaly::AnomalyType;
use crate::playbook::parse::nearest;
use crate::playbook::plan::ChosenBy;
use crate::playbook::{Plan, Playbook, Tier};

/// What an advisor proposed, taken apart but not yet believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The playbook it names.
    pub suggested_action: String,
    /// How sure it says it is.
    pub confidence: f64,
    /// Parameters it proposes.
    pub recommended_config: BTreeMap<String, Value>,
}

/// Why a proposal is not followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// No such playbook.
    #[error("`{name}` is not a known playbook{}", hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
    UnknownPlaybook {
        /// What was proposed.
        name: String,
        /// The nearest known name; for the log, never followed.
        hint: Option<String>,
    },
    /// Not a number from 0 to 1.
    #[error("confidence {0} is not a number from 0 to 1")]
    InvalidConfidence(f64),
    /// Below the configured minimum.
    #[error("confidence {confidence} is below the minimum of {min}")]
    LowConfidence {
        /// What it said.
        confidence: f64,
        /// What is needed.
        min: f64,
    },
    /// A parameter that does not exist or is out of bounds.
    #[error("parameter {0}")]
    BadParameter(#[from] crate::playbook::ParamError),
    /// The playbook may not run without a person.
    #[error("playbook {playbook} is {tier} and needs a person's approval")]
    NotAllowed {
        /// The playbook.
        playbook: String,
        /// Its tier.
        tier: Tier,
    },
    /// It has no steps that could help.
    #[error("playbook {0} was tried in this cycle with the same parameters and did not help")]
    AlreadyFailed(String),
}

/// Turns a proposal into a plan, or says why not. `failed` are the plans that did not help in this cycle.
pub fn validate(
    proposal: &Proposal,
    playbooks: &[Playbook],
    failed: &[&Plan],
    confidence_min: f64,
) -> Result<Plan, Rejection> {
    // `contains` is false for NaN.
    if !(0.0..=1.0).contains(&proposal.confidence) {
        return Err(Rejection::InvalidConfidence(proposal.confidence));
    }
    if proposal.confidence < confidence_min {
        return Err(Rejection::LowConfidence {
            confidence: proposal.confidence,
            min: confidence_min,
        });
    }
    let name = proposal.suggested_action.as_str();
    let playbook = playbooks.iter().find(|p| p.name == name).ok_or_else(|| {
        let hint = AnomalyType::new(name)
            .is_ok()
            .then(|| nearest(name, playbooks.iter().map(|p| p.name.as_str())))
            .flatten();
        Rejection::UnknownPlaybook {
            name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
            hint,
        }
    })?;
    let plan = Plan::new(playbook, &proposal.recommended_config, ChosenBy::Advisor)?;
    if plan.tier >= Tier::Three {
        return Err(Rejection::NotAllowed {
            playbook: plan.playbook,
            tier: plan.tier,
        });
    }
    if failed
        .iter()
        .any(|f| f.playbook == plan.playbook && f.params == plan.params)
    {
        return Err(Rejection::AlreadyFailed(plan.playbook));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::parse;
    use serde_json::json;

    fn book() -> Vec<Playbook> {
        let make = |name: &str, tier: &str| {
            parse(
                "p",
                &format!(
                    "{{version: 1, name: {name}, description: d, risk: low, tier: {tier}, \
                     params: {{size: {{type: integer, default: 10, min: 1, max: 64}}}}, \
                     steps: [{{id: a, do: {{query_logs: {{}}}}}}]}}"
                ),
            )
            .unwrap()
        };
        vec![
            make("scale_up_resources", "tier_2"),
            make("drop_everything", "tier_3"),
        ]
    }

    fn proposal(action: &str, confidence: f64, config: &Value) -> Proposal {
        Proposal {
            suggested_action: action.into(),
            confidence,
            recommended_config: serde_json::from_value(config.clone()).unwrap(),
        }
    }

    /// SAFETY 18
    #[test]
    fn only_a_known_playbook_inside_its_bounds_becomes_a_plan() {
        let ok = validate(
            &proposal("scale_up_resources", 0.9, &json!({"size": 20})),
            &book(),
            &[],
            0.5,
        )
        .unwrap();
        assert_eq!(
            (ok.chosen_by, &ok.params["size"]),
            (ChosenBy::Advisor, &json!(20))
        );
        let refused = [
            ("rm -rf /; scale_up_resources", 0.9, json!({})),
            ("scale_up_resource", 0.9, json!({})),
            ("", 0.9, json!({})),
            ("scale_up_resources", 0.2, json!({})),
            ("scale_up_resources", f64::NAN, json!({})),
            ("scale_up_resources", 7.0, json!({})),
            ("scale_up_resources", 0.9, json!({"size": 65})),
            ("scale_up_resources", 0.9, json!({"size": "20; reboot"})),
            ("scale_up_resources", 0.9, json!({"command": "reboot"})),
            ("drop_everything", 1.0, json!({})),
        ];
        for (action, confidence, config) in refused {
            let r = validate(&proposal(action, confidence, &config), &book(), &[], 0.5);
            assert!(r.is_err(), "{action} {confidence} {config} became {r:?}");
        }
    }

    #[test]
    fn the_same_plan_is_not_tried_again_in_one_cycle() {
        let p = proposal("scale_up_resources", 0.9, &json!({}));
        let plan = validate(&p, &book(), &[], 0.5).unwrap();
        assert_eq!(
            validate(&p, &book(), &[&plan], 0.5),
            Err(Rejection::AlreadyFailed("scale_up_resources".into()))
        );
        let other = proposal("scale_up_resources", 0.9, &json!({"size": 30}));
        assert!(validate(&other, &book(), &[&plan], 0.5).is_ok());
    }
}
