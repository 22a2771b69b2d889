//! Entries with payloads of 1 KB, and a ledger that signs each commit as the product's does.

use std::path::Path;
use std::sync::Arc;

use evenkeel_ledger::tlog::{KeyName, Signer};
use evenkeel_ledger::{Ledger, LedgerError, NewEntry, Options};

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 1000;

pub(crate) fn entry(n: u64) -> NewEntry {
    let head = format!(r#"{{"workflow_id":"w-{n:08}","n":{n},"text":""#);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(PAYLOAD_BYTES / 45 + 1);
    let payload = format!("{head}{}\"}}", &text[..PAYLOAD_BYTES - head.len() - 2]);
    NewEntry {
        timestamp: format!(
            "2026-01-31T12:{:02}:{:02}.{:03}Z",
            n / 60_000 % 60,
            n / 1000 % 60,
            n % 1000
        ),
        actor: "benchmark".to_owned(),
        action: "append".to_owned(),
        resource: "service:api".to_owned(),
        subsystem: "ledger".to_owned(),
        payload,
        result: "success".to_owned(),
    }
}

pub(crate) fn entries(first: u64, count: usize) -> Vec<NewEntry> {
    (first..).take(count).map(entry).collect()
}

pub(crate) fn signer() -> Signer {
    let name = KeyName::new("bench.invalid/log").expect("a good name");
    Signer::from_seed(name, [3; 32])
}

pub(crate) fn open(path: &Path) -> Result<Ledger, LedgerError> {
    Ledger::open_with(
        path,
        &Options {
            signer: Some(Arc::new(signer())),
            ..Options::default()
        },
    )
}
