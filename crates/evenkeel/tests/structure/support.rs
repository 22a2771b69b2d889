//! Reading the repository, and Markdown in it.

use std::path::{Path, PathBuf};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A TOML file of the repository.
pub(crate) fn toml(path: &str) -> toml::Table {
    text(path).parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of the directories that are crates, sorted.
pub(crate) fn crates() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("Cargo.toml").exists())
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every file below `dir` with this ending, as paths from the repository's root.
pub(crate) fn files(dir: &str, ending: &str) -> Vec<String> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(dir), ending, &mut found);
    found.sort();
    found
        .iter()
        .map(|p| p.strip_prefix(&root).unwrap().display().to_string())
        .collect()
}

/// The README and the book's chapters.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    pages.extend(files("docs/src", "md"));
    pages
}

/// A fenced block of a page.
pub(crate) struct Block {
    /// `README.md:12`.
    pub(crate) at: String,
    /// What stands behind the fence, such as `toml`.
    pub(crate) info: String,
    pub(crate) body: String,
}

/// The fenced blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in text(page).lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block {
                    at: format!("{page}:{}", n + 1),
                    info: info.trim().to_owned(),
                    body: String::new(),
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.body.push_str(line);
                block.body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a fence is not closed");
    found
}

/// The cells of every table row under a heading that starts so, without header and rule.
pub(crate) fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    rows_in(section(&text(page), page, heading))
}

/// The cells of every table row of a text, without header and rule.
pub(crate) fn rows_in(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_head = lines.peek().is_some_and(|next| next.starts_with("|--"));
        if is_head {
            lines.next();
        } else if let Some(inner) = line.strip_prefix("| ").and_then(|l| l.strip_suffix(" |")) {
            rows.push(inner.split(" | ").map(|c| c.trim().to_owned()).collect());
        }
    }
    rows
}

/// What stands between a heading that starts so and the next one of its level or above.
pub(crate) fn section<'a>(text: &'a str, page: &str, heading: &str) -> &'a str {
    let start = if text.starts_with(heading) {
        0
    } else {
        text.find(&format!("\n{heading}"))
            .unwrap_or_else(|| panic!("{page} has no heading `{heading}`"))
            + 1
    };
    let level = heading.bytes().take_while(|b| *b == b'#').count();
    let body = start + text[start..].find('\n').unwrap_or(0);
    let end = (1..=level)
        .filter_map(|l| text[body..].find(&format!("\n{} ", "#".repeat(l))))
        .min()
        .map_or(text.len(), |at| body + at);
    &text[body..end]
}

/// What stands in backticks.
pub(crate) fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
