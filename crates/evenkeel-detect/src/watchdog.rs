//! Puts the monitors together: samples wait until a check says what time it is, then evidence becomes verdicts.
//!
//! Order of a check: the clock is looked at first, then the samples pass the telemetry gate, then liveness is judged
//! (it explains the others), then errors, latency, memory, failed playbooks, drift and telemetry. While a service is
//! down or hung, findings of errors, latency, drift and missing telemetry are suppressed, whichever service they are
//! seen in: what depends on a dead service fails with it, and one incident is healed, not five. When it is over,
//! their windows begin anew, so that its own failures do not come back as an error spike.

mod leaks;
mod reset;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use evenkeel_core::anomaly::{Anomaly, AnomalyType, Severity};
use evenkeel_core::healer::NOTE_ONLY;
use evenkeel_core::time::Timestamp;
use serde_json::json;

use crate::baseline::Baseline;
use crate::config::DetectConfig;
use crate::drift::{self, Reference, Signal};
use crate::error_rate::{self, ErrorRate};
use crate::failure_rate::{self, FailureRate};
use crate::follow::{Follow, FollowConfig, Kind, Point, level};
use crate::latency::{self, Latency};
use crate::limits::{CLOCK_JUMP_FLOOR_MS, PENDING_MAX};
use crate::liveness::{self, Liveness};
use crate::memory::{self, Memory};
use crate::sample::{ProbeError, Sample, SampleValue};
use crate::slot::{Rule, Seen, Slot};
use crate::telemetry::{self, DropReason, Telemetry};
use crate::thresholds::Thresholds;
use crate::verdict::{MeasureNow, Measures, Verdict};

use leaks::Leaks;
pub use reset::Scope;

/// The watchdog's memory and judgement.
#[derive(Clone, Debug)]
pub struct Watchdog {
    config: DetectConfig,
    thresholds: Thresholds,
    baseline: Option<Baseline>,
    pending: VecDeque<Sample>,
    last_check: Option<Timestamp>,
    frozen: bool,
    telemetry: Telemetry,
    errors: ErrorRate,
    latency: Latency,
    memory: Memory,
    failures: FailureRate,
    liveness: Liveness,
    references: [Reference; 3],
    error_slot: Slot,
    latency_slot: Slot,
    memory_slot: Slot,
    failure_slot: Slot,
    telemetry_slot: Slot,
    drift_slots: [Slot; 3],
    follow: Follow,
    leaks: Leaks,
    /// By service: down and hung.
    liveness_slots: BTreeMap<String, (Slot, Slot)>,
}

impl Watchdog {
    /// A watchdog that has seen nothing yet. `config` and `thresholds` are to be validated by who reads them.
    pub fn new(config: DetectConfig, thresholds: Thresholds, baseline: Option<Baseline>) -> Self {
        let rule = Rule::persistent(&config);
        let note = rule.with_severity(Severity::Low);
        let references = references(baseline.as_ref());
        Self {
            error_slot: Slot::new(AnomalyType::ERROR_RATE_SPIKE, error_rate::SERIES, rule),
            latency_slot: Slot::new(AnomalyType::LATENCY_SPIKE, latency::SERIES, rule),
            memory_slot: Slot::new(AnomalyType::MEMORY_GROWTH, memory::SERIES, rule),
            failure_slot: Slot::new(AnomalyType::HIGH_FAILURE_RATE, failure_rate::SERIES, rule),
            telemetry_slot: Slot::new(
                AnomalyType::TELEMETRY_MISSING,
                telemetry::SERIES,
                Rule::at_once(&config, Severity::Low),
            ),
            drift_slots: Signal::ALL
                .map(|signal| Slot::new(AnomalyType::DRIFT, signal.series(), note)),
            liveness_slots: BTreeMap::new(),
            follow: Follow::new(FollowConfig::default()),
            leaks: Leaks::default(),
            config,
            thresholds,
            baseline,
            pending: VecDeque::new(),
            last_check: None,
            frozen: false,
            telemetry: Telemetry::default(),
            errors: ErrorRate::default(),
            latency: Latency::default(),
            memory: Memory::default(),
            failures: FailureRate::default(),
            liveness: Liveness::default(),
            references,
        }
    }

    /// The same, with these habits for followed series.
    #[must_use]
    pub fn with_follow(self, config: FollowConfig) -> Self {
        Self {
            follow: Follow::new(config),
            ..self
        }
    }

    /// Takes a sample; it is looked at when the next check says what time it is. What the supervisor saw is not a
    /// measurement and passes at once, so that no flood of samples and no clock can lose it.
    pub fn observe(&mut self, sample: &Sample) {
        match &sample.value {
            SampleValue::ServiceDown { .. } | SampleValue::ServiceUp { .. }
                if sample.defect().is_some() =>
            {
                self.telemetry.drop_one(DropReason::Absurd);
            }
            SampleValue::ServiceDown { service, detail } => {
                self.liveness.down(service, sample.at, detail);
            }
            SampleValue::ServiceUp { service } => self.liveness.up(service, sample.at),
            _ => {
                if self.pending.len() >= PENDING_MAX {
                    self.pending.pop_front();
                    self.telemetry.drop_one(DropReason::Overflow);
                }
                self.pending.push_back(sample.clone());
            }
        }
    }

    /// The regular check, to be made once an interval.
    pub fn check(&mut self, now: Timestamp) -> Vec<Verdict> {
        let jumped = self.look_at_the_clock(now);
        self.last_check = Some(now);
        self.absorb(now);
        let mut verdicts = self.judge_liveness();
        let by = self.unserved();
        let by = by.as_deref();
        let Thresholds {
            error_rate,
            latency_p95,
            memory_growth_mb,
            failure_rate,
        } = self.thresholds;
        let config = &self.config;
        let metrics = self.baseline.as_ref().map(|b| &b.metrics);

        let fresh_errors = self.errors.fresh_errors();
        let errors = self
            .errors
            .evaluate(now, config, error_rate, self.error_slot.culprit());
        let latency = self
            .latency
            .evaluate(now, config, latency_p95, self.latency_slot.culprit());
        let memory =
            self.memory
                .evaluate(now, config, memory_growth_mb, self.memory_slot.culprit());
        let failures = self.failures.evaluate(now, config, failure_rate);
        let trouble = [&errors, &latency, &memory, &failures]
            .iter()
            .any(|e| e.is_bad());
        let known = [&errors, &latency].map(|e| e.seen != Seen::Unknown);
        verdicts.extend(self.error_slot.step(
            errors,
            by,
            self.baseline.as_ref().map(Baseline::error_rate),
        ));
        verdicts.extend(self.latency_slot.step(
            latency,
            by,
            metrics.and_then(|m| m.p95_latency_ms),
        ));
        verdicts.extend(self.memory_slot.step(memory, None, None));
        verdicts.extend(self.failure_slot.step(failures, None, None));

        let quiet = !jumped && !trouble && by.is_none() && self.active().all(is_note);
        verdicts.extend(self.judge_drift(now, known, fresh_errors, quiet, by));
        let telemetry = self.telemetry.evaluate(now, &self.config);
        verdicts.extend(self.telemetry_slot.step(telemetry, by, None));
        // SAFETY 17: nothing is learned, and no new level adopted, while something is wrong.
        self.follow.freeze(self.frozen || !quiet);
        self.learn_measures(now);
        verdicts.extend(self.follow.check(now, by, !quiet));
        verdicts.extend(self.leaks.judge(&self.follow, now, &self.config, by));
        self.explain(&mut verdicts);
        verdicts
    }

    /// Looks at liveness only: for the moment a supervisor reports a death, between two regular checks. It does not
    /// count as a check for anything else.
    pub fn check_liveness(&mut self, now: Timestamp) -> Vec<Verdict> {
        // After a jump the regular check decides what the waiting samples are worth.
        if self
            .last_check
            .is_none_or(|last| !self.is_jump(now.millis_since(last)))
        {
            self.absorb(now);
        }
        self.judge_liveness()
    }

    fn is_jump(&self, elapsed_ms: i64) -> bool {
        let longest = self
            .config
            .interval_ms
            .saturating_mul(5)
            .max(CLOCK_JUMP_FLOOR_MS);
        elapsed_ms < 0 || elapsed_ms > longest
    }

    /// SAFETY 11 and 14: after a jump nothing from before it is evidence. Whether the clock was set or the machine
    /// slept cannot be told apart, and need not be. What stands, stands.
    fn look_at_the_clock(&mut self, now: Timestamp) -> bool {
        let Some(elapsed) = self.last_check.map(|last| now.millis_since(last)) else {
            return false;
        };
        if !self.is_jump(elapsed) {
            return false;
        }
        let by = if elapsed < 0 {
            elapsed
        } else {
            elapsed.saturating_sub(self.config.interval_ms)
        };
        self.telemetry.jumped(by, self.pending.len(), now);
        self.pending.clear();
        self.errors.reset(None);
        self.latency.reset(None);
        self.memory.reset(None);
        self.failures.reset();
        self.liveness.reset(None);
        for slot in self.slots_mut() {
            slot.forget_evidence();
        }
        true
    }

    fn absorb(&mut self, now: Timestamp) {
        while let Some(sample) = self.pending.pop_front() {
            if let SampleValue::Value { .. } = sample.value {
                self.follow_sample(&sample, now);
            } else if self.telemetry.admit(&sample, now, &self.config) {
                self.take(&sample);
            }
        }
    }

    fn take(&mut self, sample: &Sample) {
        let (at, series, config) = (sample.at, sample.series.as_str(), &self.config);
        match &sample.value {
            SampleValue::Probe {
                service,
                endpoint,
                ok,
                latency_ms,
                error,
            } => {
                let service = service.as_deref();
                let error = if *ok {
                    None
                } else {
                    Some(error.unwrap_or(ProbeError::Other))
                };
                self.liveness.probe(service, endpoint, at, error, config);
                self.errors.probe(service, at, *ok);
                match error {
                    None | Some(ProbeError::Status(_)) => {
                        self.latency.probe(service, at, *latency_ms);
                    }
                    Some(ProbeError::Timeout) => {
                        let at_least = latency_ms.max(config.probe_deadline_ms);
                        self.latency.probe(service, at, at_least);
                    }
                    Some(ProbeError::Refused | ProbeError::Reset | ProbeError::Other) => {}
                }
            }
            SampleValue::Counts { errors, total } => {
                self.errors.counts(series, at, *errors, *total);
            }
            SampleValue::Memory {
                service,
                process,
                rss_bytes,
            } => {
                let mb = *rss_bytes as f64 / memory::BYTES_PER_MB;
                self.follow.memory(series, *process, at, mb, !self.frozen);
                self.memory
                    .reading(series, service.as_deref(), *process, at, *rss_bytes, config);
            }
            SampleValue::LatencyQuantile { p95_ms, n } => {
                self.latency
                    .scraped(series, at, *p95_ms, *n, config.scraped_min_n);
            }
            SampleValue::PlaybookRuns { failed, total } => {
                self.failures.totals(at, *failed, *total);
            }
            SampleValue::Value { .. }
            | SampleValue::ServiceDown { .. }
            | SampleValue::ServiceUp { .. }
            | SampleValue::Missing { .. } => {}
        }
    }

    fn follow_sample(&mut self, sample: &Sample, now: Timestamp) {
        if let SampleValue::Value {
            service,
            measure,
            value,
            n,
        } = &sample.value
        {
            let point = Point {
                series: sample.series.as_str(),
                service: service.as_deref(),
                kind: *measure,
                at: sample.at,
                value: *value,
                n: *n,
                silent: false,
            };
            self.follow.observe(&point, now);
        }
    }

    /// The same for a series whose name is longer than a [`crate::SeriesId`], or where there are thousands at each
    /// check. `now` is the time of the check that it belongs to.
    pub fn observe_point(&mut self, point: &Point<'_>, now: Timestamp) {
        self.follow.observe(point, now);
    }

    /// What it measures itself is learned too, so that a person can be told what is usual. The fixed limits judge it.
    fn learn_measures(&mut self, now: Timestamp) {
        for (series, kind, value) in [
            (
                error_rate::SERIES,
                Kind::Errors,
                self.errors.measure(&self.config),
            ),
            (
                latency::SERIES,
                Kind::Latency,
                self.latency.measure(&self.config),
            ),
        ] {
            if let Some(measure) = value.filter(|m| m.enough) {
                let point = Point {
                    series,
                    service: None,
                    kind,
                    at: now,
                    value: measure.value,
                    n: None,
                    silent: true,
                };
                self.follow.observe(&point, now);
            }
        }
        if let Some(mb) = self.memory.total_mb() {
            let point = Point {
                series: "memory",
                service: None,
                kind: Kind::Memory,
                at: now,
                value: mb * memory::BYTES_PER_MB,
                n: None,
                silent: true,
            };
            self.follow.observe(&point, now);
        }
    }

    /// Adds what is usual, and a plot, to what the fixed limits found.
    fn explain(&self, verdicts: &mut [Verdict]) {
        for verdict in verdicts {
            let Verdict::Raised(anomaly) = verdict else {
                continue;
            };
            let Some(series) = anomaly.series.as_deref() else {
                continue;
            };
            let Some(standing) = self.follow.standing(series).filter(|s| s.learned) else {
                continue;
            };
            if let Some(context) = anomaly.context.as_object_mut()
                && !context.contains_key("plot")
            {
                let usual = (standing.low.max(0.0), standing.high);
                let _ = write!(
                    anomaly.details,
                    "; usual is {} to {}",
                    level(usual.0, standing.kind),
                    level(usual.1, standing.kind)
                );
                context.insert("usual".to_owned(), json!([usual.0, usual.1]));
                context.insert("plot".to_owned(), json!(self.follow.plot(series)));
            }
        }
    }

    fn judge_liveness(&mut self) -> Vec<Verdict> {
        let rule = Rule::at_once(&self.config, Severity::Critical);
        let (mut over, mut begun) = (Vec::new(), Vec::new());
        for condition in self.liveness.evaluate(&self.config) {
            let (down, hung) = self
                .liveness_slots
                .entry(condition.service)
                .or_insert_with_key(|service| {
                    let series = format!("{}{service}", liveness::SERIES_PREFIX);
                    (
                        Slot::new(AnomalyType::TARGET_DOWN, &series, rule),
                        Slot::new(AnomalyType::TARGET_HUNG, &series, rule),
                    )
                });
            for verdict in [
                down.step(condition.down, None, None),
                hung.step(condition.hung, None, None),
            ]
            .into_iter()
            .flatten()
            {
                // Hung turns into down: the one is over before the other begins.
                match verdict {
                    Verdict::Cleared { .. } => over.push(verdict),
                    _ => begun.push(verdict),
                }
            }
        }
        if !over.is_empty() {
            self.errors.reset(None);
            self.latency.reset(None);
            for slot in [&mut self.error_slot, &mut self.latency_slot]
                .into_iter()
                .chain(&mut self.drift_slots)
            {
                slot.forget_evidence();
            }
        }
        over.extend(begun);
        over
    }

    /// Key of the liveness anomaly that explains other trouble.
    fn unserved(&self) -> Option<String> {
        self.liveness_slots
            .values()
            .flat_map(|(down, hung)| [down, hung])
            .find_map(|slot| slot.active().map(|_| slot.key()))
    }

    fn judge_drift(
        &mut self,
        now: Timestamp,
        known: [bool; 2],
        fresh_errors: bool,
        quiet: bool,
        by: Option<&str>,
    ) -> Vec<Verdict> {
        let [errors_known, latency_known] = known;
        let judged = |measure: Option<MeasureNow>| measure.filter(|m| m.enough).map(|m| m.value);
        let error_rate = judged(self.errors.measure(&self.config)).filter(|_| errors_known);
        let latency = judged(self.latency.measure(&self.config)).filter(|_| latency_known);
        let memory = self.memory.total_mb();
        let memory_is_explained = self.memory_slot.active().is_some();
        let mut verdicts = Vec::new();
        for ((signal, reference), slot) in Signal::ALL
            .into_iter()
            .zip(&mut self.references)
            .zip(&mut self.drift_slots)
        {
            let (value, limit, fresh) = match signal {
                Signal::ErrorRate => (error_rate, Some(self.thresholds.error_rate), fresh_errors),
                Signal::Latency => (latency, Some(self.thresholds.latency_p95), true),
                Signal::Memory => (memory, memory_is_explained.then_some(0.0), true),
            };
            if let Some(value) = value
                && quiet
                && !self.frozen
            {
                reference.learn(value, &self.config);
            }
            let evaluation = reference.evaluate(signal, value, limit, fresh, now, &self.config);
            verdicts.extend(slot.step(evaluation, by, reference.value(&self.config)));
        }
        verdicts
    }

    /// Anomalies that stand, with their newest figures.
    pub fn active(&self) -> impl Iterator<Item = &Anomaly> {
        self.slots()
            .chain(self.leaks.slots())
            .filter_map(Slot::active)
            .chain(self.follow.active())
    }

    /// All measures as of the last check.
    pub fn measures(&self) -> Measures {
        let value = |m: Option<MeasureNow>| m.map(|m| m.value);
        Measures {
            error_rate: value(self.errors.measure(&self.config)),
            latency_p95_ms: value(self.latency.measure(&self.config)),
            memory_mb: self.memory.total_mb(),
            memory_growth_mb_per_h: value(self.memory.growth(&self.config)),
            failure_rate: value(self.failures.measure(&self.config)),
            up: self.liveness.up_by_service(&self.config),
        }
    }

    /// The measure behind one series of anomalies as of the last check: `error_rate`, `latency_p95`,
    /// `memory_growth`, `failure_rate`, or `liveness/SERVICE` (failures in a row, 0 when it answers). A series of
    /// drift is read by what it watches. Nothing for an unknown series, and where nothing was measured.
    pub fn measure(&self, series: &str) -> Option<MeasureNow> {
        let config = &self.config;
        match series.strip_prefix(drift::SERIES_PREFIX).unwrap_or(series) {
            error_rate::SERIES => self.errors.measure(config),
            latency::SERIES => self.latency.measure(config),
            memory::SERIES => self.memory.growth(config),
            failure_rate::SERIES => self.failures.measure(config),
            "memory" => self.memory.total_mb().map(|value| MeasureNow {
                value,
                unit: "MB",
                samples: 1,
                enough: true,
            }),
            other => self
                .liveness
                .measure(other.strip_prefix(liveness::SERIES_PREFIX)?),
        }
    }

    /// Stops learning: in incidents, fixes and maintenance (SAFETY 17). Checks go on.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Learns again.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Learning has been stopped.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Takes a new baseline; drift is judged against it from now on.
    pub fn set_baseline(&mut self, baseline: Option<Baseline>) {
        self.references = references(baseline.as_ref());
        self.baseline = baseline;
    }

    /// Every series that is followed.
    pub fn follow(&self) -> &Follow {
        &self.follow
    }

    /// The same, to tell it of deploys and what a person says, and to put what was learned before in its place.
    pub fn follow_mut(&mut self) -> &mut Follow {
        &mut self.follow
    }

    /// The baseline in force.
    pub fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// The limits in force.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The habits in force.
    pub fn config(&self) -> &DetectConfig {
        &self.config
    }

    /// When the last regular check was made.
    pub fn last_check(&self) -> Option<Timestamp> {
        self.last_check
    }

    /// Samples dropped so far, by reason.
    pub fn dropped(&self) -> &BTreeMap<DropReason, u64> {
        self.telemetry.dropped()
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.liveness_slots
            .values()
            .flat_map(|(down, hung)| [down, hung])
            .chain([
                &self.error_slot,
                &self.latency_slot,
                &self.memory_slot,
                &self.failure_slot,
            ])
            .chain(&self.drift_slots)
            .chain([&self.telemetry_slot])
    }

    fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.liveness_slots
            .values_mut()
            .flat_map(|(down, hung)| [down, hung])
            .chain([
                &mut self.error_slot,
                &mut self.latency_slot,
                &mut self.memory_slot,
                &mut self.failure_slot,
            ])
            .chain(&mut self.drift_slots)
            .chain([&mut self.telemetry_slot])
    }
}

fn references(baseline: Option<&Baseline>) -> [Reference; 3] {
    Signal::ALL.map(|signal| {
        Reference::given(baseline.and_then(|b| match signal {
            Signal::ErrorRate => Some(b.error_rate()),
            Signal::Latency => b.metrics.p95_latency_ms,
            Signal::Memory => b.metrics.rss_mb,
        }))
    })
}

/// A kind that is noted and never acted on.
fn is_note(anomaly: &Anomaly) -> bool {
    NOTE_ONLY.contains(&anomaly.kind.as_str())
}
