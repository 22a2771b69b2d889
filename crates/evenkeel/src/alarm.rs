//! Calling people outside a cycle: the ledger is not what others have seen, or something serious happens while a
//! person said hands off. Goes over the channels that alerts
//! of cycles use, and waits for nothing else (SAFETY 20).

use std::sync::Arc;

use evenkeel_core::redact::Redactor;
use evenkeel_core::{Anomaly, AnomalyType, Severity};
use evenkeel_edge::alert::{self, Alert, AlertChannel, AlertFacts, AlertKind, Escalation};

use crate::clock;
use crate::config::Config;
use crate::layout::Layout;
use crate::ui::Ui;

/// Calls people.
#[derive(Clone)]
pub(crate) struct Alarm {
    channels: Vec<Arc<dyn AlertChannel>>,
    redactor: Arc<Redactor>,
    layout: Layout,
    ui: Ui,
}

impl Alarm {
    /// By the channels of the configuration.
    pub(crate) fn new(
        config: &Config,
        layout: &Layout,
        redactor: &Arc<Redactor>,
        ui: &Ui,
    ) -> Result<Self, String> {
        Ok(Self {
            channels: crate::healing::alert_channels(config, layout, redactor)?,
            redactor: Arc::clone(redactor),
            layout: layout.clone(),
            ui: ui.clone(),
        })
    }

    /// Says that an anomaly is there about which nothing may be done now.
    pub(crate) async fn about(&self, anomaly: &Anomaly, why: &str) {
        let facts = AlertFacts {
            kind: AlertKind::HandsOff,
            at: clock::now(),
            anomaly: anomaly.kind.clone(),
            severity: anomaly.severity,
            details: anomaly.details.clone(),
            healing_attempts: 0,
            escalation: Escalation::NotNeeded,
            tried: Vec::new(),
            snapshot: None,
            ledger: Some(self.layout.ledger()),
            next_steps: vec![
                format!("nothing is done about it now: {why}"),
                "evenkeel status".to_owned(),
                "evenkeel resume".to_owned(),
            ],
        };
        self.send(facts, &format!("{}: nothing is done: {why}", anomaly.key()))
            .await;
    }

    /// Says that the disk has no room for the next snapshot.
    pub(crate) async fn about_room(&self, why: &str) {
        let steps = [
            "evenkeel snapshot list",
            "lower [snapshots] keep or max_bytes",
        ];
        self.about_itself("snapshot_room", why, &steps).await;
    }

    /// Says what is wrong with Evenkeel itself, its ledger above all, and what to do. Ready when every channel has taken it or failed.
    pub(crate) async fn about_itself(&self, kind: &str, details: &str, next_steps: &[&str]) {
        let Ok(anomaly) = AnomalyType::new(kind) else {
            return;
        };
        let facts = AlertFacts {
            kind: AlertKind::Alert,
            at: clock::now(),
            anomaly,
            severity: Severity::Critical,
            details: details.to_owned(),
            healing_attempts: 0,
            escalation: Escalation::NotNeeded,
            tried: Vec::new(),
            snapshot: None,
            ledger: Some(self.layout.ledger()),
            next_steps: next_steps.iter().map(|&step| step.to_owned()).collect(),
        };
        self.send(facts, details).await;
    }

    async fn send(&self, facts: AlertFacts, details: &str) {
        let alert = Alert::new(facts, &self.redactor);
        let report = alert::send_all(&self.channels, &alert).await;
        if let Some(text) = &report.to_print {
            eprintln!("{text}");
        }
        let file = report.delivered.iter().find(|d| d.channel == "file");
        self.ui.warn(format!(
            "{details}. A person is needed. Alert: {}",
            file.map_or_else(
                || "no file could be written".to_owned(),
                |d| self.layout.shown(std::path::Path::new(&d.to))
            )
        ));
    }
}
