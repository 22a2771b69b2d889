//! The configuration reference against the types: every key, its default and its range.
//!
//! The keys come out of the program itself: a key that does not exist is refused with the list of those that do.

use std::collections::BTreeSet;
use std::path::Path;

use evenkeel::config::{Environment, load_text};

use super::support::{quoted, rows_in, section, text};

const PAGE: &str = "docs/src/configuration.md";

/// The least that can be checked.
const LEAST: &str = "[target]\nbase_url = \"http://127.0.0.1:8000\"\n";

/// Heading in the reference, and the text before a key of that table; `{}` is where the key goes.
const TABLES: [(&str, &str); 37] = [
    ("## Top level", "{}\n[target]\nbase_url = 'http://h'"),
    ("## `[target]`", "[target]\n{}"),
    (
        "## `[[target.services]]`",
        "[[target.services]]\nname = 'a'\n{}",
    ),
    (
        "### `ready`",
        "[[target.services]]\nname = 'a'\nready = { {} }",
    ),
    (
        "## `[[target.dependencies]]`",
        "[[target.dependencies]]\nname = 'a'\n{}",
    ),
    (
        "## `[target.endpoints]`",
        "[target]\nbase_url = 'http://h'\n[target.endpoints]\n{}",
    ),
    (
        "### A request as a table",
        "[target.endpoints]\nhealth = { path = '/', {} }",
    ),
    (
        "## `[target.database]`",
        "[target.database]\npath = 'x'\n{}",
    ),
    (
        "## `[target.postgres]`",
        "[target.postgres]\nurl_env = 'X'\n{}",
    ),
    (
        "## `[target.tunables]`",
        "[target.tunables.a]\nfile = 'x'\nkey = 'k'\n{}",
    ),
    ("## `[target.mesh]`", "[target.mesh]\n{}"),
    ("## `[target.serves]`", "[target.serves]\n{}"),
    ("## `[stress]`", "[stress]\n{}"),
    (
        "## `[[stress.tests]]`",
        "[[stress.tests]]\nname = 'a'\nkind = 'mix'\n{}",
    ),
    ("## `[watchdog]`", "[watchdog]\n{}"),
    ("## `[watchdog.thresholds]`", "[watchdog.thresholds]\n{}"),
    ("## `[watchdog.scrape]`", "[watchdog.scrape]\n{}"),
    (
        "## `[[watchdog.metrics]]`",
        "[[watchdog.metrics]]\nname = 'a'\nurl = '/m'\n{}",
    ),
    (
        "## `[[watchdog.sql]]`",
        "[[watchdog.sql]]\nname = 'a'\ndatabase = 'd'\nquery = 'SELECT 1'\n{}",
    ),
    ("## `[watchdog.detect]`", "[watchdog.detect]\n{}"),
    ("## `[watchdog.series]`", "[watchdog.series]\n{}"),
    ("## `[healing]`", "[healing]\n{}"),
    ("## `[limits]`", "[limits]\n{}"),
    (
        "## `[[maintenance]]`",
        "[[maintenance]]\nname = 'a'\nfrom = '00:00'\nto = '01:00'\n{}",
    ),
    ("## `[api]`", "[api]\n{}"),
    ("## `[escalation]`", "[escalation]\n{}"),
    ("## `[escalation.amp]`", "[escalation.amp]\n{}"),
    (
        "## `[[escalation.http]]`",
        "[[escalation.http]]\nname = 'a'\nurl = 'http://h'\n{}",
    ),
    ("## `[alerts]`", "[alerts]\n{}"),
    ("## `[audit]`", "[audit]\n{}"),
    ("## `[snapshots]`", "[snapshots]\n{}"),
    ("## `[ledger]`", "[ledger]\n{}"),
    ("## `[ledger.witness]`", "[ledger.witness]\n{}"),
    (
        "## `[[ledger.witness.servers]]`",
        "[[ledger.witness.servers]]\nurl = 'http://h'\nkey = 'k'\n{}",
    ),
    ("## `[[ledger.anchors]]`", "[[ledger.anchors]]\n{}"),
    ("## `[heartbeat]`", "[heartbeat]\n{}"),
    ("## `[agent]`", "[agent]\n{}"),
];

fn read(text: &str) -> Result<String, String> {
    load_text(text, "x", Path::new("/srv"), &Environment::default())
        .map(|c| format!("{c:?}"))
        .map_err(|e| e.message)
}

#[test]
fn every_key_stands_in_the_reference_and_nothing_that_is_not() {
    let page = text(PAGE);
    for (heading, before) in TABLES {
        let message = read(&before.replace("{}", "no_such_key = 1"))
            .expect_err("a key that does not exist is refused");
        assert!(
            message.contains("unknown field `no_such_key`"),
            "{heading}: {message}"
        );
        let (_, known) = message
            .split_once("expected")
            .expect("the message lists the keys");
        let known: BTreeSet<&str> = quoted(known).into_iter().collect();
        let rows = rows_in(own(&page, heading));
        let told: BTreeSet<&str> = rows.iter().map(|r| quoted(&r[0])[0]).collect();
        assert_eq!(told, known, "{PAGE}, {heading}");
    }
}

/// The section without the sections inside it.
fn own<'a>(page: &'a str, heading: &str) -> &'a str {
    let section = section(page, PAGE, heading);
    section.split("\n#").next().unwrap_or(section)
}

/// Tables whose every key has a default that can be written down.
fn with_defaults() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.into_iter().filter(|(heading, _)| {
        [
            "Top",
            "stress]",
            "watchdog",
            "healing",
            "escalation]",
            "amp]",
            "snapshots",
            "ledger",
            "heartbeat",
            "agent",
        ]
        .iter()
        .any(|part| heading.contains(part))
            && !heading.contains("[[")
    })
}

#[test]
fn defaults_are_those_of_the_reference() {
    let page = text(PAGE);
    let plain = read(LEAST).unwrap();
    let mut checked = 0;
    for (heading, before) in with_defaults() {
        for row in rows_in(own(&page, heading)) {
            let (key, default) = (quoted(&row[0])[0], &row[1]);
            let Some(value) = quoted(default).first().copied() else {
                assert_eq!(default, "none", "{heading} {key}");
                continue;
            };
            let set = before.replace("{}", &format!("{key} = {value}"));
            let whole = if set.contains("[target]") {
                set.replace("http://h", "http://127.0.0.1:8000")
            } else {
                format!("{LEAST}{set}\n")
            };
            let said = read(&whole).unwrap_or_else(|e| panic!("{heading} {key}: {e}"));
            if heading == "## `[watchdog.scrape]`" {
                // The table itself is absent by default.
                let empty = read(&format!("{LEAST}[watchdog.scrape]\n")).unwrap();
                assert_eq!(said, empty, "{heading} {key} = {value} is not the default");
            } else {
                assert_eq!(said, plain, "{heading} {key} = {value} is not the default");
            }
            checked += 1;
        }
    }
    assert!(checked > 45, "only {checked} defaults were compared");
}

#[test]
fn ranges_are_those_of_the_reference() {
    let page = text(PAGE);
    let mut checked = 0;
    for (heading, before) in with_defaults() {
        for row in rows_in(own(&page, heading)) {
            let key = quoted(&row[0])[0];
            let Some((low, high)) = row[2].split_once(" to ") else {
                continue;
            };
            let number = |text: &str| -> i64 {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                digits.parse().unwrap_or_else(|_| panic!("{heading} {key}"))
            };
            let (low, high) = (number(low), number(high));
            let with = |value: i64| {
                // A value that must not be above another one is tried beside a generous other one.
                let beside = match key {
                    "persistence_k" => "\npersistence_n = 60",
                    "persistence_n" => "\npersistence_k = 1",
                    "memory_window_ms" => "\nmemory_min_span_ms = 1",
                    "memory_min_span_ms" => "\nmemory_window_ms = 2678400000",
                    _ => "",
                };
                let set = before.replace("{}", &format!("{key} = {value}{beside}"));
                read(&format!("{LEAST}{set}\n"))
            };
            for good in [low, high] {
                with(good).unwrap_or_else(|e| panic!("{heading} {key} = {good}: {e}"));
            }
            for bad in [low - 1, high + 1] {
                assert!(with(bad).is_err(), "{heading} {key} = {bad} is accepted");
            }
            checked += 1;
        }
    }
    assert!(checked > 15, "only {checked} ranges were compared");
}
