//! The machine that measures: what it is, and how busy.

/// The three load averages.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first: Vec<&str> = text.split_whitespace().take(3).collect();
    if first.is_empty() {
        "unknown".to_owned()
    } else {
        first.join(" ")
    }
}

/// A line of Markdown.
pub(crate) fn describe(before: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name.trim());
    format!(
        "{}, {model}, {cores} cores; load averages before {before}, after {}.\n",
        std::env::consts::OS,
        load()
    )
}
