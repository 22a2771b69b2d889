//! Followed log lines grouped into templates: how often each comes, and which errors are new.
//!
//! Series, for a log called `NAME`: `log/NAME/template/ID`, the lines of one template a second; `log/NAME/lines`, all of
//! them; `log/NAME/error_share`, those that tell of an error. A template that has left is not told of any more.

use std::borrow::Cow;
use std::sync::Arc;

use evenkeel_core::Timestamp;
use evenkeel_detect::TemplateMiner;
use evenkeel_detect::template::NewError;

use super::collected::{Collected, Collecting};
use super::log_entry::LogEntry;
use super::reading::ReadingKind;

/// Most templates of one log.
pub const LOG_TEMPLATES_MAX: usize = 200;
/// Most new errors told at once; what is beyond is counted.
pub const NEW_ERRORS_MAX: usize = 10;

/// Errors that were not seen before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewErrors {
    /// The first ones.
    pub errors: Vec<NewError>,
    /// How many more there were.
    pub more: u64,
}

/// Groups the lines of one log.
#[derive(Debug)]
pub struct LogTemplates {
    name: String,
    service: Option<Arc<str>>,
    miner: TemplateMiner,
}

impl LogTemplates {
    /// For a log of this name, of this service where it is one's own. A `miner` may go on from what was saved.
    pub fn new(name: &str, service: Option<Arc<str>>, miner: Option<TemplateMiner>) -> Self {
        Self {
            name: name.to_owned(),
            service,
            miner: miner.unwrap_or_else(|| TemplateMiner::new(LOG_TEMPLATES_MAX)),
        }
    }

    /// What is known of the lines, to be looked at or saved.
    pub fn miner(&self) -> &TemplateMiner {
        &self.miner
    }

    /// Takes the lines that came, at `at`.
    pub fn take(&mut self, at: Timestamp, entries: &[LogEntry]) -> NewErrors {
        let mut new = NewErrors::default();
        for entry in entries {
            let seen = self.miner.observe(at, &text(entry), entry.is_error());
            match seen.new_error {
                Some(error) if new.errors.len() < NEW_ERRORS_MAX => new.errors.push(error),
                Some(_) => new.more += 1,
                None => {}
            }
        }
        new
    }

    /// Ends a window at `at` and tells its rates. Nothing for the first, whose beginning is not known, and when the
    /// clock went back.
    pub fn close(&mut self, at: Timestamp) -> Collected {
        let Some(window) = self.miner.close_window(at) else {
            return Collected::default();
        };
        let mut out = self.collecting(at);
        let seconds = window.to.millis_since(window.from) as f64 / 1000.0;
        let (mut lines, mut errors) = (window.lines_left, 0);
        for rate in &window.rates {
            lines += rate.lines;
            errors += rate.errors;
            out.put(
                &format!("template/{}", rate.id),
                ReadingKind::Rate,
                rate.per_second,
            );
        }
        errors += window.errors_left;
        out.put("lines", ReadingKind::Rate, lines as f64 / seconds);
        if lines > 0 {
            let share = errors as f64 / lines as f64;
            out.put("error_share", ReadingKind::Share { n: lines }, share);
        }
        out.collected
    }

    /// Ends a window in which the log could not be read all the time: there are no figures for it, and this is why.
    pub fn unread(&mut self, at: Timestamp, reason: &str) -> Collected {
        self.miner.skip_window(at);
        let mut out = self.collecting(at);
        out.missing("*", reason);
        out.collected
    }

    fn collecting(&self, at: Timestamp) -> Collecting {
        Collecting::new(format!("log/{}", self.name), self.service.clone(), at)
    }
}

/// What of an entry is looked at: its message, else its error code, else its status.
fn text(entry: &LogEntry) -> Cow<'_, str> {
    match (&entry.message, &entry.error, entry.status) {
        (message, _, _) if !message.is_empty() => Cow::Borrowed(message),
        (_, Some(error), _) => Cow::Borrowed(error),
        // Spelled out: numbers are masked, and a status says what happened.
        (_, _, Some(status)) => Cow::Owned(format!("status {}", words(status))),
        _ => Cow::Borrowed("no message"),
    }
}

fn words(status: u16) -> &'static str {
    match status {
        100..=399 => "good",
        429 => "refused for the rate",
        400..=499 => "refused",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::collect::log_follow::{FollowFrom, LogFollower};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + second * 1000)
    }

    fn entries(lines: &[&str]) -> Vec<LogEntry> {
        lines
            .iter()
            .map(|l| LogEntry::parse(l.as_bytes()))
            .collect()
    }

    fn values(collected: &Collected, part: &str) -> Vec<f64> {
        let of = |r: &&super::super::Reading| r.series.contains(part);
        collected
            .readings
            .iter()
            .filter(of)
            .map(|r| r.value)
            .collect()
    }

    #[test]
    fn the_message_of_a_structured_line_is_what_counts() {
        let mut log = LogTemplates::new("app", Some("api".into()), None);
        let new = log.take(
            at(0),
            &entries(&[
                r#"{"ts":1762715115,"level":"error","message":"write to shard 4 failed","request":"a"}"#,
                r#"{"level":"error","message":"write to shard 17 failed","ts":1762715199,"request":"b"}"#,
                r#"{"error":"database_locked"}"#,
                r#"{"status":503}"#,
                r#"{"status":200}"#,
                r#"{"level":"info"}"#,
            ]),
        );
        let told: Vec<&str> = new.errors.iter().map(|e| e.template.as_str()).collect();
        assert_eq!(
            told,
            [
                "write to shard <num> failed",
                "database_locked",
                "status failed"
            ]
        );
        assert_eq!(log.miner().templates().len(), 5);
    }

    #[test]
    fn rates_are_readings_and_what_was_not_read_is_missing() {
        let mut log = LogTemplates::new("app", None, None);
        assert_eq!(log.close(at(0)), Collected::default());
        let lines = [
            "INFO request 1 done",
            "INFO request 2 done",
            "ERROR no room left on the disk",
            "INFO request 3 done",
        ];
        log.take(at(5), &entries(&lines));
        let told = log.close(at(10));
        assert_eq!(values(&told, "/template/"), [0.3, 0.1]);
        assert_eq!(values(&told, "log/app/lines"), [0.4]);
        assert_eq!(values(&told, "log/app/error_share"), [0.25]);
        let quiet = log.close(at(20));
        assert_eq!(values(&quiet, "/template/"), [0.0, 0.0]);
        assert_eq!(
            values(&quiet, "error_share"),
            Vec::<f64>::new(),
            "no line, no share"
        );
        log.take(at(21), &entries(&lines));
        let unread = log.unread(at(30), "permission denied");
        assert!(unread.readings.is_empty());
        assert_eq!(
            (&*unread.missing[0].series, &*unread.missing[0].reason),
            ("log/app/*", "permission denied")
        );
        assert_eq!(
            values(&log.close(at(40)), "/template/"),
            [0.0, 0.0],
            "nothing is made up for"
        );
    }

    #[test]
    fn a_flood_of_new_errors_is_counted() {
        let mut log = LogTemplates::new("app", None, None);
        let lines: Vec<String> = ('a'..='z').map(|c| format!("ERROR {c}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let new = log.take(at(0), &entries(&lines));
        assert_eq!((new.errors.len(), new.more), (NEW_ERRORS_MAX, 16));
    }

    #[test]
    fn templates_go_on_over_rotation_and_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let append = |text: &str| {
            let file = std::fs::File::options()
                .append(true)
                .create(true)
                .open(&path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
        let mut log = LogTemplates::new("x", None, None);
        log.close(at(0));
        let mut look = |second| {
            let (entries, problems) = follower.poll(1000);
            assert!(problems.is_empty());
            let new = log.take(at(second), &entries);
            (log.close(at(second)), new.errors.len())
        };
        append("2026-01-31T12:00:00Z ERROR shard 1 lost\n");
        let (first, new) = look(1);
        assert_eq!(new, 1);
        std::fs::rename(&path, dir.path().join("x.log.1")).unwrap();
        append("2026-01-31T12:00:01Z ERROR shard 2 lost\n");
        let (second, new) = look(2);
        assert_eq!(
            (second.readings[0].series.clone(), new),
            (first.readings[0].series.clone(), 0)
        );
        std::fs::write(&path, "2026-01-31T12:00:02Z ERROR shard 3 lost\n").unwrap();
        let (third, new) = look(3);
        assert_eq!((values(&third, "/template/"), new), (vec![1.0], 0));
    }
}
