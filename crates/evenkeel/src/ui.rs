//! What the product tells people and programs while it works: a closed list of events, and three ways to show them.
//!
//! On a terminal: colour and progress; piped: plain lines; with `--json`: one object a line. Whatever shows them, they
//! go to `logs/backend.log` too.

mod render;

use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::measure::{SuiteResult, TestResult};
use evenkeel_stress::Progress;
use serde::Serialize;
use serde_json::{Value, json};

use render::Renderer;
pub use render::Style;

/// How a step or stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Done.
    Ok,
    /// A test passed.
    Pass,
    /// It failed.
    Fail,
    /// Done, with something to look at.
    Warn,
    /// Not done, on purpose.
    Skip,
}

/// Something to tell.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Say {
    /// A heading.
    Heading {
        /// The text.
        text: String,
    },
    /// One stage of the boot gate.
    BootStage {
        /// Number, from 1.
        n: usize,
        /// How many there are.
        total: usize,
        /// What was checked.
        name: &'static str,
        /// How it ended.
        mark: Mark,
        /// What was found.
        message: String,
    },
    /// The boot gate is through.
    BootComplete {
        /// Stages that passed.
        passed: usize,
        /// All stages.
        total: usize,
    },
    /// The stress test begins.
    StressStarted {
        /// How many tests.
        total: usize,
    },
    /// A test begins.
    TestStarted {
        /// Its place, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// Its name.
        name: String,
    },
    /// A test ended.
    TestFinished {
        /// Its place, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// Its result.
        result: Box<TestResult>,
    },
    /// The stress test ended.
    StressFinished {
        /// Its result.
        suite: Box<SuiteResult>,
    },
    /// An anomaly was found.
    AnomalyDetected {
        /// The anomaly.
        anomaly: Box<Anomaly>,
    },
    /// An anomaly is gone.
    AnomalyCleared {
        /// Its key.
        key: String,
        /// How that is known.
        why: String,
    },
    /// The baseline was saved.
    BaselineSaved {
        /// Where.
        file: String,
        /// Share of requests that were answered well.
        success_rate: f64,
        /// Mean latency, in milliseconds.
        avg_latency_ms: f64,
        /// Anomalies noted in it.
        anomalies: usize,
    },
    /// The watchdog runs.
    WatchdogStarted {
        /// Time between checks, in milliseconds.
        interval_ms: u64,
    },
    /// A check of the watchdog that found nothing.
    WatchdogQuiet {
        /// How many there were since the last anomaly.
        checks: u64,
    },
    /// A healing cycle begins.
    HealingStarted {
        /// Its id.
        workflow_id: String,
        /// What it heals.
        anomaly: Box<Anomaly>,
    },
    /// An attempt begins.
    AttemptStarted {
        /// Its number.
        attempt: u32,
        /// How many there may be.
        max_attempts: u32,
    },
    /// One of the six steps begins.
    StepStarted {
        /// 1 to 6.
        n: u8,
        /// What is done.
        text: String,
    },
    /// One of the six steps ended.
    StepFinished {
        /// 1 to 6.
        n: u8,
        /// What was done.
        text: String,
        /// How it ended.
        mark: Mark,
        /// More.
        detail: String,
    },
    /// Something below a step: an action of the playbook, what a rollback restored.
    StepDetail {
        /// The text.
        text: String,
    },
    /// The advisor's part.
    Escalation {
        /// The text.
        text: String,
    },
    /// A healing cycle ended.
    HealingFinished {
        /// Its id.
        workflow_id: String,
        /// It ended healed.
        success: bool,
        /// One sentence.
        message: String,
    },
    /// Something worth knowing.
    Note {
        /// The text.
        text: String,
    },
    /// Something worth worrying about.
    Warning {
        /// The text.
        text: String,
    },
    /// The last line.
    Verdict {
        /// All is well.
        success: bool,
        /// One sentence.
        text: String,
        /// The exit code.
        exit_code: u8,
    },
}

/// Tells. Cheap to clone.
#[derive(Clone)]
pub struct Ui {
    renderer: Arc<Mutex<Renderer>>,
}

impl Ui {
    /// Tells in this style on standard output.
    pub fn new(style: Style) -> Self {
        Self {
            renderer: Arc::new(Mutex::new(Renderer::new(style))),
        }
    }

    /// Tells it, and logs it.
    pub fn say(&self, say: &Say) {
        log(say);
        self.renderer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .show(say);
    }

    /// Tells how a suite of stress tests goes on.
    pub fn test_progress(&self) -> impl FnMut(Progress<'_>) + Send + use<> {
        let ui = self.clone();
        move |progress| {
            ui.say(&match progress {
                Progress::TestStarted { index, total, name } => Say::TestStarted {
                    index,
                    total,
                    name: name.to_owned(),
                },
                Progress::TestFinished {
                    index,
                    total,
                    result,
                } => Say::TestFinished {
                    index,
                    total,
                    result: Box::new(result.clone()),
                },
            });
        }
    }

    /// A note.
    pub fn note(&self, text: impl Into<String>) {
        self.say(&Say::Note { text: text.into() });
    }

    /// A warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.say(&Say::Warning { text: text.into() });
    }
}

/// The subsystem, the event type and the message of the log line for `say`.
fn log(say: &Say) {
    let value = serde_json::to_value(say).unwrap_or(Value::Null);
    let event_type = value["event"].as_str().unwrap_or("say").to_owned();
    let subsystem = match say {
        Say::StressStarted { .. }
        | Say::TestStarted { .. }
        | Say::TestFinished { .. }
        | Say::StressFinished { .. } => "stress_test",
        Say::BaselineSaved { .. }
        | Say::WatchdogStarted { .. }
        | Say::WatchdogQuiet { .. }
        | Say::AnomalyDetected { .. }
        | Say::AnomalyCleared { .. } => "watchdog",
        Say::BootStage { .. } | Say::BootComplete { .. } => "boot",
        Say::Escalation { .. } => "escalation",
        _ => "orchestrator",
    };
    let result = match say {
        Say::TestFinished { result, .. } => match result.status {
            evenkeel_core::TestStatus::Passed => "success",
            evenkeel_core::TestStatus::Failed => "failed",
            evenkeel_core::TestStatus::Skipped => "skipped",
        },
        Say::StepFinished {
            mark: Mark::Fail, ..
        }
        | Say::BootStage {
            mark: Mark::Fail, ..
        } => "failed",
        _ => "success",
    };
    let message = match say {
        Say::Heading { text }
        | Say::Note { text }
        | Say::Warning { text }
        | Say::StepDetail { text }
        | Say::Escalation { text }
        | Say::Verdict { text, .. }
        | Say::StepStarted { text, .. }
        | Say::StepFinished { text, .. } => text.clone(),
        Say::BootStage { name, message, .. } => format!("{name}: {message}"),
        Say::AnomalyDetected { anomaly } => format!("anomaly detected: {}", anomaly.details),
        Say::HealingFinished { message, .. } => message.clone(),
        Say::TestStarted { name, .. } => format!("{name} started"),
        Say::TestFinished { result, .. } => format!(
            "{} {result_word}",
            result.test_name,
            result_word = result_word(result)
        ),
        Say::AnomalyCleared { key, why } => format!("{key} cleared: {why}"),
        other => json!(event_type_of(other))
            .as_str()
            .unwrap_or("")
            .to_owned(),
    };
    let details = value.to_string();
    if matches!(say, Say::Warning { .. }) {
        tracing::warn!(subsystem, event_type, result, details, "{message}");
    } else {
        tracing::info!(subsystem, event_type, result, details, "{message}");
    }
}

fn event_type_of(say: &Say) -> String {
    serde_json::to_value(say)
        .ok()
        .and_then(|v| v["event"].as_str().map(|s| s.replace('_', " ")))
        .unwrap_or_default()
}

fn result_word(result: &TestResult) -> &'static str {
    match result.status {
        evenkeel_core::TestStatus::Passed => "passed",
        evenkeel_core::TestStatus::Failed => "failed",
        evenkeel_core::TestStatus::Skipped => "skipped",
    }
}
