//! Every example that is configuration, playbook or command is parsed or run.

use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use evenkeel::cli::Cli;

use super::support::{blocks, pages, root};

/// Blocks that show what is printed, or the code of another test.
const SHOWN: [&str; 4] = ["text", "json", "rust,no_run", ""];

fn evenkeel(dir: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(args)
        .current_dir(dir)
        .env_remove("EVENKEEL_CONFIG")
        .env_remove("EVENKEEL_DATA_DIR")
        .output()
        .unwrap()
}

fn told(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn no_block_is_of_a_kind_that_nobody_checks() {
    let mut kinds = std::collections::BTreeMap::new();
    for page in pages() {
        for block in blocks(&page) {
            let known = SHOWN.contains(&block.info.as_str())
                || ["toml", "yaml", "sh"].contains(&block.info.as_str());
            assert!(known, "{}: a block of kind `{}`", block.at, block.info);
            *kinds.entry(block.info).or_insert(0) += 1;
        }
    }
    assert!(kinds["toml"] >= 5 && kinds["yaml"] >= 2 && kinds["sh"] >= 5);
}

#[test]
fn configuration_in_the_pages_is_good() {
    for page in pages() {
        for block in blocks(&page).into_iter().filter(|b| b.info == "toml") {
            let dir = tempfile::tempdir().unwrap();
            let mut text = block.body;
            if !text.contains("[target]") {
                // A part of a configuration: the least that makes it a whole one.
                text.push_str("\n[target]\nbase_url = \"http://127.0.0.1:8000\"\n");
            }
            std::fs::write(dir.path().join("evenkeel.toml"), &text).unwrap();
            let output = evenkeel(dir.path(), &["check"]);
            assert!(
                output.status.success(),
                "{}: {}\n{text}",
                block.at,
                told(&output)
            );
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "`check` starts nothing and writes nothing");
        }
    }
}

#[test]
fn playbooks_in_the_pages_pass_the_linter() {
    for page in pages() {
        for block in blocks(&page).into_iter().filter(|b| b.info == "yaml") {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("example.yaml"), &block.body).unwrap();
            let output = evenkeel(dir.path(), &["playbook", "lint", "example.yaml"]);
            assert!(output.status.success(), "{}: {}", block.at, told(&output));
        }
    }
}

#[test]
fn commands_in_the_pages_are_commands() {
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&page).into_iter().filter(|b| b.info == "sh") {
            for line in block.body.lines().filter(|l| !l.trim().is_empty()) {
                let words = words(line);
                let at = format!("{}: {line}", block.at);
                let first: Vec<&str> = words.iter().take(5).map(String::as_str).collect();
                match first.as_slice() {
                    ["evenkeel", ..] => parse(&words, &at),
                    ["cargo", "run", "--release", "--", ..] => parse(&words[3..], &at),
                    ["cargo", "run", "-p", "evenkeel", "--example"] => {
                        let file = format!("crates/evenkeel/examples/{}.rs", words[5]);
                        assert!(root().join(file).exists(), "{at}");
                    }
                    []
                    | ["cargo", "test", "--workspace"]
                    | ["cargo", "build", "--release"]
                    | ["kill", "-9" | "-STOP" | "-CONT", _]
                    | ["cd", _] => {}
                    ["sqlite3", _, sql] => select(sql, &at),
                    ["jq", ..] => filter(&words, &at),
                    ["curl", rest @ ..] => assert!(
                        rest.iter().any(|w| w.starts_with("http://127.0.0.1:")),
                        "{at}"
                    ),
                    _ => panic!("{at}: nobody checks this command"),
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "only {checked} commands were found");
}

/// The words of a line up to a comment, a pipe or a redirection; quotes as a shell reads them.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '|' | '>' | '&') if word.is_none() => return words,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "{line}: a quote is not closed");
    words.extend(word);
    words
}

fn parse(words: &[String], at: &str) {
    if let Err(e) = Cli::try_parse_from(words) {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        assert!(
            matches!(e.kind(), DisplayHelp | DisplayVersion),
            "{at}\n{e}"
        );
    }
}

/// The statement must be one that a ledger's database understands.
fn select(sql: &str, at: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evenkeel.db");
    drop(evenkeel_ledger::Ledger::open(&file).unwrap());
    let db = rusqlite::Connection::open(&file).unwrap();
    let statement = db.prepare(sql).unwrap_or_else(|e| panic!("{at}: {e}"));
    assert!(statement.readonly(), "{at}");
}

/// The filter must be one that jq understands.
fn filter(words: &[String], at: &str) {
    let filter = words[1..]
        .iter()
        .find(|w| !w.starts_with('-'))
        .unwrap_or_else(|| panic!("{at}: no filter"));
    match Command::new("jq").args(["-n", filter]).output() {
        // 3 is jq's code for a filter that it cannot read; a filter of nothing may fail otherwise.
        Ok(output) => assert_ne!(output.status.code(), Some(3), "{at}: {}", told(&output)),
        Err(_) => println!("skipped: jq is not installed, `{filter}` was not checked"),
    }
}
