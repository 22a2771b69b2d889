//! Follows log files as they grow, and reads the recent errors from their ends.
//!
//! A file may be moved away or removed (rotation) or cut (truncation) at any time: what was written to the old one
//! until the new one was noticed is still read, and a cut file is read from its beginning. That a file was cut is seen
//! by its length, and, where it has grown beyond its old length since, by what stands before the place where reading
//! goes on. What cannot be had: a file that came and went between two polls, and what is written to an old file after
//! the new one was noticed.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use evenkeel_core::Timestamp;

use super::log_entry::LogEntry;

/// Longest line; what comes after is cut off, in bytes.
pub const LINE_LEN_MAX: usize = 64 * 1024;
/// How much of the end of a file is read for recent errors, in bytes.
pub const TAIL_LEN_MAX: u64 = 4 * 1024 * 1024;
/// How much of one file one poll reads at most, in bytes.
const POLL_LEN_MAX: usize = 8 * 1024 * 1024;
const CHUNK_LEN: usize = 64 * 1024;
/// How much of what was read last from a log is compared at the next poll, in bytes.
const TAIL_MARK_LEN: usize = 64;

/// Where following begins in a file that is there already. A file that comes later is read from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowFrom {
    /// At its end: only what is written from now on.
    End,
    /// At this byte; beyond the end means the end.
    Offset(u64),
}

/// Follows several files. Each poll reads what was written since the one before.
#[derive(Debug)]
pub struct LogFollower {
    files: Vec<Follow>,
    /// Whose turn comes first, so that a busy file does not starve the others.
    turn: usize,
}

impl LogFollower {
    /// Follows these files; they need not exist yet.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, from: FollowFrom) -> Self {
        let files = files.into_iter().map(|path| Follow::new(path, from));
        Self {
            files: files.collect(),
            turn: 0,
        }
    }

    /// The lines that were completed since the last poll: at most `lines_max`, the rest is there next time. Empty
    /// lines are left out. A file that cannot be read is tried again next time; why stands in the second part, as
    /// a sentence that names the file. A file that does not exist is no problem: it may come.
    pub fn poll(&mut self, lines_max: usize) -> (Vec<LogEntry>, Vec<String>) {
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        let count = self.files.len();
        for i in 0..count {
            let file = &mut self.files[(self.turn + i) % count];
            if let Err(e) = file.poll(lines_max, &mut entries)
                && e.kind() != io::ErrorKind::NotFound
            {
                problems.push(format!("cannot read the log {}: {e}", file.path.display()));
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        (entries, problems)
    }
}

#[derive(Debug)]
struct Follow {
    path: PathBuf,
    open: Option<Open>,
    lines: Lines,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// What stands right before the offset.
    mark: Vec<u8>,
}

impl Follow {
    fn new(path: PathBuf, from: FollowFrom) -> Self {
        let from = match from {
            FollowFrom::End => u64::MAX,
            FollowFrom::Offset(offset) => offset,
        };
        Self {
            open: Open::new(&path, from).ok(),
            path,
            lines: Lines::default(),
        }
    }

    fn poll(&mut self, lines_max: usize, entries: &mut Vec<LogEntry>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_LEN];
        for turn in 0..POLL_LEN_MAX / CHUNK_LEN {
            self.lines.take(lines_max, entries);
            if entries.len() >= lines_max {
                return Ok(());
            }
            let open = match &mut self.open {
                Some(open) => open,
                none => none.insert(Open::new(&self.path, 0)?),
            };
            if open.was_cut(turn == 0)? {
                self.lines.clear();
            }
            let len = open.file.read(&mut chunk)?;
            open.has_read(&chunk[..len]);
            self.lines.put(&chunk[..len]);
            if len == 0 {
                if !open.was_moved(&self.path)? {
                    return Ok(());
                }
                // Nobody will complete its last line.
                self.lines.put(b"\n");
                self.open = None;
            }
        }
        self.lines.take(lines_max, entries);
        Ok(())
    }
}

impl Open {
    fn new(path: &Path, from: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let offset = from.min(metadata.len());
        let mut mark = vec![0; TAIL_MARK_LEN.min(usize::try_from(offset).unwrap_or(usize::MAX))];
        file.seek(SeekFrom::Start(offset - mark.len() as u64))?;
        file.read_exact(&mut mark)?;
        Ok(Self {
            file,
            identity: identity(&metadata),
            offset,
            mark,
        })
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        let last = &bytes[bytes.len().saturating_sub(TAIL_MARK_LEN)..];
        let kept = (self.mark.len() + last.len()).saturating_sub(TAIL_MARK_LEN);
        self.mark.drain(..kept);
        self.mark.extend_from_slice(last);
    }

    /// Whether the file was cut; if so, reading goes on at its beginning. With `look` also what was read last is
    /// compared with what stands there now.
    fn was_cut(&mut self, look: bool) -> io::Result<bool> {
        let is_shorter = self.file.metadata()?.len() < self.offset;
        if is_shorter || (look && !self.stands_where_it_stood()?) {
            self.offset = self.file.seek(SeekFrom::Start(0))?;
            self.mark.clear();
            return Ok(true);
        }
        Ok(false)
    }

    fn stands_where_it_stood(&mut self) -> io::Result<bool> {
        let begin = self.offset - self.mark.len() as u64;
        self.file.seek(SeekFrom::Start(begin))?;
        let mut now = vec![0; self.mark.len()];
        match self.file.read_exact(&mut now) {
            Ok(()) => Ok(now == self.mark),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether another file has taken its place.
    fn was_moved(&self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(identity(&metadata) != self.identity),
            // Moved away, and the new one is not there yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// What tells two files of one name apart.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

/// What tells two files of one name apart.
#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> (u64, u64) {
    let created = metadata.created().ok();
    let since = created.and_then(|c| c.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or((0, 0), |d| (d.as_secs(), u64::from(d.subsec_nanos())))
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// Never more than one chunk and the longest line.
    buffer: Vec<u8>,
    /// The rest of a line that was too long is thrown away.
    skipping: bool,
}

impl Lines {
    /// Without zero bytes: a writer that goes on where it was in a file that was cut leaves a hole of them.
    fn put(&mut self, bytes: &[u8]) {
        if bytes.contains(&0) {
            self.buffer.extend(bytes.iter().filter(|b| **b != 0));
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Moves whole lines out, until there are `lines_max` entries.
    fn take(&mut self, lines_max: usize, entries: &mut Vec<LogEntry>) {
        let mut begin = 0;
        while entries.len() < lines_max {
            let rest = &self.buffer[begin..];
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                if self.skipping {
                    begin = self.buffer.len();
                } else if rest.len() > LINE_LEN_MAX {
                    entries.push(LogEntry::parse(&rest[..LINE_LEN_MAX]));
                    self.skipping = true;
                    begin = self.buffer.len();
                }
                break;
            };
            let line = &rest[..end.min(LINE_LEN_MAX)];
            if !self.skipping && !line.trim_ascii().is_empty() {
                entries.push(LogEntry::parse(line));
            }
            self.skipping = false;
            begin += end + 1;
        }
        self.buffer.drain(..begin);
    }
}

/// The newest errors since `since` in these files, at most `max`, oldest first. Only the last 4 MiB of each file
/// are read. A line without a time has that of the line before it; in a file without any time, that of the
/// file's last change. A file that cannot be read is left out, with a warning in Evenkeel's own log.
pub fn recent_errors(files: &[PathBuf], since: Timestamp, max: usize) -> Vec<LogEntry> {
    let mut found = Vec::new();
    for path in files {
        match tail_errors(path, since) {
            Ok(errors) => found.extend(errors),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "a log of the target cannot be read");
            }
        }
    }
    found.sort_by_key(|(at, _)| *at);
    let older = found.len().saturating_sub(max);
    found.drain(..older);
    found.into_iter().map(|(_, entry)| entry).collect()
}

fn tail_errors(path: &Path, since: Timestamp) -> io::Result<Vec<(Timestamp, LogEntry)>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let begin = metadata.len().saturating_sub(TAIL_LEN_MAX);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(TAIL_LEN_MAX).read_to_end(&mut bytes)?;
    let mut at = jiff::Timestamp::try_from(metadata.modified()?)
        .map_or(since, |t| Timestamp::from_millis(t.as_millisecond()));
    let mut errors = Vec::new();
    // The first piece is the end of a line, unless the whole file was read.
    for line in bytes.split(|b| *b == b'\n').skip(usize::from(begin > 0)) {
        let entry = LogEntry::parse(&line[..line.len().min(LINE_LEN_MAX)]);
        at = entry.timestamp.unwrap_or(at);
        if entry.is_error() && at >= since {
            errors.push((at, entry));
        }
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn poll(follower: &mut LogFollower) -> Vec<String> {
        let (entries, problems) = follower.poll(1000);
        assert!(problems.is_empty(), "{problems:?}");
        entries.into_iter().map(|e| e.message).collect()
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        (dir, path)
    }

    #[test]
    fn only_new_whole_lines_are_told() {
        let (_dir, path) = log();
        append(&path, "old\n");
        let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
        assert!(poll(&mut follower).is_empty());
        append(&path, "one\n\ntw");
        assert_eq!(poll(&mut follower), ["one"]);
        append(&path, "o\r\n");
        assert_eq!(poll(&mut follower), ["two"]);
        let mut from_start = LogFollower::new([path], FollowFrom::Offset(0));
        assert_eq!(poll(&mut from_start), ["old", "one", "two"]);
    }

    #[test]
    fn rotation_loses_nothing() {
        let (dir, path) = log();
        let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
        assert!(poll(&mut follower).is_empty(), "it need not exist");
        append(&path, "a\n");
        assert_eq!(
            poll(&mut follower),
            ["a"],
            "it came later: read from its beginning"
        );
        append(&path, "b\nunfinished");
        std::fs::rename(&path, dir.path().join("x.log.1")).unwrap();
        append(&dir.path().join("x.log.1"), " end");
        assert_eq!(poll(&mut follower), ["b"]);
        append(&path, "c\n");
        assert_eq!(poll(&mut follower), ["unfinished end", "c"]);
    }

    #[test]
    fn a_cut_file_is_read_from_its_beginning() {
        let (_dir, path) = log();
        append(&path, "a long first line\nand half a seco");
        let mut follower = LogFollower::new([path.clone()], FollowFrom::Offset(0));
        assert_eq!(poll(&mut follower), ["a long first line"]);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        append(&path, "new\n");
        assert_eq!(poll(&mut follower), ["new"]);
    }

    #[test]
    fn a_cut_file_that_has_outgrown_its_old_length_is_read_from_its_beginning() {
        let (_dir, path) = log();
        append(&path, "old one\nold two\n");
        for from in [FollowFrom::End, FollowFrom::Offset(0)] {
            let mut follower = LogFollower::new([path.clone()], from);
            poll(&mut follower);
            std::fs::write(&path, "new one\nnew two\nnew three\n").unwrap();
            assert_eq!(poll(&mut follower), ["new one", "new two", "new three"]);
            append(&path, "new four\n");
            assert_eq!(poll(&mut follower), ["new four"], "and goes on as ever");
            std::fs::write(&path, "old one\nold two\n").unwrap();
        }
    }

    #[test]
    fn a_hole_before_what_is_written_after_a_cut_is_skipped() {
        let (_dir, path) = log();
        let mut writer = File::create(&path).unwrap();
        writer.write_all(&b"a line\n".repeat(30_000)).unwrap();
        let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
        assert!(poll(&mut follower).is_empty());
        writer.set_len(0).unwrap();
        // It goes on at its old place, far behind the end.
        writer.write_all(b"after\n").unwrap();
        assert_eq!(poll(&mut follower), ["after"]);
    }

    #[test]
    fn a_file_that_is_removed_and_made_anew_is_followed() {
        let (_dir, path) = log();
        append(&path, "a\n");
        let mut follower = LogFollower::new([path.clone()], FollowFrom::Offset(0));
        assert_eq!(poll(&mut follower), ["a"]);
        append(&path, "b\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            poll(&mut follower),
            ["b"],
            "what was written before is there"
        );
        assert!(poll(&mut follower).is_empty());
        append(&path, "c\n");
        assert_eq!(poll(&mut follower), ["c"]);
    }

    #[test]
    fn what_waits_in_an_old_file_comes_before_the_new_one() {
        let (dir, path) = log();
        let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
        let lines: Vec<String> = (0..30_000).map(|i| format!("line {i}\n")).collect();
        append(&path, &lines.concat());
        let mut seen = follower.poll(1_000).0;
        std::fs::rename(&path, dir.path().join("x.log.1")).unwrap();
        append(&path, "the new one\n");
        while seen.last().is_none_or(|e| e.message != "the new one") {
            let (more, problems) = follower.poll(7_000);
            assert!(!more.is_empty() && problems.is_empty(), "{problems:?}");
            seen.extend(more);
        }
        assert_eq!(seen.len(), 30_001);
        assert!((0..30_000).all(|i| seen[i].message == format!("line {i}")));
    }

    proptest! {
        /// Whatever happens to the file between two polls, each line that was written whole before a poll and not cut
        /// away before it is told once and in order.
        #[test]
        fn every_line_is_told_once(acts in prop::collection::vec(0..5_u8, 1..40)) {
            let (dir, path) = log();
            let mut follower = LogFollower::new([path.clone()], FollowFrom::End);
            let (mut written, mut told) = (Vec::new(), Vec::new());
            let mut old = 0;
            for act in acts {
                match act {
                    0 | 1 => {
                        let n = written.len();
                        let line = format!("{} line {n}", "x".repeat(n % 7 * 20 + 1));
                        append(&path, &format!("{line}\n"));
                        written.push(line);
                    }
                    // A rotation or a cut, of what has been read.
                    2 | 3 if path.exists() => {
                        told.extend(poll(&mut follower));
                        if act == 2 {
                            old += 1;
                            std::fs::rename(&path, dir.path().join(format!("x.log.{old}"))).unwrap();
                        } else {
                            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
                        }
                    }
                    _ => told.extend(poll(&mut follower)),
                }
                if act == 2 {
                    told.extend(poll(&mut follower));
                }
            }
            told.extend(poll(&mut follower));
            prop_assert_eq!(told, written);
        }
    }

    #[test]
    fn lines_and_polls_are_bounded() {
        let (_dir, path) = log();
        append(&path, &"x".repeat(LINE_LEN_MAX * 3));
        append(&path, "\nafter\n");
        let mut follower = LogFollower::new([path.clone()], FollowFrom::Offset(0));
        let lines = poll(&mut follower);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], "after");
        assert!(follower.files[0].lines.buffer.capacity() <= 4 * LINE_LEN_MAX);
        for i in 0..25 {
            append(&path, &format!("line {i}\n"));
        }
        let taken: Vec<usize> = (0..4).map(|_| follower.poll(10).0.len()).collect();
        assert_eq!(taken, [10, 10, 5, 0]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let (dir, _) = log();
        let mut follower = LogFollower::new([dir.path().to_owned()], FollowFrom::End);
        let (entries, problems) = follower.poll(10);
        assert!(entries.is_empty());
        assert!(problems[0].contains("not a regular file"), "{problems:?}");
    }

    #[test]
    fn recent_errors_are_the_newest_of_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        append(
            &a,
            "2026-01-01T00:00:00Z ERROR too old\n2026-01-01T01:00:00Z INFO fine\n\
             2026-01-01T01:00:01Z ERROR one\nERROR more of one\n",
        );
        append(
            &b,
            "{\"timestamp\":\"2026-01-01T01:00:00.5Z\",\"level\":\"error\",\"message\":\"zero\"}\n",
        );
        let since = Timestamp::parse("2026-01-01T00:30:00Z").unwrap();
        let files = [a, b, dir.path().join("missing"), dir.path().to_owned()];
        let messages = |max| -> Vec<String> {
            recent_errors(&files, since, max)
                .into_iter()
                .map(|e| e.message)
                .collect()
        };
        assert_eq!(
            messages(10),
            [
                "zero",
                "2026-01-01T01:00:01Z ERROR one",
                "ERROR more of one"
            ]
        );
        assert_eq!(messages(1), ["ERROR more of one"]);
    }

    #[test]
    fn only_the_end_of_a_big_file_is_read() {
        let (_dir, path) = log();
        append(&path, "ERROR at the very beginning\n");
        let filler = format!("INFO {}\n", "x".repeat(1000));
        append(&path, &filler.repeat(5000));
        append(&path, "ERROR at the end\n");
        let errors = recent_errors(&[path], Timestamp::from_millis(0), 10);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].message, "ERROR at the end");
    }
}
