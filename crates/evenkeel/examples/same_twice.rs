//! How often two runs of the very same load are said to differ: the false alarms of `evenkeel load --compare`, measured
//! and not assumed.
//!
//! ```text
//! cargo run --release -p evenkeel --example same_twice -- measure http://127.0.0.1:8080/ runs 40 15 closed
//! cargo run --release -p evenkeel --example same_twice -- judge runs
//! ```
//!
//! The first makes 40 runs of 15 seconds, one after the other, and saves them in `runs`; `closed` is 16 connections as
//! fast as they go, a number is that many requests a second over them. The second compares each run with the next one and
//! with the one after that.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use evenkeel::load::compare::{Comparison, Figure, Finding, compare};
use evenkeel::load::report::{Asked, Pacing, Report};
use evenkeel_core::Timestamp;
use evenkeel_stress::{BaseUrl, Cancel, Load, Plan, Rate, RequestSpec, Think, Until, run};

const CONNECTIONS: u32 = 16;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["measure", url, dir, runs, seconds, load] => {
            let seconds = Duration::from_secs(seconds.parse()?);
            measure(url, Path::new(dir), runs.parse()?, seconds, load)
        }
        ["judge", dirs @ ..] if !dirs.is_empty() => {
            dirs.iter().try_for_each(|d| judge(Path::new(d)))
        }
        _ => bail!(
            "usage: same_twice measure URL DIR RUNS SECONDS closed|RATE | same_twice judge DIR..."
        ),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(
    url: &str,
    dir: &Path,
    runs: u32,
    seconds: Duration,
    load: &str,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let base = BaseUrl::parse(url)?;
    let get = vec![RequestSpec::get("/")];
    let mut plan = Plan::closed(base, get, 1, CONNECTIONS);
    let duration_ms = u64::try_from(seconds.as_millis())?;
    let pacing = if load == "closed" {
        plan.load = Load::Closed {
            connections: CONNECTIONS,
            until: Until::Elapsed(seconds),
            think: Think::default(),
        };
        Pacing::Closed {
            requests: None,
            duration_ms: Some(duration_ms),
            think_ms: [0, 0],
        }
    } else {
        let rate: f64 = load.parse()?;
        plan.load = Load::Open {
            rate: Rate::constant(rate),
            arrivals: evenkeel_stress::Arrivals::Poisson,
            duration: seconds,
            connections: CONNECTIONS,
        };
        Pacing::Open {
            rate_from: rate,
            rate_to: rate,
            ramp_ms: 0,
            duration_ms,
            arrivals: "poisson".to_owned(),
        }
    };
    plan.warm_up = Duration::from_secs(1);
    for n in 0..runs {
        plan.seed = u64::from(n) + 1;
        let outcome = run(&plan, &Cancel::new()).await?;
        let asked = Asked {
            url: url.to_owned(),
            words: format!(
                "{load}, {CONNECTIONS} connections for {} s",
                seconds.as_secs()
            ),
            load: pacing.clone(),
            connections: CONNECTIONS,
            threads: plan.threads,
            protocol: "HTTP/1.1".to_owned(),
            keep_alive: true,
            streams: 1,
            warm_up_ms: 1_000,
            connect_timeout_ms: 2_000,
            request_timeout_ms: 10_000,
            seed: plan.seed,
        };
        let report = Report::new(asked, Timestamp::from_millis(0), &outcome);
        println!(
            "{:.0} /s, p99 {:.3} ms",
            report.throughput_rps, report.latency_ms.p99
        );
        let text = serde_json::to_string(&report)?;
        std::fs::write(dir.join(format!("{n:03}.json")), text)?;
    }
    Ok(())
}

fn judge(dir: &Path) -> anyhow::Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let runs = files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file)?;
            Report::read(&text).with_context(|| file.display().to_string())
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let pairs: Vec<Comparison> = [1, 2]
        .into_iter()
        .flat_map(|apart| runs.iter().zip(runs.iter().skip(apart)))
        .map(|(old, new)| compare(old, new))
        .collect();
    println!(
        "{}: {} runs, {} pairs",
        dir.display(),
        runs.len(),
        pairs.len()
    );
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>8}  p < 0.01 alone",
        "", "better", "worse", "same", "unclear"
    );
    let line = |name: &str, found: &[Finding], alone: usize| {
        let n = |f| found.iter().filter(|x| **x == f).count();
        println!(
            "{name:<12} {:>8} {:>8} {:>8} {:>8}  {alone}",
            n(Finding::Better),
            n(Finding::Worse),
            n(Finding::Same),
            n(Finding::Unclear)
        );
    };
    for (i, figure) in [
        Figure::Throughput,
        Figure::LatencyP50,
        Figure::LatencyP95,
        Figure::LatencyP99,
        Figure::Errors,
    ]
    .into_iter()
    .enumerate()
    {
        let found: Vec<Finding> = pairs.iter().map(|p| p.changes[i].finding).collect();
        let clear = |p: &&Comparison| p.changes[i].p_value.is_some_and(|p| p < 0.01);
        line(figure.name(), &found, pairs.iter().filter(clear).count());
    }
    let found: Vec<Finding> = pairs.iter().map(|p| p.finding).collect();
    line("any", &found, 0);
    Ok(())
}
