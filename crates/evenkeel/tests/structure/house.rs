//! The house: which crates there are, what each may stand on, and that the pure ones stay pure.

use std::collections::{BTreeMap, BTreeSet};

use super::support::{crates, files, quoted, text, toml};

/// Which of the workspace's own crates each one may use: all of them, and no others (DESIGN section 1).
const STANDS_ON: [(&str, &[&str]); 9] = [
    (
        "evenkeel",
        &[
            "evenkeel-core",
            "evenkeel-detect",
            "evenkeel-edge",
            "evenkeel-ledger",
            "evenkeel-sim",
            "evenkeel-stress",
            "grace",
        ],
    ),
    ("evenkeel-core", &[]),
    ("evenkeel-detect", &["evenkeel-core"]),
    (
        "evenkeel-edge",
        &["evenkeel-core", "evenkeel-detect", "evenkeel-ledger"],
    ),
    ("evenkeel-ledger", &[]),
    ("evenkeel-sim", &["evenkeel-core", "evenkeel-detect"]),
    ("evenkeel-stress", &["evenkeel-core", "evenkeel-detect"]),
    (
        "evenkeel-torture",
        &["evenkeel-core", "evenkeel-edge", "evenkeel-ledger"],
    ),
    ("grace", &[]),
];

/// Crates that compute and touch nothing.
const PURE: [&str; 3] = ["evenkeel-core", "evenkeel-detect", "evenkeel-sim"];

/// What has no place in a pure crate, not even for its tests.
const WORLDLY: [&str; 12] = [
    "axum",
    "deadpool",
    "hyper",
    "hyper-util",
    "procfs",
    "reqwest",
    "rusqlite",
    "rustix",
    "sysinfo",
    "tempfile",
    "tokio",
    "tracing-subscriber",
];

/// Files that hold `unsafe`. Nothing that is shipped does: SQLite takes a file system as C functions only, and the
/// tool that tortures the ledger stands in for one.
const UNSAFE_IN: [&str; 1] = ["crates/evenkeel-torture/src/vfs.rs"];

/// The crate of that file: its lints are the workspace's, but that they are denied and not forbidden there.
const OWN_LINTS: &str = "evenkeel-torture";

/// Most lines of a file, the unit tests at its end not counted.
const LINES_MAX: usize = 800;

/// Names of dependencies in every table of a manifest whose name ends so.
fn dependencies(manifest: &toml::Table, table: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in manifest {
        let Some(inner) = value.as_table() else {
            continue;
        };
        if key == table {
            found.extend(inner.keys().cloned());
        } else if key == "target" {
            for platform in inner.values().filter_map(toml::Value::as_table) {
                found.extend(dependencies(platform, table));
            }
        }
    }
    found
}

fn own(names: &BTreeSet<String>) -> BTreeSet<&str> {
    names
        .iter()
        .map(String::as_str)
        .filter(|n| n.starts_with("evenkeel") || *n == "grace")
        .collect()
}

#[test]
fn every_crate_stands_in_architecture_and_nothing_that_is_not() {
    let page = text("ARCHITECTURE.md");
    let described: Vec<String> = page
        .lines()
        .filter_map(|l| l.strip_prefix("### `crates/"))
        .filter_map(|l| l.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    let mut sorted = described.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        crates(),
        "the headings `### crates/...` of ARCHITECTURE.md"
    );
    for word in quoted(&page) {
        if word.starts_with("evenkeel-") && !word.contains(['.', '/', ' ']) {
            assert!(
                crates().iter().any(|c| c == word) || word == "evenkeel-data",
                "ARCHITECTURE.md names `{word}`, which is no crate"
            );
        }
    }
    let members = toml("Cargo.toml")["workspace"]["members"].to_string();
    assert_eq!(
        members, r#"["crates/*"]"#,
        "every directory there is a member"
    );
}

#[test]
fn files_that_architecture_names_exist() {
    let page = text("ARCHITECTURE.md");
    let mut checked = 0;
    let mut at = "crates".to_owned();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("### `").and_then(|l| l.strip_suffix('`')) {
            name.clone_into(&mut at);
        } else if line.starts_with("## ") {
            ".".clone_into(&mut at);
        }
        for path in quoted(line) {
            let is_file = [".rs", ".toml", ".yaml", ".md"]
                .iter()
                .any(|e| path.ends_with(e));
            if is_file && !path.contains([' ', '*', '<']) {
                let root = super::support::root();
                let inside = root.join(&at).join("src").join(path).exists()
                    || root.join(&at).join(path).exists();
                assert!(
                    inside || root.join(path).exists(),
                    "ARCHITECTURE.md names `{path}` ({at})"
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} files were looked for");
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = STANDS_ON.into_iter().collect();
    assert_eq!(
        allowed.keys().copied().collect::<Vec<_>>(),
        crates().iter().map(String::as_str).collect::<Vec<_>>()
    );
    for (name, others) in allowed {
        let manifest = toml(&format!("crates/{name}/Cargo.toml"));
        let normal = dependencies(&manifest, "dependencies");
        assert_eq!(own(&normal), others.iter().copied().collect(), "{name}");
        assert_eq!(
            own(&dependencies(&manifest, "build-dependencies")).len(),
            0,
            "{name}"
        );
        let for_tests = dependencies(&manifest, "dev-dependencies");
        assert_eq!(own(&for_tests).len(), 0, "{name}");
        if PURE.contains(&name) {
            for part in normal.union(&for_tests) {
                assert!(!WORLDLY.contains(&part.as_str()), "{name} uses {part}");
            }
        }
    }
}

#[test]
fn pure_crates_have_the_banning_clippy_toml() {
    for name in PURE {
        let bans = toml(&format!("crates/{name}/clippy.toml"));
        let paths = |key: &str| -> BTreeSet<String> {
            bans[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| b["path"].as_str().unwrap().to_owned())
                .collect()
        };
        for path in [
            "std::time::Instant",
            "std::time::SystemTime",
            "std::fs::File",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::process::Command",
            "std::collections::HashMap",
        ] {
            assert!(
                paths("disallowed-types").contains(path),
                "{name} may use {path}"
            );
        }
        for path in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::thread::spawn",
            "std::env::var",
            "std::fs::read",
        ] {
            assert!(
                paths("disallowed-methods").contains(path),
                "{name} may call {path}"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for name in crates() {
        let manifest = toml(&format!("crates/{name}/Cargo.toml"));
        if name == OWN_LINTS {
            let rust = &manifest["lints"]["rust"];
            assert_eq!(rust["unsafe_code"].as_str(), Some("deny"), "{name}");
            continue;
        }
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{name}: [lints] workspace = true"
        );
    }
    let root = toml("Cargo.toml");
    assert_eq!(
        root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let word = format!("un{}", "safe");
    let mut found = Vec::new();
    for file in files("crates", "rs") {
        let holds = text(&file).lines().any(|line| {
            let code = line.split("//").next().unwrap_or("");
            [" {", " fn", " impl", " extern"]
                .iter()
                .any(|after| code.contains(&format!("{word}{after}")))
        });
        if holds {
            found.push(file);
        }
    }
    assert_eq!(found, UNSAFE_IN.map(str::to_owned).to_vec());
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let all = files("crates", "rs");
    assert!(all.len() > 150, "only {} files were found", all.len());
    for file in all {
        let text = text(&file);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        let lines = code.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{file} has {lines} lines, at most {LINES_MAX}: split it"
        );
        if file.contains("/src/") {
            assert!(
                text.starts_with("//!"),
                "{file} does not begin with `//!`: what it is for, and what it may not do"
            );
        }
    }
}
