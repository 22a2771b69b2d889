//! The story for people: one column of times, one of entries, and the text, wrapped where there is a terminal.

use anstyle::{AnsiColor, Style};

use super::story::{Mark, Moment, Story};

/// Narrowest text that is worth wrapping, in characters.
const TEXT_WIDTH_MIN: usize = 24;

/// The lines to print. `width`: that of the terminal, in characters; none: lines stay whole.
pub(super) fn lines(story: &Story, width: Option<u16>, colour: bool) -> Vec<String> {
    let paint = Paint { colour };
    let width = width.map(usize::from);
    let mut out = head(story, &paint, width);
    let times: Vec<String> = story.moments.iter().map(|m| after(m.after_ms)).collect();
    let time_width = times.iter().map(String::len).max().unwrap_or(0);
    let seq_width = story
        .moments
        .iter()
        .map(|m| m.entry.sequence.to_string().len() + 1)
        .max()
        .unwrap_or(0);
    // Two spaces, the time, two, the entry, two, the mark of four, one.
    let indent = 2 + time_width + 2 + seq_width + 2 + 4 + 1;
    let text_width = width.map(|w| w.saturating_sub(indent).max(TEXT_WIDTH_MIN));
    let mut section = "";
    for (moment, time) in story.moments.iter().zip(&times) {
        if moment.section != section {
            section = &moment.section;
            out.push(String::new());
            out.push(paint.bold(section));
        }
        let before = format!(
            "  {}  {}  {} ",
            paint.dim(&format!("{time:>time_width$}")),
            paint.dim(&format!(
                "{:<seq_width$}",
                format!("#{}", moment.entry.sequence)
            )),
            mark(moment.mark, &paint),
        );
        out.extend(block(moment, &before, indent, text_width, &paint));
    }
    out.push(String::new());
    let last = story.moments.last().map_or(0, |m| m.entry.sequence);
    let hint = format!(
        "#N is the entry in the ledger; `evenkeel ledger prove {last}` proves that it stands there unchanged."
    );
    out.extend(wrap(&hint, width).into_iter().map(|l| paint.dim(&l)));
    out
}

fn head(story: &Story, paint: &Paint, width: Option<usize>) -> Vec<String> {
    let a = &story.anomaly;
    let word = |key: &str| a[key].as_str().unwrap_or("").to_owned();
    let place = ["test", "series", "service"]
        .iter()
        .find_map(|k| a[*k].as_str());
    let what = format!(
        "{} ({}), {}: {}",
        word("type"),
        place.unwrap_or("target"),
        word("severity"),
        word("details")
    );
    let end = match (&story.ended, &story.summary) {
        (None, _) => "open: it is still under way".to_owned(),
        (Some(ended), summary) => format!(
            "{} after {} and {} attempt{}: {}",
            ended.replace('_', " "),
            span(story.duration_ms),
            story.attempts,
            if story.attempts == 1 { "" } else { "s" },
            summary.as_deref().unwrap_or("")
        ),
    };
    let good = matches!(
        story.ended.as_deref(),
        Some("resolved" | "resolved_with_advice" | "cleared" | "mitigated")
    );
    let style = match (&story.ended, good) {
        (None, _) => AnsiColor::Yellow,
        (_, true) => AnsiColor::Green,
        (_, false) => AnsiColor::Red,
    };
    let mut out = vec![paint.bold(&story.workflow_id)];
    out.extend(wrap(&super::story::plain(&what), width));
    let ended = wrap(&super::story::plain(&end), width);
    out.extend(ended.into_iter().map(|l| paint.colour(&l, style)));
    out.push(paint.dim(&format!("opened {}", story.opened_at)));
    out
}

fn block(
    moment: &Moment,
    before: &str,
    indent: usize,
    width: Option<usize>,
    paint: &Paint,
) -> Vec<String> {
    let pad = " ".repeat(indent);
    let mut out = Vec::new();
    for (n, line) in wrap(&moment.title, width).into_iter().enumerate() {
        out.push(if n == 0 {
            format!("{before}{line}")
        } else {
            format!("{pad}{line}")
        });
    }
    for line in &moment.lines {
        for part in wrap(line, width) {
            out.push(format!("{pad}{}", paint.dim(&part)));
        }
    }
    out
}

fn mark(mark: Mark, paint: &Paint) -> String {
    match mark {
        Mark::Ok => paint.colour("ok  ", AnsiColor::Green),
        Mark::Fail => paint.colour("FAIL", AnsiColor::Red),
        Mark::Act => paint.colour("->  ", AnsiColor::Cyan),
        Mark::Skip => paint.dim("skip"),
        Mark::Note => "    ".to_owned(),
    }
}

/// `+12.3 s`, `+4 min 05 s`, `+2 h 10 min`.
fn after(ms: i64) -> String {
    if ms < 0 {
        format!("-{}", span(-ms))
    } else {
        format!("+{}", span(ms))
    }
}

fn span(ms: i64) -> String {
    let s = ms / 1000;
    if s < 60 {
        // Hundredths, so that what follows in one breath is told apart.
        return format!("{:.2} s", ms as f64 / 1000.0);
    }
    if s < 3600 {
        return format!("{} min {:02} s", s / 60, s % 60);
    }
    format!("{} h {:02} min", s / 3600, s / 60 % 60)
}

/// Words put into lines of at most `width` characters; a word that is longer is cut.
fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else {
        return vec![text.to_owned()];
    };
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() <= width {
            line.push(' ');
            line.extend(&word);
            used += 1 + word.len();
            continue;
        }
        if used > 0 {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        used = word.len();
        line.extend(&word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn styled(&self, text: &str, style: Style) -> String {
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn colour(&self, text: &str, colour: AnsiColor) -> String {
        self.styled(text, Style::new().fg_color(Some(colour.into())))
    }

    fn bold(&self, text: &str) -> String {
        self.styled(text, Style::new().bold())
    }

    fn dim(&self, text: &str) -> String {
        self.styled(text, Style::new().dimmed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_lose_no_word() {
        let text = "one two three four-and-a-very-long-word-that-does-not-fit five";
        for width in 5..40 {
            let lines = wrap(text, Some(width));
            assert!(
                lines.iter().all(|l| l.chars().count() <= width),
                "{lines:?}"
            );
            let joined: String = lines.concat().replace(' ', "");
            assert_eq!(joined, text.replace(' ', ""));
        }
        assert_eq!(wrap(text, None), [text]);
        assert_eq!(wrap("", Some(10)), [""]);
    }

    #[test]
    fn spans_read_as_people_write_them() {
        assert_eq!(after(1_234), "+1.23 s");
        assert_eq!(after(-20), "-0.02 s");
        assert_eq!(after(245_000), "+4 min 05 s");
        assert_eq!(after(7_800_000), "+2 h 10 min");
    }
}
