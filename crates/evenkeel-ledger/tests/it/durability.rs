//! `kill -9` at many points: nothing acknowledged is lost, nothing half-written is believed. SAFETY 7.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_ledger::{Entry, Ledger, NewEntry, Reader};

use crate::support::{Place, entry};

const PLACE: &str = "LEDGER_TEST_PLACE";
const KILLS: u64 = 25;
const BATCH: usize = 3;

/// SAFETY 7
#[test]
fn killed_at_many_points_it_keeps_every_acknowledged_entry() {
    let place = Place::new();
    let mut acknowledged = HashMap::new();
    for round in 0..KILLS {
        // From right after the start to deep in the stream, so that kills fall in openings, groups and copies.
        let lines = 1 + (round * round) % 97;
        acknowledged.extend(killed_after(&place, round, lines));
        let report = place.verify();
        assert!(report.is_sound(), "round {round}: {:?}", report.damage);
        check_kept(&place, &acknowledged, round);
    }
    assert!(
        acknowledged.len() > 500,
        "{} entries were acknowledged",
        acknowledged.len()
    );
    // And the next start goes on from there.
    let report = place.verify();
    assert_eq!(
        place.open().append_blocking(entry(1)).unwrap().sequence,
        report.entries + 1
    );
}

/// SAFETY 7: also a ledger that was being created is whole or created anew
#[test]
fn killed_while_it_is_created_it_opens_all_the_same() {
    for round in 0..12 {
        let place = Place::new();
        let mut child = start(&place, Stdio::null());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !place.path.exists() {
            assert!(Instant::now() < deadline, "the helper does not start");
            std::thread::yield_now();
        }
        // A little later each time, so that kills fall between the steps of creation.
        let until = Instant::now() + Duration::from_micros(round * 400);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let before = place.open().head().sequence;
        assert_eq!(
            place.open().append_blocking(entry(1)).unwrap().sequence,
            before + 1
        );
        let report = place.verify();
        assert!(report.is_sound(), "round {round}: {:?}", report.damage);
    }
}

fn start(place: &Place, stdout: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "durability::helper_appends_until_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(PLACE, &place.path)
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a process that appends and tells each acknowledgement; kills it after some of them. Returns all that it
/// told, also what lay in the pipe when it died: sequence and hash.
fn killed_after(place: &Place, round: u64, lines: u64) -> Vec<(u64, String)> {
    let mut child = start(place, Stdio::piped());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut told, mut seen, mut line) = (Vec::new(), 0, String::new());
    loop {
        if seen == lines {
            // SIGKILL.
            child.kill().unwrap();
        }
        line.clear();
        // Without its end a line was cut off by the kill.
        if output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "ack")
            .skip(1);
        if let (Some(sequence), Some(hash)) = (words.next(), words.next()) {
            told.push((sequence.parse().unwrap(), hash.to_owned()));
            seen += 1;
        }
    }
    let status = child.wait().unwrap();
    assert!(
        !status.success(),
        "round {round}: the process ended by itself"
    );
    assert!(seen >= lines, "round {round}: {seen} of {lines}");
    told
}

fn check_kept(place: &Place, acknowledged: &HashMap<u64, String>, round: u64) {
    let kept: Vec<Entry> = Reader::open(&place.path).unwrap().tail(10_000).unwrap();
    assert!(kept.len() < 10_000, "the test reads all entries");
    let by_sequence: HashMap<u64, String> = kept
        .iter()
        .map(|entry| (entry.sequence, entry.entry_hash.to_string()))
        .collect();
    for (sequence, hash) in acknowledged {
        assert_eq!(
            by_sequence.get(sequence),
            Some(hash),
            "round {round}: entry {sequence} is lost"
        );
    }
    // Batches are whole and in one piece, also those that nobody heard of.
    let in_batches: Vec<&Entry> = kept
        .iter()
        .filter(|entry| entry.action == "batch")
        .collect();
    for batch in in_batches.chunks(BATCH) {
        assert_eq!(batch.len(), BATCH, "round {round}: a batch was cut");
        assert!(
            batch.iter().all(|entry| entry.payload == batch[0].payload),
            "round {round}"
        );
        assert_eq!(
            batch[BATCH - 1].sequence,
            batch[0].sequence + BATCH as u64 - 1
        );
    }
}

#[test]
#[ignore = "helper process of another test"]
fn helper_appends_until_killed() {
    let ledger =
        Ledger::open(std::env::var_os(PLACE).expect("set by the test that starts this")).unwrap();
    let first = ledger.head().sequence;
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let ledger = &ledger;
            // Bounded, should the kill never come.
            scope.spawn(move || {
                for n in 0..2000 {
                    append_and_tell(ledger, thread, first * 100_000 + thread * 10_000 + n);
                }
            });
        }
    });
}

fn append_and_tell(ledger: &Ledger, thread: u64, n: u64) {
    let entries = if thread == 0 {
        let payload = format!("{{\"batch\":{n}}}");
        let one = NewEntry {
            action: "batch".to_owned(),
            payload,
            ..entry(1)
        };
        ledger.append_all_blocking(vec![one; BATCH]).unwrap()
    } else {
        vec![ledger.append_blocking(entry(n % 1000)).unwrap()]
    };
    for entry in entries {
        // One write for a line, after the acknowledgement.
        let line = format!("ack {} {}\n", entry.sequence, entry.entry_hash);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}
