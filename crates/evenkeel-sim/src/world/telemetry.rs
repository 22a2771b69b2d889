//! What the collectors bring at a check: for each service a probe, what it counted, and its memory, as they are or as
//! a fault of the measurements makes them.

use evenkeel_core::Timestamp;
use evenkeel_detect::{ProbeError, Sample, SampleValue, SeriesId, Watchdog};

use super::World;
use super::service::{DEADLINE_MS, Life, Reach};
use crate::fault::{HOUR_MS, TelemetryKind};
use crate::scenario::Scenario;

/// One MB, in bytes.
const MB: f64 = 1_048_576.0;

/// Samples of one service, kept between checks so that only their numbers are made anew.
#[derive(Debug)]
struct Of {
    probe: Sample,
    counts: Sample,
    memory: Sample,
    /// The last moment that was measured rightly.
    last: Timestamp,
}

/// The collectors.
#[derive(Debug)]
pub(crate) struct Collectors {
    of: Vec<Of>,
}

impl Collectors {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let of = scenario
            .services
            .iter()
            .map(|spec| {
                let series = |what: &str| {
                    SeriesId::new(format!("{what}/{}", spec.name)).expect("a short name")
                };
                let at = Timestamp::default();
                Of {
                    probe: Sample {
                        at,
                        series: series("probe"),
                        value: SampleValue::Probe {
                            service: Some(spec.name.to_owned()),
                            endpoint: "GET /health".to_owned(),
                            ok: true,
                            latency_ms: 0.0,
                            error: None,
                        },
                    },
                    counts: Sample {
                        at,
                        series: series("requests"),
                        value: SampleValue::Counts {
                            errors: 0,
                            total: 0,
                        },
                    },
                    memory: Sample {
                        at,
                        series: series("memory"),
                        value: SampleValue::Memory {
                            service: Some(spec.name.to_owned()),
                            process: 0,
                            rss_bytes: 0,
                        },
                    },
                    last: at,
                }
            })
            .collect();
        Self { of }
    }

    /// Measures every service once, and a second time at once where no answer came.
    pub(crate) fn collect(&mut self, world: &mut World, watchdog: &mut Watchdog) {
        let wall = world.wall();
        for s in 0..self.of.len() {
            if !world.is_worth_a_look(s) {
                continue;
            }
            let spec = &world.scenario().services[s];
            let seen = world.services[s].seen(spec, world.elapsed());
            let (life, process) = (world.services[s].life, world.services[s].process);
            let kind = world.telemetry[s];
            let of = &mut self.of[s];
            let at = match kind {
                Some(TelemetryKind::Missing) => {
                    let missing = Sample {
                        at: wall,
                        series: of.probe.series.clone(),
                        value: SampleValue::Missing {
                            reason: "no answer from the exporter".to_owned(),
                        },
                    };
                    watchdog.observe(&missing);
                    continue;
                }
                Some(TelemetryKind::Late) => wall.plus_millis(-HOUR_MS),
                Some(TelemetryKind::Ahead) => wall.plus_millis(HOUR_MS),
                Some(TelemetryKind::Stale) => of.last,
                _ => {
                    of.last = wall;
                    wall
                }
            };
            let lies = kind == Some(TelemetryKind::Wrong);
            let fails = lies || world.noise.unit() < seen.errors;
            let error = match seen.reach {
                Reach::Refused => Some(ProbeError::Refused),
                Reach::Silent => Some(ProbeError::Timeout),
                Reach::Answers => fails.then_some(ProbeError::Status(503)),
            };
            let spread = 1.0 + 0.15 * world.noise.bell();
            let latency_ms = match (kind, seen.reach) {
                (Some(TelemetryKind::NotANumber), _) => f64::NAN,
                (_, Reach::Refused) => 1.0,
                (_, Reach::Silent) => DEADLINE_MS,
                (_, Reach::Answers) => (seen.latency_ms * spread).clamp(0.1, DEADLINE_MS),
            };
            set_probe(&mut of.probe, at, error, latency_ms);
            watchdog.observe(&of.probe);
            if matches!(error, Some(ProbeError::Refused | ProbeError::Timeout)) {
                of.probe.at = at.plus_millis(50);
                watchdog.observe(&of.probe);
            }
            if seen.reach == Reach::Answers || kind == Some(TelemetryKind::Reset) {
                let (total, failed) = world.read_counters(s);
                let share = if lies { 0.9 } else { failed / total };
                let failed = world.failures(share, total);
                of.counts.at = at;
                of.counts.value = counts(kind, failed, total);
                watchdog.observe(&of.counts);
            }
            if life != Life::Down {
                let jitter = 1.0 + 0.005 * world.noise.bell();
                let bytes = seen.memory_mb * jitter * MB;
                of.memory.at = at;
                if let SampleValue::Memory {
                    process: p,
                    rss_bytes,
                    ..
                } = &mut of.memory.value
                {
                    *p = process;
                    *rss_bytes = whole(if kind == Some(TelemetryKind::NotANumber) {
                        0.0
                    } else {
                        bytes
                    });
                }
                watchdog.observe(&of.memory);
            }
        }
    }
}

fn set_probe(sample: &mut Sample, now: Timestamp, failed: Option<ProbeError>, ms: f64) {
    sample.at = now;
    if let SampleValue::Probe {
        ok,
        latency_ms,
        error,
        ..
    } = &mut sample.value
    {
        *ok = failed.is_none();
        *latency_ms = ms;
        *error = failed;
    }
}

fn counts(kind: Option<TelemetryKind>, failed: f64, total: f64) -> SampleValue {
    if kind == Some(TelemetryKind::Reset) {
        // A counter that began anew, subtracted from what it was.
        return SampleValue::Counts {
            errors: u64::MAX - 5,
            total: 3,
        };
    }
    SampleValue::Counts {
        errors: whole(failed),
        total: whole(total),
    }
}

fn whole(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "measures are positive and far below the bound"
    )]
    let whole = value.max(0.0) as u64;
    whole
}
