//! The README and the book against the program: exit codes, environment keys, playbooks, chapters, links.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use evenkeel::cli::Cli;

use super::support::{pages, quoted, root, rows, rows_in, text};

/// `code meaning` pairs, as `--help` prints them.
fn exit_codes_of_help() -> Vec<(String, String)> {
    let help = Cli::command()
        .get_after_help()
        .expect("the exit codes are after the help")
        .to_string();
    help.lines()
        .filter_map(|l| l.trim().split_once("  "))
        .filter(|(code, _)| code.parse::<u8>().is_ok())
        .map(|(code, meaning)| (code.to_owned(), meaning.trim().to_owned()))
        .collect()
}

#[test]
fn exit_codes_are_the_same_in_help_readme_and_book() {
    let help = exit_codes_of_help();
    assert_eq!(help.len(), 6, "{help:?}");
    let readme: Vec<(String, String)> = rows("README.md", "## Exit codes")
        .into_iter()
        .map(|r| (r[0].clone(), r[1].clone()))
        .collect();
    assert_eq!(readme, help);
    let book = text("docs/src/exit-codes.md");
    for (code, meaning) in help {
        assert!(
            book.contains(&format!("\n## {code}: {meaning}\n")),
            "docs/src/exit-codes.md has no heading `## {code}: {meaning}`"
        );
    }
}

#[test]
fn environment_keys_are_those_that_are_read() {
    let source = text("crates/evenkeel/src/config/env.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    let mut read: BTreeSet<&str> = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|w| {
            w.len() > 7
                && w.bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    read.insert("AMP_API_KEY");
    assert!(read.len() >= 10, "{read:?}");
    for page in ["README.md", "docs/src/configuration.md"] {
        let all = rows(page, "## Environment");
        let told: BTreeSet<&str> = all.iter().flat_map(|r| quoted(&r[0])).collect();
        assert_eq!(told, read, "{page}");
    }
}

#[test]
fn built_in_playbooks_stand_in_the_book() {
    let all = rows("docs/src/playbooks.md", "## Built-in playbooks");
    let told: BTreeSet<String> = all
        .iter()
        .flat_map(|r| quoted(&r[0]))
        .map(str::to_owned)
        .collect();
    let files: BTreeSet<String> = super::support::files("crates/evenkeel/playbooks", "yaml")
        .iter()
        .map(|f| {
            let name = f.rsplit('/').next().unwrap();
            name.trim_end_matches(".yaml").to_owned()
        })
        .collect();
    let embedded: BTreeSet<String> = evenkeel::playbooks::BUILT_IN
        .iter()
        .map(|(f, _)| f.trim_end_matches(".yaml").to_owned())
        .collect();
    assert_eq!(files, embedded, "files and what is in the binary");
    assert_eq!(told, files, "the book and the files");
}

#[test]
fn actions_of_the_book_are_those_of_the_schema() {
    let schema = evenkeel_core::playbook::json_schema();
    let actions: BTreeSet<&str> = schema["$defs"]["Action"]["oneOf"]
        .as_array()
        .expect("the schema lists the actions")
        .iter()
        .flat_map(|a| a["required"].as_array().unwrap())
        .filter_map(|n| n.as_str())
        .collect();
    let all = rows("docs/src/playbooks.md", "## Actions");
    let told: BTreeSet<&str> = all.iter().map(|r| quoted(&r[0])[0]).collect();
    assert_eq!(told, actions);
}

#[test]
fn demo_scenarios_of_the_readme_are_those_of_the_program() {
    use clap::ValueEnum as _;
    let readme = text("README.md");
    let told: Vec<String> = rows_in(super::support::section(
        &readme,
        "README.md",
        "## What the demo shows",
    ))
    .iter()
    .map(|r| quoted(&r[0])[0].to_owned())
    .collect();
    let known: Vec<String> = evenkeel::demo::Scenario::value_variants()
        .iter()
        .map(|s| s.name())
        .collect();
    assert_eq!(told, known);
}

#[test]
fn every_chapter_is_in_the_summary_and_there() {
    let summary = text("docs/src/SUMMARY.md");
    let listed: BTreeSet<String> = links(&summary).map(|l| format!("docs/src/{l}")).collect();
    let mut there: BTreeSet<String> = super::support::files("docs/src", "md")
        .into_iter()
        .collect();
    there.remove("docs/src/SUMMARY.md");
    assert_eq!(listed, there);
}

#[test]
fn links_inside_the_repository_lead_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let folder = root().join(&page).parent().unwrap().to_path_buf();
        for link in links(&text(&page)) {
            if !link.contains("://") && !link.starts_with('#') {
                let file = link.split('#').next().unwrap();
                assert!(folder.join(file).exists(), "{page}: {link}");
                checked += 1;
            }
        }
    }
    assert!(checked > 15, "only {checked} links were found");
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}
