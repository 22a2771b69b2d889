//! `evenkeel logs`: Evenkeel's own log, filtered and followed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::Duration;

use serde_json::Value;

use super::table::print;
use super::{Exit, Failure, Global};
use crate::layout::Layout;

pub(super) fn logs(
    global: &Global,
    subsystem: Option<&str>,
    follow: bool,
    lines: u32,
) -> Result<Exit, Failure> {
    let layout = Layout::existing(&global.data_dir, crate::config::Profile::Service);
    let path = layout.backend_log();
    let file = File::open(&path).map_err(|e| {
        Failure::target(format!(
            "{}: {e}; nothing has run there yet?",
            path.display()
        ))
    })?;
    let mut reader = BufReader::new(file);
    let mut kept: VecDeque<Value> = VecDeque::new();
    let mut text = String::new();
    while reader.read_line(&mut text)? > 0 {
        if let Some(line) = wanted(&text, subsystem) {
            kept.push_back(line);
            if kept.len() > lines as usize {
                kept.pop_front();
            }
        }
        text.clear();
    }
    for line in &kept {
        show(global, line);
    }
    let mut position = reader.stream_position()?;
    if !follow {
        return Ok(Exit::Healthy);
    }
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let len = std::fs::metadata(&path).map_or(0, |m| m.len());
        if len < position {
            // The log was moved aside at its limit; go on with the new one.
            reader = BufReader::new(File::open(&path)?);
            position = 0;
        }
        if len > position {
            reader.seek(SeekFrom::Start(position))?;
            loop {
                text.clear();
                let read = reader.read_line(&mut text)?;
                if read == 0 || !text.ends_with('\n') {
                    break;
                }
                position += read as u64;
                if let Some(line) = wanted(&text, subsystem) {
                    show(global, &line);
                }
            }
        }
    }
}

fn wanted(text: &str, subsystem: Option<&str>) -> Option<Value> {
    let line: Value = serde_json::from_str(text.trim_end()).ok()?;
    match subsystem {
        Some(s) if line["subsystem"] != s => None,
        _ => Some(line),
    }
}

fn show(global: &Global, line: &Value) {
    if global.json {
        print(&line.to_string());
        return;
    }
    let text = |key: &str| line[key].as_str().unwrap_or("").to_owned();
    print(&format!(
        "{} {:<5} {:<12} {:<24} {}",
        text("timestamp"),
        text("level"),
        text("subsystem"),
        text("event_type"),
        text("message")
    ));
}
