//! The watchdog at work: collects samples at each interval, hands them to the detectors, and tells what they say.
//!
//! A process that ends is noticed at once, by the supervisor; a probe that fails is repeated at once, so that a hang is
//! noticed within two intervals. While a cycle is open the detectors rest: what a restart does to probes is no anomaly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_core::anomaly::Anomaly;
use evenkeel_core::event::Trigger;
use evenkeel_core::healer::NOTE_ONLY;
use evenkeel_core::{Facts, Timestamp};
use evenkeel_detect::{
    Baseline, Follow, Measures, ProbeError, Sample, SampleValue, Scope, SeriesId, Verdict, Watchdog,
};
use evenkeel_edge::collect::probe::{self, ProbeResult, Prober};
use evenkeel_edge::process::{ProcessId, ServiceEvent, ServiceStatus, Supervisor};
use evenkeel_ledger::{Exclude, Reader};
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::clock;
use crate::collectors::Collectors;
use crate::dependencies::Dependencies;
use crate::healing::World;
use crate::journal::{Journal, OWN_ACTORS, OWN_SUBSYSTEMS};
use crate::layout::Layout;
use crate::learned::Learned;
use crate::mind::Mind;
use crate::pulse::Loop;
use crate::readings;
use crate::record::Record;
use crate::stop::{self, Stopper};

/// Events that wait to be taken; beyond it quiet checks are dropped, never anomalies.
const EVENTS_MAX: usize = 256;
/// Most series that `status --json` shows.
const SERIES_SHOWN_MAX: usize = 200;

/// What the watchdog tells.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A new anomaly.
    Raised(Box<Anomaly>),
    /// An anomaly is over.
    Cleared {
        /// Its key.
        key: String,
    },
    /// A check found nothing.
    Quiet,
    /// A check found that known anomalies go on.
    Busy,
}

/// The detectors, shared between the loop that feeds them and the healer that reads them.
#[derive(Clone)]
pub struct Detector {
    watchdog: Arc<Mutex<Watchdog>>,
    resting: Arc<AtomicBool>,
}

impl Detector {
    /// Shares a watchdog.
    pub fn new(watchdog: Watchdog) -> Self {
        Self {
            watchdog: Arc::new(Mutex::new(watchdog)),
            resting: Arc::new(AtomicBool::new(false)),
        }
    }

    /// While a cycle is open: nothing is judged, and nothing is learned (SAFETY 17).
    pub fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        self.lock().freeze();
    }

    /// Judges again, from fresh windows: what was measured during the cycle does not count.
    pub fn go_on(&self) {
        let mut watchdog = self.lock();
        watchdog.reset_series(Scope::Everything, clock::now());
        watchdog.unfreeze();
        self.resting.store(false, Ordering::SeqCst);
    }

    /// Takes a new baseline.
    pub fn set_baseline(&self, baseline: Baseline) {
        self.lock().set_baseline(Some(baseline));
    }

    /// The anomalies that are there.
    pub fn active(&self) -> Vec<Anomaly> {
        self.lock().active().cloned().collect()
    }

    /// The measures of the last check.
    pub fn measures(&self) -> Measures {
        self.lock().measures()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Watchdog> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watchdog's loop.
pub struct Watch {
    events: mpsc::Receiver<(WatchEvent, Instant)>,
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts to watch.
    pub fn start(world: &World, journal: &Journal, layout: &Layout) -> Self {
        let (tx, events) = mpsc::channel(EVENTS_MAX);
        let (stopper, stop) = stop::pair();
        let interval = Duration::from_millis(world.config.watchdog.interval_ms);
        let reader = journal.ledger().reader().ok();
        let newest = reader.as_ref().and_then(|r| r.head().ok());
        let (learned, follow) = Learned::open(
            layout.series(),
            &world.config.watchdog.series.clone().into(),
        );
        if let Some(follow) = follow {
            *world.watchdog.lock().follow_mut() = follow;
        }
        let record = world.config.watchdog.record.as_ref().and_then(|path| {
            Record::open(&world.config.base.join(path))
                .inspect_err(|e| {
                    tracing::warn!(subsystem = "watchdog", "[watchdog] record: {e}");
                })
                .ok()
        });
        let mut observer = Observer {
            detector: world.watchdog.clone(),
            supervisor: world.supervisor.clone(),
            prober: world.prober.clone(),
            probes: world.probes.clone(),
            probe_service: world.probe_service(),
            deadline: world.probe_deadline(),
            reader: reader.map(Mutex::new),
            collectors: Collectors::new(&world.config, world.metrics.clone(), &world.prober),
            dependencies: Dependencies::new(
                world.config.target.dependencies.clone(),
                Arc::clone(&world.outside_down),
            ),
            mind: world.mind().clone(),
            pause_file: layout.pause_file(),
            ledger_seen: newest.map_or(0, |head| head.sequence),
            status_file: layout.status(),
            seen_ready: BTreeMap::new(),
            learned,
            record,
            tx,
        };
        let mut services = world.supervisor.subscribe();
        let pulse = world.pulse.clone();
        let task = tokio::spawn(async move {
            let mut rounds = tokio::time::interval(pulse.period());
            rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.requested() => break,
                    _ = rounds.tick() => pulse.beat(Loop::Watch),
                    _ = ticks.tick() => {
                        observer.check().await;
                        pulse.checked();
                    }
                    event = services.recv() => match event {
                        Ok(event) => observer.service_event(&event),
                        // Missed some: the next check reads the state itself.
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => tokio::time::sleep(interval).await,
                    },
                }
            }
            let bytes = observer.detector.lock().follow().to_bytes();
            observer.learned.write(&bytes);
        });
        Self {
            events,
            stopper,
            task,
        }
    }

    /// The next event, and when it was told.
    pub async fn next(&mut self) -> Option<(WatchEvent, Instant)> {
        self.events.recv().await
    }

    /// Ends the loop.
    pub async fn stop(self) {
        self.stopper.stop();
        drop(self.events);
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
    }
}

struct Observer {
    detector: Detector,
    supervisor: Supervisor,
    prober: Prober,
    probes: Vec<String>,
    probe_service: Option<String>,
    deadline: Duration,
    /// Behind a lock only because a connection may not be shared; nobody else uses it.
    reader: Option<Mutex<Reader>>,
    collectors: Collectors,
    dependencies: Dependencies,
    mind: Mind,
    pause_file: std::path::PathBuf,
    /// The newest entry that was counted. By its place, not its time: it is committed a little after that.
    ledger_seen: u64,
    status_file: std::path::PathBuf,
    seen_ready: BTreeMap<String, ProcessId>,
    learned: Learned,
    record: Option<Record>,
    tx: mpsc::Sender<(WatchEvent, Instant)>,
}

impl Observer {
    /// One regular check.
    async fn check(&mut self) {
        let mut samples = self.probe().await;
        samples.extend(self.services());
        samples.extend(self.ledger());
        samples.extend(
            self.collectors
                .collect(&self.supervisor, &self.prober, self.deadline)
                .await,
        );
        samples.extend(self.dependencies.check(&self.prober, self.deadline).await);
        let readings = self.collectors.readings();
        if let Some(record) = &mut self.record {
            record.write(&samples);
            record.write_points(readings.iter().filter_map(readings::point));
        }
        let resting = self.detector.resting.load(Ordering::SeqCst);
        let now = clock::now();
        // While resting the check is made all the same, or its absence would look like a stopped clock; what it says is
        // forgotten with the windows when the cycle is over.
        let verdicts = {
            let mut watchdog = self.detector.lock();
            // SAFETY 17: nothing is learned while somebody works on the target.
            if resting || self.hands_off(now) {
                watchdog.freeze();
            } else {
                watchdog.unfreeze();
            }
            for sample in &samples {
                watchdog.observe(sample);
            }
            self.take_word(watchdog.follow_mut());
            for service in self.collectors.deployed() {
                watchdog.follow_mut().deployed(service.as_deref(), now);
                tracing::info!(
                    subsystem = "watchdog",
                    event_type = "deploy_seen",
                    service = service.as_deref().unwrap_or(""),
                    "another version is there: what is usual is learned anew"
                );
            }
            for reading in &readings {
                if let Some(point) = readings::point(reading) {
                    watchdog.observe_point(&point, now);
                }
            }
            watchdog.check(now)
        };
        self.learned
            .keep(|| self.detector.lock().follow().to_bytes());
        self.write_status(now);
        if resting {
            return;
        }
        let known = self
            .detector
            .lock()
            .active()
            .filter(|a| !NOTE_ONLY.contains(&a.kind.as_str()))
            .count();
        self.tell(verdicts);
        let event = if known == 0 {
            WatchEvent::Quiet
        } else {
            WatchEvent::Busy
        };
        let _ = self.tx.try_send((event, Instant::now()));
    }

    /// Deploys, and what a person says is healthy: each counts once, over restarts too.
    fn take_word(&self, follow: &mut Follow) {
        fn name(name: &str) -> Option<&str> {
            (!name.is_empty()).then_some(name)
        }
        let healer = self.mind.healer();
        for (service, deploy) in &healer.orders.deploys {
            if follow.deployed(name(service), deploy.at) {
                tracing::info!(
                    subsystem = "watchdog",
                    event_type = "deploy_marked",
                    version = deploy.why,
                    "what is usual is learned anew"
                );
            }
        }
        for (series, word) in &healer.orders.relearned {
            let count = follow.relearn(name(series), word.at);
            if count > 0 {
                tracing::info!(
                    subsystem = "watchdog",
                    event_type = "relearned",
                    count,
                    "a person had series learned anew"
                );
            }
        }
    }

    /// A pause, the kill switch or a maintenance window.
    fn hands_off(&self, now: Timestamp) -> bool {
        let facts = Facts {
            pause_file: self.pause_file.exists(),
            ..Facts::default()
        };
        let (healer, policy) = (self.mind.healer(), self.mind.policy());
        let wait = healer.hands_off(now, None, policy, &facts, Trigger::Watchdog);
        wait.is_some()
    }

    /// What the supervisor noticed between two checks.
    fn service_event(&mut self, event: &ServiceEvent) {
        let sample = match event {
            ServiceEvent::Exited {
                name,
                exit,
                expected: false,
                ..
            } => down(name, &format!("its process ended with {exit}")),
            ServiceEvent::Ready { name, process, .. } => {
                self.seen_ready.insert(name.clone(), process.clone());
                up(name)
            }
            _ => return,
        };
        let verdicts = {
            let mut watchdog = self.detector.lock();
            watchdog.observe(&sample);
            watchdog.check_liveness(clock::now())
        };
        if self.detector.resting.load(Ordering::SeqCst) {
            return;
        }
        self.tell(verdicts);
    }

    fn tell(&self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            let event = match verdict {
                Verdict::Raised(anomaly) => WatchEvent::Raised(Box::new(anomaly)),
                Verdict::Cleared { key, .. } => WatchEvent::Cleared { key },
                Verdict::Suppressed { key, by, .. } => {
                    tracing::info!(
                        subsystem = "watchdog",
                        event_type = "anomaly_suppressed",
                        key,
                        by,
                        "explained by another anomaly"
                    );
                    continue;
                }
                Verdict::Continues { .. } => continue,
            };
            if self.tx.try_send((event, Instant::now())).is_err() {
                tracing::warn!(
                    subsystem = "watchdog",
                    event_type = "queue_full",
                    "the healer's queue is full"
                );
            }
        }
    }

    /// Asks every watched address, and asks again at once where the answer did not come.
    async fn probe(&self) -> Vec<Sample> {
        let first = join_all(
            self.probes
                .iter()
                .map(|url| self.prober.probe(url, self.deadline)),
        )
        .await;
        let mut samples: Vec<Sample> = Vec::new();
        for (url, result) in self.probes.iter().zip(first) {
            let failed = matches!(
                result.error,
                Some(
                    probe::ProbeError::Refused
                        | probe::ProbeError::Timeout
                        | probe::ProbeError::Reset
                )
            );
            samples.push(self.probe_sample(url, &result));
            if failed {
                let again = self.prober.probe(url, self.deadline).await;
                samples.push(self.probe_sample(url, &again));
            }
        }
        samples
    }

    fn probe_sample(&self, url: &str, result: &ProbeResult) -> Sample {
        probe_sample(url, self.probe_service.clone(), result)
    }

    fn services(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for name in self.supervisor.names() {
            match self.supervisor.status(&name) {
                Ok(ServiceStatus::Running { process, ready, .. }) => {
                    // Said once for each process: that it was ready says nothing about whether it answers now.
                    if ready && self.seen_ready.get(&name) != Some(&process) {
                        samples.push(up(&name));
                        self.seen_ready.insert(name, process);
                    }
                }
                Ok(ServiceStatus::Down { exit, .. }) => {
                    samples.push(down(&name, &format!("its process ended with {exit}")));
                }
                Ok(ServiceStatus::NotStarted | ServiceStatus::Stopped { .. }) | Err(_) => {}
            }
        }
        samples.extend(memory_samples(&self.supervisor));
        samples
    }

    /// The target's own audited actions since the last check, and the playbook runs of the last ten minutes.
    fn ledger(&mut self) -> Vec<Sample> {
        let Some(reader) = self
            .reader
            .as_ref()
            .map(|r| r.lock().unwrap_or_else(PoisonError::into_inner))
        else {
            return Vec::new();
        };
        let now = clock::now();
        let mut samples = Vec::new();
        let exclude = Exclude {
            actors: &OWN_ACTORS,
            subsystems: &OWN_SUBSYSTEMS,
        };
        let counted = reader.head().and_then(|head| {
            let counts = reader.error_share_between(self.ledger_seen, head.sequence, exclude)?;
            Ok((head.sequence, counts))
        });
        if let Ok((sequence, counts)) = counted {
            let value = SampleValue::Counts {
                errors: counts.failed,
                total: counts.total,
            };
            samples.extend(sample(now, "immutable_log", value));
            self.ledger_seen = sequence;
        }
        let ten_minutes_ago = now.plus_millis(-600_000);
        // Runs against this very monitor are left out: it must not feed itself.
        let except = evenkeel_detect::failure_rate::SERIES;
        if let Ok(counts) = reader.playbook_run_counts(&ten_minutes_ago.to_string(), except) {
            samples.extend(sample(
                now,
                "playbook_runs",
                SampleValue::PlaybookRuns {
                    failed: counts.failed,
                    total: counts.total,
                },
            ));
        }
        samples
    }

    /// For `evenkeel status`. Losing it loses nothing, so it is not synced.
    fn write_status(&self, now: Timestamp) {
        let services: BTreeMap<String, String> = self
            .supervisor
            .names()
            .into_iter()
            .map(|name| {
                let status = match self.supervisor.status(&name) {
                    Ok(ServiceStatus::Running { process, ready, .. }) => {
                        format!("running as {process}{}", if ready { ", ready" } else { "" })
                    }
                    Ok(ServiceStatus::Down { exit, .. }) => format!("down ({exit})"),
                    Ok(ServiceStatus::Stopped { .. }) => "stopped".to_owned(),
                    Ok(ServiceStatus::NotStarted) => "not started".to_owned(),
                    Err(e) => e.to_string(),
                };
                (name, status)
            })
            .collect();
        let (measures, anomalies, series) = {
            let watchdog = self.detector.lock();
            let follow = watchdog.follow();
            // The first of them by name: the file is written at each check.
            let some: Vec<_> = follow.standings().take(SERIES_SHOWN_MAX).collect();
            (
                watchdog.measures(),
                watchdog.active().cloned().collect::<Vec<_>>(),
                json!({
                    "followed": follow.len(), "alarms": follow.budget().spent(), "dropped": follow.dropped(),
                    "series": some,
                }),
            )
        };
        let value = json!({
            "watchdog": "ACTIVE", "last_check": now, "measures": measures, "anomalies": anomalies,
            "services": services, "series": series,
        });
        let temp = self.status_file.with_extension("tmp");
        let written = std::fs::write(&temp, value.to_string())
            .and_then(|()| std::fs::rename(&temp, &self.status_file));
        if let Err(e) = written {
            tracing::warn!(
                subsystem = "watchdog",
                "the status file could not be written: {e}"
            );
        }
    }
}

/// A probe as a sample.
pub(crate) fn probe_sample(url: &str, service: Option<String>, result: &ProbeResult) -> Sample {
    // The time of the answer, so that two probes of one address never share a time.
    let took = Duration::from_secs_f64(result.latency_ms.max(0.0) / 1000.0);
    let at = result
        .at
        .plus_millis(i64::try_from(took.as_millis()).unwrap_or(0) + 1);
    let error = result.error.map(|e| match e {
        probe::ProbeError::Refused => ProbeError::Refused,
        probe::ProbeError::Timeout => ProbeError::Timeout,
        probe::ProbeError::Reset => ProbeError::Reset,
        probe::ProbeError::Status => ProbeError::Status(result.status.unwrap_or(0)),
        probe::ProbeError::Other => ProbeError::Other,
    });
    let name: String = url.chars().filter(|c| !c.is_control()).take(120).collect();
    Sample {
        at,
        series: SeriesId::new(format!("probe/{name}")).unwrap_or_else(|_| fallback_series()),
        value: SampleValue::Probe {
            service,
            endpoint: format!("GET {name}"),
            ok: result.ok,
            latency_ms: result.latency_ms,
            error,
        },
    }
}

/// The memory of each service that runs.
pub(crate) fn memory_samples(supervisor: &Supervisor) -> Vec<Sample> {
    let now = clock::now();
    supervisor
        .memory()
        .by_service
        .into_iter()
        .filter_map(|(name, bytes)| {
            let process = supervisor.status(&name).ok()?.process().cloned()?;
            let value = SampleValue::Memory {
                service: Some(name.clone()),
                // The shift keeps the number of the process out of the ticks.
                process: (u64::from(process.pid) << 40) ^ process.start_ticks,
                rss_bytes: bytes,
            };
            sample(now, &format!("memory/{name}"), value)
        })
        .collect()
}

pub(crate) fn sample(at: Timestamp, series: &str, value: SampleValue) -> Option<Sample> {
    SeriesId::new(series)
        .ok()
        .map(|series| Sample { at, series, value })
}

fn fallback_series() -> SeriesId {
    SeriesId::new("probe").expect("a name written in code is valid")
}

pub(crate) fn down(service: &str, detail: &str) -> Sample {
    Sample {
        at: clock::now(),
        series: SeriesId::new(format!("service/{service}")).unwrap_or_else(|_| fallback_series()),
        value: SampleValue::ServiceDown {
            service: service.to_owned(),
            detail: detail.to_owned(),
        },
    }
}

pub(crate) fn up(service: &str) -> Sample {
    Sample {
        at: clock::now(),
        series: SeriesId::new(format!("service/{service}")).unwrap_or_else(|_| fallback_series()),
        value: SampleValue::ServiceUp {
            service: service.to_owned(),
        },
    }
}
