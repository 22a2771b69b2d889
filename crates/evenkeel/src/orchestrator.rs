//! The post-boot workflow: boot gate, stress test, baseline, watchdog, healing.
//!
//! [`Orchestrator::run_post_boot_workflow`] is the whole of it in one call, for `evenkeel run` and for programs that
//! guard themselves. The parts are methods, so that the demonstration can put a fault in between.

mod boot;

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_core::Timestamp;
use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::cycle::Outcome;
use evenkeel_core::event::Trigger;
use evenkeel_core::healer::Admission;
use evenkeel_core::measure::{SuiteResult, TestStatus};
use evenkeel_core::playbook::Plan;
use evenkeel_detect::Baseline;
use evenkeel_stress::run_suite;
use serde_json::json;

use crate::anchoring::Anchoring;
use crate::audit::AuditEndpoint;
use crate::clock;
use crate::config::{Config, Environment};
use crate::healing::{Healed, Healing, HealingError};
use crate::journal::Journal;
use crate::layout::{self, DataDirLock, Layout};
use crate::playbooks::Known;
use crate::pulse::{Loop, WORK_MAX};
use crate::stop::Stop;
use crate::ui::{Say, Ui};
use crate::watch::{Watch, WatchEvent};

pub use boot::BootError;

/// What an orchestrator works with.
pub struct Options {
    /// The configuration, checked.
    pub config: Config,
    /// The environment, for secrets.
    pub environment: Environment,
    /// The playbooks, checked.
    pub playbooks: Vec<Known>,
    /// Where files lie.
    pub layout: Layout,
    /// Whom to tell.
    pub ui: Ui,
    /// Asks for an end.
    pub stop: Stop,
    /// Starts services that do not run. Off: they are only attached to.
    pub supervise: bool,
    /// The process is Evenkeel's own: its service manager is told how it is, and its memory is capped.
    pub own_process: bool,
}

/// Why a workflow ended early.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowError {
    /// The boot gate did not pass.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Healing stopped.
    #[error(transparent)]
    Healing(#[from] HealingError),
    /// The ledger takes no entries.
    #[error("{0}; nothing more is done")]
    Ledger(#[from] evenkeel_ledger::LedgerError),
}

/// What a workflow came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Cycles that ended, oldest first.
    pub cycles: Vec<(String, Outcome)>,
    /// Anomalies that are there and not healed, by key.
    pub unhealed: BTreeMap<String, Anomaly>,
    /// It was asked to stop.
    pub interrupted: bool,
    /// It stopped because it used this much memory, in bytes, which is more than `[agent] memory_max_mb` allows.
    pub over_memory: Option<u64>,
}

impl Summary {
    /// Nothing is left unhealed.
    pub fn healthy(&self) -> bool {
        self.unhealed.is_empty()
    }
}

/// How long to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFor {
    /// Until a stop is asked for.
    Ever,
    /// Until so many checks in a row found nothing.
    QuietChecks(u64),
    /// Until a cycle ended, or so many milliseconds are over.
    OneCycle {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
}

/// The workflow, booted.
pub struct Orchestrator {
    healing: Healing,
    journal: Journal,
    config: Config,
    layout: Layout,
    ui: Ui,
    stop: Stop,
    watch: Option<Watch>,
    summary: Summary,
    /// When this start was.
    started: Timestamp,
    /// When the last cycle ended: what was found before it is looked at again before anything is done about it.
    last_cycle_end: Option<Instant>,
    anchoring: Anchoring,
    _audit: Option<AuditEndpoint>,
    _lock: DataDirLock,
}

impl Orchestrator {
    /// The whole workflow: boots, tests, establishes the baseline, watches and heals until it is asked to stop.
    pub async fn run_post_boot_workflow(options: Options) -> Result<Summary, WorkflowError> {
        let mut o = Self::boot(options).await?;
        o.after_boot().await?;
        if o.config.watchdog.enabled {
            o.watch(WatchFor::Ever).await?;
        }
        Ok(o.finish().await)
    }

    /// The workflow once, without staying to watch.
    pub async fn run_once(options: Options) -> Result<Summary, WorkflowError> {
        let mut o = Self::boot(options).await?;
        o.after_boot().await?;
        Ok(o.finish().await)
    }

    /// What follows the boot gate: an open cycle goes on; then stress test, baseline, watchdog, healing.
    pub async fn after_boot(&mut self) -> Result<(), WorkflowError> {
        self.resume().await?;
        self.workflow_snapshot().await?;
        let mut suite = None;
        if self.config.stress.enabled && !self.stop.is_requested() {
            suite = Some(self.stress_test().await?);
        }
        if self.config.watchdog.baseline && !self.stop.is_requested() {
            self.establish_baseline(suite.as_ref()).await?;
        }
        if self.config.watchdog.enabled && !self.stop.is_requested() {
            self.start_watchdog();
        }
        if let Some(suite) = suite {
            self.heal_all(suite.anomalies, Trigger::PostBoot).await?;
        }
        Ok(())
    }

    /// Keeps the state that the workflow began with. It is for people: no cycle restores it.
    async fn workflow_snapshot(&mut self) -> Result<(), WorkflowError> {
        let id = format!("boot_{}", clock::now().compact());
        let world = self.healing.world();
        let taking = world.workflow_snapshot(&id);
        let taken = world.pulse.during(WORK_MAX, taking).await;
        let (payload, result) = match &taken {
            Ok(dir) => (json!({"snapshot": dir}), "success"),
            Err(e) => {
                self.ui
                    .warn(format!("no snapshot of the state at boot: {e}"));
                (json!({"error": e}), "failed")
            }
        };
        self.journal
            .note(
                "evenkeel",
                "boot",
                "take_workflow_snapshot",
                &id,
                &payload,
                result,
            )
            .await?;
        Ok(())
    }

    /// Goes on with the cycle that was open when Evenkeel stopped or crashed.
    pub async fn resume(&mut self) -> Result<(), WorkflowError> {
        let open = self
            .healing
            .memory()
            .open
            .as_ref()
            .map(|c| c.anomaly.clone());
        if let (Some(anomaly), Some(healed)) = (open, self.healing.resume().await?) {
            self.note_healed(&anomaly, &healed);
        }
        Ok(())
    }

    /// Runs the stress tests.
    pub async fn stress_test(&mut self) -> Result<SuiteResult, WorkflowError> {
        let world = self.healing.world();
        self.ui.say(&Say::StressStarted {
            total: world.tests.len(),
        });
        let context = world.test_context();
        let cancel = context.cancel.clone();
        let stop = self.stop.clone();
        let stopping = tokio::spawn(async move {
            stop.requested().await;
            cancel.cancel();
        });
        let mut progress = self.ui.test_progress();
        let running = run_suite(&world.tests, &context, &mut progress);
        let suite = world.pulse.during(WORK_MAX, running).await;
        stopping.abort();
        self.ui.say(&Say::StressFinished {
            suite: Box::new(suite.clone()),
        });
        self.journal
            .note(
                "stress_tester",
                "stress_test",
                "complete_stress_test",
                &self.config.resolved.name,
                &json!({
                    "tests_run": suite.tests_run, "tests_passed": suite.tests_passed, "tests_skipped": suite.tests_skipped,
                    "duration_ms": suite.duration_ms, "results": suite.results,
                }),
                if suite.success { "success" } else { "failed" },
            )
            .await?;
        for anomaly in &suite.anomalies {
            self.anomaly_found(anomaly, "stress_tester", "stress_test")
                .await?;
        }
        // A test that passes now proves that what it once found is gone: the failure, and, in time, the slowness.
        for result in &suite.results {
            let slow = suite
                .anomalies
                .iter()
                .any(|a| a.test.as_deref() == Some(&result.test_name));
            if result.status == TestStatus::Passed && !slow {
                for kind in [result.anomaly_type.as_str(), AnomalyType::LATENCY_SPIKE] {
                    let key = format!("{kind}/{}", result.test_name);
                    self.healing.cleared(&key, true).await?;
                    self.summary.unhealed.remove(&key);
                }
            }
        }
        Ok(suite)
    }

    /// Computes the baseline from what was measured, and saves it.
    pub async fn establish_baseline(
        &mut self,
        suite: Option<&SuiteResult>,
    ) -> Result<(), WorkflowError> {
        let world = self.healing.world();
        let probing = world.probe_all(5);
        let mut samples = world.pulse.during(WORK_MAX, probing).await;
        samples.extend(self.healing.world().memory_samples());
        let nothing = SuiteResult::from_results(clock::now(), 0.0, Vec::new());
        let thresholds = self.config.watchdog.thresholds.into();
        let measured = Baseline::from_measurements(
            suite.unwrap_or(&nothing),
            &samples,
            thresholds,
            clock::now(),
        );
        let baseline = match measured {
            Ok(baseline) => baseline,
            Err(e) => {
                self.ui.warn(format!("no baseline: {e}"));
                return Ok(());
            }
        };
        let path = self.layout.baseline();
        let written = baseline
            .to_json()
            .map_err(|e| e.to_string())
            .and_then(|text| {
                layout::write_atomic(&path, text.as_bytes()).map_err(|e| e.to_string())
            });
        if let Err(e) = written {
            self.ui.warn(format!(
                "the baseline could not be saved to {}: {e}",
                path.display()
            ));
        }
        self.ui.say(&Say::BaselineSaved {
            file: self.layout.shown(&path),
            success_rate: baseline.metrics.success_rate,
            avg_latency_ms: baseline.metrics.avg_latency_ms,
            anomalies: baseline.test_results.anomalies.len(),
        });
        self.journal
            .note(
                "anomaly_watchdog",
                "watchdog",
                "establish_baseline",
                &self.config.resolved.name,
                &serde_json::to_value(&baseline).unwrap_or_default(),
                "success",
            )
            .await?;
        self.healing.world().watchdog.set_baseline(baseline);
        Ok(())
    }

    /// Starts to watch.
    pub fn start_watchdog(&mut self) {
        if self.watch.is_none() {
            self.watch = Some(Watch::start(
                self.healing.world(),
                &self.journal,
                &self.layout,
            ));
            self.healing.world().pulse.status("watching");
            self.ui.say(&Say::WatchdogStarted {
                interval_ms: self.config.watchdog.interval_ms,
            });
        }
    }

    /// Heals what was found, one after the other, the worst first. What the fix of one has cured is not acted on.
    pub async fn heal_all(
        &mut self,
        mut anomalies: Vec<Anomaly>,
        trigger: Trigger,
    ) -> Result<(), WorkflowError> {
        // The sort is stable: among equals the order of finding stays, which for tests is that of the suite.
        anomalies.sort_by_key(|a| std::cmp::Reverse(a.severity));
        let found = Instant::now();
        for anomaly in anomalies {
            if self.stop.is_requested() {
                self.summary.unhealed.insert(anomaly.key(), anomaly);
                continue;
            }
            self.heal_one(anomaly, trigger, found, None).await?;
        }
        Ok(())
    }

    /// Runs a plan that a person chose.
    pub async fn run_plan(&mut self, anomaly: Anomaly, plan: Plan) -> Result<(), WorkflowError> {
        self.heal_one(anomaly, Trigger::Operator, Instant::now(), Some(plan))
            .await
    }

    async fn heal_one(
        &mut self,
        anomaly: Anomaly,
        trigger: Trigger,
        found: Instant,
        plan: Option<Plan>,
    ) -> Result<(), WorkflowError> {
        let key = anomaly.key();
        if !self.config.healing.enabled && trigger != Trigger::Operator {
            self.ui.note(format!(
                "{key}: healing is switched off ([healing] enabled); noted, and nothing is done"
            ));
            self.summary.unhealed.insert(key, anomaly);
            return Ok(());
        }
        // What is merely slow is worth acting on only when something is known to help (and nobody is called for it).
        let slight = anomaly.severity == Severity::Low && trigger != Trigger::Operator;
        if slight && !self.healing.world().has_playbook(&anomaly) {
            self.ui.note(format!(
                "{key}: noted; no playbook applies to it here, so nothing is done"
            ));
            return Ok(());
        }
        // It was found before the last fix: perhaps it is gone. What is slight is looked at twice in any case.
        if slight || self.last_cycle_end.is_some_and(|end| end > found) {
            let world = self.healing.world();
            let looking = world.still_there(&anomaly);
            let (still_there, details) = world.pulse.during(WORK_MAX, looking).await;
            if !still_there {
                self.ui.say(&Say::AnomalyCleared {
                    key: key.clone(),
                    why: format!("not there any more ({details})"),
                });
                self.healing.cleared(&key, true).await?;
                self.summary.unhealed.remove(&key);
                return Ok(());
            }
        }
        // A person was alerted about it since this start (by the cycle that was open, say): once is enough.
        let last = self.healing.memory().last.get(&key);
        let alerted = last.is_some_and(|p| !p.outcome.healed() && p.closed_at >= self.started);
        let trigger = if alerted && trigger == Trigger::PostBoot {
            Trigger::Watchdog
        } else {
            trigger
        };
        let healed = self.healing.heal(anomaly.clone(), trigger, plan).await?;
        self.note_healed(&anomaly, &healed);
        self.healing.prune_snapshots().await;
        Ok(())
    }

    fn note_healed(&mut self, anomaly: &Anomaly, healed: &Healed) {
        let key = anomaly.key();
        match healed {
            Healed::Closed {
                workflow_id,
                outcome,
            } => {
                self.last_cycle_end = Some(Instant::now());
                self.summary.cycles.push((workflow_id.clone(), *outcome));
                if outcome.healed() {
                    self.summary.unhealed.remove(&key);
                } else {
                    self.summary.unhealed.insert(key, anomaly.clone());
                }
            }
            Healed::NotAdmitted(Admission::NoteOnly) => {}
            Healed::NotAdmitted(Admission::HandedOver { workflow_id }) => {
                self.ui.note(format!(
                    "{key}: a person was alerted in {workflow_id}; hands off until it is gone"
                ));
                self.summary.unhealed.insert(key, anomaly.clone());
            }
            Healed::Parked | Healed::NotAdmitted(_) => {
                self.summary.unhealed.insert(key, anomaly.clone());
            }
        }
    }

    /// Watches, and heals what is found.
    pub async fn watch(&mut self, how_long: WatchFor) -> Result<(), WorkflowError> {
        let started = Instant::now();
        let cycles_before = self.summary.cycles.len();
        let mut quiet = 0u64;
        let interval = std::time::Duration::from_millis(self.config.watchdog.interval_ms);
        loop {
            self.healing.world().pulse.beat(Loop::Healer);
            let done = match how_long {
                WatchFor::Ever => false,
                // A check takes an interval; ten times as long is too long to wait for quiet.
                WatchFor::QuietChecks(n) => {
                    quiet >= n
                        || started.elapsed() > interval * u32::try_from(n * 10).unwrap_or(u32::MAX)
                }
                WatchFor::OneCycle { limit_ms } => {
                    self.summary.cycles.len() > cycles_before
                        || started.elapsed().as_millis() >= u128::from(limit_ms)
                }
            };
            if done || self.stop.is_requested() {
                return Ok(());
            }
            let Some(watch) = &mut self.watch else {
                return Ok(());
            };
            let tick = std::time::Duration::from_millis(200);
            let event = tokio::select! {
                event = watch.next() => event,
                () = self.stop.requested() => continue,
                () = tokio::time::sleep(tick) => continue,
            };
            let Some((event, at)) = event else {
                self.ui
                    .warn("the watchdog ended; this is a defect of Evenkeel");
                return Ok(());
            };
            match event {
                WatchEvent::Raised(anomaly) => {
                    quiet = 0;
                    self.anomaly_found(&anomaly, "anomaly_watchdog", "watchdog")
                        .await?;
                    self.heal_one(*anomaly, Trigger::Watchdog, at, None).await?;
                }
                WatchEvent::Cleared { key } => {
                    self.ui.say(&Say::AnomalyCleared {
                        key: key.clone(),
                        why: "the signal is normal again".into(),
                    });
                    self.healing.cleared(&key, false).await?;
                    self.summary.unhealed.remove(&key);
                }
                WatchEvent::Quiet => {
                    quiet += 1;
                    self.ui.say(&Say::WatchdogQuiet { checks: quiet });
                }
                WatchEvent::Busy => {}
            }
        }
    }

    /// The summary so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The healer and its adapters.
    pub fn healing(&self) -> &Healing {
        &self.healing
    }

    /// Ends the watchdog and says what everything came to. The target's services run on.
    pub async fn finish(mut self) -> Summary {
        self.healing.world().pulse.stopping();
        self.summary.over_memory = self.healing.world().pulse.over_memory();
        if let Some(used) = self.summary.over_memory {
            self.note_over_memory(used).await;
        }
        if let Some(watch) = self.watch.take() {
            watch.stop().await;
        }
        self.healing.world().end().await;
        self.anchoring.end().await;
        self.summary.interrupted = self.stop.is_requested();
        self.summary
    }

    /// Why Evenkeel ends by itself. A ledger that takes no entry keeps it from nothing.
    async fn note_over_memory(&self, used: u64) {
        let max_mb = self.config.agent.memory_max_mb;
        let payload = json!({"used_mb": used >> 20, "memory_max_mb": max_mb});
        let noted = self
            .journal
            .note(
                "evenkeel",
                "evenkeel",
                "stop_over_memory",
                &self.config.resolved.name,
                &payload,
                "noted",
            )
            .await;
        if let Err(e) = noted {
            self.ui.warn(e.to_string());
        }
    }

    async fn anomaly_found(
        &self,
        anomaly: &Anomaly,
        actor: &str,
        subsystem: &str,
    ) -> Result<(), WorkflowError> {
        self.ui.say(&Say::AnomalyDetected {
            anomaly: Box::new(anomaly.clone()),
        });
        self.journal
            .note(
                actor,
                subsystem,
                "anomaly_detected",
                anomaly.subject(),
                &json!({"anomaly": anomaly}),
                "noted",
            )
            .await?;
        Ok(())
    }
}
