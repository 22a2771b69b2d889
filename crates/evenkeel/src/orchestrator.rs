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
use evenkeel_core::healer::{Admission, Wait};
use evenkeel_core::measure::{SuiteResult, TestStatus};
use evenkeel_core::playbook::Plan;
use evenkeel_detect::Baseline;
use evenkeel_stress::run_suite;
use serde_json::json;

use crate::alarm::Alarm;
use crate::anchoring::Anchoring;
use crate::audit::AuditEndpoint;
use crate::clock;
use crate::config::{Config, Environment};
use crate::control::Control;
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
    alarm: Alarm,
    /// Anomalies that are there and may not be acted on yet, by key.
    deferred: BTreeMap<String, Deferred>,
    /// People know that the disk has no room for a snapshot.
    room_told: bool,
    _control: Control,
    _audit: Option<AuditEndpoint>,
    _lock: DataDirLock,
}

/// An anomaly that waits.
struct Deferred {
    anomaly: Anomaly,
    trigger: Trigger,
    /// What it waits for, as it was told last.
    told: String,
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
        // The boot gate has seen every service up and ready: that nothing is down any more is proved.
        let memory = self.healing.memory();
        for key in memory.last.keys() {
            let kind = key.split('/').next().unwrap_or("");
            let topology = &self.healing.mind().policy().topology;
            let outside = key
                .rsplit('/')
                .next()
                .is_some_and(|s| topology.is_outside(s));
            if [AnomalyType::TARGET_DOWN, AnomalyType::TARGET_HUNG].contains(&kind) && !outside {
                self.healing.cleared(key, true).await?;
            }
        }
        let memory = self.healing.memory();
        for (cycle, _) in memory.approvals() {
            let anomaly = cycle.anomaly.clone();
            self.summary.unhealed.insert(anomaly.key(), anomaly);
        }
        let open = memory.open.as_ref().map(|c| c.anomaly.clone());
        if let (Some(anomaly), Some(healed)) = (open, self.healing.resume().await?) {
            self.note_healed(&anomaly, &healed);
        }
        self.go_on().await
    }

    /// Goes on with what has waited for a person, and has its answer.
    async fn go_on(&mut self) -> Result<(), WorkflowError> {
        while !self.stop.is_requested() {
            let open = self.healing.memory().open.clone();
            let (Some(cycle), Some(healed)) = (open, self.healing.go_on().await?) else {
                break;
            };
            self.note_healed(&cycle.anomaly, &healed);
            if matches!(healed, Healed::Waiting { .. }) {
                break;
            }
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
                let of_it = format!("/{}", result.test_name);
                let memory = self.healing.memory();
                let known = memory.last.keys().chain(self.summary.unhealed.keys());
                let keys: Vec<String> = known.filter(|k| k.ends_with(&of_it)).cloned().collect();
                for key in keys {
                    self.healing.cleared(&key, true).await?;
                    self.summary.unhealed.remove(&key);
                    self.deferred.remove(&key);
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
        // Causes first: what one of them explains waits, and is looked at again when that one is healed.
        let topology = &self.healing.mind().policy().topology;
        let all = anomalies.clone();
        anomalies.sort_by_key(|a| topology.root_of(a, &all).is_some());
        for anomaly in anomalies {
            if self.stop.is_requested() {
                self.summary.unhealed.insert(anomaly.key(), anomaly);
                continue;
            }
            self.heal_one(anomaly, trigger, found, None).await?;
            self.go_on().await?;
        }
        // What was explained by another, or came while a cycle was open, has its turn now.
        self.retry_deferred().await
    }

    /// Looks again at what could not be acted on when it was found (SAFETY 14: only at what is still there).
    async fn retry_deferred(&mut self) -> Result<(), WorkflowError> {
        // SAFETY 8, 20: known before anything has to be healed.
        match self.healing.world().facts().no_room {
            Some(why) if !self.room_told => {
                self.room_told = true;
                self.alarm.about_room(&why).await;
            }
            Some(_) => {}
            None => self.room_told = false,
        }
        let keys: Vec<String> = self.deferred.keys().cloned().collect();
        for key in keys {
            if self.stop.is_requested() {
                break;
            }
            let Some(waiting) = self.deferred.get(&key) else {
                continue;
            };
            let others = self.present(&key);
            let admission = self
                .healing
                .admission(&waiting.anomaly, waiting.trigger, &others);
            if !matches!(admission, Admission::Open { .. }) {
                continue;
            }
            let Some(Deferred {
                anomaly, trigger, ..
            }) = self.deferred.remove(&key)
            else {
                continue;
            };
            let world = self.healing.world();
            let looking = Box::pin(world.still_there(&anomaly));
            let (still_there, details) = world.pulse.during(WORK_MAX, looking).await;
            if still_there {
                let now = Instant::now();
                self.heal_one(anomaly, trigger, now, None).await?;
                self.go_on().await?;
            } else {
                self.gone(&key, &details).await?;
            }
        }
        Ok(())
    }

    /// The anomalies that are there now, as far as is known, but for this one.
    fn present(&self, but: &str) -> Vec<Anomaly> {
        let mut all: BTreeMap<String, Anomaly> = self.summary.unhealed.clone();
        let active = self.healing.world().watchdog.active();
        all.extend(active.into_iter().map(|a| (a.key(), a)));
        all.remove(but);
        all.into_values().collect()
    }

    async fn gone(&mut self, key: &str, details: &str) -> Result<(), WorkflowError> {
        self.ui.say(&Say::AnomalyCleared {
            key: key.to_owned(),
            why: format!("not there any more ({details})"),
        });
        self.healing.cleared(key, true).await?;
        self.summary.unhealed.remove(key);
        self.deferred.remove(key);
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
                return self.gone(&key, &details).await;
            }
        }
        // A person was alerted about it since this start (by the cycle that was open, say): once is enough.
        let memory = self.healing.memory();
        let last = memory.last.get(&key);
        let alerted = last.is_some_and(|p| !p.outcome.healed() && p.closed_at >= self.started);
        let trigger = if alerted && trigger == Trigger::PostBoot {
            Trigger::Watchdog
        } else {
            trigger
        };
        let others = self.present(&key);
        let healed = self
            .healing
            .heal(anomaly.clone(), trigger, &others, plan)
            .await?;
        if let Healed::NotAdmitted(Admission::Later(wait)) = &healed {
            self.defer(&anomaly, trigger, wait).await?;
        } else if healed == Healed::NotAdmitted(Admission::Busy) {
            let told = "another cycle is open".to_owned();
            let deferred = Deferred {
                anomaly: anomaly.clone(),
                trigger,
                told,
            };
            self.deferred.insert(key.clone(), deferred);
        }
        self.note_healed(&anomaly, &healed);
        self.healing.prune_snapshots().await;
        Ok(())
    }

    /// Keeps what may not be acted on yet, and says so once. Whoever paused it knows; but that something serious happens
    /// meanwhile is an alert of its own (SAFETY 20).
    async fn defer(
        &mut self,
        anomaly: &Anomaly,
        trigger: Trigger,
        wait: &Wait,
    ) -> Result<(), WorkflowError> {
        let (key, told) = (anomaly.key(), wait.to_string());
        let before = self.deferred.insert(
            key.clone(),
            Deferred {
                anomaly: anomaly.clone(),
                trigger,
                told: told.clone(),
            },
        );
        if before.is_some_and(|d| d.told == told) {
            return Ok(());
        }
        self.ui.note(format!("{key}: not now: {told}"));
        self.journal
            .note(
                "evenkeel",
                "evenkeel",
                "defer_healing",
                anomaly.subject(),
                &json!({"anomaly": anomaly, "why": told}),
                "noted",
            )
            .await?;
        if matches!(wait, Wait::Paused { .. }) && anomaly.severity >= Severity::High {
            self.alarm.about(anomaly, &told).await;
        }
        Ok(())
    }

    /// Keeps in mind what a person has to look after. When that person changes what held it back (the mode, the breaker)
    /// and it is still there, it is healed after all.
    fn hand_over(&mut self, anomaly: &Anomaly) {
        if anomaly.kind.as_str() == AnomalyType::MANUAL_REQUEST {
            return;
        }
        let handed_over = Deferred {
            anomaly: anomaly.clone(),
            trigger: Trigger::Watchdog,
            told: "a person was alerted".to_owned(),
        };
        self.deferred.insert(anomaly.key(), handed_over);
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
                    self.deferred.remove(&key);
                } else {
                    self.summary.unhealed.insert(key, anomaly.clone());
                    self.hand_over(anomaly);
                }
            }
            Healed::NotAdmitted(Admission::NoteOnly) => {}
            Healed::NotAdmitted(Admission::HandedOver { workflow_id }) => {
                self.ui.note(format!(
                    "{key}: a person was alerted in {workflow_id}; hands off until it is gone"
                ));
                self.summary.unhealed.insert(key, anomaly.clone());
                self.hand_over(anomaly);
            }
            Healed::Waiting { workflow_id, what } => {
                self.ui.note(format!("{workflow_id} waits for {what}"));
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
            let mut changes = self.healing.mind().changes();
            changes.mark_unchanged();
            let event = tokio::select! {
                event = watch.next() => event,
                () = self.stop.requested() => continue,
                // An approval, a resume: what waits goes on.
                _ = changes.changed() => {
                    self.go_on().await?;
                    continue;
                }
                () = tokio::time::sleep(tick) => {
                    self.go_on().await?;
                    continue;
                }
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
                    self.deferred.remove(&key);
                }
                WatchEvent::Quiet => {
                    self.retry_deferred().await?;
                    quiet += 1;
                    self.ui.say(&Say::WatchdogQuiet { checks: quiet });
                }
                WatchEvent::Busy => self.retry_deferred().await?,
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
