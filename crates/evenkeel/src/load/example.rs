//! Reports for tests: a run of so many seconds whose latencies come from a seeded generator.

use evenkeel_core::Timestamp;
use evenkeel_core::measure::LatencySummary;

use super::report::{
    Asked, Buckets, Lateness, OneRequest, Pacing, Percentiles, Point, Report, VERSION, Verdict,
};

/// `SplitMix64` (Steele et al. 2014), to the unit interval.
pub(crate) fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A run of `seconds` at 1,000 requests a second, whose latencies are about `ms` and vary by a tenth from second to
/// second.
pub(crate) fn report(seconds: u32, ms: f64, seed: u64) -> Report {
    let mut state = seed;
    let series: Vec<Point> = (0..seconds)
        .map(|second| {
            let level = ms * (0.95 + 0.1 * unit(&mut state));
            let latency_ms = LatencySummary {
                p50: level,
                p90: level * 1.5,
                p95: level * 1.8,
                p99: level * 3.0,
                max: level * 5.0,
                mean: level * 1.1,
            };
            Point {
                at_s: f64::from(second),
                length_s: 1.0,
                requests: 1_000,
                answered: 1_000,
                errors: 0,
                throughput_rps: 990.0 + 20.0 * unit(&mut state),
                latency_ms,
                service_ms: latency_ms,
            }
        })
        .collect();
    // Exponential, in buckets of about a hundredth.
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..20_000 {
        let value = ms * 1000.0 * (0.6 - (1.0 - unit(&mut state)).ln() * 0.6);
        let step = 10_f64.powf(value.log10().floor() - 2.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a latency in microseconds"
        )]
        let bucket = ((value / step).ceil() * step) as u64;
        *counts.entry(bucket).or_insert(0) += 1;
    }
    let percentiles = Percentiles {
        p50: ms,
        p75: ms * 1.3,
        p90: ms * 1.5,
        p95: ms * 1.8,
        p99: ms * 3.0,
        p99_9: ms * 4.0,
        p99_99: ms * 4.5,
        max: ms * 5.0,
        mean: ms * 1.1,
    };
    let requests = u64::from(seconds) * 1_000;
    Report {
        version: VERSION,
        evenkeel: "0.1.0".to_owned(),
        started_at: Timestamp::from_millis(1_762_715_115_042),
        run: Asked {
            url: "http://127.0.0.1:8080/orders".to_owned(),
            words: format!("1,000 requests a second for {seconds} s over 50 connections"),
            load: Pacing::Open {
                rate_from: 1_000.0,
                rate_to: 1_000.0,
                ramp_ms: 0,
                duration_ms: u64::from(seconds) * 1_000,
                arrivals: "constant".to_owned(),
            },
            connections: 50,
            threads: 1,
            protocol: "HTTP/1.1".to_owned(),
            keep_alive: true,
            streams: 1,
            warm_up_ms: 0,
            connect_timeout_ms: 2_000,
            request_timeout_ms: 10_000,
            seed: 1,
        },
        passed: true,
        invalid: None,
        requests,
        answered: requests,
        aborted: 0,
        unsent: 0,
        planned: Some(requests),
        failed: 0,
        error_share: 0.0,
        errors: [].into(),
        statuses: [(200, requests)].into(),
        error_codes: [].into(),
        error_samples: Vec::new(),
        elapsed_s: f64::from(seconds),
        throughput_rps: 1_000.0,
        latency_ms: percentiles,
        service_ms: percentiles,
        send_lateness_ms: Some(Lateness {
            p50: 0.01,
            p99: 0.2,
            max: 1.0,
        }),
        latency_histogram: Buckets {
            digits: 3,
            us: counts.into_iter().collect(),
        },
        service_histogram: Buckets::default(),
        per_request: vec![OneRequest {
            name: "GET /orders".to_owned(),
            requests,
            errors: [].into(),
            latency_ms: percentiles,
        }],
        series,
        bytes_received: 12_345_678,
        bytes_sent: 2_345_678,
        connections_opened: 50,
        cancelled: false,
        gave_up: false,
        too_many_errors: None,
        busiest_thread: Some(0.12),
        cpu_seconds: Some(1.2),
        thresholds: vec![Verdict {
            text: "p95 < 300ms".to_owned(),
            measured: Some(ms * 1.8),
            limit: 300.0,
            unit: "ms".to_owned(),
            passed: true,
        }],
    }
}
