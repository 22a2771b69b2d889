//! What several errors have in common: a known cause, or the same text apart from its numbers.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::log_entry::LogEntry;
use crate::process::procinfo::truncate;

/// Longest template, in bytes.
const TEMPLATE_LEN_MAX: usize = 120;
/// Most patterns that are told apart; what comes after counts as [`OTHER`].
const PATTERNS_LEN_MAX: usize = 200;
/// Errors beyond the first 200 patterns.
pub const OTHER: &str = "other";

/// Counts the entries by pattern.
pub fn group_by_pattern(entries: &[LogEntry]) -> BTreeMap<String, u64> {
    let mut groups = BTreeMap::new();
    for entry in entries {
        let mut pattern = pattern_of(entry);
        if groups.len() >= PATTERNS_LEN_MAX && !groups.contains_key(&pattern) {
            OTHER.clone_into(&mut pattern);
        }
        *groups.entry(pattern).or_insert(0) += 1;
    }
    groups
}

/// The pattern of one entry: its error code; else a cause that its words tell (`database_locked`, `rate_limit`,
/// `pool_timeout`, `out_of_memory`, `connection_refused`, `timeout`); else its text with `*` for whatever varies.
pub fn pattern_of(entry: &LogEntry) -> String {
    if let Some(code) = &entry.error {
        // A sentence in the place of a code is treated as any sentence.
        if !code.contains(' ') {
            return code.clone();
        }
        if let Some(known) = known(code) {
            return known.to_owned();
        }
    }
    if let Some(known) = known(&entry.message) {
        return known.to_owned();
    }
    if entry.status == Some(429) {
        return "rate_limit".to_owned();
    }
    let text = match &entry.error {
        Some(sentence) if entry.message.is_empty() => sentence,
        _ => &entry.message,
    };
    match (template(text), entry.status) {
        (t, Some(status)) if t.is_empty() => format!("status_{status}"),
        (t, None) if t.is_empty() => "no message".to_owned(),
        (t, _) => t,
    }
}

fn known(text: &str) -> Option<&'static str> {
    static KNOWN: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
        [
            (
                "database_locked",
                r"database (table )?is locked|sqlite_busy|database_locked",
            ),
            (
                "rate_limit",
                r"rate.?limit|too many requests|(?-u:\b)429(?-u:\b)",
            ),
            (
                "pool_timeout",
                r"pool.{0,40}(time[d]?.?out|exhausted)|(time[d]?.?out|waiting).{0,40}pool",
            ),
            (
                "out_of_memory",
                r"out of memory|(?-u:\b)oom(?-u:\b)|memoryerror|cannot allocate memory",
            ),
            ("connection_refused", r"connection refused|econnrefused"),
            (
                "timeout",
                r"timed.?out|time.?out|deadline (has )?(elapsed|exceeded)",
            ),
        ]
        .into_iter()
        .map(|(name, pattern)| {
            let regex = Regex::new(&format!("(?i:{pattern})"));
            (name, regex.expect("a pattern that never changes"))
        })
        .collect()
    });
    KNOWN
        .iter()
        .find(|(_, regex)| regex.is_match(text))
        .map(|(name, _)| *name)
}

/// The text with `*` for numbers, hexadecimal numbers, ids and times, cut to 120 bytes.
fn template(text: &str) -> String {
    static VARYING: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]+(?:Z|[+-][0-9:]+)?", // a time
            r"|(?-u:\b)[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?-u:\b)", // a UUID
            r"|(?-u:\b)0[xX][0-9a-fA-F]+(?-u:\b)",
            r"|(?-u:\b)[0-9a-fA-F]*[0-9][0-9a-fA-F]{7,}(?-u:\b)", // a hash
            r"|[0-9]+(?:[.,:][0-9]+)*",
        ))
        .expect("a pattern that never changes")
    });
    let mut head = text.trim().to_owned();
    // Longer texts differ late, if at all; and the work for one line is bounded.
    truncate(&mut head, TEMPLATE_LEN_MAX * 4);
    let mut masked = VARYING.replace_all(&head, "*").into_owned();
    truncate(&mut masked, TEMPLATE_LEN_MAX);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        pattern_of(&LogEntry::parse(line.as_bytes()))
    }

    #[test]
    fn known_causes_are_named() {
        for (line, pattern) in [
            (
                "ERROR sqlite3.OperationalError: database is locked",
                "database_locked",
            ),
            ("SqliteFailure SQLITE_BUSY", "database_locked"),
            (
                r#"{"error":"my_code","message":"database is locked"}"#,
                "my_code",
            ),
            (r#"{"error":"Database is locked (5)"}"#, "database_locked"),
            ("ERROR upstream said 429", "rate_limit"),
            (r#"{"status":429,"message":"no"}"#, "rate_limit"),
            (
                "ERROR QueuePool limit reached, connection timed out",
                "pool_timeout",
            ),
            (
                "ERROR timed out waiting for a connection from the pool",
                "pool_timeout",
            ),
            ("ERROR request timeout after 30s", "timeout"),
            ("FATAL Out of memory", "out_of_memory"),
            (
                "ERROR connect: Connection refused (os error 111)",
                "connection_refused",
            ),
            (r#"{"status":502}"#, "status_502"),
            (r#"{"level":"error"}"#, "no message"),
        ] {
            assert_eq!(of(line), pattern, "{line}");
        }
        assert_ne!(
            of("ERROR 14290 rooms"),
            "rate_limit",
            "a number that merely holds 429"
        );
    }

    #[test]
    fn texts_that_differ_in_numbers_only_are_one_pattern() {
        let lines = [
            "ERROR user 17 not found in 0xdeadbeef (3.5 ms)",
            "ERROR user 4 not found in 0x01 (12 ms)",
            "ERROR id 0b6a7f10-1111-2222-3333-444455556666 is gone",
            "ERROR id 9f6a7f10-aaaa-bbbb-cccc-444455556666 is gone",
        ];
        let entries: Vec<LogEntry> = lines
            .iter()
            .map(|l| LogEntry::parse(l.as_bytes()))
            .collect();
        let groups = group_by_pattern(&entries);
        assert_eq!(groups.len(), 2, "{groups:?}");
        assert_eq!(groups["ERROR user * not found in * (* ms)"], 2);
        assert_eq!(groups["ERROR id * is gone"], 2);
    }

    #[test]
    fn the_number_of_patterns_is_bounded() {
        let entries: Vec<LogEntry> = (0..500_u32)
            .map(|i| LogEntry {
                error: Some(format!("code_{i}")),
                ..LogEntry::default()
            })
            .collect();
        let groups = group_by_pattern(&entries);
        assert_eq!(groups.len(), PATTERNS_LEN_MAX + 1);
        assert_eq!(groups[OTHER], 300);
    }
}
