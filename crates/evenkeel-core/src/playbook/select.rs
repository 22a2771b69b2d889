//! Which playbook is tried for an anomaly.

use serde_json::Value;

use super::Playbook;
use crate::anomaly::Anomaly;
use crate::expression;

/// A candidate that was looked at and not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The playbook's name.
    pub playbook: String,
    /// Why.
    pub reason: String,
}

/// The candidates for an anomaly, best first: those that name the failed test, then those that name the type;
/// within each by rank, then by name.
pub fn candidates<'a>(playbooks: &'a [Playbook], anomaly: &Anomaly) -> Vec<&'a Playbook> {
    let class = |p: &Playbook| {
        let by_test = anomaly
            .test
            .as_ref()
            .is_some_and(|t| p.remedies.tests.contains(t));
        let by_type = p
            .remedies
            .anomalies
            .iter()
            .any(|a| a == anomaly.kind.as_str());
        match (by_test, by_type) {
            (true, true) => Some(0),
            (true, false) => Some(1),
            (false, true) => Some(2),
            (false, false) => None,
        }
    };
    let mut found: Vec<(i32, i32, &str, &Playbook)> = playbooks
        .iter()
        .filter_map(|p| class(p).map(|c| (c, p.rank, p.name.as_str(), p)))
        .collect();
    found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    found.into_iter().map(|(_, _, _, p)| p).collect()
}

/// The first candidate whose condition holds over `scope`, and those that were passed over before it.
///
/// A condition that cannot be evaluated does not hold: a playbook is never taken by mistake.
pub fn select<'a>(
    playbooks: &'a [Playbook],
    anomaly: &Anomaly,
    scope: &Value,
) -> (Option<&'a Playbook>, Vec<PassedOver>) {
    let mut passed_over = Vec::new();
    for playbook in candidates(playbooks, anomaly) {
        let verdict = match &playbook.when {
            None => Ok(true),
            Some(when) => expression::eval_condition(when, scope),
        };
        match verdict {
            Ok(true) => return (Some(playbook), passed_over),
            Ok(false) => passed_over.push(PassedOver {
                playbook: playbook.name.clone(),
                reason: format!(
                    "its condition does not hold: {}",
                    playbook.when.as_deref().unwrap_or("")
                ),
            }),
            Err(e) => passed_over.push(PassedOver {
                playbook: playbook.name.clone(),
                reason: e.to_string(),
            }),
        }
    }
    (None, passed_over)
}
