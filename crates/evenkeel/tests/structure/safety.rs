//! `docs/src/safety.md`: each of the 22 properties stands there, and each has a test or a checker that cites it.

use std::collections::BTreeSet;

use super::support::{files, text};

const PAGE: &str = "docs/src/safety.md";
const PROPERTIES: u32 = 22;

/// The numbers after `SAFETY` in a text: `SAFETY 3, 4 and 14`.
fn cited(text: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for (at, word) in text.match_indices("SAFETY ") {
        let rest = &text[at + word.len()..];
        let list = rest
            .split(|c: char| !(c.is_ascii_digit() || ", and".contains(c)))
            .next();
        let numbers = list.unwrap_or("").split(|c: char| !c.is_ascii_digit());
        found.extend(numbers.filter_map(|n| n.parse::<u32>().ok()));
    }
    found
}

#[test]
fn every_property_stands_on_the_page_and_is_cited_where_it_is_tested() {
    let page = text(PAGE);
    let mut cited_in_tests = BTreeSet::new();
    for file in files("crates", "rs") {
        let source = text(&file);
        let is_test = file.contains("/tests/") || file.contains("evenkeel-sim/src/check");
        // In a source file what is below `#[cfg(test)]` counts.
        let tests = if is_test || file.ends_with("tests.rs") {
            source.as_str()
        } else {
            source.split_once("#[cfg(test)]").map_or("", |(_, t)| t)
        };
        cited_in_tests.extend(cited(tests));
    }
    for n in 1..=PROPERTIES {
        assert!(
            page.contains(&format!("\n| {n} | ")),
            "{PAGE} has no row for {n}"
        );
        assert!(
            cited_in_tests.contains(&n),
            "no test and no checker cites SAFETY {n}"
        );
    }
}

#[test]
fn numbers_are_read_as_people_write_them() {
    let numbers: Vec<u32> = cited("x (SAFETY 3, 4 and 14): y. SAFETY 21.")
        .into_iter()
        .collect();
    assert_eq!(numbers, [3, 4, 14, 21]);
}
