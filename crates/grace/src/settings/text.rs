//! The settings as commented TOML: the file that people and playbooks edit.

use std::fmt::Write as _;
use std::path::Path;

use super::Settings;

/// One table: its name, what it is for, and its keys with value and comment.
type Table<'a> = (&'a str, &'a str, Vec<(&'a str, String, &'a str)>);

/// Renders `settings` so that every key has a comment above it.
pub(super) fn render(settings: &Settings) -> String {
    let mut out = String::from(
        "# Grace's settings. Read at start: restart Grace after a change.\n\
         # Relative paths start at the working directory given with --root.\n",
    );
    for (name, purpose, keys) in tables(settings) {
        // Writing into a String cannot fail.
        let _ = write!(out, "\n# {purpose}\n[{name}]\n");
        for (key, value, comment) in keys {
            for line in comment.lines() {
                let _ = writeln!(out, "# {line}");
            }
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

fn tables(s: &Settings) -> Vec<Table<'_>> {
    vec![
        (
            "server",
            "Where the API listens, and how much of the public read API it serves at once.",
            vec![
                ("host", text(&s.server.host), "IP address to listen on."),
                (
                    "port",
                    s.server.port.to_string(),
                    "Port to listen on; 0 takes a free one.",
                ),
                (
                    "workers",
                    s.server.workers.to_string(),
                    "Requests of the public read API worked on at the same time (count, 1 to 1024).",
                ),
                (
                    "queue",
                    s.server.queue.to_string(),
                    "Requests that may wait for a worker (count); more get 503 workers_exhausted.",
                ),
                (
                    "queue_timeout_ms",
                    s.server.queue_timeout_ms.to_string(),
                    "Longest wait for a worker (milliseconds).",
                ),
            ],
        ),
        (
            "database",
            "The SQLite file and the pool of connections to it.",
            vec![
                (
                    "path",
                    path(&s.database.path),
                    "The database file; it is made when it is missing.",
                ),
                (
                    "pool_size",
                    s.database.pool_size.to_string(),
                    "Connections at most (count, 1 to 256). Every query needs one of its own.",
                ),
                (
                    "pool_timeout_ms",
                    s.database.pool_timeout_ms.to_string(),
                    "Longest wait for a free connection (milliseconds); then 503 pool_timeout.",
                ),
                (
                    "busy_timeout_ms",
                    s.database.busy_timeout_ms.to_string(),
                    "Longest wait for a lock that another program holds (milliseconds);\nthen 503 database_locked.",
                ),
            ],
        ),
        (
            "limits",
            "Rate limit of the public read API (/docs and /api/metrics/summary).",
            vec![
                (
                    "requests_per_second",
                    format!("{:?}", s.limits.requests_per_second),
                    "Sustained rate (requests per second); above it 429 rate_limit.",
                ),
                (
                    "burst",
                    s.limits.burst.to_string(),
                    "Requests that may come at once before the rate counts (count).",
                ),
            ],
        ),
        (
            "sessions",
            "Sessions in memory. A request without an x-session-id header opens one.",
            vec![
                (
                    "max_entries",
                    s.sessions.max_entries.to_string(),
                    "Sessions kept (count); the least recently used makes room. 0 = no bound:\nmemory then grows with every new session.",
                ),
                (
                    "context_bytes",
                    s.sessions.context_bytes.to_string(),
                    "Memory of one session's conversation context (bytes).",
                ),
            ],
        ),
        (
            "chat",
            "The assistant's chat.",
            vec![
                (
                    "upstream_url",
                    text(&s.chat.upstream_url),
                    "Model server, as \"http://127.0.0.1:8702\"; \"\" uses the built-in local model.",
                ),
                (
                    "upstream_timeout_ms",
                    s.chat.upstream_timeout_ms.to_string(),
                    "Longest wait for the model server (milliseconds); then the local model answers.",
                ),
                (
                    "max_concurrent",
                    s.chat.max_concurrent.to_string(),
                    "Chats worked on at the same time (count); more get 503 chat_capacity.",
                ),
            ],
        ),
        (
            "governance",
            "Policy decisions.",
            vec![
                (
                    "cache_entries",
                    s.governance.cache_entries.to_string(),
                    "Decisions kept in memory (count); 0 evaluates every request against the database.",
                ),
                (
                    "cache_ttl_ms",
                    s.governance.cache_ttl_ms.to_string(),
                    "How long a kept decision counts (milliseconds).",
                ),
                (
                    "history_rows",
                    s.governance.history_rows.to_string(),
                    "Decisions kept in the database (rows); the reports and decisions read them all.",
                ),
            ],
        ),
        (
            "metrics",
            "The metrics collector, a process of its own.",
            vec![
                (
                    "interval_ms",
                    s.metrics.interval_ms.to_string(),
                    "Time between two scrapes of the API (milliseconds).",
                ),
                (
                    "collector_port",
                    s.metrics.collector_port.to_string(),
                    "Port of the collector's own GET /health; 0 = none.",
                ),
                (
                    "api_url",
                    text(&s.metrics.api_url),
                    "Address scraped, as \"http://127.0.0.1:8700\"; \"\" derives it from [server].",
                ),
                (
                    "keep_rows",
                    s.metrics.keep_rows.to_string(),
                    "Summaries kept in the database (rows).",
                ),
            ],
        ),
        (
            "audit",
            "Where decisions and chats are reported.",
            vec![
                (
                    "url",
                    text(&s.audit.url),
                    "Receiver on this host, as \"http://127.0.0.1:8710/audit\"; \"\" = off.",
                ),
                (
                    "token_file",
                    path(&s.audit.token_file),
                    "File that holds the receiver's bearer token; \"\" sends none.",
                ),
            ],
        ),
        (
            "log",
            "The structured log, one JSON object a line.",
            vec![
                (
                    "path",
                    path(&s.log.path),
                    "The log file; its directory is made.",
                ),
                (
                    "max_bytes",
                    s.log.max_bytes.to_string(),
                    "Size at which the file is moved to <path>.1 and begun anew (bytes).",
                ),
            ],
        ),
    ]
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_back_equal_and_every_key_has_a_comment() {
        let mut settings = crate::default_settings(0);
        settings.chat.upstream_url = "http://127.0.0.1:1".into();
        settings.limits.requests_per_second = 0.5;
        settings.log.path = "odd \"name\"\\here.log".into();
        let rendered = render(&settings);
        assert_eq!(toml::from_str::<Settings>(&rendered).unwrap(), settings);

        let lines: Vec<&str> = rendered.lines().collect();
        let mut keys = 0;
        for (index, line) in lines.iter().enumerate() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(
                    lines[index - 1].starts_with("# "),
                    "no comment above: {line}"
                );
                keys += 1;
            }
        }
        let tables = toml::Value::try_from(&settings).unwrap();
        let expected: usize = tables
            .as_table()
            .unwrap()
            .values()
            .map(|t| t.as_table().unwrap().len())
            .sum();
        assert_eq!(keys, expected, "every key of the structs is written");
    }
}
