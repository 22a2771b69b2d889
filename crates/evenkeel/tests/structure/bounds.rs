//! The one table of every bound, against the constants in the code.
//!
//! The table is made from the constants and what their comments say. After a change of one:
//! `EVENKEEL_WRITE_BOUNDS=1 cargo test -p evenkeel --test structure bounds` writes it anew.

use std::fmt::Write as _;

use super::support::{crates, files, root, text};

const PAGE: &str = "docs/src/bounds.md";

/// Between this line and the end the page is made.
const MADE_BELOW: &str = "<!-- made from the code: tests/structure/bounds.rs -->\n";

/// Numbers that bound nothing: versions, units, codes of protocols, positions in a file.
const NO_BOUNDS: [&str; 28] = [
    "APPLICATION_ID",
    "BLANK",
    "BYTES_PER_MB",
    "FORMAT_VERSION",
    "HALF",
    "HOUR_MS",
    "INTRODUCTION_SENTENCES",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "LEAF_PREFIX",
    "LEVEL_WITHIN",
    "MARGIN",
    "MB",
    "METHOD_NOT_FOUND",
    "MS_PER_HOUR",
    "NODE_PREFIX",
    "PAGE_CACHE_KIB",
    "PARSE_ERROR",
    "PENDING_BYTE",
    "QUEUE_UNITS",
    "RESERVED_BYTE",
    "RULE_WIDTH",
    "SHARED_FIRST",
    "STAGES",
    "STILL_RISING",
    "SUMMARY_SENTENCES",
    "VERSION",
    "WAL_WRITE_BYTE",
];

/// Types of numbers and times.
const NUMBERS: [&str; 11] = [
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
    "i32",
    "i64",
    "f64",
    "Duration",
    "(usize, usize)",
    "(u32, Duration)",
];

struct Bound {
    name: String,
    value: String,
    says: String,
}

/// The constants of a file that are numbers, and what their comments say.
fn bounds(file: &str) -> Vec<Bound> {
    let text = text(file);
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let mut says = String::new();
    let mut found = Vec::new();
    for line in code.lines() {
        if let Some(comment) = line.strip_prefix("///") {
            says.push(' ');
            says.push_str(comment.trim());
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        let declared = [
            "const ",
            "pub const ",
            "pub(crate) const ",
            "pub(super) const ",
        ]
        .iter()
        .find_map(|start| line.strip_prefix(start));
        if let Some((name, (kind, value))) = declared
            .and_then(|d| d.split_once(": "))
            .and_then(|(name, rest)| Some((name, rest.split_once(" = ")?)))
            && NUMBERS.contains(&kind)
            && !NO_BOUNDS.contains(&name)
        {
            let says = says.trim().replace(['[', ']'], "").replace('|', "/");
            found.push(Bound {
                name: name.to_owned(),
                value: value.trim_end_matches(';').to_owned(),
                says: if says.is_empty() {
                    name.to_lowercase().replace('_', " ")
                } else {
                    says
                },
            });
        }
        says.clear();
    }
    found
}

fn made() -> String {
    let mut page = String::new();
    for name in crates() {
        // The simulator and the torture run in tests only.
        if matches!(name.as_str(), "evenkeel-sim" | "evenkeel-torture") {
            continue;
        }
        let _ = write!(
            page,
            "\n### {name}\n\n| what | bound | constant |\n|---|---|---|\n"
        );
        for file in files(&format!("crates/{name}/src"), "rs") {
            let short = file.split("/src/").nth(1).unwrap_or(&file);
            for b in bounds(&file) {
                let _ = writeln!(
                    page,
                    "| {} | `{}` | `{}` in `{short}` |",
                    b.says, b.value, b.name
                );
            }
        }
    }
    page
}

#[test]
fn every_bound_in_the_code_stands_in_the_table() {
    let page = text(PAGE);
    let (by_hand, told) = page
        .split_once(MADE_BELOW)
        .expect("the page says where its made part begins");
    let made = made();
    assert!(
        made.lines().filter(|l| l.starts_with("| ")).count() > 150,
        "the constants were not found"
    );
    if std::env::var_os("EVENKEEL_WRITE_BOUNDS").is_some() {
        std::fs::write(root().join(PAGE), format!("{by_hand}{MADE_BELOW}{made}")).unwrap();
        return;
    }
    for (told, made) in told.lines().zip(made.lines()) {
        assert_eq!(
            told, made,
            "{PAGE} is behind the code; see tests/structure/bounds.rs"
        );
    }
    assert_eq!(
        told.lines().count(),
        made.lines().count(),
        "{PAGE} is behind the code; see tests/structure/bounds.rs"
    );
}
