//! Makes load on an address and prints what was measured.
//!
//! ```text
//! cargo run --release -p evenkeel-stress --example load -- http://127.0.0.1:8080/health 50 10        # closed loop
//! cargo run --release -p evenkeel-stress --example load -- http://127.0.0.1:8080/health 50 10 2000   # 2,000 a second
//! ```
//!
//! `evenkeel load` is this with all the rest.

use std::time::Duration;

use evenkeel_stress::{BaseUrl, Cancel, Load, Plan, Rate, RequestSpec, Think, Until, run, summary};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, connections, seconds, rate @ ..] = args.as_slice() else {
        return Err("usage: load URL CONNECTIONS SECONDS [RATE]".into());
    };
    let path_at = url
        .find("://")
        .and_then(|s| Some(s + 3 + url[s + 3..].find('/')?));
    let (base, path) = url.split_at(path_at.unwrap_or(url.len()));
    let requests = vec![RequestSpec::get(if path.is_empty() { "/" } else { path })];
    let base = BaseUrl::parse(base)?;
    let connections = connections.parse()?;
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let plan = match rate.first() {
        Some(rate) => Plan::open(
            base,
            requests,
            Rate::constant(rate.parse()?),
            duration,
            connections,
        ),
        None => Plan {
            load: Load::Closed {
                connections,
                until: Until::Elapsed(duration),
                think: Think::default(),
            },
            ..Plan::closed(base, requests, 1, connections)
        },
    };
    let outcome = run(&plan, &Cancel::new()).await?;
    let latency = outcome.summary();
    println!(
        "{} requests, {:.0} a second, errors {:?}",
        outcome.requests, outcome.throughput_rps, outcome.errors
    );
    println!(
        "latency from when a request was due: p50 {} ms, p99 {} ms, max {} ms",
        latency.p50, latency.p99, latency.max
    );
    if outcome.planned.is_some() {
        let (service, late) = (
            summary(&outcome.service_time),
            summary(&outcome.send_lateness),
        );
        println!(
            "from when it was sent: p50 {} ms, p99 {} ms",
            service.p50, service.p99
        );
        println!(
            "the engine's own lateness: p50 {} ms, p99 {} ms, max {} ms",
            late.p50, late.p99, late.max
        );
    }
    if let Some(why) = &outcome.invalid {
        println!("invalid: {why}");
    }
    if let (Some(cpu), true) = (outcome.cpu_seconds, outcome.requests > 0) {
        println!(
            "{:.2} s of processor time for a million requests",
            cpu * 1e6 / outcome.requests as f64
        );
    }
    Ok(())
}
