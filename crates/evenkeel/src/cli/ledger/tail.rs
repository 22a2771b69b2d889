//! `evenkeel ledger tail`.

use std::time::Duration;

use evenkeel_ledger::Query;
use serde_json::Value;

use super::super::table::print;
use super::{Exit, Failure, Global, reader};

pub(super) fn tail(global: &Global, lines: u32, follow: bool) -> Result<Exit, Failure> {
    let (_, reader) = reader(global)?;
    let mut last = 0;
    for entry in reader.tail(lines)? {
        last = entry.sequence;
        show(global, &entry);
    }
    if !follow {
        return Ok(Exit::Healthy);
    }
    loop {
        std::thread::sleep(Duration::from_millis(250));
        for entry in reader.query(&Query::new().after(last).limit(1000))? {
            last = entry.sequence;
            show(global, &entry);
        }
    }
}

fn show(global: &Global, entry: &evenkeel_ledger::Entry) {
    if global.json {
        let mut value = serde_json::to_value(entry).unwrap_or(Value::Null);
        // For programs the payload is JSON, not JSON inside a text.
        value["payload"] = entry.payload_json().unwrap_or(Value::Null);
        print(&value.to_string());
    } else {
        print(&format!(
            "{:>6} {} {:<24} {:<10} {:<12} {}",
            entry.sequence,
            entry.timestamp,
            entry.action,
            entry.result,
            entry.subsystem,
            entry.resource
        ));
    }
}
