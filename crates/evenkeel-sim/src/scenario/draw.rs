//! Draws scenarios from seeds.

use std::collections::BTreeMap;

use evenkeel_core::cycle::Rules;
use evenkeel_core::policy::incident::Node;
use evenkeel_core::policy::{Limits, Mode, Policy, Topology, Window};
use serde_json::json;

use super::{Config, Mix, NAMES, Scenario, ServiceSpec, Watch};
use crate::fault::{
    Benign, BenignKind, DAY_MS, Fault, FaultKind, HOUR_MS, HostEvent, MINUTE_MS, PersonSays,
    TelemetryFault, TelemetryKind,
};
use crate::odds::Odds;
use crate::rng::Rng;

pub(super) fn scenario(seed: u64, config: Config) -> Scenario {
    // A stream of its own for each part, so that a change in one leaves the others as they were.
    let mut rng = Rng::new(seed);
    let mut stream = |n: u64| Rng::new(rng.bits() ^ n);
    let (mut target, mut wrong, mut calm, mut host) = (stream(1), stream(2), stream(3), stream(4));
    let mut odds_from = stream(5);
    let days = config.days.clamp(1, 3660);
    let end = i64::from(days) * DAY_MS;
    let services = services(&mut target);
    let n = services.len();
    let odds = match config.mix {
        Mix::Campaign | Mix::Ordinary => Odds::draw(&mut odds_from),
        Mix::Calm | Mix::Telemetry | Mix::Permanent => Odds {
            advice_good: 500,
            ..Odds::default()
        },
    };
    let faults = match config.mix {
        Mix::Calm | Mix::Telemetry => Vec::new(),
        Mix::Permanent => vec![permanent(&mut wrong, n)],
        Mix::Campaign => {
            let per_week = wrong.pick([0, 1, 1, 2, 2, 3]);
            faults(&mut wrong, n, per_week * days.div_ceil(7), end)
        }
        Mix::Ordinary => {
            let per_month = wrong.pick([0, 1, 1, 2]);
            faults(&mut wrong, n, per_month * days.div_ceil(30), end)
        }
    };
    let telemetry = match config.mix {
        Mix::Calm | Mix::Permanent => Vec::new(),
        Mix::Telemetry => telemetry(&mut host, n, 12, end, false),
        Mix::Campaign | Mix::Ordinary => {
            let count = host.pick([0, 0, 0, 1, 2]);
            let lies = host.chance(300);
            telemetry(&mut host, n, count, end, lies)
        }
    };
    let host_events = match config.mix {
        Mix::Campaign | Mix::Ordinary => host_events(&mut host, n, end, &faults),
        Mix::Telemetry => vec![(
            host.between(HOUR_MS, end - 1),
            HostEvent::ClockSet {
                by_ms: host.pick([-7_200_000, 7_200_000, -600_000, 90_000]),
            },
        )],
        Mix::Calm | Mix::Permanent => Vec::new(),
    };
    let campaign = matches!(config.mix, Mix::Campaign | Mix::Ordinary);
    let policy = policy(&mut stream(6), &services, campaign);
    Scenario {
        seed,
        days,
        faults,
        benign: benign(&mut calm, n, end, campaign),
        telemetry,
        host: host_events,
        odds,
        rules: Rules {
            max_attempts: odds_from.pick([1, 2, 3, 3]),
            settle_ms: odds_from.pick([0, 30_000, 120_000]),
            retry_wait_ms: 5_000,
            advisors: odds_from.pick([0, 1, 2]),
            mode: policy.mode,
            retry_wait_max_ms: policy.limits.cooldown_max_s * 1000,
            breaker_cycles: policy.limits.breaker_cycles,
        },
        policy,
        watch: Watch {
            interval_ms: MINUTE_MS,
            every_check: config.every_check,
            every_service: config.every_check || config.mix == Mix::Telemetry,
        },
        services,
        bug: config.bug,
    }
}

fn services(rng: &mut Rng) -> Vec<ServiceSpec> {
    let n = rng.pick([2, 4, 8, 16, 24, 24]);
    (0..n)
        .map(|i| {
            let load = rng.between(5, 200) as f64;
            let needs = (0..i)
                .filter(|_| rng.chance(1000 / u32::try_from(n).unwrap_or(1)))
                .take(3)
                .collect();
            ServiceSpec {
                name: NAMES[i],
                load,
                swing: f64::from(rng.below(400)) / 1000.0,
                peak: rng.unit(),
                growth: f64::from(rng.below(300)) / 1_000_000.0,
                // Eight workers have work for two of them or so on an average day.
                per_worker: load / (rng.between(15, 25) as f64 / 10.0),
                latency_ms: rng.between(10, 250) as f64,
                memory_mb: rng.between(40, 800) as f64,
                start_ms: rng.between(500, 20_000),
                instance_of: if i > 0 && i % 5 < 3 { i - i % 5 } else { i },
                error_share: f64::from(rng.below(5)) / 1000.0,
                needs,
            }
        })
        .collect()
}

/// Limits as they ship, tighter, or so wide that only the cycle's own count.
fn policy(rng: &mut Rng, services: &[ServiceSpec], campaign: bool) -> Policy {
    let wide = Limits {
        heals_per_hour: 1_000,
        heals_per_day: 10_000,
        heals_per_service_hour: 1_000,
        heals_per_service_day: 10_000,
        restarts_per_service_hour: 1_000,
        flaps: 32,
        quiet_s: 600,
        breaker_cycles: 100,
        storm_services: 1_000,
        ..Limits::default()
    };
    let tight = Limits {
        heals_per_hour: 2,
        heals_per_day: 4,
        heals_per_service_hour: 1,
        restarts_per_service_hour: 1,
        attempt_timeout_s: 60,
        cycle_timeout_s: 300,
        approval_expires_s: 600,
        ..Limits::default()
    };
    let (mode, limits) = if campaign {
        let mode = rng.pick([
            Mode::Auto,
            Mode::Auto,
            Mode::Auto,
            Mode::Auto,
            Mode::Approve,
            Mode::Shadow,
        ]);
        (
            mode,
            rng.pick([Limits::default(), Limits::default(), tight, wide]),
        )
    } else {
        (Mode::Auto, Limits::default())
    };
    let window = json!({"name": "backup", "from": "01:00", "to": "04:30"});
    let maintenance: Vec<Window> = serde_json::from_value(window).into_iter().collect();
    let nodes: BTreeMap<String, Node> = services
        .iter()
        .map(|s| {
            let node = Node {
                depends_on: s
                    .needs
                    .iter()
                    .map(|n| services[*n].name.to_owned())
                    .collect(),
                instance_of: services[s.instance_of].name.to_owned(),
                outside: false,
            };
            (s.name.to_owned(), node)
        })
        .collect();
    Policy {
        mode,
        playbook_modes: BTreeMap::new(),
        limits,
        maintenance: if campaign && rng.chance(150) {
            maintenance
        } else {
            Vec::new()
        },
        recurrence_window_ms: HOUR_MS,
        retry_wait_ms: 5_000,
        topology: Topology {
            nodes,
            front: Some(services[0].name.to_owned()),
        },
        target: "simulated".to_owned(),
    }
}

fn fault(rng: &mut Rng, kind: FaultKind, service: usize, at: i64) -> Fault {
    use FaultKind as K;
    let for_a_while = [10, 45, 180, 1440].map(|m| m * MINUTE_MS);
    let lasts = match kind {
        // Its cause is the process: it is over with it, unless it returns.
        K::Crash | K::Hang | K::Lock | K::Pool => rng.chance(500).then(|| rng.pick(for_a_while)),
        K::Leak | K::SlowLeak | K::HurtByRestart | K::Incurable | K::BrokenStart => {
            rng.chance(700).then(|| rng.pick(for_a_while))
        }
        K::BadDeploy | K::Upstream | K::SlowUpstream | K::Overload => {
            rng.chance(900).then(|| rng.pick(for_a_while))
        }
    };
    let flaps = (kind != K::SlowLeak && rng.chance(120)).then(|| {
        (
            rng.pick([3, 10, 40]) * MINUTE_MS,
            rng.pick([5, 15, 60, 600]) * MINUTE_MS,
        )
    });
    // What comes and goes for ever is a mix of its own.
    let lasts = match (lasts, flaps) {
        (None, Some(_)) => Some(rng.pick([45, 180, 1440]) * MINUTE_MS),
        (lasts, _) => lasts,
    };
    let returns = (matches!(kind, K::Crash | K::Hang) && rng.chance(400))
        .then(|| rng.pick([1, 10, 45, 300]) * MINUTE_MS);
    Fault {
        kind,
        service,
        at,
        lasts,
        flaps,
        strength: rng.pick([150, 300, 600, 1000]),
        returns,
    }
}

fn faults(rng: &mut Rng, services: usize, count: u32, end: i64) -> Vec<Fault> {
    let mut found = Vec::new();
    for _ in 0..count.min(400) {
        let kind = rng.pick(FaultKind::ALL);
        let at = rng.between(10 * MINUTE_MS, end - 1);
        let service = pick_service(rng, services);
        found.push(fault(rng, kind, service, at));
        // Two at once, or the same everywhere.
        if rng.chance(150) {
            let (kind, at) = (
                rng.pick(FaultKind::ALL),
                at + rng.between(0, 10 * MINUTE_MS),
            );
            let service = pick_service(rng, services);
            found.push(fault(rng, kind, service, at));
        } else if rng.chance(60) {
            let kind = rng.pick([FaultKind::Crash, FaultKind::Hang]);
            found.extend((0..services).map(|s| Fault {
                lasts: Some(HOUR_MS),
                returns: None,
                flaps: None,
                ..fault(rng, kind, s, at)
            }));
        }
    }
    found
}

fn permanent(rng: &mut Rng, services: usize) -> Fault {
    let kind = rng.pick([
        FaultKind::Crash,
        FaultKind::BrokenStart,
        FaultKind::Hang,
        FaultKind::Leak,
        FaultKind::BadDeploy,
        FaultKind::Upstream,
        FaultKind::Overload,
        FaultKind::HurtByRestart,
        FaultKind::Incurable,
    ]);
    let flaps = rng.chance(400).then(|| {
        (
            rng.pick([3, 10, 40]) * MINUTE_MS,
            rng.pick([5, 15, 60, 600]) * MINUTE_MS,
        )
    });
    Fault {
        kind,
        service: pick_service(rng, services),
        at: rng.between(10 * MINUTE_MS, 5 * HOUR_MS),
        lasts: None,
        flaps,
        strength: rng.pick([300, 600, 1000]),
        returns: Some(rng.pick([1, 10, 45, 300]) * MINUTE_MS),
    }
}

fn benign(rng: &mut Rng, services: usize, end: i64, few: bool) -> Vec<Benign> {
    let mut found = Vec::new();
    let per_week = if few { rng.pick([0, 1, 2]) } else { 6 };
    let count = i64::from(per_week) * end.div_euclid(7 * DAY_MS).max(1);
    for _ in 0..count.min(600) {
        let kind = rng.pick([
            BenignKind::Deploy,
            BenignKind::PersonRestarts,
            BenignKind::Visitors,
        ]);
        found.push(Benign {
            kind,
            service: pick_service(rng, services),
            at: rng.between(10 * MINUTE_MS, end - 1),
            lasts: match kind {
                BenignKind::Visitors => rng.between(20, 300) * MINUTE_MS,
                _ => rng.between(1_000, 40_000),
            },
            every: None,
        });
    }
    if !few || rng.chance(100) {
        found.push(Benign {
            kind: BenignKind::Cron,
            service: pick_service(rng, services),
            at: rng.between(0, DAY_MS - 1),
            lasts: rng.between(5, 50) * MINUTE_MS,
            every: Some(DAY_MS),
        });
    }
    found
}

fn telemetry(
    rng: &mut Rng,
    services: usize,
    count: u32,
    end: i64,
    lies: bool,
) -> Vec<TelemetryFault> {
    use TelemetryKind as T;
    (0..count)
        .map(|_| TelemetryFault {
            kind: if lies {
                T::Wrong
            } else {
                rng.pick([
                    T::Missing,
                    T::Late,
                    T::NotANumber,
                    T::Stale,
                    T::Reset,
                    T::Ahead,
                ])
            },
            service: pick_service(rng, services),
            at: rng.between(10 * MINUTE_MS, end - 1),
            lasts: rng.pick([5, 30, 120]) * MINUTE_MS,
        })
        .collect()
}

fn host_events(
    rng: &mut Rng,
    services: usize,
    end: i64,
    faults: &[Fault],
) -> Vec<(i64, HostEvent)> {
    let count = rng.pick([0, 0, 1, 1, 2, 3]);
    (0..count)
        .map(|_| {
            let near = rng.below(u32::try_from(faults.len()).unwrap_or(0)) as usize;
            let at = match faults.get(near) {
                // In the middle of things.
                Some(fault) if rng.chance(600) => fault.at + rng.between(0, 12 * MINUTE_MS),
                _ => rng.between(MINUTE_MS, end - 1),
            };
            let event = match rng.below(9) {
                0 | 1 => HostEvent::Killed {
                    gone_ms: rng.pick([2_000, 60_000, 3_600_000]),
                },
                2 => HostEvent::DiskFull {
                    for_ms: rng.pick([10, 120]) * MINUTE_MS,
                },
                3 => HostEvent::ClockSet {
                    by_ms: rng.pick([-7_200_000, -60_000, 600_000, 86_400_000]),
                },
                4 => HostEvent::HandRun {
                    service: pick_service(rng, services),
                },
                5 => HostEvent::Meddling,
                _ => {
                    let service = pick_service(rng, services);
                    let says = rng.pick([
                        PersonSays::Pause,
                        PersonSays::PauseFile,
                        PersonSays::Lock(service),
                        PersonSays::SilenceErrors,
                        PersonSays::Shadow,
                    ]);
                    HostEvent::Order(says, rng.pick([10, 120, 1500]) * MINUTE_MS)
                }
            };
            (at, event)
        })
        .collect()
}

fn pick_service(rng: &mut Rng, services: usize) -> usize {
    rng.below(u32::try_from(services).unwrap_or(1)) as usize
}
