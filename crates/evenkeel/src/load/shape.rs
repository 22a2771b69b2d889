//! Figures as people read them: times with three digits, counts with separators, and a histogram in a few rows.

/// Most rows of a histogram.
const ROWS_MAX: usize = 10;
/// Eighths of a column, so that short bars differ too.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Milliseconds with three digits: `0.412 ms`, `41.2 ms`, `1.23 s`.
pub(super) fn ms(value: f64) -> String {
    if value >= 1000.0 {
        return format!("{} s", three_digits(value / 1000.0));
    }
    format!("{} ms", three_digits(value))
}

fn three_digits(value: f64) -> String {
    // By what it is rounded to: 9.996 is 10.0, and no 10.00.
    if value < 0.9995 {
        format!("{value:.3}")
    } else if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// A count with separators: `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate: whole from 100 on, with one digit below.
pub(super) fn rate(value: f64) -> String {
    if value < 99.95 {
        return format!("{value:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and no rate reaches 2^64"
    )]
    count(value.round() as u64)
}

/// A share, 0 to 1, in percent; never rounded to all or nothing.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.01 {
        "< 0.01 %".to_owned()
    } else if percent < 0.995 && percent > 0.0 {
        format!("{percent:.2} %")
    } else if percent > 99.0 && percent < 100.0 {
        format!("{:.2} %", percent.min(99.99))
    } else {
        format!("{percent:.1} %")
    }
}

/// Bytes with three digits: `12.3 MB`.
pub(super) fn bytes(value: u64) -> String {
    let mut value = value as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{} {unit}", three_digits(value))
            };
        }
        value /= 1000.0;
    }
    format!("{} TB", three_digits(value))
}

/// A row of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Up to which value it goes, in milliseconds.
    pub(super) to_ms: f64,
    /// How many there are.
    pub(super) count: u64,
    /// Of all, 0 to 1.
    pub(super) share: f64,
}

/// A histogram in at most ten rows with edges at 1, 2 and 5 (at powers of ten where that would be too many).
/// `buckets`: microseconds, rising, with their counts.
pub(super) fn rows(buckets: impl Iterator<Item = (u64, u64)> + Clone) -> Vec<Row> {
    let fine = with_edges(buckets.clone(), &[1, 2, 5]);
    let rows = if fine.len() > ROWS_MAX {
        with_edges(buckets, &[1])
    } else {
        fine
    };
    let all: u64 = rows.iter().map(|(_, count)| count).sum();
    rows.into_iter()
        .map(|(to_us, count)| Row {
            to_ms: to_us as f64 / 1000.0,
            count,
            share: count as f64 / all.max(1) as f64,
        })
        .collect()
}

fn with_edges(buckets: impl Iterator<Item = (u64, u64)>, steps: &[u64]) -> Vec<(u64, u64)> {
    let mut edges = (0..=10)
        .flat_map(|power| steps.iter().map(move |step| step * 10_u64.pow(power)))
        .peekable();
    let mut rows: Vec<(u64, u64)> = Vec::new();
    for (us, count) in buckets.filter(|(_, count)| *count > 0) {
        while edges.peek().is_some_and(|edge| *edge < us) {
            let passed = edges.next();
            // Rows in the middle that hold nothing are rows all the same.
            if let (Some(edge), false) = (passed, rows.is_empty())
                && rows.last().is_some_and(|(to, _)| *to < edge)
            {
                rows.push((edge, 0));
            }
        }
        let Some(edge) = edges.peek().copied() else {
            break;
        };
        match rows.last_mut() {
            Some((to, sum)) if *to == edge => *sum += count,
            _ => rows.push((edge, count)),
        }
    }
    rows
}

/// A bar for a share, 0 to 1, of `width` columns; the smallest share that is not nothing shows something.
pub(super) fn bar(share: f64, width: usize) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a terminal's columns"
    )]
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Its lines: edge, bar, share.
pub(super) fn lines(rows: &[Row], width: usize) -> Vec<String> {
    let most = rows.iter().map(|r| r.share).fold(0.0, f64::max);
    rows.iter()
        .map(|row| {
            let share = if most > 0.0 { row.share / most } else { 0.0 };
            let bar = bar(share, width);
            let line = format!("≤ {:>8}  {bar:<width$}", ms(row.to_ms));
            if row.count == 0 {
                line.trim_end().to_owned()
            } else {
                format!("{line} {}", percent(row.share))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0.000 ms"),
            (0.0412, "0.041 ms"),
            (0.9996, "1.00 ms"),
            (1.234, "1.23 ms"),
            (9.996, "10.0 ms"),
            (99.96, "100 ms"),
            (999.4, "999 ms"),
            (1_234.0, "1.23 s"),
            (3_600_000.0, "3600 s"),
        ] {
            assert_eq!(ms(value), text);
        }
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(99.94), "99.9");
        assert_eq!(rate(12_345.6), "12,346");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345_678), "12.3 MB");
    }

    #[test]
    fn a_share_is_not_rounded_to_all_or_nothing() {
        for (share, text) in [
            (0.0, "0.0 %"),
            (0.000_01, "< 0.01 %"),
            (0.005, "0.50 %"),
            (0.5, "50.0 %"),
            (0.999_999, "99.99 %"),
            (1.0, "100.0 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn a_histogram_has_few_rows_and_loses_nothing() {
        let buckets = [(150_u64, 5_u64), (200, 5), (201, 10), (1_900, 20)];
        let rows = rows(buckets.into_iter());
        let shown: Vec<(f64, u64)> = rows.iter().map(|r| (r.to_ms, r.count)).collect();
        assert_eq!(shown, [(0.2, 10), (0.5, 10), (1.0, 0), (2.0, 20)]);
        assert!(rows[3].share.total_cmp(&0.5).is_eq());
        let wide = (0..10).map(|p| (10_u64.pow(p), 1));
        let rows = super::rows(wide);
        assert_eq!(rows.iter().map(|r| r.count).sum::<u64>(), 10);
        assert!(rows.len() <= ROWS_MAX, "{rows:?}");
        assert!(super::rows(std::iter::empty()).is_empty());
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.000_1, 4), "▏");
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(9.0, 4), "████");
        let rows = rows([(150, 9), (900, 1)].into_iter());
        let lines = lines(&rows, 8);
        assert_eq!(lines[0], "≤ 0.200 ms  ████████ 90.0 %");
        assert_eq!(lines[1], "≤ 0.500 ms");
    }
}
