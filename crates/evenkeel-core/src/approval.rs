//! Approvals (SAFETY 19): what a person says yes to is bound to the hash of plan, target and parameters, expires, and
//! works once.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::playbook::Plan;
use crate::time::Timestamp;

/// Most cycles that wait for an approval at once.
pub const AWAITING_MAX: usize = 16;
/// Length of an approval's id, in hex digits.
const ID_LEN: usize = 8;

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// What the person names it by.
    pub id: String,
    /// SHA-256, hex, of what would be done, to what, and with what: see [`binding`].
    pub binds: String,
    /// The playbook.
    pub playbook: String,
    /// When it is too late.
    pub expires_at: Timestamp,
}

/// A person's yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The request's id.
    pub id: String,
    /// What the person saw: the request's `binds`.
    pub binds: String,
    /// Who.
    pub by: String,
}

/// Why a yes or no does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// Nothing of this id waits: never asked, answered already, or withdrawn.
    #[error("no approval `{id}` is waited for; see `evenkeel approvals`")]
    Unknown {
        /// The id.
        id: String,
    },
    /// Too late.
    #[error(
        "approval `{id}` expired at {expires_at}; when the trouble is still there it is asked for again"
    )]
    Expired {
        /// The id.
        id: String,
        /// When.
        expires_at: Timestamp,
    },
    /// What was seen is not what is asked.
    #[error(
        "approval `{id}` is for something else than what you saw; look at `evenkeel approvals` again"
    )]
    OtherPlan {
        /// The id.
        id: String,
    },
}

/// The hash that an approval binds: of the plan (with its parameters and every step), the target, and the anomaly.
pub fn binding(plan: &Plan, target: &str, anomaly_key: &str) -> String {
    let bound = json!({"plan": plan, "target": target, "anomaly": anomaly_key});
    hex(&Sha256::digest(bound.to_string().as_bytes()))
}

/// The request for the `attempt`th attempt of a cycle.
pub(crate) fn request(
    workflow_id: &str,
    attempt: u32,
    plan: &Plan,
    binds: String,
    expires_at: Timestamp,
) -> ApprovalRequest {
    let named = format!("{workflow_id}/{attempt}/{binds}/{expires_at}");
    let mut id = hex(&Sha256::digest(named.as_bytes()));
    id.truncate(ID_LEN);
    ApprovalRequest {
        id,
        binds,
        playbook: plan.playbook.clone(),
        expires_at,
    }
}

impl ApprovalRequest {
    /// Whether an answer at `now` about `binds` counts.
    pub fn judge(&self, now: Timestamp, binds: &str) -> Result<(), ApprovalError> {
        if now >= self.expires_at {
            return Err(ApprovalError::Expired {
                id: self.id.clone(),
                expires_at: self.expires_at,
            });
        }
        if self.binds != binds {
            return Err(ApprovalError::OtherPlan {
                id: self.id.clone(),
            });
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn plan(size: u32) -> Plan {
        let plan: Value = json!({"playbook": "p", "chosen_by": "mapping", "risk": "low", "tier": "tier_3",
                                 "params": {"size": size}, "steps": []});
        serde_json::from_value(plan).unwrap()
    }

    /// SAFETY 19
    #[test]
    fn another_plan_target_parameter_or_anomaly_is_another_hash() {
        let first = binding(&plan(1), "grace", "a/b");
        assert_eq!(first.len(), 64);
        assert_eq!(first, binding(&plan(1), "grace", "a/b"));
        for other in [
            binding(&plan(2), "grace", "a/b"),
            binding(&plan(1), "other", "a/b"),
            binding(&plan(1), "grace", "a/c"),
        ] {
            assert_ne!(first, other);
        }
    }

    /// SAFETY 19: what the ledger gives back binds the same.
    #[test]
    fn a_plan_that_was_written_down_binds_the_same() {
        let written = serde_json::to_string(&plan(7)).unwrap();
        let read: Plan = serde_json::from_str(&written).unwrap();
        assert_eq!(binding(&plan(7), "t", "k"), binding(&read, "t", "k"));
    }

    /// SAFETY 19
    #[test]
    fn a_late_answer_and_one_about_something_else_do_not_count() {
        let at = Timestamp::from_millis(1_000);
        let r = request("wf", 1, &plan(1), "b".into(), at);
        assert_eq!(r.judge(at.plus_millis(-1), "b"), Ok(()));
        assert!(matches!(
            r.judge(at, "b"),
            Err(ApprovalError::Expired { .. })
        ));
        assert!(matches!(
            r.judge(Timestamp::default(), "c"),
            Err(ApprovalError::OtherPlan { .. })
        ));
    }
}
