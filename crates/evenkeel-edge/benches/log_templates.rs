//! What grouping log lines into templates costs, against cutting the same lines at white space in the same run:
//! `cargo bench -p evenkeel-edge --bench log_templates`.
//!
//! 200,000 lines of a service, made from thirty sentences with numbers, times, addresses, ids, names and paths in them,
//! one in twenty a sentence of its own. Each pass is done five times, and its fastest time counts.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to tell"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use evenkeel_core::Timestamp;
use evenkeel_detect::TemplateMiner;
use evenkeel_edge::collect::{LogEntry, LogTemplates};

const LINES: usize = 200_000;
const PASSES: usize = 5;

const SENTENCES: [&str; 30] = [
    "INFO http request GET /api/orders/{n} from {ip} took {d}ms status 200",
    "INFO http request POST /api/orders from {ip} took {d}ms status 201",
    "INFO user {name} logged in from {ip} with session {id}",
    "INFO user {name} logged out after {d}s",
    "WARN upstream billing answered slowly: {d}ms, limit 500ms",
    "ERROR upstream billing refused the connection: tcp connect error (os error {n})",
    "INFO worker-{n} took job {uuid} from the queue, {n} waiting",
    "INFO worker-{n} finished job {uuid} in {d}ms",
    "ERROR worker-{n} failed job {uuid}: cannot open /var/spool/jobs/{n}.json: no such file",
    "DEBUG pool has {n} idle of {n} connections",
    "WARN pool waited {d}ms for a connection",
    "INFO cache hit rate {n}% over {n} requests, {n} entries, {n}MB",
    "INFO checkpoint of the database took {d}ms and wrote {n} pages",
    "ERROR database is locked (attempt {n} of 5), query \"SELECT * FROM orders WHERE id = {n}\"",
    "INFO compacted segment 0x{id} into 0x{id}, saved {n}KB",
    "WARN clock skew of {d}ms against {ip}",
    "INFO garbage collection freed {n} objects in {d}ms",
    "INFO reloaded configuration from /etc/app/config.toml, {n} keys",
    "DEBUG span chat.reply entered by {name} at depth {n}",
    "DEBUG span chat.reply left by {name} after {d}us",
    "INFO mail to {name} queued as {uuid}",
    "ERROR mail to {name} bounced: 550 no such user",
    "INFO tls handshake with {ip} completed in {d}ms using TLSv1.3",
    "WARN request body of {n} bytes from {ip} is over the limit",
    "INFO metrics scraped by {ip}: {n} series",
    "INFO lease {uuid} renewed until {n}",
    "WARN retrying call {uuid} to inventory, attempt {n}",
    "INFO uploaded 'report {n}.pdf' for {name} to https://files.example/{uuid}",
    "INFO scheduler: next run of cleanup in {d}s",
    "ERROR {name}: token 0x{id} is not valid for this audience",
];

const NAMES: [&str; 12] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory",
    "niaj",
];

/// Numbers that only look random: the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn line(numbers: &mut Numbers) -> String {
    let pick = usize::try_from(numbers.next()).unwrap();
    let seconds = numbers.next() % 60;
    let mut text = format!(
        "2026-01-31T12:00:{seconds:02}.{:03}Z ",
        numbers.next() % 1000
    );
    if numbers.next().is_multiple_of(20) {
        let words: Vec<String> = (0..4 + pick % 6).map(|_| word(numbers)).collect();
        return text + &words.join(" ");
    }
    let mut rest = SENTENCES[pick % SENTENCES.len()];
    while let Some((before, after)) = rest.split_once('{') {
        let (kind, after) = after.split_once('}').unwrap();
        text += before;
        let n = numbers.next();
        let value = match kind {
            "ip" => format!("10.{}.{}.{}", n % 256, n / 256 % 256, n / 65_536 % 256),
            "uuid" => format!("{:08x}-1a2b-4c3d-8e4f-{:012x}", n, numbers.next() * 7919),
            "id" => format!("{n:08x}"),
            "name" => NAMES[usize::try_from(n).unwrap() % NAMES.len()].to_owned(),
            "d" => format!("{}.{}", n % 900, n % 10),
            _ => (n % 10_000).to_string(),
        };
        text += &value;
        rest = after;
    }
    text + rest
}

fn word(numbers: &mut Numbers) -> String {
    (0..3 + numbers.next() % 6)
        .map(|_| char::from(b'a' + u8::try_from(numbers.next() % 26).unwrap()))
        .collect()
}

fn fastest(mut pass: impl FnMut()) -> Duration {
    let times = (0..PASSES).map(|_| {
        let begun = Instant::now();
        pass();
        begun.elapsed()
    });
    times.min().unwrap()
}

fn main() {
    let mut numbers = Numbers(7);
    let lines: Vec<String> = (0..LINES).map(|_| line(&mut numbers)).collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let entries: Vec<LogEntry> = lines
        .iter()
        .map(|l| LogEntry::parse(l.as_bytes()))
        .collect();
    let at = Timestamp::from_millis(1_800_000_000_000);

    let split = fastest(|| {
        for line in &lines {
            black_box(line.split_ascii_whitespace().map(str::len).sum::<usize>());
        }
    });
    let mut templates = 0;
    let mined = fastest(|| {
        let mut miner = TemplateMiner::new(200);
        for line in &lines {
            black_box(miner.observe(at, line, false));
        }
        templates = miner.templates().len();
    });
    let parsed = fastest(|| {
        for line in &lines {
            black_box(LogEntry::parse(line.as_bytes()));
        }
    });
    let taken = fastest(|| {
        black_box(LogTemplates::new("x", None, None).take(at, &entries));
    });
    println!(
        "{LINES} lines of {} bytes, {templates} templates kept",
        bytes / LINES
    );
    println!("| what | lines a second | times the time of cutting at white space |");
    println!("|---|---|---|");
    for (what, time) in [
        ("cut at white space", split),
        ("template of each line", mined),
        ("the same behind `LogTemplates`", taken),
        ("understood as an entry before (`LogEntry::parse`)", parsed),
    ] {
        let per_second = LINES as f64 / time.as_secs_f64();
        let ratio = time.as_secs_f64() / split.as_secs_f64();
        println!("| {what} | {per_second:.0} | {ratio:.1} |");
    }
}
