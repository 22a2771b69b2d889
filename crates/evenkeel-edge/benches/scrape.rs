//! What scraping costs: 100 targets with 1,000 series each, all read every 10 s, for a minute, first by itself and then
//! with a detector for every series; and the parser alone, as a ratio to a plain pass over the same bytes:
//! `cargo bench -p evenkeel-edge --bench scrape`.
//!
//! With detectors, every series has a past of 200 readings before anything is counted, so that all that a series ever
//! holds is there and all of it is judged.
//!
//! The targets are served over loopback by another process (this program again), so that their cost is not in the figure.
//! Where a `prometheus` is found (`PROMETHEUS` names it, or it is in `PATH`), it reads the same targets afterwards, as
//! often and for as long. Linux only: it reads what `/proc` says of a process.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to tell"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_core::time::Timestamp;
use evenkeel_detect::follow::{Follow, FollowConfig, Kind, Point};
use evenkeel_edge::collect::Prober;
use evenkeel_edge::collect::exposition::{Entry, Exposition, Format};
use evenkeel_edge::collect::reading::{Reading, ReadingKind};
use evenkeel_edge::collect::scraper::{ScrapeTarget, Scraper};

const TARGETS: usize = 100;
const EVERY: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_mins(1);
/// Clock ticks in a second, as `/proc` counts them.
const TICKS: f64 = 100.0;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a == "--serve") {
        return serve();
    }
    parser();
    let server = Server::start();
    for (who, detects) in [
        ("Evenkeel, scraping alone", false),
        ("Evenkeel, with a detector for every series", true),
    ] {
        let (used, resident) = ours(server.port, detects);
        told(who, used, resident);
    }
    match prometheus() {
        Some(program) => theirs(&program, server.port),
        None => println!("Prometheus: there is no `prometheus` here, so it was not measured"),
    }
}

fn told(who: &str, cpu_s: f64, resident_kib: u64) {
    println!(
        "{who}: {:.2} % of one core (user and system, {:.2} s of {} s), {} MB resident",
        cpu_s / LASTS.as_secs_f64() * 100.0,
        cpu_s,
        LASTS.as_secs(),
        resident_kib / 1024
    );
}

/// A page of 1,000 series as a service has them: 20 histograms of 14 lines each, 480 counters, 240 gauges.
fn page(target: u64, scrape: u64) -> String {
    let mut page = String::with_capacity(100_000);
    for h in 0..4 {
        let name = format!("rpc_{h}_duration_seconds");
        writeln!(
            page,
            "# HELP {name} How long calls took.\n# TYPE {name} histogram"
        )
        .unwrap();
        for label in 0..5 {
            let labels = format!("service=\"orders\",method=\"call_{label}\"");
            let mut count = 0;
            let bounds = [
                "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10",
                "+Inf",
            ];
            for (b, bound) in bounds.iter().enumerate() {
                count += scrape * (13 + (target + b as u64 * 7) % 11);
                writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}").unwrap();
            }
            writeln!(page, "{name}_sum{{{labels}}} {}", count as f64 * 0.037_251).unwrap();
            writeln!(page, "{name}_count{{{labels}}} {count}").unwrap();
        }
    }
    for c in 0..24 {
        let name = format!("http_requests_{c}_total");
        writeln!(
            page,
            "# HELP {name} Requests by route and status.\n# TYPE {name} counter"
        )
        .unwrap();
        for label in 0..20_usize {
            let value = scrape * (100 + (c * 31 + label as u64 * 17 + target) % 53);
            let status = [200, 201, 404, 500][label % 4];
            writeln!(
                page,
                "{name}{{route=\"/api/v1/items/{label}\",method=\"GET\",status=\"{status}\",zone=\"eu-{}\"}} {value}",
                label % 3
            )
            .unwrap();
        }
    }
    for g in 0..24 {
        let name = format!("pool_{g}_bytes");
        writeln!(
            page,
            "# HELP {name} Bytes held by a pool.\n# TYPE {name} gauge"
        )
        .unwrap();
        for label in 0..10 {
            let value = 1e6 * (1.5 + ((scrape * 7 + g * 13 + label) as f64).sin());
            writeln!(
                page,
                "{name}{{pool=\"worker-{label}\",kind=\"heap\"}} {value}"
            )
            .unwrap();
        }
    }
    page
}

/// Serves `/N` for each target, with figures that grow from one scrape to the next.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..TARGETS).map(|_| AtomicU64::new(0)).collect());
    for stream in listener.incoming() {
        let (stream, counts) = (stream.unwrap(), Arc::clone(&counts));
        std::thread::spawn(move || answer(stream, &counts));
    }
}

/// Answers until the other side hangs up.
fn answer(mut stream: TcpStream, counts: &[AtomicU64]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    loop {
        let Some(Ok(first)) = lines.next() else {
            return;
        };
        let mut closes = false;
        loop {
            match lines.next() {
                Some(Ok(line)) if line.is_empty() => break,
                Some(Ok(line)) => closes |= line.eq_ignore_ascii_case("connection: close"),
                _ => return,
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let target: usize = path.trim_start_matches('/').parse().unwrap_or(0) % TARGETS;
        let scrape = counts[target].fetch_add(1, Ordering::Relaxed) + 1;
        let page = page(target as u64, scrape);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
            page.len()
        );
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(page.as_bytes()));
        if sent.is_err() || closes {
            return;
        }
    }
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--serve")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().parse().unwrap();
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parser over one page, and `memchr` over the same.
fn parser() {
    let page = page(3, 1000);
    let samples = Exposition::new(page.as_bytes(), Format::Prometheus)
        .filter(|e| matches!(e, Entry::Sample(_)))
        .count();
    let mb = page.len() as f64 / 1e6;
    // The best of many: what the machine does besides only ever makes it slower.
    let best = |f: &mut dyn FnMut() -> u64| {
        let mut best = f64::MAX;
        for _ in 0..400 {
            let begun = Instant::now();
            std::hint::black_box(f());
            best = best.min(begun.elapsed().as_secs_f64());
        }
        mb / best
    };
    let ours = best(&mut || {
        let mut sum = 0.0;
        for entry in Exposition::new(std::hint::black_box(page.as_bytes()), Format::Prometheus) {
            if let Entry::Sample(sample) = entry {
                sum += sample.value;
            }
        }
        sum.to_bits()
    });
    let lines = best(&mut || {
        memchr::memchr_iter(b'\n', std::hint::black_box(page.as_bytes())).count() as u64
    });
    let bytes = best(&mut || {
        let page = std::hint::black_box(page.as_bytes());
        page.iter().map(|b| u64::from(*b == b'\n')).sum()
    });
    println!(
        "parser: {ours:.0} MB/s over a page of {:.0} KB with {samples} samples; finding the line ends by memchr: {lines:.0} MB/s \
         ({:.2} of it); a plain count of bytes: {bytes:.0} MB/s ({:.2} of it)",
        mb * 1000.0,
        ours / lines,
        ours / bytes
    );
}

/// Scrapes for a while, and follows what it reads if it `detects`; what this process used meanwhile.
fn ours(port: u16, detects: bool) -> (f64, u64) {
    let targets = (0..TARGETS).map(|i| ScrapeTarget {
        every: EVERY,
        ..ScrapeTarget::new(
            format!("target-{i}"),
            format!("http://127.0.0.1:{port}/{i}"),
        )
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut scraper = Scraper::new(targets.collect(), Prober::new(), Instant::now());
    let mut follow = Follow::new(FollowConfig {
        series_max: 2 * TARGETS * 1_000,
        ..FollowConfig::default()
    });
    let read = async |scraper: &mut Scraper, until: Instant| {
        let due = scraper.next_due().unwrap().min(until);
        tokio::time::sleep_until(due.into()).await;
        let round = scraper.round(Instant::now()).await;
        assert!(
            round
                .reports
                .iter()
                .all(|r| r.missing.is_none() && r.notes.is_empty())
        );
        round
    };
    let (mut asked, mut readings) = (0, 0);
    let used = runtime.block_on(async {
        if detects {
            // Rates are there from the second reading on.
            let until = Instant::now() + EVERY + EVERY / 2;
            while Instant::now() < until {
                let round = read(&mut scraper, until).await;
                give_a_past(&mut follow, &round.readings);
            }
        }
        let begun = Instant::now();
        let before = cpu(std::process::id());
        while begun.elapsed() < LASTS {
            let round = read(&mut scraper, begun + LASTS).await;
            asked += round.reports.len();
            readings += round.readings.len();
            if detects && let Some(newest) = round.readings.iter().map(|r| r.at).max() {
                for reading in &round.readings {
                    follow.observe(&point(reading, reading.at, reading.value), newest);
                }
                follow.check(newest, None, false);
            }
        }
        cpu(std::process::id()) - before
    });
    println!(
        "{asked} scrapes of {} series in all, {readings} readings, {} followed, {} dropped",
        scraper.series_len(),
        follow.len(),
        follow.dropped().values().sum::<u64>()
    );
    (used, resident(std::process::id()))
}

/// The reading as a point of a followed series.
fn point(reading: &Reading, at: Timestamp, value: f64) -> Point<'_> {
    let (kind, n) = match reading.kind {
        ReadingKind::Quantile { n } => (Kind::Latency, Some(n)),
        ReadingKind::Rate => (Kind::Rate, None),
        _ => (Kind::Gauge, None),
    };
    Point {
        series: &reading.series,
        service: reading.service.as_deref(),
        kind,
        at,
        value,
        n,
        silent: false,
    }
}

/// 200 readings before this one, around the same value, for every series that has none.
fn give_a_past(follow: &mut Follow, readings: &[Reading]) {
    const PAST: i64 = 200;
    let every = i64::try_from(EVERY.as_millis()).unwrap();
    let fresh: Vec<&Reading> = readings
        .iter()
        .filter(|r| follow.standing(&r.series).is_none())
        .collect();
    for reading in fresh {
        for i in 0..PAST {
            let at = reading.at.plus_millis((i - PAST) * every);
            let off = (i * 7919 % 101) as f64 / 101.0 - 0.5;
            let value = reading.value + off * 0.02 * reading.value.abs();
            follow.observe(&point(reading, at, value), at);
        }
    }
}

fn prometheus() -> Option<String> {
    let named = std::env::var("PROMETHEUS").ok();
    let program = named.unwrap_or_else(|| "prometheus".to_owned());
    let runs = Command::new(&program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    runs.is_ok_and(|s| s.success()).then_some(program)
}

fn theirs(program: &str, port: u16) {
    let dir = tempfile::tempdir().unwrap();
    let mut config =
        "global:\n  scrape_interval: 10s\n  scrape_timeout: 5s\nscrape_configs:\n".to_owned();
    for i in 0..TARGETS {
        write!(
            config,
            "- job_name: target-{i}\n  metrics_path: /{i}\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n"
        )
        .unwrap();
    }
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let mut child = Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("data").display()
        ))
        .arg(format!("--web.listen-address={listen}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its own start is not counted.
    let begun = Instant::now();
    while !is_ready(&listen.to_string()) {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "it does not become ready"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = cpu(child.id());
    std::thread::sleep(LASTS);
    let used = cpu(child.id()) - before;
    told("Prometheus", used, resident(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn is_ready(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let asked = stream.write_all(b"GET /-/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// What a process used so far, user and system, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields[i].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS
}

/// What a process holds in memory, in KiB.
fn resident(pid: u32) -> u64 {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
