//! Asking an advisor, and calling people.

use std::sync::Arc;

use evenkeel_core::cycle::{Outcome, Phase, RunVerdict};
use evenkeel_core::event::{Advice, AlertRef, Event};
use evenkeel_core::playbook::plan::ChosenBy;
use evenkeel_core::playbook::{Plan, Tier};
use evenkeel_core::proposal::{self, Proposal};
use evenkeel_core::{Cycle, Playbook};
use evenkeel_edge::advisor::{PlaybookOffer, Question};
use evenkeel_edge::alert::{self, Alert, AlertChannel, AlertFacts, AlertKind, Escalation};
use evenkeel_edge::guidance;
use serde_json::{Value, json};

use super::World;
use super::world::lock;
use crate::clock;

impl World {
    /// Asks the advisor of this number. Its answer is a proposal: pure code decides whether it becomes a plan.
    pub(super) async fn ask(&self, cycle: &Cycle, index: u32) -> Event {
        let Some(advisor) = self.advisors.get(index as usize) else {
            return Event::AdviceFailed {
                advisor: "none".into(),
                reason: "no advisor is configured".into(),
            };
        };
        let name = advisor.name().to_owned();
        let failed = |reason: String| Event::AdviceFailed {
            advisor: name.clone(),
            reason: self.redactor.text(&reason),
        };
        let answer = match advisor.ask(&self.question(cycle)).await {
            Ok(answer) => answer,
            Err(e) => return failed(e.to_string()),
        };
        let tried: Vec<&Plan> = cycle
            .runs
            .iter()
            .filter(|r| r.verdict == Some(RunVerdict::Failed))
            .map(|r| &r.plan)
            .collect();
        let proposal = Proposal {
            suggested_action: answer.suggested_action.clone(),
            confidence: answer.confidence,
            recommended_config: answer.recommended_config.clone(),
        };
        let playbooks: Vec<Playbook> = self.playbooks.iter().map(|k| k.playbook.clone()).collect();
        let verdict = proposal::validate(
            &proposal,
            &playbooks,
            &tried,
            self.config.escalation.confidence_min,
        );
        let outcome = match &verdict {
            Ok(_) => guidance::Outcome::Pending,
            Err(_) => guidance::Outcome::Rejected,
        };
        let guidance = guidance::Guidance {
            timestamp: clock::now(),
            advisor: name.clone(),
            anomaly: cycle.anomaly.clone(),
            amp_response: answer.to_json(),
            outcome,
            learned: false,
        };
        let file = self
            .guidance
            .write(&guidance)
            .map_err(|e| {
                self.ui
                    .warn(format!("the advisor's answer could not be kept: {e}"));
            })
            .ok();
        match verdict {
            Err(e) => failed(e.to_string()),
            Ok(plan) => Event::Advised {
                mode: self
                    .mind
                    .healer()
                    .mode_of(&plan.playbook, self.mind.policy()),
                advice: Box::new(Advice {
                    advisor: name,
                    suggested_action: answer.suggested_action,
                    confidence: answer.confidence,
                    reasoning: self.redactor.text(&answer.reasoning),
                    recommended_config: answer.recommended_config,
                    plan,
                    guidance_file: file.map(|f| self.layout.shown(&f)),
                }),
            },
        }
    }

    /// Writes into the guidance file how the advice did.
    pub(super) fn note_advice_outcome(&self, cycle: &Cycle, passed: bool) {
        let Some(file) = cycle.advice.last().and_then(|a| a.guidance_file.as_ref()) else {
            return;
        };
        let path = self.layout.root().join(file);
        let outcome = if passed {
            guidance::Outcome::Success
        } else {
            guidance::Outcome::Failed
        };
        if let Err(e) = self.guidance.update_outcome(&path, outcome, passed) {
            self.ui
                .warn(format!("the outcome of the advice could not be noted: {e}"));
        }
    }

    fn question(&self, cycle: &Cycle) -> Question {
        let recent_errors: Vec<Value> = cycle
            .findings()
            .values()
            .filter_map(|f| f.get("samples").cloned())
            .collect();
        let playbooks_used: Vec<Value> = cycle
            .runs
            .iter()
            .map(|r| {
                json!({
                    "playbook": r.plan.playbook, "params": r.plan.params, "verdict": r.verdict,
                    "verification": r.verification.as_ref().map(|v| &v.details),
                })
            })
            .collect();
        let baseline: Value = std::fs::read_to_string(self.layout.baseline())
            .ok()
            .and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or(Value::Null);
        let last = cycle.run().map(|r| r.plan.playbook.as_str());
        let mut offers: Vec<&Playbook> = self.playbooks.iter().map(|k| &k.playbook).collect();
        // The likeliest first: what was not tried in vain, and what may act by itself.
        offers.sort_by_key(|p| {
            (
                Some(p.name.as_str()) == last,
                p.effective_tier(),
                p.name.clone(),
            )
        });
        Question {
            issue: cycle.anomaly.kind.to_string(),
            context: json!({
                "severity": cycle.anomaly.severity,
                "details": cycle.anomaly.details,
                "anomaly": cycle.anomaly,
                "healing_attempts": cycle.failed_attempts,
                "playbook_used": last,
                "playbooks_used": playbooks_used,
                "findings": cycle.findings(),
                "baseline": baseline,
                "recent_errors": recent_errors,
                "target": {
                    "name": self.config.resolved.name,
                    "services": self.supervisor.names(),
                    "tunables": self.tunables(),
                },
            }),
            playbooks: offers.into_iter().map(PlaybookOffer::from).collect(),
        }
    }

    /// Asks a person whether the chosen plan may run, over the channels that alerts use.
    pub(super) async fn request_approval(&self, cycle: &Cycle) -> Event {
        let policy = self.mind.policy();
        let Some(request) = cycle.approval_request(clock::now(), policy) else {
            return Event::Refused {
                reason: "there is no plan to ask about".to_owned(),
            };
        };
        let reason = format!(
            "{} waits for a person's approval until {}",
            request.playbook, request.expires_at
        );
        let next_steps = vec![
            reason,
            "evenkeel approvals".to_owned(),
            format!("evenkeel approve {}", request.id),
            format!("evenkeel deny {} --why \"...\"", request.id),
        ];
        let facts = self.facts_for(
            cycle,
            AlertKind::Approval,
            Escalation::NotNeeded,
            next_steps,
        );
        let notified = self.send(facts).await;
        Event::ApprovalRequested { request, notified }
    }

    /// Alerts people about a cycle that nothing could heal.
    pub(super) async fn call_people(&self, cycle: &Cycle) -> Event {
        let (outcome, reason) = match &cycle.phase {
            Phase::Alerting { outcome, reason } => (*outcome, reason.clone()),
            other => (Outcome::HumanAlert, format!("{other:?}")),
        };
        let alert = self.send_alert(cycle, outcome, &reason).await;
        Event::Alerted { alert }
    }

    /// The ledger failed: nothing more is done, and people are told all the same (SAFETY 7).
    pub(super) async fn alert_ledger_failure(
        &self,
        cycle: &Cycle,
        error: &evenkeel_ledger::LedgerError,
    ) {
        self.ui.warn(format!("{error}"));
        let reason = format!("the ledger takes no more entries, so healing has stopped: {error}");
        let alert = self.send_alert(cycle, Outcome::HumanAlert, &reason).await;
        self.ui.warn(format!(
            "A person is needed. Alert: {}",
            alert.file.as_deref().unwrap_or("no file could be written")
        ));
    }

    async fn send_alert(&self, cycle: &Cycle, outcome: Outcome, reason: &str) -> AlertRef {
        let escalation = if !self.config.escalation.enabled {
            Escalation::Disabled
        } else if !cycle.advice.is_empty() || !cycle.advice_failures.is_empty() {
            Escalation::Failed
        } else if self.advisors.is_empty() {
            Escalation::NotConfigured
        } else {
            Escalation::NotNeeded
        };
        let mut next_steps = vec![reason.to_owned()];
        if outcome == Outcome::Stuck {
            next_steps.push(
                "a rollback failed: look at the configuration files before anything else".into(),
            );
            next_steps.push("when all is in order: evenkeel unstick --why \"...\"".into());
        }
        if outcome == Outcome::Shadow {
            next_steps.push("to let Evenkeel act: evenkeel mode auto (or approve)".into());
        }
        next_steps.push(format!("evenkeel explain {}", cycle.workflow_id));
        next_steps.push(format!(
            "when it is repaired: evenkeel repaired {}",
            cycle.anomaly.key()
        ));
        next_steps.push("evenkeel history --result failed --json".into());
        next_steps.push("evenkeel ledger verify".into());
        let kind = if outcome == Outcome::Shadow {
            AlertKind::HandsOff
        } else {
            AlertKind::Alert
        };
        let facts = self.facts_for(cycle, kind, escalation, next_steps);
        self.send(facts).await
    }

    /// `tier_2` acts and notifies: says that a playbook was run, over every channel but the alert file. Nobody waits for
    /// it but the end of Evenkeel.
    pub(super) fn notify(&self, cycle: &Cycle) {
        let Some(run) = cycle.run().filter(|r| {
            r.plan.tier == Tier::Two && r.plan.chosen_by != ChosenBy::Operator && !r.shadow
        }) else {
            return;
        };
        let channels: Vec<Arc<dyn AlertChannel>> = self
            .alerts
            .iter()
            .filter(|c| c.name() != "file")
            .cloned()
            .collect();
        if channels.is_empty() {
            return;
        }
        let done: Vec<String> = run
            .steps
            .iter()
            .filter_map(|s| s.prepared.as_ref())
            .map(|p| p.summary.clone())
            .collect();
        let steps = vec![
            format!("{}: {}", run.plan.playbook, done.join("; ")),
            format!("evenkeel explain {}", cycle.workflow_id),
        ];
        let facts = self.facts_for(cycle, AlertKind::Notice, Escalation::NotNeeded, steps);
        let alert = Alert::new(facts, &self.redactor);
        let (journal, workflow_id) = (self.journal.clone(), cycle.workflow_id.clone());
        let task = tokio::spawn(async move {
            let report = alert::send_all(&channels, &alert).await;
            let delivered: Vec<&str> = report
                .delivered
                .iter()
                .map(|d| d.channel.as_str())
                .collect();
            let result = if delivered.is_empty() {
                "failed"
            } else {
                "success"
            };
            let payload = json!({"workflow_id": workflow_id, "delivered": delivered, "failed": report.failed});
            let noted = journal.note(
                "evenkeel",
                "evenkeel",
                "notify",
                &workflow_id,
                &payload,
                result,
            );
            if let Err(e) = noted.await {
                tracing::warn!(
                    subsystem = "evenkeel",
                    "a notice could not be recorded: {e}"
                );
            }
        });
        let mut notices = lock(&self.notices);
        notices.retain(|t| !t.is_finished());
        notices.push(task);
    }

    fn facts_for(
        &self,
        cycle: &Cycle,
        kind: AlertKind,
        escalation: Escalation,
        next_steps: Vec<String>,
    ) -> AlertFacts {
        let snapshot = cycle
            .runs
            .first()
            .and_then(|r| r.snapshot.as_ref())
            .map(|s| self.layout.root().join(&s.dir))
            .or_else(|| {
                cycle
                    .snapshot
                    .as_ref()
                    .map(|s| self.layout.root().join(&s.dir))
            });
        AlertFacts {
            kind,
            at: clock::now(),
            anomaly: cycle.anomaly.kind.clone(),
            severity: cycle.anomaly.severity,
            details: cycle.anomaly.details.clone(),
            healing_attempts: cycle.failed_attempts,
            escalation,
            tried: cycle
                .runs
                .iter()
                .map(|r| {
                    let verdict = r.verdict.map_or("unfinished", |v| match v {
                        RunVerdict::Passed => "passed",
                        RunVerdict::Failed
                            if r.rollback.as_ref().is_some_and(|b| b.restored.is_empty()) =>
                        {
                            "failed, nothing to roll back"
                        }
                        RunVerdict::Failed => "failed, rolled back",
                        RunVerdict::Stuck => "failed, not rolled back",
                    });
                    format!("{}: {verdict}", r.plan.playbook)
                })
                .chain(
                    cycle
                        .advice_failures
                        .iter()
                        .map(|(a, why)| format!("advisor {a}: {why}")),
                )
                .collect(),
            snapshot,
            ledger: Some(self.layout.ledger()),
            next_steps,
        }
    }

    async fn send(&self, facts: AlertFacts) -> AlertRef {
        let alert = Alert::new(facts, &self.redactor);
        let report = alert::send_all(&self.alerts, &alert).await;
        if let Some(text) = &report.to_print {
            // The last way is whoever reads standard error.
            eprintln!("{text}");
        }
        AlertRef {
            file: report
                .delivered
                .iter()
                .find(|d| d.channel == "file")
                .map(|d| self.layout.shown(std::path::Path::new(&d.to))),
            delivered: report.delivered.iter().map(|d| d.channel.clone()).collect(),
            failed: report
                .failed
                .iter()
                .map(|(name, reason)| format!("{name}: {reason}"))
                .collect(),
        }
    }
}
