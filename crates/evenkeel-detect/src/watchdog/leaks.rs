//! Leaks over hours to weeks, beside the hour that the fixed limit looks at: noted, since a restart can wait for a person.

use std::collections::BTreeMap;

use evenkeel_core::anomaly::{AnomalyType, Severity};
use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::config::DetectConfig;
use crate::follow::Follow;
use crate::leak::LeakFinding;
use crate::slot::{Evaluation, Finding, Rule, Slot};
use crate::verdict::Verdict;

/// The series of these anomalies begins so; the service, or the series, follows.
pub(super) const SERIES_PREFIX: &str = "leak/";

/// Where a leak can stand, by its series.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaks {
    slots: BTreeMap<String, (Slot, Timestamp)>,
}

impl Leaks {
    /// What the leaks that are known now mean.
    pub(super) fn judge(
        &mut self,
        follow: &Follow,
        now: Timestamp,
        config: &DetectConfig,
        by: Option<&str>,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let rule = Rule::at_once(config, Severity::Low);
        for (series, found) in follow.leaks() {
            if found.is_none() && !self.slots.contains_key(series) {
                continue;
            }
            let (slot, since) = self.slots.entry(series.to_owned()).or_insert_with(|| {
                let name = series.strip_prefix("memory/").unwrap_or(series);
                let name = format!("{SERIES_PREFIX}{name}");
                (Slot::new(AnomalyType::DRIFT, &name, rule), now)
            });
            if found.is_some() && slot.active().is_none() {
                *since = now;
            }
            let evaluation = found.map_or(Evaluation::GOOD, |f| bad(series, &f, *since));
            verdicts.extend(slot.step(evaluation, by, None));
        }
        self.slots.retain(|_, (slot, _)| slot.active().is_some());
        verdicts
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values().map(|(slot, _)| slot)
    }

    pub(super) fn forget(&mut self) -> Vec<String> {
        let slots = std::mem::take(&mut self.slots);
        slots
            .into_values()
            .filter_map(|(mut slot, _)| slot.forget())
            .collect()
    }
}

fn bad(series: &str, found: &LeakFinding, since: Timestamp) -> Evaluation {
    let service = series.strip_prefix("memory/");
    Evaluation::bad(Finding {
        current: found.now_mb,
        threshold: found.now_mb - found.rise_mb,
        unit: "MB",
        details: match service {
            Some(service) => format!("{service}: {}", found.details()),
            None => found.details(),
        },
        service: service.map(str::to_owned),
        source: series.to_owned(),
        since,
        context: json!({ "leak": found }),
    })
}
